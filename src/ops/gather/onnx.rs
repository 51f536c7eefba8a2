//! `Gather` in ONNX files.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Embedding, Gather};
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
    if !importer.is_constant(node.required(1)?) {
        return embedding(importer, node, axis);
    }
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

/// Rows of a constant at positions that are computed.
fn embedding(importer: &mut Importer, node: &OnnxNode<'_>, axis: usize) -> Result<()> {
    if axis != 0 || !importer.is_constant(node.required(0)?) {
        return Err(node.unsupported("elements of an activation at positions that are computed"));
    }
    let (table, at) = (importer.shape(node, 0)?, importer.shape(node, 1)?);
    let shape = [&at[..], &table[1..]].concat();
    let table = importer.as_floats(node.required(0)?, node.output()?)?;
    // Rows and positions of one axis, which lie together in memory.
    let flat = alloc::vec![at.iter().product()];
    let positions = importer.reshaped(node, node.required(1)?, &at, flat)?;
    let rows = importer.new_name(&alloc::format!("{}.table", node.output()?));
    let table_shape = alloc::vec![importer.shape_of(&table)?[0], shape[at.len()..].iter().product()];
    importer.push_as(Reshape { shape: table_shape }, alloc::vec![table], &rows)?;
    importer.push_reshaped(node, Embedding, alloc::vec![rows, positions], Some(shape))?;
    importer.set_integer(node.output()?, false);
    Ok(())
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
