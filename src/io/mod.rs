//! File formats: import float networks from ONNX, save and load quantized networks as safetensors, read and write GGUF.

#[cfg(feature = "gguf")]
pub mod gguf;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "safetensors")]
pub mod safetensors;

#[cfg(all(feature = "std", any(feature = "onnx", feature = "safetensors")))]
use crate::error::FileError;

/// Reads a file of at most `max_bytes` bytes.
#[cfg(all(feature = "std", any(feature = "onnx", feature = "safetensors")))]
fn read_file(path: &std::path::Path, max_bytes: usize) -> crate::Result<alloc::vec::Vec<u8>> {
    use std::io::Read;
    let read = || -> std::io::Result<_> {
        let file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        // A pipe has no size: its end shows while it is read.
        let mut bytes = alloc::vec::Vec::new();
        if size <= max_bytes as u64 {
            bytes.try_reserve_exact(size as usize)?;
            file.take((max_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
        }
        Ok((bytes, size))
    };
    let (bytes, size) = read().map_err(|error| io_error(path, error))?;
    let size = size.max(bytes.len() as u64);
    if size > max_bytes as u64 {
        let found = alloc::format!("{size} or more in {}", path.display());
        return Err(FileError::Limit { what: "bytes of the file", max: max_bytes, found }.into());
    }
    Ok(bytes)
}

/// The error for a file that cannot be read or written.
#[cfg(all(feature = "std", any(feature = "onnx", feature = "safetensors")))]
fn io_error(path: &std::path::Path, error: std::io::Error) -> crate::Error {
    FileError::Io { path: path.into(), error: error.into() }.into()
}
