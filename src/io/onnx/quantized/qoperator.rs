//! Operators on codes: `QLinearConv`, `QLinearMatMul`, and operators of the domain `com.microsoft`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::IxDyn;

use super::super::import::Importer;
use super::super::node::OnnxNode;
use super::super::operator::{ANY, Attribute, Kind, OnnxOperator, float, ignore, int, ints, only, text};
use super::super::proto::NodeProto;
use super::params::{CodeParams, CodeType};
use crate::error::Result;

const WINDOW: &[Attribute] =
    &[text("auto_pad"), ints("dilations"), int("group"), ints("kernel_shape"), ints("pads"), ints("strides")];

pub(super) const OPERATORS: &[OnnxOperator] = &[
    OnnxOperator::new("QLinearConv", &[(10, 8, 9)], WINDOW, conv).since(10).in_microsoft_too(),
    OnnxOperator::new("QLinearMatMul", &[(10, 8, 8)], &[], |importer, node| {
        let a = operand(importer, node, 0, -1)?;
        let b = operand(importer, node, 3, -1)?;
        output(importer, node, [6, 7], "MatMul", alloc::vec![a, b])
    })
    .since(10),
    OnnxOperator::new("QGemm", &[(1, 6, 9)], &[float("alpha"), int("transA"), int("transB")], gemm).of_microsoft(),
    OnnxOperator::new("QLinearAdd", &[(1, 7, 8)], &[], |importer, node| binary(importer, node, "Add")).of_microsoft(),
    OnnxOperator::new("QLinearMul", &[(1, 7, 8)], &[], |importer, node| binary(importer, node, "Mul")).of_microsoft(),
    OnnxOperator::new(
        "QLinearAveragePool",
        &[(1, 4, 5)],
        &[
            text("auto_pad"),
            int("ceil_mode"),
            only("channels_last", 0),
            int("count_include_pad"),
            ints("kernel_shape"),
            ints("pads"),
            ints("strides"),
        ],
        |importer, node| unary(importer, node, "AveragePool"),
    )
    .of_microsoft(),
    OnnxOperator::new("QLinearGlobalAveragePool", &[(1, 4, 5)], &[only("channels_last", 0)], |importer, node| {
        unary(importer, node, "GlobalAveragePool")
    })
    .of_microsoft(),
    OnnxOperator::new("QLinearSigmoid", &[(1, 4, 5)], &[], |importer, node| unary(importer, node, "Sigmoid"))
        .of_microsoft(),
    OnnxOperator::new("QLinearLeakyRelu", &[(1, 4, 5)], &[float("alpha")], |importer, node| {
        unary(importer, node, "LeakyRelu")
    })
    .of_microsoft(),
    // The opset whose Softmax it equals.
    OnnxOperator::new("QLinearSoftmax", &[(1, 4, 5)], &[int("axis"), ignore("opset", Kind::Int)], softmax)
        .of_microsoft(),
    OnnxOperator::new("QLinearReduceMean", &[(1, 4, 5)], &[ints("axes"), int("keepdims")], |importer, node| {
        unary(importer, node, "ReduceMean")
    })
    .of_microsoft(),
    OnnxOperator::new("QLinearConcat", &[(1, 4, ANY)], &[int("axis")], |importer, node| {
        let inputs = (2..node.node.input.len()).step_by(3).map(|i| operand(importer, node, i, 1));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        output(importer, node, [0, 1], "Concat", inputs)
    })
    .of_microsoft(),
    OnnxOperator::new("QLinearWhere", &[(1, 9, 9)], &[], |importer, node| {
        let (a, b) = (operand(importer, node, 1, 1)?, operand(importer, node, 4, 1)?);
        output(importer, node, [7, 8], "Where", alloc::vec![node.required(0)?.into(), a, b])
    })
    .of_microsoft(),
];

/// Input `i`, whose scale and zero point are the inputs after it, as a float tensor. Several scales of a constant are along
/// `axis`.
fn operand(importer: &mut Importer, node: &OnnxNode<'_>, i: usize, axis: i64) -> Result<String> {
    let (name, shape) = (node.required(i)?, importer.shape(node, i)?);
    let known = importer.quantization.codes.get(name).map(|params| params.ty);
    let default = known.or_else(|| importer.code_type(name)).unwrap_or(CodeType::U8);
    let mut params = importer.code_params(node, [i + 1, i + 2], (&shape, axis), default)?;
    if importer.is_constant(name) {
        let to = importer.new_name(&alloc::format!("{name}.dequantized"));
        importer.dequantize_constant(node, name, &to, params)?;
        return Ok(to);
    }
    if params.axis.is_some() {
        return Err(node.unsupported("an activation with several scales"));
    }
    if importer.quantization.inputs.contains(name) && known.is_none() {
        importer.set_integer(name, false);
        importer.set_codes(name, CodeParams { on_codes: true, ..params.clone() })?;
    }
    let found = importer.quantization.codes.get(name);
    params.on_codes = found.is_some_and(|found| found.on_codes);
    match found {
        Some(found) if *found == params => Ok(name.into()),
        Some(_) => Err(node.unsupported("its scale or zero point differs from the one that its codes have")),
        None => Err(node.unsupported(alloc::format!("input {i} is not the output of a quantized operator"))),
    }
}

