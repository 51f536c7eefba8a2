//! Accumulators of a tile: still to be computed by the micro-kernel, or already in memory.

use super::tile_out::padded;
use crate::simd::{ByteStage, ByteTile, Kernel, LhsRows, OutputStage, RequantizeOp, RhsPanels, Task};

/// The accumulators of a tile, which an epilogue consumes.
pub trait Accumulators {
    /// Passes all accumulators to an output stage.
    fn store_to(self, stage: impl OutputStage);

    /// Requantizes them to bytes in registers. Returns `false`, with nothing written, if the micro-kernel cannot.
    fn requantize<F: RequantizeOp>(&mut self, _stage: ByteStage<'_, F>, _out: ByteTile<'_>) -> bool {
        false
    }
}

/// A tile that the micro-kernel is still to compute.
pub(crate) struct TileProduct<'a, K> {
    pub(crate) kernel: K,
    pub(crate) rows: usize,
    pub(crate) a: LhsRows<'a>,
    pub(crate) b: RhsPanels<'a>,
    /// Scratch for `K::MR` rows of accumulators on their way through memory, `stride` apart.
    pub(crate) acc: &'a mut [i32],
    pub(crate) stride: usize,
}

impl<K: Kernel> Accumulators for TileProduct<'_, K> {
    #[inline(always)]
    fn store_to(self, mut stage: impl OutputStage) {
        let Self { kernel, rows, a, b, acc, stride } = self;
        if K::FUSES_STAGE && rows.is_multiple_of(K::MR) {
            return kernel.multiply_into(rows, a, b, stage);
        }
        let whole = stage.width() == b.start.len();
        for row in (0..rows).step_by(K::MR) {
            let count = K::MR.min(rows - row);
            match stage.in_place(row) {
                Some((out, stride)) if whole => {
                    kernel.multiply(count, a.from(row), b, out, stride);
                }
                _ => {
                    kernel.multiply(count, a.from(row), b, acc, stride);
                    kernel.run(StoreRows { row, count, acc, stride, stage: &mut stage });
                }
            }
        }
    }

    #[inline(always)]
    fn requantize<F: RequantizeOp>(&mut self, stage: ByteStage<'_, F>, out: ByteTile<'_>) -> bool {
        let fused = K::FUSES_REQUANTIZE && self.rows.is_multiple_of(K::MR);
        if fused {
            self.kernel.multiply_requantize(self.rows, self.a, self.b, stage, out);
        }
        fused
    }
}

/// Accumulators in memory; row `i` starts at `acc[i * stride]`.
pub(crate) struct StoredAccumulators<'a, K> {
    pub(crate) kernel: K,
    pub(crate) rows: usize,
    pub(crate) acc: &'a [i32],
    pub(crate) stride: usize,
}

impl<K: Kernel> Accumulators for StoredAccumulators<'_, K> {
    #[inline(always)]
    fn store_to(self, mut stage: impl OutputStage) {
        let Self { kernel, rows, acc, stride } = self;
        kernel.run(StoreRows { row: 0, count: rows, acc, stride, stage: &mut stage });
    }
}

/// Passes `count` rows of accumulators in memory to an output stage, the first as row `row`.
struct StoreRows<'a, S> {
    row: usize,
    count: usize,
    acc: &'a [i32],
    stride: usize,
    stage: &'a mut S,
}

impl<S: OutputStage> Task for StoreRows<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        /// Columns per call: wide enough that the compiler keeps loops over them and vectorizes these.
        const WIDE: usize = 32;
        const NARROW: usize = 8;
        let width = self.stage.width();
        let mut col = 0;
        while width - col >= WIDE {
            self.columns::<WIDE, true>(col, WIDE);
            col += WIDE;
        }
        while width - col >= NARROW {
            self.columns::<NARROW, true>(col, NARROW);
            col += NARROW;
        }
        if col < width {
            self.columns::<NARROW, false>(col, width - col);
        }
    }
}

impl<S: OutputStage> StoreRows<'_, S> {
    /// Stores all rows of `len` columns, so that column parameters are loaded once.
    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&mut self, col: usize, len: usize) {
        let params = self.stage.column_params::<COLS, WHOLE>(col);
        for i in 0..self.count {
            let acc = &self.acc[i * self.stride + col..][..len];
            let acc = if WHOLE { *acc.first_chunk().expect("a row has COLS columns") } else { padded(acc) };
            self.stage.store_row::<COLS, WHOLE>(self.row + i, params, acc);
        }
    }
}
