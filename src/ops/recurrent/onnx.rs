//! `LSTM` and `GRU` in ONNX files.

use alloc::string::{String, ToString};

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use super::{Cell, Direction, Recurrent};
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, ignore, int, only, text};
use crate::ops::linear::op::Linear;
use crate::ops::operator::Constant;
use crate::ops::reshape::Reshape;
use crate::ops::slice;

/// The spelling of [`Recurrent`]. Other activations than the default ones, and a clip, are not supported.
pub(crate) const RECURRENT: &[OnnxOperator] = &[
    OnnxOperator::new(
        "GRU",
        &[(7, 3, 6)],
        &[text("direction"), ignore("hidden_size", Kind::Int), only("layout", 0).since(14), int("linear_before_reset")],
        |importer, node| {
            let linear_before_reset = node.int("linear_before_reset", 0) != 0;
            recurrent(importer, node, Cell::Gru { linear_before_reset }, 3)
        },
    )
    .since(7)
    .with_outputs(),
    OnnxOperator::new(
        "LSTM",
        &[(7, 3, 7)],
        &[text("direction"), ignore("hidden_size", Kind::Int), only("input_forget", 0), only("layout", 0).since(14)],
        |importer, node| recurrent(importer, node, Cell::Lstm, 4),
    )
    .since(7)
    .with_outputs(),
];

fn recurrent(importer: &mut Importer, node: &OnnxNode<'_>, cell: Cell, gates: usize) -> Result<()> {
    let direction = match node.text("direction", "forward") {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Bidirectional,
        other => return Err(node.malformed("direction", "forward, reverse or bidirectional", other)),
    };
    let (x, r) = (importer.shape(node, 0)?, importer.shape(node, 2)?);
    let (&[steps, batch, _], &[directions, _, hidden]) = (&x[..], &r[..]) else {
        let found = alloc::format!("{x:?} and {r:?}");
        return Err(node.malformed("shapes of X and R", "three axes each", found));
    };
    // All sequences have the length of the tensor.
    let lengths = importer.int_constant(node, 4)?;
    if lengths.is_some_and(|lengths| lengths.iter().any(|&len| len != steps as i64)) {
        return Err(node.unsupported("sequences of different lengths (input sequence_lens)"));
    }
    let zeros = |importer: &mut Importer, part: &str, shape: &[usize]| {
        importer.limits.check_shape(part, shape)?;
        importer.new_constant(node, part, ArrayD::zeros(IxDyn(shape)))
    };
    let rows = directions * gates * hidden;
    let (weights, recurrent) = (importer.required_constant(node, 1)?, importer.required_constant(node, 2)?);
    let matrix = |importer: &mut Importer, name: &str, value: Constant| {
        let depth = value.shape().last().copied().unwrap_or(0);
        let shape = value.shape().to_vec();
        let matrix = value.into_owned().into_shape_with_order(IxDyn(&[rows, depth])).map_err(|_| {
            let expected = alloc::format!("shape [{directions}, {}, ..]", gates * hidden);
            node.malformed("weights", expected, alloc::format!("shape {shape:?}"))
        })?;
        importer.new_constant(node, name, matrix)
    };
    let weights = matrix(importer, "weight", weights)?;
    let recurrent = matrix(importer, "recurrent.weight", recurrent)?;
    // The bias of the weights, then that of the recurrent weights, for each direction.
    let bias = match importer.float_constant(node, 3)? {
        Some(bias) if bias.shape() == [directions, 2 * gates * hidden] => bias,
        Some(bias) => {
            let expected = alloc::format!("shape [{directions}, {}]", 2 * gates * hidden);
            return Err(node.malformed("bias", expected, alloc::format!("shape {:?}", bias.shape())));
        }
        None => ArrayD::zeros(IxDyn(&[directions, 2 * gates * hidden])).into_shared(),
    };
    let half = |importer: &mut Importer, name: &str, start: usize| {
        let half = bias.slice_axis(Axis(1), Slice::from(start..start + gates * hidden));
        importer.new_constant(node, name, half.iter().copied().collect::<ndarray::Array1<f32>>().into_dyn())
    };
    let (bias, recurrent_bias) = (half(importer, "bias", 0)?, half(importer, "recurrent.bias", gates * hidden)?);
    // All steps together.
    let of_x = importer.new_name(&alloc::format!("{}.gates", node.name));
    importer.push_as(Linear, alloc::vec![node.required(0)?.into(), weights, bias], &of_x)?;
    let mut inputs = alloc::vec![of_x, recurrent, recurrent_bias];
    let states: &[usize] = if cell == Cell::Lstm { &[5, 6] } else { &[5] };
    if states.iter().any(|&i| node.input(i).is_some()) {
        for &i in states {
            inputs.push(match node.input(i) {
                Some(state) => state.to_string(),
                None => zeros(importer, "state", &[directions, batch, hidden])?,
            });
        }
    }
    let all = importer.new_name(&alloc::format!("{}.states", node.name));
    importer.push_as(Recurrent { cell, direction }, inputs, &all)?;
    let rows = steps * directions;
    let parts = [
        (0, rows, alloc::vec![steps, directions, batch, hidden]),
        (rows, directions, alloc::vec![directions, batch, hidden]),
        (rows + directions, directions, alloc::vec![directions, batch, hidden]),
    ];
    for (output, (start, count, shape)) in node.node.output.iter().zip(parts).filter(|(name, _)| !name.is_empty()) {
        let part = importer.new_name(&alloc::format!("{output}.rows"));
        importer.push_as(slice::Slice { axis: 0, start, count, step: 1 }, alloc::vec![all.clone()], &part)?;
        importer.push_as(Reshape { shape }, alloc::vec![part], output)?;
    }
    Ok(())
}

/// Writes a recurrent layer, and joins its outputs.
pub(super) fn write(op: &Recurrent, node: &mut NodeWriter<'_>) -> Result<String> {
    let hidden = node.output[2];
    let direction = match op.direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
        Direction::Bidirectional => "bidirectional",
    };
    let mut attributes = alloc::vec![export::int("hidden_size", hidden), export::text("direction", direction)];
    let name = match op.cell {
        Cell::Lstm => "LSTM",
        Cell::Gru { linear_before_reset } => {
            attributes.push(export::int("linear_before_reset", usize::from(linear_before_reset)));
            "GRU"
        }
    };
    let mut inputs = node.inputs.clone();
    // All sequences have the length of the tensor.
    inputs.insert(4, String::new());
    let mut outputs = node.nodes(name, inputs, attributes, 1 + op.states());
    let rows = node.output[0] - op.states() * op.direction.count();
    outputs[0] = node.reshape(outputs[0].clone(), &[rows, node.output[1], hidden]);
    Ok(node.nodes("Concat", outputs, alloc::vec![export::int("axis", 0)], 1).swap_remove(0))
}
