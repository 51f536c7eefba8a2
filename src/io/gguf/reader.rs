//! Reads files.

use alloc::format;
use alloc::vec::Vec;

use super::tensor::GgufTensor;
use super::types::GgmlType;
use super::value::{Value, ValueType};
use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, MAX_AXES, malformed};
use crate::error::Result;

/// The rest of the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Takes bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| {
            malformed("GGUF file", format!("{len} more bytes"), format!("the end after {}", self.0.len()))
        })?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a number of things that have at least one byte each.
    pub(super) fn length(&mut self, what: &'static str) -> Result<usize> {
        let len = self.u64()?;
        let fits = usize::try_from(len).ok().filter(|&len| len <= self.0.len());
        fits.ok_or_else(|| {
            malformed(what, format!("at most {}, the bytes that follow", self.0.len()), format!("{len}"))
        })
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8]> {
        let len = self.length("length of a string")?;
        self.take(len)
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str> {
        let name = self.string()?;
        core::str::from_utf8(name).map_err(|error| malformed(what, "UTF-8", format!("{error}")))
    }

    fn entry(&mut self) -> Result<(&'a str, Value<'a>)> {
        let key = self.name("key of the metadata")?;
        let value_type = ValueType::from_id(self.u32()?)?;
        Ok((key, Value::read(self, value_type)?))
    }

    /// Reads the description of a tensor, and where its bytes start.
    fn tensor(&mut self) -> Result<(GgufTensor<'a>, u64)> {
        let name = self.name("name of a tensor")?;
        let ndim = self.u32()? as usize;
        if ndim > MAX_AXES {
            return Err(malformed("number of axes of a tensor", format!("at most {MAX_AXES}"), format!("{ndim}")));
        }
        // Files have the axis whose elements are neighbours first.
        let mut shape = [1; MAX_AXES];
        for len in shape[..ndim].iter_mut().rev() {
            let found = self.u64()?;
            *len = usize::try_from(found)
                .map_err(|_| malformed("length of an axis", "a length that fits in memory", format!("{found}")))?;
        }
        let id = self.u32()?;
        let ggml_type = GgmlType::from_id(id)
            .ok_or_else(|| malformed("type of a tensor", "a type of ggml", format!("number {id} for {name:?}")))?;
        Ok((GgufTensor::new(name, shape, ndim, ggml_type), self.u64()?))
    }
}

/// A GGUF file: metadata and tensors, as views of its bytes.
///
/// Metadata and descriptions of tensors are checked when the file is parsed and read again when they are asked for, so a file
/// takes no memory beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GgufFile<'a> {
    version: u32,
    entries: usize,
    /// Starts with the metadata.
    metadata: Cursor<'a>,
    count: usize,
    /// Starts with the descriptions of tensors.
    descriptions: Cursor<'a>,
    data: &'a [u8],
}

/// The least number of bytes of an entry of the metadata: the length of the key, a type and a byte.
const LEAST_ENTRY: usize = 8 + 4 + 1;

/// The least number of bytes of a description: the length of the name, the number of axes, a type and an offset.
const LEAST_DESCRIPTION: usize = 8 + 4 + 4 + 8;

impl<'a> GgufFile<'a> {
    /// Parses the bytes of a file. The file need not be trusted.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the bytes are not such a file, are truncated, or have a tensor whose bytes are not
    /// where the one before it ends. Names of keys and tensors must be unique.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array()?;
        if magic != *MAGIC {
            return Err(malformed("GGUF file", "the first bytes `GGUF`", format!("{magic:x?}")));
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return Err(malformed("GGUF file", "version 2 or 3 in little-endian order", format!("{version:#x}")));
        }
        let count = number(&mut cursor, "number of tensors", LEAST_DESCRIPTION)?;
        let entries = number(&mut cursor, "number of metadata entries", LEAST_ENTRY)?;
        let metadata = cursor;
        // One list serves both, so that nothing grows beyond the counts that were checked.
        let mut names = Vec::with_capacity(entries.max(count));
        let mut alignment = ALIGNMENT as u64;
        for _ in 0..entries {
            let (key, value) = cursor.entry()?;
            names.push(key);
            if key == ALIGNMENT_KEY {
                alignment = value
                    .as_u64()
                    .filter(|a| a.is_power_of_two() && *a <= 1 << 30)
                    .ok_or_else(|| malformed(ALIGNMENT_KEY, "a power of two up to 2^30", format!("{value:?}")))?;
            }
        }
        unique("key of the metadata", &mut names)?;
        names.clear();
        let descriptions = cursor;
        let mut end = 0u64;
        for _ in 0..count {
            let (tensor, offset) = cursor.tensor()?;
            let size = tensor.size()?;
            let expected = end.next_multiple_of(alignment);
            if offset != expected {
                let found = format!("{offset} for {:?}", tensor.name());
                return Err(malformed("start of a tensor", format!("{expected}, behind the one before it"), found));
            }
            // An end beyond the file would be found below, but a sum of many could overflow.
            end = offset.saturating_add(size as u64);
            if end > bytes.len() as u64 {
                let found = format!("{}", bytes.len());
                return Err(malformed("GGUF file", format!("{end} bytes up to the end of {:?}", tensor.name()), found));
            }
            names.push(tensor.name());
        }
        unique("name of a tensor", &mut names)?;
        let position = bytes.len() - cursor.rest().len();
        let start = position.next_multiple_of(alignment as usize);
        let data = bytes.get(start..).unwrap_or_default();
        if end > data.len() as u64 {
            return Err(malformed("GGUF file", format!("{end} bytes of tensors"), format!("{}", data.len())));
        }
        Ok(Self { version, entries, metadata, count, descriptions, data })
    }

    /// Returns the version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Iterates over keys and values of the metadata.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let mut cursor = self.metadata;
        (0..self.entries).map_while(move |_| cursor.entry().ok())
    }

    /// Returns the value of a key. Takes time in proportion to the metadata before it.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.metadata().find(|entry| entry.0 == key).map(|entry| entry.1)
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Iterates over the tensors, in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = GgufTensor<'a>> + use<'a> {
        let (mut cursor, data) = (self.descriptions, self.data);
        (0..self.count).map_while(move |_| {
            let (tensor, offset) = cursor.tensor().ok()?;
            tensor.within(data, offset as usize)
        })
    }

    /// Returns the tensor of this name. Takes time in proportion to the number of tensors before it.
    pub fn tensor(&self, name: &str) -> Option<GgufTensor<'a>> {
        self.tensors().find(|tensor| tensor.name() == name)
    }
}

/// Reads a count, of things with at least `least` bytes each.
fn number(cursor: &mut Cursor<'_>, what: &'static str, least: usize) -> Result<usize> {
    let found = cursor.u64()?;
    let most = cursor.rest().len() / least;
    let fits = usize::try_from(found).ok().filter(|&count| count <= most);
    fits.ok_or_else(|| malformed(what, format!("at most {most} in the bytes that follow"), format!("{found}")))
}

/// Returns an error if a name occurs twice.
fn unique(what: &'static str, names: &mut [&str]) -> Result<()> {
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(malformed(what, "each name once", format!("{:?} twice", pair[0]))),
        None => Ok(()),
    }
}
