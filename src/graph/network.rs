//! The float graph: operators over named tensors.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArrayRef, IxDyn};

use super::collect::{map_of, set_of};
use crate::error::{Error, GraphError, Result};
use crate::ops::clamp::Clamp;
pub(crate) use crate::ops::operator::Constant;
use crate::ops::operator::{Inputs, Operator};
use crate::ops::registry::Op;
use crate::ops::shape::{Shape, elements};

/// An operator of a [`Graph`] with its inputs and its output.
///
/// A node has no name of its own: its output tensor names it in recipes, reports and errors.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Node {
    /// The operator.
    pub op: Op,
    /// The names of the input tensors, in the order of the operator's inputs.
    pub inputs: Vec<String>,
    /// Bounds of the output: a fused ReLU, ReLU6 or Clip. Only `Conv`, `Linear`, `BatchNorm`, `Add` and `Mul` have any.
    pub clamp: Clamp,
    /// The name of the output tensor.
    pub output: String,
}

impl Node {
    pub(crate) fn operator(&self) -> &dyn Operator {
        self.op.operator()
    }

    /// The number of channel groups of a layer, and 1 for other operators.
    pub(crate) fn groups(&self) -> usize {
        self.operator().layer().map_or(1, |layer| layer.groups)
    }
}

/// An input of a [`Graph`]: its name, and its shape for a batch of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

/// A float network: a directed acyclic graph of operators over named tensors.
///
/// Build one with a [`GraphBuilder`](super::GraphBuilder), or read it with `Graph::from_onnx` (feature `onnx`). The nodes
/// are in topological order. Every tensor has a known shape; the first axis of an activation is the batch. Shapes here
/// are for a batch of one, and the network runs on any batch.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::GraphBuilder;
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("fc", x, &array![[1.0, -1.0]], None)?;
/// let y = g.relu("relu", y)?;
/// let graph = g.build(&[y])?;
///
/// let nodes: Vec<_> = graph.nodes().iter().map(|node| (node.output.as_str(), node.op.name())).collect();
/// assert_eq!(nodes, [("fc", "Linear"), ("relu", "Relu")]);
/// assert_eq!(graph.node("fc").unwrap().inputs, ["x", "fc.weight"]);
/// assert_eq!(graph.shape("fc.weight"), Some(&[1, 2][..]));
/// assert_eq!(graph.run(&array![[3.0f32, 1.0], [1.0, 3.0]])?, array![[2.0f32], [0.0]].into_dyn());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    outputs: Vec<String>,
    constants: BTreeMap<String, Constant>,
    /// The shapes of constants that are stored as codes or in half precision, outside of the graph.
    stored: BTreeMap<String, Shape>,
    shapes: BTreeMap<String, Shape>,
    /// For each output tensor of a node, the index of the node.
    producers: BTreeMap<String, usize>,
}

/// The parts of a graph, before they are checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    pub(crate) inputs: Vec<Input>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<String>,
    pub(crate) constants: BTreeMap<String, Constant>,
    pub(crate) stored: BTreeMap<String, Shape>,
}

impl Parts {
    /// The index of the node that computes each tensor.
    pub(crate) fn producers(&self) -> BTreeMap<String, usize> {
        map_of(self.nodes.iter().enumerate().map(|(i, node)| (node.output.clone(), i)))
    }

    /// The number of readers of each tensor. An output of the graph counts as two, so that it never has a single reader.
    pub(crate) fn reads(&self) -> BTreeMap<String, usize> {
        reads(&self.nodes, &self.outputs)
    }
}

fn reads(nodes: &[Node], outputs: &[String]) -> BTreeMap<String, usize> {
    let mut reads = BTreeMap::new();
    for name in nodes.iter().flat_map(|node| &node.inputs).chain(outputs).chain(outputs) {
        *reads.entry(name.clone()).or_default() += 1;
    }
    reads
}

/// Chooses names for new tensors of a graph.
pub(crate) struct FreshNames {
    taken: BTreeSet<String>,
}

