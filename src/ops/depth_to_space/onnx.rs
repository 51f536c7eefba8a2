//! `DepthToSpace` and `SpaceToDepth` in ONNX files.

use super::{DepthToSpace, SpaceToDepth};
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::operator::{OnnxOperator, UNARY, int, text};
use alloc::string::String;

/// The spelling of [`DepthToSpace`].
pub(crate) const DEPTH_TO_SPACE: &[OnnxOperator] =
    &[OnnxOperator::new("DepthToSpace", UNARY, &[int("blocksize"), text("mode").since(11)], |importer, node| {
        let [size] = node.sizes("blocksize", &[node.required_int("blocksize")?])?;
        let channels = importer.shape(node, 0)?.get(1).copied().unwrap_or(0);
        let groups = match node.text("mode", "DCR") {
            "DCR" => 1,
            "CRD" => channels.checked_div(size.saturating_mul(size)).unwrap_or(0),
            other => return Err(node.unsupported(alloc::format!("attribute mode = {other:?}"))),
        };
        importer.push_all(node, DepthToSpace { block: [size; 2], groups })
    })];

/// The spelling of [`SpaceToDepth`].
pub(crate) const SPACE_TO_DEPTH: &[OnnxOperator] =
    &[OnnxOperator::new("SpaceToDepth", UNARY, &[int("blocksize")], |importer, node| {
        let [size] = node.sizes("blocksize", &[node.required_int("blocksize")?])?;
        importer.push_all(node, SpaceToDepth { block: [size; 2] })
    })];

/// Writes a depth-to-space: the mode that ONNX has, or else the movement of axes that it is.
pub(super) fn write(op: &DepthToSpace, node: &mut NodeWriter<'_>) -> Result<String> {
    let (&[n, c, h, w], [b0, b1]) = (node.shapes[0], op.block) else { return Err(node.unsupported("its rank")) };
    let each = c / (op.groups * b0 * b1);
    let mode = if op.groups == 1 { "DCR" } else { "CRD" };
    if b0 == b1 && (op.groups == 1 || each == 1) {
        return node.all("DepthToSpace", alloc::vec![export::int("blocksize", b0), export::text("mode", mode)]);
    }
    let x = node.reshape(node.inputs[0].clone(), &[n, op.groups, b0, b1, each, h, w]);
    let x = node.node("Transpose", [x], alloc::vec![export::ints("perm", &[0, 1, 4, 5, 2, 6, 3])]);
    Ok(node.reshape(x, node.output))
}

/// Writes a space-to-depth.
pub(super) fn write_space_to_depth(op: &SpaceToDepth, node: &mut NodeWriter<'_>) -> Result<String> {
    match op.block {
        [b0, b1] if b0 == b1 => node.all("SpaceToDepth", alloc::vec![export::int("blocksize", b0)]),
        _ => Err(node.unsupported("blocks that are not square")),
    }
}
