//! Import networks from ONNX files, and write quantized ones.
//!
//! | task | see |
//! |---|---|
//! | read a float network | [`Graph::from_onnx`], [`OnnxReader::read_file`] |
//! | read a network that is already quantized | [`QuantizedNetwork::from_onnx`], [`OnnxReader::read_quantized_file`] |
//! | write a quantized network as QDQ | [`QuantizedNetwork::save_onnx`], [`QuantizedNetwork::to_onnx`] |
//!
//! [`Graph::from_onnx`] reads a file with the default settings. An [`OnnxReader`] sets the shapes of inputs that have
//! none in the file, and limits for files that are not trusted.
//!
//! All axes but the batch must have a fixed length. Weights are in the file itself, or beside it if it is read by its path.
//! Layout is ONNX's: NCHW.
//!
//! ```no_run
//! use ndarray_quant::{Error, error::GraphError, io::onnx::OnnxReader};
//!
//! let reader = OnnxReader::new().with_input_shape("image", &[1, 3, 224, 224]).with_max_bytes(100 << 20);
//! match reader.read_file("model.onnx") {
//!     Ok(graph) => println!("{} nodes", graph.nodes().len()),
//!     Err(Error::Graph(GraphError::Unsupported { op, node, why })) => println!("{op} of node {node}: {why}"),
//!     // One error names all nodes of a file that are not supported.
//!     Err(error) => println!("{error}"),
//! }
//! ```
//!
//! # Supported operators
//! The reader knows versions 1 to 24 of the operator set `ai.onnx`. A file of a later version, or without
//! `opset_import`, gives [`Error::File`].
//!
//! Nothing that could change a result is skipped. An operator, attribute, input or output that is not listed here gives
//! [`Error::Graph`], which names it and its node. An attribute that is not listed may be present with its default
//! value, and so may attributes that have no effect on inference, such as `momentum`.
//!
//! | operator | opsets | attributes and inputs |
//! |---|---|---|
//! | `Conv` | 1–24 | 1-D, 2-D; `auto_pad dilations group kernel_shape pads strides`; weights and bias constant |
//! | `ConvTranspose` | 1–24 | 1-D, 2-D; `auto_pad group kernel_shape output_padding output_shape pads strides`; weights and bias constant |
//! | `Gemm` | 1–24 | `alpha beta transA transB`; a constant `C` is one row |
//! | `MatMul` | 1–24 | tensors of any rank that broadcast, constant or not |
//! | `BatchNormalization` | 1–24 | `epsilon`; inference mode |
//! | `LayerNormalization` | 17–24 | `axis epsilon`; scale and bias constant |
//! | `InstanceNormalization` | 6–24 | `epsilon`; scale and bias constant |
//! | `GroupNormalization` | 21–24 | `epsilon num_groups`; scale and bias constant |
//! | `Add Sub Mul Div Pow` | 1–24 | broadcasting of opset 7 |
//! | `Max Min` | 1–24 | any number of inputs, broadcasting of opset 8 |
//! | `Sum Mean` | 8–24 | any number of inputs |
//! | `Einsum` | 12–24 | `equation`; each label once in a term |
//! | `Abs Ceil Exp Floor Log Neg Reciprocal Relu Sigmoid Softplus Softsign Sqrt Tanh` | 1–24 | |
//! | `Cos Sin` | 7–24 | |
//! | `Selu` | 1–24 | `alpha gamma` |
//! | `Swish` | 24 | `alpha` of 1 |
//! | `Erf Sign` | 9–24 | |
//! | `Round` | 11–24 | |
//! | `Elu LeakyRelu` | 1–24 | `alpha` |
//! | `HardSigmoid` | 1–24 | `alpha beta` |
//! | `HardSwish` | 14–24 | |
//! | `Mish` | 18–24 | |
//! | `Gelu` | 20–24 | `approximate` |
//! | `Clip` | 1–24 | `min max`: attributes, from opset 11 constant inputs |
//! | `Softmax LogSoftmax` | 1–24 | `axis` |
//! | `ArgMax ArgMin` | 1–24 | `axis keepdims select_last_index` |
//! | `CumSum` | 11–24 | `exclusive reverse`; constant axis |
//! | `LRN` | 1–24 | `alpha beta bias size` |
//! | `RMSNormalization` | 23–24 | `axis epsilon`; scale constant |
//! | `MaxPool` | 1–24 | 1-D, 2-D; `auto_pad ceil_mode dilations kernel_shape pads strides`; no `Indices` |
//! | `AveragePool` | 1–24 | as `MaxPool`, and `count_include_pad` |
//! | `GlobalAveragePool GlobalMaxPool` | 1–24 | |
//! | `ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare` | 1–24 | `axes keepdims noop_with_empty_axes` |
//! | `Concat` | 1–24 | `axis` |
//! | `Pad` | 1–24 | `axes mode pads value`; constant |
//! | `Resize` | 10–24 | `mode` nearest, linear; `scales` or `sizes` of height and width; `axes coordinate_transformation_mode nearest_mode` |
//! | `Upsample` | 7–9 | `mode` nearest, linear; `scales` of height and width |
//! | `DepthToSpace SpaceToDepth` | 1–24 | `blocksize mode` |
//! | `Flatten` | 1–24 | `axis` |
//! | `Reshape` | 1–24 | constant `shape`; `allowzero` |
//! | `Squeeze Unsqueeze` | 1–24 | `axes` |
//! | `Transpose` | 1–24 | `perm` |
//! | `Slice` | 1–24 | `starts ends axes`, `steps` from opset 10; constant |
//! | `Split` | 1–24 | `axis split num_outputs`; constant lengths |
//! | `Gather` | 1–24 | `axis`; constant indices, or computed rows of a constant |
//! | `Expand Tile` | 8–24, 6–24 | constant `shape`, `repeats` |
//! | `Equal Greater Less And Or Not` | 7–24 | `GreaterOrEqual` and `LessOrEqual` from opset 12 |
//! | `Where` | 9–24 | |
//! | `LSTM GRU` | 7–24 | `direction linear_before_reset`; default activations, no clip, sequences of one length |
//! | `PRelu` | 1–24 | constant slope |
//! | `Identity` | 1–24 | |
//! | `Dropout` | 1–24 | inference mode |
//! | `Constant` | 1–24 | `value value_float value_floats value_int value_ints` |
//! | `ConstantOfShape` | 9–24 | `value`; constant shape |
//! | `Range` | 11–24 | constants |
//! | `Mod` | 10–24 | `fmod`; constant integers |
//! | `GatherND ScatterND` | 11–24 | constants; no `batch_dims`, no `reduction` |
//! | `NonZero` | 9–24 | constant |
//! | `Trilu` | 14–24 | `upper`; constant diagonal |
//! | `Size` | 1–24 | |
//! | `Shape` | 1–24 | `start end` |
//! | `Cast` | 6–24 | `to` float, float16, bfloat16, double, int32, int64; of constants also bool |
//!
//! - Nodes whose inputs are all known are computed while the file is read, on floats and on integers: the shape
//!   computations of exporters.
//! - Activations have the shape that they have for a batch of one, and each sample of a batch is computed by itself. So a
//!   network may move its batch of one to any axis, or merge it with another.
//! - Integers and flags that are computed are `f32` in the graph, and so are inputs of type int32, int64 and bool. They are
//!   not divided.
//! - `ceil_mode` places windows as opset 19 defines it. Earlier versions left it open.
//! - Before opset 7, `BatchNormalization` and `Dropout` are in inference mode only with `is_test`, and operands
//!   broadcast only with `broadcast` and `axis`, which are not supported.
//!
//! Weights are of type float, double, float16 or bfloat16, and become `f32`; other constants are integers of 8 to 64 bits or
//! bool.
//!
//! # Quantized networks
//! The forms of ONNX Runtime's quantizer become a float graph and a [`Recipe`] with the scales and zero points of the file.
//! `docs/onnx.md` has the details, and a table of differences from ONNX Runtime.
//!
//! | operator | domain | supported |
//! |---|---|---|
//! | `QuantizeLinear DequantizeLinear` | both | `axis` for constants; constant parameters, activations per tensor |
//! | `QLinearConv QLinearMatMul` | `ai.onnx` | as `Conv` and `MatMul` |
//! | `QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere` | `com.microsoft` | as the float operators, channels first |
//! | `DynamicQuantizeLinear MatMulInteger ConvInteger` | `ai.onnx` | together, with the `Cast` and `Mul` that make floats of the sums |
//! | `DynamicQuantizeMatMul MatMulIntegerToFloat` | `com.microsoft` | constant weights |
//! | `DynamicQuantizeLSTM` | `com.microsoft` | as `LSTM`, in float |
//!
//! # Files that are written
//! A tensor of codes is quantized and dequantized behind the operator that computes it. ONNX Runtime makes operators on codes
//! of that, which compute the same codes where it has them. `docs/onnx.md` lists the differences.
//!
//! # Limits
//! A small file can describe a large computation, so the reader limits the cost of a file. A file that exceeds a limit
//! gives [`Error::File`] before the memory is allocated.
//!
//! | limit | default | setter |
//! |---|---|---|
//! | bytes of the file, with the data beside it | 2³¹ - 1 | [`with_max_bytes`](OnnxReader::with_max_bytes) |
//! | nodes | 65,536 | [`with_max_nodes`](OnnxReader::with_max_nodes) |
//! | elements of each tensor, for a batch of one | 2²⁸ | [`with_max_elements`](OnnxReader::with_max_elements) |
//! | floats that constant folding computes, in all | 2²⁴, and 4 for each float in the file | |
//! | integers that constant folding computes, in all | 2²⁰ | |
//! | rank of a tensor | 64 | |
//!
//! The limit on elements also bounds a run: no tensor is larger, times the batch.

