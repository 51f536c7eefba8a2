//! Dot4Input of AVX-512: made by shuffles, multiplied, and their sums requantized while they are in registers.

use core::arch::x86_64::*;

use super::avx512_requantize::{Finish, first, transposed};
use crate::arch::{ByteStage, CHANNELS, Dot4Input, Dot4Output, Interleave4, RequantizeOp, Vector64};

/// Outputs that are computed together: the bytes of 16 channels of these fill a register.
const OUTPUTS: usize = 4;

/// See [`Kernel::dot4_requantize`](crate::arch::Kernel::dot4_requantize).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn dot4_requantize<F: RequantizeOp>(
    quads: Dot4Input<'_>,
    weights: &[Vector64],
    start: &[[i32; CHANNELS]],
    to: ByteStage<'_, F>,
    out: Dot4Output<'_>,
) {
    let (blocks, multipliers) = (start.len(), to.multipliers.as_chunks().0);
    if blocks == 0 || quads.outputs == 0 {
        return;
    }
    quads.check(blocks);
    out.check(quads.outputs);
    let weights_of_block = weights.len() / blocks;
    let all = multipliers.len() == blocks && out.rows * quads.offsets.len() <= weights_of_block;
    assert!(all && out.channels.div_ceil(CHANNELS) == blocks, "weights, multipliers and room for all blocks");
    let columns = TapColumns::of(&quads).filter(|_| quads.outputs >= OUTPUTS);
    let Dot4Output { bytes, rows, channels, stride, row_stride } = out;
    let out = Out { to: bytes.as_mut_ptr(), channels, stride, row_stride };
    let (op, sign_xor) = (to.op, to.sign_xor);
    let call = Call { quads, weights, weights_of_block, start, multipliers, op, sign_xor, out };
    // SAFETY: the lines of all taps of all outputs exist, and so do weights and room for them in so many rows.
    unsafe {
        match columns {
            Some(c @ TapColumns { quads: 1, stride: 1, .. }) => all_rows::<F, 1, 3, 1, 2>(&call, c, rows),
            Some(c @ TapColumns { quads: 1, .. }) => all_rows::<F, 1, 3, 2, 1>(&call, c, rows),
            Some(c @ TapColumns { stride: 1, .. }) => all_rows::<F, 2, 5, 1, 1>(&call, c, rows),
            Some(c) => all_rows::<F, 2, 5, 2, 1>(&call, c, rows),
            None => (0..rows).for_each(|row| any_taps(&call, row)),
        }
    }
}

/// What is to be computed, checked.
struct Call<'a, F> {
    quads: Dot4Input<'a>,
    weights: &'a [Vector64],
    weights_of_block: usize,
    start: &'a [[i32; CHANNELS]],
    multipliers: &'a [[f32; CHANNELS]],
    op: F,
    sign_xor: u8,
    out: Out,
}

/// Where bytes go, as [`Dot4Output`] says.
#[derive(Clone, Copy)]
struct Out {
    to: *mut u8,
    channels: usize,
    stride: usize,
    row_stride: usize,
}

/// Taps that are all columns of a 3 × 3 kernel in one row of quads, or of a 5 × 5 kernel in two.
#[derive(Clone, Copy)]
struct TapColumns {
    quads: usize,
    /// The columns between neighbouring outputs: one or two.
    stride: usize,
    /// The lines from a column to the next, and from a row of quads to the next.
    column: usize,
    plane: usize,
}

impl TapColumns {
    fn of(quads: &Dot4Input<'_>) -> Option<Self> {
        let (width, rows) = match quads.offsets.len() {
            3 => (3, 1),
            10 => (5, 2),
            _ => return None,
        };
        let (column, plane) = (quads.offsets[1] - quads.offsets[0], quads.offsets[quads.offsets.len() - width]);
        let mut all = quads.step == column || quads.step == 2 * column;
        for (i, &offset) in quads.offsets.iter().enumerate() {
            all &= offset == i / width * plane + i % width * column;
        }
        let stride = if quads.step == column { 1 } else { 2 };
        all.then_some(Self { quads: rows, stride, column, plane })
    }
}

