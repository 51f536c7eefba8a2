//! Reads files from a folder or an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// A folder or an archive of cases. Paths in it are relative and separated by `/`.
pub(crate) enum Store {
    /// A folder of any depth.
    Folder(PathBuf),
    /// The files of an archive.
    Archive(BTreeMap<String, Vec<u8>>),
}

const CASE: &str = "case.json";

impl Store {
    /// Opens a folder, or a `.tar.gz` archive.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Ok(Store::Folder(path.to_owned()));
        }
        let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(path)?));
        let mut files = BTreeMap::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.header().entry_type().is_file() {
                let name = entry.path()?.to_string_lossy().into_owned();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                files.insert(name, bytes);
            }
        }
        Ok(Store::Archive(files))
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Store::Folder(root) => fs::read(root.join(name)),
            Store::Archive(files) => files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }

    /// Returns the paths of all cases in order: folders with a `case.json`, and paths that an `index.json` lists.
    pub(crate) fn cases(&self) -> BTreeSet<String> {
        let mut cases = BTreeSet::new();
        match self {
            Store::Folder(root) => collect(root, "", &mut cases),
            Store::Archive(files) => {
                let folders = files.keys().filter_map(|name| name.strip_suffix(CASE));
                cases.extend(folders.map(|folder| folder.trim_end_matches('/').to_owned()));
            }
        }
        cases.extend(self.promised());
        cases
    }

    fn promised(&self) -> Vec<String> {
        let index = self.read("index.json").ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let entries = match index {
            Some(serde_json::Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        entries.iter().filter_map(|entry| Some(entry.get("path")?.as_str()?.to_owned())).collect()
    }
}

fn collect(folder: &Path, name: &str, cases: &mut BTreeSet<String>) {
    if folder.join(CASE).is_file() {
        cases.insert(name.to_owned());
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            let child = entry.file_name().to_string_lossy().into_owned();
            let child = if name.is_empty() { child } else { format!("{name}/{child}") };
            collect(&entry.path(), &child, cases);
        }
    }
}

/// A file's path within a case.
pub(crate) fn join(case: &str, file: &str) -> String {
    if case.is_empty() { file.to_owned() } else { format!("{case}/{file}") }
}