pub(crate) mod constants;
mod describe;
pub(crate) mod export;
#[cfg(feature = "std")]
mod external;
pub(crate) mod import;
mod known;
mod limits;
pub(crate) mod node;
pub(crate) mod operator;
mod proto;
mod quantized;
pub(crate) mod tensor;
mod unsupported;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use prost::Message;

#[cfg(doc)]
use crate::error::Error;
use crate::error::{FileError, Result};
use crate::graph::{Graph, QuantizedNetwork, Recipe};
pub use describe::{AxisLength, ModelDescription, OperatorDescription, TensorDescription};
use limits::Limits;

/// Reads ONNX files, with shapes for inputs and with limits. See the [module](self) for the operators and the defaults.
///
/// ```
/// use ndarray_quant::{Error, io::onnx::OnnxReader};
/// assert!(matches!(OnnxReader::new().read(b"not a network"), Err(Error::File(_))));
/// ```
#[derive(Debug, Clone, Default)]
pub struct OnnxReader {
    shapes: BTreeMap<String, Vec<usize>>,
    limits: Limits,
}

impl OnnxReader {
    /// Creates a reader that takes the shapes of inputs from the file, with the [default limits](self#limits).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the shape of an input, for axes that have no length in the file. The first axis is the batch that the file
    /// was exported with; the graph runs on any batch.
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

