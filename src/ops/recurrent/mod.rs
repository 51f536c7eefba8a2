//! Recurrent layers: LSTM and GRU.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, Ix2};

use super::float_matmul::float_matmul;
use super::float_weights::Weights;
use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::linear::Linear;
use super::operator::{FloatNode, Inputs, Operator};
use super::shape::{Shape, ranked};
use super::unary::math::{sigmoid, tanh};
use crate::error::{Error, GraphError, Result, check_shapes};
use crate::gemm::Workspace;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The equations of a recurrent layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Cell {
    /// Long short-term memory: gates `i`, `o`, `f`, `c` (ONNX: `LSTM`).
    Lstm,
    /// Gated recurrent unit: gates `z`, `r`, `h` (ONNX: `GRU`).
    Gru {
        /// Multiplies the reset gate with the product of the state and its weights, not with the state.
        linear_before_reset: bool,
    },
}

/// The order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Direction {
    /// First step first.
    Forward,
    /// Last step first.
    Reverse,
    /// Both, side by side.
    Bidirectional,
}

impl Direction {
    fn count(self) -> usize {
        if self == Direction::Bidirectional { 2 } else { 1 }
    }
}

/// A recurrent layer over gates `X: [steps, batch, directions * gates * hidden]`, which a [`Linear`](super::linear::op::Linear)
/// layer computes from all steps, with recurrent weights `R: [directions * gates * hidden, hidden]` and their bias
/// `B: [directions * gates * hidden]`, both constant (ONNX: `LSTM`, `GRU`).
///
/// With integer weights, the state of each row is quantized by its own range in each step; all else is computed in floats.
///
/// The inputs after `B` are the first state `[directions, batch, hidden]`, and that of the cell for an LSTM; they may be
/// left out. The output is `[steps * directions + states * directions, batch, hidden]`: the state after each step, for
/// each direction, then the last state, then the last state of the cell for an LSTM.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recurrent {
    /// The equations.
    pub cell: Cell,
    /// The order of the steps.
    pub direction: Direction,
}

impl Recurrent {
    fn gates(&self) -> usize {
        if self.cell == Cell::Lstm { 4 } else { 3 }
    }

    fn states(&self) -> usize {
        if self.cell == Cell::Lstm { 2 } else { 1 }
    }
}

