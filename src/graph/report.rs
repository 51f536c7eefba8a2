//! Which layer hurts: how far each tensor of a quantized network is from what it was.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ndarray::{ArrayRef, Axis, Dimension, Slice};

use super::codes::FakeQuantize;
use super::compile::Planner;
use super::float::Weights;
use super::kernel::{Kind, Values};
use super::network::Graph;
use super::plan::{Arena, Plan, Ports, Tensor};
use super::qnetwork::QuantizedNetwork;
use super::recipe::{Precision, weights_of};
use crate::error::{Error, Result};

/// How close some values are to others.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ErrorMetrics {
    /// The ratio of signal to error in decibels, `10 log10(Σ x² / Σ (x - y)²)`; infinite if there is no error.
    pub sqnr_db: f64,
    /// The cosine of the angle between both, `Σ x·y / sqrt(Σ x² · Σ y²)`; 1 if both are zero.
    pub cosine: f64,
}

/// One node of the report.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LayerReport {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// Its output with exact inputs: what this layer alone does.
    pub local: ErrorMetrics,
    /// Its output in the quantized network: what all layers up to this one do.
    pub accumulated: ErrorMetrics,
    /// Its weights, if it has some that are not kept in `f32`.
    pub weights: Option<ErrorMetrics>,
    /// The smallest and the greatest value that the float network puts out here.
    pub range: (f32, f32),
    /// The share of these values that have no code, because they are beyond the range of codes.
    pub clipped: f64,
    /// The same for its weights.
    pub weights_clipped: f64,
}

/// The errors of a quantized network, node by node, on some images.
///
/// It prints as a table; with the feature `serde` it serializes, and [`to_svg`](Self::to_svg) is a picture.
///
/// ```
/// # use ndarray::array;
/// # use ndarray_quant::graph::{Calibration, GraphBuilder};
/// # use ndarray_quant::observer::MinMax;
/// # let mut g = GraphBuilder::new();
/// # let x = g.input("x", &[1, 2])?;
/// # let y = g.linear("y", &x, &array![[1.0, -0.7]], None)?;
/// # let graph = g.build(&[&y])?;
/// # let images = array![[1.0f32, 0.3], [0.2, -0.4]];
/// # let mut calibration = Calibration::new(&graph, MinMax::per_tensor())?;
/// # calibration.observe(&images)?;
/// let network = graph.quantize(&calibration.recipe()?)?;
/// let report = network.report(&graph, &images)?;
/// println!("{report}");
/// assert!(report.layers[0].accumulated.sqnr_db > 30.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ErrorReport {
    /// In the order in which they run.
    pub layers: Vec<LayerReport>,
}

/// The sums that a fidelity is made of.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    signal: f64,
    found: f64,
    product: f64,
    error: f64,
}

impl Sums {
    fn add(&mut self, expected: &[f32], found: &[f32]) {
        for (&x, &y) in expected.iter().zip(found) {
            let (x, y) = (x as f64, y as f64);
            self.signal += x * x;
            self.found += y * y;
            self.product += x * y;
            self.error += (x - y) * (x - y);
        }
    }

    fn fidelity(self) -> ErrorMetrics {
        let sqnr_db =
            if self.error == 0.0 { f64::INFINITY } else { 10.0 * num_traits::Float::log10(self.signal / self.error) };
        let length = num_traits::Float::sqrt(self.signal * self.found);
        let same = self.signal == self.found;
        ErrorMetrics { sqnr_db, cosine: if length > 0.0 { self.product / length } else { same as u8 as f64 } }
    }
}

/// What is known of one activation.
#[derive(Debug, Clone)]
struct Seen {
    range: (f32, f32),
    clipped: usize,
    count: usize,
    local: Sums,
    accumulated: Sums,
}

impl Default for Seen {
    fn default() -> Self {
        let range = (f32::INFINITY, f32::NEG_INFINITY);
        Self { range, clipped: 0, count: 0, local: Sums::default(), accumulated: Sums::default() }
    }
}

/// What marks tensors that layers make of exact inputs.
const LOCAL: &str = "local: ";

