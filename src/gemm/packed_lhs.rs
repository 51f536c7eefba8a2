//! The LHS as callers pass it: a matrix, or one packed once.

use core::marker::PhantomData;
use core::ops::Range;

use ndarray::{ArrayBase, ArrayRef2, ArrayView2, Data, Ix2, s};

use super::aligned::LINE;
use super::lhs::{LhsBlock, LhsLayout, LhsSource};
use super::transpose::transpose_strided;
use super::{Int8, check_sums};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::simd::{Isa, LhsRows};

/// The left-hand side of a product: a reference to a matrix of any strides, or to a [`PackedLhs`].
///
/// [`gemm`](super::gemm) converts references to either by `into`.
#[derive(Debug, Clone, Copy)]
pub struct Lhs<'a, A: Int8>(pub(super) Source<'a, A>);

#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a, A: Int8> {
    Matrix(MatrixLhs<'a, A>),
    Packed(&'a PackedLhs<A>),
}

impl<A: Int8> Lhs<'_, A> {
    pub(super) fn source(&self) -> &dyn LhsSource {
        match &self.0 {
            Source::Matrix(matrix) => matrix,
            Source::Packed(packed) => *packed,
        }
    }
}

impl<'a, A: Int8> From<&'a ArrayRef2<A>> for Lhs<'a, A> {
    fn from(a: &'a ArrayRef2<A>) -> Self {
        Lhs(Source::Matrix(MatrixLhs(a.view())))
    }
}

impl<'a, A: Int8, S: Data<Elem = A>> From<&'a ArrayBase<S, Ix2>> for Lhs<'a, A> {
    fn from(a: &'a ArrayBase<S, Ix2>) -> Self {
        Lhs(Source::Matrix(MatrixLhs(a.view())))
    }
}

impl<'a, A: Int8> From<&'a PackedLhs<A>> for Lhs<'a, A> {
    fn from(a: &'a PackedLhs<A>) -> Self {
        Lhs(Source::Packed(a))
    }
}

/// A matrix of any strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatrixLhs<'a, A>(pub(crate) ArrayView2<'a, A>);

impl<A: Int8> LhsSource for MatrixLhs<'_, A> {
    fn nrows(&self) -> usize {
        self.0.nrows()
    }

    fn depth(&self) -> usize {
        self.0.ncols()
    }

    fn signed(&self) -> bool {
        A::SIGN_OFFSET != 0
    }

    fn in_place(&self, rows: Range<usize>) -> Option<(&[u8], usize)> {
        let a = self.0.slice_move(s![rows, ..]);
        match a.strides() {
            &[stride, 1] if stride >= a.ncols() as isize => {
                a.to_slice_memory_order().map(|codes| (A::as_bytes(codes), stride as usize))
            }
            _ => None,
        }
    }

    fn fill(&self, rows: Range<usize>, stride: usize, to: &mut [u8]) {
        let a = self.0.slice(s![rows.clone(), ..]);
        let depth = a.ncols();
        if let Some(columns) = self.0.reversed_axes().to_slice() {
            let columns = (A::as_bytes(columns).get(rows.start..).unwrap_or_default(), self.0.nrows());
            return transpose_strided([depth, a.nrows()], columns, (to, stride));
        }
        for (row, copy) in a.rows().into_iter().zip(to.chunks_exact_mut(stride)) {
            match row.to_slice() {
                Some(row) => copy[..depth].copy_from_slice(A::as_bytes(row)),
                None => copy.iter_mut().zip(row).for_each(|(copy, code)| *copy = code.to_i32() as u8),
            }
        }
    }

    fn overhang(&self) -> usize {
        LINE
    }
}

