//! Import float networks from ONNX files.
//!
//! [`OnnxReader`] turns the bytes of a file into a [`Graph`]. All axes but the batch must have a fixed length, in the file
//! or by [`OnnxReader::with_input_shape`], and the weights must be in the file itself. Layout is ONNX's: NCHW.
//!
//! ```
//! use ndarray_quant::{Error, io::onnx::OnnxReader};
//!
//! let reader = OnnxReader::new().with_input_shape("image", &[1, 3, 224, 224]).with_max_bytes(100 << 20);
//! # let bytes: &[u8] = b"not a network";
//! match reader.read(bytes) {
//!     Ok(graph) => println!("{} nodes", graph.nodes().len()),
//!     Err(Error::Unsupported { op, node, why }) => println!("{op} of node {node}: {why}"),
//!     Err(error) => println!("{error}"),
//! }
//! ```
//!
//! # Supported operators
//! The reader knows versions 1 to 24 of the operator set `ai.onnx`. A file of a later version, or without
//! `opset_import`, is an error: [`Error::Format`].
//!
//! Nothing that could change a result is skipped. An operator, attribute, input or output that is not listed here is
//! [`Error::Unsupported`], which names it together with the node. An attribute that is not supported may be written with
//! its default value.
//!
//! | operator | opsets | attributes and inputs |
//! |---|---|---|
//! | `Conv` | 1–24 | 2-D; `auto_pad dilations group kernel_shape pads strides`; constant weights and bias |
//! | `Gemm` | 1–24 | `alpha beta transB`; constant `B`; constant `C`, one row |
//! | `MatMul` | 1–24 | a matrix times a constant matrix |
//! | `BatchNormalization` | 1–24 | `epsilon`; inference only (before opset 7 `is_test` must be set) |
//! | `Add Sub Mul Div` | 1–24 | broadcasting as of opset 7, not by `axis` and `broadcast`; constant subtrahend and divisor |
//! | `Relu Sigmoid Tanh` | 1–24 | |
//! | `LeakyRelu` | 1–24 | `alpha` |
//! | `HardSigmoid` | 1–24 | `alpha beta` |
//! | `HardSwish` | 14–24 | |
//! | `Clip` | 1–24 | `min max`, attributes before opset 11, then constant inputs |
//! | `Softmax` | 1–24 | `axis`; before opset 13 the axes after it must have length 1 |
//! | `MaxPool` | 1–24 | 2-D; `auto_pad ceil_mode dilations kernel_shape pads strides`; no `Indices` |
//! | `AveragePool` | 1–24 | as `MaxPool`, and `count_include_pad`; `dilations` from opset 19 |
//! | `GlobalAveragePool` | 1–24 | 2-D |
//! | `ReduceMean` | 1–24 | `axes` (an input from opset 18) height and width; `keepdims` |
//! | `Concat` | 1–24 | `axis`, not the batch |
//! | `Pad` | 1–24 | `mode` constant; `pads` (`paddings` in opset 1, an input from opset 11) of height and width, not negative; `value` 0; input `axes` from opset 18 |
//! | `Resize` | 10–24 | `mode` nearest; `scales` or `sizes` that are whole multiples of height and width; `axes`; `coordinate_transformation_mode` asymmetric with `nearest_mode` floor, or half_pixel with round_prefer_floor or round_prefer_ceil |
//! | `Upsample` | 7–9 | as `Resize` |
//! | `Flatten` | 1–24 | `axis` 1 |
//! | `Reshape` | 1–24 | constant `shape` that keeps the batch (an attribute before opset 5); `allowzero` |
//! | `Squeeze Unsqueeze` | 1–24 | `axes` (an input from opset 13), not the batch |
//! | `Identity` | 1–24 | |
//! | `Dropout` | 1–24 | inference only (before opset 7 `is_test` must be set) |
//! | `Constant` | 1–24 | `value value_float value_floats value_int value_ints` |
//! | `Shape` | 1–24 | `start end` |
//! | `Gather Cast` | 1–24, 6–24 | integer constants only: shape computations around `Reshape`; `axis`; `to` float, int32, int64 |
//!
//! `Concat`, `Squeeze` and `Unsqueeze` work on integer constants too. With `ceil_mode`, windows are placed as in
//! opset 19, which earlier versions left open.
//!
//! Tensors are `float`, `double`, `float16`, `bfloat16` (all become `f32`), `int32`, `int64`, `bool`.
//!
//! # Limits
//! A small file can describe a large computation, so the reader bounds what a file may cost. An excess is
//! [`Error::Format`], found before memory is allocated.
//!
//! | limit | default | setter |
//! |---|---|---|
//! | bytes of the file | 2³¹ - 1 | [`OnnxReader::with_max_bytes`] |
//! | nodes | 65,536 | [`OnnxReader::with_max_nodes`] |
//! | elements of each tensor, for a batch of one | 2²⁸ | [`OnnxReader::with_max_elements`] |
//! | floats computed by constant folding, together | 2²⁴ (`max_elements` if that is less), and 4 for each float in the file | |
//! | integers computed by constant folding, together | 2²⁰ | |
//! | rank of a tensor | 64 | |

