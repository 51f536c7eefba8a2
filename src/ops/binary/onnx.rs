//! Functions of two tensors in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::op::Binary;
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{ANY, ARITHMETIC, BINARY, CONSUMED, OnnxOperator, UNARY};
use crate::io::onnx::tensor::ConstantTensor;
use crate::ops::clamp::Clamp;
use crate::ops::operator::Constant;
use crate::ops::operator::Operator;
use crate::ops::reshape::Reshape;
use crate::ops::unary::function::Activation;

/// The spelling of [`Binary`].
pub(crate) const BINARIES: &[OnnxOperator] = &[
    OnnxOperator::new("And", BINARY, &[], |importer, node| fold(importer, node, Binary::Min)).since(7),
    OnnxOperator::new("Equal", BINARY, &[], |importer, node| compare(importer, node, Binary::Equal)).since(7),
    OnnxOperator::new("Greater", BINARY, &[], |importer, node| compare(importer, node, Binary::Greater)).since(7),
    OnnxOperator::new("GreaterOrEqual", BINARY, &[], |importer, node| compare(importer, node, Binary::GreaterOrEqual))
        .since(12),
    OnnxOperator::new("Less", BINARY, &[], |importer, node| compare(importer, node, Binary::Less)).since(7),
    OnnxOperator::new("LessOrEqual", BINARY, &[], |importer, node| compare(importer, node, Binary::LessOrEqual))
        .since(12),
    // Flags are 0 and 1.
    OnnxOperator::new("Not", UNARY, &[], |importer, node| {
        let name = importer.new_name(&alloc::format!("{}.zero", node.output()?));
        importer.folded_constant(&name, ConstantTensor::Int(ndarray::arr0(0).into_dyn().into_shared()));
        binary(importer, node, Binary::Equal, [node.required(0)?, &name], node.output()?)
    }),
    OnnxOperator::new("Or", BINARY, &[], |importer, node| fold(importer, node, Binary::Max)).since(7),
    OnnxOperator::new("Add", BINARY, ARITHMETIC, |importer, node| fold(importer, node, Binary::Add)),
    OnnxOperator::new("Div", BINARY, ARITHMETIC, |importer, node| {
        with_mapped_constant(importer, node, Binary::Div, Binary::Mul, |x| 1.0 / x)
    }),
    OnnxOperator::new("Mean", &[(8, 1, ANY)], &[], |importer, node| {
        let count = node.node.input.iter().filter(|name| !name.is_empty()).count();
        let sum = importer.new_name(&alloc::format!("{}.sum", node.output()?));
        fold_as(importer, node, Binary::Add, &sum)?;
        let factor = importer.new_constant(node, "factor", ndarray::arr0(1.0 / count as f32).into_dyn())?;
        binary(importer, node, Binary::Mul, [&sum, &factor], node.output()?)
    })
    .since(8),
    OnnxOperator::new("Sum", &[(8, 1, ANY)], &[], |importer, node| fold(importer, node, Binary::Add)).since(8),
    OnnxOperator::new("Max", &[(1, 1, ANY)], &[CONSUMED], |importer, node| fold(importer, node, Binary::Max)),
    OnnxOperator::new("Min", &[(1, 1, ANY)], &[CONSUMED], |importer, node| fold(importer, node, Binary::Min)),
    OnnxOperator::new("Mul", BINARY, ARITHMETIC, |importer, node| fold(importer, node, Binary::Mul)),
    OnnxOperator::new("Pow", BINARY, ARITHMETIC, pow),
    OnnxOperator::new("Sub", BINARY, ARITHMETIC, |importer, node| {
        with_mapped_constant(importer, node, Binary::Sub, Binary::Add, |x| -x)
    }),
];

/// Combines two operands after the other; one operand alone is the result.
fn fold(importer: &mut Importer, node: &OnnxNode<'_>, function: Binary) -> Result<()> {
    if node.node.input.len() < 2 {
        return importer.alias(node);
    }
    fold_as(importer, node, function, node.output()?)
}

/// Same as [`fold`], with a name for the result.
fn fold_as(importer: &mut Importer, node: &OnnxNode<'_>, function: Binary, output: &str) -> Result<()> {
    let names: Vec<&String> = node.node.input.iter().filter(|name| !name.is_empty()).collect();
    let [first, middle @ .., last] = &names[..] else {
        let shape = importer.shape(node, 0)?;
        return importer.push_as(Reshape { shape }, alloc::vec![node.required(0)?.into()], output);
    };
    let mut so_far = (*first).clone();
    for name in middle {
        let output = importer.new_name(&alloc::format!("{}.part", node.output()?));
        binary(importer, node, function, [&so_far, *name], &output)?;
        so_far = output;
    }
    binary(importer, node, function, [&so_far, *last], output)
}

