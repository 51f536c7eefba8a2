//! `Pad` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, IxDyn};

use super::op::Pad;
use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::export::writer::NodeWriter;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, float, ints, text};
use crate::ops::concat::op::Concat;
use crate::ops::gather::Gather;
use crate::ops::slice::Slice;

/// The spelling of [`Pad`].
pub(crate) const PAD: &[OnnxOperator] = &[OnnxOperator::new(
    "Pad",
    &[(1, 1, 1), (11, 2, 3), (18, 2, 4)],
    &[text("mode"), ints("paddings").until(1), ints("pads").since(2).until(10), float("value").until(10)],
    pad,
)];

fn pad(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let value = match importer.float_constant(node, 2)? {
        Some(value) => importer.scalar(node, "constant_value", &value)?,
        None => node.float("value", 0.0),
    };
    let attribute = if importer.opset < 2 { "paddings" } else { "pads" };
    let pads = importer.int_list(node, attribute, 1)?.ok_or_else(|| node.malformed("node", "pads", "none"))?;
    let axes = match importer.int_list(node, "axes", 3)? {
        Some(axes) => node.axes(&axes, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        let expected = alloc::format!("{} values, two for each axis", 2 * axes.len());
        return Err(node.malformed("pads", expected, pads.len()));
    }
    let mut sides = alloc::vec![[0; 2]; shape.len()];
    for (i, &axis) in axes.iter().enumerate() {
        sides[axis] = [pads[i], pads[axes.len() + i]];
    }
    let mut padded = shape.clone();
    for (len, [before, after]) in padded.iter_mut().zip(&sides) {
        let total = i64::try_from(*len).ok().and_then(|len| len.checked_add(*before)?.checked_add(*after));
        let total = total.and_then(|total| usize::try_from(total).ok());
        *len = total.ok_or_else(|| node.malformed("pads", "lengths of at least 0", alloc::format!("{pads:?}")))?;
    }
    importer.limits.check_shape(node.output()?, &padded)?;
    let mode = node.text("mode", "constant");
    let is_image = shape.len() == 4 && sides[..2] == [[0; 2]; 2] && sides[2..] != [[0; 2]; 2];
    if let ("constant", true, Ok([top, bottom, left, right])) =
        (mode, value == 0.0 && is_image, node.sizes("pads", sides[shape.len().min(2)..].as_flattened()))
        && !importer.is_constant(node.required(0)?)
    {
        return importer.push(node, Pad { pads: [top, left, bottom, right] }, alloc::vec![node.required(0)?.into()]);
    }
    let mut name = node.required(0)?.to_string();
    let mut now = shape;
    let mut changed = (0..sides.len()).filter(|&axis| sides[axis] != [0; 2]).collect::<Vec<_>>();
    let Some(last) = changed.pop() else { return importer.alias(node) };
    for axis in changed.into_iter().chain([last]) {
        let output = match axis == last {
            true => node.output()?.to_string(),
            false => importer.new_name(&alloc::format!("{}.axis", node.output()?)),
        };
        let (op, inputs) = of_axis(importer, node, mode, value, (name, &now, axis), sides[axis])?;
        importer.push_as(op, inputs, &output)?;
        (name, now[axis]) = (output, padded[axis]);
    }
    Ok(())
}

/// Pads one axis: elements at other places of the axis, or constants before and after.
fn of_axis(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    mode: &str,
    value: f32,
    (name, shape, axis): (String, &[usize], usize),
    [before, after]: [i64; 2],
) -> Result<(Op, Vec<String>)> {
    let len = shape[axis] as i64;
    let source: fn(i64, i64) -> i64 = match mode {
        "constant" => {
            let start = (-before).max(0) as usize;
            let count = (len + before.min(0) + after.min(0)).max(0) as usize;
            if before <= 0 && after <= 0 {
                return Ok((Slice { axis, start, count, step: 1 }.into(), alloc::vec![name]));
            }
            let mut parts = Vec::new();
            let filled = |importer: &mut Importer, count: i64| {
                let mut shape = shape.to_vec();
                shape[axis] = count.max(0) as usize;
                importer.new_constant(node, "padding", ArrayD::from_elem(IxDyn(&shape), value))
            };
            if before > 0 {
                parts.push(filled(importer, before)?);
            }
            if before < 0 || after < 0 {
                let cut = importer.new_name(&alloc::format!("{}.cut", node.output()?));
                importer.push_as(Slice { axis, start, count, step: 1 }, alloc::vec![name], &cut)?;
                parts.push(cut);
            } else {
                parts.push(name);
            }
            if after > 0 {
                parts.push(filled(importer, after)?);
            }
            return Ok((Concat { axis }.into(), parts));
        }
        "edge" => |i, len| i.clamp(0, len - 1),
        "wrap" => i64::rem_euclid,
        "reflect" => |i, len| {
            let period = (2 * (len - 1)).max(1);
            let i = i.rem_euclid(period);
            i.min(period - i).min(len - 1)
        },
        other => return Err(node.unsupported(alloc::format!("attribute mode = {other:?}"))),
    };
    if len == 0 {
        return Err(node.malformed("input", "at least one element along the axis", alloc::format!("shape {shape:?}")));
    }
    let indices = (-before..len + after).map(|i| source(i, len) as usize).collect();
    Ok((Gather { axis, indices }.into(), alloc::vec![name]))
}

/// Writes a padding of height and width with zeros.
pub(super) fn write(op: &Pad, node: &mut NodeWriter<'_>) -> Result<String> {
    let [top, left, bottom, right] = op.pads;
    let pads = node.ints(&[0, 0, top, left, 0, 0, bottom, right]);
    node.inputs.push(pads);
    node.all("Pad", Vec::new())
}
