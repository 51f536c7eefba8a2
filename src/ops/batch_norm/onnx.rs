//! `BatchNormalization` in ONNX files.

use super::BatchNorm;
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{CONSUMED, Kind, OnnxOperator, float, ignore, int, only};
use alloc::string::String;

/// The spelling of [`BatchNorm`].
pub(crate) const BATCH_NORM: &[OnnxOperator] = &[OnnxOperator::new(
    "BatchNormalization",
    &[(1, 5, 5)],
    &[
        float("epsilon"),
        ignore("momentum", Kind::Float),
        only("spatial", 1).until(8),
        int("is_test").until(6),
        only("training_mode", 0).since(14),
        CONSUMED,
    ],
    batch_norm,
)];

fn batch_norm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    importer.check_test_mode(node)?;
    importer.push_all(node, BatchNorm { epsilon: node.float("epsilon", 1e-5) })
}

/// Writes a batch normalization.
pub(super) fn write(op: &BatchNorm, node: &mut NodeWriter<'_>) -> Result<String> {
    node.all("BatchNormalization", alloc::vec![export::float("epsilon", op.epsilon)])
}