/// Adds a function of two tensors. The bounds of one element of a maximum and a minimum become a clamp.
fn binary(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    function: Binary,
    names: [&str; 2],
    output: &str,
) -> Result<()> {
    for (x, bound) in [(0, 1), (1, 0)] {
        let Some(ConstantTensor::Float(value)) = importer.constant(names[bound]) else { continue };
        let bound = value.first().copied().filter(|_| value.len() == 1);
        let neutral = match function {
            Binary::Max => f32::NEG_INFINITY,
            _ => f32::INFINITY,
        };
        let clamp = match function {
            Binary::Max => Clamp { low: bound, high: None },
            Binary::Min => Clamp { low: None, high: bound },
            _ => break,
        };
        let shape = importer.shape_of(names[x])?;
        let fits = value.ndim() <= shape.len() && !importer.is_constant(names[x]);
        if fits && bound == Some(neutral) {
            return importer.push_as(Reshape { shape }, alloc::vec![names[x].into()], output);
        }
        let fits = fits && bound.is_some_and(f32::is_finite);
        if clamp != Clamp::NONE && fits {
            return importer.push_as(Activation::Clip(clamp), alloc::vec![names[x].into()], output);
        }
    }
    // Activations have equal ranks.
    let shapes = [importer.shape_of(names[0])?, importer.shape_of(names[1])?];
    let ndim = shapes[0].len().max(shapes[1].len());
    let mut inputs = Vec::new();
    for (name, shape) in names.into_iter().zip(shapes) {
        let padded = [alloc::vec![1; ndim - shape.len()], shape.clone()].concat();
        let known = importer.is_constant(name);
        inputs.push(if known { name.to_string() } else { importer.reshaped(node, name, &shape, padded)? });
    }
    // A constant with more axes than the activation gives it these axes.
    importer.push_as(function, inputs, output)
}

/// Compares two tensors. The result is a tensor of flags.
fn compare(importer: &mut Importer, node: &OnnxNode<'_>, function: Binary) -> Result<()> {
    let names = [node.required(0)?, node.required(1)?];
    let known = names.iter().all(|name| importer.is_constant(name));
    if let (true, Some(flags)) = (known, importer.compare_constants(names, function)?) {
        importer.folded_constant(node.output()?, flags);
        return Ok(());
    }
    binary(importer, node, function, names, node.output()?)?;
    importer.set_integer(node.output()?, true);
    Ok(())
}

/// `a - b` is `a + (-b)`, and `a / b` is `a * (1 / b)`, for a constant `b`.
fn with_mapped_constant(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    function: Binary,
    with_constant: Binary,
    f: impl Fn(f32) -> f32,
) -> Result<()> {
    let [a, b] = [node.required(0)?, node.required(1)?];
    let value = match importer.constant(b) {
        Some(ConstantTensor::Float(value)) if !importer.is_constant(a) => value.clone(),
        _ if function == Binary::Div
            && importer.is_integer(a)
            && !(importer.is_constant(a) && importer.is_constant(b)) =>
        {
            return Err(node.unsupported("a division of integers"));
        }
        _ => return binary(importer, node, function, [a, b], node.output()?),
    };
    let mapped = value.mapv(f);
    // A divisor of zero has no reciprocal.
    if !mapped.iter().all(|x| x.is_finite()) {
        return binary(importer, node, function, [a, b], node.output()?);
    }
    let value = importer.new_constant(node, "operand", mapped)?;
    binary(importer, node, with_constant, [a, &value], node.output()?)
}

/// A power with a constant exponent of one element is a function of one tensor.
fn pow(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let [a, b] = [node.required(0)?, node.required(1)?];
    let exponent = |value: &Constant| value.first().copied().filter(|_| value.len() == 1);
    let exponent = match importer.constant(b) {
        Some(ConstantTensor::Float(value)) => exponent(value),
        Some(ConstantTensor::Int(value)) if value.len() == 1 => value.first().map(|&x| x as f32),
        _ => None,
    };
    match exponent {
        Some(exponent) if !importer.is_constant(a) => {
            importer.push(node, Activation::Pow { exponent }, alloc::vec![a.into()])
        }
        _ => binary(importer, node, Binary::Pow, [a, b], node.output()?),
    }
}

/// Writes a function of two tensors. Flags are floats in the graph.
pub(super) fn write(op: Binary, node: &mut NodeWriter<'_>) -> Result<String> {
    let y = node.all(op.name(), Vec::new())?;
    Ok(if op.is_comparison() { node.node("Cast", [y], alloc::vec![export::int("to", 1)]) } else { y })
}
