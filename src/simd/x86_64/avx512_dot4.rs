//! Depthwise convolution by dot4 on AVX-512: interleaves by shuffles, accumulates by `vpdpbusd`, requantizes in
//! registers.

use core::arch::x86_64::*;

use super::avx512_requantize::{StoreBytes, first, transposed};
use crate::simd::{ByteStage, CHANNELS, Dot4Input, Dot4Output, Interleave4, RequantizeOp, Vector64};

/// Outputs per step: their bytes of 16 channels fill a register.
const OUTPUTS: usize = 4;

/// Implements [`Kernel::dot4_requantize`](crate::simd::Kernel::dot4_requantize).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn dot4_requantize<F: RequantizeOp>(
    input: Dot4Input<'_>,
    weights: &[Vector64],
    start: &[[i32; CHANNELS]],
    stage: ByteStage<'_, F>,
    out: Dot4Output<'_>,
) {
    let (blocks, multipliers) = (start.len(), stage.multipliers.as_chunks().0);
    if blocks == 0 || input.outputs == 0 {
        return;
    }
    input.check(blocks);
    out.check(input.outputs);
    let weights_per_block = weights.len() / blocks;
    let all = multipliers.len() == blocks && out.rows * input.offsets.len() <= weights_per_block;
    assert!(all && out.channels.div_ceil(CHANNELS) == blocks, "weights, multipliers and memory for all blocks");
    let columns = TapColumns::detect(&input).filter(|_| input.outputs >= OUTPUTS);
    let Dot4Output { bytes, rows, channels, stride, row_stride } = out;
    let out = Out { to: bytes.as_mut_ptr(), channels, stride, row_stride };
    let (op, sign_xor) = (stage.op, stage.sign_xor);
    let args = Args { input, weights, weights_per_block, start, multipliers, op, sign_xor, out };
    // SAFETY: the checks above saw the vectors of all taps and outputs, and weights and memory for all rows.
    unsafe {
        match columns {
            Some(c @ TapColumns { groups: 1, stride: 1, .. }) => tap_rows::<F, 1, 3, 1, 2>(&args, c, rows),
            Some(c @ TapColumns { groups: 1, .. }) => tap_rows::<F, 1, 3, 2, 1>(&args, c, rows),
            Some(c @ TapColumns { stride: 1, .. }) => tap_rows::<F, 2, 5, 1, 1>(&args, c, rows),
            Some(c) => tap_rows::<F, 2, 5, 2, 1>(&args, c, rows),
            None => (0..rows).for_each(|row| any_taps(&args, row)),
        }
    }
}

/// Checked arguments of [`dot4_requantize`].
struct Args<'a, F> {
    input: Dot4Input<'a>,
    weights: &'a [Vector64],
    weights_per_block: usize,
    start: &'a [[i32; CHANNELS]],
    multipliers: &'a [[f32; CHANNELS]],
    op: F,
    sign_xor: u8,
    out: Out,
}

/// The memory of a [`Dot4Output`].
#[derive(Clone, Copy)]
struct Out {
    to: *mut u8,
    channels: usize,
    stride: usize,
    row_stride: usize,
}

/// Taps that form a 3 × 3 kernel in one group of four kernel rows, or a 5 × 5 kernel in two groups.
#[derive(Clone, Copy)]
struct TapColumns {
    groups: usize,
    /// Columns between neighbouring outputs: 1 or 2.
    stride: usize,
    /// Vectors from a column to the next.
    column: usize,
    /// Vectors from a group of rows to the next.
    plane: usize,
}

impl TapColumns {
    fn detect(input: &Dot4Input<'_>) -> Option<Self> {
        let (width, rows) = match input.offsets.len() {
            3 => (3, 1),
            10 => (5, 2),
            _ => return None,
        };
        let (column, plane) = (input.offsets[1] - input.offsets[0], input.offsets[input.offsets.len() - width]);
        let mut all = input.step == column || input.step == 2 * column;
        for (i, &offset) in input.offsets.iter().enumerate() {
            all &= offset == i / width * plane + i % width * column;
        }
        let stride = if input.step == column { 1 } else { 2 };
        all.then_some(Self { groups: rows, stride, column, plane })
    }
}

