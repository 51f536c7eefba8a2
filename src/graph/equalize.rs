//! Cross-layer equalization: scales channels to more equal ranges without changing the network's function.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array1, Axis};

use super::calibrate::Calibration;
use super::collect::map_of;
use super::edit::Edit;
use super::network::{Graph, Node};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{GraphError, Result};
use crate::ops::operator::Inputs;
use crate::ptq::SmoothQuant;

/// Tied channels: sets of tensors whose channels must share their scaling factors, for example both operands of a sum.
/// A disjoint-set forest over the tensors of a graph.
struct TiedChannels<'g> {
    names: Vec<&'g str>,
    index: BTreeMap<&'g str, usize>,
    parent: Vec<usize>,
}

impl<'g> TiedChannels<'g> {
    fn new(graph: &'g Graph) -> Self {
        let names: Vec<&str> = graph.tensor_names().map(String::as_str).collect();
        let index = map_of(names.iter().enumerate().map(|(i, &name)| (name, i)));
        let mut tied = Self { parent: (0..names.len()).collect(), names, index };
        for node in graph.nodes() {
            let shape = |name: &String| graph.shape(name).unwrap_or_default();
            let shapes: Vec<&[usize]> = node.inputs.iter().map(shape).collect();
            let constant: Vec<bool> = node.inputs.iter().map(|name| graph.is_constant(name)).collect();
            let inputs = Inputs { shapes: &shapes, constant: &constant };
            if node.operator().commutes_with_scaling(&inputs, shape(&node.output)) {
                node.inputs.iter().for_each(|name| tied.join(name, &node.output));
            }
        }
        tied
    }

    /// The tensor that stands for the set of `name`.
    fn root(&mut self, name: &str) -> &'g str {
        let root = self.find(name);
        self.names[root]
    }

    fn find(&mut self, name: &str) -> usize {
        let mut at = self.index[name];
        while self.parent[at] != at {
            // Path halving keeps the trees flat.
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn join(&mut self, a: &str, b: &str) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a] = b;
    }
}

/// A set of tied tensors with the layers that write and read them.
#[derive(Default)]
struct Group<'g> {
    tensors: Vec<&'g str>,
    writers: Vec<usize>,
    readers: Vec<usize>,
    /// Something other than a layer writes or reads a tensor, or its values are bounded.
    fixed: bool,
}

impl Graph {
    /// Cross-layer equalization: returns a graph of the same function whose channels have more equal ranges, so that one
    /// scale per tensor loses less. Call it after [`simplify`](Self::simplify) and before calibration, on networks with
    /// depthwise convolutions above all (Nagel et al., "Data-free quantization through weight equalization and bias
    /// correction", 2019).
    ///
    /// Where convolutions or linear layers write a tensor and convolutions or linear layers read it, channel `c` is
    /// divided by `s_c` in the weights and bias of the writers, and multiplied by `s_c` in the weights of the readers. ReLU
    /// commutes with that. Operands of a sum share their factors. With the largest observed activation `x_c` and the
    /// largest weight `w_c` that reads the channel, `s_c = sqrt(x_c / w_c)`: both become `sqrt(x_c * w_c)`. If only
    /// depthwise convolutions read the tensor, whose weights have a scale per channel, `s_c = x_c`.
    ///
    /// All other tensors stay as they are, for example outputs of ReLU6, and inputs and outputs of the graph. The ranges of
    /// the new graph are other ranges, so it needs a calibration of its own.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::graph::GraphBuilder;
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 1])?;
    /// let x = g.linear("a", x, &array![[100.0], [0.01]], None)?;
    /// let y = g.linear("b", x, &array![[0.01, 100.0]], None)?;
    /// let graph = g.build(&[y])?;
    ///
    /// let x = array![[1.0f32], [-0.5]];
    /// let equalized = graph.equalize(&graph.calibrate([x.view()])?)?;
    /// assert_eq!(equalized.run(&x)?, graph.run(&x)?);
    /// let weights = equalized.constant("a.weight").unwrap();
    /// assert!((weights[[0, 0]] / weights[[1, 0]] - 1.0).abs() < 1e-5); // equal ranges
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] if `calibration` observed nothing. [`Error::Graph`] if it is of another graph, or if this is the
    /// graph of a quantized network.
    pub fn equalize(&self, calibration: &Calibration) -> Result<Graph> {
        self.check_float()?;
        calibration.check_observed()?;
        let mut tied = TiedChannels::new(self);
        let mut groups = BTreeMap::<&str, Group>::new();
        for node in self.nodes() {
            groups.entry(tied.root(&node.output)).or_default().tensors.push(&node.output);
        }
        for name in self.inputs().chain(self.outputs().iter().map(String::as_str)) {
            groups.entry(tied.root(name)).or_default().fixed = true;
        }
        for (i, node) in self.nodes().iter().enumerate() {
            let layer = node.operator().layer().is_some();
            let written = tied.root(&node.output);
            let bounded = node.clamp.high.is_some() || node.clamp.low.is_some_and(|low| low != 0.0);
            let all_tied = node.inputs.iter().all(|name| tied.root(name) == written);
            if let Some(group) = groups.get_mut(written) {
                group.fixed |= bounded || !(layer || all_tied);
                group.writers.extend(layer.then_some(i));
            }
            for name in node.inputs.iter().filter(|name| !self.is_constant(name)) {
                let read = tied.root(name);
                if let Some(group) = groups.get_mut(read) {
                    group.fixed |= !layer && read != written;
                    group.readers.extend(layer.then_some(i));
                }
            }
        }
        let mut edit = Edit::new(self.clone().into_parts());
        for group in groups.values().filter(|g| !g.fixed && !g.writers.is_empty() && !g.readers.is_empty()) {
            if let Some(max) = self.max_of_group(group, calibration)? {
                scale(&mut edit, group, &max);
            }
        }
        Graph::new(edit.parts)
    }

    /// The largest magnitude of each channel over the tensors of a group. `None` if they were not observed or differ in
    /// their numbers of channels.
    fn max_of_group(&self, group: &Group, calibration: &Calibration) -> Result<Option<Array1<f32>>> {
        let mut max: Option<Array1<f32>> = None;
        for name in &group.tensors {
            let Some(channels) = calibration.channel_abs_max(name) else { continue };
            if self.shape(name).and_then(|shape| shape.get(1)) != Some(&channels.len()) {
                let found = alloc::format!("{} channels of {name:?}", channels.len());
                let expected = "one of the graph to equalize";
                return Err(GraphError::Mismatch { what: "calibration", expected, found }.into());
            }
            match &mut max {
                None => max = Some(Array1::from_iter(channels.iter().copied())),
                Some(max) if max.len() == channels.len() => {
                    max.iter_mut().zip(channels).for_each(|(m, c)| *m = m.max(*c));
                }
                Some(_) => return Ok(None),
            }
        }
        Ok(max)
    }
}