impl Operator for Recurrent {
    fn name(&self) -> &'static str {
        if self.cell == Cell::Lstm { "LSTM" } else { "GRU" }
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        match self.cell {
            Cell::Lstm => (3..=5, "3 to 5 (gates, recurrent weights, bias, state, state of the cell)"),
            Cell::Gru { .. } => (3..=4, "3 or 4 (gates, recurrent weights, bias, state)"),
        }
    }

    fn stores_constants(&self) -> bool {
        true
    }

    fn has_recurrent_weights(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let shapes = inputs.shapes;
        let [steps, batch, rows] = ranked("gates", "[steps, batch, directions * gates * hidden]", shapes[0])?;
        let [_, hidden] = ranked("recurrent weights", "[directions * gates * hidden, hidden]", shapes[1])?;
        let (directions, gates) = (self.direction.count(), self.gates().saturating_mul(hidden));
        check_shapes("gates", &[steps, batch, directions.saturating_mul(gates)], shapes[0])?;
        check_shapes("recurrent weights", &[rows, hidden], shapes[1])?;
        check_shapes("bias", &[rows], shapes[2])?;
        shapes[3..].iter().try_for_each(|state| check_shapes("state", &[directions, batch, hidden], state))?;
        if inputs.constant[1..3].contains(&false) || inputs.constant[0] {
            let expected = "constants for weights and bias".into();
            return Err(GraphError::Inputs { expected, found: "the output of another node".into() }.into());
        }
        let rows = steps.checked_add(self.states()).and_then(|rows| rows.checked_mul(directions));
        let rows = rows.ok_or_else(|| Error::layout("input", "fewer steps", shapes[0]))?;
        Ok(alloc::vec![rows, batch, hidden])
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let (weights, bias) = (node.weights(1), node.vector(2).unwrap_or_default());
        let weights = weights.expect("checked when the graph was made");
        let (directions, hidden) = (self.direction.count(), node.output[2]);
        let gates = self.gates() * hidden;
        let layers = (0..directions).map(|d| DirectionWeights {
            reverse: self.direction == Direction::Reverse || d == 1,
            r: RecurrentWeights::new(weights, d * gates..(d + 1) * gates),
            bias: bias[d * gates..(d + 1) * gates].to_vec(),
        });
        let first = [3, 4].map(|i| (node.inputs.len() > i).then(|| node.vector(i)));
        let (layers, cell) = (layers.collect(), self.cell);
        Some(Box::new(RecurrentKernel { cell, layers, first, steps: node.x()[0], batch: node.x()[1], hidden }))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

/// The recurrent weights of a direction.
#[derive(Debug)]
enum RecurrentWeights {
    /// `[hidden, gates * hidden]`.
    F32(Array2<f32>),
    Int8(Linear<i8>),
}

impl RecurrentWeights {
    /// Takes these rows of weights `[directions * gates * hidden, hidden]`.
    fn new(weights: &Weights, rows: Range<usize>) -> Self {
        if let Weights::Codes(weights) = weights
            && let Ok(layer) = rows_of(weights, rows.clone()).and_then(|weights| Linear::new(&weights, None))
        {
            return RecurrentWeights::Int8(layer);
        }
        let values = weights.to_f32();
        let values = values.slice_axis(Axis(0), rows.into()).reversed_axes();
        let values = values.into_dimensionality().expect("checked when the graph was made");
        RecurrentWeights::F32(values.as_standard_layout().into_owned())
    }

    fn size_in_bytes(&self) -> usize {
        match self {
            RecurrentWeights::F32(weights) => weights.len() * size_of::<f32>(),
            RecurrentWeights::Int8(layer) => layer.size_in_bytes(),
        }
    }

    /// `y = h · r + bias`, for rows of the state.
    fn multiply(&self, h: &[f32], hidden: usize, bias: &[f32], y: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let gates = bias.len();
        let rows = y.len().checked_div(gates).unwrap_or(0);
        let h = ArrayView2::from_shape((rows, hidden), h).expect("a state of each row");
        let mut product = ArrayViewMut2::from_shape((rows, gates), &mut *y).expect("the gates of each row");
        match self {
            RecurrentWeights::F32(weights) => float_matmul(h, weights.view(), product),
            RecurrentWeights::Int8(layer) => layer.forward_dynamic_per_row_into(&h, &mut product, workspace)?,
        }
        y.chunks_exact_mut(gates.max(1)).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        Ok(())
    }
}

/// Rows of integer weights.
fn rows_of(weights: &QTensor<i8, Ix2>, rows: Range<usize>) -> Result<QTensor<i8, Ix2>> {
    let scales = weights.params().scales();
    let codes = weights.codes().slice_axis(Axis(0), rows.clone().into()).to_owned();
    let params = match scales.len() {
        1 => QParams::per_tensor(scales[0], 0)?,
        _ => QParams::per_axis(Axis(0), Array1::from_iter(scales[rows].iter().copied()), None)?,
    };
    QTensor::new(codes, params)
}

#[derive(Debug)]
struct DirectionWeights {
    reverse: bool,
    r: RecurrentWeights,
    bias: Vec<f32>,
}

#[derive(Debug)]
struct RecurrentKernel {
    cell: Cell,
    layers: Vec<DirectionWeights>,
    /// The first states: `None` is zero, `Some(None)` an input of the step.
    first: [Option<Option<Vec<f32>>>; 2],
    steps: usize,
    batch: usize,
    hidden: usize,
}

impl Kernel for RecurrentKernel {
    fn size_in_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.r.size_in_bytes() + size_of_val(&layer.bias[..])).sum()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        let mut variable = inputs[1..].iter();
        let state = self.batch * self.hidden;
        let first = self.first.each_ref().map(|first| match first {
            None => None,
            Some(Some(constant)) => Some((&constant[..], 0)),
            Some(None) => variable.next().map(|values| (values.as_slice::<f32>(), self.layers.len() * state)),
        });
        let [x_len, y_len] = [x.len() / images.max(1), y.len() / images.max(1)];
        if x_len == 0 || y_len == 0 {
            y.fill(0.0);
            return Ok(());
        }
        for (image, (x, y)) in x.chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)).enumerate() {
            for d in 0..self.layers.len() {
                let first =
                    first.map(|first| first.map(|(values, stride)| &values[image * stride + d * state..][..state]));
                self.direction(d, x, first, y, &mut scratch.gemm)?;
            }
        }
        Ok(())
    }
}