    /// Sets the greatest number of elements of a tensor for a batch of one: inputs, weights, outputs of nodes. A run
    /// allocates tensors of these sizes. Tensors of more than 2²⁸ elements give an error with any setting.
    pub fn with_max_elements(mut self, max_elements: usize) -> Self {
        self.limits.elements = max_elements;
        self
    }

    /// Reads a network from the bytes of an ONNX file.
    ///
    /// # Errors
    /// [`Error::File`] if the bytes are not a valid ONNX file, are truncated, or exceed a [limit](self#limits);
    /// [`Error::Graph`] for an operator, attribute or input that is [not supported](self#supported-operators), for a
    /// tensor that is unknown or defined twice, for a [shape](Self::with_input_shape) of an input that the file does
    /// not have, and with the cause if the shapes in a node do not fit.
    pub fn read(&self, bytes: &[u8]) -> Result<Graph> {
        import::graph(&self.decode(bytes)?, &self.shapes, &self.limits)
    }

    /// Reads a network that is already quantized: a float graph with dequantized weights, and the recipe by which it is
    /// quantized in the file. [`Graph::quantize`] with this recipe gives the codes of the file.
    ///
    /// # Errors
    /// Same as [`read`](Self::read).
    pub fn read_quantized(&self, bytes: &[u8]) -> Result<(Graph, Recipe)> {
        import::quantized_graph(&self.decode(bytes)?, &self.shapes, &self.limits)
    }

