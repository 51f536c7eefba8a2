//! Convolution on floats.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::float_depthwise::Depthwise;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::float_matmul;
use crate::ops::float_weights::{AddBiasAndClamp, CODE_MACS_PER_MAC, Matrix, Weights};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut, per_thread, resized};
use crate::simd;
use crate::threads;
use crate::window::{Placed, Window};

/// The geometry of a convolution or pooling on one NHWC image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) window: Placed,
    pub(crate) groups: usize,
    /// The channels of the input and of the output.
    pub(crate) channels: [usize; 2],
}

impl Geometry {
    /// Takes logical shapes that the graph has checked.
    pub(crate) fn new(kernel: [usize; 2], window: &Window, groups: usize, input: &[usize], output: &[usize]) -> Self {
        let placed = window.place(kernel, [input[2], input[3]]).expect("checked when the graph was made");
        Self { window: placed, groups, channels: [input[1], output[1]] }
    }

    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.channels == [self.groups; 2]
    }

    /// Im2col of one group of channels: copies the windows of output pixels from `first` on, one per row of `rows`.
    pub(crate) fn im2col<T: Copy>(&self, image: &[T], group: usize, first: usize, rows: &mut [T], zero: T) {
        let Placed { kernel: [kh, kw], dilations, image: [_, width], output: [_, columns], .. } = self.window;
        let channels = self.channels[0];
        let each = channels / self.groups;
        // The pixels under a row of the kernel are one run, unless other groups or pixels lie between them.
        let run = if dilations[1] == 1 && self.groups == 1 { kw } else { 1 };
        for (i, window) in rows.chunks_exact_mut((kh * kw * each).max(1)).enumerate() {
            let (y, x) = ((first + i) / columns, (first + i) % columns);
            let inside = self.window.kernel_range(1, x);
            for (ky, window) in window.chunks_exact_mut(kw * each).enumerate() {
                let Some(row) = self.window.source(0, y, ky) else {
                    window.fill(zero);
                    continue;
                };
                window[..inside.start * each].fill(zero);
                window[inside.end * each..].fill(zero);
                for kx in inside.clone().step_by(run) {
                    let column = self.window.source(1, x, kx).expect("inside the image");
                    let from = &image[(row * width + column) * channels + group * each..];
                    let len = run.min(inside.end - kx) * each;
                    window[kx * each..][..len].copy_from_slice(&from[..len]);
                }
            }
        }
    }

    pub(crate) fn input_len(&self) -> usize {
        self.window.image[0] * self.window.image[1] * self.channels[0]
    }

    pub(crate) fn output_pixels(&self) -> usize {
        self.window.output[0] * self.window.output[1]
    }

    pub(crate) fn output_len(&self) -> usize {
        self.output_pixels() * self.channels[1]
    }
}

/// Chooses the depthwise or the im2col kernel.
pub(super) fn kernel(geometry: Geometry, weights: &Weights, bias: Option<Vec<f32>>, clamp: Clamp) -> Box<dyn Kernel> {
    let bias = bias.unwrap_or_else(|| alloc::vec![0.0; geometry.channels[1]]);
    if geometry.is_depthwise() {
        // `[channels, 1, height, width]` as `[height * width, channels]`.
        return Box::new(Depthwise { geometry, weights: weights.matrix(0, 1), bias, clamp });
    }
    let weights = (0..geometry.groups).map(|group| weights.matrix(group, geometry.groups)).collect();
    Box::new(Im2colConv { geometry, weights, bias, clamp })
}

/// Convolution as a product of matrices: im2col of a block of windows times the weights.
#[derive(Debug)]
struct Im2colConv {
    geometry: Geometry,
    /// The weights `[depth, out]` of each group.
    weights: Vec<Matrix>,
    bias: Vec<f32>,
    clamp: Clamp,
}

/// The elements of the input of a block of rows, which stay in L2.
const BLOCK: usize = 64 * 1024;

/// Splits `rows` of this depth into equal blocks and returns the rows of a block.
///
/// It is no function of the number of threads, and each block is one product, so the order of sums does not depend on
/// the threads either.
fn block_rows(rows: usize, depth: usize) -> usize {
    let most = (BLOCK / depth.max(1)).clamp(32, 512);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

impl Kernel for Im2colConv {
    fn size_in_bytes(&self) -> usize {
        self.weights.iter().map(Matrix::size_in_bytes).sum::<usize>() + size_of_val(&self.bias[..])
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        let channels = self.geometry.channels[1];
        let depth = self.weights.first().map_or(0, |weights| weights.dim().0);
        let threads = threads::worth(y.len().saturating_mul(depth).saturating_mul(CODE_MACS_PER_MAC));
        let buffers = per_thread(&mut scratch.im2col, threads);
        let rows = block_rows(y.len() / channels.max(1), depth);
        for (group, weights) in self.weights.iter().enumerate() {
            let weights = weights.view(&mut scratch.widened);
            threads::each_part(y, channels * rows, buffers, &|first, y, im2col| {
                for (block, y) in (first..).zip(y.chunks_mut((channels * rows).max(1))) {
                    self.multiply(group, weights, x, block * rows, y, im2col);
                    if group + 1 == self.weights.len() {
                        simd::run(AddBiasAndClamp { rows: y, bias: &self.bias, clamp: self.clamp });
                    }
                }
            });
        }
        Ok(())
    }
}

impl Im2colConv {
    /// Computes the products of one group of channels for the output pixels from `first` on, counted over the batch.
    fn multiply(
        &self,
        group: usize,
        weights: ArrayView2<'_, f32>,
        x: &[f32],
        first: usize,
        y: &mut [f32],
        im2col: &mut Vec<f32>,
    ) {
        let g = &self.geometry;
        let channels = g.channels[1];
        let (depth, out) = weights.dim();
        let count = y.len() / channels.max(1);
        let rows = if g.window.is_pointwise() && g.groups == 1 {
            &x[first * depth..][..count * depth]
        } else {
            let rows = resized(im2col, count * depth);
            self.im2col(group, x, first, rows, depth);
            rows
        };
        let rows = ArrayView2::from_shape((count, depth), rows).expect("lengths were planned");
        let y = ArrayViewMut2::from_shape((count, channels), y).expect("lengths were planned");
        float_matmul(rows, weights, y.slice_move(s![.., group * out..(group + 1) * out]));
    }

    /// Copies the windows of output pixels from `first` on, counted over the batch.
    fn im2col(&self, group: usize, x: &[f32], first: usize, rows: &mut [f32], depth: usize) {
        let g = &self.geometry;
        let (pixels, count) = (g.output_pixels(), rows.len() / depth.max(1));
        let mut done = 0;
        while done < count {
            let (image, pixel) = ((first + done) / pixels, (first + done) % pixels);
            let next = count.min(done + pixels - pixel);
            let image = &x[image * g.input_len()..][..g.input_len()];
            g.im2col(image, group, pixel, &mut rows[done * depth..next * depth], 0.0);
            done = next;
        }
    }
}
