//! `ndarray-quant report`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use ndarray::{ArrayD, ArrayView1, Axis, Ix2};
use ndarray_quant::graph::{ErrorReport, Graph, LayerReport, QuantizedNetwork, TensorRecipe};
use ndarray_quant::metrics;
use serde::Serialize;

use crate::args::{self, DataArgs, ImageArgs, Shapes};
use crate::model::{self, Format, QuantizedFile};
use crate::output::{self, at, decibels, say};
use crate::recipe::QuantizationArgs;
use crate::samples::{Samples, views};

/// Compare a quantized network with its float network: layer by layer, and at the outputs.
///
/// `local` is the SQNR (signal-to-quantization-noise ratio) of a layer's output if its inputs are exact: the error that the
/// layer adds. `accumulated` is the SQNR in the quantized network. Keep a layer of low local SQNR in float (`quantize
/// --nodes-to-exclude`), or choose its range another way (`--calibrate-method`).
///
/// Without QUANTIZED the network is quantized first, with the same options as `quantize`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ndarray-quant report model.onnx model.safetensors --data photos/
  ndarray-quant report model.onnx model.safetensors --data check.npy --worst 10 --svg layers.svg
  ndarray-quant report model.onnx --mode dynamic --data check.npy --json -")]
pub(crate) struct Report {
    /// The float network, in an ONNX file.
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The quantized network, as `quantize` or another program wrote it: a .safetensors or .onnx file.
    #[arg(value_name = "QUANTIZED", conflicts_with = "QuantizationArgs")]
    quantized: Option<PathBuf>,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    data: DataArgs,
    /// Report the layers on the first N samples. The outputs are compared on all.
    #[arg(long, value_name = "N", default_value_t = 8)]
    layer_samples: usize,
    /// Print only the N layers of lowest local SQNR, the lowest first.
    #[arg(long, value_name = "N")]
    worst: Option<usize>,
    /// Write the report as JSON; - stands for standard output, instead of the tables.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw all layers as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    quantization: QuantizationArgs,
    #[command(flatten)]
    images: ImageArgs,
}

/// Why layers are not compared if their weights are not the float network's.
const OTHER_WEIGHTS: &str =
    "the weights were equalized before they were quantized; quantize and report in one call, without QUANTIZED";

/// The content of the JSON file.
#[derive(Serialize)]
struct Comparison<'a> {
    float_bytes: usize,
    quantized_bytes: usize,
    samples: usize,
    outputs: Vec<OutputReport>,
    layer_samples: usize,
    /// Without layers if they cannot be compared.
    layers: Option<&'a ErrorReport>,
}

#[derive(Serialize)]
struct OutputReport {
    output: String,
    /// Null without error.
    sqnr_db: f64,
    cosine: f64,
    max_abs_diff: f32,
    /// The fraction of samples whose greatest score is the same, for outputs of one row of scores.
    top1_agreement: Option<f64>,
}

impl Report {
    pub(crate) fn run(&self) -> Result<()> {
        let simplified = at(&self.model, model::read_float(&self.model, &self.shapes.shapes)?.simplify())?;
        let (graph, network, comparable) = match &self.quantized {
            Some(path) => {
                let shapes = if Format::of(path) == Some(Format::Onnx) { &self.shapes.shapes[..] } else { &[] };
                let quantized = model::read_quantized(path, shapes)?;
                let comparable = has_weights_of(&quantized, &simplified);
                (simplified, quantized.network, comparable)
            }
            None => {
                let found = self.quantization.quantize(&self.model, simplified, &self.images)?;
                (found.float, found.network, true)
            }
        };
        let samples = Samples::read(&graph, &self.data, &self.images, "--data")?;
        let progress = output::progress("comparing", samples.len());
        let outputs = compare(&graph, &network, &samples, &progress).context("comparing the outputs")?;
        progress.finish_and_clear();
        let layer_samples = self.layer_samples.min(samples.len());
        let layers = match <[_; 1]>::try_from(samples.batch(0..layer_samples)?) {
            _ if !comparable => Err(OTHER_WEIGHTS.to_string()),
            // The nodes of a network that another program quantized may be others.
            Ok([x]) => network.report(&graph, &x).map_err(|error| error.to_string()),
            Err(_) => Err("this takes a network of one input".into()),
        };
        match (&self.svg, &layers) {
            (Some(path), Ok(layers)) => args::write(path, &layers.to_svg())?,
            (Some(_), Err(why)) => bail!("--svg: the layers cannot be compared: {why}"),
            (None, _) => {}
        }
        let (layers, why_not) = (layers.as_ref().ok(), layers.as_ref().err());
        let comparison = Comparison {
            float_bytes: graph.size_in_bytes(),
            quantized_bytes: network.weights_size_in_bytes(),
            samples: samples.len(),
            outputs,
            layer_samples,
            layers,
        };
        if let Some(path) = &self.json {
            output::json(path, &comparison)?;
        }
        if self.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
            layers.iter().for_each(|layers| self.print_layers(layers, layer_samples));
            why_not.iter().for_each(|why| say!("Layers: not compared: {why}\n"));
            comparison.print(&samples);
        }
        Ok(())
    }

    fn print_layers(&self, report: &ErrorReport, samples: usize) {
        let layers: Vec<&LayerReport> = match self.worst {
            Some(n) => report.worst_first().into_iter().take(n).collect(),
            None => report.layers.iter().collect(),
        };
        let header = ["node", "operator", "local", "accumulated", "weights", "cosine", "min", "max", "clipped"];
        let mut table = output::table(&header, 2..header.len());
        for layer in layers {
            table.add_row([
                layer.node.clone(),
                layer.op.to_string(),
                decibels(layer.local.sqnr_db),
                decibels(layer.accumulated.sqnr_db),
                layer.weights.map_or("-".into(), |weights| decibels(weights.sqnr_db)),
                format!("{:.5}", layer.accumulated.cosine),
                format!("{:.3}", layer.range.0),
                format!("{:.3}", layer.range.1),
                format!("{:.2}%", 100.0 * layer.clipped),
            ]);
        }
        say!("Layers, on {samples} samples:\n");
        output::print(&table);
        say!("");
    }
}

