//! A float network: operators over named tensors.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArcArray, IxDyn};

use super::op::{Clamp, Op};
use super::shape::{self, Shape};
use crate::error::{Error, Result};

/// A tensor that is known beforehand: weights, a bias. Cheap to clone.
pub type Constant = ArcArray<f32, IxDyn>;

/// One operator.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Node {
    /// Its name, which no other node of the graph has.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The names of the tensors that it reads.
    pub inputs: Vec<String>,
    /// What its outputs are clamped to: an activation that was fused with it.
    pub clamp: Clamp,
    /// The name of the tensor that it makes.
    pub output: String,
}

/// A tensor that the caller provides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its shape for a batch of one.
    pub shape: Vec<usize>,
}

/// A float network: [`Node`]s in the order in which they run, over named tensors.
///
/// Make one with a [`GraphBuilder`](super::GraphBuilder), or read it from ONNX. All shapes are known; the first axis of
/// every activation is the batch, of any length, which the shapes here show as 1.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{Activation, GraphBuilder, Op};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", &x, &array![[1.0, -1.0]], None)?;
/// let y = g.activation("relu", &y, Activation::relu())?;
/// let graph = g.build(&[&y])?;
/// let names: Vec<_> = graph.nodes().iter().map(|node| (node.name.as_str(), node.op.name())).collect();
/// assert_eq!(names, [("y", "Linear"), ("relu", "Relu")]);
/// assert_eq!(graph.node("y").unwrap().inputs, ["x", "y.weight"]);
/// assert_eq!(graph.shape("y.weight"), Some(&[1, 2][..]));
/// assert_eq!(graph.run(&array![[3.0f32, 1.0], [1.0, 3.0]])?, array![[2.0f32], [0.0]].into_dyn());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    outputs: Vec<String>,
    constants: BTreeMap<String, Constant>,
    /// The shapes of constants whose values are kept elsewhere, as codes.
    stored: BTreeMap<String, Shape>,
    shapes: BTreeMap<String, Shape>,
}

/// What a graph is made of, before it is checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    pub(crate) inputs: Vec<Input>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<String>,
    pub(crate) constants: BTreeMap<String, Constant>,
    pub(crate) stored: BTreeMap<String, Shape>,
}

impl Graph {
    /// Checks names, order and shapes.
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let Parts { inputs, nodes, outputs, constants, stored } = parts;
        let mut shapes = BTreeMap::new();
        let mut define = |name: &str, shape: Shape| match shapes.insert(name.into(), shape) {
            None => Ok(()),
            Some(_) => Err(Error::Name { what: "tensor", expected: "a name of its own", found: name.into() }),
        };
        for (name, constant) in &constants {
            shape::elements(constant.shape())?;
            define(name, constant.shape().to_vec())?;
        }
        for (name, shape) in &stored {
            shape::elements(shape)?;
            define(name, shape.clone())?;
        }
        for Input { name, shape } in &inputs {
            if shape.first() != Some(&1) {
                return Err(Error::shape("input of the graph, for a batch of one", &[1], shape));
            }
            shape::elements(shape)?;
            define(name, shape.clone())?;
        }
        let mut names = BTreeSet::new();
        for node in &nodes {
            if !names.insert(&node.name) {
                return Err(Error::Name { what: "node", expected: "a name of its own", found: node.name.clone() });
            }
            let shape = infer(node, &shapes, |name| constants.contains_key(name) || stored.contains_key(name))
                .map_err(|e| e.at(&node.name))?;
            if shapes.insert(node.output.clone(), shape).is_some() {
                let found = node.output.clone();
                return Err(Error::Name { what: "tensor", expected: "a name of its own", found });
            }
        }
        if let Some(found) = outputs.iter().find(|name| !shapes.contains_key(*name)) {
            return Err(unknown(found));
        }
        Ok(Self { inputs, nodes, outputs, constants, stored, shapes })
    }

    pub(crate) fn into_parts(self) -> Parts {
        let Self { inputs, nodes, outputs, constants, stored, .. } = self;
        Parts { inputs, nodes, outputs, constants, stored }
    }

    /// What the caller provides.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The operators, each after those whose outputs it reads.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The names of the tensors that the network is for.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// The constant of this name.
    pub fn constant(&self, name: &str) -> Option<&Constant> {
        self.constants.get(name)
    }

    /// Whether a tensor is known beforehand.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name) || self.stored.contains_key(name)
    }

    /// All constants.
    pub fn constants(&self) -> &BTreeMap<String, Constant> {
        &self.constants
    }

    /// The shape of a tensor, for a batch of one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// The bytes of all constants, as floats.
    pub fn size_in_bytes(&self) -> usize {
        self.constants.values().map(|c| size_of::<f32>() * c.len()).sum()
    }
}

/// The shape of what a node makes.
pub(crate) fn infer(node: &Node, shapes: &BTreeMap<String, Shape>, constant: impl Fn(&str) -> bool) -> Result<Shape> {
    let shape = |name: &String| shapes.get(name).map(Vec::as_slice).ok_or_else(|| unknown(name));
    let inputs = node.inputs.iter().map(shape).collect::<Result<Vec<_>>>()?;
    let constants: Vec<bool> = node.inputs.iter().map(|name| constant(name)).collect();
    if constants.iter().all(|&constant| constant) {
        let found = "constants only".into();
        return Err(Error::Argument { what: "inputs", expected: "at least one that is not constant", found });
    }
    let shape = shape::infer(&node.op, &inputs, &constants)?;
    // Constants broadcast to a batch of any length only if they have one for all images.
    if shape.first() != Some(&1) {
        return Err(Error::shape("batch of the output", &[1], &shape));
    }
    Ok(shape)
}

fn unknown(name: &str) -> Error {
    Error::Name { what: "tensor", expected: "one that is known at this point", found: name.into() }
}
