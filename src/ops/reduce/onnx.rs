//! Reductions in ONNX files.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Reduce, Reduction};
use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Attribute, OnnxOperator, UNARY, int, ints};
use crate::ops::binary::op::Binary;
use crate::ops::operator::Operator;
use crate::ops::pool::op::GlobalAveragePool;
use crate::ops::reshape::Reshape;
use crate::ops::unary::function::Activation;

const ATTRIBUTES: &[Attribute] = &[ints("axes").until(17), int("keepdims"), int("noop_with_empty_axes").since(18)];
const INPUTS: &[(i64, usize, usize)] = &[(1, 1, 1), (18, 1, 2)];

/// The spelling of [`Reduce`].
pub(crate) const REDUCE: &[OnnxOperator] = &[
    OnnxOperator::new("GlobalMaxPool", UNARY, &[], |importer, node| {
        let axes = (2..importer.shape(node, 0)?.len()).collect();
        importer.push_all(node, Reduce { reduction: Reduction::Max, axes })
    }),
    OnnxOperator::new("ReduceL2", INPUTS, ATTRIBUTES, |importer, node| {
        let squares = squares(importer, node)?;
        let sum = importer.new_name(&alloc::format!("{}.sum", node.output()?));
        reduce_as(importer, node, Reduction::Sum, squares, &sum)?;
        importer.push(node, Activation::Sqrt, alloc::vec![sum])
    }),
    OnnxOperator::new("ReduceL1", INPUTS, ATTRIBUTES, |importer, node| {
        let magnitudes = part(importer, node, Activation::Abs)?;
        reduce_as(importer, node, Reduction::Sum, magnitudes, node.output()?)
    }),
    OnnxOperator::new("ReduceLogSum", INPUTS, ATTRIBUTES, |importer, node| log_sum(importer, node, None)),
    OnnxOperator::new("ReduceLogSumExp", INPUTS, ATTRIBUTES, |importer, node| {
        log_sum(importer, node, Some(Activation::Exp))
    }),
    OnnxOperator::new("ReduceMax", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Max)),
    OnnxOperator::new("ReduceMean", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Mean)),
    OnnxOperator::new("ReduceMin", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Min)),
    OnnxOperator::new("ReduceProd", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Prod)),
    OnnxOperator::new("ReduceSumSquare", INPUTS, ATTRIBUTES, |importer, node| {
        let squares = squares(importer, node)?;
        reduce_as(importer, node, Reduction::Sum, squares, node.output()?)
    }),
    OnnxOperator::new(
        "ReduceSum",
        &[(1, 1, 1), (13, 1, 2)],
        &[ints("axes").until(12), int("keepdims"), int("noop_with_empty_axes").since(13)],
        |importer, node| reduce(importer, node, Reduction::Sum),
    ),
];

fn reduce(importer: &mut Importer, node: &OnnxNode<'_>, reduction: Reduction) -> Result<()> {
    reduce_as(importer, node, reduction, node.required(0)?.into(), node.output()?)
}

/// The logarithm of the sum of the elements, or of a function of them.
fn log_sum(importer: &mut Importer, node: &OnnxNode<'_>, function: Option<Activation>) -> Result<()> {
    let x = match function {
        Some(function) => part(importer, node, function)?,
        None => node.required(0)?.into(),
    };
    let sum = importer.new_name(&alloc::format!("{}.sum", node.output()?));
    reduce_as(importer, node, Reduction::Sum, x, &sum)?;
    importer.push(node, Activation::Log, alloc::vec![sum])
}

/// Adds a function of the input. Returns its name.
fn part(importer: &mut Importer, node: &OnnxNode<'_>, function: Activation) -> Result<String> {
    let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
    importer.push_as(function, alloc::vec![node.required(0)?.into()], &name).map(|()| name)
}

/// Adds the squares of the input. Returns their name.
fn squares(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<String> {
    let name = importer.new_name(&alloc::format!("{}.squares", node.output()?));
    let x: String = node.required(0)?.into();
    importer.push_as(Binary::Mul, alloc::vec![x.clone(), x], &name).map(|()| name)
}

/// Reduces `input`, which has the shape of the node's input.
fn reduce_as(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    reduction: Reduction,
    input: String,
    output: &str,
) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let axes = importer.int_list(node, "axes", 1)?.unwrap_or_default();
    let mut axes = match axes.is_empty() {
        true if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        true => (0..x.len()).collect(),
        false => node.axes(&axes, x.len())?,
    };
    axes.sort_unstable();
    let kept: Vec<usize> = (0..x.len()).filter(|axis| !axes.contains(axis)).map(|axis| x[axis]).collect();
    // The mean of an image has a kernel on codes.
    let op: Op = match reduction {
        Reduction::Mean if x.len() == 4 && axes == [2, 3] && !importer.is_constant(&input) => GlobalAveragePool.into(),
        reduction => Reduce { reduction, axes }.into(),
    };
    if node.int("keepdims", 1) != 0 {
        return importer.push_as(op, alloc::vec![input], output);
    }
    let reduced = importer.new_name(&alloc::format!("{}.reduced", node.output()?));
    importer.push_as(op, alloc::vec![input], &reduced)?;
    importer.push_as(Reshape { shape: kept }, alloc::vec![reduced], output)
}

/// Writes a reduction, which keeps the axes.
pub(super) fn write(op: &Reduce, node: &mut NodeWriter<'_>) -> Result<String> {
    let axes = node.ints(&op.axes);
    node.inputs.push(axes);
    // Without axes nothing is reduced.
    node.all(op.name(), alloc::vec![export::int("noop_with_empty_axes", 1)])
}
