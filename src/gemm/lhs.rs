//! Sources of LHS rows, and blocks of them in the layout that tiles read.

use alloc::vec::Vec;
use core::ops::Range;

use super::aligned::{AlignedBytes, LINE};
use crate::simd::{self, Blocking, Isa, LhsRows, Task, UNIT};

/// A source of LHS rows: a matrix, or whatever can write rows of codes.
pub(crate) trait LhsSource: Sync {
    fn nrows(&self) -> usize;

    /// Codes in a row.
    fn depth(&self) -> usize;

    /// True if the codes are signed.
    fn signed(&self) -> bool;

    /// Returns rows that were packed beforehand, with their sums.
    fn packed(&self, _rows: Range<usize>) -> Option<LhsRows<'_>> {
        None
    }

    /// Returns the instruction set that the rows were packed for, if they were.
    fn packed_for(&self) -> Option<Isa> {
        None
    }

    /// Returns the bytes of rows in memory, from the first row on, and the distance between rows.
    fn in_place(&self, _rows: Range<usize>) -> Option<(&[u8], usize)> {
        None
    }

    /// Writes the codes of some rows, `stride` bytes apart. It may write up to [`overhang`](Self::overhang) bytes beyond
    /// the end of a row.
    fn fill(&self, rows: Range<usize>, stride: usize, to: &mut [u8]);

    /// Bytes that [`fill`](Self::fill) may write beyond the end of a row; rows are that far apart.
    fn overhang(&self) -> usize;

    /// True if rows are computed so fast that blocks of them belong in L1.
    fn is_computed(&self) -> bool {
        false
    }
}

/// The layout in which tiles read the LHS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LhsLayout {
    blocking: Blocking,
    /// True if rows of this depth can be read from the caller's matrix.
    in_place: bool,
    /// True to add a sign offset in a copy, not in the tile at each read.
    offset_in_copy: bool,
}

/// From this many columns on, a copy with the sign offset costs less than XOR 0x80 in the tile.
const OFFSET_IN_COPY_COLS: usize = 256;

impl LhsLayout {
    /// Chooses the layout for a product of this size.
    pub(crate) fn new(isa: Isa, rows: usize, depth: usize, cols: usize) -> Self {
        let blocking = isa.blocking();
        Self {
            blocking,
            in_place: isa.reads_in_place(depth, cols),
            offset_in_copy: rows > 1 && cols >= OFFSET_IN_COPY_COLS,
        }
    }

    /// Returns the layout of a [`PackedLhs`](super::PackedLhs), copied once for all products.
    pub(super) fn packed(isa: Isa) -> Self {
        let blocking = isa.blocking();
        Self { blocking, in_place: false, offset_in_copy: true }
    }

    /// Returns whether rows of a matrix can be read where they are.
    pub(super) fn reads_in_place(self) -> bool {
        self.in_place
    }

    /// Returns the bytes between rows as tiles read them.
    pub(super) fn row_bytes(self, a: &dyn LhsSource) -> usize {
        (a.depth() + if self.in_place { 0 } else { LINE }) * self.blocking.lhs_width
    }

    /// Returns the offset from codes to those that are multiplied.
    pub(super) fn sign_offset(self, signed: bool) -> i32 {
        match (signed, self.multiplies_signed(signed)) {
            (true, false) => 128,
            (false, true) => -128,
            _ => 0,
        }
    }

    /// Returns whether codes are signed when they are multiplied.
    fn multiplies_signed(self, signed: bool) -> bool {
        self.blocking.signed_lhs.unwrap_or(signed)
    }

    /// Returns whether rows at this stride compete for the same cache sets of L1.
    fn aliases(self, stride: usize) -> bool {
        stride.is_multiple_of(self.blocking.aliasing_stride)
    }

    /// Returns a stride for rows with `padding` bytes to read or write behind each, without cache-set conflicts.
    fn padded_stride(self, len: usize, padding: usize) -> usize {
        // No hardware tile of copied rows crosses lines.
        let unit = if self.blocking.lhs_tiles { LINE } else { padding.max(1) };
        let stride = (len + padding).next_multiple_of(unit);
        if self.aliases(stride) { stride + LINE } else { stride }
    }
}

/// Scratch for a block of LHS rows that cannot be read in place. Reused from block to block.
#[derive(Debug, Clone, Default)]
pub(crate) struct LhsBlock {
    codes: AlignedBytes,
    /// Copies widened to 16 bits, for sets that multiply those.
    copies: AlignedBytes,
    sums: Vec<i32>,
}

impl LhsBlock {
    /// Returns the rows of the last [`read`](Self::read), if it copied: once, or twice with `copies`.
    pub(super) fn content(&self, copies: bool) -> (&[u8], &[i32]) {
        let bytes = if copies { &self.copies } else { &self.codes };
        (bytes, &self.sums)
    }

