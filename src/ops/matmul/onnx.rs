//! `MatMul` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::op::MatMul;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{BINARY, OnnxOperator};
use crate::ops::linear;

/// The spelling of [`MatMul`].
pub(crate) const MATMUL: &[OnnxOperator] = &[OnnxOperator::new("MatMul", BINARY, &[], matmul)];

fn matmul(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let (a, b) = (importer.shape(node, 0)?, importer.shape(node, 1)?);
    let constant = |i: usize| node.input(i).is_some_and(|name| importer.constant(name).is_some());
    if b.len() == 2 && a.len() >= 2 && constant(1) && !constant(0) {
        return linear::onnx::matmul(importer, node, &a);
    }
    if a.is_empty() || b.is_empty() {
        return Err(node.malformed("factors", "tensors of rank 1 or more", alloc::format!("shapes {a:?} and {b:?}")));
    }
    // Vectors are a row on the left and a column on the right; missing axes have length 1.
    let ndim = a.len().max(b.len()).max(2);
    let padded = |shape: Vec<usize>| [alloc::vec![1; ndim - shape.len()], shape].concat();
    let a_shape = padded(a.clone());
    let b_shape = padded(if b.len() == 1 { alloc::vec![b[0], 1] } else { b.clone() });
    let mut y_shape: Vec<usize> = (0..ndim - 2).map(|axis| a_shape[axis].max(b_shape[axis])).collect();
    y_shape.extend((a.len() > 1).then_some(a_shape[ndim - 2]));
    y_shape.extend((b.len() > 1).then_some(b_shape[ndim - 1]));
    let names: Vec<String> = [node.required(0)?, node.required(1)?].map(ToString::to_string).into();
    let a_name = importer.reshaped(node, &names[0], &a, a_shape)?;
    let b_name = importer.reshaped(node, &names[1], &b, b_shape)?;
    importer.push_reshaped(node, MatMul, alloc::vec![a_name, b_name], (a.len() == 1 || b.len() == 1).then_some(y_shape))
}
