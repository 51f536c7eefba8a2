//! The packed RHS, with its column sums and zero points.

use alloc::vec::Vec;
use core::marker::PhantomData;

use ndarray::ArrayRef2;

use super::aligned::AlignedBytes;
use super::pack;
use super::{Int8, check_sums};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_count};
use crate::simd::Isa;

/// The right-hand side of products, packed once for the micro-kernel of this machine, with column sums and zero points.
///
/// The large fixed matrix of a product belongs here: weights, or a table of embeddings. Use [`pack`](Self::pack) for
/// `[k, n]` and [`from_rows`](Self::from_rows) for `[n, k]`.
#[derive(Debug, Clone)]
pub struct PackedRhs<B: Int8> {
    panels: Panels,
    /// Maximum of `|code - zero_point|`.
    max_abs_diff: i64,
    element: PhantomData<B>,
}

/// The content of a packed RHS. Not generic, so that one driver serves both types of codes.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    pub(crate) isa: Isa,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Bytes of one panel.
    pub(crate) panel_len: usize,
    data: AlignedBytes,
    /// Column sums `Σ_k (b - b_zero)`, which compensate for the zero point of the LHS.
    pub(crate) column_sums: Vec<i32>,
    /// Zero points of the packed codes, one per column; empty if all are 0 or the depth is 0.
    pub(crate) zero_points: Vec<i32>,
}

impl Panels {
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }
}

impl<B: Int8> PackedRhs<B> {
    /// Packs `b` of shape `[k, n]`, of any strides, with one zero point for all columns or one per column.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are 1 or `n` zero points; [`Error::Value`] if column sums of `k` codes could leave
    /// `i32`.
    pub fn pack(b: &ArrayRef2<B>, zero_points: &[B]) -> Result<Self> {
        Self::pack_for(Isa::for_gemm(b.nrows()), b, zero_points)
    }

    /// Packs B given by the rows of its transpose: `b_transposed` has shape `[n, k]`, one row per output, like the
    /// weights of a linear layer or a table of embeddings. Equals [`pack`](Self::pack) of the transposed view.
    ///
    /// # Errors
    /// Same as [`pack`](Self::pack).
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::gemm::{I32Epilogue, PackedRhs, gemm};
    ///
    /// // Dot products of a query with each of three embeddings.
    /// let embeddings = PackedRhs::from_rows(&array![[1i8, 2], [3, 4], [-5, 6]], &[0])?;
    /// assert_eq!(gemm(&array![[10i8, 1]], 0, &embeddings, &I32Epilogue::new())?, array![[12, 34, -44]]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn from_rows(b_transposed: &ArrayRef2<B>, zero_points: &[B]) -> Result<Self> {
        Self::pack(&b_transposed.t(), zero_points)
    }

    pub(crate) fn pack_for(isa: Isa, b: &ArrayRef2<B>, zero_points: &[B]) -> Result<Self> {
        let panels = Panels {
            isa,
            rows: 0,
            cols: 0,
            panel_len: 0,
            data: AlignedBytes::default(),
            column_sums: Vec::new(),
            zero_points: Vec::new(),
        };
        let mut packed = Self { panels, max_abs_diff: 1, element: PhantomData };
        packed.repack_for(isa, b, zero_points)?;
        Ok(packed)
    }

    /// Packs another matrix, of any shape, into the memory of this one. For RHS that change with each product;
    /// allocates only to grow.
    ///
    /// # Errors
    /// Same as [`pack`](Self::pack). `self` is unchanged then.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::gemm::{I32Epilogue, PackedRhs, gemm};
    ///
    /// let mut b = PackedRhs::pack(&array![[1i8], [2]], &[0])?;
    /// assert_eq!(gemm(&array![[3u8, 4]], 0, &b, &I32Epilogue::new())?, array![[11]]);
    /// b.repack(&array![[5i8, 6, 7]], &[0])?;
    /// assert_eq!(gemm(&array![[2u8]], 0, &b, &I32Epilogue::new())?, array![[10, 12, 14]]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn repack(&mut self, b: &ArrayRef2<B>, zero_points: &[B]) -> Result<()> {
        self.repack_for(Isa::for_gemm(b.nrows()), b, zero_points)
    }

    pub(super) fn repack_for(&mut self, isa: Isa, b: &ArrayRef2<B>, zero_points: &[B]) -> Result<()> {
        let (rows, cols) = b.dim();
        if zero_points.len() != 1 {
            check_count("zero points of the RHS, one or one per column", cols, zero_points.len())?;
        }
        check_sums(rows)?;
        let to = &mut self.panels;
        let nr = isa.blocking().nr;
        (to.isa, to.rows, to.cols, to.panel_len) = (isa, rows, cols, nr * isa.padded_depth(rows));
        to.data.resize(to.panel_len * cols.div_ceil(nr));
        to.column_sums.resize(cols, 0);
        pack::pack(to.isa, b.view(), &mut to.data, &mut to.column_sums);
        let zero_points = zero_points.iter().cycle().take(cols);
        self.max_abs_diff = zero_points.clone().map(|&zero| B::max_abs_diff(zero)).max().unwrap_or(1);
        to.zero_points.clear();
        to.zero_points.extend(zero_points.map(|zero| zero.to_i32() + pack::sign_offset::<B>()));
        for (sum, zero) in to.column_sums.iter_mut().zip(&to.zero_points) {
            *sum -= zero * rows as i32;
        }
        if rows == 0 || to.zero_points.iter().all(|&zero| zero == 0) {
            to.zero_points.clear();
        }
        Ok(())
    }

    /// Returns `k`, the depth of products with it.
    pub fn nrows(&self) -> usize {
        self.panels.rows
    }

    /// Returns `n`, the number of columns of products with it.
    pub fn ncols(&self) -> usize {
        self.panels.cols
    }

    /// Returns its size in memory: codes, padding, column sums and zero points.
    pub fn size_in_bytes(&self) -> usize {
        let integers = self.panels.column_sums.len() + self.panels.zero_points.len();
        self.panels.data().len() + size_of::<i32>() * integers
    }

    pub(crate) fn panels(&self) -> &Panels {
        &self.panels
    }

    pub(crate) fn max_abs_diff(&self) -> i64 {
        self.max_abs_diff
    }
}
