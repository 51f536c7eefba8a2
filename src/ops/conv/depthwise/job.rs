//! The loops of a depthwise convolution: bands of output rows, and of them parts whose quads stay in the first-level
//! cache.

use core::ops::Range;

use super::sums::Sums;
use super::{BandSpace, DepthwiseWeights};
use crate::affine::RequantizeFloat;
use crate::arch::{ByteStage, CHANNELS, Interleave4, Kernel, Vector64, with_kernel};
use crate::gemm::Epilogue;
use crate::threads::join;
use crate::window::Placed;

/// The bytes of quads that are made at a time: they stay in the first-level cache.
const QUADS: usize = 16 * 1024;

/// Up to so many channels are interleaved together: then rows are read without gaps.
const JOINED: usize = 192;

/// Of more channels as many as a line of the cache holds, or a multiple.
const CHUNK: usize = 64;

/// A convolution that is ready to run.
pub(super) struct Job<'a, E: Epilogue> {
    pub(super) weights: &'a DepthwiseWeights,
    pub(super) codes: &'a [u8],
    /// What makes codes unsigned, and the zero point of those.
    pub(super) flip: u8,
    pub(super) zero: u8,
    /// A row of zero points, as the codes of the image are.
    pub(super) fill: &'a [u8],
    pub(super) start: &'a [i32],
    pub(super) window: Placed,
    /// Bands of an image.
    pub(super) bands: usize,
    pub(super) epilogue: &'a E,
    pub(super) to_bytes: Option<ByteStage<'a, RequantizeFloat>>,
    /// For each channel, as `start`, if there is a formula to bytes.
    pub(super) factors: &'a [f32],
}

/// Of a band of output rows some outputs of each row and some channels of these.
pub(super) struct Part {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) xs: Range<usize>,
    pub(super) channels: Range<usize>,
}

impl Part {
    /// The lines of its channels.
    pub(super) fn lines(&self) -> usize {
        self.channels.len().div_ceil(CHANNELS)
    }
}

