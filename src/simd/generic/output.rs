//! Output stages: they turn the accumulators of a tile into outputs and store them, from registers.

use super::gemm::{REGISTERS, load_i32};
use super::simd_f32::{F32s, F32x4};
use crate::affine::{RequantizeFloat, dequantize_sum};
use crate::simd::Vector;

/// A tile of outputs: row `i` is `out[i * stride..][..width]`.
pub struct OutTile<'a, T> {
    /// Row and column of the product that the tile starts at.
    pub(crate) row: usize,
    pub(crate) col: usize,
    pub(crate) width: usize,
    pub(crate) out: &'a mut [T],
    pub(crate) stride: usize,
}

impl<T> OutTile<'_, T> {
    /// Returns the rows from row `i` on, and of these the columns from column `j` on.
    #[inline(always)]
    pub(crate) fn from(&mut self, i: usize, j: usize) -> OutTile<'_, T> {
        OutTile {
            row: self.row + i,
            col: self.col + j,
            width: self.width - j,
            out: &mut self.out[i * self.stride + j..],
            stride: self.stride,
        }
    }

    /// Fetches the lines of `rows` rows and `cols` columns from a row and column on if stores to them would cross lines: outputs of 32 bits.
    ///
    /// A store that crosses lines and misses L1 takes some 20 cycles on Emerald Rapids, and tiles of AMX wait for it. With
    /// the lines fetched, 12544 × 32 × 64 to `i32` ran at 250 GOPS instead of 165 by AVX512-VNNI.
    #[inline(always)]
    pub(crate) fn prefetch<V: Vector>(&self, v: V, [row, col]: [usize; 2], rows: usize, cols: usize) {
        const LINE: usize = 64;
        if const { size_of::<T>() < 4 } {
            return;
        }
        let bytes = cols * size_of::<T>();
        for i in 0..rows {
            let row = self.out.as_ptr().wrapping_add((row + i) * self.stride + col).cast::<u8>();
            for at in (0..bytes).step_by(LINE) {
                v.prefetch(row.wrapping_add(at));
            }
            v.prefetch(row.wrapping_add(bytes - 1));
        }
    }

    /// Checks that there are `rows` rows and returns their start.
    #[inline(always)]
    fn checked(&mut self, rows: usize) -> *mut T {
        let last = rows.saturating_sub(1).saturating_mul(self.stride).saturating_add(self.width);
        assert!(last <= self.out.len(), "memory for a tile of outputs");
        self.out.as_mut_ptr()
    }
}

/// Turns accumulators into outputs. All methods must be `#[inline(always)]`.
pub trait Stage: Copy + Send + Sync {
    type Out: Copy + Default + Send + Sync + 'static;
    /// True if tiles go to [`store`](Self::store) from registers. Otherwise they go to
    /// [`store_rows`](Self::store_rows) through memory, which takes less code.
    const FROM_REGISTERS: bool = true;

    /// Stores `ROWS` rows of `REGS` registers of columns, of which the tile takes its width.
    fn store<V: Vector, const ROWS: usize, const REGS: usize>(
        self,
        v: V,
        acc: &[[V::I32; REGS]; ROWS],
        out: OutTile<'_, Self::Out>,
    );

    /// Stores rows of accumulators in memory, `stride` apart. Rows are readable to whole registers.
    #[inline(always)]
    fn store_rows<V: Vector>(self, v: V, rows: usize, acc: &[i32], stride: usize, mut out: OutTile<'_, Self::Out>) {
        for j in (0..out.width).step_by(REGISTERS * V::LANES) {
            for i in (0..rows).step_by(2) {
                let acc = &acc[i * stride + j..];
                if i + 1 < rows {
                    self.store::<V, 2, REGISTERS>(v, &[load_row(v, acc), load_row(v, &acc[stride..])], out.from(i, j));
                } else {
                    self.store::<V, 1, REGISTERS>(v, &[load_row(v, acc)], out.from(i, j));
                }
            }
        }
    }
}

/// Loads the registers of a row; those past the end of `acc` are unspecified.
#[inline(always)]
pub(in crate::simd) fn load_row<V: Vector>(v: V, acc: &[i32]) -> [V::I32; REGISTERS] {
    array!(v.splat(0), j => match acc.get(j * V::LANES..) {
        Some(acc) if acc.len() >= V::LANES => load_i32(v, acc),
        _ => v.splat(0),
    })
}