/// Computes the outputs of such a kernel in groups of `ROWS` rows.
///
/// # Safety
/// - `args` are checked, `columns` describes their taps, and a row has at least four outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn tap_rows<F: RequantizeOp, const GROUPS: usize, const WIDTH: usize, const STRIDE: usize, const ROWS: usize>(
    args: &Args<'_, F>,
    columns: TapColumns,
    rows: usize,
) {
    for row in (0..rows).step_by(ROWS) {
        // SAFETY: the caller checked the arguments, and rows `row..row + ROWS` exist.
        unsafe {
            if rows - row >= ROWS {
                row_group::<F, GROUPS, WIDTH, STRIDE, ROWS>(args, columns, row);
            } else {
                row_group::<F, GROUPS, WIDTH, STRIDE, 1>(args, columns, row);
            }
        }
    }
}

/// Computes the outputs of `ROWS` rows, which share input vectors.
///
/// # Safety
/// - Same as [`tap_rows`], and rows `row..row + ROWS` exist.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
unsafe fn row_group<
    F: RequantizeOp,
    const GROUPS: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const ROWS: usize,
>(
    args: &Args<'_, F>,
    columns: TapColumns,
    row: usize,
) {
    let Args { input, weights, weights_per_block, start, multipliers, out, .. } = args;
    let (store, outputs) = (StoreBytes::new(args.op, args.sign_xor), input.outputs);
    // A remainder is computed as the last four outputs, overlapping; with two rows, up to two as the last two of each.
    let whole = if ROWS == 2 && outputs % OUTPUTS < 3 { outputs / OUTPUTS * OUTPUTS } else { outputs };
    for block in 0..start.len() {
        let from = block * weights_per_block + row * GROUPS * WIDTH;
        let weights: &[Vector64] = &weights[from..][..ROWS * GROUPS * WIDTH];
        let mut taps = [[[_mm512_setzero_si512(); WIDTH]; GROUPS]; ROWS];
        for (to, from) in taps.as_flattened_mut().as_flattened_mut().iter_mut().zip(weights) {
            *to = load_vector64(from);
            // The hardware prefetcher does not find the next block. A prefetch past the end is harmless.
            _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(weights_per_block * size_of::<Vector64>()).cast());
        }
        let block = Block {
            vectors: input.vectors[block..].as_ptr(),
            columns,
            taps,
            start: load_acc(&start[block]),
            multipliers: load_multipliers(&multipliers[block]),
            mask: first(out.channels - block * CHANNELS),
            out: Out { to: out.to.wrapping_add(row * out.row_stride + block * CHANNELS), ..*out },
        };
        // SAFETY: outputs `first..first + OUTPUTS` exist: there are at least four.
        unsafe {
            for first in (0..whole).step_by(OUTPUTS) {
                block.compute::<F, STRIDE, OUTPUTS>(&store, first.min(outputs - OUTPUTS));
            }
            if whole < outputs {
                block.compute::<F, STRIDE, { OUTPUTS / 2 }>(&store, outputs - OUTPUTS / 2);
            }
        }
    }
}

/// Some rows of 16 channels, with weights and parameters in registers.
struct Block<const GROUPS: usize, const WIDTH: usize, const ROWS: usize> {
    vectors: *const Vector64,
    columns: TapColumns,
    taps: [[[__m512i; WIDTH]; GROUPS]; ROWS],
    start: __m512i,
    multipliers: __m512,
    mask: u16,
    out: Out,
}

impl<const GROUPS: usize, const WIDTH: usize, const ROWS: usize> Block<GROUPS, WIDTH, ROWS> {
    /// Computes outputs `first..first + XS` of each row. Each input column is loaded once for all outputs that see it.
    ///
    /// # Safety
    /// - The vectors of all taps of these outputs exist, and `out` is valid for writes of them.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn compute<F: RequantizeOp, const STRIDE: usize, const XS: usize>(
        &self,
        store: &StoreBytes<F>,
        first: usize,
    ) {
        let TapColumns { column, plane, .. } = self.columns;
        let vectors = self.vectors.wrapping_add(first * STRIDE * column);
        let mut acc = [[self.start; XS]; ROWS];
        for q in 0..GROUPS {
            for c in 0..(XS - 1) * STRIDE + WIDTH {
                // SAFETY: the last of these outputs sees column `c` or a later one.
                let codes = load_vector64(unsafe { &*vectors.add(q * plane + c * column) });
                for (r, acc) in acc.iter_mut().enumerate() {
                    for (x, acc_x) in acc.iter_mut().enumerate() {
                        if c >= x * STRIDE && c - x * STRIDE < WIDTH {
                            *acc_x = _mm512_dpbusd_epi32(*acc_x, codes, self.taps[r][q][c - x * STRIDE]);
                        }
                    }
                }
            }
        }
        let mut to = [[self.out.to; XS]; ROWS];
        for (r, to) in to.iter_mut().enumerate() {
            for (x, to) in to.iter_mut().enumerate() {
                *to = to.wrapping_add(r * self.out.row_stride + (first + x) * self.out.stride);
            }
        }
        // Four outputs of a row, or two of two rows.
        let (acc, to) = (acc.as_flattened().as_chunks().0, to.as_flattened().as_chunks().0);
        for (acc, to) in acc.iter().zip(to) {
            // SAFETY: the caller promises memory for these outputs.
            unsafe { store.store(*acc, self.multipliers, *to, self.mask) };
        }
    }
}

