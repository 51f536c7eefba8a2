//! `Concat` in ONNX files.

use super::op::Concat;
use crate::io::onnx::operator::{ANY, OnnxOperator, int};

/// The spelling of [`Concat`].
pub(crate) const CONCAT: &[OnnxOperator] =
    &[OnnxOperator::new("Concat", &[(1, 1, ANY)], &[int("axis")], |importer, node| {
        let ndim = importer.shape(node, 0)?.len();
        let axis = node.axis(importer.concat_axis(node)?, ndim)?;
        importer.push_all(node, Concat { axis })
    })];
