//! `LayerNormalization`, `GroupNormalization` and `InstanceNormalization` in ONNX files.

use alloc::string::String;
use alloc::vec::Vec;

use super::LayerNorm;
use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{OnnxOperator, float, int, only};
use crate::ops::binary::op::Binary;
use crate::ops::operator::Constant;
use crate::ops::reduce::{Reduce, Reduction};
use crate::ops::reshape::Reshape;
use crate::ops::unary::function::Activation;

/// The spelling of [`LayerNorm`].
pub(crate) const LAYER_NORM: &[OnnxOperator] = &[
    OnnxOperator::new(
        "GroupNormalization",
        &[(18, 3, 3)],
        &[float("epsilon"), int("num_groups"), only("stash_type", 1)],
        |importer, node| {
            let groups = node.sizes::<1>("num_groups", &[node.required_int("num_groups")?])?[0];
            of_groups(importer, node, groups)
        },
    )
    .since(21),
    OnnxOperator::new("InstanceNormalization", &[(1, 3, 3)], &[float("epsilon")], |importer, node| {
        let channels = importer.shape(node, 0)?.get(1).copied().unwrap_or(1);
        of_groups(importer, node, channels)
    })
    .since(6),
    OnnxOperator::new(
        "LayerNormalization",
        &[(17, 2, 3)],
        &[int("axis"), float("epsilon"), only("stash_type", 1)],
        layer_norm,
    )
    .since(17),
    OnnxOperator::new(
        "RMSNormalization",
        &[(23, 2, 2)],
        &[int("axis"), float("epsilon"), only("stash_type", 1)],
        rms_norm,
    )
    .since(23),
];

/// `x / sqrt(mean(x²) + epsilon) * scale`.
fn rms_norm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let axes = (node.axis(node.int("axis", -1), x.len())?..x.len()).collect();
    let part = |importer: &mut Importer, op: Op, inputs: Vec<String>| -> Result<String> {
        let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
        importer.push_as(op, inputs, &name).map(|()| name)
    };
    let name: String = node.required(0)?.into();
    let squares = part(importer, Binary::Mul.into(), alloc::vec![name.clone(), name.clone()])?;
    let mean = part(importer, Reduce { reduction: Reduction::Mean, axes }.into(), alloc::vec![squares])?;
    let epsilon = importer.new_constant(node, "epsilon", ndarray::arr0(node.float("epsilon", 1e-5)).into_dyn())?;
    let sum = part(importer, Binary::Add.into(), alloc::vec![mean, epsilon])?;
    let factor = part(importer, Activation::Pow { exponent: -0.5 }.into(), alloc::vec![sum])?;
    let normal = part(importer, Binary::Mul.into(), alloc::vec![name, factor])?;
    importer.push(node, Binary::Mul, alloc::vec![normal, node.required(1)?.into()])
}

fn layer_norm(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let axis = node.axis(node.int("axis", -1), x.len())?;
    let op = LayerNorm { epsilon: node.float("epsilon", 1e-5) };
    let len: usize = x[axis..].iter().product();
    let mut inputs: Vec<String> = alloc::vec![node.required(0)?.into()];
    for i in [1, 2] {
        let Some(value) = importer.float_constant(node, i)? else { continue };
        let wide = value.broadcast(&x[axis..]).ok_or_else(|| {
            let expected = alloc::format!("a shape that broadcasts to {:?}", &x[axis..]);
            node.malformed("scale or bias", expected, alloc::format!("{:?}", value.shape()))
        })?;
        let flat = wide.to_shape(&[len][..]).expect("the number of elements").into_owned();
        inputs.push(importer.new_constant(node, if i == 1 { "scale" } else { "bias" }, flat)?);
    }
    if axis + 1 == x.len() && x.len() != 4 {
        return importer.push(node, op, inputs);
    }
    // Rows of one axis, which lie together in memory.
    let rows = alloc::vec![1, x[..axis].iter().product(), len];
    inputs[0] = importer.reshaped(node, &inputs[0].clone(), &x, rows)?;
    importer.push_reshaped(node, op, inputs, Some(x))
}

/// Normalizes the channels of each group together with their pixels, then multiplies and adds by channel.
fn of_groups(importer: &mut Importer, node: &OnnxNode<'_>, groups: usize) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let channels = x.get(1).copied().unwrap_or(0);
    if x.len() < 3 || groups == 0 || !channels.is_multiple_of(groups) || channels == 0 {
        let found = alloc::format!("{groups} groups of shape {x:?}");
        return Err(node.malformed("groups", "a divisor of the channels of [batch, channels, ..]", found));
    }
    let op = LayerNorm { epsilon: node.float("epsilon", 1e-5) };
    let each = x[1..].iter().product::<usize>() / groups;
    let rows = importer.reshaped(node, node.required(0)?, &x, alloc::vec![x[0], groups, each])?;
    let normal = importer.new_name(&alloc::format!("{}.normalized", node.output()?));
    importer.push_as(op, alloc::vec![rows], &normal)?;
    let image = importer.new_name(&alloc::format!("{}.image", node.output()?));
    importer.push_as(Reshape { shape: x.clone() }, alloc::vec![normal], &image)?;
    let by_channel = |value: Constant| {
        let shape: Vec<usize> = [&[1, channels][..], &alloc::vec![1; x.len() - 2]].concat();
        // Before opset 21 the parameters of groups are by group.
        (value.len() == channels).then(|| value.to_shape(&shape[..]).map(|value| value.into_owned()).ok()).flatten()
    };
    let mut parameters = Vec::new();
    for (i, part) in [(1, "scale"), (2, "bias")] {
        let value = importer.float_constant(node, i)?.and_then(by_channel);
        let value = value.ok_or_else(|| node.malformed(part, alloc::format!("{channels} values"), "another number"))?;
        parameters.push(importer.new_constant(node, part, value)?);
    }
    let scaled = importer.new_name(&alloc::format!("{}.scaled", node.output()?));
    let bias = parameters.pop().unwrap_or_default();
    let scale = parameters.pop().unwrap_or_default();
    importer.push_as(Binary::Mul, alloc::vec![image, scale], &scaled)?;
    importer.push(node, Binary::Add, alloc::vec![scaled, bias])
}

/// Writes a layer normalization along the last axis.
pub(super) fn write(op: &LayerNorm, node: &mut NodeWriter<'_>) -> Result<String> {
    if node.inputs.len() == 1 {
        let ones = alloc::vec![1.0; node.output.last().copied().unwrap_or(1)];
        let scale = node.floats(&ones);
        node.inputs.push(scale);
    }
    let attributes = alloc::vec![export::last_axis("axis"), export::float("epsilon", op.epsilon)];
    node.all("LayerNormalization", attributes)
}