impl FreshNames {
    pub(crate) fn new(parts: &Parts) -> Self {
        let inputs = parts.inputs.iter().map(|input| &input.name);
        let outputs = parts.nodes.iter().map(|node| &node.output);
        let names = parts.constants.keys().chain(parts.stored.keys()).chain(inputs).chain(outputs);
        Self { taken: set_of(names.cloned()) }
    }

    /// Returns `base`, or `base.1`, `base.2`, … if a tensor has that name. The name is taken from then on.
    pub(crate) fn take(&mut self, base: String) -> String {
        let mut name = base.clone();
        let mut i = 0;
        while !self.taken.insert(name.clone()) {
            i += 1;
            name = alloc::format!("{base}.{i}");
        }
        name
    }
}

impl Graph {
    /// Checks names, order, shapes and clamps.
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let Parts { inputs, nodes, outputs, constants, stored } = parts;
        let mut shapes = BTreeMap::new();
        let mut define = |name: &str, shape: Shape| match shapes.insert(name.into(), shape) {
            None => Ok(()),
            Some(_) => Err(duplicate(name)),
        };
        for (name, constant) in &constants {
            elements(constant.shape())?;
            define(name, constant.shape().to_vec())?;
        }
        for (name, shape) in &stored {
            elements(shape)?;
            define(name, shape.clone())?;
        }
        for Input { name, shape } in &inputs {
            check_file_input(name, shape)?;
            define(name, shape.clone())?;
        }
        let mut producers = BTreeMap::new();
        for (i, node) in nodes.iter().enumerate() {
            let is_constant = |name: &str| constants.contains_key(name) || stored.contains_key(name);
            let shape = infer(node, &shapes, is_constant).map_err(|e| e.at(&node.output))?;
            if shapes.insert(node.output.clone(), shape).is_some() {
                return Err(duplicate(&node.output));
            }
            producers.insert(node.output.clone(), i);
        }
        if let Some(found) = outputs.iter().find(|name| !shapes.contains_key(*name)) {
            return Err(Error::unknown("output of the graph", found, shapes.keys()));
        }
        Ok(Self { inputs, nodes, outputs, constants, stored, shapes, producers })
    }

    pub(crate) fn into_parts(self) -> Parts {
        let Self { inputs, nodes, outputs, constants, stored, .. } = self;
        Parts { inputs, nodes, outputs, constants, stored }
    }

    /// The names of the inputs, in the order of [`FloatNetwork::run_many`](super::FloatNetwork::run_many). For their
    /// shapes see [`shape`](Self::shape).
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.inputs.iter().map(|input| input.name.as_str())
    }

    pub(crate) fn typed_inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The nodes, in topological order: each after the nodes whose outputs it reads.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node whose output tensor has this name.
    pub fn node(&self, output: &str) -> Option<&Node> {
        self.producers.get(output).map(|&i| &self.nodes[i])
    }

    /// Same as [`Parts::reads`].
    #[cfg(feature = "onnx")]
    pub(crate) fn reads(&self) -> BTreeMap<String, usize> {
        reads(&self.nodes, &self.outputs)
    }

    /// The names of the output tensors.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// The value of a constant tensor. `None` for activations, and in a quantized network for weights that are not
    /// stored as `f32`.
    pub fn constant(&self, name: &str) -> Option<&ArrayRef<f32, IxDyn>> {
        self.constants.get(name).map(|value| &**value)
    }

    /// All constant tensors, by name.
    pub fn constants(&self) -> impl Iterator<Item = (&str, &ArrayRef<f32, IxDyn>)> {
        self.constants.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// The value of a constant tensor, to be shared.
    pub(crate) fn shared_constant(&self, name: &str) -> Option<&Constant> {
        self.constants.get(name)
    }

    /// Returns an error for the graph of a quantized network, whose weights are not in the graph.
    pub(crate) fn check_float(&self) -> Result<()> {
        if self.stored.is_empty() {
            return Ok(());
        }
        let found = "the graph of a quantized network, whose weights are codes or f16".into();
        Err(GraphError::Mismatch { what: "graph", expected: "a float graph", found }.into())
    }

    /// Returns whether a tensor is constant, whether it is stored as floats or not.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name) || self.stored.contains_key(name)
    }

    /// The shape of a tensor, for a batch of one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// The shapes of all tensors.
    pub(crate) fn shapes(&self) -> &BTreeMap<String, Shape> {
        &self.shapes
    }

    /// The names of all tensors.
    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &String> {
        self.shapes.keys()
    }

    /// The size of all `f32` constants in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.constants.values().map(|c| size_of::<f32>() * c.len()).sum()
    }
}

