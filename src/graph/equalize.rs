//! The same function with channels of more equal range.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array1, ArrayRef, ArrayView2, Axis, Dimension, IxDyn};

use super::compile::FloatNetwork;
use super::network::{Graph, Node, Parts};
use super::op::Op;
use super::plan::Arena;
use crate::error::Result;

/// The greatest magnitude of each channel of every activation, over batches.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{ChannelAbsMax, GraphBuilder};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 1])?;
/// let x = g.linear("a", &x, &array![[100.0], [0.01]], None)?;
/// let x = g.linear("b", &x, &array![[0.01, 100.0]], None)?;
/// let graph = g.build(&[&x])?;
///
/// let x = array![[1.0f32], [-0.5]];
/// let mut ranges = ChannelAbsMax::new(&graph)?;
/// ranges.observe(&x)?;
/// let equal = graph.equalize(&ranges)?;
/// assert_eq!(equal.run(&x)?, graph.run(&x)?);
/// let weights = equal.constant(&equal.node("a").unwrap().inputs[1]).unwrap();
/// assert!((weights[[0, 0]] / weights[[1, 0]] - 1.0).abs() < 1e-5); // one range for both channels
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct ChannelAbsMax {
    network: FloatNetwork,
    magnitudes: BTreeMap<String, Array1<f32>>,
    memory: Arena,
}

impl ChannelAbsMax {
    /// Watches every activation of a network.
    ///
    /// # Errors
    /// Those of [`Graph::compile`].
    pub fn new(graph: &Graph) -> Result<Self> {
        Ok(Self { network: graph.compile()?, magnitudes: BTreeMap::new(), memory: Arena::new() })
    }

    /// Runs a batch and watches.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` has another shape than the network's one input.
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        let magnitudes = &mut self.magnitudes;
        self.network.plan.run_observed(&[x.view().into_dyn()], &mut self.memory, &mut |tensor, values, _| {
            let &[_, channels, ..] = &tensor.shape[..] else { return Ok(()) };
            // Channels come last in memory for two and for four axes, and those are all that layers read.
            let values = values.as_slice::<f32>();
            if channels == 0 || tensor.shape.len() == 3 {
                return Ok(());
            }
            let rows = ArrayView2::from_shape((values.len() / channels, channels), values).expect("whole rows");
            let seen = magnitudes.entry(tensor.name.clone()).or_insert_with(|| Array1::zeros(channels));
            rows.rows().into_iter().for_each(|row| seen.zip_mut_with(&row, |m, x| *m = m.max(x.abs())));
            Ok(())
        })
    }
}

/// Tensors whose channels can only be scaled together: those that are added to each other.
struct Ties<'g> {
    parent: BTreeMap<&'g str, &'g str>,
}

impl<'g> Ties<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut ties = Self { parent: BTreeMap::new() };
        for node in graph.nodes() {
            let keeps_channels = match node.op {
                Op::Add => node.inputs.iter().all(|name| graph.shape(name) == graph.shape(&node.output)),
                Op::MaxPool { .. }
                | Op::AveragePool { .. }
                | Op::GlobalAveragePool
                | Op::Repeat { .. }
                | Op::Pad { .. } => true,
                Op::Reshape { .. } => is_flattened_pixel(graph, node),
                _ => false,
            };
            if keeps_channels {
                node.inputs.iter().for_each(|name| ties.join(name, &node.output));
            }
        }
        ties
    }

    fn root(&self, mut name: &'g str) -> &'g str {
        while let Some(parent) = self.parent.get(name) {
            name = parent;
        }
        name
    }

    fn join(&mut self, a: &'g str, b: &'g str) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.parent.insert(a, b);
        }
    }
}

/// Whether a reshape only drops a height and a width of 1.
fn is_flattened_pixel(graph: &Graph, node: &Node) -> bool {
    let shape = |name| graph.shape(name).unwrap_or_default();
    let (x, y) = (shape(&node.inputs[0]), shape(&node.output));
    x.len() == 4 && y.len() == 2 && x[1] == y[1]
}

/// What touches a group of tied tensors.
#[derive(Default)]
struct Group {
    tensors: Vec<String>,
    makers: Vec<usize>,
    readers: Vec<usize>,
    fixed: bool,
}

