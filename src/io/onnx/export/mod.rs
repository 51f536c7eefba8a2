//! Writes quantized networks as ONNX files in the QDQ form.
//!
//! A tensor of codes is quantized and dequantized behind the operator that computes it; the weights of layers are codes that
//! are dequantized, biases are `i32` in units of the accumulator. ONNX Runtime makes operators on codes of that. Layers of
//! dynamic range become `DynamicQuantizeLinear` and `MatMulInteger` or `ConvInteger`; weights in groups become
//! `MatMulNBits`.

pub(crate) mod writer;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use prost::Message;

use super::proto::{Dimension, GraphProto, ModelProto, OperatorSet, ShapeProto, TensorType, TypeProto, ValueInfo};
use super::quantized::nbits::INT8_ACCURACY_LEVEL;
use super::unsupported::Unsupported;
use crate::error::{FileError, GraphError, Result};
use crate::graph::{Mode, Node, Quantized, QuantizedNetwork, Stored};
use crate::ops::clamp::Clamp;
use crate::ops::conv::op::Conv;
use crate::ops::operator::Layer;
use crate::ops::output::Output;
use crate::ops::output_stage::quantize_bias;
use writer::{File, MICROSOFT, NodeWriter, int, ints, window};

/// The version of the operator set of the files.
const OPSET: i64 = 20;
/// The version of the format that has this operator set.
const IR_VERSION: i64 = 9;

impl QuantizedNetwork {
    /// Serializes the network as an ONNX file in the QDQ form, with a batch of one.
    ///
    /// ONNX Runtime computes the same codes where it has operators on codes: convolutions, linear layers, matrix products,
    /// sums, products, averages, sigmoid, leaky ReLU, concatenations and all that only move codes. It computes other
    /// functions in float between dequantized tensors, so that a code may differ by one. Weights in groups are written as they
    /// are; other 2- and 4-bit weights as `i8` of the same values. See the [module](crate::io::onnx#files-that-are-written).
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::graph::{CalibrationMethod, GraphBuilder, QuantizedNetwork};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let y = g.linear("y", x, &array![[1.0, -0.7]], None)?;
    /// let graph = g.build(&[y])?;
    /// let samples = array![[1.0f32, 0.5], [-1.0, 0.3]];
    /// let recipe = graph.calibrate([samples.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
    /// let network = graph.quantize(&recipe)?;
    ///
    /// let same = QuantizedNetwork::from_onnx_bytes(&network.to_onnx()?)?;
    /// assert_eq!(same.run(&samples)?, network.run(&samples)?);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`](crate::Error::Graph) for operators and attributes that have no form in ONNX files, all in one error;
    /// [`Error::File`](crate::Error::File) for a network of more than 2 GiB.
    pub fn to_onnx(&self) -> Result<Vec<u8>> {
        let model = Exporter::new(self.parts()).model()?;
        let bytes = model.encoded_len();
        if bytes > i32::MAX as usize {
            let (what, max) = ("bytes of an ONNX file", i32::MAX as usize);
            return Err(FileError::Limit { what, max, found: bytes.to_string() }.into());
        }
        Ok(model.encode_to_vec())
    }

    /// Saves the network as an ONNX file, see [`to_onnx`](Self::to_onnx).
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the file cannot be written, otherwise the same as [`to_onnx`](Self::to_onnx).
    #[cfg(feature = "std")]
    pub fn save_onnx(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_onnx()?).map_err(|error| crate::io::io_error(path, error))
    }
}

struct Exporter<'a> {
    network: Quantized<'a>,
    file: File,
    /// The name of each tensor of the graph in the file, as floats.
    floats: BTreeMap<String, String>,
    /// The scale and the zero point of each tensor of codes.
    params: BTreeMap<String, [String; 2]>,
}

impl<'a> Exporter<'a> {
    fn new(network: Quantized<'a>) -> Self {
        let mut names = BTreeSet::new();
        names.extend(network.graph.tensor_names().cloned());
        Self { network, file: File::new(names), floats: BTreeMap::new(), params: BTreeMap::new() }
    }

