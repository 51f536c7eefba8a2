//! Depthwise convolution: one kernel per channel.
//!
//! Four rows of the image are interleaved, so that the four bytes of a channel are adjacent, as dot-product
//! instructions (VNNI) read them. One instruction then multiplies 16 channels by four kernel rows. A block of output
//! rows shares the interleaved rows: a kernel of three rows leaves one of the four idle, which the next output row
//! uses.
//!
//! ```text
//! block of rows → interleaved [rows / 4][columns][channels][4] → accumulators in registers → output stage → out
//! ```
//!
//! | file | content |
//! |---|---|
//! | `mod` | packed weights, and a convolution with them |
//! | `job` | row blocks, tiles that fit the L1 cache, interleaving, and the products of a tile |

mod job;

use alloc::{vec, vec::Vec};

use ndarray::{ArrayRef4, ArrayViewMut2};

use crate::gemm::{self, Epilogue, Int8};
use crate::simd::{CHANNELS, Isa, Stage, Vector64};
use crate::threads;
use crate::window::{Placed, Window};
use job::Job;

/// Cost of a multiply-accumulate, in multiply-accumulates of a GEMM.
const COST: usize = 4;

/// Weights of a depthwise convolution, packed for blocks of output rows.
#[derive(Debug, Clone)]
pub(super) struct DepthwiseWeights {
    isa: Isa,
    outputs: usize,
    /// Output channels of each channel of the image.
    multiplier: usize,
    /// Output rows per block.
    block_rows: usize,
    /// Groups of four image rows per block.
    row_groups: usize,
    /// The row group and the kernel column of each dot product of an output.
    steps: Vec<(usize, usize)>,
    /// `[channels / 16][block_rows][steps]` vectors.
    vectors: Vec<Vector64>,
    /// `Σ (w - w_zero)` per output channel, for zero-point compensation.
    sums: Vec<i32>,
    /// The greatest `|w - w_zero|` that the codes of weights allow.
    max_abs_diff: i64,
}

impl DepthwiseWeights {
    /// Packs weights `[out, kh, kw, 1]` with one zero point, or one per output channel.
    pub(super) fn new<W: Int8>(
        isa: Isa,
        codes: &ArrayRef4<W>,
        zero_points: &[W],
        window: &Window,
        groups: usize,
    ) -> Self {
        let (outputs, kh, kw, _) = codes.dim();
        let zero_point = |o: usize| if zero_points.len() == 1 { zero_points[0] } else { zero_points[o] };
        let row_groups = kh.div_ceil(4);
        let (stride, contiguous) = window.vertical();
        let block_rows = if contiguous { 1 + (4 * row_groups - kh) / stride } else { 1 };
        // Centred weights have 9 bits. They are split into a sum of terms of 8 bits, usually one.
        let mut rest = codes.map(|_| 0i32);
        for ((o, ky, kx, c), rest) in rest.indexed_iter_mut() {
            *rest = codes[[o, ky, kx, c]].to_i32() - zero_point(o).to_i32();
        }
        let sums = rest.outer_iter().map(|weights| weights.sum()).collect();
        let (mut steps, mut terms) = (Vec::new(), Vec::new());
        while terms.is_empty() || rest.iter().any(|&weight| weight != 0) {
            let term = rest.mapv(|weight| weight.clamp(-128, 127));
            rest -= &term;
            terms.push(term);
            steps.extend((0..row_groups).flat_map(|group| (0..kw).map(move |kx| (group, kx))));
        }
        let mut vectors = vec![[0; 64]; outputs.div_ceil(CHANNELS) * block_rows * steps.len()];
        let per_term = row_groups * kw;
        for (at, vector) in vectors.iter_mut().enumerate() {
            let (step, row, block) = (at % steps.len(), at / steps.len() % block_rows, at / steps.len() / block_rows);
            let (group, kx) = steps[step];
            for (i, weight) in vector.iter_mut().enumerate() {
                let ky = (4 * group + i % 4).wrapping_sub(row * stride);
                let place = [block * CHANNELS + i / 4, ky, kx, 0];
                *weight = terms[step / per_term].get(place).map_or(0, |&weight| weight as u8);
            }
        }
        let max_abs_diff = (0..outputs).map(|o| W::max_abs_diff(zero_point(o))).max().unwrap_or(1);
        Self { isa, outputs, multiplier: outputs / groups, block_rows, row_groups, steps, vectors, sums, max_abs_diff }
    }

    pub(super) fn max_abs_diff(&self) -> i64 {
        self.max_abs_diff
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        size_of::<Vector64>() * self.vectors.len() + size_of::<i32>() * self.sums.len()
    }

    /// Convolves images `[images, height, width, channels]` whose shapes were checked.
    pub(super) fn run<X: Int8, E: Epilogue>(
        &self,
        codes: &[X],
        zero_point: X,
        window: Placed,
        epilogue: &E,
        out: &mut [E::Out],
        workspace: &mut DepthwiseScratch,
    ) {
        let image = window.output[0] * window.output[1] * self.outputs;
        // Padding and the spare channels of the last vector are multiplied as well; they contribute 0.
        let signed = X::SIGN_OFFSET != 0;
        let (sign_offset, zero) = match (signed, self.isa.blocking().signed_lhs == Some(true)) {
            (true, false) => (0x80, zero_point.to_i32() + 128),
            (false, true) => (0x80, zero_point.to_i32() - 128),
            _ => (0, zero_point.to_i32()),
        };
        let DepthwiseScratch { start, padding_row, threads } = workspace;
        start.clear();
        start.extend(self.sums.iter().map(|sum| sum.wrapping_mul(zero).wrapping_neg()));
        if let Some(bias) = epilogue.bias() {
            start.iter_mut().zip(bias).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
        start.resize(self.outputs.next_multiple_of(CHANNELS), 0);
        padding_row.clear();
        padding_row.resize(window.image[1] * self.outputs / self.multiplier, zero_point.to_i32() as u8);
        let blocks = window.output[0].div_ceil(self.block_rows);
        let job = Job {
            weights: self,
            codes: X::as_bytes(codes),
            sign_offset,
            zero: zero as u8,
            padding_row,
            start,
            window,
            blocks,
        };
        let products = out.len().saturating_mul(window.kernel[0] * window.kernel[1]);
        let thread_count = threads::worth(products.saturating_mul(COST));
        threads.resize_with(threads.len().max(thread_count), ThreadScratch::default);
        let count = out.len() / image * blocks;
        let out = ArrayViewMut2::from_shape((out.len() / self.outputs, self.outputs), out).expect("whole pixels");
        epilogue.run(Call { job, count, scratches: &mut threads[..thread_count] }, out);
    }
}

/// A convolution of `count` row blocks, which waits for its output stage.
struct Call<'a> {
    job: Job<'a>,
    count: usize,
    scratches: &'a mut [ThreadScratch],
}

impl gemm::Job for Call<'_> {
    fn run<S: Stage>(self, stage: S, out: ArrayViewMut2<'_, S::Out>) {
        let out = out.into_slice().expect("a contiguous output");
        self.job.fork(stage, 0..self.count, out, self.scratches);
    }
}

/// Scratch memory of depthwise convolutions.
#[derive(Debug, Clone, Default)]
pub(super) struct DepthwiseScratch {
    start: Vec<i32>,
    padding_row: Vec<u8>,
    threads: Vec<ThreadScratch>,
}

/// Scratch memory of one thread.
#[derive(Debug, Clone, Default)]
struct ThreadScratch {
    interleaved: Vec<Vector64>,
    offsets: Vec<usize>,
}
