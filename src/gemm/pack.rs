//! Packing of the RHS into the panels that micro-kernels read.
//!
//! A panel holds the columns of each register after the other, `[padded_depth / KR][LANES][KR]` (with KR = 4 this is the
//! VNNI-interleaved layout), zero-padded in depth. For AMX these are whole tiles. Packed codes are signed: packing subtracts the sign offset 128 from unsigned
//! codes, by XOR 0x80, and zero points move along. So one micro-kernel serves all four combinations of signs.

use core::array::from_fn;

use ndarray::{ArrayView2, Axis, s};

use super::Int8;
use crate::simd::{self, Isa, REGISTERS, Task};
use crate::threads::{self, join};

/// Returns the offset from codes of `T` to packed codes, which are signed: -128 for `u8`.
pub(super) fn sign_offset<T: Int8>() -> i32 {
    T::SIGN_OFFSET - 128
}

/// Packs a matrix into panels and writes the sum of the packed codes of each column.
pub(super) fn pack<T: Int8>(isa: Isa, b: ArrayView2<'_, T>, panels: &mut [u8], sums: &mut [i32]) {
    /// Cost of moving a byte, in multiply–accumulates.
    const MACS_PER_BYTE: usize = 16;
    let threads = threads::worth(b.len().saturating_mul(MACS_PER_BYTE));
    let (blocking, depth) = (isa.blocking(), isa.padded_depth(b.nrows()));
    match (blocking.nr / REGISTERS, blocking.kr) {
        (4, 1) => Pack::<_, 4, 1> { b, depth, panels, sums }.fork(threads),
        (4, 4) => Pack::<_, 4, 4> { b, depth, panels, sums }.fork(threads),
        (4, 2) => Pack::<_, 4, 2> { b, depth, panels, sums }.fork(threads),
        (8, 2) => Pack::<_, 8, 2> { b, depth, panels, sums }.fork(threads),
        (8, 4) => Pack::<_, 8, 4> { b, depth, panels, sums }.fork(threads),
        (16, 2) => Pack::<_, 16, 2> { b, depth, panels, sums }.fork(threads),
        (16, 4) => Pack::<_, 16, 4> { b, depth, panels, sums }.fork(threads),
        shape => unreachable!("panels of shape {shape:?}"),
    }
}

struct Pack<'a, T, const LANES: usize, const KR: usize> {
    b: ArrayView2<'a, T>,
    /// Of the panels, zero-padded.
    depth: usize,
    panels: &'a mut [u8],
    sums: &'a mut [i32],
}

impl<T: Int8, const LANES: usize, const KR: usize> Pack<'_, T, LANES, KR> {
    /// Splits the columns over threads.
    fn fork(self, threads: usize) {
        let Self { b, depth, panels, sums } = self;
        let half = b.ncols() / LANES / 2;
        if threads < 2 || half == 0 {
            return simd::run(Pack::<T, LANES, KR> { b, depth, panels, sums });
        }
        let (first, second) = b.split_at(Axis(1), half * LANES);
        let (first_panels, second_panels) = panels.split_at_mut(half * LANES * depth);
        let (first_sums, second_sums) = sums.split_at_mut(half * LANES);
        let first = Pack::<T, LANES, KR> { b: first, depth, panels: first_panels, sums: first_sums };
        let second = Pack::<T, LANES, KR> { b: second, depth, panels: second_panels, sums: second_sums };
        join(|| first.fork(threads / 2), || second.fork(threads - threads / 2));
    }
}

impl<T: Int8, const LANES: usize, const KR: usize> Task for Pack<'_, T, LANES, KR> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { b, depth, panels, sums } = self;
        let sign_xor = if sign_offset::<T>() == 0 { 0 } else { 0x80 };
        sums.fill(0);
        if b.is_empty() {
            return panels.fill(0);
        }
        if b.strides()[0] == 1 && b.strides()[1] != 1 {
            from_columns::<T, LANES, KR>(b, sign_xor, depth, panels, sums);
        } else {
            from_rows::<T, LANES, KR>(b, sign_xor, depth, panels, sums);
        }
    }
}

/// Depth of a block that is interleaved for all panels before the next one is read.
const ROWS: usize = 64;

