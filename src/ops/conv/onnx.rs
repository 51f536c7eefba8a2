//! `Conv` and `ConvTranspose` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{Array4, ArrayView4, Axis, s};

use super::op::Conv;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, int, ints, text};
use crate::ops::depth_to_space::DepthToSpace;
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;
use crate::window::{Padding, Window};

/// The spelling of [`Conv`].
pub(crate) const CONV: &[OnnxOperator] = &[
    OnnxOperator::new(
        "Conv",
        &[(1, 2, 3)],
        &[text("auto_pad"), ints("dilations"), int("group"), ints("kernel_shape"), ints("pads"), ints("strides")],
        conv,
    ),
    OnnxOperator::new(
        "ConvTranspose",
        &[(1, 2, 3)],
        &[
            text("auto_pad"),
            ints("dilations"),
            int("group"),
            ints("kernel_shape"),
            ints("output_padding"),
            ints("output_shape"),
            ints("pads"),
            ints("strides"),
        ],
        conv_transpose,
    ),
];

fn groups(node: &OnnxNode<'_>) -> Result<usize> {
    node.sizes::<1>("group", &[node.int("group", 1)]).map(|[groups]| groups)
}

fn conv(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let weights = importer.shape(node, 1)?;
    let groups = groups(node)?;
    match weights[..] {
        [_, _, height, width] => {
            let window = node.window([height, width])?;
            importer.push_all(node, Conv { window, groups })
        }
        // The rows of images with one row.
        [out, depth, width] => {
            let window = node.window_1d(width)?;
            let x = importer.shape(node, 0)?;
            let &[n, channels, len] = &x[..] else {
                return Err(node.malformed("input", "[batch, channels, length]", alloc::format!("shape {x:?}")));
            };
            let image = importer.reshaped(node, node.required(0)?, &x, alloc::vec![n, channels, 1, len])?;
            let weights = importer.reshaped(node, node.required(1)?, &weights, alloc::vec![out, depth, 1, width])?;
            let bias = node.input(2).map(String::from);
            let inputs = [image, weights].into_iter().chain(bias).collect();
            let shape = window.output_size([1, width], [1, len])?;
            importer.push_reshaped(node, Conv { window, groups }, inputs, Some(alloc::vec![n, out, shape[1]]))
        }
        _ => {
            Err(node.unsupported(alloc::format!("weights of shape {weights:?}: not a convolution of one or two axes")))
        }
    }
}

