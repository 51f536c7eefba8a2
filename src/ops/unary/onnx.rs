//! Functions of one tensor in ONNX files.

use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{BINARY, CONSUMED, OnnxOperator, UNARY, float, text};
use crate::ops::binary::op::Binary;
use crate::ops::clamp::Clamp;

use super::function::Activation;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use alloc::string::String;
use alloc::vec::Vec;

/// The spelling of [`Activation`].
pub(crate) const UNARIES: &[OnnxOperator] = &[
    OnnxOperator::new(
        "Clip",
        &[(1, 1, 1), (11, 1, 3)],
        &[float("min").until(10), float("max").until(10), CONSUMED],
        clip,
    ),
    OnnxOperator::new("HardSigmoid", UNARY, &[float("alpha"), float("beta"), CONSUMED], |importer, node| {
        let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
        importer.push_all(node, Activation::HardSigmoid { alpha, beta })
    }),
    OnnxOperator::new("HardSwish", UNARY, &[], |importer, node| importer.push_all(node, Activation::HardSwish))
        .since(14),
    OnnxOperator::new("LeakyRelu", UNARY, &[float("alpha"), CONSUMED], |importer, node| {
        importer.push_all(node, Activation::LeakyRelu { alpha: node.float("alpha", 0.01) })
    }),
    OnnxOperator::new("Relu", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::relu())),
    OnnxOperator::new("Sigmoid", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Sigmoid)),
    OnnxOperator::new("Tanh", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Tanh)),
    OnnxOperator::new("Abs", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Abs)),
    OnnxOperator::new("Ceil", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Ceil)),
    OnnxOperator::new("Cos", UNARY, &[], |importer, node| importer.push_all(node, Activation::Cos)).since(7),
    OnnxOperator::new("Elu", UNARY, &[float("alpha"), CONSUMED], |importer, node| {
        importer.push_all(node, Activation::Elu { alpha: node.float("alpha", 1.0) })
    }),
    OnnxOperator::new("Erf", UNARY, &[], |importer, node| importer.push_all(node, Activation::Erf)).since(9),
    OnnxOperator::new("Exp", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Exp)),
    OnnxOperator::new("Floor", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Floor)),
    OnnxOperator::new("Log", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Log)),
    OnnxOperator::new("Mish", UNARY, &[], |importer, node| importer.push_all(node, Activation::Mish)).since(18),
    OnnxOperator::new("Neg", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Neg)),
    OnnxOperator::new("Reciprocal", UNARY, &[CONSUMED], |importer, node| {
        importer.push_all(node, Activation::Reciprocal)
    }),
    OnnxOperator::new("Round", UNARY, &[], |importer, node| importer.push_all(node, Activation::Round)).since(11),
    OnnxOperator::new("Sign", UNARY, &[], |importer, node| importer.push_all(node, Activation::Sign)).since(9),
    OnnxOperator::new("Sin", UNARY, &[], |importer, node| importer.push_all(node, Activation::Sin)).since(7),
    OnnxOperator::new("Softplus", UNARY, &[], |importer, node| importer.push_all(node, Activation::Softplus)),
    OnnxOperator::new("Softsign", UNARY, &[], |importer, node| importer.push_all(node, Activation::Softsign)),
    OnnxOperator::new("Sqrt", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Sqrt)),
    OnnxOperator::new("Gelu", UNARY, &[text("approximate")], |importer, node| {
        let function = match node.text("approximate", "none") {
            "none" => Activation::Gelu,
            "tanh" => Activation::GeluTanh,
            other => return Err(node.unsupported(alloc::format!("attribute approximate = {other:?}"))),
        };
        importer.push_all(node, function)
    })
    .since(20),
    OnnxOperator::new("Selu", UNARY, &[float("alpha"), float("gamma"), CONSUMED], |importer, node| {
        let alpha = node.float("alpha", 1.673_263_2);
        let elu = importer.new_name(&alloc::format!("{}.elu", node.output()?));
        importer.push_as(Activation::Elu { alpha }, alloc::vec![node.required(0)?.into()], &elu)?;
        let gamma = ndarray::arr0(node.float("gamma", 1.050_701)).into_dyn();
        let gamma = importer.new_constant(node, "gamma", gamma)?;
        importer.push(node, Binary::Mul, alloc::vec![elu, gamma])
    }),
    OnnxOperator::new("Swish", UNARY, &[float("alpha")], |importer, node| match node.float("alpha", 1.0) {
        1.0 => importer.push_all(node, Activation::Silu),
        alpha => Err(node.unsupported(alloc::format!("attribute alpha = {alpha}"))),
    })
    .since(24),
    OnnxOperator::new("PRelu", BINARY, &[CONSUMED], prelu),
];

