//! `ndarray-quant quantize`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use ndarray_quant::graph::{Graph, Precision, QuantizedNetwork};

use crate::args::{ImageArgs, Shapes};
use crate::model;
use crate::output::{self, at, say};
use crate::recipe::{Quantization, QuantizationArgs};

/// Quantize a network from an ONNX file.
///
/// The mode `static` computes in integers and needs samples of real inputs. `dynamic` has int8 weights, and `float16` half of
/// the size; they need no data.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A folder of photos, for a network that reads pixels as torchvision's do:
    ndarray-quant quantize model.onnx -o model.safetensors --calibration-data photos/ \\
      --mean 123.675,116.28,103.53 --scale 58.395,57.12,57.375
  Arrays for a network of two inputs:
    ndarray-quant quantize model.onnx -o model.safetensors \\
      --calibration-data ids=ids.npy --calibration-data mask=mask.npy
  No data:
    ndarray-quant quantize model.onnx -o model.safetensors --mode dynamic
  Edit the recipe and quantize again:
    ndarray-quant quantize model.onnx -o model.safetensors --calibration-data data.npz \\
      --save-recipe recipe.json
    ndarray-quant quantize model.onnx -o model.safetensors --recipe recipe.json")]
pub(crate) struct Quantize {
    /// The float network, in an ONNX file.
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Write the quantized network to a .safetensors file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    shapes: Shapes,
    #[command(flatten)]
    quantization: QuantizationArgs,
    /// Also write precisions and ranges as JSON, to be edited and read by --recipe.
    #[arg(long, value_name = "FILE")]
    save_recipe: Option<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
}

impl Quantize {
    pub(crate) fn run(&self) -> Result<()> {
        if self.output.extension().is_none_or(|extension| extension != "safetensors") {
            bail!("--output {}: expected the name of a .safetensors file", self.output.display());
        }
        let start = Instant::now();
        let graph = at(&self.model, model::read_float(&self.model, &self.shapes.shapes)?.simplify())?;
        let float_size = graph.size_in_bytes();
        let Quantization { float, network, notes } = self.quantization.quantize(&self.model, graph, &self.images)?;
        at(&self.output, network.save(&self.output))?;
        if let Some(path) = &self.save_recipe {
            output::json(path, network.recipe())?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let bytes = std::fs::metadata(&self.output).with_context(|| self.output.display().to_string())?.len() as usize;
        notes.iter().for_each(|note| say!("{note}"));
        say!("{}", summary(&float, &network));
        say!(
            "{}: {}, {:.1}% of the {} of the float network, in {seconds:.1} s",
            self.output.display(),
            output::size(bytes),
            100.0 * bytes as f64 / float_size as f64,
            output::size(float_size),
        );
        Ok(())
    }
}

/// The number of layers of each precision.
fn summary(graph: &Graph, network: &QuantizedNetwork) -> String {
    let recipe = network.recipe();
    let is_float = |node: &ndarray_quant::graph::Node| recipe.float_layers.contains(&node.output);
    let activations = graph.nodes().iter().filter(|node| network.activation(&node.output).is_some() && !is_float(node));
    let weights = |precision| {
        let of = |name: &&str| recipe.tensors.get(*name).is_some_and(|tensor| tensor.precision == precision);
        graph.constants().map(|(name, _)| name).filter(of).count()
    };
    let kinds = [("int8", Precision::Int8), ("int4", Precision::Int4), ("float16", Precision::Float16)];
    let kinds = kinds.map(|(name, precision)| (name, weights(precision)));
    let kinds: Vec<String> = kinds.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} in {name}")).collect();
    let mut text = format!(
        "weights: {}; outputs as codes: {} of {} nodes",
        if kinds.is_empty() { "all in float32".into() } else { kinds.join(", ") },
        activations.count(),
        graph.nodes().len()
    );
    if !recipe.float_layers.is_empty() {
        text += &format!("; in float: {}", output::count(recipe.float_layers.len(), "node"));
    }
    text
}
