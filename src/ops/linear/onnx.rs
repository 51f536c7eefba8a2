//! `Gemm` and `MatMul` by constant weights in ONNX files.

use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Axis, IxDyn};

use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, float, ignore, int};
use crate::ops::binary::op::Binary;
use crate::ops::matmul::op::MatMul;
use crate::ops::operator::Constant;
use crate::ops::transpose::Transpose;

use super::op::Linear;
use crate::io::onnx::export::writer::{NodeWriter, int as export_int};

/// The spelling of [`Linear`].
pub(crate) const LINEAR: &[OnnxOperator] = &[OnnxOperator::new(
    "Gemm",
    &[(1, 3, 3), (11, 2, 3)],
    &[
        float("alpha"),
        float("beta"),
        int("transA"),
        int("transB"),
        // The row that `C` must be broadcasts to the same result with and without it.
        ignore("broadcast", Kind::Int).until(6),
    ],
    gemm,
)];

/// `alpha * A · B + beta * C`: a linear layer, if `B` and `C` are constant.
fn gemm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    if node.int("transA", 0) != 0 || !importer.is_constant(node.required(1)?) || importer.is_constant(node.required(0)?)
    {
        return product(importer, node, alpha, beta);
    }
    let weights = importer.required_constant(node, 1)?;
    let (weights, out) = weights_of(importer, node, weights, node.int("transB", 0) != 0, alpha)?;
    let mut inputs = alloc::vec![node.required(0)?.into(), weights];
    if node.input(2).is_some_and(|bias| !importer.is_constant(bias)) {
        return product(importer, node, alpha, beta);
    }
    if let Some(bias) = importer.float_constant(node, 2)? {
        let row = bias.broadcast(IxDyn(&[1, out])).map(|b| b.index_axis(Axis(0), 0).mapv(|b| beta * b));
        let why = || node.unsupported(alloc::format!("input 2 of shape {:?}: not one row", bias.shape()));
        inputs.push(importer.new_constant(node, "bias", row.ok_or_else(why)?)?);
    }
    importer.push(node, Linear, inputs)
}

/// Any product of matrices, scaled and with a summand.
fn product(importer: &mut Importer, node: &OnnxNode<'_>, alpha: f32, beta: f32) -> Result<()> {
    let mut factors = Vec::new();
    for (i, transposed) in [(0, "transA"), (1, "transB")] {
        let mut name: String = node.required(i)?.into();
        if node.int(transposed, 0) != 0 {
            let transpose = Transpose { perm: alloc::vec![1, 0] };
            name = part(importer, node, transpose, alloc::vec![name])?;
        }
        factors.push(name);
    }
    let scaled = |importer: &mut Importer, name: String, factor: f32| -> Result<String> {
        if factor == 1.0 {
            return Ok(name);
        }
        let factor = importer.new_constant(node, "factor", ndarray::arr0(factor).into_dyn())?;
        part(importer, node, Binary::Mul, alloc::vec![name, factor])
    };
    let y = part(importer, node, MatMul, factors)?;
    let y = scaled(importer, y, alpha)?;
    match node.input(2) {
        None => importer.alias_of(node, &y),
        Some(c) => {
            let c = scaled(importer, c.into(), beta)?;
            importer.push(node, Binary::Add, alloc::vec![y, c])
        }
    }
}

/// Adds a node with a name of its own.
fn part(importer: &mut Importer, node: &OnnxNode<'_>, op: impl Into<Op>, inputs: Vec<String>) -> Result<String> {
    let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
    importer.push_as(op, inputs, &name).map(|()| name)
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

/// Writes a linear layer. Tensors of other ranks than 2 become matrices.
pub(crate) fn write(node: &mut NodeWriter<'_>) -> Result<String> {
    let (x, shape) = (node.inputs[0].clone(), node.shapes[0]);
    let transposed = || alloc::vec![export_int("transB", 1)];
    if shape.len() == 2 {
        return node.all("Gemm", transposed());
    }
    let (&depth, outer) = shape.split_last().expect("checked by shape inference");
    let x = node.reshape(x, &[outer.iter().product(), depth]);
    node.inputs[0] = node.rounded(x, 0);
    let y = node.all("Gemm", transposed())?;
    let y = node.rounded(y, 1);
    Ok(node.reshape(y, node.output))
}
