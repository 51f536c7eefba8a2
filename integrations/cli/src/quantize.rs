//! `ndarray-quant quantize`.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use ndarray_quant::graph::{Graph, Precision, QuantizedNetwork, Recipe};

use crate::args::{ImageArgs, Shapes};
use crate::model::{self, Format};
use crate::output::{self, at, say};
use crate::recipe::{Quantization, QuantizationArgs};

/// Quantize a network from an ONNX file.
///
/// The mode `static` computes in integers and needs samples of real inputs. `dynamic` has int8 weights, and `float16` half of
/// the size; they need no data.
///
/// The network is written to a .safetensors file, or to a .onnx file in the QDQ form, for a batch of one, which ONNX Runtime
/// and others run. `run`, `report` and `bench` read both.
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
  QDQ for ONNX Runtime:
    ndarray-quant quantize model.onnx -o model.int8.onnx --calibration-data photos/
  Edit the recipe and quantize again:
    ndarray-quant quantize model.onnx -o model.safetensors --calibration-data data.npz \\
      --save-recipe recipe.json
    ndarray-quant quantize model.onnx -o model.safetensors --recipe recipe.json")]
pub(crate) struct Quantize {
    /// The float network, in an ONNX file.
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Write the quantized network to a .safetensors or .onnx file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The format of the output [default: by the extension of --output].
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
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
        let output = self.output.display();
        let format = self.format.or_else(|| Format::of(&self.output));
        let format =
            format.with_context(|| format!("--output {output}: expected a .safetensors or .onnx file, or --format"))?;
        let same =
            fs::canonicalize(&self.output).is_ok_and(|path| fs::canonicalize(&self.model).is_ok_and(|m| m == path));
        ensure!(!same, "--output {output}: expected another file than the model");
        let start = Instant::now();
        let graph = at(&self.model, model::read_float(&self.model, &self.shapes.shapes)?.simplify())?;
        if format == Format::Onnx {
            // What cannot be written is an error before the work.
            at(&self.output, graph.quantize(&Recipe::default()).and_then(|network| network.to_onnx()))?;
        }
        let float_size = graph.size_in_bytes();
        let Quantization { float, network, notes } = self.quantization.quantize(&self.model, graph, &self.images)?;
        let saved = match format {
            Format::Safetensors => network.save(&self.output),
            Format::Onnx => network.save_onnx(&self.output),
        };
        at(&self.output, saved)?;
        if let Some(path) = &self.save_recipe {
            output::json(path, network.recipe())?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let bytes = fs::metadata(&self.output).with_context(|| output.to_string())?.len() as usize;
        notes.iter().for_each(|note| say!("{note}"));
        say!("{}", summary(&float, &network));
        say!(
            "{output}: {}, {:.1}% of the {} of the float network, in {seconds:.1} s",
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
    let kinds = [
        ("int8", Precision::Int8),
        ("int4", Precision::Int4),
        ("int2", Precision::Int2),
        ("float16", Precision::Float16),
    ];
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
