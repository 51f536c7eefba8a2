//! Tensors that are stored beside the ONNX file (`.onnx.data`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::limits::Limits;
use super::proto::{ModelProto, TensorProto};
use crate::error::{FileError, Result};
use crate::io::io_error;

/// Reads the data of all tensors that are stored in other files of the folder. Together with `used` bytes they are within
/// the limit of a file.
pub(super) fn load(model: &mut ModelProto, folder: &Path, used: u64, limits: &Limits) -> Result<()> {
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute).filter_map(|a| a.t.as_mut());
    let mut total = used;
    for tensor in graph.initializer.iter_mut().chain(attributes).filter(|tensor| tensor.data_location == 1) {
        let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &*entry.value);
        let malformed = |expected: &str, found: String| FileError::Format {
            what: "external data of an ONNX tensor",
            expected: expected.into(),
            found: format!("{found} in tensor {:?}", tensor.name),
        };
        let location = entry("location").ok_or_else(|| malformed("a location", "none".into()))?;
        let relative = Path::new(location);
        // A file must not read others of the machine.
        if location.is_empty()
            || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(malformed("a file in the folder of the network", format!("{location:?}")).into());
        }
        let number = |key: &str| {
            entry(key).map(|value| {
                value.parse::<u64>().map_err(|_| malformed("an offset and a length in bytes", format!("{value:?}")))
            })
        };
        let (offset, length) = (number("offset").transpose()?.unwrap_or(0), number("length").transpose()?);
        let path = folder.join(relative);
        let read = |total: u64| -> std::io::Result<core::result::Result<Vec<u8>, u64>> {
            let mut file = File::open(&path)?;
            let available = file.metadata()?.len().saturating_sub(offset);
            let length = length.map_or(available, |length| length.min(available));
            if total.saturating_add(length) > limits.bytes as u64 {
                return Ok(Err(length));
            }
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(length as usize)?;
            file.take(length).read_to_end(&mut bytes)?;
            Ok(Ok(bytes))
        };
        let bytes = read(total).map_err(|error| io_error(&path, error))?;
        let bytes = bytes.map_err(|length| {
            Limits::exceeded("bytes of the ONNX file and its data", limits.bytes, total.saturating_add(length))
        })?;
        if length.is_some_and(|length| bytes.len() as u64 != length) {
            let found = format!("{} bytes behind offset {offset} of {location:?}", bytes.len());
            return Err(malformed("a file with all bytes of the tensor", found).into());
        }
        total += bytes.len() as u64;
        let TensorProto { raw_data, data_location, .. } = tensor;
        (*raw_data, *data_location) = (bytes, 0);
    }
    Ok(())
}
