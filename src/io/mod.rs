//! Files: networks read from other systems, and quantized networks saved and loaded.

#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "safetensors")]
pub mod safetensors;

#[cfg(feature = "std")]
fn read_file(path: &std::path::Path) -> crate::Result<alloc::vec::Vec<u8>> {
    use alloc::string::ToString;
    let error = |e: std::io::Error| crate::Error::File { path: path.display().to_string(), reason: e.to_string() };
    std::fs::read(path).map_err(error)
}