impl RecurrentKernel {
    /// Computes all steps of one direction of a sample.
    fn direction(
        &self,
        d: usize,
        x: &[f32],
        first: [Option<&[f32]>; 2],
        y: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (layer, directions, state) = (&self.layers[d], self.layers.len(), self.batch * self.hidden);
        let gates = layer.bias.len();
        let initial = |first: Option<&[f32]>| first.map_or_else(|| alloc::vec![0.0; state], <[f32]>::to_vec);
        let (mut h, mut c) = (initial(first[0]), initial(first[1]));
        let mut of_h = alloc::vec![0.0; self.batch * gates];
        let mut of_x = of_h.clone();
        for step in 0..self.steps {
            let t = if layer.reverse { self.steps - 1 - step } else { step };
            // The gates of this direction, of each row.
            let rows = x[t * self.batch * directions * gates..].chunks_exact((directions * gates).max(1));
            for (of_x, row) in of_x.chunks_exact_mut(gates.max(1)).zip(rows) {
                of_x.copy_from_slice(&row[d * gates..][..gates]);
            }
            layer.r.multiply(&h, self.hidden, &layer.bias, &mut of_h, workspace)?;
            match self.cell {
                Cell::Lstm => self.lstm(&of_x, &of_h, &mut h, &mut c),
                Cell::Gru { linear_before_reset } => {
                    self.gru(layer, &of_x, &mut of_h, &mut h, linear_before_reset, workspace)?;
                }
            }
            y[(t * directions + d) * state..][..state].copy_from_slice(&h);
        }
        let last = self.steps * directions + d;
        y[last * state..][..state].copy_from_slice(&h);
        if self.cell == Cell::Lstm {
            y[(last + directions) * state..][..state].copy_from_slice(&c);
        }
        Ok(())
    }

    fn lstm(&self, of_x: &[f32], of_h: &[f32], h: &mut [f32], c: &mut [f32]) {
        let n = self.hidden;
        for row in 0..self.batch {
            let (of_x, of_h) = (&of_x[row * 4 * n..][..4 * n], &of_h[row * 4 * n..][..4 * n]);
            for i in 0..n {
                let gate = |gate: usize| of_x[gate * n + i] + of_h[gate * n + i];
                let (input, output, forget) = (sigmoid(gate(0)), sigmoid(gate(1)), sigmoid(gate(2)));
                let at = row * n + i;
                c[at] = forget * c[at] + input * tanh(gate(3));
                h[at] = output * tanh(c[at]);
            }
        }
    }

    fn gru(
        &self,
        layer: &DirectionWeights,
        of_x: &[f32],
        of_h: &mut [f32],
        h: &mut [f32],
        linear_before_reset: bool,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let n = self.hidden;
        let gate = |of_h: &[f32], gate: usize, row: usize, i: usize| {
            let at = (row * 3 + gate) * n + i;
            of_x[at] + of_h[at]
        };
        let update: Vec<f32> = (0..self.batch * n).map(|at| sigmoid(gate(of_h, 0, at / n, at % n))).collect();
        let reset: Vec<f32> = (0..self.batch * n).map(|at| sigmoid(gate(of_h, 1, at / n, at % n))).collect();
        if linear_before_reset {
            for at in 0..self.batch * n {
                of_h[(at / n * 3 + 2) * n + at % n] *= reset[at];
            }
        } else {
            let kept: Vec<f32> = h.iter().zip(&reset).map(|(h, reset)| h * reset).collect();
            layer.r.multiply(&kept, n, &layer.bias, of_h, workspace)?;
        }
        for at in 0..self.batch * n {
            let new = tanh(gate(of_h, 2, at / n, at % n));
            h[at] = (1.0 - update[at]) * new + update[at] * h[at];
        }
        Ok(())
    }
}
