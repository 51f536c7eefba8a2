//! The left side of a product: where its rows come from, and a block of them as kernels read it.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayView2, s};

use super::Int8;
use super::aligned::AlignedBytes;
use super::im2col::Im2col;
use super::packed_lhs::PackedLhs;
use super::reals::Reals;
use super::transpose::transpose_strided;
use crate::arch::{self, Isa, Kernel, Rows, Task, with_kernel};

/// Where the rows of the left side come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lhs<'a, A: Int8> {
    /// A matrix, of any strides.
    Matrix(ArrayView2<'a, A>),
    /// A matrix that was copied beforehand.
    Packed(&'a PackedLhs<A>),
    /// What lies under a kernel, for each place that it is laid on an image.
    Im2col(Im2col<'a>),
    /// A matrix of reals, of any strides. Its codes are `u8`.
    Reals(Reals<'a>),
}

impl<A: Int8> Lhs<'_, A> {
    pub(crate) fn nrows(&self) -> usize {
        match self {
            Lhs::Matrix(a) => a.nrows(),
            Lhs::Packed(a) => a.nrows(),
            Lhs::Im2col(im2col) => im2col.nrows(),
            Lhs::Reals(reals) => reals.values.nrows(),
        }
    }

    /// The bytes that a row takes where kernels read it.
    pub(crate) fn row_bytes(&self, layout: LhsLayout) -> usize {
        match self {
            Lhs::Matrix(_) | Lhs::Packed(_) | Lhs::Reals(_) => self.depth(),
            Lhs::Im2col(im2col) => patch_stride(im2col, layout),
        }
    }

    /// Whether rows are copied in any case.
    pub(crate) fn is_gathered(&self) -> bool {
        matches!(self, Lhs::Im2col(_))
    }

    pub(crate) fn depth(&self) -> usize {
        match self {
            Lhs::Matrix(a) => a.ncols(),
            Lhs::Packed(a) => a.ncols(),
            Lhs::Im2col(im2col) => im2col.depth(),
            Lhs::Reals(reals) => reals.values.ncols(),
        }
    }
}

/// How a kernel reads the left side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LhsLayout {
    flips: bool,
    conflict: usize,
    in_place: bool,
    /// Whether signed codes are flipped in a copy, because they are read so often that it costs less than flipping
    /// them each time.
    flip_once: bool,
}

/// Columns from which on a copy of flipped codes costs less than flipping them in the kernel.
const FLIP_ONCE: usize = 256;

impl LhsLayout {
    /// For products of this size.
    pub(crate) fn of(isa: Isa, rows: usize, depth: usize, cols: usize) -> Self {
        fn of<K: Kernel>(_: K, depth: usize, often: bool) -> LhsLayout {
            LhsLayout {
                flips: K::FLIPS,
                conflict: K::CONFLICT,
                in_place: K::reads_in_place(depth),
                flip_once: K::FLIPS && often,
            }
        }
        with_kernel!(isa, kernel => of(kernel, depth, rows > 1 && cols >= FLIP_ONCE))
    }

    /// For matrices that are copied once, for all products.
    pub(super) fn packed(isa: Isa) -> Self {
        let layout = Self::of(isa, 0, 0, 0);
        Self { in_place: false, flip_once: layout.flips, ..layout }
    }

    /// Whether rows at this distance crowd one another out of the first-level cache.
    fn crowds(self, stride: usize) -> bool {
        stride.is_multiple_of(self.conflict)
    }

    /// What canonical codes are greater by than codes of `A`.
    fn shift<A: Int8>(self) -> i32 {
        if self.flips { A::TO_UNSIGNED } else { 0 }
    }

    /// The distance of rows with so much room behind them that do not crowd one another out.
    fn spread(self, depth: usize, room: usize) -> usize {
        let stride = (depth + room).next_multiple_of(room);
        if self.crowds(stride) { stride + AlignedBytes::LINE } else { stride }
    }

    /// The zero point of canonical codes.
    pub(crate) fn zero_point<A: Int8>(self, zero_point: A) -> i32 {
        zero_point.to_i32() + self.shift::<A>()
    }
}

/// Room for a block of rows of the left side, where they cannot be read in place. Reused from block to block.
#[derive(Debug, Clone, Default)]
pub(crate) struct LhsBlock {
    data: AlignedBytes,
    sums: Vec<i32>,
}

impl LhsBlock {
    /// The codes of what was read last, if it was copied, and the sums of its rows.
    pub(super) fn content(&self) -> (&[u8], &[i32]) {
        (self.data.as_slice(), &self.sums)
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        self.data.as_slice().len() + size_of_val(self.sums.as_slice())
    }

    /// These rows of `a`; with the sum of each row's canonical codes, if `with_sums`.
    ///
    /// Rows of a matrix are read in place if they are contiguous and the kernel reads them well. All others are copied.
    pub(crate) fn read<'a: 'b, 'b, A: Int8>(
        &'b mut self,
        a: Lhs<'a, A>,
        which: Range<usize>,
        layout: LhsLayout,
        with_sums: bool,
    ) -> Rows<'b> {
        let (count, depth) = (which.len(), a.depth());
        let flip = layout.flip_once && A::TO_UNSIGNED != 0;
        let mut rows = match a {
            Lhs::Packed(a) => {
                let rows = a.rows(which);
                return if with_sums { rows } else { Rows { sums: &[], ..rows } };
            }
            Lhs::Matrix(a) => read_matrix(&mut self.data, a, which, layout),
            Lhs::Im2col(im2col) => {
                let stride = patch_stride(&im2col, layout);
                self.data.resize(count * stride);
                im2col.gather(which, stride, self.data.as_mut_slice());
                // A whole unit at the end is read faster. The right side holds zeros beyond the depth.
                let depth = depth.next_multiple_of(Im2col::UNIT);
                flip_if(flip, &mut self.data);
                Rows { bytes: self.data.as_slice(), stride, depth, signed: A::TO_UNSIGNED != 0, sums: &[] }
            }
            Lhs::Reals(reals) => {
                let dense = layout.in_place && !layout.crowds(depth);
                let stride = if dense { depth } else { row_stride(depth, layout) };
                self.data.resize(count * stride);
                reals.quantize(which, stride, self.data.as_mut_slice());
                Rows { bytes: self.data.as_slice(), stride, depth, signed: false, sums: &[] }
            }
        };
        rows.signed &= !flip;
        self.sums.clear();
        if with_sums {
            let signed = rows.signed && !layout.flips;
            self.sums.resize(count, 0);
            arch::run(Sums { rows, depth, signed, to: &mut self.sums });
        }
        Rows { sums: &self.sums, ..rows }
    }
}

