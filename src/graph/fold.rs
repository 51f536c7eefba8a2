//! Networks that compute the same with fewer operators.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array1, Axis};

use super::network::{Constant, Graph, Node, Parts};
use super::op::{Activation, Clamp, Op};
use crate::error::Result;

impl Graph {
    /// The same function with fewer operators: normalizations become part of the convolutions and linear layers before
    /// them, clipping and ReLU become part of the operator before them, and what no output needs is dropped. (What
    /// depends on constants only was computed when the graph was built.)
    ///
    /// Outputs keep their names. Sums are rounded differently in the last bits.
    ///
    /// ```
    /// use ndarray::{Array, Array1};
    /// use ndarray_quant::{graph::{Activation, Clamp, GraphBuilder, Op}, nn::Window};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 1, 4, 4])?;
    /// let x = g.conv("conv", &x, &Array::from_elem((2, 1, 3, 3), 0.5), None, Window::new(), 1)?;
    /// let ones = g.constant("ones", &Array1::ones(2))?;
    /// let x = g.node("norm", Op::BatchNorm { epsilon: 0.0 }, &[&x, &ones, &ones, &ones, &ones])?;
    /// let x = g.activation("relu", &x, Activation::relu())?;
    /// let graph = g.build(&[&x])?.simplify()?;
    /// assert_eq!(graph.nodes().len(), 1);
    /// assert_eq!(graph.nodes()[0].clamp, Clamp::RELU);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// None for graphs that could be made.
    pub fn simplify(self) -> Result<Self> {
        let graph = fold_batch_norms(self)?;
        let graph = fuse_silu(graph)?;
        let graph = fuse_clamps(graph)?;
        drop_unused(graph)
    }
}

/// What a normalization multiplies each channel by and adds to it:
/// `scale / sqrt(variance + epsilon)`, and `shift - mean * that`.
pub(crate) fn batch_norm_factors(
    scale: &Constant,
    shift: &Constant,
    mean: &Constant,
    variance: &Constant,
    epsilon: f32,
) -> Vec<(f64, f64)> {
    let parameters = scale.iter().zip(shift).zip(mean).zip(variance);
    let factors = parameters.map(|(((&scale, &shift), &mean), &variance)| {
        let factor = scale as f64 / num_traits::Float::sqrt(variance as f64 + epsilon as f64);
        (factor, shift as f64 - mean as f64 * factor)
    });
    factors.collect()
}

/// Who makes and who reads each tensor. Passes put a node in the place of another that made the same tensor, so this
/// stays true while they run.
struct Wiring {
    producer: BTreeMap<String, usize>,
    reads: BTreeMap<String, usize>,
}

impl Wiring {
    fn new(parts: &Parts) -> Self {
        let producer = parts.nodes.iter().enumerate().map(|(i, node)| (node.output.clone(), i)).collect();
        let mut reads = BTreeMap::new();
        // An output is read by the caller too.
        for name in parts.nodes.iter().flat_map(|node| &node.inputs).chain(&parts.outputs).chain(&parts.outputs) {
            *reads.entry(name.clone()).or_default() += 1;
        }
        Self { producer, reads }
    }

    /// The node that makes this tensor, if only one other node reads it.
    fn made_for_one(&self, name: &str) -> Option<usize> {
        self.producer.get(name).copied().filter(|_| self.reads.get(name) == Some(&1))
    }
}