    fn decode(&self, bytes: &[u8]) -> Result<proto::ModelProto> {
        self.limits.check_bytes(bytes.len() as u64)?;
        proto::ModelProto::decode(bytes).map_err(|error| {
            let expected = "a message of type ModelProto".into();
            let found = match proto::missing_bytes(bytes) {
                _ if bytes.is_empty() => "an empty file".into(),
                Some(missing) => alloc::format!("a truncated file: {missing} bytes or more are missing at the end"),
                None => error.to_string(),
            };
            FileError::Format { what: "ONNX file", expected, found }.into()
        })
    }

    /// Describes the inputs, the outputs and the operators of an ONNX file from its bytes. Does not read the network, so it
    /// also works if something in it is not supported.
    ///
    /// # Errors
    /// [`Error::File`] if the bytes are not an ONNX file or exceed the limit.
    pub fn describe(&self, bytes: &[u8]) -> Result<ModelDescription> {
        Ok(ModelDescription::new(&self.decode(bytes)?))
    }

    /// Same as [`describe`](Self::describe), of a file. Weights that are stored beside it are not read.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read, or else the same as [`describe`](Self::describe).
    #[cfg(feature = "std")]
    pub fn describe_file(&self, path: impl AsRef<std::path::Path>) -> Result<ModelDescription> {
        self.describe(&super::read_file(path.as_ref(), self.limits.bytes)?)
    }

    /// Reads a network from an ONNX file, and weights that are stored beside it (`.onnx.data`).
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read, or else the same as [`read`](Self::read).
    #[cfg(feature = "std")]
    pub fn read_file(&self, path: impl AsRef<std::path::Path>) -> Result<Graph> {
        import::graph(&self.decode_file(path.as_ref())?, &self.shapes, &self.limits)
    }

    /// Same as [`read_quantized`](Self::read_quantized), from a file.
    ///
    /// # Errors
    /// Same as [`read_file`](Self::read_file).
    #[cfg(feature = "std")]
    pub fn read_quantized_file(&self, path: impl AsRef<std::path::Path>) -> Result<(Graph, Recipe)> {
        import::quantized_graph(&self.decode_file(path.as_ref())?, &self.shapes, &self.limits)
    }

    #[cfg(feature = "std")]
    fn decode_file(&self, path: &std::path::Path) -> Result<proto::ModelProto> {
        let bytes = super::read_file(path, self.limits.bytes)?;
        let mut model = self.decode(&bytes)?;
        external::load(&mut model, path.parent().unwrap_or(path), bytes.len() as u64, &self.limits)?;
        Ok(model)
    }
}

impl QuantizedNetwork {
    /// Reads a network that is already quantized from an ONNX file, and prepares it to run on the codes of the file. Use
    /// [`OnnxReader::read_quantized_file`] to set the shapes of inputs or limits, or to edit the recipe.
    ///
    /// # Errors
    /// Same as [`OnnxReader::read_file`] and [`Graph::quantize`].
    #[cfg(feature = "std")]
    pub fn from_onnx(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let (graph, recipe) = OnnxReader::new().read_quantized_file(path)?;
        graph.quantize(&recipe)
    }

    /// Same as [`from_onnx`](Self::from_onnx), from the bytes of a file.
    ///
    /// # Errors
    /// Same as [`OnnxReader::read`] and [`Graph::quantize`].
    pub fn from_onnx_bytes(bytes: &[u8]) -> Result<Self> {
        let (graph, recipe) = OnnxReader::new().read_quantized(bytes)?;
        graph.quantize(&recipe)
    }
}

impl Graph {
    /// Reads a network from an ONNX file. Use an [`OnnxReader`] to set the shapes of inputs or limits.
    ///
    /// # Errors
    /// Same as [`OnnxReader::read_file`].
    #[cfg(feature = "std")]
    pub fn from_onnx(path: impl AsRef<std::path::Path>) -> Result<Self> {
        OnnxReader::new().read_file(path)
    }

    /// Reads a network from the bytes of an ONNX file. Use an [`OnnxReader`] to set the shapes of inputs or limits.
    ///
    /// # Errors
    /// Same as [`OnnxReader::read`].
    pub fn from_onnx_bytes(bytes: &[u8]) -> Result<Self> {
        OnnxReader::new().read(bytes)
    }
}
