//! The Hadamard rotation in ONNX files, which have no operator for it.

use alloc::string::String;

use ndarray::Array2;

use super::Hadamard;
use crate::error::Result;
use crate::io::onnx::export::writer::NodeWriter;
use crate::ptq;

/// Writes the product with the matrix `R`.
pub(super) fn write(op: &Hadamard, node: &mut NodeWriter<'_>) -> Result<String> {
    let channels = node.output.last().copied().unwrap_or(0);
    let rotation = ptq::Hadamard::new(channels, op.seed).rotate(&Array2::eye(channels))?;
    let rotation = node.matrix(&rotation);
    let x = node.inputs[0].clone();
    Ok(node.node("MatMul", [x, rotation], alloc::vec![]))
}
