//! Quantized networks in ONNX files.
//!
//! They become a float graph and a [`Recipe`] with the scales and zero points of the file. A tensor of codes is another name
//! of the float tensor that its codes stand for, and a quantized constant is dequantized, so that all operators are read as
//! in float networks. Quantizing the graph by the recipe gives the codes of the file again, because the nearest code of a
//! dequantized code is that code.
//!
//! | file | form of ONNX Runtime's quantizer |
//! |---|---|
//! | `qdq` | `QuantizeLinear` and `DequantizeLinear` around float operators |
//! | `qoperator` | operators on codes: `QLinearConv`, … |
//! | `dynamic` | `DynamicQuantizeLinear`, `MatMulInteger`, `ConvInteger` |
//! | `nbits` | `MatMulNBits` |
//! | `finish` | the parameters of tensors that have none in the file |

mod dynamic;
mod finish;
pub(super) mod nbits;
mod params;
mod qdq;
mod qoperator;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::import::Importer;
use super::node::OnnxNode;
use super::operator::OnnxOperator;
use super::proto::{GraphProto, NodeProto};
use super::tensor::ConstantTensor;
use crate::error::Result;
use crate::graph::{Recipe, TensorRecipe};
use crate::ops::operator::Constant;
use dynamic::Symbol;
use params::CodeParams;
pub(super) use params::CodeType;

/// The operators of quantized networks.
pub(super) const OPERATORS: &[&[OnnxOperator]] =
    &[qdq::OPERATORS, qoperator::OPERATORS, dynamic::OPERATORS, nbits::OPERATORS];

