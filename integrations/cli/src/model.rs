//! Reads networks: float ones from ONNX files, quantized ones from ONNX and safetensors files; writes quantized ones.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ndarray::{ArrayD, ArrayViewD};
use ndarray_quant::graph::{Arena, FloatNetwork, Graph, QuantizedNetwork};
use ndarray_quant::io::onnx::{AxisLength, ModelDescription, OnnxReader, TensorDescription};

use crate::args::InputShape;
use crate::output::at;

/// Memory that a run may take for activations and outputs.
const MAX_BYTES: usize = 4 << 30;

pub(crate) fn arena() -> Arena {
    Arena::new().with_max_bytes(MAX_BYTES)
}

/// A network that can run.
#[allow(clippy::large_enum_variant, reason = "there are as many as arguments")]
pub(crate) enum Network {
    Float { graph: Graph, compiled: FloatNetwork },
    Quantized(Box<QuantizedNetwork>),
}

impl Network {
    /// Reads a `.onnx` or `.safetensors` file.
    pub(crate) fn read(path: &Path, shapes: &[InputShape]) -> Result<Self> {
        match Format::of(path) {
            Some(Format::Onnx) => Self::read_described(path, &describe(path)?, shapes),
            _ => Ok(Self::Quantized(Box::new(read_quantized(path, shapes)?.network))),
        }
    }

    /// Reads a `.onnx` file with this description.
    pub(crate) fn read_described(path: &Path, model: &ModelDescription, shapes: &[InputShape]) -> Result<Self> {
        if model.is_quantized {
            return Ok(Self::Quantized(Box::new(read_quantized(path, shapes)?.network)));
        }
        let graph = at(path, read_described(path, model, shapes)?.simplify())?;
        Ok(Self::Float { compiled: at(path, graph.compile())?, graph })
    }

    pub(crate) fn graph(&self) -> &Graph {
        match self {
            Self::Float { graph, .. } => graph,
            Self::Quantized(network) => network.graph(),
        }
    }

    pub(crate) fn run(&self, inputs: &[ArrayViewD<f32>], arena: &mut Arena) -> ndarray_quant::Result<Vec<ArrayD<f32>>> {
        match self {
            Self::Float { compiled, .. } => compiled.run_many(inputs, arena),
            Self::Quantized(network) => network.run_many(inputs, arena),
        }
    }

    /// The size of the weights as a file stores them.
    pub(crate) fn size_in_bytes(&self) -> usize {
        match self {
            Self::Float { graph, .. } => graph.size_in_bytes(),
            Self::Quantized(network) => network.weights_size_in_bytes(),
        }
    }
}

/// The format of a file of a quantized network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// All that the network is, to be read by this program and by the library.
    Safetensors,
    /// QuantizeLinear and DequantizeLinear around float operators (QDQ), for ONNX Runtime and others.
    Onnx,
}

impl Format {
    /// The format that the name of a file stands for.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str())?;
        Self::from_str(extension, true).ok()
    }
}

/// A quantized network from a file.
pub(crate) struct QuantizedFile {
    pub(crate) network: QuantizedNetwork,
    /// The float network that the codes of an ONNX file stand for.
    pub(crate) float: Option<Graph>,
}

/// Reads a quantized network.
pub(crate) fn read_quantized(path: &Path, shapes: &[InputShape]) -> Result<QuantizedFile> {
    match Format::of(path) {
        Some(Format::Onnx) => {
            let model = describe(path)?;
            ensure!(model.is_quantized, "{}: expected a quantized network, found a float one", path.display());
            let (graph, recipe) = at(path, reader(path, &model, shapes)?.read_quantized_file(path))?;
            Ok(QuantizedFile { network: at(path, graph.quantize(&recipe))?, float: Some(graph) })
        }
        Some(Format::Safetensors) => {
            ensure!(shapes.is_empty(), "{}: --input: shapes are fixed in safetensors files", path.display());
            Ok(QuantizedFile { network: at(path, QuantizedNetwork::load(path))?, float: None })
        }
        None => bail!("{}: expected a network in a .onnx or .safetensors file", path.display()),
    }
}

pub(crate) fn describe(path: &Path) -> Result<ModelDescription> {
    if Format::of(path) == Some(Format::Safetensors) {
        bail!("{}: expected a float network in an ONNX file, found a quantized one", path.display());
    }
    at(path, OnnxReader::new().describe_file(path))
}

/// Reads an ONNX file, with shapes for inputs that have none in it.
pub(crate) fn read_float(path: &Path, shapes: &[InputShape]) -> Result<Graph> {
    read_described(path, &describe(path)?, shapes)
}

/// Same as [`read_float`], if the description of the file is known.
pub(crate) fn read_described(path: &Path, model: &ModelDescription, shapes: &[InputShape]) -> Result<Graph> {
    at(path, reader(path, model, shapes)?.read_file(path))
}

/// A reader with shapes for all inputs.
fn reader(path: &Path, model: &ModelDescription, shapes: &[InputShape]) -> Result<OnnxReader> {
    check_shapes(model, shapes).with_context(|| path.display().to_string())?;
    Ok(shapes.iter().fold(OnnxReader::new(), |reader, input| reader.with_input_shape(&input.name, &input.shape)))
}

/// Returns an error for inputs without a shape.
fn check_shapes(model: &ModelDescription, shapes: &[InputShape]) -> Result<()> {
    for input in shapes {
        let names: Vec<String> = model.inputs.iter().map(|found| format!("{:?}", found.name)).collect();
        let known = model.inputs.iter().any(|found| found.name == input.name);
        ensure!(known, "--input: the network has no input {:?}; its inputs: {}", input.name, names.join(", "));
    }
    let missing = model.inputs.iter().filter(|input| !is_fixed(input) && shapes.iter().all(|s| s.name != input.name));
    let missing: Vec<String> = missing.map(|input| format!("--input {}={}", input.name, pattern(input))).collect();
    ensure!(missing.is_empty(), "inputs have no fixed shape in the file; add {}", missing.join(" "));
    Ok(())
}

/// Returns whether all axes but the first, the batch, have a length.
fn is_fixed(input: &TensorDescription) -> bool {
    let fixed = |axis: &AxisLength| matches!(axis, AxisLength::Fixed(_));
    input.shape.as_ref().is_some_and(|axes| axes.iter().skip(1).all(fixed))
}

/// A shape to be filled in: 1x3xHEIGHTxWIDTH.
fn pattern(input: &TensorDescription) -> String {
    let Some(axes) = &input.shape else { return "SHAPE".into() };
    let axis = |(i, axis): (usize, &AxisLength)| match axis {
        AxisLength::Fixed(length) => length.to_string(),
        AxisLength::Symbolic(_) if i == 0 => "1".into(),
        AxisLength::Symbolic(name)
            if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty() =>
        {
            name.to_uppercase()
        }
        AxisLength::Symbolic(_) => "N".into(),
    };
    axes.iter().enumerate().map(axis).collect::<Vec<_>>().join("x")
}
