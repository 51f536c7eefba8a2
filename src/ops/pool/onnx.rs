//! Poolings in ONNX files.

use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, UNARY, ignore, int, ints, text};
use crate::window::Window;

use super::op::{AveragePool, GlobalAveragePool, MaxPool};

/// The spelling of [`MaxPool`].
pub(crate) const MAX_POOL: &[OnnxOperator] = &[OnnxOperator::new(
    "MaxPool",
    UNARY,
    &[
        text("auto_pad"),
        ints("kernel_shape"),
        ints("pads"),
        ints("strides"),
        // The layout of the output `Indices`, which is not supported.
        ignore("storage_order", Kind::Int).since(8),
        int("ceil_mode").since(10),
        ints("dilations").since(10),
    ],
    |importer, node| {
        let (kernel, window) = pool_window(importer, node)?;
        importer.push_all(node, MaxPool { kernel, window })
    },
)];

/// The spelling of [`AveragePool`].
pub(crate) const AVERAGE_POOL: &[OnnxOperator] = &[OnnxOperator::new(
    "AveragePool",
    UNARY,
    &[
        text("auto_pad"),
        ints("kernel_shape"),
        ints("pads"),
        ints("strides"),
        int("count_include_pad").since(7),
        int("ceil_mode").since(10),
        ints("dilations").since(19),
    ],
    |importer, node| {
        let (kernel, window) = pool_window(importer, node)?;
        let count_include_pad = node.int("count_include_pad", 0) != 0;
        importer.push_all(node, AveragePool { kernel, window, count_include_pad })
    },
)];

/// The spelling of [`GlobalAveragePool`].
pub(crate) const GLOBAL_AVERAGE_POOL: &[OnnxOperator] =
    &[OnnxOperator::new("GlobalAveragePool", UNARY, &[], |importer, node| importer.push_all(node, GlobalAveragePool))];

fn pool_window(importer: &Importer, node: &OnnxNode<'_>) -> Result<([usize; 2], Window)> {
    let input = importer.shape(node, 0)?;
    if input.len() != 4 {
        return Err(node.unsupported(alloc::format!("an input of shape {input:?}: not a 2-D pooling")));
    }
    let kernel = node.ints("kernel_shape").ok_or_else(|| node.malformed("node", "kernel_shape", "none"))?;
    let kernel = node.sizes("kernel_shape", kernel)?;
    let window = node.window(kernel)?.with_ceil_mode(node.int("ceil_mode", 0) != 0);
    // A gap that spans the image is of no use, and shape inference would visit every output.
    if (0..2).any(|axis| kernel[axis] > 1 && window.dilations[axis] > input[axis + 2]) {
        let why = alloc::format!("attribute dilations = {:?} on shape {input:?}", window.dilations);
        return Err(node.unsupported(why));
    }
    Ok((kernel, window))
}
