//! Float operators, on tensors in the order of memory.
//!
//! They are the reference that quantized networks are compared with, and what calibration runs. Sums are ordered as
//! suits the machine, so the last bits may differ between machines.

mod conv;
mod elementwise;
mod linear;
mod pool;

use alloc::boxed::Box;
use alloc::vec::Vec;

use half::f16;
use ndarray::{Array2, ArrayView2, ArrayViewD, Axis, Slice};

use super::kernel::Kernel;
use super::kernel::scratch;
use super::layout::is_row_major;
use super::movement::{Concat, Pad, Reorder, Repeat};
use super::network::{Constant, Node};
use super::op::Clamp;
use super::op::Op;
use crate::affine::clamp_f32;
use crate::arch::Task;
use crate::element::Float;

pub(crate) use conv::Geometry;

/// Weights as they are stored; half-precision ones are widened a layer at a time while the
/// network runs: that takes a fiftieth of the time, and half of the memory.
#[derive(Debug, Clone)]
pub(crate) enum Weights {
    Float(Constant),
    Half(ndarray::ArrayD<f16>),
}

/// The kernel of a node on floats, given the shapes of its inputs and output and those inputs that are constant.
///
/// `None` if the output is the input under another shape.
pub(crate) fn kernel(
    node: &Node,
    inputs: &[&[usize]],
    output: &[usize],
    constants: &[Option<Weights>],
) -> Option<Box<dyn Kernel>> {
    let constant = |i: usize| constants.get(i).and_then(Option::as_ref);
    let values = |i: usize| constant(i).map(Weights::to_real);
    let (x, clamp) = (inputs[0], node.clamp);
    Some(match &node.op {
        Op::Conv { window, groups } => {
            let geometry = Geometry::new([inputs[1][2], inputs[1][3]], window, *groups, x, output);
            let weights = constant(1).expect("checked when the graph was made");
            let bias = values(2).map(|b| b.iter().copied().collect());
            conv::kernel(geometry, weights, bias, clamp)
        }
        Op::Linear => {
            let weights = constant(1).expect("checked when the graph was made");
            Box::new(linear::Linear::new(weights, values(2).map(|b| b.iter().copied().collect()), clamp))
        }
        Op::BatchNorm { epsilon } => {
            let [scale, shift, mean, variance] =
                [1, 2, 3, 4].map(|i| values(i).expect("checked when the graph was made"));
            Box::new(elementwise::PerChannel::batch_norm(x, &scale, &shift, &mean, &variance, *epsilon, clamp))
        }
        Op::Add => elementwise::binary(elementwise::Sum, inputs, output, constants, clamp),
        Op::Mul => elementwise::binary(elementwise::Product, inputs, output, constants, clamp),
        Op::Activation(activation) => Box::new(elementwise::Map::new(*activation)),
        Op::MaxPool { kernel, window } => Box::new(pool::Pool::max(Geometry::new(*kernel, window, 1, x, output))),
        Op::AveragePool { kernel, window, count_include_pad } => {
            Box::new(pool::Pool::average(Geometry::new(*kernel, window, 1, x, output), *count_include_pad))
        }
        Op::GlobalAveragePool => Box::new(pool::GlobalAverage::new(x)),
        Op::Concat { axis } => Box::new(Concat::<f32>::new(*axis, inputs)),
        Op::Pad { pads } => Box::new(Pad::new(*pads, x, output, 0f32)),
        Op::Repeat { factors } => Box::new(Repeat::<f32>::new(*factors, x)),
        Op::Reshape { .. } if is_row_major(x) && is_row_major(output) => return None,
        Op::Reshape { .. } => Box::new(Reorder::<f32>::new(x, output)),
        Op::Softmax { axis } => Box::new(elementwise::Softmax::new(*axis, x)),
    })
}

impl Weights {
    /// The weights as floats.
    pub(crate) fn to_real(&self) -> Constant {
        match self {
            Weights::Float(w) => w.clone(),
            Weights::Half(w) => w.mapv(f32::from).into_shared(),
        }
    }

    /// The weights of one group of output channels as a matrix `[depth, out]`, in the order in which windows are read:
    /// `[out, in, height, width]` becomes `[height * width * in, out]`, and `[out, in]` becomes `[in, out]`.
    fn matrix(&self, group: usize, groups: usize) -> Matrix {
        match self {
            Weights::Float(w) => Matrix::Float(depth_by_out(w.view(), group, groups)),
            Weights::Half(w) => Matrix::Half(depth_by_out(w.view(), group, groups)),
        }
    }
}

fn depth_by_out<T: Copy>(w: ArrayViewD<'_, T>, group: usize, groups: usize) -> Array2<T> {
    let out = w.shape()[0] / groups;
    let w = w.slice_axis_move(Axis(0), Slice::from(group * out..(group + 1) * out));
    let depth = w.len().checked_div(out).unwrap_or(0);
    let w = if w.ndim() == 4 { w.permuted_axes(&[2, 3, 1, 0][..]) } else { w.reversed_axes() };
    Array2::from_shape_vec((depth, out), w.iter().copied().collect()).expect("as many elements")
}

/// Weights `[depth, out]`.
#[derive(Debug)]
pub(crate) enum Matrix {
    Float(Array2<f32>),
    Half(Array2<f16>),
}

impl Matrix {
    fn dim(&self) -> (usize, usize) {
        match self {
            Matrix::Float(w) => w.dim(),
            Matrix::Half(w) => w.dim(),
        }
    }

    /// As floats, widened into `wide` if need be.
    fn view<'a>(&'a self, wide: &'a mut Vec<f32>) -> ArrayView2<'a, f32> {
        match self {
            Matrix::Float(w) => w.view(),
            Matrix::Half(w) => {
                let wide = scratch(wide, w.len());
                f16::widen_slice(w.as_slice().expect("in row-major order"), wide);
                ArrayView2::from_shape(w.dim(), wide).expect("as many elements")
            }
        }
    }
}

/// One product of floats takes as long as so many of codes.
const PRODUCTS: usize = 4;

/// Adds the bias to each row, and clamps.
struct Finish<'a> {
    rows: &'a mut [f32],
    bias: &'a [f32],
    clamp: Clamp,
}

impl Task for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (low, high) = self.clamp.bounds();
        for row in self.rows.chunks_exact_mut(self.bias.len().max(1)) {
            for (y, b) in row.iter_mut().zip(self.bias) {
                *y = clamp_f32(*y + b, low, high);
            }
        }
    }
}
