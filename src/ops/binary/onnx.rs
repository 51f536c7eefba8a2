//! Functions of two tensors in ONNX files.

use super::op::Binary;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{ARITHMETIC, BINARY, OnnxOperator};

/// The spelling of [`Binary`].
pub(crate) const BINARIES: &[OnnxOperator] = &[
    OnnxOperator::new("Add", BINARY, ARITHMETIC, |importer, node| importer.push_all(node, Binary::Add)),
    OnnxOperator::new("Div", BINARY, ARITHMETIC, |importer, node| {
        with_mapped_constant(importer, node, Binary::Mul, |x| 1.0 / x)
    }),
    OnnxOperator::new("Mul", BINARY, ARITHMETIC, |importer, node| importer.push_all(node, Binary::Mul)),
    OnnxOperator::new("Sub", BINARY, ARITHMETIC, |importer, node| {
        with_mapped_constant(importer, node, Binary::Add, |x| -x)
    }),
];

/// `a - b` is `a + (-b)`, and `a / b` is `a * (1 / b)`, for a constant `b`.
fn with_mapped_constant(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    op: Binary,
    f: impl Fn(f32) -> f32,
) -> Result<()> {
    let value = importer.required_constant(node, 1)?;
    let value = importer.new_constant(node, "operand", value.mapv(f))?;
    let inputs = alloc::vec![node.required(0)?.into(), value];
    importer.push(node, op, inputs)
}
