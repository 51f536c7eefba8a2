//! `Transpose` in ONNX files.

use super::Transpose;
use crate::io::onnx::operator::{OnnxOperator, UNARY, ints};

/// The spelling of [`Transpose`].
pub(crate) const TRANSPOSE: &[OnnxOperator] =
    &[OnnxOperator::new("Transpose", UNARY, &[ints("perm")], |importer, node| {
        let ndim = importer.shape(node, 0)?.len();
        let perm = match node.ints("perm") {
            Some(perm) => node.axes(perm, ndim)?,
            None => (0..ndim).rev().collect(),
        };
        importer.push_all(node, Transpose { perm })
    })];
