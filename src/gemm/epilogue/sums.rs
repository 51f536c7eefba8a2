//! Where the sums of a tile come from: registers, if the kernel can hand them out there, or memory.

use super::outputs::padded;
use crate::arch::{Columns, Formula, Kernel, Rows, Sink, Task, TileBytes, ToBytes};

/// The sums of a tile, which an epilogue makes outputs of.
pub(crate) trait Sums {
    /// Gives all of them to a sink.
    fn to(self, sink: impl Sink);

    /// Makes bytes of them where they are. Returns whether it did: if not, nothing was written.
    fn to_bytes<F: Formula>(&mut self, _to: ToBytes<'_, F>, _out: TileBytes<'_>) -> bool {
        false
    }
}

/// Sums that are still to be multiplied.
pub(crate) struct Products<'a, K> {
    pub(crate) kernel: K,
    pub(crate) rows: usize,
    pub(crate) a: Rows<'a>,
    pub(crate) b: Columns<'a>,
    /// Room for `K::MR` rows of sums, which pass through it if they have to, and the distance of these.
    pub(crate) acc: &'a mut [i32],
    pub(crate) stride: usize,
}

impl<K: Kernel> Sums for Products<'_, K> {
    #[inline(always)]
    fn to(self, mut sink: impl Sink) {
        let Self { kernel, rows, a, b, acc, stride } = self;
        if K::SINKS && rows.is_multiple_of(K::MR) {
            return kernel.multiply_to(rows, a, b, sink);
        }
        let whole = sink.width() == b.start.len();
        for row in (0..rows).step_by(K::MR) {
            let count = K::MR.min(rows - row);
            match sink.in_place(row) {
                Some((out, stride)) if whole => {
                    kernel.multiply(count, a.from(row), b, out, stride);
                }
                _ => {
                    kernel.multiply(count, a.from(row), b, acc, stride);
                    kernel.run(Give { row, count, acc, stride, sink: &mut sink });
                }
            }
        }
    }

    #[inline(always)]
    fn to_bytes<F: Formula>(&mut self, to: ToBytes<'_, F>, out: TileBytes<'_>) -> bool {
        let makes = K::MAKES_BYTES && self.rows.is_multiple_of(K::MR);
        if makes {
            self.kernel.multiply_to_bytes(self.rows, self.a, self.b, to, out);
        }
        makes
    }
}

/// Sums in memory: those of row `i` from `acc[i * stride]` on.
pub(crate) struct Stored<'a, K> {
    pub(crate) kernel: K,
    pub(crate) rows: usize,
    pub(crate) acc: &'a [i32],
    pub(crate) stride: usize,
}

impl<K: Kernel> Sums for Stored<'_, K> {
    #[inline(always)]
    fn to(self, mut sink: impl Sink) {
        let Self { kernel, rows, acc, stride } = self;
        kernel.run(Give { row: 0, count: rows, acc, stride, sink: &mut sink });
    }
}

/// Sums in memory go to a sink, whose row `row` is the first of theirs.
struct Give<'a, S> {
    row: usize,
    count: usize,
    acc: &'a [i32],
    stride: usize,
    sink: &'a mut S,
}

impl<S: Sink> Task for Give<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        /// So many that the compiler keeps loops over them, and makes registers of them.
        const MANY: usize = 32;
        const FEW: usize = 8;
        let width = self.sink.width();
        let mut col = 0;
        while width - col >= MANY {
            self.columns::<MANY, true>(col, MANY);
            col += MANY;
        }
        while width - col >= FEW {
            self.columns::<FEW, true>(col, FEW);
            col += FEW;
        }
        if col < width {
            self.columns::<FEW, false>(col, width - col);
        }
    }
}

impl<S: Sink> Give<'_, S> {
    /// All rows of these columns, so that what is known of columns is read once.
    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&mut self, col: usize, len: usize) {
        let columns = self.sink.columns::<COLS, WHOLE>(col);
        for i in 0..self.count {
            let sums = &self.acc[i * self.stride + col..][..len];
            let sums = if WHOLE { *sums.first_chunk().expect("as many columns") } else { padded(sums) };
            self.sink.row::<COLS, WHOLE>(self.row + i, columns, sums);
        }
    }
}
