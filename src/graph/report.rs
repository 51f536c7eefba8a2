//! Quantization error per layer.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ndarray::{ArrayRef, Axis, Dimension, Slice};

use super::compile::Planner;
use super::network::{Graph, Node};
use super::plan::{Arena, Plan, Ports, Tensor};
use super::qnetwork::QuantizedNetwork;
use super::recipe::{Precision, weights_of};
use crate::error::{Error, GraphError, Result};
use crate::metrics::ErrorSums;
use crate::ops::float_weights::Weights;
use crate::ops::kernel::{Kind, Values};
use crate::ops::quantize::{FakeParams, FakeQuantize};
use crate::simd::{self, Task};

/// The error of a tensor against its float values. See [`metrics`](crate::metrics) for the formulas.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ErrorMetrics {
    /// Signal-to-quantization-noise ratio in decibels; infinite without error.
    pub sqnr_db: f64,
    /// Cosine similarity.
    pub cosine: f64,
}

/// The quantization error of one node.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LayerReport {
    /// The name of the node: its output tensor, as the [`Recipe`](super::Recipe) names it.
    pub node: String,
    /// The operator.
    pub op: &'static str,
    /// Error of the output if the inputs are exact: the error that this node adds.
    pub local: ErrorMetrics,
    /// Error of the output in the quantized network: of this node and all before it.
    pub accumulated: ErrorMetrics,
    /// Error of the weights. `None` without weights, or if they stay in `f32`.
    pub weights: Option<ErrorMetrics>,
    /// The smallest and the largest output of the float network.
    pub range: (f32, f32),
    /// Fraction of outputs outside the range of the codes, which are clipped.
    pub clipped: f64,
    /// Fraction of weights outside the range of the codes.
    pub weights_clipped: f64,
}

/// The quantization error of a network, layer by layer. Made by [`QuantizedNetwork::report`].
///
/// It prints as a table and draws itself as [SVG](Self::to_svg); with the feature `serde` it serializes. To find the layer
/// that costs accuracy, look for a low `local` SQNR; then widen its range, or keep it in float.
///
/// ```
/// # use ndarray::array;
/// # use ndarray_quant::graph::{CalibrationMethod, GraphBuilder};
/// # let mut g = GraphBuilder::new();
/// # let x = g.input("x", &[1, 2])?;
/// # let y = g.linear("y", x, &array![[1.0, -0.7]], None)?;
/// # let graph = g.build(&[y])?;
/// # let samples = array![[1.0f32, 0.3], [0.2, -0.4]];
/// # let recipe = graph.calibrate([samples.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
/// let network = graph.quantize(&recipe)?;
/// let report = network.report(&graph, &samples)?;
/// println!("{report}");
/// assert!(report.layers[0].accumulated.sqnr_db > 30.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ErrorReport {
    /// The nodes in topological order.
    pub layers: Vec<LayerReport>,
}

impl From<ErrorSums> for ErrorMetrics {
    fn from(sums: ErrorSums) -> Self {
        ErrorMetrics { sqnr_db: sums.sqnr_db(), cosine: sums.cosine() }
    }
}

/// The statistics of one activation over the samples of a report.
#[derive(Debug, Clone)]
struct ActivationSums {
    range: (f32, f32),
    clipped: usize,
    count: usize,
    local: ErrorSums,
    accumulated: ErrorSums,
}

impl Default for ActivationSums {
    fn default() -> Self {
        let range = (f32::INFINITY, f32::NEG_INFINITY);
        Self { range, clipped: 0, count: 0, local: ErrorSums::default(), accumulated: ErrorSums::default() }
    }
}

/// The values of one sample: of the float network's tensors, and of quantized layers on exact inputs, which have a prefix
/// before the name of their tensor. Each sample overwrites them.
struct SampleValues {
    local_prefix: String,
    values: BTreeMap<String, Vec<f32>>,
}

