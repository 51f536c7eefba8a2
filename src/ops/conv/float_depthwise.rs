//! Depthwise convolution on floats: one filter per channel.

use alloc::vec::Vec;

use super::float::Geometry;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::float_weights::{CODE_MACS_PER_MAC, Matrix};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut, per_thread};
use crate::simd::{Isa, KernelPositionsF32, Target, Task, Vector, with_vector};
use crate::threads;
use crate::window::Placed;

#[derive(Debug)]
pub(super) struct Depthwise {
    pub(super) geometry: Geometry,
    /// `[height * width, channels]`.
    pub(super) weights: Matrix,
    pub(super) bias: Vec<f32>,
    pub(super) clamp: Clamp,
}

impl Kernel for Depthwise {
    fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes() + size_of_val(&self.bias[..])
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let g = &self.geometry;
        let weights = self.weights.view(&mut scratch.widened);
        let weights = weights.as_slice().expect("weights are row-major");
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        let threads = threads::worth(y.len().saturating_mul(self.weights.dim().0).saturating_mul(CODE_MACS_PER_MAC));
        let row_len = g.window.output[1] * g.channels[1];
        threads::each_part(y, row_len, per_thread(&mut scratch.im2col, threads), &|first_row, y, _| {
            let rows = Rows { geometry: g, weights, bias: &self.bias, bounds: self.clamp.bounds(), x, first_row, y };
            with_vector!(Isa::current(), v => v.run(OnSet { v, rows }));
        });
        Ok(())
    }
}

/// Channels that are computed for a whole row before the next ones, so that their pixels stay in L1.
const CHANNELS: usize = 64;

/// Output rows from `first_row` on, counted over the batch.
struct Rows<'a> {
    geometry: &'a Geometry,
    weights: &'a [f32],
    bias: &'a [f32],
    bounds: (f32, f32),
    x: &'a [f32],
    first_row: usize,
    y: &'a mut [f32],
}

/// Computes rows of outputs.
struct OnSet<'a, V> {
    v: V,
    rows: Rows<'a>,
}

impl<'a, V: Vector> Task for OnSet<'a, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { v, rows: Rows { geometry: g, weights, bias, bounds, x, first_row, y } } = self;
        let Placed { kernel: [_, kw], strides, dilations, image: [_, width], output: [height, columns], .. } = g.window;
        let (channels, inside) = (g.channels[0], g.window.inside(1));
        for (row, y) in (first_row..).zip(y.chunks_exact_mut((columns * channels).max(1))) {
            let (image, row) = (&x[row / height * g.input_len()..][..g.input_len()], row % height);
            let (ky, (kernel_rows, iy)) = (g.window.kernel_range(0, row).start, g.window.first_pixel(0, row));
            for first in (0..channels).step_by(CHANNELS) {
                let bias = &bias[first..channels.min(first + CHANNELS)];
                let mut column = 0;
                while column < columns {
                    // Outputs whose whole windows lie inside the image see the same kernel positions.
                    let outputs = if inside.contains(&column) { inside.end - column } else { 1 };
                    let kx = g.window.kernel_range(1, column).start;
                    let (kernel_columns, ix) = g.window.first_pixel(1, column);
                    // Without kernel positions, nothing is read.
                    let from = |values: &'a [f32], at: usize| values.get(at * channels + first..).unwrap_or_default();
                    let positions = KernelPositionsF32 {
                        kernel: [kernel_rows, kernel_columns],
                        x: from(image, iy * width + ix),
                        x_steps: [dilations[0] * width * channels, dilations[1] * channels],
                        x_step: strides[1] * channels,
                        weights: from(weights, ky * kw + kx),
                        weight_steps: [kw * channels, channels],
                        bias,
                        bounds,
                        outputs,
                        y_step: channels,
                    };
                    positions.compute(v, &mut y[column * channels + first..]);
                    column += outputs;
                }
            }
        }
    }
}
