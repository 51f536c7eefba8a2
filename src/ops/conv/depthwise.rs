//! Depthwise convolution: every channel has a kernel of its own, so there is no product of matrices in it.
//!
//! Four rows of the image are interleaved, so that the bytes of each channel lie side by side as the instructions want
//! them: a *quad*. A *band* of output rows shares its quads: what a kernel of three rows leaves idle of four, the next
//! output row uses. Each tap of an output is then one product of 16 channels by four rows.
//!
//! ```text
//! band of rows → quads [rows / 4][columns][channels][4] → sums of a few outputs → epilogue → out
//! ```

use alloc::{vec, vec::Vec};
use core::ops::Range;

use ndarray::ArrayRef4;

use crate::arch::{
    CHANNELS, Interleave, Isa, Kernel, Line, QuadBytes, QuadSums, Quads, Task, ToBytes, as_bytes_mut, with_kernel,
};
use crate::gemm::{self, Byte, Epilogue, FormulaToBytes, TileRows};
use crate::window::{Placed, Window};

/// The bytes of quads that are made at a time, if at least a line of each column: they stay in the first-level cache.
const QUADS: usize = 8 * 1024;

/// The accumulators that are summed at a time.
const TILE: usize = 4096;

/// Weights of a depthwise convolution, packed for bands of output rows.
#[derive(Debug, Clone)]
pub(super) struct DepthwiseWeights {
    isa: Isa,
    outputs: usize,
    /// Output channels of each channel of the image.
    multiplier: usize,
    /// Output rows of a band, and quads of rows that they need.
    band: usize,
    quads: usize,
    /// For each tap of an output row the quad of rows and the column of the kernel.
    taps: Vec<(usize, usize)>,
    /// `[channels / 16][band][taps]` lines.
    lines: Vec<Line>,
    /// `Σ (w - w_zero)` of each output channel.
    sums: Vec<i32>,
    /// The greatest distance of a weight's code from its zero point.
    reach: i64,
}

impl DepthwiseWeights {
    /// Packs weights `[out, kh, kw, 1]` with one zero point, or one for each output channel.
    pub(super) fn new<W: Byte>(
        isa: Isa,
        codes: &ArrayRef4<W>,
        zero_points: &[W],
        window: &Window,
        groups: usize,
    ) -> Self {
        let (outputs, kh, kw, _) = codes.dim();
        let zero_point = |o: usize| if zero_points.len() == 1 { zero_points[0] } else { zero_points[o] };
        let quads = kh.div_ceil(4);
        let (stride, contiguous) = window.vertical();
        let band = if contiguous { 1 + (4 * quads - kh) / stride } else { 1 };
        // What is left of each weight when as much as a signed byte holds is taken away, again and again.
        let mut left = codes.map(|_| 0i32);
        for ((o, ky, kx, c), left) in left.indexed_iter_mut() {
            *left = codes[[o, ky, kx, c]].to_i32() - zero_point(o).to_i32();
        }
        let sums = left.outer_iter().map(|weights| weights.sum()).collect();
        let (mut taps, mut parts) = (Vec::new(), Vec::new());
        while parts.is_empty() || left.iter().any(|&weight| weight != 0) {
            let part = left.mapv(|weight| weight.clamp(-128, 127));
            left -= &part;
            parts.push(part);
            taps.extend((0..quads).flat_map(|quad| (0..kw).map(move |kx| (quad, kx))));
        }
        let mut lines = vec![[0; 64]; outputs.div_ceil(CHANNELS) * band * taps.len()];
        let per_part = quads * kw;
        for (at, line) in lines.iter_mut().enumerate() {
            let (tap, row, block) = (at % taps.len(), at / taps.len() % band, at / taps.len() / band);
            let (quad, kx) = taps[tap];
            for (i, weight) in line.iter_mut().enumerate() {
                let ky = (4 * quad + i % 4).wrapping_sub(row * stride);
                let place = [block * CHANNELS + i / 4, ky, kx, 0];
                *weight = parts[tap / per_part].get(place).map_or(0, |&weight| weight as u8);
            }
        }
        let reach = (0..outputs).map(|o| W::reach(zero_point(o))).max().unwrap_or(1);
        Self { isa, outputs, multiplier: outputs / groups, band, quads, taps, lines, sums, reach }
    }

