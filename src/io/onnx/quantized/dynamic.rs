//! Layers that quantize their input by its own range: `DynamicQuantizeLinear`, `MatMulInteger` and `ConvInteger`, with the
//! cast and the product that make floats of their sums.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{Axis, IxDyn};

use super::super::import::Importer;
use super::super::node::OnnxNode;
use super::super::operator::{Attribute, OnnxOperator, int, ints, text};
use super::super::proto::{AttributeProto, NodeProto};
use super::super::tensor::ConstantTensor;
use super::params::{CodeParams, CodeType};
use crate::error::Result;

const WINDOW: &[Attribute] =
    &[text("auto_pad"), ints("dilations"), int("group"), ints("kernel_shape"), ints("pads"), ints("strides")];

pub(super) const OPERATORS: &[OnnxOperator] = &[
    OnnxOperator::new("DynamicQuantizeLinear", &[(11, 1, 1)], &[], dynamic_quantize_linear).since(11).with_outputs(),
    OnnxOperator::new("MatMulInteger", &[(10, 2, 4)], &[], |importer, node| product(importer, node, "MatMul"))
        .since(10),
    OnnxOperator::new("ConvInteger", &[(10, 2, 4)], WINDOW, |importer, node| product(importer, node, "Conv")).since(10),
    OnnxOperator::new("DynamicQuantizeMatMul", &[(1, 3, 5)], &[], dynamic_quantize_matmul).of_microsoft(),
    OnnxOperator::new("MatMulIntegerToFloat", &[(1, 4, 7)], &[], matmul_integer_to_float).of_microsoft(),
    OnnxOperator::new(
        "DynamicQuantizeLSTM",
        &[(1, 3, 12)],
        &[text("direction"), int("hidden_size"), int("input_forget")],
        lstm,
    )
    .of_microsoft()
    .with_outputs(),
];

/// A tensor between `DynamicQuantizeLinear` and the product that makes floats of sums.
#[derive(Clone)]
pub(super) enum Symbol {
    /// The codes of a tensor by its own range.
    Codes { x: String },
    /// Their scale.
    Scale { x: String },
    /// Their zero point.
    ZeroPoint { x: String },
    /// The product of their scale with the scales of weights.
    Scales { x: String, weights: String },
    /// Sums of products with weights.
    Sums { x: String, weights: String, zero_point: Option<String>, op: &'static str, attributes: Vec<AttributeProto> },
}

fn dynamic_quantize_linear(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = node.required(0)?;
    importer.shape_of(x)?;
    let of = |symbol: fn(String) -> Symbol| symbol(x.to_string());
    let symbols = [of(|x| Symbol::Codes { x }), of(|x| Symbol::Scale { x }), of(|x| Symbol::ZeroPoint { x })];
    for (name, symbol) in node.node.output.iter().zip(symbols).filter(|(name, _)| !name.is_empty()) {
        importer.quantization.symbols.insert(name.clone(), symbol);
    }
    Ok(())
}

/// The sums of products of codes and weights.
fn product(importer: &mut Importer, node: &OnnxNode<'_>, op: &'static str) -> Result<()> {
    let symbol = |i: usize| node.input(i).and_then(|name| importer.quantization.symbols.get(name));
    let (Some(Symbol::Codes { x }), Some(Symbol::ZeroPoint { x: of_zero })) = (symbol(0), symbol(2)) else {
        return Err(node.unsupported("an input that is not quantized by DynamicQuantizeLinear"));
    };
    if x != of_zero {
        return Err(node.malformed("zero point", "the zero point of the codes", alloc::format!("{:?}", node.input(2))));
    }
    let weights = node.required(1)?;
    if !importer.is_constant(weights) {
        return Err(node.unsupported("weights that are not constant"));
    }
    let sums = Symbol::Sums {
        x: x.clone(),
        weights: weights.into(),
        zero_point: node.input(3).map(ToString::to_string),
        op,
        attributes: node.node.attribute.clone(),
    };
    importer.quantization.symbols.insert(node.output()?.into(), sums);
    Ok(())
}

impl Importer {
    /// Reads an operator of float networks that reads a symbol: the cast of sums, the product of scales, the product of both.
    pub(super) fn symbolic(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        let symbol = |i: usize| node.input(i).and_then(|name| self.quantization.symbols.get(name).cloned());
        let result = match (node.op(), symbol(0), symbol(1)) {
            ("Cast", Some(sums @ Symbol::Sums { .. }), _) if node.int("to", 0) == 1 => sums,
            ("Mul", Some(Symbol::Scale { x }), None) => Symbol::Scales { x, weights: node.required(1)?.into() },
            ("Mul", None, Some(Symbol::Scale { x })) => Symbol::Scales { x, weights: node.required(0)?.into() },
            ("Mul", Some(sums @ Symbol::Sums { .. }), Some(Symbol::Scales { x, weights }))
            | ("Mul", Some(Symbol::Scales { x, weights }), Some(sums @ Symbol::Sums { .. })) => {
                let Symbol::Sums { x: of_sums, weights: codes, zero_point, op, attributes } = sums else {
                    unreachable!("the pattern says so")
                };
                if x != of_sums {
                    return Err(node.malformed(
                        "scale",
                        "the scale of the codes of the product",
                        alloc::format!("{x:?}"),
                    ));
                }
                let parts = [codes, weights, zero_point.unwrap_or_default()];
                return self.dynamic_layer(node, (x, parts), (op, attributes), node.output()?);
            }
            _ => {
                let why = "reads codes, sums or scales of DynamicQuantizeLinear other than a product with weights does";
                return Err(node.unsupported(why));
            }
        };
        self.quantization.symbols.insert(node.output()?.into(), result);
        Ok(())
    }

