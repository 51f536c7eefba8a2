//! `ArgMax` and `ArgMin` in ONNX files.

use super::ArgMax;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Attribute, OnnxOperator, UNARY, int};

const ATTRIBUTES: &[Attribute] = &[int("axis"), int("keepdims"), int("select_last_index").since(12)];

/// The spelling of [`ArgMax`].
pub(crate) const ARG_MAX: &[OnnxOperator] = &[
    OnnxOperator::new("ArgMax", UNARY, ATTRIBUTES, |importer, node| arg_max(importer, node, false)),
    OnnxOperator::new("ArgMin", UNARY, ATTRIBUTES, |importer, node| arg_max(importer, node, true)),
];

fn arg_max(importer: &mut Importer, node: &OnnxNode<'_>, smallest: bool) -> Result<()> {
    let mut shape = importer.shape(node, 0)?;
    let axis = node.axis(node.int("axis", 0), shape.len())?;
    let op = ArgMax { axis, smallest, last: node.int("select_last_index", 0) != 0 };
    shape.remove(axis);
    let shape = (node.int("keepdims", 1) == 0).then_some(shape);
    importer.push_reshaped(node, op, alloc::vec![node.required(0)?.into()], shape)?;
    importer.set_integer(node.output()?, true);
    Ok(())
}
