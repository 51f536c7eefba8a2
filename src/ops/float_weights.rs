//! Weights of layers that compute in f32, and what their kernels share.

use alloc::boxed::Box;
use alloc::vec::Vec;

use half::f16;
use ndarray::{Array2, ArrayView2, ArrayViewD, Axis, Dimension, Ix2, Slice};

use super::clamp::Clamp;
use super::kernel::resized;
use super::operator::Constant;
use crate::affine::clamp_f32;
use crate::element::Widen;
use crate::qtensor::QTensor;
use crate::simd::Task;

/// Weights in f32 or half precision.
///
/// Half-precision weights are widened layer by layer while the network runs. That halves the memory and takes about 2 %
/// of the time.
#[derive(Debug, Clone)]
pub(crate) enum Weights {
    F32(Constant),
    F16(ndarray::ArrayD<f16>),
    /// For operators with recurrent weights.
    Codes(Box<QTensor<i8, Ix2>>),
}

impl Weights {
    /// The weights as floats.
    pub(crate) fn to_f32(&self) -> Constant {
        match self {
            Weights::F32(w) => w.clone(),
            Weights::F16(w) => w.mapv(f32::from).into_shared(),
            Weights::Codes(w) => w.dequantize().into_dyn().into_shared(),
        }
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Weights::F32(w) => w.shape().to_vec(),
            Weights::F16(w) => w.shape().to_vec(),
            Weights::Codes(w) => w.raw_dim().slice().to_vec(),
        }
    }

    /// The weights of one group of output channels as a matrix `[depth, out]`, with the depth in the order of im2col:
    /// `[out, in, height, width]` becomes `[height * width * in, out]`, and `[out, in]` becomes `[in, out]`.
    pub(super) fn matrix(&self, group: usize, groups: usize) -> Matrix {
        match self {
            Weights::F32(w) => Matrix::F32(depth_by_out(w.view(), group, groups)),
            Weights::F16(w) => Matrix::F16(depth_by_out(w.view(), group, groups)),
            Weights::Codes(w) => Matrix::F32(depth_by_out(w.dequantize().into_dyn().view(), group, groups)),
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
    pub(super) fn dim(&self) -> (usize, usize) {
        match self {
            Matrix::F32(w) => w.dim(),
            Matrix::F16(w) => w.dim(),
        }
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        match self {
            Matrix::F32(w) => size_of::<f32>() * w.len(),
            Matrix::F16(w) => size_of::<f16>() * w.len(),
        }
    }

    /// Views the matrix in f32. Half-precision weights are widened into `widened`.
    pub(super) fn view<'a>(&'a self, widened: &'a mut Vec<f32>) -> ArrayView2<'a, f32> {
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
pub(super) const CODE_MACS_PER_MAC: usize = 4;

/// Adds the bias to each row and clamps.
pub(super) struct AddBiasAndClamp<'a> {
    pub(super) rows: &'a mut [f32],
    pub(super) bias: &'a [f32],
    pub(super) clamp: Clamp,
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
