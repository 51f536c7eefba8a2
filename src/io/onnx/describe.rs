//! Describes ONNX files without reading their network.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::import::is_default_domain;
use super::proto::{Dimension, ModelProto, TensorProto, ValueInfo};
use super::quantized::is_quantized;
use super::tensor::{bits_of_element, data_type};
use crate::graph::collect::map_of;

/// What an ONNX file contains, as the file declares it. Made by [`OnnxReader::describe`](super::OnnxReader::describe), also
/// for networks that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelDescription {
    /// The program that wrote the file, with its version.
    pub producer: String,
    /// The version of the operator set `ai.onnx`, if the file names one.
    pub opset: Option<i64>,
    /// The network is already quantized: it has operators such as `QuantizeLinear`, `QLinearConv` or `MatMulInteger`.
    /// [`OnnxReader::read_quantized`](super::OnnxReader::read_quantized) reads it.
    pub is_quantized: bool,
    /// The inputs that have no value in the file.
    pub inputs: Vec<TensorDescription>,
    /// The outputs.
    pub outputs: Vec<TensorDescription>,
    /// The operators of the nodes, the most frequent first.
    pub operators: Vec<OperatorDescription>,
    /// The number of elements of all constants that the file holds.
    pub parameters: u64,
    /// The size of all constants that the file holds, in bytes.
    pub size_in_bytes: u64,
}

/// An input or an output of an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorDescription {
    /// The name.
    pub name: String,
    /// The element type by its name in ONNX, such as `FLOAT`.
    pub data_type: String,
    /// The axes. `None` if the file declares no shape.
    pub shape: Option<Vec<AxisLength>>,
}

/// The length of an axis in an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AxisLength {
    /// A length.
    Fixed(u64),
    /// A name that stands for a length, or an empty string.
    Symbolic(String),
}

/// The nodes of one operator in an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorDescription {
    /// The name, after the domain and a dot if the domain is not `ai.onnx`.
    pub name: String,
    /// The number of nodes.
    pub nodes: usize,
    /// The size of the constants that the nodes read, in bytes. One that several nodes read counts for the first.
    pub size_in_bytes: u64,
}

impl fmt::Display for AxisLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Symbolic(name) => f.pad(if name.is_empty() { "?" } else { name }),
        }
    }
}

impl ModelDescription {
    pub(super) fn new(model: &ModelProto) -> Self {
        let producer = [&model.producer_name, &model.producer_version].map(String::as_str).join(" ").trim().into();
        let opset = model.opset_import.iter().find(|set| is_default_domain(&set.domain)).map(|set| set.version);
        let empty = Self {
            producer,
            opset,
            is_quantized: model.graph.as_ref().is_some_and(is_quantized),
            inputs: Vec::new(),
            outputs: Vec::new(),
            operators: Vec::new(),
            parameters: 0,
            size_in_bytes: 0,
        };
        let Some(graph) = &model.graph else { return empty };
        // Some exporters store weights in nodes.
        let in_nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            Some((node.output.first()?.as_str(), node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?))
        });
        let stored = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).chain(in_nodes);
        let stored: BTreeMap<&str, &TensorProto> = stored.collect();
        let mut sizes = map_of(stored.iter().map(|(&name, tensor)| (name, size_in_bytes(tensor))));
        let size = sizes.values().copied().fold(0, u64::saturating_add);
        let mut operators = BTreeMap::<String, (usize, u64)>::new();
        for node in &graph.node {
            let domain = Some(&node.domain).filter(|domain| !is_default_domain(domain));
            let name = domain.map_or_else(|| node.op_type.clone(), |domain| [domain, &*node.op_type].join("."));
            let (nodes, size) = operators.entry(name).or_default();
            *nodes += 1;
            *size = node.input.iter().filter_map(|name| sizes.remove(&**name)).fold(*size, u64::saturating_add);
        }
        let operators = operators.into_iter();
        let operators =
            operators.map(|(name, (nodes, size_in_bytes))| OperatorDescription { name, nodes, size_in_bytes });
        let mut operators: Vec<_> = operators.collect();
        operators.sort_by_key(|operator| core::cmp::Reverse(operator.nodes));
        let inputs = graph.input.iter().filter(|input| !stored.contains_key(&*input.name));
        Self {
            inputs: inputs.map(TensorDescription::new).collect(),
            outputs: graph.output.iter().map(TensorDescription::new).collect(),
            operators,
            parameters: stored.values().map(|tensor| elements(tensor)).fold(0, u64::saturating_add),
            size_in_bytes: size,
            ..empty
        }
    }
}

impl TensorDescription {
    fn new(value: &ValueInfo) -> Self {
        let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let length = |dim: &Dimension| match u64::try_from(dim.dim_value) {
            Ok(length) if length > 0 => AxisLength::Fixed(length),
            _ => AxisLength::Symbolic(dim.dim_param.clone()),
        };
        let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
        Self {
            name: value.name.clone(),
            data_type: data_type(tensor.map_or(0, |tensor| tensor.elem_type)),
            shape: shape.map(|shape| shape.dim.iter().map(length).collect()),
        }
    }
}

fn elements(tensor: &TensorProto) -> u64 {
    tensor.dims.iter().map(|&length| u64::try_from(length).unwrap_or(0)).fold(1, u64::saturating_mul)
}

fn size_in_bytes(tensor: &TensorProto) -> u64 {
    elements(tensor).saturating_mul(bits_of_element(tensor.data_type)).div_ceil(8)
}