    /// Frees what [`read`](Self::read) needed on the way.
    pub(super) fn shrink(&mut self, copies: bool) {
        if copies {
            self.codes = AlignedBytes::default();
        }
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        self.codes.len() + self.copies.len() + size_of_val(self.sums.as_slice())
    }

    /// Returns the rows of `range`, with row sums if `with_sums`. If there are fewer than a tile has, there is memory
    /// behind them for a tile to read.
    ///
    /// Rows of a matrix are read in place if they are contiguous, do not alias in L1 and need no sign offset. All others
    /// are copied, and then widened for sets that multiply 16-bit integers. Copies for AMX start at lines.
    pub(crate) fn read<'a: 'b, 'b>(
        &'b mut self,
        a: &'a dyn LhsSource,
        range: Range<usize>,
        layout: LhsLayout,
        with_sums: bool,
    ) -> LhsRows<'b> {
        if let Some(rows) = a.packed(range.clone()) {
            return if with_sums { rows } else { LhsRows { sums: &[], ..rows } };
        }
        let Self { codes, copies, sums } = self;
        let Blocking { mr, lhs_width, lhs_tiles, .. } = layout.blocking;
        let (count, depth) = (range.len(), a.depth());
        let readable = if count < mr && !lhs_tiles { count.next_power_of_two().min(mr) } else { count };
        let multiplied = layout.multiplies_signed(a.signed());
        let offset = layout.offset_in_copy && a.signed() != multiplied;
        let signed = a.signed() != offset;
        let widened = lhs_width == 2;
        let in_place = a.in_place(range.clone()).filter(|&(_, stride)| {
            widened || layout.in_place && !offset && readable == count && !layout.aliases(stride)
        });
        let (bytes, stride, len) = match in_place {
            Some((bytes, stride)) => (bytes, stride, depth),
            None => {
                let overhang = if layout.in_place { a.overhang() } else { LINE };
                let stride = layout.padded_stride(depth, overhang);
                codes.resize(readable * stride);
                a.fill(range, stride, &mut codes[..count * stride]);
                if offset {
                    simd::run(AddSignOffset(codes));
                }
                // Whole units are read faster. The RHS holds zeros beyond the depth.
                let len = depth.next_multiple_of(UNIT);
                (&codes[..], stride, if len <= stride { len } else { depth })
            }
        };
        let rows = LhsRows { bytes, stride, len: depth, signed, sums: &[] };
        sums.clear();
        if with_sums {
            sums.resize(readable.max(count), 0);
            simd::run(RowSums { rows, signed: multiplied, sums: &mut sums[..count] });
        }
        if !widened {
            return LhsRows { len, sums, ..rows };
        }
        let len = (2 * depth).next_multiple_of(UNIT);
        let stride = layout.padded_stride(len, UNIT);
        copies.resize(readable * stride);
        simd::run(Widen { rows, to: &mut copies[..count * stride], stride });
        LhsRows { bytes: copies, stride, len, signed: false, sums }
    }
}

/// Makes signed codes unsigned, or unsigned codes signed: adds or subtracts 128, which is XOR 0x80.
struct AddSignOffset<'a>(&'a mut [u8]);

impl Task for AddSignOffset<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for code in self.0 {
            *code ^= 0x80;
        }
    }
}

/// Widens the codes of each row to 16 bits. The remainder of the last unit is unspecified: the RHS holds zeros there.
struct Widen<'a> {
    rows: LhsRows<'a>,
    to: &'a mut [u8],
    stride: usize,
}

impl Task for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, to, stride } = self;
        if stride == 0 {
            return;
        }
        for (i, to) in to.chunks_exact_mut(stride).enumerate() {
            let to = to.as_chunks_mut::<2>().0;
            if rows.signed {
                to.iter_mut().zip(rows.row(i)).for_each(|(to, &code)| *to = i16::from(code as i8).to_le_bytes());
            } else {
                to.iter_mut().zip(rows.row(i)).for_each(|(to, &code)| *to = u16::from(code).to_le_bytes());
            }
        }
    }
}

/// Sums the codes of each row as they are multiplied: as signed or unsigned ones, others with the sign offset.
struct RowSums<'a> {
    rows: LhsRows<'a>,
    signed: bool,
    sums: &'a mut [i32],
}

impl Task for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // As unsigned codes, less 128 each.
        let sign_xor = if self.rows.signed { 0x80 } else { 0 };
        let offset = if self.signed { 128 * self.rows.len as i32 } else { 0 };
        for (i, sum) in self.sums.iter_mut().enumerate() {
            *sum = self.rows.row(i).iter().map(|code| (code ^ sign_xor) as i32).sum::<i32>() - offset;
        }
    }
}
