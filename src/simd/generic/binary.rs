//! Products of signs, by XOR and population counts.

use super::gemm::load_i32;
use super::nbits::COLUMNS;
use crate::simd::{Task, Vector};

/// Counts different bits: `out[i][j] = popcount(rows[i] ^ panel column j)`.
///
/// Rows are as long as the panel: a word of each for one line, which is a word of each of the 16 columns.
pub(crate) struct CountDifferent<'a, V> {
    pub(crate) v: V,
    pub(crate) rows: &'a [u32],
    pub(crate) panel: &'a [[i32; COLUMNS]],
    pub(crate) out: &'a mut [[i32; COLUMNS]],
}

impl<V: Vector> Task for CountDifferent<'_, V> {
    type Output = ();

    /// Branches on constants, so that only the loop of the instruction set is compiled.
    #[inline(always)]
    fn run(self) {
        if const { V::LANES == 16 } {
            count::<V, 1>(self);
        } else if const { V::LANES == 8 } {
            count::<V, 2>(self);
        } else {
            count::<V, 4>(self);
        }
    }
}

/// Words whose counts of ones fit a byte: eight each.
const FIT: usize = 31;

#[inline(always)]
fn count<V: Vector, const REGS: usize>(task: CountDifferent<'_, V>) {
    let CountDifferent { v, rows, panel, out } = task;
    assert!(REGS * V::LANES == COLUMNS, "registers of a line");
    if panel.is_empty() {
        return out.fill([0; COLUMNS]);
    }
    for (row, out) in rows.chunks_exact(panel.len()).zip(out) {
        let mut acc = [v.splat(0); REGS];
        for (words, lines) in row.chunks(FIT).zip(panel.chunks(FIT)) {
            let mut counts = [v.splat(0); REGS];
            for (&word, line) in words.iter().zip(lines) {
                let word = v.splat(word as i32);
                for (r, counts) in counts.iter_mut().enumerate() {
                    let column = load_i32(v, &line[r * V::LANES..]);
                    // Sums of bytes that do not carry.
                    *counts = v.add(*counts, v.count_ones_u8(v.xor(column, word)));
                }
            }
            for r in 0..REGS {
                let pairs = v.add(v.even_u8(counts[r]), v.odd_u8(counts[r]));
                acc[r] = v.add(acc[r], v.multiply_add_i16(pairs, v.splat(0x0001_0001)));
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            // SAFETY: the assertion bounds the write.
            unsafe { v.store(out.as_mut_ptr().add(r * V::LANES).cast(), acc) }
        }
    }
}
