//! [`Op::Linear`](crate::graph::Op::Linear) on floats.

use alloc::vec::Vec;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};

use super::{AddBiasAndClamp, Matrix, Weights};
use crate::error::Result;
use crate::graph::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::graph::op::Clamp;
use crate::simd::{self, Task};

/// Below this batch size, a GEMV per image is faster than a GEMM, which packs the weights.
const MIN_GEMM_ROWS: usize = 4;

#[derive(Debug)]
pub(super) struct Linear {
    weights: Matrix,
    bias: Vec<f32>,
    clamp: Clamp,
}

impl Linear {
    pub(super) fn new(weights: &Weights, bias: Option<Vec<f32>>, clamp: Clamp) -> Self {
        let weights = weights.matrix(0, 1);
        let bias = bias.unwrap_or_else(|| alloc::vec![0.0; weights.dim().1]);
        Self { weights, bias, clamp }
    }
}

impl Kernel for Linear {
    fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes() + size_of_val(&self.bias[..])
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let (depth, out) = self.weights.dim();
        let weights = self.weights.view(&mut scratch.widened);
        let x = ArrayView2::from_shape((images, depth), inputs[0].as_slice::<f32>()).expect("lengths were planned");
        let y = output.into_slice::<f32>();
        if images < MIN_GEMM_ROWS {
            for (x, y) in x.rows().into_iter().zip(y.chunks_exact_mut(out.max(1))) {
                simd::run(Gemv { x, weights, y });
            }
            simd::run(AddBiasAndClamp { rows: y, bias: &self.bias, clamp: self.clamp });
            return Ok(());
        }
        let mut product = ArrayViewMut2::from_shape((images, out), &mut *y).expect("lengths were planned");
        general_mat_mul(1.0, &x, &weights, 0.0, &mut product);
        simd::run(AddBiasAndClamp { rows: y, bias: &self.bias, clamp: self.clamp });
        Ok(())
    }
}

/// GEMV: `y = x · weights`, accumulated over the rows of the weights.
struct Gemv<'a> {
    x: ArrayView1<'a, f32>,
    weights: ArrayView2<'a, f32>,
    y: &'a mut [f32],
}

impl Task for Gemv<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Some(weights) = self.weights.as_slice() else { return };
        self.y.fill(0.0);
        for (x, w) in self.x.iter().zip(weights.chunks_exact(self.y.len().max(1))) {
            for (y, w) in self.y.iter_mut().zip(w) {
                *y += x * w;
            }
        }
    }
}
