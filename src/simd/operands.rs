//! The operands of a micro-kernel and the output stage that consumes its accumulators.

#[cfg(doc)]
use super::Kernel;

/// Rows of the LHS as a micro-kernel reads them.
#[derive(Clone, Copy)]
pub(crate) struct LhsRows<'a> {
    /// At least from the first code of the first row to the last code of the last row.
    pub(crate) bytes: &'a [u8],
    /// Distance between rows.
    pub(crate) stride: usize,
    /// Number of codes in a row.
    pub(crate) depth: usize,
    /// True if the codes are signed; see [`Kernel::UNSIGNED_LHS`].
    pub(crate) signed: bool,
    /// Sum of each row's codes, with the sign offset if the micro-kernel adds it. Empty if the RHS has no zero points.
    pub(crate) sums: &'a [i32],
}

impl<'a> LhsRows<'a> {
    /// Returns the rows from row `i` on.
    #[inline(always)]
    pub(crate) fn from(self, i: usize) -> Self {
        LhsRows { bytes: &self.bytes[i * self.stride..], sums: self.sums.get(i..).unwrap_or_default(), ..self }
    }

    /// Returns the codes of row `i`.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [u8] {
        &self.bytes[i * self.stride..][..self.depth]
    }
}

/// Panels of the RHS, with the initial accumulators and zero points of their columns.
#[derive(Clone, Copy)]
pub(crate) struct RhsPanels<'a> {
    /// One or more panels, each `[padded_depth / KR][NR][KR]`: the bits of signed codes, zeros beyond the depth.
    pub(crate) panels: &'a [u8],
    /// Bytes of one panel.
    pub(crate) panel_len: usize,
    /// Initial accumulator of each column to compute. The length is a multiple of [`Kernel::NR_STEP`].
    pub(crate) start: &'a [i32],
    /// Zero point of each column, or empty if all are 0.
    pub(crate) zero_points: &'a [i32],
}

/// Columns of one panel. `BYTES` is `NR * KR`: KR codes of depth of each column.
#[derive(Clone, Copy)]
pub(super) struct RhsPanel<'a, const BYTES: usize> {
    pub(super) codes: &'a [[u8; BYTES]],
    pub(super) start: &'a [i32],
    pub(super) zero_points: &'a [i32],
}

impl<'a> RhsPanels<'a> {
    /// Iterates over the panels. The last one may have fewer than `NR` columns to compute.
    #[inline(always)]
    pub(super) fn each<const NR: usize, const BYTES: usize>(self) -> impl Iterator<Item = RhsPanel<'a, BYTES>> {
        self.start.chunks(NR).enumerate().map(move |(p, start)| RhsPanel {
            codes: self.panels[p * self.panel_len..][..self.panel_len].as_chunks().0,
            start,
            zero_points: if self.zero_points.is_empty() { &[] } else { &self.zero_points[p * NR..][..start.len()] },
        })
    }
}

/// Subtracts the zero-point compensation of the RHS from a row of accumulators: `zero_point * row_sum`.
#[inline(always)]
pub(super) fn subtract_compensation(acc: &mut [i32], zero_points: &[i32], row_sum: i32) {
    for (acc, zero) in acc.iter_mut().zip(zero_points) {
        *acc = acc.wrapping_sub(zero.wrapping_mul(row_sum));
    }
}

/// Consumes the accumulators of a tile, from registers where the micro-kernel allows it.
///
/// All methods are compiled for the instruction set of the micro-kernel, so they must be `#[inline(always)]`.
pub trait OutputStage {
    /// Parameters of `COLS` columns, loaded once for all rows.
    type ColumnParams<const COLS: usize>: Copy;

    /// Returns the number of columns of the tile. Accumulators of columns beyond it are unspecified.
    fn width(&self) -> usize;

    /// Loads the parameters of the columns from `col` on. `WHOLE` promises `COLS` columns within the tile.
    fn column_params<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::ColumnParams<COLS>;

    /// Returns memory for the accumulators from row `row` on, and its row stride, if the stage stores them unchanged.
    #[inline(always)]
    fn in_place(&mut self, _row: usize) -> Option<(&mut [i32], usize)> {
        None
    }

    /// Consumes `COLS` accumulators of row `i`.
    fn store_row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        params: Self::ColumnParams<COLS>,
        acc: [i32; COLS],
    );
}

/// Requantization of accumulators to bytes: `op(acc, multiplier) ^ sign_xor`, where `op` returns 0 to 255.
#[derive(Clone, Copy)]
pub struct ByteStage<'a, F> {
    pub(crate) op: F,
    /// One for all columns, or one per column (dot4: per channel). All are below 1, so `acc * multiplier` rounds to an
    /// `i32`.
    pub(crate) multipliers: &'a [f32],
    /// 0x80 converts unsigned results to signed codes.
    pub(crate) sign_xor: u8,
}

/// A tile of output bytes; row `i` is `bytes[i * stride..][..width]`.
pub struct ByteTile<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

/// `ROWS` rows of the LHS as units of KR codes.
pub(super) struct LhsUnits<'a, const ROWS: usize, const KR: usize> {
    first: *const u8,
    stride: usize,
    sums: &'a [i32],
    /// Number of whole units in a row.
    pub(super) whole: usize,
    /// The remainder of each row, zero-padded to a unit. The RHS holds zeros there, so the padding does not matter.
    pub(super) last: Option<&'a [[u8; KR]; ROWS]>,
}

impl<'a, const ROWS: usize, const KR: usize> LhsUnits<'a, ROWS, KR> {
    /// Copies row remainders, if there are any, to `last`. Only a reference to it is kept: it is seldom needed.
    #[inline(always)]
    pub(super) fn new(rows: LhsRows<'a>, last: &'a mut [[u8; KR]; ROWS]) -> Self {
        // The bounds of all reads of `get`, which checks nothing.
        assert!(ROWS > 0 && rows.bytes.len() >= (ROWS - 1) * rows.stride + rows.depth, "rows of the LHS");
        let more = !rows.depth.is_multiple_of(KR);
        if more {
            copy_remainders(rows, last);
        }
        let (first, stride) = (rows.bytes.as_ptr(), rows.stride);
        Self { first, stride, sums: rows.sums, whole: rows.depth / KR, last: more.then_some(last) }
    }

    /// Returns the row sums, which zero-point compensation multiplies.
    #[inline(always)]
    pub(super) fn sums(&self) -> &[i32; ROWS] {
        self.sums.first_chunk().expect("the sum of each row")
    }

    /// Returns unit `k` of row `i`.
    ///
    /// # Safety
    /// - `i < ROWS` and `k < self.whole`.
    #[allow(unsafe_code, reason = "the innermost loop of products")]
    #[inline(always)]
    pub(super) unsafe fn get(&self, i: usize, k: usize) -> [u8; KR] {
        // SAFETY: row `i` starts at `i * stride` and has `whole` units; `new` checked that the last row is in bounds.
        unsafe { self.first.add(i * self.stride + k * KR).cast::<[u8; KR]>().read() }
    }
}

/// Not inlined, so that its branches do not slow down rows that end with a whole unit.
#[inline(never)]
fn copy_remainders<const KR: usize>(rows: LhsRows<'_>, last: &mut [[u8; KR]]) {
    for (i, last) in last.iter_mut().enumerate() {
        let (_, rest) = rows.row(i).as_chunks::<KR>();
        last[..rest.len()].copy_from_slice(rest);
    }
}