impl QuantizedNetwork {
    /// Measures the error of each layer on these samples, against the float network that was quantized.
    ///
    /// The quantized network is simulated on floats: its codes differ from the integer arithmetic by one at most, and
    /// rarely.
    ///
    /// # Errors
    /// [`Error::Graph`] if `float` is not the graph that was quantized, otherwise the same as [`run`](Self::run).
    pub fn report<D: Dimension>(&self, float: &Graph, x: &ArrayRef<f32, D>) -> Result<ErrorReport> {
        let parts = self.parts();
        float.check_float()?;
        let inputs = parts.graph.inputs();
        for name in parts.graph.nodes().iter().map(|node| node.output.as_str()).chain(inputs) {
            match float.shape(name) {
                None => return Err(Error::unknown("tensor of the float network", name, float.tensor_names())),
                shape if shape == parts.graph.shape(name) => {}
                Some(shape) => return Err(not_the_float_network(alloc::format!("{name:?} of shape {shape:?}"))),
            }
        }
        let mut local_prefix = String::from("local: ");
        while float.tensor_names().any(|name| name.starts_with(&local_prefix)) {
            local_prefix.insert(0, '_');
        }
        let (exact, simulation) = (self.with_local(float, &local_prefix)?, parts.simulation()?);
        let mut sample = SampleValues { local_prefix, values: BTreeMap::new() };
        let mut sums = BTreeMap::<String, ActivationSums>::new();
        let mut arena = Arena::new();
        let x = x.view().into_dyn();
        for i in 0..x.shape().first().copied().unwrap_or(0) {
            let input = [x.slice_axis(Axis(0), Slice::from(i..i + 1))];
            exact.run_observed(&input, &mut arena, &mut |tensor, found| {
                self.add_exact(tensor, found, &mut sample, &mut sums)
            })?;
            // A fake-quantized tensor is observed before and after rounding; the second one counts.
            let mut last = BTreeMap::<String, ErrorSums>::new();
            simulation.run_observed(&input, &mut arena, &mut |tensor, found| {
                if let Some(expected) = sample.values.get(&tensor.name) {
                    let mut sums = ErrorSums::default();
                    sums.add_f32(expected, found.as_slice());
                    last.insert(tensor.name.clone(), sums);
                }
                Ok(())
            })?;
            for (name, error) in last {
                sums.entry(name).or_default().accumulated.merge(error);
            }
        }
        let layers = parts.graph.nodes().iter().map(|node| {
            let sums = sums.remove(&node.output).unwrap_or_default();
            let (weights, weights_clipped) = self.weight_error(float, node).unzip();
            LayerReport {
                node: node.output.clone(),
                op: node.op.name(),
                local: sums.local.into(),
                accumulated: sums.accumulated.into(),
                weights,
                range: if sums.count == 0 { (0.0, 0.0) } else { sums.range },
                clipped: sums.clipped as f64 / sums.count.max(1) as f64,
                weights_clipped: weights_clipped.unwrap_or(0.0),
            }
        });
        Ok(ErrorReport { layers: layers.collect() })
    }

    /// The error of a node's weights, and the fraction of them that is clipped.
    fn weight_error(&self, float: &Graph, node: &Node) -> Option<(ErrorMetrics, f64)> {
        let name = weights_of(node)?;
        let found = self.parts().stored.get(name)?.dequantize();
        let expected = float.constant(weights_of(float.node(&node.output)?)?)?;
        let (found, expected) = (found.as_standard_layout(), expected.as_standard_layout());
        let (found, expected) = (found.as_slice()?, expected.as_slice()?);
        let mut sums = ErrorSums::default();
        sums.add_f32(expected, found);
        Some((sums.into(), self.clipped_weights(name, expected)))
    }

