//! [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) files, which llama.cpp and other programs on ggml read
//! and write.
//!
//! [`GgufFile::parse`] reads the bytes of a file, such as a memory map, without copying or allocating tensors. A
//! [`GgufTensor`] is a view of its bytes: dequantize it, or use the blocks as they are.
//!
//! ```
//! use ndarray::arr2;
//! use ndarray_quant::block::{BlockTensor, ggml::Q8_0};
//! use ndarray_quant::io::gguf::{GgmlType, GgufBuilder, GgufFile, Value};
//!
//! let weights = BlockTensor::<Q8_0, _>::quantize(&arr2(&[[1.0f32; 32], [-0.5; 32]]))?;
//!
//! let mut builder = GgufBuilder::new();
//! builder.metadata("general.architecture", Value::from("mlp"))?;
//! builder.tensor("fc.weight", weights.shape(), GgmlType::Q8_0)?;
//! let mut bytes = builder.header();
//! bytes.extend(weights.as_bytes()); // tensors in order, each padded
//! builder.pad(&mut bytes);
//!
//! let file = GgufFile::parse(&bytes)?;
//! assert_eq!(file.get("general.architecture").and_then(|value| value.as_str()), Some("mlp"));
//! let tensor = file.tensor("fc.weight").unwrap();
//! assert_eq!((tensor.shape(), tensor.ggml_type()), (&[2, 32][..], GgmlType::Q8_0));
//! assert_eq!(tensor.blocks::<Q8_0>()?.as_bytes(), weights.as_bytes());
//! assert!((tensor.dequantize()?[[1, 7]] + 0.5).abs() < 1e-3);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```
//!
//! Versions 2 and 3 in little-endian order are read, and version 3 is written. A hostile file gives an error: every length is
//! checked against the bytes that are there before it is used. Only a list of names is allocated while a file is parsed, 16 bytes
//! for each entry of at least 13 bytes.

mod reader;
mod tensor;
mod types;
mod value;
mod writer;

pub use reader::GgufFile;
pub use tensor::GgufTensor;
pub use types::GgmlType;
pub use value::{Value, ValueArray, ValueType};
pub use writer::GgufBuilder;

use alloc::string::String;

use crate::error::{Error, FileError};

/// The first bytes of a file.
const MAGIC: &[u8; 4] = b"GGUF";

/// The alignment of tensors if the metadata does not give one.
const ALIGNMENT: usize = 32;

/// The entry of the metadata with the alignment.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The greatest number of axes of a tensor.
const MAX_AXES: usize = 4;

/// An error of the format.
fn malformed(what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    FileError::Format { what, expected: expected.into(), found: found.into() }.into()
}
