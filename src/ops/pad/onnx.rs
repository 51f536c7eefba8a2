//! `Pad` in ONNX files.

use super::op::Pad;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, float, ints, only_text};

/// The spelling of [`Pad`].
pub(crate) const PAD: &[OnnxOperator] = &[OnnxOperator::new(
    "Pad",
    &[(1, 1, 1), (11, 2, 3), (18, 2, 4)],
    &[
        only_text("mode", "constant"),
        ints("paddings").until(1),
        ints("pads").since(2).until(10),
        float("value").until(10),
    ],
    pad,
)];

fn pad(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    if shape.len() != 4 {
        return Err(node.unsupported(alloc::format!("a tensor of shape {shape:?}, not an image")));
    }
    let value = match importer.float_constant(node, 2)? {
        Some(value) => importer.scalar(node, "constant_value", &value)?,
        None => node.float("value", 0.0),
    };
    if value != 0.0 {
        return Err(node.unsupported(alloc::format!("padding with {value}, not with zeros")));
    }
    let attribute = if importer.opset < 2 { "paddings" } else { "pads" };
    let pads = importer.int_list(node, attribute, 1)?.ok_or_else(|| node.malformed("node", "pads", "none"))?;
    let axes = match importer.int_list(node, "axes", 3)? {
        Some(axes) => node.axes(&axes, 4)?,
        None => alloc::vec![0, 1, 2, 3],
    };
    if pads.len() != 2 * axes.len() {
        let expected = alloc::format!("{} values, two for each axis", 2 * axes.len());
        return Err(node.malformed("pads", expected, pads.len()));
    }
    if pads.iter().any(|&pad| pad < 0) {
        return Err(node.unsupported(alloc::format!("negative pads {pads:?}")));
    }
    let mut full = [0; 8];
    for (i, &axis) in axes.iter().enumerate() {
        (full[axis], full[axis + 4]) = (pads[i], pads[axes.len() + i]);
    }
    let [0, 0, top, left, 0, 0, bottom, right] = node.sizes::<8>("pads", &full)? else {
        return Err(node.unsupported("padding of the batch or the channels"));
    };
    let inputs = alloc::vec![node.required(0)?.into()];
    importer.push(node, Pad { pads: [top, left, bottom, right] }, inputs)
}