    pub(super) fn reach(&self) -> i64 {
        self.reach
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        size_of::<Line>() * self.lines.len() + size_of::<i32>() * self.sums.len()
    }

    /// The convolution of images `[images, height, width, channels]`, checked.
    pub(super) fn run<X: Byte, E: Epilogue>(
        &self,
        codes: &[X],
        zero_point: X,
        window: Placed,
        epilogue: &E,
        out: &mut [E::Out],
        workspace: &mut DepthwiseSpace,
    ) {
        let image = window.output[0] * window.output[1] * self.outputs;
        let columns = (window.output[1] - 1) * window.strides[1] + (window.kernel[1] - 1) * window.dilations[1] + 1;
        // Padding and the spare channels of the last line are multiplied too, by zeros.
        let zero = zero_point.to_i32() + X::TO_UNSIGNED;
        let DepthwiseSpace { start, factors, fill, threads } = workspace;
        start.clear();
        start.extend(self.sums.iter().map(|sum| sum.wrapping_mul(zero).wrapping_neg()));
        if let Some(bias) = epilogue.bias() {
            start.iter_mut().zip(bias).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
        start.resize(self.outputs.next_multiple_of(CHANNELS), 0);
        let to_bytes = epilogue.to_bytes();
        factors.clear();
        if let Some(FormulaToBytes { factors: all, .. }) = to_bytes {
            let factor = |o: usize| if all.len() == 1 { all[0] } else { all[o] };
            factors.extend((0..self.outputs).map(factor));
            factors.resize(self.outputs.next_multiple_of(CHANNELS), 0.0);
        }
        fill.clear();
        fill.resize(window.image[1] * self.outputs / self.multiplier, zero_point.to_i32() as u8);
        let bands = window.output[0].div_ceil(self.band);
        let job = Job {
            weights: self,
            codes: X::as_bytes(codes),
            flip: if X::TO_UNSIGNED == 0 { 0 } else { 0x80 },
            zero: zero as u8,
            fill,
            start,
            window,
            columns,
            bands,
            epilogue,
            to_bytes,
            factors,
        };
        let count = out.len() / image * bands;
        let parts = gemm::threads(out.len().saturating_mul(window.kernel[0] * window.kernel[1]));
        threads.resize_with(threads.len().max(parts), BandSpace::default);
        job.fork(0..count, out, &mut threads[..parts]);
    }
}

/// Memory of depthwise convolutions.
#[derive(Debug, Clone, Default)]
pub(super) struct DepthwiseSpace {
    start: Vec<i32>,
    factors: Vec<f32>,
    fill: Vec<u8>,
    threads: Vec<BandSpace>,
}

/// The memory of one thread.
#[derive(Debug, Clone, Default)]
struct BandSpace {
    quads: Vec<Line>,
    tile: Vec<i32>,
    offsets: Vec<usize>,
}

/// A convolution that is ready to run.
struct Job<'a, E: Epilogue> {
    weights: &'a DepthwiseWeights,
    codes: &'a [u8],
    /// What makes codes unsigned, and the zero point of those.
    flip: u8,
    zero: u8,
    /// A row of zero points, as the codes of the image are.
    fill: &'a [u8],
    start: &'a [i32],
    window: Placed,
    /// The columns that quads are made for, padding included.
    columns: usize,
    /// Bands of an image.
    bands: usize,
    epilogue: &'a E,
    to_bytes: Option<FormulaToBytes<'a>>,
    /// For each channel, as `start`, if there is a formula to bytes.
    factors: &'a [f32],
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
    fn fork(&self, bands: Range<usize>, out: &mut [E::Out], spaces: &mut [BandSpace]) {
        let threads = spaces.len();
        let at = bands.start + bands.len() * (threads / 2) / threads;
        if threads < 2 || at == bands.start {
            let space = &mut spaces[0];
            return with_kernel!(self.weights.isa, kernel => self.bands(kernel, bands, out, space));
        }
        let (first, second) = out.split_at_mut(self.offset(at) - self.offset(bands.start));
        let (first_spaces, second_spaces) = spaces.split_at_mut(threads / 2);
        gemm::join(
            || self.fork(bands.start..at, first, first_spaces),
            || self.fork(at..bands.end, second, second_spaces),
        );
    }