/// Operators whose outputs are codes of their inputs. They may read codes.
const MOVEMENTS: [&str; 18] = [
    "Concat",
    "DepthToSpace",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Types and parameters of the codes of a file.
#[derive(Default)]
pub(super) struct FileQuantization {
    /// The file has operators of quantized networks.
    is_quantized: bool,
    /// The types of constants and inputs that may be codes.
    types: BTreeMap<String, CodeType>,
    /// The inputs that are codes for all their readers.
    inputs: BTreeSet<String>,
    /// The parameters of tensors of codes.
    codes: BTreeMap<String, CodeParams>,
    /// Tensors of dynamically quantized layers.
    symbols: BTreeMap<String, Symbol>,
    /// The parameters of constants that were dequantized.
    constants: BTreeMap<String, CodeParams>,
    /// The recipes of weights of layers.
    weights: BTreeMap<String, TensorRecipe>,
    /// Weights of layers that quantize their input by its range.
    dynamic: BTreeSet<String>,
    recipe: Recipe,
    /// The readers of each tensor of the file.
    readers: BTreeMap<String, Vec<Reader>>,
}

/// A use of a tensor by a node.
enum Reader {
    /// It quantizes it with these inputs as scale and zero point.
    Quantize {
        scale: String,
        zero_point: Option<String>,
    },
    /// It takes it as codes.
    Codes,
    Other,
}

impl FileQuantization {
    pub(super) fn new(graph: &GraphProto) -> Self {
        let mut this = Self { is_quantized: is_quantized(graph), ..Self::default() };
        if !this.is_quantized {
            return this;
        }
        let mut read = |name: &String, reader: Reader| this.readers.entry(name.clone()).or_default().push(reader);
        for node in graph.node.iter().filter(|node| node.op_type != "Shape") {
            for (i, name) in node.input.iter().enumerate() {
                let reader = match (&*node.op_type, i, node.input.get(1)) {
                    ("QuantizeLinear", 0, Some(scale)) => {
                        Reader::Quantize { scale: scale.clone(), zero_point: node.input.get(2).cloned() }
                    }
                    ("DequantizeLinear", 0, _) => Reader::Codes,
                    (op, ..) if op.starts_with("QLinear") || op == "QGemm" => Reader::Codes,
                    _ => Reader::Other,
                };
                read(name, reader);
            }
        }
        graph.output.iter().for_each(|output| read(&output.name, Reader::Other));
        this
    }

    /// Notes the type of a constant or an input of the graph.
    pub(super) fn set_type(&mut self, name: &str, data_type: i32) {
        if let Some(found) = CodeType::of(data_type) {
            self.types.insert(name.into(), found);
        }
    }

    /// Notes an input of the graph. Returns whether it may be codes.
    pub(super) fn set_input(&mut self, name: &str, data_type: i32) {
        self.set_type(name, data_type);
        let is_codes = |reader: &Reader| matches!(reader, Reader::Codes);
        let read_as_codes = self.readers.get(name).is_some_and(|readers| readers.iter().all(is_codes));
        if read_as_codes && CodeType::of(data_type).is_some_and(|found| found.bits == 8) {
            self.inputs.insert(name.into());
        }
    }
}

/// Returns whether a network has nodes that float networks do not have.
pub(super) fn is_quantized(graph: &GraphProto) -> bool {
    graph.node.iter().any(is_quantized_node)
}

fn is_quantized_node(node: &NodeProto) -> bool {
    const NAMES: [&str; 10] = [
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "QGemm",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulNBits",
    ];
    node.op_type.starts_with("QLinear") || NAMES.contains(&&*node.op_type)
}

impl Importer {
    /// Reads a node whose operator may be of float or of quantized networks.
    pub(super) fn node(&mut self, node: &OnnxNode<'_>, operator: &OnnxOperator) -> Result<()> {
        let reads = |of: &dyn Fn(&str) -> bool| node.node.input.iter().any(|name| of(name));
        if self.quantization.is_quantized && !is_quantized_node(node.node) {
            if reads(&|name| self.quantization.symbols.contains_key(name)) {
                return self.symbolic(node);
            }
            if node.op() != "Shape" && reads(&|name| self.quantization.codes.contains_key(name)) {
                return self.movement(node, operator);
            }
        }
        self.on_floats(node, operator)
    }

    fn on_floats(&mut self, node: &OnnxNode<'_>, operator: &OnnxOperator) -> Result<()> {
        let first = self.builder.nodes().len();
        (operator.read)(self, node)?;
        self.link_constants(node, first);
        Ok(())
    }

    /// Reads a node with inputs and attributes of its own as an operator of float networks.
    fn float_node(&mut self, node: &OnnxNode<'_>, float: NodeProto) -> Result<()> {
        let float = OnnxNode { node: &float, name: node.name.clone() };
        let operator = super::import::find_operator(&float)?;
        operator.check(&float, self.opset)?;
        self.on_floats(&float, operator)
    }

    /// Reads an operator that moves codes.
    fn movement(&mut self, node: &OnnxNode<'_>, operator: &OnnxOperator) -> Result<()> {
        let unsupported = |why: &str| Err(node.unsupported(why));
        if !MOVEMENTS.contains(&node.op()) {
            return unsupported("its input is codes");
        }
        let mut inputs = node.node.input.iter().filter_map(|name| self.quantization.codes.get(name));
        let params = inputs.next().expect("an input is codes").clone();
        if !inputs.all(|other| *other == params) {
            return unsupported("its inputs are codes of different scales or zero points");
        }
        let first = self.builder.nodes().len();
        // The value of padding is a code.
        let mut float = node.node.clone();
        if node.op() == "Pad" && node.text("mode", "constant") == "constant" {
            let code = match self.int_constant(node, 2)? {
                Some(code) => code.first().copied().unwrap_or(0),
                None => 0,
            };
            let value = ndarray::arr0(params.value(0, code)).into_dyn();
            let name = self.new_constant(node, "padding", value)?;
            float.input.resize(float.input.len().max(3), String::new());
            float.input[2] = name;
        }
        (operator.read)(self, &OnnxNode { node: &float, name: node.name.clone() })?;
        let moved = |node: &crate::graph::Node| node.operator().keeps_range() || node.operator().name() == "Concat";
        if !self.builder.nodes()[first..].iter().all(moved) {
            return unsupported("it computes new values of codes");
        }
        for output in node.node.output.iter().filter(|name| !name.is_empty()) {
            if !self.is_constant(output) {
                self.set_codes(output, params.clone())?;
            }
        }
        Ok(())
    }

    /// Notes that a tensor of the file is codes with these parameters, and the float tensor is what they stand for.
    fn set_codes(&mut self, name: &str, params: CodeParams) -> Result<()> {
        if params.ty.bits == 8 {
            let tensor = self.resolve(name).to_string();
            let recipe = params.activation();
            let found = self.quantization.recipe.tensors.get(&tensor);
            if found.is_some_and(|found| !same_params(found, &recipe)) {
                // Another name of a tensor with other parameters.
                let (copy, shape) = (self.new_name(name), self.shape_of(name)?);
                self.push_as(crate::ops::reshape::Reshape { shape }, alloc::vec![name.into()], &copy)?;
                self.aliases.insert(name.into(), copy.clone());
                self.quantization.recipe.tensors.insert(copy, recipe);
            } else if found.is_none() {
                self.quantization.recipe.tensors.insert(tensor, recipe);
            }
        }
        self.quantization.codes.insert(name.into(), params);
        Ok(())
    }

    /// Dequantizes a constant of the file to a constant of this name.
    fn dequantize_constant(&mut self, node: &OnnxNode<'_>, name: &str, to: &str, params: CodeParams) -> Result<()> {
        let Some(ConstantTensor::Int(codes)) = self.constant(name).cloned() else {
            return Err(node.malformed(
                "quantized constant",
                "a tensor of codes",
                alloc::format!("floats in {name:?}"),
            ));
        };
        self.budget.spend_floats(codes.len())?;
        let values: Constant = params.dequantize(&codes);
        self.folded_constant(to, ConstantTensor::Float(values));
        self.quantization.constants.insert(to.into(), params.with_positive_scales());
        Ok(())
    }

    /// Notes the parameters of the constants that the nodes from `first` on take.
    fn link_constants(&mut self, node: &OnnxNode<'_>, first: usize) {
        if self.quantization.constants.is_empty() {
            return;
        }
        if let Some((output, moved)) = self.moved_constant(node) {
            self.quantization.constants.insert(output, moved);
        }
        let params = |i: usize| node.input(i).and_then(|name| self.quantization.constants.get(self.resolve(name)));
        let out_axis = match node.op() {
            "Conv" => Some(0),
            "Gemm" => Some(usize::from(node.int("transB", 0) == 0)),
            "MatMul" => Some(1),
            _ => None,
        };
        let weights = params(1).filter(|_| node.op() != "Gemm" || node.float("alpha", 1.0) == 1.0);
        let shape = node.input(1).and_then(|name| self.constant(name)).map_or(&[][..], ConstantTensor::shape);
        let weights = weights.and_then(|params| params.weights(out_axis, shape));
        for at in first..self.builder.nodes().len() {
            let added = &self.builder.nodes()[at];
            if added.operator().layer().is_some() {
                let (name, weights) = (added.inputs[1].clone(), weights.clone());
                weights.map(|weights| self.quantization.weights.insert(name, weights));
            } else if added.operator().quantizes_constants() {
                for name in added.inputs.clone() {
                    let params = self.quantization.constants.get(&name);
                    if let Some(params) = params.filter(|params| params.ty.bits == 8 && params.axis.is_none()) {
                        let recipe = params.activation();
                        self.quantization.recipe.tensors.insert(name, recipe);
                    }
                }
            }
        }
    }
}

impl Importer {
    /// The output of a node that moves the elements of a dequantized constant, and its parameters.
    fn moved_constant(&self, node: &OnnxNode<'_>) -> Option<(String, CodeParams)> {
        let (x, output) = (node.input(0)?, node.output().ok()?);
        let params = self.quantization.constants.get(self.resolve(x)).filter(|_| self.is_constant(output))?;
        let moved = match (node.op(), params.axis) {
            ("Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten", None) => params.clone(),
            ("Transpose", Some(_)) => {
                let shape = self.constant(x)?.shape();
                let perm = match node.ints("perm") {
                    Some(perm) => perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?,
                    None => (0..shape.len()).rev().collect(),
                };
                params.transposed(shape, &perm)?
            }
            _ => return None,
        };
        Some((output.into(), moved))
    }
}

/// Returns whether two tensors have the same scale and zero point.
fn same_params(a: &TensorRecipe, b: &TensorRecipe) -> bool {
    let params = |tensor: &TensorRecipe| tensor.given.as_ref().map(|g| (g.scales.clone(), g.zero_points.clone()));
    params(a) == params(b)
}
