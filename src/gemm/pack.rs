//! Packing of the RHS into the panels that micro-kernels read.
//!
//! A panel holds the columns of each register after the other, `[padded_depth / KR][LANES][KR]` (with KR = 4 this is the
//! VNNI-interleaved layout), zero-padded in depth. For AMX these are whole tiles. Packed codes are signed: packing subtracts the sign offset 128 from unsigned
//! codes, by XOR 0x80, and zero points move along. So one micro-kernel serves all four combinations of signs.

use alloc::vec::Vec;
use core::array::from_fn;

use ndarray::{ArrayView2, Axis};

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
    sums.fill(0);
    if b.is_empty() {
        return panels.fill(0);
    }
    let threads = threads::worth(b.len().saturating_mul(MACS_PER_BYTE));
    let (blocking, depth) = (isa.blocking(), isa.padded_depth(b.nrows()));
    // Rows or columns are slices of bytes, so that packing is compiled once for both types of codes.
    let by_columns = b.strides()[0] == 1 && b.strides()[1] != 1;
    let b = if by_columns || b.strides()[1] == 1 { b.into() } else { b.as_standard_layout() };
    let lines = b.axis_iter(Axis(usize::from(by_columns)));
    let lines = &*lines.map(|line| line.to_slice().map(T::as_bytes).unwrap_or_default()).collect::<Vec<_>>();
    let sign_xor = if sign_offset::<T>() == 0 { 0 } else { 0x80 };
    let rhs = RhsBytes { lines, by_columns, first: 0, sign_xor };
    match (blocking.nr / REGISTERS, blocking.kr) {
        (4, 1) => Pack::<4, 1> { rhs, depth, panels, sums }.fork(threads),
        (4, 4) => Pack::<4, 4> { rhs, depth, panels, sums }.fork(threads),
        (4, 2) => Pack::<4, 2> { rhs, depth, panels, sums }.fork(threads),
        (8, 2) => Pack::<8, 2> { rhs, depth, panels, sums }.fork(threads),
        (8, 4) => Pack::<8, 4> { rhs, depth, panels, sums }.fork(threads),
        (16, 2) => Pack::<16, 2> { rhs, depth, panels, sums }.fork(threads),
        (16, 4) => Pack::<16, 4> { rhs, depth, panels, sums }.fork(threads),
        shape => unreachable!("panels of shape {shape:?}"),
    }
}

/// The codes of a matrix from column `first` on.
#[derive(Clone, Copy)]
struct RhsBytes<'a> {
    /// All rows, or all columns.
    lines: &'a [&'a [u8]],
    by_columns: bool,
    first: usize,
    /// 0x80 subtracts the sign offset.
    sign_xor: u8,
}

struct Pack<'a, const LANES: usize, const KR: usize> {
    rhs: RhsBytes<'a>,
    /// Of the panels, zero-padded.
    depth: usize,
    panels: &'a mut [u8],
    /// One for each column.
    sums: &'a mut [i32],
}

impl<const LANES: usize, const KR: usize> Pack<'_, LANES, KR> {
    /// Splits the columns over threads.
    fn fork(self, threads: usize) {
        let Self { rhs, depth, panels, sums } = self;
        let half = sums.len() / LANES / 2 * LANES;
        if threads < 2 || half == 0 {
            return simd::run(Pack::<LANES, KR> { rhs, depth, panels, sums });
        }
        let (first_panels, second_panels) = panels.split_at_mut(half * depth);
        let (first_sums, second_sums) = sums.split_at_mut(half);
        let first = Pack::<LANES, KR> { rhs, depth, panels: first_panels, sums: first_sums };
        let rhs = RhsBytes { first: rhs.first + half, ..rhs };
        let second = Pack::<LANES, KR> { rhs, depth, panels: second_panels, sums: second_sums };
        join(|| first.fork(threads / 2), || second.fork(threads - threads / 2));
    }
}

impl<const LANES: usize, const KR: usize> Task for Pack<'_, LANES, KR> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rhs, depth, panels, sums } = self;
        if rhs.by_columns && rhs.sign_xor == 0 {
            from_columns::<LANES, KR, 0>(rhs, depth, panels, sums);
        } else if rhs.by_columns {
            from_columns::<LANES, KR, 0x80>(rhs, depth, panels, sums);
        } else {
            from_rows::<LANES, KR>(rhs, depth, panels, sums);
        }
    }
}

/// Depth of a block that is interleaved for all panels before the next one is read.
const ROWS: usize = 64;

/// Packs a matrix with contiguous rows.
#[inline(always)]
fn from_rows<const LANES: usize, const KR: usize>(
    rhs: RhsBytes<'_>,
    depth: usize,
    panels: &mut [u8],
    sums: &mut [i32],
) {
    let sign_xor = rhs.sign_xor;
    for first in (0..depth).step_by(ROWS) {
        let (rows, padded) = (rhs.lines.get(first..).unwrap_or_default(), ROWS.min(depth - first));
        for (p, (panel, sums)) in panels.chunks_exact_mut(LANES * depth).zip(sums.chunks_mut(LANES)).enumerate() {
            // Padding that becomes zero by XOR.
            let mut block = [[sign_xor; LANES]; ROWS];
            for (to, row) in block.iter_mut().zip(rows) {
                let row = &row[rhs.first + p * LANES..];
                match row.first_chunk() {
                    Some(row) => *to = *row,
                    None => to[..row.len()].copy_from_slice(row),
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

/// Packs a matrix with contiguous columns: the transposed view of rows. The sign offset is a constant, because units of two
/// codes are copied at once without it.
#[inline(always)]
fn from_columns<const LANES: usize, const KR: usize, const SIGN_XOR: u8>(
    rhs: RhsBytes<'_>,
    depth: usize,
    panels: &mut [u8],
    sums: &mut [i32],
) {
    for (p, (panel, sums)) in panels.chunks_exact_mut(LANES * depth).zip(sums.chunks_mut(LANES)).enumerate() {
        let columns = &rhs.lines[rhs.first + p * LANES..];
        let columns: [&[u8]; LANES] = from_fn(|j| columns.get(j).copied().unwrap_or_default());
        for (block, to) in panel.chunks_mut(LANES * COLUMN).enumerate() {
            for (j, column) in columns.iter().enumerate() {
                let codes = column.get(block * COLUMN..).unwrap_or_default();
                let codes = &codes[..codes.len().min(COLUMN)];
                if let Some(sum) = sums.get_mut(j) {
                    *sum += codes.iter().map(|code| (code ^ SIGN_XOR) as i8 as i32).sum::<i32>();
                }
                let mut places = to.chunks_exact_mut(LANES * KR).map(|to| &mut to[j * KR..][..KR]);
                let (units, rest) = codes.as_chunks::<KR>();
                for (unit, place) in units.iter().zip(places.by_ref()) {
                    place.copy_from_slice(&unit.map(|code| code ^ SIGN_XOR));
                }
                let last = from_fn::<_, KR, _>(|i| rest.get(i).map_or(0, |code| code ^ SIGN_XOR));
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
