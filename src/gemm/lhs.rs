//! Sources of LHS rows, and blocks of them in the layout that micro-kernels read.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayView2, s};

use super::Int8;
use super::aligned::AlignedBytes;
use super::dynamic_lhs::DynamicLhs;
use super::im2col::Im2col;
use super::packed_lhs::PackedLhs;
use super::transpose::transpose_strided;
use crate::simd::{self, Isa, Kernel, LhsRows, Task, with_kernel};

/// A source of LHS rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LhsSource<'a, A: Int8> {
    /// A matrix of any strides.
    Matrix(ArrayView2<'a, A>),
    /// A matrix packed beforehand.
    Packed(&'a PackedLhs<A>),
    /// The im2col matrix of a convolution's input.
    Im2col(Im2col<'a>),
    /// An f32 matrix of any strides, quantized to `u8` on the fly.
    Dynamic(DynamicLhs<'a>),
}

impl<A: Int8> LhsSource<'_, A> {
    pub(crate) fn nrows(&self) -> usize {
        match self {
            LhsSource::Matrix(a) => a.nrows(),
            LhsSource::Packed(a) => a.nrows(),
            LhsSource::Im2col(im2col) => im2col.nrows(),
            LhsSource::Dynamic(dynamic) => dynamic.values.nrows(),
        }
    }

    /// Returns the bytes between rows as the micro-kernel reads them.
    pub(crate) fn row_bytes(&self, layout: LhsLayout) -> usize {
        match self {
            LhsSource::Matrix(_) | LhsSource::Packed(_) | LhsSource::Dynamic(_) => self.depth(),
            LhsSource::Im2col(im2col) => im2col_stride(im2col, layout),
        }
    }

    pub(crate) fn is_im2col(&self) -> bool {
        matches!(self, LhsSource::Im2col(_))
    }

    pub(crate) fn depth(&self) -> usize {
        match self {
            LhsSource::Matrix(a) => a.ncols(),
            LhsSource::Packed(a) => a.ncols(),
            LhsSource::Im2col(im2col) => im2col.depth(),
            LhsSource::Dynamic(dynamic) => dynamic.values.ncols(),
        }
    }
}

/// The layout in which a micro-kernel reads the LHS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LhsLayout {
    /// True if the micro-kernel multiplies unsigned codes and adds the sign offset to signed ones.
    unsigned: bool,
    /// Strides that are multiples of this alias in L1.
    aliasing_stride: usize,
    /// True if rows of this depth can be read from the caller's matrix.
    in_place: bool,
    /// True to add the sign offset in a copy, not in the micro-kernel at each read.
    offset_in_copy: bool,
}

/// From this many columns on, a copy with the sign offset costs less than XOR 0x80 in the micro-kernel.
const OFFSET_IN_COPY_COLS: usize = 256;

impl LhsLayout {
    /// Chooses the layout for a product of this size.
    pub(crate) fn new(isa: Isa, rows: usize, depth: usize, cols: usize) -> Self {
        fn layout<K: Kernel>(_: K, depth: usize, reused: bool) -> LhsLayout {
            LhsLayout {
                unsigned: K::UNSIGNED_LHS,
                aliasing_stride: K::ALIASING_STRIDE,
                in_place: K::reads_in_place(depth),
                offset_in_copy: K::UNSIGNED_LHS && reused,
            }
        }
        with_kernel!(isa, kernel => layout(kernel, depth, rows > 1 && cols >= OFFSET_IN_COPY_COLS))
    }

    /// Returns the layout of a [`PackedLhs`], copied once for all products.
    pub(super) fn packed(isa: Isa) -> Self {
        let layout = Self::new(isa, 0, 0, 0);
        Self { in_place: false, offset_in_copy: layout.unsigned, ..layout }
    }

    /// Returns whether rows at this stride compete for the same cache sets of L1.
    fn aliases(self, stride: usize) -> bool {
        stride.is_multiple_of(self.aliasing_stride)
    }

    /// Returns the offset from codes of `A` to the codes that the micro-kernel multiplies.
    fn sign_offset<A: Int8>(self) -> i32 {
        if self.unsigned { A::SIGN_OFFSET } else { 0 }
    }

    /// Returns a stride for rows with `padding` bytes to read or write behind each, without cache-set conflicts.
    fn padded_stride(self, depth: usize, padding: usize) -> usize {
        let stride = (depth + padding).next_multiple_of(padding);
        if self.aliases(stride) { stride + AlignedBytes::LINE } else { stride }
    }

    /// Returns the zero point of the codes that the micro-kernel multiplies.
    pub(crate) fn zero_point<A: Int8>(self, zero_point: A) -> i32 {
        zero_point.to_i32() + self.sign_offset::<A>()
    }
}

/// Scratch for a block of LHS rows that cannot be read in place. Reused from block to block.
#[derive(Debug, Clone, Default)]
pub(crate) struct LhsBlock {
    data: AlignedBytes,
    sums: Vec<i32>,
}

impl LhsBlock {
    /// Returns the codes of the last [`read`](Self::read), if it copied, and its row sums.
    pub(super) fn content(&self) -> (&[u8], &[i32]) {
        (self.data.as_slice(), &self.sums)
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        self.data.as_slice().len() + size_of_val(self.sums.as_slice())
    }

    /// Returns the rows of `range`, with row sums if `with_sums`.
    ///
    /// Rows of a matrix are read in place if they are contiguous, do not alias in L1 and need no sign offset. All
    /// others are copied.
    pub(crate) fn read<'a: 'b, 'b, A: Int8>(
        &'b mut self,
        a: LhsSource<'a, A>,
        range: Range<usize>,
        layout: LhsLayout,
        with_sums: bool,
    ) -> LhsRows<'b> {
        let (count, depth) = (range.len(), a.depth());
        let offset = layout.offset_in_copy && A::SIGN_OFFSET != 0;
        let mut rows = match a {
            LhsSource::Packed(a) => {
                let rows = a.rows(range);
                return if with_sums { rows } else { LhsRows { sums: &[], ..rows } };
            }
            LhsSource::Matrix(a) => read_matrix(&mut self.data, a, range, layout),
            LhsSource::Im2col(im2col) => {
                let stride = im2col_stride(&im2col, layout);
                self.data.resize(count * stride);
                im2col.fill_rows(range, stride, self.data.as_mut_slice());
                // Whole KR groups are read faster. The RHS holds zeros beyond the depth.
                let depth = depth.next_multiple_of(Im2col::MAX_KR);
                add_sign_offset_if(offset, &mut self.data);
                LhsRows { bytes: self.data.as_slice(), stride, depth, signed: A::SIGN_OFFSET != 0, sums: &[] }
            }
            LhsSource::Dynamic(dynamic) => {
                let dense = layout.in_place && !layout.aliases(depth);
                let stride = if dense { depth } else { copy_stride(depth, layout) };
                self.data.resize(count * stride);
                dynamic.quantize(range, stride, self.data.as_mut_slice());
                LhsRows { bytes: self.data.as_slice(), stride, depth, signed: false, sums: &[] }
            }
        };
        rows.signed &= !offset;
        self.sums.clear();
        if with_sums {
            let signed = rows.signed && !layout.unsigned;
            self.sums.resize(count, 0);
            simd::run(RowSums { rows, depth, signed, sums: &mut self.sums });
        }
        LhsRows { sums: &self.sums, ..rows }
    }
}

