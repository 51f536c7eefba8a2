//! What kernels multiply, and what becomes of it.

#[cfg(doc)]
use super::Kernel;

/// The rows of the left side that a tile reads, in place.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// From the first code of the first row to the last code of the last row, at least.
    pub(crate) bytes: &'a [u8],
    /// The distance between rows.
    pub(crate) stride: usize,
    /// The codes of a row.
    pub(crate) depth: usize,
    /// Whether the codes are signed; see [`Kernel::FLIPS`].
    pub(crate) signed: bool,
    /// The sum of each row's canonical codes, if the right side has zero points.
    pub(crate) sums: &'a [i32],
}

impl<'a> Rows<'a> {
    /// The rows from row `i` on.
    #[inline(always)]
    pub(crate) fn from(self, i: usize) -> Self {
        Rows { bytes: &self.bytes[i * self.stride..], sums: self.sums.get(i..).unwrap_or_default(), ..self }
    }

    /// The codes of row `i`.
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [u8] {
        &self.bytes[i * self.stride..][..self.depth]
    }
}

/// The columns of the right side that a tile is multiplied with.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// One or more panels, each `[padded_depth / KR][NR][KR]`: the bits of signed codes, zeros beyond the depth.
    pub(crate) panels: &'a [u8],
    /// The bytes of one.
    pub(crate) panel_len: usize,
    /// What the sums of each column start from, for as many columns as are wanted: a multiple of [`Kernel::COLS`].
    pub(crate) start: &'a [i32],
    /// The zero points of as many columns, or nothing if all are 0.
    pub(crate) zero_points: &'a [i32],
}

/// Some columns, at most as many as a panel has.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a, const LINE: usize> {
    pub(super) codes: &'a [[u8; LINE]],
    pub(super) start: &'a [i32],
    pub(super) zero_points: &'a [i32],
}

impl<'a> Columns<'a> {
    /// Each panel; of the last, fewer columns may be wanted.
    #[inline(always)]
    pub(super) fn each<const NR: usize, const LINE: usize>(self) -> impl Iterator<Item = Panel<'a, LINE>> {
        self.start.chunks(NR).enumerate().map(move |(p, start)| Panel {
            codes: self.panels[p * self.panel_len..][..self.panel_len].as_chunks().0,
            start,
            zero_points: if self.zero_points.is_empty() { &[] } else { &self.zero_points[p * NR..][..start.len()] },
        })
    }
}

/// Takes the share of the right side's zero points off the sums of a row of the left side, whose codes have the sum `row`.
#[inline(always)]
pub(super) fn subtract_compensation(sums: &mut [i32], zero_points: &[i32], row: i32) {
    for (sum, zero) in sums.iter_mut().zip(zero_points) {
        *sum = sum.wrapping_sub(zero.wrapping_mul(row));
    }
}

/// What becomes of sums, while they are in registers if that can be. All of it is compiled for the instruction set, and must
/// be `#[inline(always)]`.
pub(crate) trait Sink {
    /// What is known of some columns, once for all rows.
    type Columns<const COLS: usize>: Copy;

    /// The columns of the tile. Those that are multiplied beyond them mean nothing.
    fn width(&self) -> usize;

    /// What is known of the columns of the tile from `col` on; `WHOLE` if the tile has all of them.
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS>;

    /// Where the sums from row `row` on belong, and the distance of their rows, if what becomes of them is nothing else.
    #[inline(always)]
    fn in_place(&mut self, _row: usize) -> Option<(&mut [i32], usize)> {
        None
    }

    /// Takes the sums of row `i` in these columns.
    fn row<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, columns: Self::Columns<COLS>, sums: [i32; COLS]);
}

/// How sums become bytes: `formula(sum, factor) ^ flip`, the formula giving 0 to 255.
#[derive(Clone, Copy)]
pub struct ToBytes<'a, F> {
    pub(crate) formula: F,
    /// One, or one for each column; of quads one for each channel. Below 1, so that products with any sum round to an
    /// `i32`.
    pub(crate) factors: &'a [f32],
    pub(crate) flip: u8,
}

/// Where the bytes of a tile belong: those of row `i` to `bytes[i * stride..][..width]`.
pub(crate) struct TileBytes<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

/// The first `ROWS` rows of a left side, cut into units of `KR` codes.
pub(super) struct Units<'a, const ROWS: usize, const KR: usize> {
    first: *const u8,
    stride: usize,
    sums: &'a [i32],
    /// The whole units of a row.
    pub(super) whole: usize,
    /// What is left at the end of each row, if anything is, filled up with zeros. The right side holds zeros there, so
    /// it does not matter what the filling is.
    pub(super) last: Option<&'a [[u8; KR]; ROWS]>,
}

impl<'a, const ROWS: usize, const KR: usize> Units<'a, ROWS, KR> {
    /// `last` is room for the ends of rows. Only a reference to it is kept, because it is seldom needed.
    #[inline(always)]
    pub(super) fn new(rows: Rows<'a>, last: &'a mut [[u8; KR]; ROWS]) -> Self {
        // What `get` will read: nothing is asked there.
        assert!(ROWS > 0 && rows.bytes.len() >= (ROWS - 1) * rows.stride + rows.depth, "rows of the left side");
        let more = !rows.depth.is_multiple_of(KR);
        if more {
            fill_last(rows, last);
        }
        let (first, stride) = (rows.bytes.as_ptr(), rows.stride);
        Self { first, stride, sums: rows.sums, whole: rows.depth / KR, last: more.then_some(last) }
    }

    /// The sums of all rows, which the zero points of the right side are multiplied with.
    #[inline(always)]
    pub(super) fn sums(&self) -> &[i32; ROWS] {
        self.sums.first_chunk().expect("the sum of each row")
    }

    /// Unit `k` of row `i`.
    ///
    /// # Safety
    /// - `i < ROWS` and `k < self.whole`.
    #[allow(unsafe_code, reason = "the innermost loop of products")]
    #[inline(always)]
    pub(super) unsafe fn get(&self, i: usize, k: usize) -> [u8; KR] {
        // SAFETY: row `i` starts `i * stride` bytes on and has `whole` units, and `new` saw that the last row is there.
        unsafe { self.first.add(i * self.stride + k * KR).cast::<[u8; KR]>().read() }
    }
}

/// Not inlined, so that its many branches are not in the way of rows that end with a whole unit.
#[inline(never)]
fn fill_last<const KR: usize>(rows: Rows<'_>, last: &mut [[u8; KR]]) {
    for (i, last) in last.iter_mut().enumerate() {
        let (_, rest) = rows.row(i).as_chunks::<KR>();
        last[..rest.len()].copy_from_slice(rest);
    }
}
