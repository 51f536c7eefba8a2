//! Reductions in ONNX files.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Reduce, Reduction};
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Attribute, OnnxOperator, UNARY, int, ints};
use crate::ops::pool::op::GlobalAveragePool;

const ATTRIBUTES: &[Attribute] = &[ints("axes").until(17), int("keepdims"), int("noop_with_empty_axes").since(18)];
const INPUTS: &[(i64, usize, usize)] = &[(1, 1, 1), (18, 1, 2)];

/// The spelling of [`Reduce`].
pub(crate) const REDUCE: &[OnnxOperator] = &[
    OnnxOperator::new("GlobalMaxPool", UNARY, &[], |importer, node| {
        let axes = (2..importer.shape(node, 0)?.len()).collect();
        importer.push_all(node, Reduce { reduction: Reduction::Max, axes })
    }),
    OnnxOperator::new("ReduceMax", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Max)),
    OnnxOperator::new("ReduceMean", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Mean)),
    OnnxOperator::new("ReduceMin", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Min)),
    OnnxOperator::new("ReduceProd", INPUTS, ATTRIBUTES, |importer, node| reduce(importer, node, Reduction::Prod)),
    OnnxOperator::new(
        "ReduceSum",
        &[(1, 1, 1), (13, 1, 2)],
        &[ints("axes").until(12), int("keepdims"), int("noop_with_empty_axes").since(13)],
        |importer, node| reduce(importer, node, Reduction::Sum),
    ),
];

fn reduce(importer: &mut Importer, node: &OnnxNode<'_>, reduction: Reduction) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let axes = importer.int_list(node, "axes", 1)?.unwrap_or_default();
    let mut axes = match axes.is_empty() {
        true if node.int("noop_with_empty_axes", 0) != 0 => return importer.alias(node),
        true => (0..x.len()).collect(),
        false => node.axes(&axes, x.len())?,
    };
    axes.sort_unstable();
    let kept = (0..x.len()).filter(|axis| !axes.contains(axis)).map(|axis| x[axis]).collect();
    let shape: Option<Vec<usize>> = if node.int("keepdims", 1) != 0 { None } else { Some(kept) };
    let inputs: Vec<String> = alloc::vec![node.required(0)?.into()];
    // The mean of an image has a kernel on codes.
    if reduction == Reduction::Mean && x.len() == 4 && axes == [2, 3] && !importer.is_constant(&inputs[0]) {
        return importer.push_reshaped(node, GlobalAveragePool, inputs, shape);
    }
    importer.push_reshaped(node, Reduce { reduction, axes }, inputs, shape)
}
