//! Depthwise convolution: every channel has a kernel of its own, so there is no product of matrices in it.
//!
//! Four rows of the image are interleaved, so that the bytes of each channel lie side by side as the instructions want
//! them: a *quad*. A *band* of output rows shares its quads: what a kernel of three rows leaves idle of four, the next
//! output row uses. Each tap of an output is then one product of 16 channels by four rows.
//!
//! ```text
//! band of rows → quads [rows / 4][columns][channels][4] → sums of a few outputs → epilogue → out
//! ```
//!
//! | file | content |
//! |---|---|
//! | `mod` | weights, and one convolution with them |
//! | `job` | bands, the parts of these that fit the cache, and their quads |
//! | `sums` | from quads to outputs |

mod job;
mod sums;

use alloc::{vec, vec::Vec};

use ndarray::ArrayRef4;

use crate::arch::{ByteStage, CHANNELS, Isa, Vector64};
use crate::gemm::{Epilogue, Int8};
use crate::threads;
use crate::window::{Placed, Window};
use job::Job;

/// One product takes as long as so many in a product of matrices.
const PRODUCTS: usize = 4;

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
    lines: Vec<Vector64>,
    /// `Σ (w - w_zero)` of each output channel.
    sums: Vec<i32>,
    /// The greatest distance of a weight's code from its zero point.
    reach: i64,
}

impl DepthwiseWeights {
    /// Packs weights `[out, kh, kw, 1]` with one zero point, or one for each output channel.
    pub(super) fn new<W: Int8>(
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
        let reach = (0..outputs).map(|o| W::max_abs_diff(zero_point(o))).max().unwrap_or(1);
        Self { isa, outputs, multiplier: outputs / groups, band, quads, taps, lines, sums, reach }
    }

    pub(super) fn max_abs_diff(&self) -> i64 {
        self.reach
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        size_of::<Vector64>() * self.lines.len() + size_of::<i32>() * self.sums.len()
    }

    /// The convolution of images `[images, height, width, channels]`, checked.
    pub(super) fn run<X: Int8, E: Epilogue>(
        &self,
        codes: &[X],
        zero_point: X,
        window: Placed,
        epilogue: &E,
        out: &mut [E::Out],
        workspace: &mut DepthwiseSpace,
    ) {
        let image = window.output[0] * window.output[1] * self.outputs;
        // Padding and the spare channels of the last line are multiplied too, by zeros.
        let zero = zero_point.to_i32() + X::SIGN_OFFSET;
        let DepthwiseSpace { start, factors, fill, threads } = workspace;
        start.clear();
        start.extend(self.sums.iter().map(|sum| sum.wrapping_mul(zero).wrapping_neg()));
        if let Some(bias) = epilogue.bias() {
            start.iter_mut().zip(bias).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
        start.resize(self.outputs.next_multiple_of(CHANNELS), 0);
        let to_bytes = epilogue.byte_stage();
        factors.clear();
        if let Some(ByteStage { multipliers: all, .. }) = to_bytes {
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
            flip: if X::SIGN_OFFSET == 0 { 0 } else { 0x80 },
            zero: zero as u8,
            fill,
            start,
            window,
            bands,
            epilogue,
            to_bytes,
            factors,
        };
        let count = out.len() / image * bands;
        let products = out.len().saturating_mul(window.kernel[0] * window.kernel[1]);
        let parts = threads::worth(products.saturating_mul(PRODUCTS));
        threads.resize_with(threads.len().max(parts), BandSpace::default);
        job.fork(0..count, out, &mut threads[..parts]);
    }
}

/// Arena of depthwise convolutions.
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
    quads: Vec<Vector64>,
    tile: Vec<i32>,
    offsets: Vec<usize>,
}