    /// The plan of the float network, with each quantized layer beside the float layer, on the same exact inputs.
    fn with_local(&self, float: &Graph, local_prefix: &str) -> Result<Plan> {
        let parts = self.parts();
        let mut planner = Planner::new(float);
        let floats = float.inputs().map(|name| planner.define(name, Kind::F32)).collect();
        for node in float.nodes() {
            let name = &node.output;
            if let Some(quantized) = parts.graph.node(name) {
                let is_known = |x: &String| parts.graph.is_constant(x) || planner.find(x, Kind::F32).is_some();
                if let Some(x) = quantized.inputs.iter().find(|x| !is_known(x)) {
                    return Err(not_the_float_network(alloc::format!("{name:?} before {x:?}")));
                }
                let (kernel, mut inputs) = parts.simulated(&mut planner, quantized);
                let local = alloc::format!("{local_prefix}{name}");
                let params = self.activation(name);
                if kernel.is_some() {
                    let output = planner.define_unnamed(if params.is_some() { "" } else { &local }, name);
                    planner.step(name, kernel, inputs, output);
                    inputs = alloc::vec![output];
                }
                if let Some(params) = params.map(|params| FakeParams::Static(Box::new(params))) {
                    let rounded = planner.define_unnamed(&local, name);
                    planner.step(name, Some(Box::new(FakeQuantize { params })), inputs, rounded);
                }
            }
            planner.float_node(node, |name| float.shared_constant(name).cloned().map(Weights::F32));
        }
        let outputs = float.outputs().iter();
        let outputs = outputs.map(|name| planner.output(name, |name| float.shared_constant(name).cloned())).collect();
        let ports = |floats| Ports { floats, codes: Vec::new() };
        Ok(planner.finish(ports(floats), ports(outputs)))
    }

    /// Adds a tensor of the float network to the sums. The output of a quantized layer on exact inputs comes just before
    /// it and is kept until then.
    fn add_exact(
        &self,
        tensor: &Tensor,
        values: Values<'_>,
        sample: &mut SampleValues,
        sums: &mut BTreeMap<String, ActivationSums>,
    ) -> Result<()> {
        let values = values.as_slice::<f32>();
        if !tensor.name.starts_with(&sample.local_prefix) {
            let sums = sums.entry(tensor.name.clone()).or_default();
            let params = self.activation(&tensor.name);
            let bounds = params.and_then(|params| Some((params.value_range()?, params.scales()[0] / 2.0)));
            let (low, high) =
                bounds.map_or((f32::NEG_INFINITY, f32::INFINITY), |((low, high), half)| (low - half, high + half));
            let Spread { min, max, outside } = simd::run(FindSpread { values, low, high });
            sums.range = (sums.range.0.min(min), sums.range.1.max(max));
            sums.clipped += outside;
            sums.count += values.len();
            let local = sample.values.get(&alloc::format!("{}{}", sample.local_prefix, tensor.name));
            sums.local.add_f32(values, local.map_or(values, Vec::as_slice));
        }
        // Unnamed tensors share a buffer, which nothing reads.
        let kept = sample.values.entry(tensor.name.clone()).or_default();
        kept.clear();
        kept.extend_from_slice(values);
        Ok(())
    }

    /// The fraction of weights outside the range of their codes.
    fn clipped_weights(&self, name: &str, weights: &[f32]) -> f64 {
        let tensor = &self.recipe().tensors[name];
        if matches!(tensor.precision, Precision::Float16 | Precision::Float32) || weights.is_empty() {
            return 0.0;
        }
        let block = weights.len().div_ceil(tensor.ranges.len().max(1));
        let blocks = weights.chunks(block).zip(&tensor.ranges);
        let clipped = blocks.map(|(weights, (min, max))| {
            // A weight up to half a step beyond the largest code rounds to it.
            let limit = max.max(-min) * (1.0 + 0.5 / tensor.max_code() as f32);
            weights.iter().filter(|w| w.abs() > limit).count()
        });
        clipped.sum::<usize>() as f64 / weights.len() as f64
    }
}

/// The smallest and the largest value, and the number of values outside of some bounds.
struct Spread {
    min: f32,
    max: f32,
    outside: usize,
}

struct FindSpread<'a> {
    values: &'a [f32],
    low: f32,
    high: f32,
}

impl Task for FindSpread<'_> {
    type Output = Spread;

    #[inline(always)]
    fn run(self) -> Spread {
        const LANES: usize = 16;
        let Self { values, low, high } = self;
        let (mut min, mut max, mut outside) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0u32; LANES]);
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                min[i] = if chunk[i] < min[i] { chunk[i] } else { min[i] };
                max[i] = if chunk[i] > max[i] { chunk[i] } else { max[i] };
                outside[i] += u32::from(chunk[i] < low) + u32::from(chunk[i] > high);
            }
        }
        for (i, &x) in rest.iter().enumerate() {
            (min[i], max[i]) = (min[i].min(x), max[i].max(x));
            outside[i] += u32::from(x < low || x > high);
        }
        Spread {
            min: min.into_iter().fold(f32::INFINITY, f32::min),
            max: max.into_iter().fold(f32::NEG_INFINITY, f32::max),
            outside: outside.into_iter().map(|n| n as usize).sum(),
        }
    }
}