fn read_matrix<'a: 'b, 'b, A: Int8>(
    data: &'b mut AlignedBytes,
    whole: ArrayView2<'a, A>,
    range: Range<usize>,
    layout: LhsLayout,
) -> LhsRows<'b> {
    let a = whole.slice_move(s![range.clone(), ..]);
    let depth = a.ncols();
    let signed = A::SIGN_OFFSET != 0;
    let offset = layout.offset_in_copy && signed;
    let in_place =
        match a.strides() {
            &[stride, 1] if layout.in_place && !offset && stride >= depth as isize => {
                if layout.aliases(stride as usize) { None } else { a.to_slice_memory_order() }
            }
            _ => None,
        };
    if let Some(codes) = in_place {
        return LhsRows { bytes: A::as_bytes(codes), stride: a.strides()[0] as usize, depth, signed, sums: &[] };
    }
    let stride = copy_stride(depth, layout);
    data.resize(a.nrows() * stride);
    if let Some(columns) = whole.reversed_axes().to_slice() {
        let columns = (A::as_bytes(columns).get(range.start..).unwrap_or_default(), whole.nrows());
        transpose_strided([depth, a.nrows()], columns, (data.as_mut_slice(), stride));
    } else {
        for (row, copy) in a.rows().into_iter().zip(data.as_mut_slice().chunks_exact_mut(stride)) {
            match row.to_slice() {
                Some(row) => copy[..depth].copy_from_slice(A::as_bytes(row)),
                None => copy.iter_mut().zip(row).for_each(|(copy, code)| *copy = code.to_i32() as u8),
            }
        }
    }
    add_sign_offset_if(offset, data);
    LhsRows { bytes: data.as_slice(), stride, depth, signed, sums: &[] }
}

fn add_sign_offset_if(condition: bool, codes: &mut AlignedBytes) {
    if condition {
        simd::run(AddSignOffset(codes.as_mut_slice()));
    }
}

/// Makes signed codes unsigned: adds 128, which is XOR 0x80.
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

/// Returns the stride of copied rows. Micro-kernels may read up to a cache line beyond the end of a row.
fn copy_stride(depth: usize, layout: LhsLayout) -> usize {
    layout.padded_stride(depth, AlignedBytes::LINE)
}

/// Returns the stride of im2col rows: with little padding, so that more rows fit in L1, if the micro-kernel reads in
/// place.
fn im2col_stride(im2col: &Im2col<'_>, layout: LhsLayout) -> usize {
    layout.padded_stride(im2col.depth(), if layout.in_place { im2col.overhang() } else { AlignedBytes::LINE })
}

/// Sums the first `depth` codes of each row: signed ones unchanged if `signed`, otherwise with the sign offset.
struct RowSums<'a> {
    rows: LhsRows<'a>,
    depth: usize,
    signed: bool,
    sums: &'a mut [i32],
}

impl Task for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (sign_xor, offset) = match (self.rows.signed, self.signed) {
            (false, _) => (0, 0),
            (true, false) => (0x80, 0),
            (true, true) => (0x80, 128 * self.depth as i32),
        };
        for (i, sum) in self.sums.iter_mut().enumerate() {
            let codes = &self.rows.row(i)[..self.depth];
            *sum = codes.iter().map(|code| (code ^ sign_xor) as i32).sum::<i32>() - offset;
        }
    }
}
