//! Transposition of byte matrices: an LHS with contiguous columns, and images between NCHW and NHWC.

use crate::simd::{self, Task};

/// Side of a square that is transposed in registers; a row is one `u64`.
const SIDE: usize = 8;

/// Side of a larger square; a row is one SIMD register.
#[cfg(target_arch = "x86_64")]
const SIMD_SIDE: usize = 16;

/// Transposes a contiguous matrix of `columns` columns: `to[j][i] = from[i][j]`.
pub(crate) fn transpose(columns: usize, from: &[u8], to: &mut [u8]) {
    if let Some(rows) = from.len().checked_div(columns) {
        transpose_strided([rows, columns], (from, columns), (to, rows));
    }
}

/// Transposes `[rows, columns]` between matrices given with their row strides: `to[j][i] = from[i][j]`.
pub(super) fn transpose_strided(
    [rows, columns]: [usize; 2],
    (from, from_stride): (&[u8], usize),
    (to, to_stride): (&mut [u8], usize),
) {
    simd::run(Transpose { rows, columns, from, from_stride, to, to_stride });
}

struct Transpose<'a> {
    rows: usize,
    columns: usize,
    from: &'a [u8],
    from_stride: usize,
    to: &'a mut [u8],
    to_stride: usize,
}

impl Task for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let dense = self.from_stride == self.columns && self.to_stride == self.rows;
        match self.rows {
            2 if dense => return self.interleave::<2>(),
            3 if dense => return self.interleave::<3>(),
            4 if dense => return self.interleave::<4>(),
            _ => {}
        }
        #[cfg(target_arch = "x86_64")]
        if self.rows >= SIMD_SIDE && self.columns >= SIMD_SIDE {
            return self.simd_squares();
        }
        let whole = self.rows / SIDE * SIDE;
        let mut j = 0;
        while j < self.columns {
            // Several squares side by side where they fit.
            let left = self.columns - j;
            let width = if left >= 8 * SIDE {
                self.squares::<8>(whole, j)
            } else if left >= 4 * SIDE {
                self.squares::<4>(whole, j)
            } else if left >= SIDE {
                self.squares::<1>(whole, j)
            } else {
                self.single(0..whole, j);
                1
            };
            for column in j..j + width {
                self.single(whole..self.rows, column);
            }
            j += width;
        }
    }
}

impl Transpose<'_> {
    /// Transposes contiguous rows too few for a square: the channels of an image.
    #[inline(always)]
    fn interleave<const ROWS: usize>(self) {
        const BLOCK: usize = 64;
        let Self { columns, from, to, .. } = self;
        let whole = columns / BLOCK * BLOCK;
        for j in (0..whole).step_by(BLOCK) {
            let mut rows = [[0; BLOCK]; ROWS];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = *from[r * columns + j..].first_chunk().expect("a block of the row");
            }
            let to = to[j * ROWS..].as_chunks_mut::<ROWS>().0.first_chunk_mut::<BLOCK>().expect("a block of columns");
            for i in 0..BLOCK {
                for r in 0..ROWS {
                    to[i][r] = rows[r][i];
                }
            }
        }
        for j in whole..columns {
            for r in 0..ROWS {
                to[j * ROWS + r] = from[r * columns + j];
            }
        }
    }

    /// Transposes a matrix of at least one square. At the end of rows and columns the last square overlaps the one
    /// before.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn simd_squares(self) {
        let Self { rows, columns, from, from_stride, to, to_stride } = self;
        for j in (0..columns).step_by(SIMD_SIDE) {
            let j = j.min(columns - SIMD_SIDE);
            for i in (0..rows).step_by(SIMD_SIDE) {
                let i = i.min(rows - SIMD_SIDE);
                let mut square = [[0; SIMD_SIDE]; SIMD_SIDE];
                for (r, row) in square.iter_mut().enumerate() {
                    *row = *from[(i + r) * from_stride + j..].first_chunk().expect("a row of the square");
                }
                for (r, row) in simd::transposed(&square).iter().enumerate() {
                    *to[(j + r) * to_stride + i..].first_chunk_mut().expect("a row of the square") = *row;
                }
            }
        }
    }

    /// Transposes `COUNT` squares side by side from column `j` on, down to row `rows`. Returns the number of columns.
    #[inline(always)]
    fn squares<const COUNT: usize>(&mut self, rows: usize, j: usize) -> usize {
        for i in (0..rows).step_by(SIDE) {
            let mut square = [[0u64; COUNT]; SIDE];
            for (r, row) in square.iter_mut().enumerate() {
                let (from, _) = self.from[(i + r) * self.from_stride + j..][..COUNT * SIDE].as_chunks();
                for (to, from) in row.iter_mut().zip(from) {
                    *to = u64::from_le_bytes(*from);
                }
            }
            swap::<COUNT, 4>(&mut square, 0x0000_0000_ffff_ffff);
            swap::<COUNT, 2>(&mut square, 0x0000_ffff_0000_ffff);
            swap::<COUNT, 1>(&mut square, 0x00ff_00ff_00ff_00ff);
            for count in 0..COUNT {
                for (r, row) in square.iter().enumerate() {
                    let at = (j + count * SIDE + r) * self.to_stride + i;
                    self.to[at..at + SIDE].copy_from_slice(&row[count].to_le_bytes());
                }
            }
        }
        COUNT * SIDE
    }

    /// Transposes the given rows of one column.
    #[inline(always)]
    fn single(&mut self, rows: core::ops::Range<usize>, j: usize) {
        for i in rows {
            self.to[j * self.to_stride + i] = self.from[i * self.from_stride + j];
        }
    }
}

/// Swaps the upper bytes of a row with the lower bytes of the row `DISTANCE` below, in squares of `2 * DISTANCE` bytes
/// (Warren, "Hacker's Delight", section 7-3).
#[inline(always)]
fn swap<const COUNT: usize, const DISTANCE: usize>(square: &mut [[u64; COUNT]; SIDE], mask: u64) {
    let shift = 8 * DISTANCE;
    for upper in 0..SIDE {
        if upper & DISTANCE != 0 {
            continue;
        }
        let (mut a, mut b) = (square[upper], square[upper + DISTANCE]);
        for i in 0..COUNT {
            let different = ((a[i] >> shift) ^ b[i]) & mask;
            b[i] ^= different;
            a[i] ^= different << shift;
        }
        (square[upper], square[upper + DISTANCE]) = (a, b);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    #[test]
    fn rows_become_columns() {
        for (rows, columns) in (0..36).flat_map(|r| (0..150).step_by(7).map(move |c| (r, c + r % 3))) {
            let from: Vec<u8> = (0..rows * columns).map(|i| (i * 31 + i / 256) as u8).collect();
            let mut to = vec![0; from.len()];
            super::transpose(columns, &from, &mut to);
            for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                assert_eq!(to[j * rows + i], from[i * columns + j], "{rows} x {columns} at {i}, {j}");
            }
        }
    }
}
