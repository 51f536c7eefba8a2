//! The right side as kernels read it, with canonical signs and its sums.
//!
//! The right side is packed: a panel holds `width` columns as `[ceil(depth / unit)][width][unit]`, short panels and the
//! end of the depth filled with zeros. The left side is read in place where its rows allow it. The canonical right side is
//! signed, and for most kernels the left side unsigned: flipping the top bit adds or subtracts 128, and zero points move
//! with it, so few kernels serve all four combinations of signs.

use alloc::{vec, vec::Vec};

use ndarray::{ArrayRef2, ArrayView2, Axis};

use super::Byte;
use crate::arch::{Isa, Kernel, with_kernel};
use crate::error::{Error, Result};

/// The shape of panels of the right side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RhsLayout {
    /// Columns in a panel.
    width: usize,
    /// Neighbours in depth that lie side by side.
    unit: usize,
    /// The bytes of one panel.
    panel_len: usize,
}

impl RhsLayout {
    fn of(isa: Isa, depth: usize) -> Self {
        fn of<K: Kernel>(_: K, depth: usize) -> RhsLayout {
            RhsLayout { width: K::NR, unit: K::KU, panel_len: K::NR * K::padded_depth(depth) }
        }
        with_kernel!(isa, kernel => of(kernel, depth))
    }
}

/// What canonical codes of the right side are greater by than the codes of `T`: they are signed.
fn rhs_shift<T: Byte>() -> i32 {
    T::TO_UNSIGNED - 128
}

/// Packs the columns of the right side, given as rows, and writes the sums of their canonical codes.
fn pack_columns<T: Byte>(columns: ArrayView2<'_, T>, layout: RhsLayout, data: &mut [u8], sums: &mut [i32]) {
    let depth = columns.ncols();
    let shift = rhs_shift::<T>();
    let flip = if shift == 0 { 0 } else { 0x80 };
    let step = layout.width * layout.unit;
    for (i, (codes, sum)) in columns.axis_iter(Axis(0)).zip(sums).enumerate() {
        let panel = &mut data[i / layout.width * layout.panel_len..][..layout.panel_len];
        let column = i % layout.width * layout.unit;
        *sum = shift * depth as i32;
        let mut place = |(k, &code): (usize, &T)| {
            panel[k / layout.unit * step + column + k % layout.unit] = code.to_i32() as u8 ^ flip;
            *sum += code.to_i32();
        };
        match codes.as_slice() {
            Some(codes) => codes.iter().enumerate().for_each(&mut place),
            None => codes.iter().enumerate().for_each(&mut place),
        }
    }
}

/// The right side of a product, packed for the kernel of this machine, with its column sums and zero points.
#[derive(Debug, Clone)]
pub struct PackedRhs<B: Byte> {
    panels: Panels,
    /// The greatest distance of a code from its zero point.
    reach: i64,
    element: core::marker::PhantomData<B>,
}

/// What products read of the right side. Not generic, so that there is one driver for both types of codes.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    pub(crate) isa: Isa,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// The bytes of one panel.
    pub(crate) panel_len: usize,
    data: AlignedBytes,
    /// `Σ_k (b - b_zero)` of each column: what the left zero point is multiplied with.
    pub(crate) centred_sums: Vec<i32>,
    /// The zero points of the canonical codes, one per column; empty if all are 0.
    pub(crate) zero_points: Vec<i32>,
}

impl Panels {
    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_slice()
    }
}

impl<B: Byte> PackedRhs<B> {
    /// Packs `b` of shape `[k, n]`, with one zero point for all columns or one for each. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are 1 or `n` zero points, [`Error::Depth`] if no product of this depth is safe.
    pub fn pack(b: &ArrayRef2<B>, zero_points: &[B]) -> Result<Self> {
        Self::pack_for(Isa::current(), b, zero_points)
    }

    pub(crate) fn pack_for(isa: Isa, b: &ArrayRef2<B>, zero_points: &[B]) -> Result<Self> {
        let (rows, cols) = b.dim();
        if zero_points.len() != 1 && zero_points.len() != cols {
            return Err(Error::shape("zero points of the right side", &[cols], &[zero_points.len()]));
        }
        // Keeps every sum of codes within i32.
        let max = i32::MAX as usize / 256;
        if rows > max {
            return Err(Error::Depth { max, found: rows });
        }
        let layout = RhsLayout::of(isa, rows);
        let panel_len = layout.panel_len;
        let mut data = AlignedBytes::zeroed(panel_len * cols.div_ceil(layout.width));
        let mut centred_sums = vec![0; cols];
        pack_columns(b.t(), layout, data.as_mut_slice(), &mut centred_sums);
        let zero_point = |j: usize| if zero_points.len() == 1 { zero_points[0] } else { zero_points[j] };
        let shift = rhs_shift::<B>();
        let canonical: Vec<i32> = (0..cols).map(|j| zero_point(j).to_i32() + shift).collect();
        for (sum, zero) in centred_sums.iter_mut().zip(&canonical) {
            *sum -= zero * rows as i32;
        }
        let zero_points = if canonical.iter().all(|&z| z == 0) { Vec::new() } else { canonical };
        Ok(Self {
            reach: (0..cols).map(|j| B::reach(zero_point(j))).max().unwrap_or(1),
            panels: Panels { isa, rows, cols, panel_len, data, centred_sums, zero_points },
            element: core::marker::PhantomData,
        })
    }

    /// `k`, the depth of products with it.
    pub fn nrows(&self) -> usize {
        self.panels.rows
    }

    /// `n`, the columns of products with it.
    pub fn ncols(&self) -> usize {
        self.panels.cols
    }

    /// The bytes that it takes in memory: codes, padding, sums and zero points.
    pub fn size_in_bytes(&self) -> usize {
        let integers = self.panels.centred_sums.len() + self.panels.zero_points.len();
        self.panels.data().len() + size_of::<i32>() * integers
    }

    pub(crate) fn panels(&self) -> &Panels {
        &self.panels
    }

    pub(crate) fn reach(&self) -> i64 {
        self.reach
    }
}

/// Bytes that start at a cache line, so that no vector of a panel lies across two.
#[derive(Debug, Default)]
pub(crate) struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    pub(crate) const LINE: usize = 64;

    pub(crate) fn zeroed(len: usize) -> Self {
        let mut aligned = Self::default();
        aligned.resize(len);
        aligned
    }

    /// Changes the length; what the bytes are afterwards is not defined.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.bytes.len() < len + Self::LINE {
            self.bytes.resize(len + Self::LINE, 0);
            self.start = self.bytes.as_ptr().align_offset(Self::LINE).min(Self::LINE);
        }
        self.len = len;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}