/// Reads the float operator, and notes that its output is codes with the scale and zero point in these inputs.
fn output(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    params: [usize; 2],
    op: &str,
    input: Vec<String>,
) -> Result<()> {
    let params = importer.code_params(node, params, (&[], 0), CodeType::U8)?;
    let not_attributes = ["channels_last", "opset"];
    let attributes = node.node.attribute.iter().filter(|a| !not_attributes.contains(&&*a.name));
    let float = NodeProto {
        input,
        output: node.node.output.clone(),
        name: node.node.name.clone(),
        op_type: op.into(),
        attribute: attributes.cloned().collect(),
        domain: String::new(),
    };
    importer.float_node(node, float)?;
    importer.set_codes(node.output()?, CodeParams { on_codes: true, ..params })
}

/// An operator of one input.
fn unary(importer: &mut Importer, node: &OnnxNode<'_>, op: &str) -> Result<()> {
    let x = operand(importer, node, 0, 1)?;
    output(importer, node, [3, 4], op, alloc::vec![x])
}

fn binary(importer: &mut Importer, node: &OnnxNode<'_>, op: &str) -> Result<()> {
    let (a, b) = (operand(importer, node, 0, 1)?, operand(importer, node, 3, 1)?);
    output(importer, node, [6, 7], op, alloc::vec![a, b])
}

fn softmax(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let ndim = importer.shape(node, 0)?.len();
    // Before opset 13 all axes from `axis` on are one.
    if node.int("opset", 13) < 13 && node.axis(node.int("axis", -1), ndim)? + 1 != ndim {
        return Err(node.unsupported("an axis before the last one in an opset before 13"));
    }
    unary(importer, node, "Softmax")
}

fn conv(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let mut inputs = alloc::vec![operand(importer, node, 0, 1)?, operand(importer, node, 3, 0)?];
    inputs.extend(bias(importer, node, 8, [1, 4])?);
    output(importer, node, [6, 7], "Conv", inputs)
}

fn gemm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    if node.float("alpha", 1.0) != 1.0 {
        return Err(node.unsupported("a factor alpha beside the scales"));
    }
    let out_axis = i64::from(node.int("transB", 0) == 0);
    let mut inputs = alloc::vec![operand(importer, node, 0, 1)?, operand(importer, node, 3, out_axis)?];
    inputs.extend(bias(importer, node, 6, [1, 4])?);
    if node.input(7).is_some() {
        return output(importer, node, [7, 8], "Gemm", inputs);
    }
    let float = NodeProto { input: inputs, op_type: "Gemm".into(), domain: String::new(), ..node.node.clone() };
    importer.float_node(node, float)
}

/// Input `i`, a bias in units of the products, as floats.
fn bias(importer: &mut Importer, node: &OnnxNode<'_>, i: usize, scales: [usize; 2]) -> Result<Option<String>> {
    let Some(codes) = importer.int_constant(node, i)? else { return Ok(None) };
    let x = importer.required_constant(node, scales[0])?;
    let x = f64::from(importer.scalar(node, "scale", &x)?);
    let w = importer.required_constant(node, scales[1])?;
    let wide = w.broadcast(IxDyn(codes.shape())).or_else(|| (w.len() == codes.len()).then(|| w.view()));
    let Some(wide) = wide.or_else(|| w.first().and_then(|_| w.broadcast(IxDyn(codes.shape())))) else {
        return Err(node.malformed("bias", alloc::format!("{} values", w.len()), codes.len()));
    };
    let values: Vec<f32> =
        codes.iter().zip(wide.iter()).map(|(&b, &w)| (b as f64 * (x * f64::from(w))) as f32).collect();
    let values = ndarray::ArrayD::from_shape_vec(IxDyn(codes.shape()), values).expect("one for each code");
    importer.new_constant(node, "bias", values).map(|name| Some(name.to_string()))
}
