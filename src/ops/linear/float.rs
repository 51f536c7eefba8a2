//! Linear layer on floats.

use alloc::vec::Vec;

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::float_matmul;
use crate::ops::float_weights::{AddBiasAndClamp, Matrix, Weights};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::simd;

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
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        let rows = x.len().checked_div(depth).unwrap_or(images);
        let x = ArrayView2::from_shape((rows, depth), x).expect("lengths were planned");
        let product = ArrayViewMut2::from_shape((rows, out), &mut *y).expect("lengths were planned");
        float_matmul(x, weights, product);
        simd::run(AddBiasAndClamp { rows: y, bias: &self.bias, clamp: self.clamp });
        Ok(())
    }
}
