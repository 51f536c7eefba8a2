//! Graph simplification: folding of batch normalization and other affine functions by channel, activation fusion, dead-node elimination.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array1, Axis};

use super::collect::set_of;
use super::fuse::fuse;
use super::network::{Constant, FreshNames, Graph, Node, Parts};
use super::reshapes::move_reshapes;
use crate::error::Result;
use crate::ops::clamp::Clamp;

impl Graph {
    /// Returns an equivalent graph with fewer nodes. Call it before calibration.
    ///
    /// - Batch normalization, and sums and products with constants by channel, are folded into the weights and bias of the
    ///   convolution or linear layer before them, positive factors behind a ReLU too, or into the scale and bias of a layer
    ///   normalization.
    /// - ReLU, ReLU6 and Clip become the [clamp](super::Node::clamp) of the convolution, linear layer, sum or product
    ///   before them.
    /// - SiLU, hard swish, GELU and layer normalization, if spelled with several operators, become one.
    /// - Reshapes move behind functions of elements, and successive ones become one.
    /// - Nodes and constants that no output depends on are removed.
    ///
    /// A tensor that remains keeps its name and its values, up to float rounding. So the fused layer has the name of the
    /// last tensor: convolution `c1` with ReLU `r1` becomes node `r1`, with weights `c1.weight`. Folded weights are named
    /// `c1.folded.weight`, with a number behind if that name is taken.
    ///
    /// ```
    /// use ndarray::{Array, Array1};
    /// use ndarray_quant::{graph::{Clamp, GraphBuilder}, nn::Window};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 1, 4, 4])?;
    /// let x = g.conv("conv", x, &Array::from_elem((2, 1, 3, 3), 0.5), None, Window::new(), 1)?;
    /// let ones = Array1::ones(2);
    /// let x = g.batch_norm("norm", x, &ones, &ones, &ones, &ones, 1e-5)?;
    /// let x = g.relu("relu", x)?;
    /// let graph = g.build(&[x])?.simplify()?;
    /// assert_eq!(graph.nodes().len(), 1);
    /// assert_eq!(graph.node("relu").unwrap().op.name(), "Conv");
    /// assert_eq!(graph.node("relu").unwrap().clamp, Clamp::RELU);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// None at present.
    pub fn simplify(self) -> Result<Self> {
        let graph = fold_affine(move_reshapes(self)?)?;
        let graph = fuse(fuse_clamps(graph, |_| false)?)?;
        remove_unused(graph)
    }

    /// Fuses clamps and removes what no output depends on. No constant and no tensor that `keep` names changes.
    #[cfg(feature = "onnx")]
    pub(crate) fn simplify_around(self, keep: impl Fn(&str) -> bool) -> Result<Self> {
        remove_unused(fuse_clamps(self, keep)?)
    }
}

/// The producer and the number of readers of each tensor. A pass that replaces a producer by another node with the same
/// output leaves it valid.
struct Edges {
    producer: BTreeMap<String, usize>,
    reads: BTreeMap<String, usize>,
}

impl Edges {
    fn new(parts: &Parts) -> Self {
        Self { producer: parts.producers(), reads: parts.reads() }
    }

    /// The producer of a tensor that has a single reader.
    fn sole_producer(&self, name: &str) -> Option<usize> {
        self.producer.get(name).copied().filter(|_| self.reads.get(name) == Some(&1))
    }
}