impl Comparison<'_> {
    fn print(&self, samples: &Samples) {
        let header = ["output", "SQNR", "cosine", "max abs diff", "top 1 as float"];
        let mut table = output::table(&header, 1..header.len());
        for found in &self.outputs {
            table.add_row([
                found.output.clone(),
                decibels(found.sqnr_db),
                format!("{:.5}", found.cosine),
                format!("{:.4}", found.max_abs_diff),
                found.top1_agreement.map_or("-".into(), |agreement| format!("{:.1}%", 100.0 * agreement)),
            ]);
        }
        say!("Outputs, on {}:\n", samples.describe());
        output::print(&table);
        say!(
            "\nWeights: {}, {:.1}% of the {} of the float network",
            output::size(self.quantized_bytes),
            100.0 * self.quantized_bytes as f64 / self.float_bytes.max(1) as f64,
            output::size(self.float_bytes)
        );
    }
}

/// Returns whether the network was quantized from the weights of this graph, not from equalized ones: whether the largest
/// magnitudes of most channels are theirs. Channels of zeros have any scale.
fn has_weights_of(quantized: &QuantizedFile, graph: &Graph) -> bool {
    /// The magnitudes are within half a step of codes of 6 bits and more. Equalization changes them by any factor.
    const TOLERANCE: f32 = 0.02;
    let max_abs = |&(low, high): &(f32, f32)| high.max(-low);
    let QuantizedFile { network, float } = quantized;
    let (mut same, mut all) = (0, 0);
    for node in network.graph().nodes() {
        let (Some(name), Some(float_node)) = (node.inputs.get(1), graph.node(&node.output)) else { continue };
        let Some(tensor) = network.recipe().tensors.get(name) else { continue };
        let ranges = |graph: &Graph, name: &str| {
            let weights = graph.constant(name).map(|weights| TensorRecipe::weights(weights, tensor.precision));
            weights.and_then(Result::ok).map_or_else(Vec::new, |weights| weights.ranges)
        };
        let expected = float_node.inputs.get(1).map_or_else(Vec::new, |name| ranges(graph, name));
        // An ONNX file has no ranges, but its codes stand for weights.
        let found = float.as_ref().map_or_else(|| tensor.ranges.clone(), |float| ranges(float, name));
        if expected.len() > 1 && found.len() == expected.len() {
            let pairs = expected.iter().map(max_abs).zip(found.iter().map(max_abs));
            same += pairs.filter(|(expected, found)| (expected - found).abs() <= TOLERANCE * expected).count();
            all += expected.len();
        }
    }
    2 * same >= all
}

const BATCH: usize = 8;

fn compare(
    graph: &Graph,
    network: &QuantizedNetwork,
    samples: &Samples,
    progress: &ProgressBar,
) -> Result<Vec<OutputReport>> {
    let float = graph.compile()?;
    let mut arena = model::arena();
    let mut values: Vec<[Vec<f32>; 2]> = graph.outputs().iter().map(|_| Default::default()).collect();
    let mut agree = vec![Some(0); graph.outputs().len()];
    for batch in samples.batches(BATCH) {
        let batch = batch?;
        let expected = float.run_many(&views(&batch), &mut arena)?;
        let found = network.run_many(&views(&batch), &mut arena)?;
        for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
            values[i][0].extend(expected);
            values[i][1].extend(found);
            agree[i] = agree[i].zip(top1_agreement(expected, found)).map(|(sum, n)| sum + n);
        }
        progress.inc(batch[0].len_of(Axis(0)) as u64);
    }
    let report = |((name, [expected, found]), agree): ((&String, &[Vec<f32>; 2]), Option<usize>)| {
        let (expected, found) = (ArrayView1::from(expected), ArrayView1::from(found));
        let diff = expected.iter().zip(&found).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        Ok(OutputReport {
            output: name.clone(),
            sqnr_db: metrics::sqnr_db(&expected, &found)?,
            cosine: metrics::cosine(&expected, &found)?,
            max_abs_diff: diff,
            top1_agreement: agree.map(|n| n as f64 / samples.len() as f64),
        })
    };
    graph.outputs().iter().zip(&values).zip(agree).map(report).collect()
}

/// The number of rows whose greatest elements have the same index. `None` unless the outputs are rows of scores.
fn top1_agreement(expected: &ArrayD<f32>, found: &ArrayD<f32>) -> Option<usize> {
    let (expected, found) = (expected.view(), found.view());
    let expected = expected.into_dimensionality::<Ix2>().ok().filter(|scores| scores.ncols() > 1)?;
    let found = found.into_dimensionality::<Ix2>().ok()?;
    let argmax = |row: ArrayView1<f32>| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    Some(expected.rows().into_iter().zip(found.rows()).filter(|(a, b)| argmax(*a) == argmax(*b)).count())
}