/// Computes one row of a kernel of any number of taps, with weights from memory.
///
/// # Safety
/// - `args` are checked, and the row exists.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
unsafe fn any_taps<F: RequantizeOp>(args: &Args<'_, F>, row: usize) {
    let Args { input, weights, weights_per_block, start, multipliers, out, .. } = args;
    let store = StoreBytes::new(args.op, args.sign_xor);
    let taps = input.offsets.len();
    for block in 0..start.len() {
        let weights = &weights[block * weights_per_block + row * taps..][..taps];
        let (start, multipliers) = (load_acc(&start[block]), load_multipliers(&multipliers[block]));
        let mask = first(out.channels - block * CHANNELS);
        let vectors = input.vectors.as_ptr();
        for first in (0..input.outputs).step_by(OUTPUTS) {
            // A remainder repeats the last output.
            let at = [0, 1, 2, 3].map(|x| (first + x).min(input.outputs - 1));
            let vectors = at.map(|x| vectors.wrapping_add(block + x * input.step));
            let mut acc = [start; OUTPUTS];
            for (&offset, weights) in input.offsets.iter().zip(weights) {
                let weights = load_vector64(weights);
                for x in 0..OUTPUTS {
                    // SAFETY: `check` saw a vector for each tap of each output.
                    let codes = unsafe { load_vector64(&*vectors[x].add(offset)) };
                    acc[x] = _mm512_dpbusd_epi32(acc[x], codes, weights);
                }
            }
            // SAFETY: the caller promises memory for these outputs.
            unsafe {
                let to = out.to.add(block * CHANNELS + row * out.row_stride);
                store.store(acc, multipliers, at.map(|x| to.wrapping_add(x * out.stride)), mask);
            }
        }
    }
}

/// Implements [`Kernel::interleave4`](crate::simd::Kernel::interleave4).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn interleave4(task: Interleave4<'_>) {
    task.check();
    let Interleave4 { rows, sign_xor, pixels, pixel, channels, vectors } = task;
    let (sign_xor, order) = (_mm512_set1_epi8(sign_xor as i8), transposed());
    let vectors_per_pixel = channels.div_ceil(CHANNELS);
    for x in 0..pixels {
        for first in (0..channels).step_by(4 * CHANNELS) {
            let len = (channels - first).min(4 * CHANNELS);
            let mask = u64::MAX >> (4 * CHANNELS - len);
            let mut codes = [sign_xor; 4];
            for r in 0..4 {
                // SAFETY: `check` saw that each row holds all pixels; the mask has a bit per remaining channel.
                let row = unsafe {
                    let from = rows[r].as_ptr().add(x * pixel + first).cast();
                    if len == 4 * CHANNELS { _mm512_loadu_epi8(from) } else { _mm512_maskz_loadu_epi8(mask, from) }
                };
                // Unpacking works within 128-bit groups; this permutation makes it give channels in order.
                codes[r] = _mm512_permutexvar_epi32(order, _mm512_xor_si512(row, sign_xor));
            }
            let [a, b, c, d] = codes;
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            let interleaved = [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ];
            let at = x * vectors_per_pixel + first / CHANNELS;
            for (i, interleaved) in interleaved.into_iter().enumerate().take(len.div_ceil(CHANNELS)) {
                // SAFETY: a vector has the size of the register, and `check` saw vectors for all channels.
                unsafe { _mm512_storeu_si512(vectors.as_mut_ptr().add(at + i).cast(), interleaved) }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_vector64(from: &Vector64) -> __m512i {
    // SAFETY: a vector has the size of the register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_acc(from: &[i32; CHANNELS]) -> __m512i {
    // SAFETY: the array has the size of the register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_multipliers(from: &[f32; CHANNELS]) -> __m512 {
    // SAFETY: the array has the size of the register.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}