/// The error for a name that two tensors have.
pub(crate) fn duplicate(name: &str) -> Error {
    GraphError::Name { what: "tensor", expected: "a name that no other tensor of the graph has", found: name.into() }
        .into()
}

/// Returns an error unless an input of a file has a first axis, which may hold several rows of each sample, and a reasonable
/// size.
pub(crate) fn check_file_input(name: &str, shape: &[usize]) -> Result<()> {
    if shape.first().is_none_or(|&rows| rows == 0) {
        return Err(Error::layout("input", "at least 1 as the first axis", shape).at(name));
    }
    elements(shape)?;
    Ok(())
}

/// Returns an error unless the shape of an input has a batch of one and a reasonable size.
pub(crate) fn check_input(name: &str, shape: &[usize]) -> Result<()> {
    if shape.first() != Some(&1) {
        let expected = "1 as the first axis (the batch; the network runs on any batch)";
        return Err(Error::layout("input", expected, shape).at(name));
    }
    elements(shape)?;
    Ok(())
}

/// The shape of a node's output.
pub(crate) fn infer(node: &Node, shapes: &BTreeMap<String, Shape>, constant: impl Fn(&str) -> bool) -> Result<Shape> {
    let shape = |name: &String| match shapes.get(name) {
        Some(shape) => Ok(shape.as_slice()),
        None => Err(Error::unknown("tensor", name, shapes.keys())),
    };
    let inputs = node.inputs.iter().map(shape).collect::<Result<Vec<_>>>()?;
    let constants: Vec<bool> = node.inputs.iter().map(|name| constant(name)).collect();
    if constants.iter().all(|&constant| constant) {
        return Err(only_constants());
    }
    if node.clamp != Clamp::NONE {
        if !node.operator().supports_clamp() {
            let expected = "none: only Conv, Linear, BatchNorm, Add and Mul have a fused clamp";
            let (low, high) = node.clamp.bounds();
            let found = alloc::format!("{low}..{high} on {}", node.op.name());
            return Err(Error::Argument { what: "clamp of a node", expected, found });
        }
        node.clamp.check()?;
    }
    infer_operator(node.operator(), &Inputs { shapes: &inputs, constant: &constants })
}

/// The shape of the output of an operator.
fn infer_operator(operator: &dyn Operator, inputs: &Inputs<'_>) -> Result<Shape> {
    check_operator(operator, inputs.shapes.len())?;
    if operator.has_parameters() && inputs.constant[1..].contains(&false) {
        let expected = "constants for weights and other parameters".into();
        return Err(GraphError::Inputs { expected, found: "the output of another node".into() }.into());
    }
    let shape = operator.infer(inputs)?;
    elements(&shape)?;
    Ok(shape)
}

/// Checks the number of inputs and the attributes that do not depend on shapes.
pub(crate) fn check_operator(operator: &dyn Operator, inputs: usize) -> Result<()> {
    let (arity, expected) = operator.arity();
    if !arity.contains(&inputs) {
        let found = alloc::format!("{inputs} for {}", operator.name());
        return Err(GraphError::Inputs { expected: expected.into(), found }.into());
    }
    operator.check()
}

/// The error for a node whose inputs are all constant.
pub(crate) fn only_constants() -> Error {
    GraphError::Inputs { expected: "at least one that is not constant".into(), found: "constants only".into() }.into()
}
