//! `Softmax` in ONNX files.

use super::op::{LogSoftmax, Softmax};
use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, UNARY, int};

/// The spelling of [`Softmax`].
pub(crate) const SOFTMAX: &[OnnxOperator] = &[
    OnnxOperator::new("LogSoftmax", UNARY, &[int("axis")], |importer, node| {
        softmax(importer, node, |axis| LogSoftmax { axis }.into())
    }),
    OnnxOperator::new("Softmax", UNARY, &[int("axis")], |importer, node| {
        softmax(importer, node, |axis| Softmax { axis }.into())
    }),
];

fn softmax(importer: &mut Importer, node: &OnnxNode<'_>, op: impl Fn(usize) -> Op) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let axis = node.axis(node.int("axis", if importer.opset < 13 { 1 } else { -1 }), shape.len())?;
    // Before opset 13 the operator flattens all axes from `axis` on.
    if importer.opset < 13 && shape[axis + 1..].iter().any(|&len| len != 1) {
        let rows = alloc::vec![shape[..axis].iter().product(), shape[axis..].iter().product()];
        let name = importer.reshaped(node, node.required(0)?, &shape, rows)?;
        return importer.push_reshaped(node, op(1), alloc::vec![name], Some(shape));
    }
    let inputs = alloc::vec![node.required(0)?.into()];
    importer.push(node, op(axis), inputs)
}