fn clip(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let bound = |i: usize, name: &'static str, unbounded: f32| -> Result<Option<f32>> {
        let bound = match importer.float_constant(node, i)? {
            Some(value) => importer.scalar(node, name, &value)?,
            None => node.float(name, unbounded),
        };
        match bound {
            _ if bound == unbounded => Ok(None),
            _ if bound.is_finite() => Ok(Some(bound)),
            _ => Err(node.unsupported(alloc::format!("{name} = {bound}"))),
        }
    };
    let clamp = Clamp { low: bound(1, "min", f32::NEG_INFINITY)?, high: bound(2, "max", f32::INFINITY)? };
    let inputs = alloc::vec![node.required(0)?.into()];
    importer.push(node, Activation::Clip(clamp), inputs)
}

/// `max(x, 0) + slope * min(x, 0)`, with a constant slope.
fn prelu(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let slope = importer.required_constant(node, 1)?;
    let x = node.required(0)?;
    if let (1, Some(&alpha)) = (slope.len(), slope.first()) {
        return importer.push(node, Activation::LeakyRelu { alpha }, alloc::vec![x.into()]);
    }
    let mut part = |op: Op, inputs| {
        let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
        importer.push_as(op, inputs, &name).map(|()| name)
    };
    let positive = part(Activation::relu().into(), alloc::vec![x.into()])?;
    let negative = Activation::Clip(Clamp { low: None, high: Some(0.0) });
    let negative = part(negative.into(), alloc::vec![x.into()])?;
    let sloped = part(Binary::Mul.into(), alloc::vec![negative, node.required(1)?.into()])?;
    importer.push(node, Binary::Add, alloc::vec![positive, sloped])
}

/// Writes a function of one tensor.
pub(super) fn write(function: Activation, node: &mut NodeWriter<'_>) -> Result<String> {
    let x = node.inputs[0].clone();
    let attributes = match function {
        Activation::Clip(clamp) if clamp != Clamp::RELU => {
            let mut bound = |value: Option<f32>| value.map_or_else(String::new, |value| node.scalar(value));
            let inputs = [x, bound(clamp.low), bound(clamp.high)];
            return Ok(node.node("Clip", inputs, Vec::new()));
        }
        Activation::Silu => {
            let gate = node.node("Sigmoid", [x.clone()], Vec::new());
            return Ok(node.node("Mul", [x, gate], Vec::new()));
        }
        Activation::Pow { exponent } => {
            let exponent = node.scalar(exponent);
            return Ok(node.node("Pow", [x, exponent], Vec::new()));
        }
        Activation::Truncate => {
            let integers = node.node("Cast", [x], alloc::vec![export::int("to", 7)]);
            return Ok(node.node("Cast", [integers], alloc::vec![export::int("to", 1)]));
        }
        Activation::HardSigmoid { alpha, beta } => {
            alloc::vec![export::float("alpha", alpha), export::float("beta", beta)]
        }
        Activation::LeakyRelu { alpha } | Activation::Elu { alpha } => alloc::vec![export::float("alpha", alpha)],
        Activation::GeluTanh => alloc::vec![export::text("approximate", "tanh")],
        _ => Vec::new(),
    };
    node.all(Activation::name(function), attributes)
}
