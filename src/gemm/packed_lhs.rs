//! The left side of products as callers give it: a matrix, or one that was packed once.

use core::marker::PhantomData;
use core::ops::Range;

use ndarray::{ArrayBase, ArrayRef2, Data, Ix2};

use super::lhs::{Lhs, LhsBlock, LhsLayout};
use super::{Int8, check_sums};
use crate::arch::{Isa, Rows};
use crate::error::{Error, Result};

/// The left side of a product: a matrix of any strides, or a [`PackedLhs`].
///
/// Made by `into` from references to either; [`gemm`](super::gemm) does so.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a, A: Int8>(pub(super) Lhs<'a, A>);

impl<'a, A: Int8> From<&'a ArrayRef2<A>> for Left<'a, A> {
    fn from(a: &'a ArrayRef2<A>) -> Self {
        Left(Lhs::Matrix(a.view()))
    }
}

impl<'a, A: Int8, S: Data<Elem = A>> From<&'a ArrayBase<S, Ix2>> for Left<'a, A> {
    fn from(a: &'a ArrayBase<S, Ix2>) -> Self {
        Left(Lhs::Matrix(a.view()))
    }
}

impl<'a, A: Int8> From<&'a PackedLhs<A>> for Left<'a, A> {
    fn from(a: &'a PackedLhs<A>) -> Self {
        Left(Lhs::Packed(a))
    }
}

/// The left side of a product, copied once to where the kernel of this machine reads it best, with the sums of its rows.
///
/// Kernels read most matrices where they are. A copy pays for a left side that meets many right sides and is of signed codes,
/// has rows that are not contiguous, or is multiplied with right sides that have zero points.
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
    /// The distance of rows, and whether they are signed still.
    stride: usize,
    signed: bool,
    element: PhantomData<A>,
}

impl<A: Int8> PackedLhs<A> {
    /// Packs `a` of shape `[m, k]`. Any strides.
    ///
    /// # Errors
    /// [`Error::Depth`] if no product of this depth is safe.
    pub fn pack(a: &ArrayRef2<A>) -> Result<Self> {
        Self::pack_for(Isa::current(), a)
    }

    pub(super) fn pack_for(isa: Isa, a: &ArrayRef2<A>) -> Result<Self> {
        let (rows, depth) = a.dim();
        check_sums(depth)?;
        let isa = isa.for_rows(rows);
        let mut packed =
            Self { isa, rows, depth, block: LhsBlock::default(), stride: 0, signed: false, element: PhantomData };
        if !a.is_empty() {
            let copy = packed.block.read(Lhs::Matrix(a.view()), 0..rows, LhsLayout::packed(isa), true);
            (packed.stride, packed.signed) = (copy.stride, copy.signed);
        }
        Ok(packed)
    }

    /// `m`, the rows of products with it.
    pub fn nrows(&self) -> usize {
        self.rows
    }

    /// `k`, the depth of products with it.
    pub fn ncols(&self) -> usize {
        self.depth
    }

    /// The bytes that it takes in memory: codes, padding and sums.
    pub fn size_in_bytes(&self) -> usize {
        self.block.size_in_bytes()
    }

    /// These rows, with the sums of their canonical codes.
    pub(super) fn rows(&self, which: Range<usize>) -> Rows<'_> {
        let (codes, sums) = self.block.content();
        let bytes = codes.get(which.start * self.stride..).unwrap_or_default();
        let sums = sums.get(which).unwrap_or_default();
        Rows { bytes, stride: self.stride, depth: self.depth, signed: self.signed, sums }
    }

    /// Refuses a right side that was packed for another kernel.
    pub(super) fn check(&self, rhs: Isa) -> Result<()> {
        let expected = rhs.for_rows(self.rows);
        if self.isa == expected {
            return Ok(());
        }
        Err(Error::Kernel { expected: expected.name(), found: self.isa.name() })
    }
}