impl<E: Epilogue> Job<'_, E> {
    /// The image and its first output row of a band.
    fn place(&self, band: usize) -> (usize, usize) {
        (band / self.bands, band % self.bands * self.weights.band)
    }

    /// The outputs before a band.
    fn offset(&self, band: usize) -> usize {
        let (image, row) = self.place(band);
        (image * self.window.output[0] + row) * self.window.output[1] * self.weights.outputs
    }

    /// Halves the bands until there is a part for each of `spaces`.
    pub(super) fn fork(&self, bands: Range<usize>, out: &mut [E::Out], spaces: &mut [BandSpace]) {
        let threads = spaces.len();
        let at = bands.start + bands.len() * (threads / 2) / threads;
        if threads < 2 || at == bands.start {
            let space = &mut spaces[0];
            return with_kernel!(self.weights.isa, kernel => self.bands(kernel, bands, out, space));
        }
        let (first, second) = out.split_at_mut(self.offset(at) - self.offset(bands.start));
        let (first_spaces, second_spaces) = spaces.split_at_mut(threads / 2);
        join(|| self.fork(bands.start..at, first, first_spaces), || self.fork(at..bands.end, second, second_spaces));
    }

    /// The columns that so many outputs of a row see.
    fn columns(&self, outputs: usize) -> usize {
        let Placed { kernel, strides, dilations, .. } = self.window;
        (outputs - 1) * strides[1] + (kernel[1] - 1) * dilations[1] + 1
    }

    /// The outputs of a row and the channels that are computed at a time.
    fn part_size(&self) -> (usize, usize) {
        let (width, channels) = (self.window.output[1], self.weights.outputs);
        let chunk = if channels <= JOINED { channels.next_multiple_of(CHANNELS) } else { CHUNK };
        let fit = QUADS / (4 * self.weights.quads * chunk);
        if self.columns(width) > fit {
            // In fours, as kernels like them.
            let outputs = fit.saturating_sub(self.columns(1)) / self.window.strides[1] + 1;
            return (outputs.next_multiple_of(4).min(width), chunk);
        }
        (width, fit / self.columns(width) * chunk)
    }

    fn bands<K: Kernel>(&self, kernel: K, bands: Range<usize>, out: &mut [E::Out], space: &mut BandSpace) {
        let DepthwiseWeights { outputs, band, .. } = *self.weights;
        let [height, width] = self.window.output;
        let first = self.offset(bands.start);
        let (xs_at_once, channels_at_once) = self.part_size();
        for at in bands {
            let (image, row) = self.place(at);
            let rows = band.min(height - row);
            let from = self.offset(at) - first;
            let out = &mut out[from..from + rows * width * outputs];
            for x in (0..width).step_by(xs_at_once) {
                for channel in (0..outputs).step_by(channels_at_once) {
                    let xs = x..width.min(x + xs_at_once);
                    let channels = channel..outputs.min(channel + channels_at_once);
                    self.part(kernel, Part { image, row, rows, xs, channels }, out, space);
                }
            }
        }
    }

    fn part<K: Kernel>(&self, kernel: K, part: Part, out: &mut [E::Out], space: &mut BandSpace) {
        let BandSpace { quads, tile, offsets } = space;
        let (columns, lines) = (self.columns(part.xs.len()), part.lines());
        let len = self.weights.quads * columns * lines;
        quads.resize(len.max(quads.len()), [0; 64]);
        let quads = &mut quads[..len];
        self.fill_quads(kernel, &part, columns, quads);
        offsets.clear();
        let dilation = self.window.dilations[1];
        let offset = |&(quad, kx): &(usize, usize)| (quad * columns + kx * dilation) * lines;
        offsets.extend(self.weights.taps.iter().map(offset));
        kernel.run(Sums { job: self, kernel, part, quads, offsets, tile, out });
    }

    /// Interleaves the rows of a part.
    fn fill_quads<K: Kernel>(&self, kernel: K, part: &Part, columns: usize, quads: &mut [Vector64]) {
        let Placed { strides, dilations, before, image: [height, width], .. } = self.window;
        let (multiplier, lines_of_pixel) = (self.weights.multiplier, part.lines());
        let pixel = self.weights.outputs / multiplier;
        // The columns of the part that the image has, and the first of the image's.
        let left = part.xs.start * strides[1];
        let inner = before[1].saturating_sub(left).min(columns)..(before[1] + width).saturating_sub(left).min(columns);
        let from = (left + inner.start).saturating_sub(before[1]).min(width);
        for (quad, lines) in quads.chunks_exact_mut(columns * lines_of_pixel).enumerate() {
            let rows: [&[u8]; 4] = core::array::from_fn(|i| {
                let y = (part.row * strides[0] + (4 * quad + i) * dilations[0]).wrapping_sub(before[0]);
                let start = (part.image * height + y.min(height)) * width * pixel;
                let row = if y < height { &self.codes[start..start + width * pixel] } else { self.fill };
                &row[from * pixel..]
            });
            lines[..inner.start * lines_of_pixel].fill([self.zero; 64]);
            lines[inner.end * lines_of_pixel..].fill([self.zero; 64]);
            let flip = self.flip;
            let lines = &mut lines[inner.start * lines_of_pixel..inner.end * lines_of_pixel];
            if multiplier == 1 && !inner.is_empty() {
                let rows = rows.map(|row| &row[part.channels.start..]);
                let (pixels, channels) = (inner.len(), part.channels.len());
                // Pixels that follow one another on both sides are one.
                let joined = channels == pixel && pixel.is_multiple_of(CHANNELS);
                let (pixels, channels) = if joined { (1, channels * pixels) } else { (pixels, channels) };
                kernel.interleave4(Interleave4 { rows, sign_xor: flip, pixels, pixel, channels, vectors: lines });
                continue;
            }
            for (x, lines) in lines.chunks_exact_mut(lines_of_pixel).enumerate() {
                for (quad, output) in lines.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(part.channels.clone()) {
                    *quad = rows.map(|row| row[x * pixel + output / multiplier] ^ flip);
                }
            }
        }
    }
}