impl Graph {
    /// The same function with channels of more equal range, so that those of small range lose less when one scale
    /// serves all (Nagel and others, "Data-free quantization through weight equalization and bias correction", 2019).
    ///
    /// Wherever convolutions or linear layers make a tensor, and convolutions or linear layers read it, channel `c` is
    /// divided by `s_c` where it is made and multiplied by `s_c` where it is read. ReLU commutes with that, and tensors
    /// that are added to each other share their factors. With the magnitudes `x_c` that were seen, and `w_c` of the
    /// weights that read the channel, `s_c = sqrt(x_c / w_c)`: both become `sqrt(x_c * w_c)`. Where only filters of
    /// single channels read, whose weights have scales of their own, `s_c = x_c`.
    ///
    /// Other tensors, those with an upper bound such as ReLU6 among them, stay as they are. Simplify the graph first.
    ///
    /// # Errors
    /// None for graphs that could be made.
    pub fn equalize(&self, seen: &ChannelAbsMax) -> Result<Graph> {
        let ties = Ties::new(self);
        let mut groups = BTreeMap::<&str, Group>::new();
        for node in self.nodes() {
            let root = ties.root(&node.output);
            groups.entry(root).or_default().tensors.push(node.output.clone());
        }
        for input in self.inputs() {
            groups.entry(ties.root(&input.name)).or_default().fixed = true;
        }
        for output in self.outputs() {
            groups.entry(ties.root(output)).or_default().fixed = true;
        }
        for (i, node) in self.nodes().iter().enumerate() {
            let layer = matches!(node.op, Op::Conv { .. } | Op::Linear);
            let made = ties.root(&node.output);
            let bounded = node.clamp.high.is_some() || node.clamp.low.is_some_and(|low| low != 0.0);
            let tied = |name: &String| ties.root(name) == made;
            if let Some(group) = groups.get_mut(made) {
                group.fixed |= bounded || !(layer || node.inputs.iter().all(tied));
                group.makers.extend(layer.then_some(i));
            }
            for name in node.inputs.iter().filter(|name| !self.is_constant(name)) {
                if let Some(group) = groups.get_mut(ties.root(name)) {
                    group.fixed |= !layer && ties.root(name) != made;
                    group.readers.extend(layer.then_some(i));
                }
            }
        }
        let mut parts = self.clone().into_parts();
        for group in groups.values().filter(|g| !g.fixed && !g.makers.is_empty() && !g.readers.is_empty()) {
            scale(&mut parts, group, seen);
        }
        Graph::new(parts)
    }
}

fn scale(parts: &mut Parts, group: &Group, seen: &ChannelAbsMax) {
    let mut magnitudes = group.tensors.iter().filter_map(|name| seen.magnitudes.get(name));
    let Some(first) = magnitudes.next() else { return };
    let mut x = first.clone();
    for other in magnitudes {
        if other.len() != x.len() {
            return;
        }
        x.zip_mut_with(other, |x, o| *x = x.max(*o));
    }
    let mut w = Array1::<f32>::zeros(x.len());
    let mut shared = false;
    for &i in &group.readers {
        let node = parts.nodes[i].clone();
        if !is_depthwise(&node, x.len()) {
            shared = true;
            each_read(parts, &node, x.len(), |c, value| w[c] = w[c].max(value.abs()));
        }
    }
    let factor = |(&x, &w): (&f32, &f32)| match (shared, x > 0.0 && w > 0.0) {
        (false, _) if x > 0.0 => x,
        (true, true) => num_traits::Float::sqrt(x / w),
        _ => 1.0,
    };
    let factors: Vec<f32> = x.iter().zip(&w).map(factor).collect();
    if factors.iter().any(|s| !(s.is_normal() && (1.0 / s).is_normal())) {
        return;
    }
    for &i in &group.makers {
        let node = parts.nodes[i].clone();
        for name in &node.inputs[1..] {
            let mut value = parts.constants[name].clone().into_owned();
            for (mut channel, s) in value.axis_iter_mut(Axis(0)).zip(&factors) {
                channel.mapv_inplace(|w| w / s);
            }
            replace(parts, i, name, value);
        }
    }
    for &i in &group.readers {
        let node = parts.nodes[i].clone();
        let name = node.inputs[1].clone();
        let mut value = parts.constants[&name].clone().into_owned();
        let groups = if let Op::Conv { groups, .. } = node.op { groups } else { 1 };
        let (out, each) = (value.shape()[0] / groups, value.shape()[1]);
        for (o, mut filter) in value.axis_iter_mut(Axis(0)).enumerate() {
            for (c, mut w) in filter.axis_iter_mut(Axis(0)).enumerate() {
                let s = factors[o / out.max(1) * each + c];
                w.mapv_inplace(|w| w * s);
            }
        }
        replace(parts, i, &name, value);
    }
}

/// Gives a node a constant of its own in the place of one that others may read.
fn replace(parts: &mut Parts, i: usize, name: &str, value: ndarray::Array<f32, IxDyn>) {
    let read = parts.nodes.iter().enumerate().any(|(k, node)| k != i && node.inputs.iter().any(|input| input == name));
    let new = if read { alloc::format!("{name}.{}", parts.nodes[i].name) } else { name.into() };
    parts.nodes[i].inputs.iter_mut().filter(|input| *input == name).for_each(|input| input.clone_from(&new));
    parts.constants.insert(new, value.into_shared());
}

fn is_depthwise(node: &Node, channels: usize) -> bool {
    matches!(node.op, Op::Conv { groups, .. } if groups == channels)
}

/// Calls `f` with every weight that reads a channel, and that channel.
fn each_read(parts: &Parts, node: &Node, channels: usize, mut f: impl FnMut(usize, f32)) {
    let weights = &parts.constants[&node.inputs[1]];
    let groups = if let Op::Conv { groups, .. } = node.op { groups } else { 1 };
    let (out, each) = (weights.shape()[0] / groups, weights.shape()[1]);
    for (o, filter) in weights.axis_iter(Axis(0)).enumerate() {
        for (c, w) in filter.axis_iter(Axis(0)).enumerate() {
            let channel = (o / out.max(1) * each + c).min(channels.saturating_sub(1));
            w.iter().for_each(|&w| f(channel, w));
        }
    }
}
