//! `ndarray-quant run`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use ndarray::{ArrayD, ArrayView1, ArrayViewD, Axis, Ix2};

use crate::args::{DataArgs, ImageArgs, Shapes};
use crate::model::{self, Network};
use crate::npy;
use crate::output;
use crate::samples::{Samples, views};

/// Run a network on samples, and write or summarize its outputs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ndarray-quant run model.safetensors --data photo.jpg --top 5
  ndarray-quant run model.onnx --data ids=ids.npy --data mask=mask.npy --output outputs.npz")]
pub(crate) struct Run {
    /// A network in an ONNX file, float or quantized, or a quantized one in a safetensors file.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    data: DataArgs,
    /// Write the outputs to a file: a .npz file with an array for each output, or a .npy file for one output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the K greatest scores of each sample, with their indices. For outputs [samples, scores].
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Samples per batch.
    #[arg(short, long, value_name = "N", default_value_t = 8)]
    batch: usize,
    #[command(flatten)]
    images: ImageArgs,
}

impl Run {
    pub(crate) fn run(&self) -> Result<()> {
        let network = Network::read(&self.model, &self.shapes.shapes)?;
        let graph = network.graph();
        let samples = Samples::read(graph, &self.data, &self.images, "--data")?;
        let progress = output::progress("running", samples.len());
        let mut arena = model::arena();
        let mut outputs: Vec<Vec<ArrayD<f32>>> = graph.outputs().iter().map(|_| Vec::new()).collect();
        for batch in samples.batches(self.batch) {
            let batch = batch?;
            let found = network.run(&views(&batch), &mut arena).with_context(|| self.model.display().to_string())?;
            outputs.iter_mut().zip(found).for_each(|(parts, part)| parts.push(part));
            progress.inc(self.batch as u64);
        }
        progress.finish_and_clear();
        let join = |parts: Vec<ArrayD<f32>>| {
            let views: Vec<ArrayViewD<f32>> = parts.iter().map(|part| part.view()).collect();
            // An output that is a constant has no batch.
            if views[0].ndim() == 0 { Ok(parts[0].clone()) } else { ndarray::concatenate(Axis(0), &views) }
        };
        let outputs = outputs.into_iter().map(join).collect::<Result<Vec<_>, _>>()?;
        let named = || graph.outputs().iter().map(String::as_str).zip(&outputs);
        if let Some(k) = self.top {
            for (name, output) in named() {
                print_top(name, output, k)?;
            }
        } else {
            let mut table = output::table(&["output", "shape", "min", "max", "mean"], 2..5);
            for (name, output) in named() {
                let (min, max) =
                    output.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
                let mean = output.iter().map(|&x| f64::from(x)).sum::<f64>() / output.len().max(1) as f64;
                let numbers = [f64::from(min), f64::from(max), mean].map(|x| format!("{x:.5}"));
                table.add_row([&[name.to_string(), output::shape(output.shape())][..], &numbers].concat());
            }
            output::print(&table);
        }
        self.output.as_ref().map_or(Ok(()), |path| npy::write(path, named()))
    }
}

/// Prints the greatest scores of each sample.
fn print_top(name: &str, output: &ArrayD<f32>, k: usize) -> Result<()> {
    let scores = output.view().into_dimensionality::<Ix2>().ok();
    let shape = output::shape(output.shape());
    ensure!(scores.is_some(), "--top: expected an output [samples, scores], found {name:?} of shape {shape}");
    let mut table = output::table(&["sample", "index", "score"], 0..3);
    for (i, row) in scores.iter().flat_map(|scores| scores.rows()).enumerate() {
        for index in order(row).into_iter().take(k) {
            table.add_row([i.to_string(), index.to_string(), format!("{:.5}", row[index])]);
        }
    }
    output::print(&table);
    Ok(())
}

/// The indices of a row, the greatest element first.
fn order(row: ArrayView1<f32>) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..row.len()).collect();
    indices.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    indices
}