impl QuantizedNetwork {
    /// Compares each layer with the float network that this one was made from, on these images.
    ///
    /// The quantized network is simulated in floats, which differs from its integer arithmetic by single codes at most.
    ///
    /// # Errors
    /// [`Error::Name`] if the graph has not the tensors of this network, and those of [`run`](Self::run).
    pub fn report<D: Dimension>(&self, float: &Graph, x: &ArrayRef<f32, D>) -> Result<ErrorReport> {
        let parts = self.parts();
        if let Some(node) = parts.graph.nodes().iter().find(|node| float.shape(&node.output).is_none()) {
            let found = node.output.clone();
            return Err(Error::Name { what: "tensor", expected: "one of the float network", found });
        }
        let (exact, simulation) = (self.with_local(float)?, parts.simulation()?);
        let mut seen = BTreeMap::<String, Seen>::new();
        let mut memory = Arena::new();
        let x = x.view().into_dyn();
        for i in 0..x.shape().first().copied().unwrap_or(0) {
            let image = [x.slice_axis(Axis(0), Slice::from(i..i + 1))];
            let mut values = BTreeMap::<String, Vec<f32>>::new();
            exact.run_observed(&image, &mut memory, &mut |tensor, found, _| {
                self.look(tensor, found, &mut values, &mut seen)
            })?;
            // A tensor that is rounded comes twice; the second one counts.
            let mut last = BTreeMap::<String, Sums>::new();
            simulation.run_observed(&image, &mut memory, &mut |tensor, found, _| {
                if let Some(expected) = values.get(&tensor.name) {
                    let mut sums = Sums::default();
                    sums.add(expected, found.as_slice());
                    last.insert(tensor.name.clone(), sums);
                }
                Ok(())
            })?;
            for (name, sums) in last {
                let total = &mut seen.entry(name).or_default().accumulated;
                total.signal += sums.signal;
                total.found += sums.found;
                total.product += sums.product;
                total.error += sums.error;
            }
        }
        let layers = parts.graph.nodes().iter().map(|node| {
            let seen = seen.remove(&node.output).unwrap_or_default();
            let weights = weights_of(node).and_then(|name| Some((parts.stored.get(name)?.dequantize(), name)));
            let original = weights.as_ref().and_then(|_| float.node(&node.name)).and_then(weights_of);
            let (weights, weights_clipped) = match (weights, original.and_then(|name| float.constant(name))) {
                (Some((found, name)), Some(expected)) => {
                    let (mut sums, expected) = (Sums::default(), expected.as_standard_layout());
                    let found = found.as_standard_layout();
                    sums.add(expected.as_slice().unwrap_or_default(), found.as_slice().unwrap_or_default());
                    (Some(sums.fidelity()), self.clipped_weights(name, expected.as_slice().unwrap_or_default()))
                }
                _ => (None, 0.0),
            };
            LayerReport {
                node: node.name.clone(),
                op: node.op.name(),
                local: seen.local.fidelity(),
                accumulated: seen.accumulated.fidelity(),
                weights,
                range: if seen.count == 0 { (0.0, 0.0) } else { seen.range },
                clipped: seen.clipped as f64 / seen.count.max(1) as f64,
                weights_clipped,
            }
        });
        Ok(ErrorReport { layers: layers.collect() })
    }

    /// The float network, and beside it each layer as it is quantized, reading what the float network makes.
    fn with_local(&self, float: &Graph) -> Result<Plan> {
        let parts = self.parts();
        let mut planner = Planner::new(float);
        let floats = float.inputs().iter().map(|input| planner.define(&input.name, Kind::F32)).collect();
        for node in float.nodes() {
            let quantized = parts.graph.node(&node.name);
            if let Some(quantized) = quantized {
                let (kernel, mut inputs) = parts.simulated(&mut planner, quantized);
                let name = alloc::format!("{LOCAL}{}", node.output);
                let params = self.activation(&node.output);
                if kernel.is_some() {
                    let output = planner.define_unnamed(if params.is_some() { "" } else { &name }, &node.output);
                    planner.step(&node.name, kernel, inputs, output);
                    inputs = alloc::vec![output];
                }
                if params.is_some() {
                    let rounded = planner.define_unnamed(&name, &node.output);
                    planner.step(&node.name, Some(Box::new(FakeQuantize { params })), inputs, rounded);
                }
            }
            planner.float_node(node, |name| float.constant(name).cloned().map(Weights::F32));
        }
        let outputs = float.outputs().iter();
        let outputs = outputs.map(|name| planner.output(name, |name| float.constant(name).cloned())).collect();
        let ports = |floats| Ports { floats, codes: Vec::new() };
        Ok(planner.finish(ports(floats), ports(outputs)))
    }

