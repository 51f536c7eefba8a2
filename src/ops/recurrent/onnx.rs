//! `LSTM` and `GRU` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, IxDyn};

use super::{Cell, Direction, Recurrent};
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, ignore, int, only, text};
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;

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
    let mut inputs: Vec<String> =
        [0, 1, 2].into_iter().map(|i| node.required(i).map(String::from)).collect::<Result<_>>()?;
    let zeros = |importer: &mut Importer, part: &str, shape: &[usize]| {
        importer.limits.check_shape(part, shape)?;
        importer.new_constant(node, part, ArrayD::zeros(IxDyn(shape)))
    };
    inputs.push(match node.input(3) {
        Some(bias) => bias.to_string(),
        None => zeros(importer, "bias", &[directions, 2 * gates * hidden])?,
    });
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
        importer.push_as(Slice { axis: 0, start, count, step: 1 }, alloc::vec![all.clone()], &part)?;
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
