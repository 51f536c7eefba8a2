//! `ndarray-quant inspect`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use ndarray_quant::graph::{Graph, Recipe};
use ndarray_quant::io::onnx::{ModelDescription, TensorDescription};
use serde::Serialize;

use crate::args::Shapes;
use crate::model::{self, Network};
use crate::output::{self, at, say};
use crate::samples::{Samples, views};

/// Print the operators and sizes of an ONNX file, and check that its network is supported.
///
/// Reads the network, quantizes its weights, and runs it once on zeros. Of a network that is quantized, it prints the nodes
/// that compute in float, and why. If something is not supported, prints all of it and exits with status 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ndarray-quant inspect model.onnx
  ndarray-quant inspect detector.onnx --input images=1x3x640x640 --json -")]
pub(crate) struct Inspect {
    /// The ONNX file.
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    #[command(flatten)]
    shapes: Shapes,
    /// Write what is found as JSON; - stands for standard output, instead of the text.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The content of the JSON file.
#[derive(Serialize)]
struct Inspection {
    model: String,
    producer: String,
    opset: Option<i64>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    operators: Vec<Operator>,
    parameters: u64,
    bytes: u64,
    run: Option<FirstRun>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    data_type: String,
    /// Lengths, and names of lengths that are not fixed.
    shape: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Operator {
    name: String,
    nodes: usize,
    bytes: u64,
}

/// The network, and its first run.
#[derive(Serialize)]
struct FirstRun {
    /// Nodes after folding and fusion.
    nodes: usize,
    layers: usize,
    weights: Weights,
    outputs: Vec<(String, Vec<usize>)>,
    ms: f64,
}

/// The size of the weights in bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum Weights {
    /// Of a float network, in each precision.
    Float { float32_bytes: usize, float16_bytes: usize, int8_bytes: usize },
    /// Of a quantized network, as it stores them; and its nodes that do not compute from codes to codes.
    Quantized { quantized_bytes: usize, not_on_codes: Vec<String> },
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<()> {
        let description = model::describe(&self.model)?;
        let mut inspection = Inspection::new(self.model.display().to_string(), &description);
        let print = self.json.as_ref().is_none_or(|path| path.as_os_str() != "-");
        if print {
            inspection.print();
        }
        let result = self.first_run(&description);
        match &result {
            Ok(run) => {
                if print {
                    run.print();
                }
            }
            Err(error) => inspection.error = Some(output::explain(error)),
        }
        let result = result.map(|run| inspection.run = Some(run));
        if let Some(path) = &self.json {
            output::json(path, &inspection)?;
        }
        result
    }

    fn first_run(&self, description: &ModelDescription) -> Result<FirstRun> {
        let network = Network::read_described(&self.model, description, &self.shapes.shapes)?;
        let graph = network.graph();
        let weights = match &network {
            Network::Float { graph, .. } => {
                let size = |recipe: Recipe| at(&self.model, graph.quantize(&recipe)).map(|q| q.weights_size_in_bytes());
                let float16_bytes = size(Recipe::float16(graph)).context("float16 weights")?;
                let int8_bytes = size(at(&self.model, Recipe::dynamic_range(graph))?).context("int8 weights")?;
                Weights::Float { float32_bytes: graph.size_in_bytes(), float16_bytes, int8_bytes }
            }
            Network::Quantized(network) => {
                let nodes = network.modes().into_iter().filter(|node| node.why.is_some());
                let not_on_codes = nodes.map(|node| node.to_string()).collect();
                Weights::Quantized { quantized_bytes: network.weights_size_in_bytes(), not_on_codes }
            }
        };
        let zeros = Samples::zeros(graph, 1).batch(0..1)?;
        let start = Instant::now();
        let outputs = network.run(&views(&zeros), &mut model::arena());
        let ms = 1e3 * start.elapsed().as_secs_f64();
        let outputs = at(&self.model, outputs).context("a run on zeros")?;
        let outputs = graph.outputs().iter().cloned().zip(outputs.iter().map(|output| output.shape().to_vec()));
        Ok(FirstRun { nodes: graph.nodes().len(), layers: layers(graph), weights, outputs: outputs.collect(), ms })
    }
}

/// The number of weights that can be quantized.
fn layers(graph: &Graph) -> usize {
    Recipe::float16(graph).tensors.len()
}

impl Inspection {
    fn new(model: String, description: &ModelDescription) -> Self {
        let tensor = |tensor: &TensorDescription| Tensor {
            name: tensor.name.clone(),
            data_type: tensor.data_type.clone(),
            shape: tensor.shape.as_ref().map(|axes| axes.iter().map(ToString::to_string).collect()),
        };
        let operators = description.operators.iter();
        let operators = operators.map(|operator| Operator {
            name: operator.name.clone(),
            nodes: operator.nodes,
            bytes: operator.size_in_bytes,
        });
        Self {
            model,
            producer: description.producer.clone(),
            opset: description.opset,
            inputs: description.inputs.iter().map(tensor).collect(),
            outputs: description.outputs.iter().map(tensor).collect(),
            operators: operators.collect(),
            parameters: description.parameters,
            bytes: description.size_in_bytes,
            run: None,
            error: None,
        }
    }

    fn print(&self) {
        let opset = self.opset.map_or("no operator set".into(), |opset| format!("opset {opset}"));
        let producer = if self.producer.is_empty() { String::new() } else { format!(", written by {}", self.producer) };
        say!("{}: {opset}{producer}\n", self.model);
        let mut tensors = output::table(&["", "name", "type", "shape"], []);
        let inputs = self.inputs.iter().map(|tensor| ("input", tensor));
        for (kind, tensor) in inputs.chain(self.outputs.iter().map(|tensor| ("output", tensor))) {
            let shape = tensor.shape.as_ref().map_or("?".into(), |axes| axes.join(" x "));
            tensors.add_row([kind, &tensor.name, &tensor.data_type.to_lowercase(), &shape]);
        }
        output::print(&tensors);
        say!("");
        let mut table = output::table(&["operator", "nodes", "weights"], 1..3);
        let size = |bytes: u64| if bytes == 0 { "-".into() } else { output::size(bytes as usize) };
        for operator in &self.operators {
            table.add_row([operator.name.clone(), operator.nodes.to_string(), size(operator.bytes)]);
        }
        let nodes: usize = self.operators.iter().map(|operator| operator.nodes).sum();
        table.add_row(["all".into(), nodes.to_string(), size(self.bytes)]);
        output::print(&table);
        say!("");
    }
}

impl FirstRun {
    fn print(&self) {
        match &self.weights {
            Weights::Float { float32_bytes, float16_bytes, int8_bytes } => {
                say!(
                    "after folding and fusion: {} nodes, {} of them with weights to quantize",
                    self.nodes,
                    self.layers
                );
                let [float32, float16, int8] =
                    [float32_bytes, float16_bytes, int8_bytes].map(|&bytes| output::size(bytes));
                say!("weights: {float32} in float32, {float16} in float16, {int8} in int8");
            }
            Weights::Quantized { quantized_bytes, not_on_codes } => {
                let on_codes = self.nodes - not_on_codes.len();
                say!("already quantized; after fusion: {} nodes, {on_codes} of them from codes to codes", self.nodes);
                not_on_codes.iter().for_each(|node| say!("  {node}"));
                say!("weights: {}", output::size(*quantized_bytes));
            }
        }
        let outputs: Vec<String> =
            self.outputs.iter().map(|(name, shape)| format!("{name} {}", output::shape(shape))).collect();
        say!("ran on zeros in {:.1} ms: {}", self.ms, outputs.join(", "));
    }
}