/// Scales the channels of a group, whose largest magnitudes are `max`.
fn scale(edit: &mut Edit, group: &Group, max: &Array1<f32>) {
    // `sqrt(x / w)`.
    let method = SmoothQuant::new();
    let mut max_weight = Array1::<f32>::zeros(max.len());
    let mut depthwise_only = true;
    for &i in &group.readers {
        let node = &edit.parts.nodes[i];
        if !is_depthwise(node, max.len()) {
            depthwise_only = false;
            for_each_weight(&edit.parts.constants[&node.inputs[1]].view(), node.groups(), |c, w| {
                max_weight[c] = max_weight[c].max(w.abs());
            });
        }
    }
    let factor = |(&x, &w): (&f32, &f32)| match depthwise_only {
        true if x > 0.0 => x,
        false => method.factor(x, w),
        true => 1.0,
    };
    let factors: Vec<f32> = max.iter().zip(&max_weight).map(factor).collect();
    if factors.iter().any(|s| !(s.is_normal() && (1.0 / s).is_normal())) {
        return;
    }
    for &i in &group.writers {
        for input in 1..edit.parts.nodes[i].inputs.len() {
            edit.update_constant(i, input, |value| {
                for (mut channel, s) in value.axis_iter_mut(Axis(0)).zip(&factors) {
                    channel.mapv_inplace(|w| w / s);
                }
            });
        }
    }
    for &i in &group.readers {
        let groups = edit.parts.nodes[i].groups();
        edit.update_constant(i, 1, |value| {
            let (out, each) = (value.shape()[0] / groups, value.shape()[1]);
            for (o, mut filter) in value.axis_iter_mut(Axis(0)).enumerate() {
                for (c, mut w) in filter.axis_iter_mut(Axis(0)).enumerate() {
                    let s = factors[o / out.max(1) * each + c];
                    w.mapv_inplace(|w| w * s);
                }
            }
        });
    }
}

fn is_depthwise(node: &Node, channels: usize) -> bool {
    node.groups() == channels && channels > 1
}

/// Calls `f` with the input channel and the value of each weight.
fn for_each_weight(weights: &ndarray::ArrayViewD<'_, f32>, groups: usize, mut f: impl FnMut(usize, f32)) {
    let (out, each) = (weights.shape()[0] / groups, weights.shape()[1]);
    for (o, filter) in weights.axis_iter(Axis(0)).enumerate() {
        for (c, w) in filter.axis_iter(Axis(0)).enumerate() {
            w.iter().for_each(|&w| f(o / out.max(1) * each + c, w));
        }
    }
}
