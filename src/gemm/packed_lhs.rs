//! The LHS as callers pass it: a matrix, or one packed once.

use core::marker::PhantomData;
use core::ops::Range;

use ndarray::{ArrayBase, ArrayRef2, Data, Ix2};

use super::lhs::{LhsBlock, LhsLayout, LhsSource};
use super::{Int8, check_sums};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::simd::{Isa, LhsRows};

/// The left-hand side of a product: a reference to a matrix of any strides, or to a [`PackedLhs`].
///
/// [`gemm`](super::gemm) converts references to either by `into`.
#[derive(Debug, Clone, Copy)]
pub struct Lhs<'a, A: Int8> {
    pub(super) source: LhsSource<'a, A>,
}

impl<'a, A: Int8> From<&'a ArrayRef2<A>> for Lhs<'a, A> {
    fn from(a: &'a ArrayRef2<A>) -> Self {
        Lhs { source: LhsSource::Matrix(a.view()) }
    }
}

impl<'a, A: Int8, S: Data<Elem = A>> From<&'a ArrayBase<S, Ix2>> for Lhs<'a, A> {
    fn from(a: &'a ArrayBase<S, Ix2>) -> Self {
        Lhs { source: LhsSource::Matrix(a.view()) }
    }
}

impl<'a, A: Int8> From<&'a PackedLhs<A>> for Lhs<'a, A> {
    fn from(a: &'a PackedLhs<A>) -> Self {
        Lhs { source: LhsSource::Packed(a) }
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
    /// Distance between rows in bytes.
    stride: usize,
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
        let isa = isa.for_rows(rows);
        let mut packed =
            Self { isa, rows, depth, block: LhsBlock::default(), stride: 0, signed: false, element: PhantomData };
        if !a.is_empty() {
            let copy = packed.block.read(LhsSource::Matrix(a.view()), 0..rows, LhsLayout::packed(isa), true);
            (packed.stride, packed.signed) = (copy.stride, copy.signed);
        }
        Ok(packed)
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

    /// Returns the rows of `range` with their row sums.
    pub(super) fn rows(&self, range: Range<usize>) -> LhsRows<'_> {
        let (codes, sums) = self.block.content();
        let bytes = codes.get(range.start * self.stride..).unwrap_or_default();
        let sums = sums.get(range).unwrap_or_default();
        LhsRows { bytes, stride: self.stride, depth: self.depth, signed: self.signed, sums }
    }

    /// Returns an error if the RHS was packed for another instruction set.
    pub(super) fn check(&self, rhs: Isa) -> Result<()> {
        let expected = rhs.for_rows(self.rows);
        if self.isa == expected {
            return Ok(());
        }
        Err(ParamsError::Kernel { expected: expected.name(), found: self.isa.name() }.into())
    }
}