    fn bands<K: Kernel>(&self, kernel: K, bands: Range<usize>, out: &mut [E::Out], space: &mut BandSpace) {
        let BandSpace { quads, tile, offsets } = space;
        let DepthwiseWeights { outputs, band, .. } = *self.weights;
        let first = self.offset(bands.start);
        // Channels at a time, in whole lines.
        let all = outputs.next_multiple_of(CHANNELS);
        let fit = QUADS / (4 * self.weights.quads * self.columns).max(1);
        let chunk = (fit / 64 * 64).clamp(64, TILE).min(all);
        tile.resize(TILE.max(chunk.next_multiple_of(CHANNELS) * band), 0);
        for at in bands {
            let (image, row) = self.place(at);
            let rows = band.min(self.window.output[0] - row);
            let from = self.offset(at) - first;
            let out = &mut out[from..from + rows * self.window.output[1] * outputs];
            for first in (0..outputs).step_by(chunk) {
                let lines = (outputs - first).min(chunk).div_ceil(CHANNELS);
                let part = Part { image, row, rows, channels: first..outputs.min(first + chunk), lines };
                quads.resize(self.weights.quads * self.columns * lines, [0; 64]);
                self.fill_quads(kernel, &part, quads);
                offsets.clear();
                let dilation = self.window.dilations[1];
                let offset = |&(quad, kx): &(usize, usize)| (quad * self.columns + kx * dilation) * lines;
                offsets.extend(self.weights.taps.iter().map(offset));
                kernel.run(Sums { job: self, kernel, part, quads, offsets, tile, out });
            }
        }
    }

    /// Interleaves the rows of a band.
    fn fill_quads<K: Kernel>(&self, kernel: K, part: &Part, quads: &mut [Line]) {
        let Placed { strides, dilations, before, image: [height, width], .. } = self.window;
        let multiplier = self.weights.multiplier;
        let pixel = self.weights.outputs / multiplier;
        let inner = before[1].min(self.columns)..(before[1] + width).min(self.columns);
        for (quad, lines) in quads.chunks_exact_mut(self.columns * part.lines).enumerate() {
            let rows: [&[u8]; 4] = core::array::from_fn(|i| {
                let y = (part.row * strides[0] + (4 * quad + i) * dilations[0]).wrapping_sub(before[0]);
                let start = (part.image * height + y.min(height)) * width * pixel;
                if y < height { &self.codes[start..start + width * pixel] } else { self.fill }
            });
            for column in (0..inner.start).chain(inner.end..self.columns) {
                lines[column * part.lines..][..part.lines].fill([self.zero; 64]);
            }
            let flip = self.flip;
            let lines = &mut lines[inner.start * part.lines..inner.end * part.lines];
            if multiplier == 1 {
                let rows = rows.map(|row| &row[part.channels.start..]);
                let (pixels, channels) = (inner.len(), part.channels.len());
                // Pixels that follow one another on both sides are one.
                let joined = channels == pixel && pixel.is_multiple_of(CHANNELS);
                let (pixels, channels) = if joined { (1, channels * pixels) } else { (pixels, channels) };
                kernel.interleave(Interleave { rows, flip, pixels, pixel, channels, lines });
                continue;
            }
            for (x, lines) in lines.chunks_exact_mut(part.lines).enumerate() {
                for (quad, output) in lines.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(part.channels.clone()) {
                    *quad = rows.map(|row| row[x * pixel + output / multiplier] ^ flip);
                }
            }
        }
    }
}

