//! Nodes of the file → nodes of a graph.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, Axis, IxDyn};

use super::node::Source;
use super::proto::{GraphProto, ModelProto, ValueInfo};
use super::tensor::Known;
use crate::error::{Error, Result};
use crate::graph::{Activation, Clamp, Constant, Graph, GraphBuilder, Node, Op};
use crate::window::Window;

/// The graph of a model.
pub(super) fn graph(model: &ModelProto, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Graph> {
    let format = |what, expected: &str, found: String| Error::Format { what, expected: expected.into(), found };
    let graph = model.graph.as_ref().ok_or_else(|| format("ONNX file", "a graph", "none".into()))?;
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let opset = model.opset_import.iter().find(|set| own(&set.domain)).map_or(1, |set| set.version);
    let mut importer = Importer { opset, batch: 1, ..Importer::default() };
    for tensor in &graph.initializer {
        importer.know(&tensor.name, Known::new(tensor)?)?;
    }
    importer.inputs(graph, shapes)?;
    for node in &graph.node {
        let named = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
        let source = Source { node, name: named.cloned().unwrap_or_default() };
        if !own(&node.domain) {
            return Err(source.unsupported("its domain is unknown"));
        }
        importer.node(&source).map_err(|e| e.at(&source.name))?;
    }
    let outputs = graph.output.iter().map(|output| importer.operand(&output.name)).collect::<Result<Vec<_>>>()?;
    importer.builder.build(&outputs.iter().map(String::as_str).collect::<Vec<_>>())
}

#[derive(Default)]
pub(super) struct Importer {
    builder: GraphBuilder,
    known: BTreeMap<String, Known>,
    /// Names of what is only another name of something.
    aliases: BTreeMap<String, String>,
    pub(super) opset: i64,
    /// The batch that the file was made for.
    pub(super) batch: usize,
}

impl Importer {
    pub(super) fn know(&mut self, name: &str, value: Known) -> Result<()> {
        match self.known.insert(name.into(), value) {
            None => Ok(()),
            Some(_) => Err(Error::Name { what: "tensor", expected: "a name of its own", found: name.into() }),
        }
    }

    fn inputs(&mut self, graph: &GraphProto, shapes: &BTreeMap<String, Vec<usize>>) -> Result<()> {
        for input in graph.input.iter().filter(|input| !self.known.contains_key(&input.name)) {
            let mut shape = match shapes.get(&input.name) {
                Some(shape) => shape.clone(),
                None => declared_shape(input)?,
            };
            let Some(batch) = shape.first_mut() else {
                let (expected, found) =
                    ("a batch as its first axis".into(), alloc::format!("none in {:?}", input.name));
                return Err(Error::Format { what: "input of the graph", expected, found });
            };
            self.batch = core::mem::replace(batch, 1).max(1);
            self.builder.input(&input.name, &shape)?;
        }
        Ok(())
    }

    /// The tensor's name in the graph that is being made.
    pub(super) fn operand(&mut self, name: &str) -> Result<String> {
        let name = self.aliases.get(name).map_or(name, String::as_str).to_string();
        if let Some(Known::Float(value)) = self.known.get(&name)
            && self.builder.shape(&name).is_none()
        {
            return self.builder.constant(&name, &**value);
        }
        Ok(name)
    }

    fn operands(&mut self, source: &Source) -> Result<Vec<String>> {
        let names = source.node.input.iter().filter(|name| !name.is_empty());
        names.map(|name| self.operand(name)).collect()
    }

    /// The shape of the tensor that input `i` is, in the graph that is being made.
    pub(super) fn shape(&self, source: &Source, i: usize) -> Result<Vec<usize>> {
        let name = source.required(i)?;
        let resolved = self.aliases.get(name).map_or(name, String::as_str);
        let shape = match self.known.get(resolved) {
            Some(Known::Float(value)) => Some(value.shape()),
            Some(Known::Int(value)) => Some(value.shape()),
            None => self.builder.shape(resolved),
        };
        let unknown =
            || Error::Name { what: "tensor", expected: "one that is known at this point", found: name.into() };
        shape.map(<[usize]>::to_vec).ok_or_else(unknown)
    }

    pub(super) fn known(&self, name: &str) -> Option<&Known> {
        self.known.get(self.aliases.get(name).map_or(name, String::as_str))
    }

    pub(super) fn real(&self, source: &Source, i: usize) -> Result<Option<Constant>> {
        let Some(name) = source.input(i) else { return Ok(None) };
        match self.known(name) {
            Some(Known::Float(value)) => Ok(Some(value.clone())),
            _ => Err(source.unsupported(alloc::format!("input {i} is not a constant of floats"))),
        }
    }

    pub(super) fn ints(&self, source: &Source, i: usize) -> Result<Option<Vec<i64>>> {
        let Some(name) = source.input(i) else { return Ok(None) };
        match self.known(name) {
            Some(Known::Int(values)) => Ok(Some(values.iter().copied().collect())),
            _ => Err(source.unsupported(alloc::format!("input {i} is not a constant of integers"))),
        }
    }

    /// Integers that are an attribute in early versions of an operator, and an input later.
    pub(super) fn ints_of(&self, source: &Source, attribute: &str, input: usize) -> Result<Option<Vec<i64>>> {
        match source.ints(attribute) {
            Some(values) => Ok(Some(values.to_vec())),
            None => self.ints(source, input),
        }
    }

    pub(super) fn push(&mut self, source: &Source, op: Op, inputs: Vec<String>) -> Result<()> {
        let output = source.output()?.to_string();
        self.builder.push(Node { name: source.name.clone(), op, inputs, clamp: Clamp::NONE, output })?;
        Ok(())
    }

    fn alias(&mut self, source: &Source) -> Result<()> {
        let name = source.required(0)?;
        let name = self.aliases.get(name).map_or(name, String::as_str).to_string();
        if self.known(&name).is_none() && self.builder.shape(&name).is_none() {
            return Err(Error::Name { what: "tensor", expected: "one that is known at this point", found: name });
        }
        self.aliases.insert(source.output()?.into(), name);
        Ok(())
    }

    fn node(&mut self, source: &Source) -> Result<()> {
        if self.integers(source)? {
            return Ok(());
        }
        let function = |activation| Op::Activation(activation);
        let op = match source.op() {
            "Identity" | "Dropout" => return self.alias(source),
            "Conv" => return self.conv(source),
            "Gemm" => return self.gemm(source),
            "MatMul" => return self.matmul(source),
            "BatchNormalization" => {
                if source.int("training_mode", 0) != 0 {
                    return Err(source.unsupported("it is in training mode"));
                }
                Op::BatchNorm { epsilon: source.float("epsilon", 1e-5) }
            }
            "Add" => Op::Add,
            "Mul" => Op::Mul,
            "Sub" => return self.with_changed_constant(source, Op::Add, |x| -x),
            "Div" => return self.with_changed_constant(source, Op::Mul, |x| 1.0 / x),
            "Relu" => function(Activation::relu()),
            "Clip" => return self.clip(source),
            "Sigmoid" => function(Activation::Sigmoid),
            "Tanh" => function(Activation::Tanh),
            "HardSwish" => function(Activation::HardSwish),
            "HardSigmoid" => {
                let (alpha, beta) = (source.float("alpha", 0.2), source.float("beta", 0.5));
                function(Activation::HardSigmoid { alpha, beta })
            }
            "LeakyRelu" => function(Activation::LeakyRelu { alpha: source.float("alpha", 0.01) }),
            "Softmax" => return self.softmax(source),
            "MaxPool" => {
                if source.node.output.len() > 1 {
                    return Err(source.unsupported("the positions of maxima"));
                }
                let (kernel, window) = self.pool_window(source)?;
                Op::MaxPool { kernel, window }
            }
            "AveragePool" => {
                let (kernel, window) = self.pool_window(source)?;
                Op::AveragePool { kernel, window, count_include_pad: source.int("count_include_pad", 0) != 0 }
            }
            "GlobalAveragePool" => Op::GlobalAveragePool,
            "ReduceMean" => return self.reduce_mean(source),
            "Concat" => {
                let ndim = self.shape(source, 0)?.len();
                Op::Concat { axis: source.axis(source.int("axis", 1), ndim)? }
            }
            "Pad" => return self.pad(source),
            "Resize" | "Upsample" => return self.resize(source),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => return self.reshape(source),
            _ => return Err(source.unsupported("it is not implemented")),
        };
        let inputs = self.operands(source)?;
        self.push(source, op, inputs)
    }

    fn conv(&mut self, source: &Source) -> Result<()> {
        let weights = self.shape(source, 1)?;
        let &[_, _, height, width] = &weights[..] else {
            return Err(source.unsupported(alloc::format!("weights of shape {weights:?}, not of a 2-D convolution")));
        };
        let window = source.window([height, width])?;
        let groups = source.sizes::<1>("group", &[source.int("group", 1)])?[0];
        let inputs = self.operands(source)?;
        self.push(source, Op::Conv { window, groups }, inputs)
    }

    fn pool_window(&self, source: &Source) -> Result<([usize; 2], Window)> {
        let input = self.shape(source, 0)?;
        if input.len() != 4 {
            return Err(source.unsupported(alloc::format!("a pooling of shape {input:?}")));
        }
        let kernel = source.sizes("kernel_shape", source.ints("kernel_shape").unwrap_or_default())?;
        Ok((kernel, source.window(kernel)?.with_ceil_mode(source.int("ceil_mode", 0) != 0)))
    }

    /// `alpha * A · B + beta * C`.
    fn gemm(&mut self, source: &Source) -> Result<()> {
        if source.int("transA", 0) != 0 {
            return Err(source.unsupported("transA"));
        }
        let weights = self.real(source, 1)?.ok_or_else(|| source.wrong("input", "weights", "none"))?;
        let (alpha, beta) = (source.float("alpha", 1.0), source.float("beta", 1.0));
        let weights = self.weights(source, weights, source.int("transB", 0) != 0, alpha)?;
        let mut inputs = alloc::vec![self.operand(source.required(0)?)?, weights.0];
        if let Some(bias) = self.real(source, 2)? {
            // Anything that broadcasts to one row.
            let bias = bias.broadcast(IxDyn(&[1, weights.1])).map(|b| b.index_axis(Axis(0), 0).mapv(|b| beta * b));
            let bias = bias.ok_or_else(|| source.unsupported("a third input that is not one row"))?;
            inputs.push(self.new_constant(source, "bias", bias)?);
        }
        self.push(source, Op::Linear, inputs)
    }

    fn matmul(&mut self, source: &Source) -> Result<()> {
        if self.shape(source, 0)?.len() != 2 {
            return Err(source.unsupported("a left side that is not a matrix"));
        }
        let weights = self.real(source, 1)?.ok_or_else(|| source.wrong("input", "weights", "none"))?;
        let weights = self.weights(source, weights, false, 1.0)?;
        let inputs = alloc::vec![self.operand(source.required(0)?)?, weights.0];
        self.push(source, Op::Linear, inputs)
    }

    /// A new constant `alpha * w` of shape `[out, in]`, its name and the number of outputs.
    fn weights(&mut self, source: &Source, w: Constant, transposed: bool, alpha: f32) -> Result<(String, usize)> {
        if w.ndim() != 2 {
            return Err(source.unsupported(alloc::format!("weights of shape {:?}", w.shape())));
        }
        let w = if transposed { w } else { w.reversed_axes() };
        let out = w.shape()[0];
        Ok((self.new_constant(source, "weight", w.mapv(|w| alpha * w))?, out))
    }

    fn new_constant(&mut self, source: &Source, part: &str, value: ArrayD<f32>) -> Result<String> {
        self.builder.constant(&alloc::format!("{}.{part}", source.output()?), &value)
    }

    /// `a - b` is `a + (-b)`, and `a / b` is `a * (1 / b)`, for a constant `b`.
    fn with_changed_constant(&mut self, source: &Source, op: Op, f: impl Fn(f32) -> f32) -> Result<()> {
        let value = self.real(source, 1)?.ok_or_else(|| source.wrong("input", "a second one", "none"))?;
        let value = self.new_constant(source, "operand", value.mapv(f))?;
        let inputs = alloc::vec![self.operand(source.required(0)?)?, value];
        self.push(source, op, inputs)
    }

    fn clip(&mut self, source: &Source) -> Result<()> {
        let bound = |i: usize, name: &str| -> Result<Option<f32>> {
            if source.has(name) {
                return Ok(Some(source.float(name, 0.0)).filter(|b| b.is_finite()));
            }
            let value = self.real(source, i)?;
            Ok(value.and_then(|v| v.first().copied()).filter(|b| b.is_finite()))
        };
        let clamp = Clamp { low: bound(1, "min")?, high: bound(2, "max")? };
        let inputs = alloc::vec![self.operand(source.required(0)?)?];
        self.push(source, Op::Activation(Activation::Clip(clamp)), inputs)
    }

    fn softmax(&mut self, source: &Source) -> Result<()> {
        let shape = self.shape(source, 0)?;
        let axis = source.axis(source.int("axis", if self.opset < 13 { 1 } else { -1 }), shape.len())?;
        // Before version 13 all axes from this one on are one.
        if self.opset < 13 && axis + 1 < shape.len() && shape[axis + 1..].iter().any(|&len| len != 1) {
            return Err(source.unsupported("more than one axis"));
        }
        let inputs = alloc::vec![self.operand(source.required(0)?)?];
        self.push(source, Op::Softmax { axis }, inputs)
    }

    fn reduce_mean(&mut self, source: &Source) -> Result<()> {
        let shape = self.shape(source, 0)?;
        let axes = self.ints_of(source, "axes", 1)?.unwrap_or_default();
        let mut axes = axes.iter().map(|&a| source.axis(a, shape.len())).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        if shape.len() != 4 || axes != [2, 3] {
            return Err(source.unsupported("means over other axes than height and width"));
        }
        let inputs = alloc::vec![self.operand(source.required(0)?)?];
        if source.int("keepdims", 1) != 0 {
            return self.push(source, Op::GlobalAveragePool, inputs);
        }
        let mean = alloc::format!("{}.mean", source.output()?);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mean = self.builder.node(&mean, Op::GlobalAveragePool, &inputs)?;
        self.push(source, Op::Reshape { shape: alloc::vec![shape[1]] }, alloc::vec![mean])
    }
}

fn declared_shape(input: &ValueInfo) -> Result<Vec<usize>> {
    let wrong = |expected: &str, found: &str| Error::Format {
        what: "input of the graph",
        expected: expected.into(),
        found: alloc::format!("{found} in {:?}", input.name),
    };
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims = &shape.ok_or_else(|| wrong("a tensor with a shape", "none"))?.dim;
    let length = |(axis, dim): (usize, &super::proto::Dimension)| match usize::try_from(dim.dim_value) {
        // The batch may be of any length.
        Ok(len) if len > 0 || axis == 0 => Ok(len),
        _ => Err(wrong("axes of fixed length, or `Reader::input_shape`", &alloc::format!("{:?}", dim.dim_param))),
    };
    dims.iter().enumerate().map(length).collect()
}