/// Multiplies normalizations into the weights before them.
fn fold_batch_norms(graph: Graph) -> Result<Graph> {
    let mut parts = graph.into_parts();
    let wiring = Wiring::new(&parts);
    let mut dropped = BTreeSet::new();
    for i in 0..parts.nodes.len() {
        let Op::BatchNorm { epsilon } = parts.nodes[i].op else { continue };
        let norm = parts.nodes[i].clone();
        let Some(before) = wiring.made_for_one(&norm.inputs[0]) else { continue };
        let layer = parts.nodes[before].clone();
        if !matches!(layer.op, Op::Conv { .. } | Op::Linear) || layer.clamp != Clamp::NONE {
            continue;
        }
        let constant = |name: &String| parts.constants[name].clone();
        let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|k| constant(&norm.inputs[k]));
        let factors = batch_norm_factors(&scale, &shift, &mean, &variance, epsilon);
        let mut weights = constant(&layer.inputs[1]).into_owned();
        for (mut w, (factor, _)) in weights.axis_iter_mut(Axis(0)).zip(&factors) {
            w.mapv_inplace(|w| (w as f64 * factor) as f32);
        }
        let old = layer.inputs.get(2).map(constant);
        let bias = |(c, (factor, shift)): (usize, &(f64, f64))| {
            let old = old.as_ref().map_or(0.0, |b| b[[c]] as f64);
            (old * factor + shift) as f32
        };
        let bias: Array1<f32> = factors.iter().enumerate().map(bias).collect();
        // Under new names: the old constants may have other readers.
        let names = [alloc::format!("{}.folded.weight", layer.name), alloc::format!("{}.folded.bias", layer.name)];
        parts.constants.insert(names[0].clone(), weights.into_shared());
        parts.constants.insert(names[1].clone(), bias.into_dyn().into_shared());
        let [weight, bias] = names;
        let inputs = alloc::vec![layer.inputs[0].clone(), weight, bias];
        parts.nodes[i] = Node { name: layer.name, op: layer.op, inputs, clamp: norm.clamp, output: norm.output };
        dropped.insert(before);
    }
    without(parts, &dropped)
}

/// `x * sigmoid(x)` is one function.
fn fuse_silu(graph: Graph) -> Result<Graph> {
    let mut parts = graph.into_parts();
    let wiring = Wiring::new(&parts);
    let mut dropped = BTreeSet::new();
    for i in 0..parts.nodes.len() {
        if parts.nodes[i].op != Op::Mul {
            continue;
        }
        for (gate, x) in [(0, 1), (1, 0)] {
            let (gate, x) = (parts.nodes[i].inputs[gate].clone(), parts.nodes[i].inputs[x].clone());
            let Some(at) = wiring.made_for_one(&gate) else { continue };
            let node = &parts.nodes[at];
            if node.op == Op::Activation(Activation::Sigmoid) && node.inputs[0] == x && node.clamp == Clamp::NONE {
                parts.nodes[i].op = Op::Activation(Activation::Silu);
                parts.nodes[i].inputs = alloc::vec![x];
                dropped.insert(at);
                break;
            }
        }
    }
    without(parts, &dropped)
}

/// Clips where the clipped value is made.
fn fuse_clamps(graph: Graph) -> Result<Graph> {
    let mut parts = graph.into_parts();
    let wiring = Wiring::new(&parts);
    let mut dropped = BTreeSet::new();
    for i in 0..parts.nodes.len() {
        let Op::Activation(Activation::Clip(clamp)) = parts.nodes[i].op else { continue };
        let clip = parts.nodes[i].clone();
        let Some(before) = wiring.made_for_one(&clip.inputs[0]) else { continue };
        let layer = parts.nodes[before].clone();
        if matches!(layer.op, Op::Conv { .. } | Op::Linear | Op::Add | Op::Mul | Op::BatchNorm { .. }) {
            let clamp = layer.clamp.then(clamp).then(clip.clamp);
            parts.nodes[i] = Node { clamp, output: clip.output, ..layer };
            dropped.insert(before);
        }
    }
    without(parts, &dropped)
}

fn without(mut parts: Parts, dropped: &BTreeSet<usize>) -> Result<Graph> {
    let mut position = 0;
    parts.nodes.retain(|_| {
        position += 1;
        !dropped.contains(&(position - 1))
    });
    Graph::new(parts)
}

/// Drops nodes and constants that no output depends on.
fn drop_unused(graph: Graph) -> Result<Graph> {
    let mut parts = graph.into_parts();
    let mut needed: BTreeSet<String> = parts.outputs.iter().cloned().collect();
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
