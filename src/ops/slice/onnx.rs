//! `Slice` and `Split` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Slice;
use crate::error::Result;
use crate::io::onnx::export::writer::NodeWriter;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, int, ints};

/// The spelling of [`Slice`].
pub(crate) const SLICE: &[OnnxOperator] = &[
    OnnxOperator::new(
        "Slice",
        &[(1, 1, 1), (10, 3, 5)],
        &[ints("starts").until(9), ints("ends").until(9), ints("axes").until(9)],
        slice,
    ),
    OnnxOperator::new(
        "Split",
        &[(1, 1, 2), (2, 1, 1), (13, 1, 2)],
        &[int("axis"), ints("split").until(12), int("num_outputs").since(18)],
        split,
    )
    .with_outputs(),
];

fn slice(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let required = |list: Option<Vec<i64>>, name: &str| list.ok_or_else(|| node.malformed("node", name, "none"));
    let starts = required(importer.int_list(node, "starts", 1)?, "starts")?;
    let ends = required(importer.int_list(node, "ends", 2)?, "ends")?;
    let axes = match importer.int_list(node, "axes", 3)? {
        Some(axes) => node.axes(&axes, shape.len())?,
        None => (0..starts.len()).collect(),
    };
    let steps = match importer.opset {
        ..10 => None,
        _ => importer.int_list(node, "", 4)?,
    };
    let steps = steps.unwrap_or_else(|| alloc::vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || axes.iter().any(|&axis| axis >= shape.len()) {
        let expected = "as many starts, ends and steps as axes";
        let found = alloc::format!("{}, {} and {} for axes {axes:?}", starts.len(), ends.len(), steps.len());
        return Err(node.malformed("slice", expected, found));
    }
    let mut slices = Vec::new();
    for (i, &axis) in axes.iter().enumerate() {
        let slice = of_axis(axis, shape[axis], starts[i], ends[i], steps[i]);
        let slice = slice.ok_or_else(|| node.malformed("steps", "steps other than 0", steps[i]))?;
        if slice.count != shape[axis] || slice.step != 1 {
            slices.push(slice);
        }
    }
    let Some(last) = slices.pop() else { return importer.alias(node) };
    let mut input = node.required(0)?.to_string();
    for slice in slices {
        let name = importer.new_name(&alloc::format!("{}.slice", node.output()?));
        importer.push_as(slice, alloc::vec![input], &name)?;
        input = name;
    }
    importer.push(node, last, alloc::vec![input])
}

/// The elements of an axis from `start` to `end`, as ONNX clamps them. `None` for a step of 0.
fn of_axis(axis: usize, len: usize, start: i64, end: i64, step: i64) -> Option<Slice> {
    let len = len as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(len) } else { at };
    let (start, count) = match step {
        0 => return None,
        1.. => {
            let (start, end) = (from_end(start).clamp(0, len), from_end(end).clamp(0, len));
            (start, (end - start).max(0) as u64)
        }
        _ => {
            let (start, end) = (from_end(start).clamp(0, (len - 1).max(0)), from_end(end).clamp(-1, len - 1));
            (start, (start - end).max(0) as u64)
        }
    };
    let count = count.div_ceil(step.unsigned_abs());
    Some(Slice { axis, start: start as usize, count: count as usize, step: step as isize })
}

fn split(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let axis = node.axis(node.int("axis", 0), shape.len())?;
    let outputs: Vec<String> = node.node.output.clone();
    let lengths = match importer.int_list(node, "split", 1)? {
        Some(lengths) => lengths,
        None => {
            // Equal parts; from opset 18 on the last one may be shorter.
            let each = shape[axis].div_ceil(outputs.len().max(1));
            let rest = |i: usize| shape[axis].saturating_sub(i * each).min(each) as i64;
            (0..outputs.len()).map(rest).collect()
        }
    };
    let total = lengths.iter().try_fold(0i64, |sum, &len| sum.checked_add(len).filter(|_| len >= 0));
    if lengths.len() != outputs.len() || total != Some(shape[axis] as i64) {
        let expected = alloc::format!("{} lengths with the sum {}", outputs.len(), shape[axis]);
        return Err(node.malformed("split", expected, alloc::format!("{lengths:?}")));
    }
    let mut start = 0;
    for (output, len) in outputs.iter().zip(lengths) {
        let count = len as usize;
        if !output.is_empty() {
            let slice = Slice { axis, start: start.min(shape[axis].saturating_sub(1)), count, step: 1 };
            importer.push_as(slice, alloc::vec![node.required(0)?.to_string()], output)?;
        }
        start += count;
    }
    Ok(())
}

/// Writes a slice of one axis.
pub(super) fn write(op: &Slice, node: &mut NodeWriter<'_>) -> Result<String> {
    let (start, step) = (op.start as i64, op.step as i64);
    let end = start + op.count as i64 * step;
    // An end before the first element counts from the end otherwise.
    let end = if end < 0 { i64::MIN } else { end };
    for values in [start, end, op.axis as i64, step] {
        let list = node.signed_ints(&[values]);
        node.inputs.push(list);
    }
    node.all("Slice", Vec::new())
}