mod import;
mod integers;
mod layers;
mod limits;
mod movement;
mod node;
mod operators;
mod proto;
mod tensor;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use prost::Message;

use crate::error::{Error, Result};
use crate::graph::Graph;
use limits::Limits;

/// Reads ONNX files into [`Graph`]s, with shapes for inputs that have none in the file and limits for files from others.
///
/// ```
/// use ndarray_quant::{Error, io::onnx::OnnxReader};
/// assert!(matches!(OnnxReader::new().read(b"not a network"), Err(Error::Format { .. })));
/// ```
#[derive(Debug, Clone, Default)]
pub struct OnnxReader {
    shapes: BTreeMap<String, Vec<usize>>,
    limits: Limits,
}

impl OnnxReader {
    /// Creates a reader that takes input shapes from the file and has the [default limits](self#limits).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the shape of an input, for axes that have no length in the file. The first axis is the batch; its length is
    /// the one that the file was exported with, and the graph runs on any other.
    pub fn with_input_shape(mut self, name: &str, shape: &[usize]) -> Self {
        self.shapes.insert(name.into(), shape.into());
        self
    }

    /// Sets the greatest size of a file in bytes. Decoding takes memory in proportion to it.
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.limits.bytes = max_bytes;
        self
    }

    /// Sets the greatest number of nodes.
    pub fn with_max_nodes(mut self, max_nodes: usize) -> Self {
        self.limits.nodes = max_nodes;
        self
    }

    /// Sets the greatest number of elements of a tensor for a batch of one: inputs, weights, and the outputs of nodes. A
    /// run allocates tensors of these sizes. More than 2²⁸ elements are never allowed.
    pub fn with_max_elements(mut self, max_elements: usize) -> Self {
        self.limits.elements = max_elements;
        self
    }

    /// Reads a network from the bytes of an ONNX file.
    ///
    /// # Errors
    /// [`Error::Format`] if the bytes are not a valid ONNX file, are truncated, or exceed a [limit](self#limits);
    /// [`Error::Unsupported`] for an operator, attribute or input that is [not supported](self#supported-operators);
    /// [`Error::Name`] for a tensor that is unknown or defined twice, and for a [shape](Self::with_input_shape) of an
    /// input that the file does not have; [`Error::Node`] with the cause if the shapes in a node do not fit.
    pub fn read(&self, bytes: &[u8]) -> Result<Graph> {
        self.limits.check_bytes(bytes.len() as u64)?;
        let model = proto::ModelProto::decode(bytes).map_err(|error| {
            let expected = "a message of type ModelProto".into();
            let found = match proto::missing_bytes(bytes) {
                _ if bytes.is_empty() => "an empty file".into(),
                Some(missing) => alloc::format!("a truncated file: {missing} bytes or more are missing at the end"),
                None => error.to_string(),
            };
            Error::Format { what: "ONNX file", expected, found }
        })?;
        import::graph(&model, &self.shapes, &self.limits)
    }

    /// Reads a network from an ONNX file.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read, or else the same as [`read`](Self::read).
    #[cfg(feature = "std")]
    pub fn read_file(&self, path: impl AsRef<std::path::Path>) -> Result<Graph> {
        self.read(&super::read_file(path.as_ref(), self.limits.bytes)?)
    }
}

/// Reads a network from the bytes of an ONNX file. Same as [`OnnxReader::read`] with the defaults.
///
/// # Errors
/// Same as [`OnnxReader::read`].
pub fn read(bytes: &[u8]) -> Result<Graph> {
    OnnxReader::new().read(bytes)
}

/// Reads a network from an ONNX file. Same as [`OnnxReader::read_file`] with the defaults.
///
/// # Errors
/// Same as [`OnnxReader::read_file`].
#[cfg(feature = "std")]
pub fn load(path: impl AsRef<std::path::Path>) -> Result<Graph> {
    OnnxReader::new().read_file(path)
}