/// A band of output rows, and of it some channels.
struct Part {
    image: usize,
    row: usize,
    rows: usize,
    channels: Range<usize>,
    /// The lines of these channels.
    lines: usize,
}

/// The outputs of a part, a few at a time.
struct Sums<'a, 'j, E: Epilogue, K> {
    job: &'a Job<'j, E>,
    kernel: K,
    part: Part,
    quads: &'a [Line],
    offsets: &'a [usize],
    tile: &'a mut [i32],
    out: &'a mut [E::Out],
}

impl<E: Epilogue, K: Kernel> Task for Sums<'_, '_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { job, kernel, part, quads, offsets, tile, out } = self;
        let DepthwiseWeights { outputs, band, .. } = *job.weights;
        let [height, width] = job.window.output;
        let (step, taps) = (job.window.strides[1] * part.lines, offsets.len());
        let first_block = part.channels.start / CHANNELS;
        let start = &job.start[part.channels.start..].as_chunks::<CHANNELS>().0[..part.lines];
        if K::REQUANTIZES_QUADS
            && let (Some(FormulaToBytes { formula, flip, .. }), Some(bytes)) = (job.to_bytes, as_bytes_mut(out))
        {
            let first = part.channels.start;
            let factors = &job.factors[first..].as_chunks::<CHANNELS>().0[..part.lines];
            let weights = &job.weights.lines[first_block * band * taps..][..part.lines * band * taps];
            let quads = Quads { outputs: width, lines: quads, step, offsets };
            let out = QuadBytes {
                bytes: &mut bytes[first..],
                rows: part.rows,
                channels: part.channels.len(),
                stride: outputs,
                row_stride: width * outputs,
            };
            kernel.requantize_quads(quads, weights, ToBytes { start, factors, formula, flip }, out);
            return;
        }
        let stride = part.lines * CHANNELS;
        let at_once = (TILE / (stride * part.rows)).max(1);
        let row_stride = at_once * stride;
        for x in (0..width).step_by(at_once) {
            let count = at_once.min(width - x);
            for (block, start) in start.iter().enumerate() {
                let weights = &job.weights.lines[(first_block + block) * band * taps..][..part.rows * taps];
                let quads = Quads { outputs: count, lines: &quads[x * step + block..], step, offsets };
                let sums = QuadSums { sums: &mut tile[block * CHANNELS..], stride, row_stride };
                kernel.multiply_quads(quads, weights, start, sums);
            }
            for row in 0..part.rows {
                let pixel = (part.image * height + part.row + row) * width + x;
                let (tile, out) = (&tile[row * row_stride..], &mut out[(row * width + x) * outputs..]);
                kernel.run(Finish { epilogue: job.epilogue, tile, stride, count, pixel, part: &part, out, outputs });
            }
        }
    }
}

/// The accumulators of a few pixels become outputs.
struct Finish<'a, E: Epilogue> {
    epilogue: &'a E,
    tile: &'a [i32],
    stride: usize,
    count: usize,
    pixel: usize,
    part: &'a Part,
    out: &'a mut [E::Out],
    /// Channels of an output pixel.
    outputs: usize,
}

impl<E: Epilogue> Task for Finish<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { epilogue, tile, stride, count, pixel, part, out, outputs } = self;
        let (first, len) = (part.channels.start, part.channels.len());
        let out = &mut out[first..];
        let tile = TileRows { rows: count, width: len, acc: tile, acc_stride: stride, out, out_stride: outputs };
        epilogue.store_rows(pixel, first, tile);
    }
}
