//! `Concat` in ONNX files.

use super::op::Concat;
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::operator::{ANY, OnnxOperator, int};
use alloc::string::String;

/// The spelling of [`Concat`].
pub(crate) const CONCAT: &[OnnxOperator] =
    &[OnnxOperator::new("Concat", &[(1, 1, ANY)], &[int("axis")], |importer, node| {
        let ndim = importer.shape(node, 0)?.len();
        let axis = node.axis(importer.concat_axis(node)?, ndim)?;
        importer.push_all(node, Concat { axis })
    })];

/// Writes a concatenation.
pub(super) fn write(op: &Concat, node: &mut NodeWriter<'_>) -> Result<String> {
    node.all("Concat", alloc::vec![export::int("axis", op.axis)])
}
