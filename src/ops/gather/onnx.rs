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
pub(crate) const GATHER: &[OnnxOperator] = &[OnnxOperator::new("Gather", BINARY, &[int("axis")], gather)];

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
