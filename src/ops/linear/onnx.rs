//! `Gemm` and `MatMul` by constant weights in ONNX files.

use alloc::string::String;

use ndarray::{Axis, IxDyn};

use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, float, ignore, int, only};
use crate::ops::operator::Constant;

use super::op::Linear;

/// The spelling of [`Linear`].
pub(crate) const LINEAR: &[OnnxOperator] = &[OnnxOperator::new(
    "Gemm",
    &[(1, 3, 3), (11, 2, 3)],
    &[
        float("alpha"),
        float("beta"),
        only("transA", 0),
        int("transB"),
        // The row that `C` must be broadcasts to the same result with and without it.
        ignore("broadcast", Kind::Int).until(6),
    ],
    gemm,
)];

/// `alpha * A · B + beta * C`, with constant `B` and `C`.
fn gemm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let weights = importer.required_constant(node, 1)?;
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let (weights, out) = weights_of(importer, node, weights, node.int("transB", 0) != 0, alpha)?;
    let mut inputs = alloc::vec![node.required(0)?.into(), weights];
    if let Some(bias) = importer.float_constant(node, 2)? {
        let row = bias.broadcast(IxDyn(&[1, out])).map(|b| b.index_axis(Axis(0), 0).mapv(|b| beta * b));
        let why = || node.unsupported(alloc::format!("input 2 of shape {:?}: not one row", bias.shape()));
        inputs.push(importer.new_constant(node, "bias", row.ok_or_else(why)?)?);
    }
    importer.push(node, Linear, inputs)
}

/// `A · B` with constant `B`, for a tensor of rank 2 or more.
pub(crate) fn matmul(importer: &mut Importer, node: &OnnxNode<'_>, x: &[usize]) -> Result<()> {
    let weights = importer.required_constant(node, 1)?;
    let (weights, out) = weights_of(importer, node, weights, false, 1.0)?;
    let name = node.required(0)?;
    if x.len() != 4 {
        return importer.push(node, Linear, alloc::vec![name.into(), weights]);
    }
    // Rows of one axis, which lie together in memory.
    let rows = alloc::vec![x[0], x[1] * x[2], x[3]];
    let input = importer.reshaped(node, name, x, rows)?;
    importer.push_reshaped(node, Linear, alloc::vec![input, weights], Some(alloc::vec![x[0], x[1], x[2], out]))
}

/// Adds the constant `alpha * w` in the layout `[out, in]`. Returns its name and `out`.
fn weights_of(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    w: Constant,
    transposed: bool,
    alpha: f32,
) -> Result<(String, usize)> {
    if w.ndim() != 2 {
        return Err(node.unsupported(alloc::format!("an RHS of shape {:?}: not a matrix", w.shape())));
    }
    let w = if transposed { w } else { w.reversed_axes() };
    let out = w.shape()[0];
    Ok((importer.new_constant(node, "weight", w.mapv(|w| alpha * w))?, out))
}
