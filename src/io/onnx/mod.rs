//! ONNX: reads the float networks that other systems export.
//!
//! The network must have a fixed shape but for the batch, and its weights in the file itself. An operator, or a use of
//! one, that this crate does not implement is refused with [`Error::Unsupported`], which names it and its node.
//!
//! | | operators |
//! |---|---|
//! | layers | `Conv` (2-D), `Gemm`, `MatMul` with a constant right side, `BatchNormalization` |
//! | functions | `Relu Clip Sigmoid Tanh HardSigmoid HardSwish LeakyRelu Softmax` |
//! | of two tensors | `Add Sub Mul Div` (the last with a constant divisor) |
//! | pooling | `MaxPool AveragePool GlobalAveragePool`, `ReduceMean` over height and width; `ceil_mode` as of version 19 |
//! | movement | `Concat Pad Resize Upsample Flatten Reshape Squeeze Unsqueeze Identity Dropout` |
//! | on shapes | `Constant Shape Gather Unsqueeze Squeeze Concat Cast` of integers that are known when the file is read |

mod import;
mod integers;
mod movement;
mod node;
mod proto;
mod tensor;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use prost::Message;

use crate::error::{Error, Result};
use crate::graph::Graph;

/// Reads a network from the bytes of an ONNX file.
///
/// ```
/// use ndarray_quant::{Error, io::onnx};
/// assert!(matches!(onnx::read(b"not a network"), Err(Error::Format { .. })));
/// ```
///
/// # Errors
/// Those of [`Reader::read`].
pub fn read(bytes: &[u8]) -> Result<Graph> {
    Reader::new().read(bytes)
}

/// Reads a network from an ONNX file.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, and those of [`Reader::read`].
#[cfg(feature = "std")]
pub fn load(path: impl AsRef<std::path::Path>) -> Result<Graph> {
    read(&super::read_file(path.as_ref())?)
}

/// Reads networks whose inputs have axes without a length in the file.
///
/// ```
/// # use ndarray_quant::{Error, io::onnx};
/// # let bytes: &[u8] = &[];
/// let graph = onnx::Reader::new().input_shape("image", &[1, 3, 224, 224]).read(bytes);
/// # assert!(graph.is_err());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Reader {
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Reader {
    /// Inputs have the shapes that the file says.
    pub fn new() -> Self {
        Self::default()
    }

    /// This input has this shape, for a batch of one.
    pub fn input_shape(mut self, name: &str, shape: &[usize]) -> Self {
        self.shapes.insert(name.into(), shape.into());
        self
    }

    /// Reads a network.
    ///
    /// # Errors
    /// [`Error::Format`] if the bytes are not a sound ONNX file, [`Error::Unsupported`] for what this crate does not
    /// implement, and those of [`GraphBuilder::node`](crate::graph::GraphBuilder::node).
    pub fn read(&self, bytes: &[u8]) -> Result<Graph> {
        let model = proto::ModelProto::decode(bytes).map_err(|e| Error::Format {
            what: "ONNX file",
            expected: "a message of type ModelProto".into(),
            found: e.to_string(),
        })?;
        import::graph(&model, &self.shapes)
    }
}