fn not_the_float_network(found: String) -> Error {
    GraphError::Mismatch { what: "float network of a report", expected: "the graph that was quantized", found }.into()
}

impl fmt::Display for ErrorReport {
    /// A table with one node per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.node.chars().count()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:width$}  {:17}  {:>9}  {:>14}  {:>11}  {:>8}  {:>19}  {:>8}",
            "node", "operator", "local dB", "accumulated dB", "weights dB", "cosine", "range", "clipped"
        )?;
        for layer in &self.layers {
            let db = |error: ErrorMetrics| alloc::format!("{:.1}", error.sqnr_db);
            writeln!(
                f,
                "{:width$}  {:17}  {:>9}  {:>14}  {:>11}  {:>8.5}  {:>9.3}..{:<8.3}  {:>7.3}%",
                layer.node,
                layer.op,
                db(layer.local),
                db(layer.accumulated),
                layer.weights.map_or_else(|| "-".into(), db),
                layer.accumulated.cosine,
                layer.range.0,
                layer.range.1,
                100.0 * layer.clipped,
            )?;
        }
        Ok(())
    }
}

impl ErrorReport {
    /// The nodes by the error that they add: the lowest local SQNR first.
    pub fn worst_first(&self) -> Vec<&LayerReport> {
        let mut layers: Vec<&LayerReport> = self.layers.iter().collect();
        layers.sort_by(|a, b| a.local.sqnr_db.total_cmp(&b.local.sqnr_db));
        layers
    }

    /// Draws the report: two bars per node, for the SQNR of the layer alone and of all layers up to it.
    pub fn to_svg(&self) -> String {
        use fmt::Write;
        const ROW: usize = 22;
        const LEFT: usize = 260;
        const TOP: usize = 60;
        // The end of the axis. Better values are drawn up to it.
        const MAX_DB: f64 = 60.0;
        const PIXELS_PER_DB: f64 = 10.0;
        let height = TOP + ROW * self.layers.len() + 20;
        let width = LEFT + (MAX_DB * PIXELS_PER_DB) as usize + 40;
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{LEFT}" y="20" font-size="15">SQNR in dB: longer is better</text>
<rect x="{LEFT}" y="28" width="12" height="8" fill="#8fb4d9"/><text x="{}" y="37">the layer alone</text>
<rect x="{}" y="28" width="12" height="8" fill="#2d5f8b"/><text x="{}" y="37">all layers up to it</text>"##,
            LEFT + 18,
            LEFT + 130,
            LEFT + 148,
        );
        for db in (0..=MAX_DB as usize).step_by(10) {
            let x = LEFT as f64 + db as f64 * PIXELS_PER_DB;
            let _ = writeln!(
                svg,
                r##"<line x1="{x}" y1="{TOP}" x2="{x}" y2="{}" stroke="#d0d5dd"/><text x="{x}" y="{}" text-anchor="middle">{db}</text>"##,
                height - 20,
                height - 6,
            );
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let y = TOP + ROW * i;
            let name = escaped(&layer.node);
            let _ = writeln!(svg, r#"<text x="{}" y="{}" text-anchor="end">{name}</text>"#, LEFT - 8, y + 14);
            for (error, offset, color) in [(layer.local, 3, "#8fb4d9"), (layer.accumulated, 11, "#2d5f8b")] {
                let length = error.sqnr_db.clamp(0.0, MAX_DB) * PIXELS_PER_DB;
                let _ = writeln!(
                    svg,
                    r#"<rect x="{LEFT}" y="{}" width="{length:.1}" height="7" fill="{color}"><title>{name}: {:.1} dB</title></rect>"#,
                    y + offset,
                    error.sqnr_db,
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Escapes text for XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
