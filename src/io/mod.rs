//! File formats: import float networks from ONNX, save and load quantized networks as safetensors.

#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "safetensors")]
pub mod safetensors;

/// Reads a file of at most `max_bytes` bytes.
#[cfg(feature = "std")]
fn read_file(path: &std::path::Path, max_bytes: usize) -> crate::Result<alloc::vec::Vec<u8>> {
    use std::io::{Error, Read};
    let read = || {
        let file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        // A pipe has no size: its end shows while it is read.
        let mut bytes = alloc::vec::Vec::new();
        if size <= max_bytes as u64 {
            bytes.try_reserve_exact(size as usize)?;
            file.take((max_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
        }
        match size > max_bytes as u64 || bytes.len() > max_bytes {
            true => Err(Error::other(alloc::format!("the file has more than {max_bytes} bytes, the limit"))),
            false => Ok(bytes),
        }
    };
    read().map_err(|error| file_error(path, error))
}

/// The error for a file that cannot be read or written.
#[cfg(feature = "std")]
fn file_error(path: &std::path::Path, error: std::io::Error) -> crate::Error {
    use alloc::string::ToString;
    crate::Error::File { path: path.display().to_string(), reason: error.to_string() }
}