/// The most `LANES` of any set, for buffers.
const MAX_LANES: usize = 16;

/// Stores the first `count` elements of a register, or all of a register if there are as many.
///
/// # Safety
/// - `to` is valid for writes of `count` elements, up to a register.
#[inline(always)]
unsafe fn store_prefix<V: Vector, T>(v: V, to: *mut T, x: V::I32, count: usize) {
    const { assert!(size_of::<T>() == 4) }
    if count >= V::LANES {
        // SAFETY: the caller promises a register.
        return unsafe { v.store(to.cast(), x) };
    }
    let mut buffer = [0u8; 4 * MAX_LANES];
    // SAFETY: the buffer holds a register of any set, and the caller promises `count` elements.
    unsafe {
        v.store(buffer.as_mut_ptr(), x);
        copy_prefix(buffer.as_ptr(), to.cast(), 4 * count);
    }
}

/// Copies `count` bytes: a loop, because a copy of unknown length would be a call.
///
/// # Safety
/// - Both are valid for `count` bytes and do not overlap.
#[inline(always)]
unsafe fn copy_prefix(from: *const u8, to: *mut u8, count: usize) {
    let mut done = 0;
    // SAFETY: `done + size <= count`; the last word overlaps the one before.
    unsafe {
        if count >= 8 {
            while done < count {
                let at = done.min(count - 8);
                to.add(at).cast::<u64>().write_unaligned(from.add(at).cast::<u64>().read_unaligned());
                done += 8;
            }
        } else {
            while done < count {
                *to.add(done) = *from.add(done);
                done += 1;
            }
        }
    }
}

/// Returns the parameters of a register of columns: the single one for all, or one for each. Columns past the end get
/// arbitrary ones.
#[inline(always)]
fn columns<V: Vector>(v: V, of: &[f32], col: usize) -> V::F32 {
    match of {
        &[one] => v.splat_f32(one),
        each if each.len() >= col + V::LANES => {
            // SAFETY: the condition bounds the read.
            unsafe { v.load_f32(each.as_ptr().add(col)) }
        }
        each => {
            let each = each.get(col..).unwrap_or_default();
            let mut padded = [0f32; MAX_LANES];
            // SAFETY: the buffer holds a register of any set, and `each` is shorter.
            unsafe {
                copy_prefix(each.as_ptr().cast(), padded.as_mut_ptr().cast(), size_of_val(each).min(4 * V::LANES));
                v.load_f32(padded.as_ptr())
            }
        }
    }
}

/// Stores the accumulators.
#[derive(Clone, Copy)]
pub(crate) struct StoreI32;

impl Stage for StoreI32 {
    type Out = i32;

    #[inline(always)]
    fn store<V: Vector, const ROWS: usize, const REGS: usize>(
        self,
        v: V,
        acc: &[[V::I32; REGS]; ROWS],
        mut out: OutTile<'_, i32>,
    ) {
        let (to, width, stride) = (out.checked(ROWS), out.width, out.stride);
        for (i, row) in acc.iter().enumerate() {
            for (j, &acc) in row.iter().enumerate() {
                // SAFETY: `checked` saw `width` elements of each row.
                unsafe { store_prefix(v, to.add(i * stride + j * V::LANES), acc, width.saturating_sub(j * V::LANES)) }
            }
        }
    }
}

/// Dequantizes: `f32(acc) * (row_scale * col_scale) + bias`, clamped.
#[derive(Clone, Copy)]
pub(crate) struct Dequantize<'a> {
    /// One per row, or empty: then it is contained in the column scales.
    pub(crate) row_scales: &'a [f32],
    /// One, or one per column.
    pub(crate) col_scales: &'a [f32],
    /// One per column, or empty.
    pub(crate) bias: &'a [f32],
    pub(crate) clamp: Option<(f32, f32)>,
}

