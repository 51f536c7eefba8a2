//! `MatMul` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::einsum::einsum;
use super::op::MatMul;
use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{ANY, BINARY, OnnxOperator, int, text};
use crate::ops::linear;
use crate::ops::transpose::Transpose;

/// The spelling of [`MatMul`].
pub(crate) const MATMUL: &[OnnxOperator] = &[
    OnnxOperator::new("CumSum", &[(11, 2, 2)], &[int("exclusive"), int("reverse")], cumulative_sum).since(11),
    OnnxOperator::new("Einsum", &[(12, 1, ANY)], &[text("equation")], einsum).since(12),
    OnnxOperator::new("MatMul", BINARY, &[], matmul),
];

/// The sums of the elements up to each along an axis: a product with a triangle of ones.
fn cumulative_sum(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    /// The longest axis: the matrix has its square.
    const MAX_LENGTH: usize = 4096;
    let x = importer.shape(node, 0)?;
    let axis = importer.int_list(node, "axis", 1)?.and_then(|axis| axis.first().copied()).unwrap_or(0);
    let axis = node.axis(axis, x.len())?;
    let len = x[axis];
    if len > MAX_LENGTH {
        return Err(node.unsupported(alloc::format!("an axis of length {len}, more than {MAX_LENGTH}")));
    }
    let (exclusive, reverse) = (node.int("exclusive", 0) != 0, node.int("reverse", 0) != 0);
    let counts = |i: usize, sum: usize| if reverse { i > sum } else { i < sum } || i == sum && !exclusive;
    let ones = ndarray::Array2::from_shape_fn((len, len), |(i, sum)| f32::from(counts(i, sum)));
    let ones = ones.into_shape_with_order([&alloc::vec![1; x.len().max(2) - 2][..], &[len, len]].concat());
    let ones = importer.new_constant(node, "ones", ones.expect("axes of length 1"))?;
    let integers = importer.is_integer(node.required(0)?);
    let mut perm: Vec<usize> = (0..x.len()).collect();
    perm.swap(axis, x.len() - 1);
    let part = |importer: &mut Importer, op: Op, inputs: Vec<String>| -> Result<String> {
        let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
        importer.push_as(op, inputs, &name).map(|()| name)
    };
    let last = part(importer, Transpose { perm: perm.clone() }.into(), alloc::vec![node.required(0)?.into()])?;
    let moved: Vec<usize> = perm.iter().map(|&axis| x[axis]).collect();
    let rows = if x.len() == 1 { alloc::vec![1, len] } else { moved.clone() };
    let last = importer.reshaped(node, &last, &moved, rows.clone())?;
    let sums = part(importer, MatMul.into(), alloc::vec![last, ones])?;
    let sums = importer.reshaped(node, &sums, &rows, moved)?;
    importer.push(node, Transpose { perm }, alloc::vec![sums])?;
    importer.set_integer(node.output()?, integers);
    Ok(())
}

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