/// Packs a matrix with contiguous rows, or of any other strides.
#[inline(always)]
fn from_rows<T: Int8, const LANES: usize, const KR: usize>(
    b: ArrayView2<'_, T>,
    sign_xor: u8,
    depth: usize,
    panels: &mut [u8],
    sums: &mut [i32],
) {
    for first in (0..depth).step_by(ROWS) {
        let (count, padded) = (ROWS.min(b.nrows().saturating_sub(first)), ROWS.min(depth - first));
        let rows: [Option<&[u8]>; ROWS] =
            from_fn(|i| if i < count { b.row(first + i).to_slice().map(T::as_bytes) } else { None });
        for (p, (panel, sums)) in panels.chunks_exact_mut(LANES * depth).zip(sums.chunks_mut(LANES)).enumerate() {
            // Padding that becomes zero by XOR.
            let mut block = [[sign_xor; LANES]; ROWS];
            for (i, (to, row)) in block.iter_mut().zip(rows).enumerate().take(count) {
                match row.map(|row| &row[p * LANES..]) {
                    Some(row) => match row.first_chunk() {
                        Some(row) => *to = *row,
                        None => to[..row.len()].copy_from_slice(row),
                    },
                    None => {
                        let row = b.slice(s![first + i, p * LANES..]);
                        to.iter_mut().zip(row).for_each(|(to, code)| *to = code.to_i32() as u8);
                    }
                }
            }
            let to = &mut panel[first * LANES..][..padded * LANES];
            interleave::<LANES, KR>(&block, sign_xor, to, sums);
        }
    }
}

/// Interleaves `KR` rows for each of `LANES` columns, and adds the codes to the column sums.
#[inline(always)]
fn interleave<const LANES: usize, const KR: usize>(
    block: &[[u8; LANES]; ROWS],
    sign_xor: u8,
    to: &mut [u8],
    sums: &mut [i32],
) {
    let mut added = [0; LANES];
    for (rows, to) in block.as_chunks::<KR>().0.iter().zip(to.chunks_exact_mut(LANES * KR)) {
        let mut codes = [[0; KR]; LANES];
        for j in 0..LANES {
            for i in 0..KR {
                codes[j][i] = rows[i][j] ^ sign_xor;
            }
        }
        for j in 0..LANES {
            for row in rows {
                added[j] += (row[j] ^ sign_xor) as i8 as i32;
            }
        }
        to.copy_from_slice(codes.as_flattened());
    }
    sums.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
}

/// Codes of a column that are moved before the next column: this block of a panel stays in L2.
const COLUMN: usize = 1024;

/// Packs a matrix with contiguous columns: the transposed view of rows.
#[inline(always)]
fn from_columns<T: Int8, const LANES: usize, const KR: usize>(
    b: ArrayView2<'_, T>,
    sign_xor: u8,
    depth: usize,
    panels: &mut [u8],
    sums: &mut [i32],
) {
    for (p, (panel, sums)) in panels.chunks_exact_mut(LANES * depth).zip(sums.chunks_mut(LANES)).enumerate() {
        let columns: [&[u8]; LANES] = from_fn(|j| match p * LANES + j < b.ncols() {
            true => b.column(p * LANES + j).to_slice().map(T::as_bytes).unwrap_or_default(),
            false => &[],
        });
        for (block, to) in panel.chunks_mut(LANES * COLUMN).enumerate() {
            for (j, column) in columns.iter().enumerate() {
                let codes = column.get(block * COLUMN..).unwrap_or_default();
                let codes = &codes[..codes.len().min(COLUMN)];
                if let Some(sum) = sums.get_mut(j) {
                    *sum += codes.iter().map(|code| (code ^ sign_xor) as i8 as i32).sum::<i32>();
                }
                let mut places = to.chunks_exact_mut(LANES * KR).map(|to| &mut to[j * KR..][..KR]);
                let (units, rest) = codes.as_chunks::<KR>();
                for (unit, place) in units.iter().zip(places.by_ref()) {
                    place.copy_from_slice(&unit.map(|code| code ^ sign_xor));
                }
                let last = from_fn::<_, KR, _>(|i| rest.get(i).map_or(0, |code| code ^ sign_xor));
                if !rest.is_empty()
                    && let Some(place) = places.next()
                {
                    place.copy_from_slice(&last);
                }
                places.for_each(|place| place.fill(0));
            }
        }
    }
}
