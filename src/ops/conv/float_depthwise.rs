//! Depthwise convolution on floats: one filter per channel.

use alloc::vec::Vec;

use super::float::Geometry;
use crate::affine::clamp_f32;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::float_weights::{CODE_MACS_PER_MAC, Matrix};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut, per_thread};
use crate::simd::{self, Task};
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
            simd::run(Rows { geometry: g, weights, bias: &self.bias, clamp: self.clamp, x, first_row, y });
        });
        Ok(())
    }
}

/// Neighbouring outputs whose whole windows lie inside the image are computed together and share loads of weights.
const TILE: usize = 4;

/// Channels that are computed for a whole row before the next ones: their weights and pixels stay in L1.
const CHANNELS: usize = 64;

/// Computes the output rows from `first_row` on, counted over the batch.
struct Rows<'a> {
    geometry: &'a Geometry,
    weights: &'a [f32],
    bias: &'a [f32],
    clamp: Clamp,
    x: &'a [f32],
    first_row: usize,
    y: &'a mut [f32],
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { geometry: g, weights, bias, clamp, x, first_row, y } = self;
        let Placed { kernel: [_, kw], strides, dilations, image: [_, width], output: [height, columns], .. } = g.window;
        let (channels, inside) = (g.channels[0], g.window.inside(1));
        for (row, y) in (first_row..).zip(y.chunks_exact_mut((columns * channels).max(1))) {
            let (image, row) = (&x[row / height * g.input_len()..], row % height);
            let (ky, (rows, iy)) = (g.window.kernel_range(0, row).start, g.window.first_pixel(0, row));
            for first in (0..channels).step_by(CHANNELS) {
                let end = channels.min(first + CHANNELS);
                let mut column = 0;
                while column < columns {
                    let (kx, (kernel_columns, ix)) =
                        (g.window.kernel_range(1, column).start, g.window.first_pixel(1, column));
                    let pixels = Pixels {
                        taps: [rows, kernel_columns],
                        first: [(iy * width + ix) * channels, (ky * kw + kx) * channels],
                        x: image,
                        x_steps: [dilations[0] * width * channels, dilations[1] * channels],
                        weights,
                        weight_steps: [kw * channels, channels],
                        next: strides[1] * channels,
                        bias,
                        bounds: clamp.bounds(),
                    };
                    let y = &mut y[column * channels..];
                    if inside.contains(&column) && inside.contains(&(column + TILE - 1)) {
                        let done = pixels.blocks::<TILE, 16>(first, end, y);
                        pixels.rest::<TILE>(done, end, y);
                        column += TILE;
                    } else {
                        let done = pixels.blocks::<1, CHANNELS>(first, end, y);
                        let done = pixels.blocks::<1, 16>(done, end, y);
                        pixels.rest::<1>(done, end, y);
                        column += 1;
                    }
                }
            }
        }
    }
}

/// Neighbouring output pixels of one row. Steps are pairs: from one row of the kernel to the next, and from one column
/// to the next.
struct Pixels<'a> {
    /// The rows and columns of the kernel that lie inside the image.
    taps: [usize; 2],
    /// The offsets of the first pixel of the first window and of its weights. Not read if all of it is padding.
    first: [usize; 2],
    /// The image.
    x: &'a [f32],
    x_steps: [usize; 2],
    weights: &'a [f32],
    weight_steps: [usize; 2],
    /// The distance from one window to the next.
    next: usize,
    bias: &'a [f32],
    bounds: (f32, f32),
}

impl Pixels<'_> {
    /// Computes blocks of `C` channels of `P` pixels, from channel `first` on. Returns the first channel that is left.
    #[inline(always)]
    fn blocks<const P: usize, const C: usize>(&self, mut first: usize, end: usize, y: &mut [f32]) -> usize {
        while first + C <= end {
            let bias: &[f32; C] = self.bias[first..].first_chunk().expect("a whole block is left");
            let mut acc = [*bias; P];
            for ky in 0..self.taps[0] {
                for kx in 0..self.taps[1] {
                    let (x, w) = self.at(ky, kx, first);
                    let w: [f32; C] = *w.first_chunk().expect("weights of all channels");
                    let x = &x[..(P - 1) * self.next + C];
                    for p in 0..P {
                        let x: &[f32; C] = x[p * self.next..].first_chunk().expect("pixels of all channels");
                        for c in 0..C {
                            acc[p][c] += x[c] * w[c];
                        }
                    }
                }
            }
            for (p, acc) in acc.iter_mut().enumerate() {
                for acc in acc.iter_mut() {
                    *acc = clamp_f32(*acc, self.bounds.0, self.bounds.1);
                }
                y[p * self.bias.len() + first..][..C].copy_from_slice(acc);
            }
            first += C;
        }
        first
    }

    /// Computes the channels from `first` to `end`.
    #[inline(always)]
    fn rest<const P: usize>(&self, first: usize, end: usize, y: &mut [f32]) {
        if first == end {
            return;
        }
        for p in 0..P {
            let y = &mut y[p * self.bias.len()..][first..end];
            y.copy_from_slice(&self.bias[first..end]);
            for ky in 0..self.taps[0] {
                for kx in 0..self.taps[1] {
                    let (x, w) = self.at(ky, kx, first);
                    for ((y, x), w) in y.iter_mut().zip(&x[p * self.next..]).zip(w) {
                        *y += x * w;
                    }
                }
            }
            for y in y {
                *y = clamp_f32(*y, self.bounds.0, self.bounds.1);
            }
        }
    }

    /// The first window's pixel and its weights, from a channel on.
    #[inline(always)]
    fn at(&self, ky: usize, kx: usize, channel: usize) -> (&[f32], &[f32]) {
        let offset = |steps: [usize; 2]| ky * steps[0] + kx * steps[1] + channel;
        let [x, weights] = self.first;
        (&self.x[x + offset(self.x_steps)..], &self.weights[weights + offset(self.weight_steps)..])
    }
}
