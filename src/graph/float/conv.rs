//! [`Op::Conv`](crate::graph::Op::Conv) on floats.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::{AddBiasAndClamp, CODE_MACS_PER_MAC, Matrix, Weights};
use crate::affine::clamp_f32;
use crate::error::Result;
use crate::graph::kernel::{Kernel, Scratch, Values, ValuesMut, per_thread, resized};
use crate::graph::op::Clamp;
use crate::simd::{self, Task};
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
        let Placed { kernel: [kh, kw], image: [_, width], output: [_, columns], .. } = self.window;
        let channels = self.channels[0];
        let each = channels / self.groups;
        for (i, window) in rows.chunks_exact_mut((kh * kw * each).max(1)).enumerate() {
            let (y, x) = ((first + i) / columns, (first + i) % columns);
            let mut pixels = window.chunks_exact_mut(each);
            for ky in 0..kh {
                let row = self.window.source(0, y, ky);
                for kx in 0..kw {
                    let pixel = pixels.next().expect("a window has kh * kw pixels");
                    match (row, self.window.source(1, x, kx)) {
                        (Some(row), Some(column)) => {
                            let at = (row * width + column) * channels + group * each;
                            pixel.copy_from_slice(&image[at..at + each]);
                        }
                        _ => pixel.fill(zero),
                    }
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

/// The elements of an im2col block, which stays in L2.
const IM2COL_BLOCK: usize = 64 * 1024;

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
        for (group, weights) in self.weights.iter().enumerate() {
            let weights = weights.view(&mut scratch.widened);
            threads::each_part(y, channels, buffers, &|first, y, im2col| {
                self.group(group, weights, x, first, y, im2col);
            });
        }
        threads::each_part(y, channels, buffers, &|_, rows, _| {
            simd::run(AddBiasAndClamp { rows, bias: &self.bias, clamp: self.clamp });
        });
        Ok(())
    }
}

impl Im2colConv {
    /// Computes one group of channels of the output pixels from `first` on, counted over the batch.
    fn group(
        &self,
        group: usize,
        weights: ArrayView2<'_, f32>,
        x: &[f32],
        first: usize,
        y: &mut [f32],
        im2col: &mut Vec<f32>,
    ) {
        let g = &self.geometry;
        let (pixels, channels) = (g.output_pixels(), g.channels[1]);
        let (depth, out) = weights.dim();
        let count = y.len() / channels.max(1);
        let mut y = ArrayViewMut2::from_shape((count, channels), y).expect("lengths were planned");
        let mut y = y.slice_mut(s![.., group * out..(group + 1) * out]);
        if g.window.is_pointwise() && g.groups == 1 {
            let x = ArrayView2::from_shape((count, depth), &x[first * depth..][..count * depth]);
            return general_mat_mul(1.0, &x.expect("lengths were planned"), &weights, 0.0, &mut y);
        }
        let block = (IM2COL_BLOCK / depth.max(1)).max(1);
        let mut done = 0;
        while done < count {
            let (image, pixel) = ((first + done) / pixels, (first + done) % pixels);
            let rows = block.min(pixels - pixel).min(count - done);
            let im2col = resized(im2col, rows * depth);
            g.im2col(&x[image * g.input_len()..][..g.input_len()], group, pixel, im2col, 0.0);
            let im2col = ArrayView2::from_shape((rows, depth), &*im2col).expect("lengths were planned");
            general_mat_mul(1.0, &im2col, &weights, 0.0, &mut y.slice_mut(s![done..done + rows, ..]));
            done += rows;
        }
    }
}

/// Depthwise convolution: one filter per channel.
#[derive(Debug)]
struct Depthwise {
    geometry: Geometry,
    /// `[height * width, channels]`.
    weights: Matrix,
    bias: Vec<f32>,
    clamp: Clamp,
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
            simd::run(DepthwiseRows { geometry: g, weights, bias: &self.bias, clamp: self.clamp, x, first_row, y });
        });
        Ok(())
    }
}

/// Computes the output rows from `first_row` on, counted over the batch.
struct DepthwiseRows<'a> {
    geometry: &'a Geometry,
    weights: &'a [f32],
    bias: &'a [f32],
    clamp: Clamp,
    x: &'a [f32],
    first_row: usize,
    y: &'a mut [f32],
}

impl Task for DepthwiseRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const BLOCK: usize = 32;
        let Self { geometry: g, weights, bias, clamp, x, first_row, y } = self;
        let Placed { kernel: [kh, kw], image: [_, width], output: [height, out_width], .. } = g.window;
        let (channels, (low, high)) = (g.channels[0], clamp.bounds());
        // The offsets of the window's pixels in the image and of their weights.
        let mut offsets = Vec::with_capacity(kh * kw);
        for (pixel, y) in y.chunks_exact_mut(channels.max(1)).enumerate() {
            let (row, column) = (first_row + pixel / out_width, pixel % out_width);
            let (image, row) = (&x[row / height * g.input_len()..], row % height);
            offsets.clear();
            for ky in 0..kh {
                let Some(iy) = g.window.source(0, row, ky) else { continue };
                for kx in 0..kw {
                    let Some(ix) = g.window.source(1, column, kx) else { continue };
                    offsets.push(((iy * width + ix) * channels, (ky * kw + kx) * channels));
                }
            }
            let (blocks, rest) = y.as_chunks_mut::<BLOCK>();
            let first_of_rest = channels - rest.len();
            for (k, y) in blocks.iter_mut().enumerate() {
                let mut acc = [0f32; BLOCK];
                acc.copy_from_slice(&bias[k * BLOCK..(k + 1) * BLOCK]);
                for &(x, w) in &offsets {
                    let x = &image[x + k * BLOCK..][..BLOCK];
                    let w = &weights[w + k * BLOCK..][..BLOCK];
                    for i in 0..BLOCK {
                        acc[i] += x[i] * w[i];
                    }
                }
                for acc in &mut acc {
                    *acc = clamp_f32(*acc, low, high);
                }
                *y = acc;
            }
            for (c, y) in (first_of_rest..).zip(rest) {
                let mut acc = bias[c];
                for &(x, w) in &offsets {
                    acc += image[x + c] * weights[w + c];
                }
                *y = clamp.apply(acc);
            }
        }
    }
}
