//! `Gather` in ONNX files.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::Gather;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{BINARY, OnnxOperator, int};
use crate::ops::reshape::Reshape;

/// The spelling of [`Gather`].
pub(crate) const GATHER: &[OnnxOperator] = &[
    OnnxOperator::new("Gather", BINARY, &[int("axis")], gather),
    OnnxOperator::new("Tile", BINARY, &[], tile).since(6),
];

fn gather(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let axis = node.axis(node.int("axis", 0), shape.len())?;
    let at = importer.int_constant(node, 1)?;
    let at = at.ok_or_else(|| node.malformed("node", "indices", "none"))?;
    let indices = at.iter().map(|&at| node.axis(at, shape[axis])).collect::<Result<Vec<_>>>()?;
    let gather = Gather { axis, indices };
    let input = alloc::vec![node.required(0)?.to_string()];
    if at.ndim() == 1 {
        return importer.push(node, gather, input);
    }
    // The axes of the indices replace the axis.
    let name = importer.new_name(&alloc::format!("{}.gather", node.output()?));
    importer.push_as(gather, input, &name)?;
    let shape = [&shape[..axis], at.shape(), &shape[axis + 1..]].concat();
    importer.push(node, Reshape { shape }, alloc::vec![name])
}

/// Repeats a tensor along axes.
fn tile(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let repeats = importer.lengths(node, "repeats", 1)?;
    if repeats.len() != shape.len() {
        let expected = alloc::format!("{} values, one for each axis", shape.len());
        return Err(node.malformed("repeats", expected, repeats.len()));
    }
    let tiled: Vec<usize> = shape.iter().zip(&repeats).map(|(len, count)| len.saturating_mul(*count)).collect();
    importer.limits.check_shape(node.output()?, &tiled)?;
    let mut axes: Vec<usize> = (0..shape.len()).filter(|&axis| repeats[axis] != 1).collect();
    let Some(last) = axes.pop() else { return importer.alias(node) };
    let mut name = node.required(0)?.to_string();
    for axis in axes.into_iter().chain([last]) {
        let output = match axis == last {
            true => node.output()?.to_string(),
            false => importer.new_name(&alloc::format!("{}.axis", node.output()?)),
        };
        let indices = (0..tiled[axis]).map(|i| i % shape[axis].max(1)).collect();
        importer.push_as(Gather { axis, indices }, alloc::vec![name], &output)?;
        name = output;
    }
    Ok(())
}