    /// Takes in a tensor of the float network, or one that a layer made of exact inputs just before.
    fn look(
        &self,
        tensor: &Tensor,
        found: Values<'_>,
        values: &mut BTreeMap<String, Vec<f32>>,
        seen: &mut BTreeMap<String, Seen>,
    ) -> Result<()> {
        let found = found.as_slice::<f32>();
        if tensor.name.starts_with(LOCAL) {
            values.insert(tensor.name.clone(), found.to_vec());
            return Ok(());
        }
        let seen = seen.entry(tensor.name.clone()).or_default();
        let codes = self.activation::<ndarray::Ix1>(&tensor.name);
        let bounds = codes.and_then(|params| Some((params.real_range()?, params.scale()[0] / 2.0)));
        for &x in found {
            seen.range = (seen.range.0.min(x), seen.range.1.max(x));
            let clips = |((low, high), half)| x < low - half || x > high + half;
            seen.clipped += bounds.is_some_and(clips) as usize;
        }
        seen.count += found.len();
        let local = values.remove(&alloc::format!("{LOCAL}{}", tensor.name));
        seen.local.add(found, local.as_deref().unwrap_or(found));
        values.insert(tensor.name.clone(), found.to_vec());
        Ok(())
    }

    /// The share of weights beyond the outermost codes.
    fn clipped_weights(&self, name: &str, weights: &[f32]) -> f64 {
        let tensor = &self.recipe().tensors[name];
        if matches!(tensor.precision, Precision::Float16 | Precision::Float32) || weights.is_empty() {
            return 0.0;
        }
        let blocks = weights.len().div_ceil(tensor.ranges.len().max(1));
        let channels = weights.chunks(blocks).zip(&tensor.ranges);
        let clipped = channels.map(|(weights, (min, max))| {
            let reach = max.max(-min) * (1.0 + 0.5 / tensor.greatest_code() as f32);
            weights.iter().filter(|w| w.abs() > reach).count()
        });
        clipped.sum::<usize>() as f64 / weights.len() as f64
    }
}

impl fmt::Display for ErrorReport {
    /// A table with a line per node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.node.chars().count()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:width$}  {:17}  {:>9}  {:>14}  {:>11}  {:>8}  {:>19}  {:>8}",
            "node", "operator", "local dB", "accumulated dB", "weights dB", "cosine", "range", "clipped"
        )?;
        for layer in &self.layers {
            let db = |fidelity: ErrorMetrics| alloc::format!("{:.1}", fidelity.sqnr_db);
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
    /// The nodes from the one that hurts most by itself to the one that hurts least.
    pub fn worst_first(&self) -> Vec<&LayerReport> {
        let mut layers: Vec<&LayerReport> = self.layers.iter().collect();
        layers.sort_by(|a, b| a.local.sqnr_db.total_cmp(&b.local.sqnr_db));
        layers
    }

    /// A picture: for each node two bars, the signal-to-error ratio of the layer alone and of all up to it.
    pub fn to_svg(&self) -> String {
        use fmt::Write;
        const ROW: usize = 22;
        const LEFT: usize = 260;
        const TOP: usize = 60;
        // Decibels that are drawn; what is better looks the same.
        const REACH: f64 = 60.0;
        const PIXELS_PER_DB: f64 = 10.0;
        let height = TOP + ROW * self.layers.len() + 20;
        let width = LEFT + (REACH * PIXELS_PER_DB) as usize + 40;
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{LEFT}" y="20" font-size="15">Signal to error in dB: longer is better</text>
<rect x="{LEFT}" y="28" width="12" height="8" fill="#8fb4d9"/><text x="{}" y="37">the layer alone</text>
<rect x="{}" y="28" width="12" height="8" fill="#2d5f8b"/><text x="{}" y="37">all layers up to it</text>"##,
            LEFT + 18,
            LEFT + 130,
            LEFT + 148,
        );
        for db in (0..=REACH as usize).step_by(10) {
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
            for (fidelity, offset, color) in [(layer.local, 3, "#8fb4d9"), (layer.accumulated, 11, "#2d5f8b")] {
                let length = fidelity.sqnr_db.clamp(0.0, REACH) * PIXELS_PER_DB;
                let _ = writeln!(
                    svg,
                    r#"<rect x="{LEFT}" y="{}" width="{length:.1}" height="7" fill="{color}"><title>{name}: {:.1} dB</title></rect>"#,
                    y + offset,
                    fidelity.sqnr_db,
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Text that may stand in XML.
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