impl Stage for Dequantize<'_> {
    type Out = f32;

    #[inline(always)]
    fn store<V: Vector, const ROWS: usize, const REGS: usize>(
        self,
        v: V,
        acc: &[[V::I32; REGS]; ROWS],
        mut out: OutTile<'_, f32>,
    ) {
        let (zero, with_bias) = (v.splat_f32(0.0), !self.bias.is_empty());
        let scales: [_; REGS] = array!(zero, j => columns(v, self.col_scales, out.col + j * V::LANES));
        // A single bias is that of the single column.
        let bias: [_; REGS] =
            array!(zero, j => if with_bias { columns(v, self.bias, out.col + j * V::LANES) } else { zero });
        let (row, to, width, stride) = (out.row, out.checked(ROWS), out.width, out.stride);
        for (i, acc) in acc.iter().enumerate() {
            for j in 0..REGS {
                let scale = match self.row_scales.get(row + i) {
                    Some(&scale) => v.mul_f32(scales[j], v.splat_f32(scale)),
                    None => scales[j],
                };
                let bias = if with_bias { Some(F32s(v, bias[j])) } else { None };
                let y = dequantize_sum(acc[j], F32s(v, scale), bias, self.clamp).1;
                // SAFETY: `checked` saw `width` elements of each row.
                unsafe {
                    let to = to.add(i * stride + j * V::LANES);
                    if width >= (j + 1) * V::LANES {
                        v.store_f32(to, y);
                    } else {
                        let mut buffer = [0f32; MAX_LANES];
                        v.store_f32(buffer.as_mut_ptr(), y);
                        copy_prefix(buffer.as_ptr().cast(), to.cast(), 4 * width.saturating_sub(j * V::LANES));
                    }
                }
            }
        }
    }
}

/// Requantizes to bytes: `op(acc, multiplier) ^ sign_xor`.
#[derive(Clone, Copy)]
pub(crate) struct RequantizeBytes<'a> {
    pub(crate) op: RequantizeFloat,
    /// One for all columns, or one per column. All are below 1, so `acc * multiplier` rounds to an `i32`.
    pub(crate) multipliers: &'a [f32],
    /// 0x80 converts unsigned results to signed codes.
    pub(crate) sign_xor: u8,
}

impl Stage for RequantizeBytes<'_> {
    type Out = u8;

    /// Four registers at a time, which become one of bytes: two rows of two registers, or four rows of one.
    #[inline(always)]
    fn store<V: Vector, const ROWS: usize, const REGS: usize>(
        self,
        v: V,
        acc: &[[V::I32; REGS]; ROWS],
        mut out: OutTile<'_, u8>,
    ) {
        const { assert!(REGS == 1 || REGS == 2 || REGS == 4) }
        let multipliers: [V::F32; REGS] =
            array!(v.splat_f32(0.0), j => columns(v, self.multipliers, out.col + j * V::LANES));
        let multipliers = F32x4(v, array!(multipliers[0], q => multipliers[q % REGS]));
        let sign_xor = v.splat(i32::from_ne_bytes([self.sign_xor; 4]));
        let (to, width, stride) = (out.checked(ROWS), out.width, out.stride);
        let whole = width >= REGS * V::LANES;
        let rows = const { 4 / REGS };
        let mut i = 0;
        while i < ROWS {
            // Rows past the last one are computed and not stored.
            let acc = array!(acc[0][0], q => acc[if i + q / REGS < ROWS { i + q / REGS } else { ROWS - 1 }][q % REGS]);
            let bytes = v.xor(v.transpose_groups(self.op.codes(acc, multipliers)), sign_xor);
            let to = to.wrapping_add(i * stride);
            // SAFETY: `checked` saw `width` elements of each row, and a part that is stored belongs to a row.
            unsafe {
                if !whole {
                    let mut buffer = [0u8; 4 * MAX_LANES];
                    v.store(buffer.as_mut_ptr(), bytes);
                    for r in 0..rows.min(ROWS - i) {
                        copy_prefix(buffer.as_ptr().add(r * REGS * V::LANES), to.add(r * stride), width);
                    }
                } else if REGS == 4 {
                    v.store(to, bytes);
                } else if REGS == 2 {
                    v.store_half::<0>(to, bytes);
                    if i + 1 < ROWS {
                        v.store_half::<1>(to.add(stride), bytes);
                    }
                } else {
                    v.store_quarter::<0>(to, bytes);
                    if i + 1 < ROWS {
                        v.store_quarter::<1>(to.add(stride), bytes);
                    }
                    if i + 2 < ROWS {
                        v.store_quarter::<2>(to.add(2 * stride), bytes);
                    }
                    if i + 3 < ROWS {
                        v.store_quarter::<3>(to.add(3 * stride), bytes);
                    }
                }
            }
            i += rows;
        }
    }
}
