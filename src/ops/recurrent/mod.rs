//! Recurrent layers: LSTM and GRU.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::float_matmul::float_matmul;
use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::operator::{Constant, FloatNode, Inputs, Operator};
use super::shape::{Shape, ranked};
use super::unary::function::sigmoid;
use crate::error::{Error, GraphError, Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
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

/// A recurrent layer over `X: [steps, batch, in]`, with weights `W: [directions, gates * hidden, in]`, recurrent weights
/// `R: [directions, gates * hidden, hidden]` and a bias `B: [directions, 2 * gates * hidden]`, all constant (ONNX: `LSTM`,
/// `GRU`).
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
            Cell::Lstm => (4..=6, "4 to 6 (input, weights, recurrent weights, bias, state, state of the cell)"),
            Cell::Gru { .. } => (4..=5, "4 or 5 (input, weights, recurrent weights, bias, state)"),
        }
    }

    fn stores_constants(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let shapes = inputs.shapes;
        let [steps, batch, depth] = ranked("input", "[steps, batch, in]", shapes[0])?;
        let [_, _, hidden] = ranked("recurrent weights", "[directions, gates * hidden, hidden]", shapes[2])?;
        let (directions, gates) = (self.direction.count(), self.gates() * hidden);
        check_shapes("weights", &[directions, gates, depth], shapes[1])?;
        check_shapes("recurrent weights", &[directions, gates, hidden], shapes[2])?;
        check_shapes("bias", &[directions, 2 * gates], shapes[3])?;
        shapes[4..].iter().try_for_each(|state| check_shapes("state", &[directions, batch, hidden], state))?;
        if inputs.constant[1..4].contains(&false) || inputs.constant[0] {
            let expected = "constants for weights and bias".into();
            return Err(GraphError::Inputs { expected, found: "the output of another node".into() }.into());
        }
        let rows = steps.checked_add(self.states()).and_then(|rows| rows.checked_mul(directions));
        let rows = rows.ok_or_else(|| Error::layout("input", "fewer steps", shapes[0]))?;
        Ok(alloc::vec![rows, batch, hidden])
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let constant = |i: usize| node.values(i).expect("checked when the graph was made");
        let (w, r, b) = (constant(1), constant(2), constant(3));
        let hidden = node.output[2];
        let layers = (0..self.direction.count()).map(|d| DirectionWeights {
            reverse: self.direction == Direction::Reverse || d == 1,
            w: transposed(&w, d),
            r: transposed(&r, d),
            bias: b.iter().skip(d * 2 * self.gates() * hidden).take(2 * self.gates() * hidden).copied().collect(),
        });
        let first = [4, 5].map(|i| (node.inputs.len() > i).then(|| node.vector(i)));
        let (layers, cell) = (layers.collect(), self.cell);
        Some(Box::new(RecurrentKernel { cell, layers, first, steps: node.x()[0], batch: node.x()[1], hidden }))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

/// The weights of a direction as a matrix `[in, gates * hidden]`.
fn transposed(weights: &Constant, direction: usize) -> Array2<f32> {
    let (rows, columns) = (weights.shape()[1], weights.shape()[2]);
    Array2::from_shape_fn((columns, rows), |(i, j)| weights[[direction, j, i]])
}

#[derive(Debug)]
struct DirectionWeights {
    reverse: bool,
    w: Array2<f32>,
    r: Array2<f32>,
    /// The bias of `w`, then that of `r`.
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
        let floats = |layer: &DirectionWeights| layer.w.len() + layer.r.len() + layer.bias.len();
        self.layers.iter().map(floats).sum::<usize>() * size_of::<f32>()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
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
            for (d, layer) in self.layers.iter().enumerate() {
                let first =
                    first.map(|first| first.map(|(values, stride)| &values[image * stride + d * state..][..state]));
                self.direction(layer, d, x, first, y);
            }
        }
        Ok(())
    }
}

impl RecurrentKernel {
    /// Computes all steps of one direction of a sample.
    fn direction(&self, layer: &DirectionWeights, d: usize, x: &[f32], first: [Option<&[f32]>; 2], y: &mut [f32]) {
        let (directions, state) = (self.layers.len(), self.batch * self.hidden);
        let (depth, gates) = layer.w.dim();
        let rows = self.steps * self.batch;
        let mut of_x = Array2::<f32>::zeros((rows, gates));
        let x = ArrayView2::from_shape((rows, depth), x).expect("lengths were planned");
        float_matmul(x, layer.w.view(), of_x.view_mut());
        let (w_bias, r_bias) = layer.bias.split_at(gates);
        let of_x = of_x.as_slice_mut().expect("a new array");
        of_x.chunks_exact_mut(gates).for_each(|row| row.iter_mut().zip(w_bias).for_each(|(x, b)| *x += b));
        let initial = |first: Option<&[f32]>| first.map_or_else(|| alloc::vec![0.0; state], <[f32]>::to_vec);
        let (mut h, mut c) = (initial(first[0]), initial(first[1]));
        let mut of_h = alloc::vec![0.0; self.batch * gates];
        for step in 0..self.steps {
            let t = if layer.reverse { self.steps - 1 - step } else { step };
            let of_x = &of_x[t * self.batch * gates..][..self.batch * gates];
            product(&h, &layer.r, r_bias, &mut of_h);
            match self.cell {
                Cell::Lstm => self.lstm(of_x, &of_h, &mut h, &mut c),
                Cell::Gru { linear_before_reset } => self.gru(layer, of_x, &mut of_h, &mut h, linear_before_reset),
            }
            y[(t * directions + d) * state..][..state].copy_from_slice(&h);
        }
        let last = self.steps * directions + d;
        y[last * state..][..state].copy_from_slice(&h);
        if self.cell == Cell::Lstm {
            y[(last + directions) * state..][..state].copy_from_slice(&c);
        }
    }

    fn lstm(&self, of_x: &[f32], of_h: &[f32], h: &mut [f32], c: &mut [f32]) {
        let n = self.hidden;
        for row in 0..self.batch {
            let (of_x, of_h) = (&of_x[row * 4 * n..][..4 * n], &of_h[row * 4 * n..][..4 * n]);
            for i in 0..n {
                let gate = |gate: usize| of_x[gate * n + i] + of_h[gate * n + i];
                let (input, output, forget) = (sigmoid(gate(0)), sigmoid(gate(1)), sigmoid(gate(2)));
                let at = row * n + i;
                c[at] = forget * c[at] + input * num_traits::Float::tanh(gate(3));
                h[at] = output * num_traits::Float::tanh(c[at]);
            }
        }
    }

    fn gru(&self, layer: &DirectionWeights, of_x: &[f32], of_h: &mut [f32], h: &mut [f32], linear_before_reset: bool) {
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
            product(&kept, &layer.r, &layer.bias[3 * n..], of_h);
        }
        for at in 0..self.batch * n {
            let new = num_traits::Float::tanh(gate(of_h, 2, at / n, at % n));
            h[at] = (1.0 - update[at]) * new + update[at] * h[at];
        }
    }
}

/// `y = h · r + bias`.
fn product(h: &[f32], r: &Array2<f32>, bias: &[f32], y: &mut [f32]) {
    let (hidden, gates) = r.dim();
    let rows = y.len() / gates.max(1);
    let h = ArrayView2::from_shape((rows, hidden), h).expect("a state of each row");
    float_matmul(h, r.view(), ArrayViewMut2::from_shape((rows, gates), &mut *y).expect("the gates of each row"));
    y.chunks_exact_mut(gates.max(1)).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
}
