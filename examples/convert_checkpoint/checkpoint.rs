//! The tensors of safetensors files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::program::{Result, at};

/// A tensor in a file.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// The number of bytes.
    pub(crate) len: usize,
    /// The index of the file, and the first byte in it.
    place: (usize, u64),
}

/// The headers of all files.
pub(crate) struct Checkpoint {
    /// In the order of files, and of bytes in a file.
    pub(crate) tensors: Vec<Tensor>,
    files: Vec<PathBuf>,
}

/// The bytes of the length of a header.
const PREFIX: usize = 8;

/// The format allows no longer headers.
const MAX_HEADER: u64 = 100_000_000;

impl Checkpoint {
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self> {
        let (mut tensors, mut names) = (Vec::new(), BTreeSet::new());
        for (index, path) in files.iter().enumerate() {
            let mut file = at(path, File::open(path))?;
            let size = at(path, file.metadata())?.len();
            let mut header = vec![0; PREFIX];
            at(path, file.read_exact(&mut header))?;
            let length = header.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            if length > MAX_HEADER || length > size {
                at(path, Err(format!("expected a header within the file, found one of {length} bytes")))?;
            }
            header.resize(length as usize, 0);
            at(path, file.read_exact(&mut header))?;
            let metadata: Metadata = at(path, serde_json::from_slice(&header))?;
            let start = PREFIX as u64 + length;
            let mut found: Vec<Tensor> = Vec::new();
            for (name, info) in metadata.tensors() {
                let (first, end) = info.data_offsets;
                if start + end as u64 > size {
                    at(path, Err(format!("expected all bytes of {name:?}, found the end of the file")))?;
                }
                if !names.insert(name.clone()) {
                    at(path, Err(format!("expected new names, found {name:?} again")))?;
                }
                let place = (index, start + first as u64);
                found.push(Tensor { name, dtype: info.dtype, shape: info.shape.clone(), len: end - first, place });
            }
            found.sort_by_key(|tensor| tensor.place);
            tensors.append(&mut found);
        }
        Ok(Self { tensors, files: files.into() })
    }

    /// Reads the bytes of a tensor.
    pub(crate) fn read(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        let path = &self.files[tensor.place.0];
        let mut file = at(path, File::open(path))?;
        at(path, file.seek(SeekFrom::Start(tensor.place.1)))?;
        let mut bytes = vec![0; tensor.len];
        at(path, file.read_exact(&mut bytes))?;
        Ok(bytes)
    }
}
