//! `DepthToSpace` and `SpaceToDepth` in ONNX files.

use super::{DepthToSpace, SpaceToDepth};
use crate::io::onnx::operator::{OnnxOperator, UNARY, int, text};

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