    /// Adds a layer that quantizes its input `x`. The weights are codes, scale and zero point.
    fn dynamic_layer(
        &mut self,
        node: &OnnxNode<'_>,
        (x, [codes, scale, zero_point]): (String, [String; 3]),
        (op, attribute): (&str, Vec<AttributeProto>),
        output: &str,
    ) -> Result<()> {
        // The weights as a tensor of the node.
        let weights = NodeProto { input: alloc::vec![codes.clone(), scale, zero_point], ..node.node.clone() };
        let weights = OnnxNode { node: &weights, name: node.name.clone() };
        let shape = self.shape_of(&codes)?;
        let axis = if op == "Conv" { 0 } else { -1 };
        let default = self.code_type(&codes).unwrap_or(CodeType::U8);
        // Scales of a convolution are [out, 1, 1].
        let mut params = self.code_params(&weights, [1, 2], (&shape, axis), default)?;
        params.on_codes = false;
        let name = self.new_name(&alloc::format!("{codes}.dequantized"));
        self.dequantize_constant(node, &codes, &name, params)?;
        let first = self.builder.nodes().len();
        let input = alloc::vec![x, name];
        let output = alloc::vec![output.to_string()];
        let float =
            NodeProto { input, output, op_type: op.into(), domain: String::new(), attribute, ..node.node.clone() };
        self.float_node(node, float)?;
        let added = self.builder.nodes()[first..].iter().filter(|added| added.operator().layer().is_some());
        let names: Vec<String> = added.map(|added| added.inputs[1].clone()).collect();
        self.quantization.dynamic.extend(names);
        Ok(())
    }