fn read_matrix<'a: 'b, 'b, A: Int8>(
    data: &'b mut AlignedBytes,
    whole: ArrayView2<'a, A>,
    which: Range<usize>,
    layout: LhsLayout,
) -> Rows<'b> {
    let a = whole.slice_move(s![which.clone(), ..]);
    let depth = a.ncols();
    let signed = A::TO_UNSIGNED != 0;
    let flip = layout.flip_once && signed;
    let in_place = match a.strides() {
        &[stride, 1] if layout.in_place && !flip && stride >= depth as isize => {
            if layout.crowds(stride as usize) {
                None
            } else {
                a.to_slice_memory_order()
            }
        }
        _ => None,
    };
    if let Some(codes) = in_place {
        return Rows { bytes: A::as_bytes(codes), stride: a.strides()[0] as usize, depth, signed, sums: &[] };
    }
    let stride = row_stride(depth, layout);
    data.resize(a.nrows() * stride);
    if let Some(columns) = whole.reversed_axes().to_slice() {
        let columns = (A::as_bytes(columns).get(which.start..).unwrap_or_default(), whole.nrows());
        transpose_strided([depth, a.nrows()], columns, (data.as_mut_slice(), stride));
    } else {
        for (row, copy) in a.rows().into_iter().zip(data.as_mut_slice().chunks_exact_mut(stride)) {
            match row.to_slice() {
                Some(row) => copy[..depth].copy_from_slice(A::as_bytes(row)),
                None => copy.iter_mut().zip(row).for_each(|(copy, code)| *copy = code.to_i32() as u8),
            }
        }
    }
    flip_if(flip, data);
    Rows { bytes: data.as_slice(), stride, depth, signed, sums: &[] }
}

fn flip_if(flip: bool, codes: &mut AlignedBytes) {
    if flip {
        arch::run(Flip(codes.as_mut_slice()));
    }
}

/// Makes signed codes unsigned.
struct Flip<'a>(&'a mut [u8]);

impl Task for Flip<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for code in self.0 {
            *code ^= 0x80;
        }
    }
}

/// The distance of copied rows: a line between them is room for kernels to read beyond the end of a row.
fn row_stride(depth: usize, layout: LhsLayout) -> usize {
    layout.spread(depth, AlignedBytes::LINE)
}

/// The distance of gathered rows: so close that they fill less of the cache, if the kernel needs no more room than
/// copies do.
fn patch_stride(im2col: &Im2col<'_>, layout: LhsLayout) -> usize {
    layout.spread(im2col.depth(), if layout.in_place { im2col.room() } else { AlignedBytes::LINE })
}

/// The sum of the codes of each row, of `depth` codes: signed ones as they are, if `signed`, or else made unsigned.
struct Sums<'a> {
    rows: Rows<'a>,
    depth: usize,
    signed: bool,
    to: &'a mut [i32],
}

impl Task for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (flip, shift) = match (self.rows.signed, self.signed) {
            (false, _) => (0, 0),
            (true, false) => (0x80, 0),
            (true, true) => (0x80, 128 * self.depth as i32),
        };
        for (i, sum) in self.to.iter_mut().enumerate() {
            let codes = &self.rows.row(i)[..self.depth];
            *sum = codes.iter().map(|code| (code ^ flip) as i32).sum::<i32>() - shift;
        }
    }
}