/// The outputs of such a kernel, `ROWS` rows at a time.
///
/// # Safety
/// - The call is checked, its taps are such columns, and there are at least four outputs in a row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
unsafe fn all_rows<F: RequantizeOp, const QUADS: usize, const WIDTH: usize, const STRIDE: usize, const ROWS: usize>(
    call: &Call<'_, F>,
    columns: TapColumns,
    rows: usize,
) {
    for row in (0..rows).step_by(ROWS) {
        // SAFETY: the rows exist.
        unsafe {
            if rows - row >= ROWS {
                some_rows::<F, QUADS, WIDTH, STRIDE, ROWS>(call, columns, row);
            } else {
                some_rows::<F, QUADS, WIDTH, STRIDE, 1>(call, columns, row);
            }
        }
    }
}

/// The outputs of `ROWS` rows, which share lines.
///
/// # Safety
/// - As for [`all_rows`], and there are so many rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
unsafe fn some_rows<F: RequantizeOp, const QUADS: usize, const WIDTH: usize, const STRIDE: usize, const ROWS: usize>(
    call: &Call<'_, F>,
    columns: TapColumns,
    row: usize,
) {
    let Call { quads, weights, weights_of_block, start, multipliers, out, .. } = call;
    let (finish, outputs) = (Finish::new(call.op, call.sign_xor), quads.outputs);
    // Where there are not four left, the last four; but where it is half of these or fewer, that of two rows.
    let whole = if ROWS == 2 && outputs % OUTPUTS < 3 { outputs / OUTPUTS * OUTPUTS } else { outputs };
    for block in 0..start.len() {
        let from = block * weights_of_block + row * QUADS * WIDTH;
        let weights: &[Vector64] = &weights[from..][..ROWS * QUADS * WIDTH];
        let mut taps = [[[_mm512_setzero_si512(); WIDTH]; QUADS]; ROWS];
        for (to, from) in taps.as_flattened_mut().as_flattened_mut().iter_mut().zip(weights) {
            *to = line(from);
            // Those of the next block, which lie too far away to be guessed. An address beyond the end does no harm.
            _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(weights_of_block * size_of::<Vector64>()).cast());
        }
        let block = Block {
            lines: quads.vectors[block..].as_ptr(),
            columns,
            taps,
            start: line_of_sums(&start[block]),
            multipliers: line_of_floats(&multipliers[block]),
            mask: first(out.channels - block * CHANNELS),
            out: Out { to: out.to.wrapping_add(row * out.row_stride + block * CHANNELS), ..*out },
        };
        // SAFETY: these outputs exist.
        unsafe {
            for first in (0..whole).step_by(OUTPUTS) {
                block.compute::<F, STRIDE, OUTPUTS>(&finish, first.min(outputs - OUTPUTS));
            }
            if whole < outputs {
                block.compute::<F, STRIDE, { OUTPUTS / 2 }>(&finish, outputs - OUTPUTS / 2);
            }
        }
    }
}

/// Some rows of 16 channels, and what of them is kept in registers.
struct Block<const QUADS: usize, const WIDTH: usize, const ROWS: usize> {
    lines: *const Vector64,
    columns: TapColumns,
    taps: [[[__m512i; WIDTH]; QUADS]; ROWS],
    start: __m512i,
    multipliers: __m512,
    mask: u16,
    out: Out,
}