    /// Adds the bias in input `i`, if there is one, to the output of `layer`, which is given its name.
    fn with_bias(
        &mut self,
        node: &OnnxNode<'_>,
        i: usize,
        layer: impl FnOnce(&mut Self, &str) -> Result<()>,
    ) -> Result<()> {
        let Some(bias) = node.input(i) else { return layer(self, node.output()?) };
        let product = self.new_name(&alloc::format!("{}.product", node.output()?));
        layer(self, &product)?;
        self.push(node, crate::ops::binary::op::Binary::Add, alloc::vec![product, bias.into()])
    }
}

fn part(node: &OnnxNode<'_>, i: usize) -> String {
    node.input(i).unwrap_or_default().to_string()
}

fn dynamic_quantize_matmul(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let (x, parts) = (node.required(0)?.to_string(), [1, 2, 3].map(|i| part(node, i)));
    importer
        .with_bias(node, 4, |importer, output| importer.dynamic_layer(node, (x, parts), ("MatMul", Vec::new()), output))
}

fn matmul_integer_to_float(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let parts = [1, 3, 5].map(|i| part(node, i));
    let symbol = |i: usize| node.input(i).and_then(|name| importer.quantization.symbols.get(name).cloned());
    match (symbol(0), symbol(2)) {
        (Some(Symbol::Codes { x }), Some(Symbol::Scale { x: of_scale })) if x == of_scale => {
            importer.with_bias(node, 6, |importer, output| {
                importer.dynamic_layer(node, (x, parts), ("MatMul", Vec::new()), output)
            })
        }
        _ => Err(node.unsupported("an input that is not quantized by DynamicQuantizeLinear")),
    }
}

/// An LSTM with quantized weights, which are transposed.
fn lstm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let mut float = node.node.clone();
    for (weights, scale) in [(1, 8), (2, 10)] {
        let shape = importer.shape(node, weights)?;
        let name = node.required(weights)?;
        let codes = match importer.constant(name) {
            Some(ConstantTensor::Int(codes)) if codes.ndim() == 3 => codes.clone(),
            _ => return Err(node.unsupported(alloc::format!("input {weights} is not a constant of three axes"))),
        };
        // One scale, or one for each direction, or one for each direction and gate.
        let scales = importer.required_constant(node, scale)?;
        let zero_points = importer.int_constant(node, scale + 1)?;
        let default = importer.code_type(name).unwrap_or(CodeType::U8);
        let [directions, columns] = [shape[0], shape[2]];
        let wide = |len: usize, at: [usize; 2]| match len {
            1 => Some(0),
            _ if len == directions => Some(at[0]),
            _ if len == directions * columns => Some(at[0] * columns + at[1]),
            _ => None,
        };
        let zero_count = zero_points.as_ref().map_or(1, |zero| zero.len());
        if [scales.len(), zero_count].iter().any(|&len| wide(len, [0, 0]).is_none()) {
            return Err(node.malformed("scales", "one for each direction, or for each of its rows", scales.len()));
        }
        let (scales, zeros): (Vec<f32>, Vec<i64>) = (
            scales.iter().copied().collect(),
            zero_points.map_or_else(|| alloc::vec![0], |zero| zero.iter().copied().collect()),
        );
        importer.budget.spend_floats(codes.len())?;
        let mut values = codes.mapv(|_| 0.0);
        for (direction, (mut values, codes)) in values.outer_iter_mut().zip(codes.outer_iter()).enumerate() {
            for (column, (mut values, codes)) in values.axis_iter_mut(Axis(1)).zip(codes.axis_iter(Axis(1))).enumerate()
            {
                let at = |len: usize| wide(len, [direction, column]).unwrap_or(0);
                let params = CodeParams {
                    ty: default,
                    axis: None,
                    block: None,
                    scales: alloc::vec![scales[at(scales.len())]],
                    zero_points: alloc::vec![zeros[at(zeros.len())]],
                    on_codes: false,
                };
                values.zip_mut_with(&codes, |value, &code| *value = params.value(0, code));
            }
        }
        let values = values.permuted_axes(IxDyn(&[0, 2, 1])).as_standard_layout().into_owned();
        float.input[weights] = importer.new_constant(node, "weight", values)?;
    }
    // Peepholes, and the parameters of weights.
    if node.input(7).is_some() {
        return Err(node.unsupported("peephole weights (input P)"));
    }
    float.input.truncate(7);
    (float.op_type, float.domain) = ("LSTM".into(), String::new());
    importer.float_node(node, float)
}