/// An LHS copied once into the layout that the micro-kernel reads best, with its row sums.
///
/// Pack an LHS that is multiplied by many RHS and that is signed, non-contiguous, or multiplied by RHS with zero
/// points. Then the sign offset, the gather and the row sums are paid for once. For one product, and for a contiguous
/// `u8` matrix, pass the matrix itself: it is read in place, and packing is a copy for nothing. The large fixed matrix
/// of a product belongs on the RHS, see [`PackedRhs`](super::PackedRhs).
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::gemm::{I32Epilogue, PackedLhs, PackedRhs, gemm};
///
/// let a = PackedLhs::pack(&array![[1i8, -2], [3, 4]].t())?;
/// let b = PackedRhs::pack(&array![[1i8], [2]], &[0])?;
/// assert_eq!(gemm(&a, 0, &b, &I32Epilogue::new())?, array![[7], [6]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedLhs<A: Int8> {
    isa: Isa,
    rows: usize,
    depth: usize,
    block: LhsBlock,
    /// Distance between rows and length of a row in bytes.
    stride: usize,
    len: usize,
    /// True if the packed codes are signed.
    signed: bool,
    element: PhantomData<A>,
}

impl<A: Int8> PackedLhs<A> {
    /// Packs `a` of shape `[m, k]`, of any strides.
    ///
    /// # Errors
    /// [`Error::Value`] if row sums of `k` codes could leave `i32`.
    pub fn pack(a: &ArrayRef2<A>) -> Result<Self> {
        Self::pack_for(Isa::for_gemm(a.ncols()), a)
    }

    pub(super) fn pack_for(isa: Isa, a: &ArrayRef2<A>) -> Result<Self> {
        let (rows, depth) = a.dim();
        check_sums(depth)?;
        let isa = isa.for_product(rows, depth, usize::MAX);
        let mut packed = Self {
            isa,
            rows,
            depth,
            block: LhsBlock::default(),
            stride: 0,
            len: 0,
            signed: false,
            element: PhantomData,
        };
        if !a.is_empty() {
            let layout = LhsLayout::packed(isa);
            let matrix = MatrixLhs(a.view());
            let copy = packed.block.read(&matrix, 0..rows, layout, true);
            (packed.stride, packed.len) = (copy.stride, copy.len);
            packed.signed = copy.signed;
            packed.block.shrink(packed.widened());
        }
        Ok(packed)
    }

    /// Returns whether the rows are widened to 16 bits.
    fn widened(&self) -> bool {
        self.isa.blocking().lhs_width == 2
    }

    /// Returns `m`, the number of rows.
    pub fn nrows(&self) -> usize {
        self.rows
    }

    /// Returns `k`, the depth of products with it.
    pub fn ncols(&self) -> usize {
        self.depth
    }

    /// Returns its size in memory: codes, padding and row sums.
    pub fn size_in_bytes(&self) -> usize {
        self.block.size_in_bytes()
    }

    /// Returns an error if the RHS was packed for another instruction set.
    pub(super) fn check(&self, rhs: Isa) -> Result<()> {
        let expected = rhs.for_product(self.rows, self.depth, usize::MAX);
        if self.isa == expected {
            return Ok(());
        }
        Err(ParamsError::Kernel { expected: expected.name(), found: self.isa.name() }.into())
    }
}

impl<A: Int8> LhsSource for PackedLhs<A> {
    fn nrows(&self) -> usize {
        self.rows
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn signed(&self) -> bool {
        A::SIGN_OFFSET != 0
    }

    fn packed(&self, rows: Range<usize>) -> Option<LhsRows<'_>> {
        let (codes, sums) = self.block.content(self.widened());
        let bytes = codes.get(rows.start * self.stride..).unwrap_or_default();
        let sums = sums.get(rows.start..).unwrap_or_default();
        let Self { stride, len, signed, .. } = *self;
        Some(LhsRows { bytes, stride, len, signed, sums })
    }

    fn packed_for(&self) -> Option<Isa> {
        Some(self.isa)
    }

    /// Never called: all rows are packed.
    fn fill(&self, _: Range<usize>, _: usize, _: &mut [u8]) {}

    fn overhang(&self) -> usize {
        0
    }
}
