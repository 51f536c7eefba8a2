//! `Conv` in ONNX files.

use super::op::Conv;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, int, ints, text};

/// The spelling of [`Conv`].
pub(crate) const CONV: &[OnnxOperator] = &[OnnxOperator::new(
    "Conv",
    &[(1, 2, 3)],
    &[text("auto_pad"), ints("dilations"), int("group"), ints("kernel_shape"), ints("pads"), ints("strides")],
    conv,
)];

fn conv(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let weights = importer.shape(node, 1)?;
    let &[_, _, height, width] = &weights[..] else {
        return Err(node.unsupported(alloc::format!("weights of shape {weights:?}: not a 2-D convolution")));
    };
    let window = node.window([height, width])?;
    let groups = node.sizes::<1>("group", &[node.int("group", 1)])?[0];
    importer.push_all(node, Conv { window, groups })
}