    fn model(mut self) -> Result<ModelProto> {
        let graph = self.network.graph;
        for name in graph.inputs() {
            let float = self.rounded(name, name.to_string())?;
            self.floats.insert(name.into(), float);
        }
        let mut unsupported = Unsupported::default();
        for node in graph.nodes() {
            if let Err(error) = self.node(node) {
                unsupported.add(error.at(&node.output))?;
                // The nodes behind it are written, so that one error names all.
                self.floats.insert(node.output.clone(), node.output.clone());
            }
        }
        unsupported.check()?;
        for name in graph.outputs() {
            // A constant, an input, or a tensor that has another name in the file.
            if self.floats.get(name) != Some(name) {
                let inputs = [self.tensor(name)?];
                let start = self.file.nodes.len();
                let copy = self.file.node(name, "Identity", inputs, Vec::new());
                if graph.node(name).is_some() {
                    self.rename(start, &copy, name);
                }
            }
        }
        let mut opset_import = alloc::vec![OperatorSet { domain: String::new(), version: OPSET }];
        if self.file.nodes.iter().any(|node| node.domain == MICROSOFT) {
            opset_import.push(OperatorSet { domain: MICROSOFT.into(), version: 1 });
        }
        let value = |name: &str| value_info(name, graph.shape(name).unwrap_or_default());
        let proto = GraphProto {
            name: "network".into(),
            node: self.file.nodes,
            initializer: self.file.initializers,
            input: graph.inputs().map(value).collect(),
            output: graph.outputs().iter().map(|name| value(name)).collect(),
            ..GraphProto::default()
        };
        Ok(ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: String::new(),
            graph: Some(proto),
            opset_import,
            functions: Vec::new(),
        })
    }

    /// Gives an output of the nodes from `start` on another name.
    fn rename(&mut self, start: usize, from: &str, to: &str) {
        for node in &mut self.file.nodes[start..] {
            node.input
                .iter_mut()
                .chain(&mut node.output)
                .filter(|name| *name == from)
                .for_each(|name| *name = to.into());
        }
    }

    /// The scale and the zero point of a tensor that is kept as codes.
    fn code_params(&mut self, name: &str) -> Result<Option<[String; 2]>> {
        if !self.network.is_code(name) {
            return Ok(None);
        }
        if !self.params.contains_key(name) {
            let recipe = &self.network.recipe.tensors[name];
            let signed = recipe.given.as_ref().is_some_and(|given| given.signed);
            let params = self.file.params(name, &recipe.activation_params()?, signed)?;
            self.params.insert(name.into(), params);
        }
        Ok(self.params.get(name).cloned())
    }

    /// Quantizes and dequantizes a tensor, if it is kept as codes.
    fn rounded(&mut self, name: &str, float: String) -> Result<String> {
        Ok(match self.code_params(name)? {
            Some(params) => self.file.round(name, float, &params),
            None => float,
        })
    }

    /// The name of a tensor as floats. Constants are added when they are first read.
    fn tensor(&mut self, name: &str) -> Result<String> {
        if let Some(known) = self.floats.get(name) {
            return Ok(known.clone());
        }
        let float = match self.network.stored.get(name) {
            Some(Stored::Half(values)) => {
                let half = self.file.tensor(&format!("{name}_f16"), values.shape(), values.iter().copied());
                self.file.node(name, "Cast", [half], alloc::vec![int("to", 1)])
            }
            Some(codes) => {
                let values = codes.dequantize();
                self.file.tensor(name, values.shape(), values.iter().copied())
            }
            None => {
                let values = self.network.graph.constant(name).expect("nodes come after what they read");
                self.file.tensor(name, values.shape(), values.iter().copied())
            }
        };
        self.floats.insert(name.into(), float.clone());
        Ok(float)
    }

    /// The weights of a layer as dequantized codes.
    fn weights(&mut self, name: &str) -> Result<String> {
        if let Some(known) = self.floats.get(name) {
            return Ok(known.clone());
        }
        let (codes, scales, zero_points) = self.codes_of(name);
        let shape = codes.shape();
        let grid: &[usize] = if scales.len() == 1 { &[] } else { &[scales.len()] };
        let codes = self.file.tensor(&format!("{name}_quantized"), shape, codes.iter().copied());
        let inputs = [
            codes,
            self.file.tensor(&format!("{name}_scale"), grid, scales),
            self.file.tensor(&format!("{name}_zero_point"), grid, zero_points),
        ];
        let float = self.file.node(name, "DequantizeLinear", inputs, alloc::vec![int("axis", 0)]);
        self.floats.insert(name.into(), float.clone());
        Ok(float)
    }

    /// Codes, scales and zero points of quantized weights.
    fn codes_of(&self, name: &str) -> (ndarray::ArrayD<i8>, Vec<f32>, Vec<i8>) {
        let weights = self.network.stored.get(name).and_then(Stored::codes);
        let (codes, scales, zero_points) = weights.expect("only layers with integer weights have this mode");
        let zero_points = if zero_points.is_empty() { alloc::vec![0; scales.len()] } else { zero_points };
        (codes, scales, zero_points)
    }

    /// The bias of a layer, in units of the accumulator.
    fn bias(&mut self, node: &Node) -> Result<Option<String>> {
        let Some(bias) = node.inputs.get(2).and_then(|name| self.network.graph.constant(name)) else { return Ok(None) };
        let (x_scale, _) = self.network.recipe.tensors[&node.inputs[0]].activation_params()?.of_tensor("input")?;
        let (_, scales, _) = self.codes_of(&node.inputs[1]);
        let codes = quantize_bias(&bias.iter().copied().collect::<Vec<_>>(), x_scale, &scales)?;
        let grid: &[usize] = if scales.len() == 1 { &[] } else { &[scales.len()] };
        let base = format!("{}_bias", node.output);
        let inputs = [
            self.file.tensor(&format!("{base}_quantized"), &[codes.len()], codes),
            self.file.tensor(&format!("{base}_scale"), grid, scales.iter().map(|scale| x_scale * scale)),
        ];
        Ok(Some(self.file.node(&base, "DequantizeLinear", inputs, alloc::vec![int("axis", 0)])))
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let start = self.file.nodes.len();
        let (mode, is_layer) = (self.network.mode(node), node.operator().layer().is_some());
        let in_groups = self.network.group(node).is_some();
        let mut result = match mode {
            Mode::DynamicRange | Mode::WeightOnly if in_groups => self.nbits_layer(node, mode)?,
            Mode::DynamicRange => self.dynamic_layer(node)?,
            _ => {
                let mut inputs = Vec::new();
                for (i, name) in node.inputs.iter().enumerate() {
                    inputs.extend(match (is_layer && mode != Mode::Float, i) {
                        (true, 1) => Some(self.weights(name)?),
                        (true, 2) if mode != Mode::WeightOnly => self.bias(node)?,
                        _ => Some(self.operand(node, name, mode)?),
                    });
                }
                self.operator(node, inputs)?
            }
        };
        if node.clamp != Clamp::NONE && !self.saturates(node)? {
            // Between operators on codes, so that the layer stays one.
            result = self.rounded(&node.output, result)?;
            result = self.clamp(&node.output, result, node.clamp);
        }
        let rounded = self.rounded(&node.output, result.clone())?;
        let is_output = self.network.graph.outputs().contains(&node.output);
        let named = if is_output { rounded.clone() } else { result };
        self.rename(start, &named, &node.output);
        let float = if rounded == named { node.output.clone() } else { rounded };
        self.floats.insert(node.output.clone(), float);
        Ok(())
    }

    /// An input of a node that is not the weights or the bias of a layer on integers.
    fn operand(&mut self, node: &Node, name: &str, mode: Mode) -> Result<String> {
        let value = self.network.graph.shared_constant(name).filter(|_| mode == Mode::Integer);
        let Some(value) = value.filter(|_| node.operator().quantizes_constants()) else { return self.tensor(name) };
        let operand = self.network.constant_operand(name, value)?;
        let base = format!("{}_operand", node.output);
        let signed = self.network.is_signed(node);
        let [scale, zero] = self.file.params(&base, &operand.params, signed)?;
        let codes = operand.constant.expect("the operand is constant");
        let quantized = format!("{base}_quantized");
        let codes = match signed {
            true => self.file.tensor(&quantized, codes.shape(), codes.iter().map(|code| (code ^ 0x80) as i8)),
            false => self.file.tensor(&quantized, codes.shape(), codes.iter().copied()),
        };
        Ok(self.file.node(&base, "DequantizeLinear", [codes, scale, zero], Vec::new()))
    }

    fn operator(&mut self, node: &Node, inputs: Vec<String>) -> Result<String> {
        let graph = self.network.graph;
        let shapes: Vec<&[usize]> = node.inputs.iter().filter_map(|name| graph.shape(name)).collect();
        let output = graph.shape(&node.output).unwrap_or_default();
        let codes = [self.code_params(&node.inputs[0])?, self.code_params(&node.output)?];
        let (base, op) = (&*node.output, node.op.name());
        let mut writer = NodeWriter { file: &mut self.file, base, op, inputs, shapes: &shapes, output, codes };
        node.operator().write_onnx(&mut writer)
    }

    /// Returns whether the codes of the output end at the bounds of the clamp.
    fn saturates(&self, node: &Node) -> Result<bool> {
        if !self.network.is_code(&node.output) {
            return Ok(false);
        }
        let to = self.network.recipe.tensors[&node.output].activation_params()?;
        Ok(Output::to(&to).clamp(node.clamp.low, node.clamp.high).clamp_range() == to.code_range())
    }

    fn clamp(&mut self, base: &str, x: String, clamp: Clamp) -> String {
        if clamp == Clamp::RELU {
            return self.file.node(base, "Relu", [x], Vec::new());
        }
        let mut bound =
            |value: Option<f32>| value.map_or_else(String::new, |value| self.file.tensor(base, &[], [value]));
        let inputs = [x, bound(clamp.low), bound(clamp.high)];
        self.file.node(base, "Clip", inputs, Vec::new())
    }

    /// A layer with weights in groups along the depth.
    fn nbits_layer(&mut self, node: &Node, mode: Mode) -> Result<String> {
        let (base, weights) = (&*node.output, &self.network.stored[&node.inputs[1]]);
        let (codes, scales, zero_points) = self.codes_of(&node.inputs[1]);
        let bits = match weights {
            Stored::Int2(_) => 2,
            Stored::Int4(_) => 4,
            _ => 8,
        };
        let (n, k, group) = (codes.shape()[0], codes.shape()[1], weights.group().unwrap_or(0));
        if !group.is_power_of_two() || group < 16 {
            let why = format!("weights in groups of {group}: MatMulNBits has powers of two from 16 on");
            return Err(GraphError::Unsupported { op: node.op.name().into(), node: base.into(), why }.into());
        }
        // Unsigned codes, several in a byte, the first in the low bits. What is missing has the value 0.
        let (half, per_byte, blocks) = (1 << (bits - 1), 8 / bits, k.div_ceil(group));
        let unsigned = |code: i8| (i16::from(code) + half) as u8;
        let pack = |codes: &mut dyn Iterator<Item = u8>| {
            let codes: Vec<u8> = codes.collect();
            let byte = |codes: &[u8]| (0..).zip(codes).fold(0, |byte, (i, code)| byte | code << (i * bits as u32));
            codes.chunks(per_byte).map(byte).collect::<Vec<u8>>()
        };
        let mut bytes = Vec::with_capacity(n * blocks * group / per_byte);
        for (row, zero) in codes.outer_iter().zip(zero_points.chunks(blocks.max(1))) {
            let codes = row.iter().map(|&code| unsigned(code));
            let padding = core::iter::repeat_n(unsigned(zero.last().copied().unwrap_or(0)), blocks * group - k);
            bytes.extend(pack(&mut codes.chain(padding)));
        }
        let name = &node.inputs[1];
        let mut inputs = alloc::vec![
            self.tensor(&node.inputs[0])?,
            self.file.tensor(&format!("{name}_quantized"), &[n, blocks, group / per_byte], bytes),
            self.file.tensor(&format!("{name}_scale"), &[n * blocks], scales),
        ];
        inputs.push(match zero_points.iter().all(|&zero| zero == 0) {
            true => String::new(),
            false => {
                let row = |zero: &[i8]| pack(&mut zero.iter().map(|&zero| unsigned(zero)));
                let bytes: Vec<u8> = zero_points.chunks(blocks.max(1)).flat_map(row).collect();
                self.file.tensor(&format!("{name}_zero_point"), &[bytes.len()], bytes)
            }
        });
        if let Some(bias) = node.inputs.get(2) {
            inputs.extend([String::new(), self.tensor(bias)?]);
        }
        let level = if mode == Mode::WeightOnly { 1 } else { INT8_ACCURACY_LEVEL as usize };
        let attributes = [("K", k), ("N", n), ("bits", bits), ("block_size", group), ("accuracy_level", level)];
        let attributes = attributes.into_iter().map(|(name, value)| int(name, value)).collect();
        Ok(self.file.microsoft_node(base, "MatMulNBits", inputs, attributes))
    }

    /// A layer that quantizes its input by its own range.
    fn dynamic_layer(&mut self, node: &Node) -> Result<String> {
        let (base, graph) = (&*node.output, self.network.graph);
        let x = self.tensor(&node.inputs[0])?;
        let codes = self.file.nodes(base, "DynamicQuantizeLinear", [x], Vec::new(), 3);
        let [codes, x_scale, x_zero] = <[String; 3]>::try_from(codes).expect("three outputs");
        let (weights, scales, zero_points) = self.codes_of(&node.inputs[1]);
        let is_conv = weights.ndim() == 4;
        if zero_points.iter().any(|zero| *zero != zero_points[0]) {
            let why = "weights with several zero points in a layer of dynamic range";
            return Err(
                GraphError::Unsupported { op: node.op.name().into(), node: base.into(), why: why.into() }.into()
            );
        }
        let weights = if is_conv { weights } else { weights.reversed_axes() };
        let name = format!("{}_quantized", node.inputs[1]);
        let weights = self.file.tensor(&name, weights.shape(), weights.iter().copied());
        let zero = self.file.tensor(&format!("{}_zero_point", node.inputs[1]), &[], [zero_points[0]]);
        let inputs = [codes, weights, x_zero, zero];
        let along_channels = |len: usize| if is_conv { alloc::vec![len, 1, 1] } else { alloc::vec![len] };
        let sums = if is_conv {
            let Layer { window: of_layer, groups } = node.operator().layer().expect("the node is a layer");
            let kernel = &graph.shape(&node.inputs[1]).unwrap_or_default()[2..];
            let mut attributes = window(&of_layer);
            attributes.extend([int("group", groups), ints("kernel_shape", kernel)]);
            self.file.node(base, "ConvInteger", inputs, attributes)
        } else {
            self.file.node(base, "MatMulInteger", inputs, Vec::new())
        };
        let floats = self.file.node(base, "Cast", [sums], alloc::vec![int("to", 1)]);
        let grid = if scales.len() == 1 { Vec::new() } else { along_channels(scales.len()) };
        let scales = self.file.tensor(&format!("{}_scale", node.inputs[1]), &grid, scales);
        let scales = self.file.node(base, "Mul", [x_scale, scales], Vec::new());
        let mut y = self.file.node(base, "Mul", [floats, scales], Vec::new());
        if let Some(bias) = node.inputs.get(2).and_then(|name| graph.constant(name)) {
            let bias = self.file.tensor(&format!("{base}_bias"), &along_channels(bias.len()), bias.iter().copied());
            y = self.file.node(base, "Add", [y, bias], Vec::new());
        }
        Ok(y)
    }
}

/// The declaration of an input or output.
fn value_info(name: &str, shape: &[usize]) -> ValueInfo {
    let dim = |&len: &usize| Dimension { dim_value: len as i64, dim_param: String::new() };
    let shape = Some(ShapeProto { dim: shape.iter().map(dim).collect() });
    let tensor_type = Some(TensorType { elem_type: 1, shape });
    ValueInfo { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

/// Writes a convolution.
pub(crate) fn conv(op: &Conv, node: &mut NodeWriter<'_>) -> Result<String> {
    if op.window.ceil_mode {
        return Err(node.unsupported("a convolution with ceil_mode"));
    }
    let mut attributes = window(&op.window);
    attributes.extend([int("group", op.groups), ints("kernel_shape", &node.shapes[1][2..])]);
    node.all("Conv", attributes)
}