/// A transposed convolution with stride `s` is a convolution that computes blocks of `s` x `s` pixels as channels: output
/// `T * s + r` sums `x[T - q] * w[r + s * q]` over `q`, a convolution with the kernel `w[r]`, `w[r + s]`, … in reverse
/// order for each `r`.
fn conv_transpose(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let weights = importer.required_constant(node, 1)?;
    let one_axis = x.len() == 3 && weights.ndim() == 3;
    let weights = if one_axis { weights.insert_axis(Axis(2)) } else { weights };
    let Ok(weights) = weights.view().into_dimensionality() else {
        let why = alloc::format!("weights of shape {:?}: not a convolution of one or two axes", weights.shape());
        return Err(node.unsupported(why));
    };
    let weights: ArrayView4<'_, f32> = weights;
    let image = match x[..] {
        [n, c, len] => [n, c, 1, len],
        [n, c, h, w] => [n, c, h, w],
        _ => return Err(node.malformed("input", "an image for each sample", alloc::format!("shape {x:?}"))),
    };
    let (channels, each, kh, kw) = weights.dim();
    let groups = groups(node)?;
    if groups == 0 || channels != image[1] || !channels.is_multiple_of(groups) || weights.is_empty() {
        let expected = alloc::format!("[{}, out / groups, ..] for {groups} groups", image[1]);
        return Err(node.malformed("weights", expected, alloc::format!("{:?}", weights.shape())));
    }
    let spatial = if one_axis { node.window_1d(kw)? } else { node.window([kh, kw])? };
    if spatial.dilations != [1, 1] {
        return Err(node.unsupported(alloc::format!("attribute dilations = {:?}", spatial.dilations)));
    }
    let (kernel, strides) = ([kh, kw], spatial.strides);
    if strides.contains(&0) {
        return Err(node.malformed("strides", "lengths of at least 1", alloc::format!("{strides:?}")));
    }
    let pair = |name: &'static str, values: Option<&[i64]>| match values {
        None => Ok([0, 0]),
        Some(values) if one_axis => node.sizes::<1>(name, values).map(|[len]| [0, len]),
        Some(values) => node.sizes::<2>(name, values),
    };
    let mut extra = pair("output_padding", node.ints("output_padding"))?;
    let full: [Option<usize>; 2] =
        [0, 1].map(|axis| (image[axis + 2].checked_sub(1)?.checked_mul(strides[axis])?).checked_add(kernel[axis]));
    let [Some(rows), Some(columns)] = full else {
        return Err(node.malformed("input", "at least one pixel", alloc::format!("shape {x:?}")));
    };
    let full = [rows, columns];
    // The pixels that are cut off before and after.
    let [mut before, mut after] = match spatial.padding {
        Padding::Explicit([top, left, bottom, right]) => [[top, left], [bottom, right]],
        _ => [[0, 0]; 2],
    };
    let wanted = match (node.ints("output_shape"), spatial.padding) {
        (Some(shape), _) => {
            Some(pair("output_shape", Some(&shape[shape.len().saturating_sub(2 - usize::from(one_axis))..]))?)
        }
        (None, Padding::Same | Padding::SameLower) => {
            Some([0, 1].map(|axis| image[axis + 2].saturating_mul(strides[axis])))
        }
        _ => None,
    };
    if let Some(wanted) = wanted {
        for axis in 0..2 {
            if one_axis && axis == 0 {
                continue;
            }
            let total = full[axis].saturating_add(extra[axis]).saturating_sub(wanted[axis]);
            extra[axis] = extra[axis].max(wanted[axis].saturating_add(total).saturating_sub(full[axis]));
            let less = total / 2;
            let lower = spatial.padding == Padding::SameLower || (node.text("auto_pad", "NOTSET") == "NOTSET");
            (before[axis], after[axis]) = if lower { (total - less, less) } else { (less, total - less) };
        }
    }
    let taps = [0, 1].map(|axis| kernel[axis].div_ceil(strides[axis]));
    let mut crop = [(0, 0); 2];
    let mut pads = [0; 4];
    for axis in 0..2 {
        let end = full[axis].saturating_add(extra[axis]).checked_sub(after[axis]).filter(|&end| end >= before[axis]);
        let end = end.ok_or_else(|| {
            node.malformed("pads", "fewer pixels than the output has", alloc::format!("{before:?}, {after:?}"))
        })?;
        crop[axis] = (before[axis], end - before[axis]);
        let blocks = end.div_ceil(strides[axis]).max(1);
        pads[axis] = taps[axis] - 1;
        // Blocks behind the last one that a pixel reaches hold the bias.
        pads[axis + 2] = blocks.saturating_add(taps[axis]).saturating_sub(image[axis + 2] + pads[axis] + 1);
    }
    let (block, out) = (strides[0].saturating_mul(strides[1]), each * groups);
    importer
        .budget
        .spend_floats(block.saturating_mul(out).saturating_mul(channels / groups).saturating_mul(taps[0] * taps[1]))?;
    let mut kernels = Array4::<f32>::zeros((block * out, channels / groups, taps[0], taps[1]));
    for ((group, r, o), (qy, qx)) in ndarray::indices((groups, block, each))
        .into_iter()
        .flat_map(|at| ndarray::indices((taps[0], taps[1])).into_iter().map(move |q| (at, q)))
    {
        let tap = [r / strides[1] + strides[0] * qy, r % strides[1] + strides[1] * qx];
        if tap[0] < kh && tap[1] < kw {
            let inputs = group * (channels / groups)..(group + 1) * (channels / groups);
            let from = weights.slice(s![inputs, o, tap[0], tap[1]]);
            let at = (group * block + r) * each + o;
            kernels.slice_mut(s![at, .., taps[0] - 1 - qy, taps[1] - 1 - qx]).assign(&from);
        }
    }
    let mut inputs: Vec<String> = alloc::vec![importer.reshaped(node, node.required(0)?, &x, image.to_vec())?];
    inputs.push(importer.new_constant(node, "weight", kernels.into_dyn())?);
    if let Some(bias) = importer.float_constant(node, 2)? {
        if bias.len() != out {
            return Err(node.malformed("bias", alloc::format!("{out} values"), bias.len()));
        }
        let repeated =
            (0..block * out).map(|at| bias.iter().nth(at / (block * each) * each + at % each).copied().unwrap_or(0.0));
        inputs.push(importer.new_constant(node, "bias", repeated.collect::<ndarray::Array1<f32>>().into_dyn())?);
    }
    let window = Window::new().with_padding(Padding::Explicit(pads));
    let mut steps: Vec<crate::graph::Op> = alloc::vec![Conv { window, groups }.into()];
    if block > 1 {
        steps.push(DepthToSpace { block: strides, groups }.into());
    }
    for (axis, (start, count)) in crop.into_iter().enumerate() {
        let blocks = (image[axis + 2] + pads[axis] + 1 - taps[axis]).saturating_add(pads[axis + 2]);
        if (start, count) != (0, blocks.saturating_mul(strides[axis])) {
            steps.push(Slice { axis: axis + 2, start, count, step: 1 }.into());
        }
    }
    if one_axis {
        steps.push(Reshape { shape: alloc::vec![image[0], out, crop[1].1] }.into());
    }
    let last = steps.len() - 1;
    for (i, step) in steps.into_iter().enumerate() {
        let name = if i == last {
            node.output()?.to_string()
        } else {
            importer.new_name(&alloc::format!("{}.step", node.output()?))
        };
        importer.push_as(step, core::mem::replace(&mut inputs, alloc::vec![name.clone()]), &name)?;
    }
    Ok(())
}
