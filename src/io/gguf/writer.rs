//! Writes files.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::types::GgmlType;
use super::value::{Value, ValueType};
use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, MAX_AXES, malformed};
use crate::error::Result;

/// Writes the part of a GGUF file that comes before the bytes of its tensors.
///
/// Name the metadata and all tensors first. Then write [`header`](Self::header), and the bytes of each tensor in the same order,
/// each followed by [`padding`](Self::padding). So a file of any size is written tensor by tensor.
///
/// The [module](super) has an example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufBuilder {
    entries: u64,
    metadata: Vec<u8>,
    count: u64,
    descriptions: Vec<u8>,
    /// The sum of the sizes of all tensors, each padded.
    size: u64,
    keys: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl GgufBuilder {
    /// Creates a file without metadata and tensors. Tensors start at multiples of 32 bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry of the metadata.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the key exists, or is `general.alignment`, which is always 32.
    pub fn metadata(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        self.add_key(key)?;
        self.metadata.extend(value.value_type().id().to_le_bytes());
        value.write(&mut self.metadata);
        Ok(())
    }

    /// Adds an array to the metadata.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the values have several types or are arrays, or for the same reasons as
    /// [`metadata`](Self::metadata).
    pub fn metadata_array(&mut self, key: &str, values: &[Value<'_>]) -> Result<()> {
        let value_type = values.first().map_or(ValueType::U8, Value::value_type);
        let wrong = |value: &&Value<'_>| value.value_type() != value_type || value_type == ValueType::Array;
        if let Some(value) = values.iter().find(wrong) {
            return Err(malformed("array of the metadata", "values of one type", format!("{:?}", value.value_type())));
        }
        self.add_key(key)?;
        self.metadata.extend(ValueType::Array.id().to_le_bytes());
        self.metadata.extend(value_type.id().to_le_bytes());
        self.metadata.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| value.write(&mut self.metadata));
        Ok(())
    }

    fn add_key(&mut self, key: &str) -> Result<()> {
        if key == ALIGNMENT_KEY || !self.keys.insert(key.to_string()) {
            return Err(malformed(
                "key of the metadata",
                "a new key other than `general.alignment`",
                format!("{key:?}"),
            ));
        }
        self.entries += 1;
        Value::from(key).write(&mut self.metadata);
        Ok(())
    }

    /// Adds a tensor of this shape, in values, in the order of `ndarray`.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the name exists, the tensor has more than four axes, or its last axis is no
    /// multiple of a block.
    pub fn tensor(&mut self, name: &str, shape: &[usize], ggml_type: GgmlType) -> Result<()> {
        let size = ggml_type.tensor_bytes(shape).filter(|_| shape.len() <= MAX_AXES);
        let Some(size) = size else {
            let values = ggml_type.block_values();
            let expected = format!("at most {MAX_AXES} axes, the last one a multiple of {values} for {ggml_type}");
            return Err(malformed("tensor", expected, format!("shape {shape:?} for {name:?}")));
        };
        if !self.names.insert(name.to_string()) {
            return Err(malformed("name of a tensor", "a new name", format!("{name:?}")));
        }
        self.count += 1;
        Value::from(name).write(&mut self.descriptions);
        self.descriptions.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|&len| self.descriptions.extend((len as u64).to_le_bytes()));
        self.descriptions.extend(ggml_type.id().to_le_bytes());
        self.descriptions.extend(self.size.to_le_bytes());
        self.size = self.size.saturating_add((size as u64).next_multiple_of(ALIGNMENT as u64));
        Ok(())
    }

    /// Returns the bytes before the first tensor.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(&self.metadata);
        bytes.extend(&self.descriptions);
        self.pad(&mut bytes);
        bytes
    }

    /// Returns the number of zeros that follow `len` bytes of a tensor.
    pub fn padding(&self, len: usize) -> usize {
        len.next_multiple_of(ALIGNMENT) - len
    }

    /// Appends zeros up to the start of the next tensor, to the bytes of a file from its beginning on, or of a tensor.
    pub fn pad(&self, bytes: &mut Vec<u8>) {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Returns the size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        self.header().len() as u64 + self.size
    }
}