/// Folds batch normalizations, and sums and products with constants by channel, into the weights and biases of the layers,
/// or the factors and biases of the layer normalizations, before them.
pub(super) fn fold_affine(graph: Graph) -> Result<Graph> {
    let shapes = graph.shapes().clone();
    let mut parts = graph.into_parts();
    let edges = Edges::new(&parts);
    let mut names = FreshNames::new(&parts);
    let mut removed = BTreeSet::new();
    for i in 0..parts.nodes.len() {
        let affine = parts.nodes[i].clone();
        let constant = |name: &String| parts.constants.get(name).cloned();
        let mut activations = affine.inputs.iter().filter(|name| !parts.constants.contains_key(*name));
        let (Some(x), None) = (activations.next(), activations.next()) else { continue };
        let Some(before) = edges.sole_producer(x) else { continue };
        let layer = parts.nodes[before].clone();
        if !layer.operator().has_channel_parameters() || shapes[x] != shapes[&affine.output] {
            continue;
        }
        if affine.clamp != Clamp::NONE && !layer.operator().supports_clamp() {
            continue;
        }
        let Some(weights) = layer.inputs.get(1).and_then(constant) else { continue };
        let constants: Vec<Option<Constant>> = affine.inputs.iter().map(constant).collect();
        // The channels of a convolution are axis 1, of a linear layer the last axis.
        let axis = if weights.ndim() == 4 { 1 } else { shapes[x].len() - 1 };
        let Some(factors) = affine.operator().channel_affine(&shapes[x], axis, &constants) else { continue };
        // ReLU commutes with positive factors.
        let positive = || factors.iter().all(|&(factor, shift)| factor > 0.0 && shift == 0.0);
        if layer.clamp != Clamp::NONE && !(layer.clamp == Clamp::RELU && positive()) {
            continue;
        }
        let mut weights = weights.into_owned();
        for (mut w, (factor, _)) in weights.axis_iter_mut(Axis(0)).zip(&factors) {
            w.mapv_inplace(|w| (w as f64 * factor) as f32);
        }
        let old = layer.inputs.get(2).and_then(constant);
        let bias = |(c, (factor, shift)): (usize, &(f64, f64))| {
            let old = old.as_ref().map_or(0.0, |b| b[[c]] as f64);
            (old * factor + shift) as f32
        };
        let bias: Array1<f32> = factors.iter().enumerate().map(bias).collect();
        // A negative variance gives NaN, and f32 may overflow. The normalization stays where it is then.
        if !weights.iter().chain(&bias).all(|x| x.is_finite()) {
            continue;
        }
        // Other nodes may read the old constants, so these get new names.
        let weight_name = names.take(alloc::format!("{}.folded.weight", layer.output));
        let bias_name = names.take(alloc::format!("{}.folded.bias", layer.output));
        parts.constants.insert(weight_name.clone(), weights.into_shared());
        parts.constants.insert(bias_name.clone(), bias.into_dyn().into_shared());
        let inputs = alloc::vec![layer.inputs[0].clone(), weight_name, bias_name];
        parts.nodes[i] = Node { op: layer.op, inputs, clamp: layer.clamp.then(affine.clamp), output: affine.output };
        removed.insert(before);
    }
    without(parts, &removed)
}

/// Fuses ReLU, ReLU6 and Clip into the nodes before them, unless `keep` names the tensor between them.
fn fuse_clamps(graph: Graph, keep: impl Fn(&str) -> bool) -> Result<Graph> {
    let mut parts = graph.into_parts();
    let edges = Edges::new(&parts);
    let mut removed = BTreeSet::new();
    for i in 0..parts.nodes.len() {
        let Some(clamp) = parts.nodes[i].operator().as_clamp() else { continue };
        let clip = parts.nodes[i].clone();
        let Some(before) = edges.sole_producer(&clip.inputs[0]) else { continue };
        let layer = parts.nodes[before].clone();
        if layer.operator().supports_clamp() && !keep(&layer.output) {
            parts.nodes[i] = Node { clamp: layer.clamp.then(clamp), output: clip.output, ..layer };
            removed.insert(before);
        }
    }
    without(parts, &removed)
}

fn without(mut parts: Parts, removed: &BTreeSet<usize>) -> Result<Graph> {
    let mut position = 0;
    parts.nodes.retain(|_| {
        position += 1;
        !removed.contains(&(position - 1))
    });
    Graph::new(parts)
}

/// Removes nodes and constants that no output depends on.
fn remove_unused(graph: Graph) -> Result<Graph> {
    let mut parts = graph.into_parts();
    let mut needed = set_of(parts.outputs.iter().cloned());
    let mut kept = Vec::new();
    for node in core::mem::take(&mut parts.nodes).into_iter().rev() {
        if needed.contains(&node.output) {
            needed.extend(node.inputs.iter().cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    parts.constants.retain(|name, _| needed.contains(name));
    Graph::new(Parts { nodes: kept, ..parts })
}
