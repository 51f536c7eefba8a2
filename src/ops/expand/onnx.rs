//! `Expand` in ONNX files.

use alloc::string::ToString;

use super::Expand;
use crate::io::onnx::operator::{BINARY, OnnxOperator};

/// The spelling of [`Expand`].
pub(crate) const EXPAND: &[OnnxOperator] = &[OnnxOperator::new("Expand", BINARY, &[], |importer, node| {
    let shape = importer.lengths(node, "shape", 1)?;
    importer.push(node, Expand { shape }, alloc::vec![node.required(0)?.to_string()])
})
.since(8)];
