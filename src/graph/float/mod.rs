//! Kernels of float operators, on NHWC tensors.
//!
//! Calibration runs them, and quantized networks are compared with them. The order of sums depends on the instruction
//! set, so the last bits may differ between machines.

mod conv;
mod depthwise;
mod elementwise;
mod linear;
mod pool;

use alloc::boxed::Box;
use alloc::vec::Vec;

use half::f16;
use ndarray::{Array2, ArrayView2, ArrayViewD, Axis, Slice};

use super::kernel::Kernel;
use super::kernel::resized;
use super::layout::nhwc_is_nchw;
use super::movement::{Concat, Pad, TransposedReshape, Upsample};
use super::network::{Constant, Node};
use super::op::Clamp;
use super::op::Op;
use crate::affine::clamp_f32;
use crate::element::Widen;
use crate::simd::Task;

pub(crate) use conv::Geometry;

/// Weights in f32 or half precision.
///
/// Half-precision weights are widened layer by layer while the network runs. That halves the memory and takes about 2 %
/// of the time.
#[derive(Debug, Clone)]
pub(crate) enum Weights {
    F32(Constant),
    F16(ndarray::ArrayD<f16>),
}

/// The float kernel of a node, given the shapes of its inputs and output and its constant inputs.
///
/// `None` if the output is an alias of the input.
pub(crate) fn kernel(
    node: &Node,
    inputs: &[&[usize]],
    output: &[usize],
    constants: &[Option<Weights>],
) -> Option<Box<dyn Kernel>> {
    let constant = |i: usize| constants.get(i).and_then(Option::as_ref);
    let values = |i: usize| constant(i).map(Weights::to_f32);
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
            Box::new(elementwise::BatchNorm::new(x, &scale, &shift, &mean, &variance, *epsilon, clamp))
        }
        Op::Add => elementwise::binary(elementwise::Add, inputs, output, constants, clamp),
        Op::Mul => elementwise::binary(elementwise::Mul, inputs, output, constants, clamp),
        Op::Activation(activation) => Box::new(elementwise::Activate::new(*activation)),
        Op::MaxPool { kernel, window } => Box::new(pool::Pool::max(Geometry::new(*kernel, window, 1, x, output))),
        Op::AveragePool { kernel, window, count_include_pad } => {
            Box::new(pool::Pool::average(Geometry::new(*kernel, window, 1, x, output), *count_include_pad))
        }
        Op::GlobalAveragePool => Box::new(pool::GlobalAverage::new(x)),
        Op::Concat { axis } => Box::new(Concat::<f32>::new(*axis, inputs)),
        Op::Pad { pads } => Box::new(Pad::new(*pads, x, output, 0f32)),
        Op::Resize { scales } => Box::new(Upsample::<f32>::new(*scales, x)),
        Op::Reshape { .. } if nhwc_is_nchw(x) && nhwc_is_nchw(output) => return None,
        Op::Reshape { .. } => Box::new(TransposedReshape::<f32>::new(x, output)),
        Op::Softmax { axis } => Box::new(elementwise::Softmax::new(*axis, x)),
    })
}

impl Weights {
    /// The weights as floats.
    pub(crate) fn to_f32(&self) -> Constant {
        match self {
            Weights::F32(w) => w.clone(),
            Weights::F16(w) => w.mapv(f32::from).into_shared(),
        }
    }

    /// The weights of one group of output channels as a matrix `[depth, out]`, with the depth in the order of im2col:
    /// `[out, in, height, width]` becomes `[height * width * in, out]`, and `[out, in]` becomes `[in, out]`.
    fn matrix(&self, group: usize, groups: usize) -> Matrix {
        match self {
            Weights::F32(w) => Matrix::F32(depth_by_out(w.view(), group, groups)),
            Weights::F16(w) => Matrix::F16(depth_by_out(w.view(), group, groups)),
        }
    }
}

fn depth_by_out<T: Copy>(w: ArrayViewD<'_, T>, group: usize, groups: usize) -> Array2<T> {
    let out = w.shape()[0] / groups;
    let w = w.slice_axis_move(Axis(0), Slice::from(group * out..(group + 1) * out));
    let depth = w.len().checked_div(out).unwrap_or(0);
    let w = if w.ndim() == 4 { w.permuted_axes(&[2, 3, 1, 0][..]) } else { w.reversed_axes() };
    Array2::from_shape_vec((depth, out), w.iter().copied().collect()).expect("depth times out elements")
}

/// A weight matrix `[depth, out]`.
#[derive(Debug)]
pub(crate) enum Matrix {
    F32(Array2<f32>),
    F16(Array2<f16>),
}

impl Matrix {
    fn dim(&self) -> (usize, usize) {
        match self {
            Matrix::F32(w) => w.dim(),
            Matrix::F16(w) => w.dim(),
        }
    }

    fn size_in_bytes(&self) -> usize {
        match self {
            Matrix::F32(w) => size_of::<f32>() * w.len(),
            Matrix::F16(w) => size_of::<f16>() * w.len(),
        }
    }

    /// Views the matrix in f32. Half-precision weights are widened into `widened`.
    fn view<'a>(&'a self, widened: &'a mut Vec<f32>) -> ArrayView2<'a, f32> {
        match self {
            Matrix::F32(w) => w.view(),
            Matrix::F16(w) => {
                let widened = resized(widened, w.len());
                f16::widen_slice(w.as_slice().expect("weights are row-major"), widened);
                ArrayView2::from_shape(w.dim(), widened).expect("depth times out elements")
            }
        }
    }
}

/// The cost of one multiply-accumulate of floats in multiply-accumulates of codes.
const CODE_MACS_PER_MAC: usize = 4;

/// Adds the bias to each row and clamps.
struct AddBiasAndClamp<'a> {
    rows: &'a mut [f32],
    bias: &'a [f32],
    clamp: Clamp,
}

impl Task for AddBiasAndClamp<'_> {
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