impl<const QUADS: usize, const WIDTH: usize, const ROWS: usize> Block<QUADS, WIDTH, ROWS> {
    /// The outputs of each row from `first` on, `XS` of them: they share the columns that several see.
    ///
    /// # Safety
    /// - These outputs, the lines of all their taps, and the room for them exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn compute<F: RequantizeOp, const STRIDE: usize, const XS: usize>(&self, finish: &Finish<F>, first: usize) {
        let TapColumns { column, plane, .. } = self.columns;
        let lines = self.lines.wrapping_add(first * STRIDE * column);
        let mut sums = [[self.start; XS]; ROWS];
        for q in 0..QUADS {
            for c in 0..(XS - 1) * STRIDE + WIDTH {
                // SAFETY: column `c` is one that the last of these outputs sees, or one before it.
                let codes = line(unsafe { &*lines.add(q * plane + c * column) });
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (x, sum) in sums.iter_mut().enumerate() {
                        if c >= x * STRIDE && c - x * STRIDE < WIDTH {
                            *sum = _mm512_dpbusd_epi32(*sum, codes, self.taps[r][q][c - x * STRIDE]);
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
        // Four of a row, or two of two rows.
        let (sums, to) = (sums.as_flattened().as_chunks().0, to.as_flattened().as_chunks().0);
        for (sums, to) in sums.iter().zip(to) {
            // SAFETY: there is room for these outputs.
            unsafe { finish.store(*sums, self.multipliers, *to, self.mask) };
        }
    }
}

/// One row of any number of taps, their weights from memory.
///
/// # Safety
/// - The call is checked, and there is this row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
unsafe fn any_taps<F: RequantizeOp>(call: &Call<'_, F>, row: usize) {
    let Call { quads, weights, weights_of_block, start, multipliers, out, .. } = call;
    let finish = Finish::new(call.op, call.sign_xor);
    let taps = quads.offsets.len();
    for block in 0..start.len() {
        let weights = &weights[block * weights_of_block + row * taps..][..taps];
        let (start, multipliers) = (line_of_sums(&start[block]), line_of_floats(&multipliers[block]));
        let mask = first(out.channels - block * CHANNELS);
        let lines = quads.vectors.as_ptr();
        for first in (0..quads.outputs).step_by(OUTPUTS) {
            // Where there are fewer left, the last one again.
            let at = [0, 1, 2, 3].map(|x| (first + x).min(quads.outputs - 1));
            let lines = at.map(|x| lines.wrapping_add(block + x * quads.step));
            let mut sums = [start; OUTPUTS];
            for (&offset, weights) in quads.offsets.iter().zip(weights) {
                let weights = line(weights);
                for x in 0..OUTPUTS {
                    // SAFETY: there is a line for each tap of each output.
                    let codes = unsafe { line(&*lines[x].add(offset)) };
                    sums[x] = _mm512_dpbusd_epi32(sums[x], codes, weights);
                }
            }
            // SAFETY: there is room for these outputs.
            unsafe {
                let to = out.to.add(block * CHANNELS + row * out.row_stride);
                finish.store(sums, multipliers, at.map(|x| to.wrapping_add(x * out.stride)), mask);
            }
        }
    }
}

/// See [`Kernel::interleave`](crate::arch::Kernel::interleave).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn interleave4(task: Interleave4<'_>) {
    task.check();
    let Interleave4 { rows, sign_xor, pixels, pixel, channels, vectors } = task;
    let (sign_xor, order) = (_mm512_set1_epi8(sign_xor as i8), transposed());
    let lines_of_pixel = channels.div_ceil(CHANNELS);
    for x in 0..pixels {
        for first in (0..channels).step_by(4 * CHANNELS) {
            let len = (channels - first).min(4 * CHANNELS);
            let mask = u64::MAX >> (4 * CHANNELS - len);
            let mut codes = [sign_xor; 4];
            for r in 0..4 {
                // SAFETY: the rows are as long as that, and the mask has no more bits.
                let row = unsafe {
                    let from = rows[r].as_ptr().add(x * pixel + first).cast();
                    if len == 4 * CHANNELS { _mm512_loadu_epi8(from) } else { _mm512_maskz_loadu_epi8(mask, from) }
                };
                // So that shuffles, which stay within groups of 16 bytes, put channels in their order.
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
            let at = x * lines_of_pixel + first / CHANNELS;
            for (i, interleaved) in interleaved.into_iter().enumerate().take(len.div_ceil(CHANNELS)) {
                // SAFETY: a line is as long as the register, and there are lines for all channels.
                unsafe { _mm512_storeu_si512(vectors.as_mut_ptr().add(at + i).cast(), interleaved) }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn line(from: &Vector64) -> __m512i {
    // SAFETY: a line is as long as the register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn line_of_sums(from: &[i32; CHANNELS]) -> __m512i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn line_of_floats(from: &[f32; CHANNELS]) -> __m512 {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}
