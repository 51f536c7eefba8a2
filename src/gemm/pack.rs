//! Operands in the order that kernels read them, with canonical signs and their sums.
//!
//! A panel holds `width` rows of the left side (or columns of the right) as `[depth / unit][width][unit]`, short panels
//! and the end of the depth filled with zero bytes. Signs are made canonical on the way: the left side unsigned, the
//! right side signed, by flipping the top bit, which adds or subtracts 128; zero points move with them. So one kernel
//! serves all four combinations of signs.

use alloc::{vec, vec::Vec};

use ndarray::{ArrayRef2, ArrayView2, Axis};

use super::Byte;
use crate::arch::{Isa, Kernel, with_kernel};
use crate::error::{Error, Result};

/// The shape of panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Rows of the left side, or columns of the right, in a panel.
    pub(crate) width: usize,
    /// Neighbours in depth that lie side by side.
    pub(crate) unit: usize,
}

impl Layout {
    /// The panels of the left side.
    pub(crate) fn lhs<K: Kernel>() -> Self {
        Layout { width: K::MR, unit: K::KU }
    }

    /// The panels of the right side.
    pub(crate) fn rhs<K: Kernel>() -> Self {
        Layout { width: K::NR, unit: K::KU }
    }

    fn of_rhs(isa: Isa) -> Self {
        fn of<K: Kernel>(_: K) -> Layout {
            Layout::rhs::<K>()
        }
        with_kernel!(isa, kernel => of(kernel))
    }

    /// The bytes of one panel.
    pub(crate) fn panel_len(self, depth: usize) -> usize {
        self.width * depth.next_multiple_of(self.unit)
    }

    /// The bytes of as many panels as `lanes` rows or columns need.
    fn packed_len(self, lanes: usize, depth: usize) -> usize {
        self.panel_len(depth) * lanes.div_ceil(self.width)
    }
}

/// Which of the two operands is packed, and so which sign is canonical.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// What canonical codes are greater by than the codes of `T`.
fn canonical_shift<T: Byte>(side: Side) -> i32 {
    match side {
        Side::Left => T::TO_UNSIGNED,
        Side::Right => T::TO_UNSIGNED - 128,
    }
}

/// Packs all rows of `lanes` (for the right side: its columns) and writes their sums of canonical codes.
fn pack_panels<T: Byte>(lanes: ArrayView2<'_, T>, side: Side, layout: Layout, data: &mut [u8], sums: &mut [i32]) {
    let depth = lanes.ncols();
    let panel_len = layout.panel_len(depth);
    let shift = canonical_shift::<T>(side);
    let flip = if shift == 0 { 0 } else { 0x80 };
    data.fill(0);
    let step = layout.width * layout.unit;
    for (lane, (codes, sum)) in lanes.axis_iter(Axis(0)).zip(sums).enumerate() {
        let panel = &mut data[lane / layout.width * panel_len..][..panel_len];
        let column = lane % layout.width * layout.unit;
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
    isa: Isa,
    rows: usize,
    cols: usize,
    data: AlignedBytes,
    /// `Σ_k (b - b_zero)` of each column: what the left zero point is multiplied with.
    centred_sums: Vec<i32>,
    /// The zero points of the canonical codes, one per column; empty if all are 0.
    zero_points: Vec<i32>,
    /// The greatest distance of a code from its zero point.
    reach: i64,
    element: core::marker::PhantomData<B>,
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
        let layout = Layout::of_rhs(isa);
        let mut data = AlignedBytes::zeroed(layout.packed_len(cols, rows));
        let mut centred_sums = vec![0; cols];
        pack_panels(b.t(), Side::Right, layout, data.as_mut_slice(), &mut centred_sums);
        let zero_point = |j: usize| if zero_points.len() == 1 { zero_points[0] } else { zero_points[j] };
        let shift = canonical_shift::<B>(Side::Right);
        let canonical: Vec<i32> = (0..cols).map(|j| zero_point(j).to_i32() + shift).collect();
        for (sum, zero) in centred_sums.iter_mut().zip(&canonical) {
            *sum -= zero * rows as i32;
        }
        Ok(Self {
            isa,
            rows,
            cols,
            data,
            centred_sums,
            zero_points: if canonical.iter().all(|&z| z == 0) { Vec::new() } else { canonical },
            reach: (0..cols).map(|j| B::reach(zero_point(j))).max().unwrap_or(1),
            element: core::marker::PhantomData,
        })
    }

    /// `k`, the depth of products with it.
    pub fn nrows(&self) -> usize {
        self.rows
    }

    /// `n`, the columns of products with it.
    pub fn ncols(&self) -> usize {
        self.cols
    }

    /// The bytes that it takes in memory: codes, padding, sums and zero points.
    pub fn size_in_bytes(&self) -> usize {
        self.data.as_slice().len() + size_of::<i32>() * (self.centred_sums.len() + self.zero_points.len())
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_slice()
    }

    pub(crate) fn centred_sums(&self) -> &[i32] {
        &self.centred_sums
    }

    pub(crate) fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    pub(crate) fn reach(&self) -> i64 {
        self.reach
    }
}

/// A block of rows of the left side, packed, with their sums. Reused from block to block.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackedLhs {
    data: AlignedBytes,
    sums: Vec<i32>,
}

impl PackedLhs {
    /// Packs `a`, a block of shape `[rows, k]`.
    pub(crate) fn pack<A: Byte>(&mut self, a: ArrayView2<'_, A>, layout: Layout) {
        let (rows, depth) = a.dim();
        self.data.resize(layout.packed_len(rows, depth));
        self.sums.resize(rows, 0);
        pack_panels(a, Side::Left, layout, self.data.as_mut_slice(), &mut self.sums);
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// `Σ_k a` of each row, of canonical codes.
    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }
}

/// The zero point of canonical codes of the left side.
pub(crate) fn canonical_lhs_zero_point<A: Byte>(zero_point: A) -> i32 {
    zero_point.to_i32() + canonical_shift::<A>(Side::Left)
}

/// Bytes that start at a cache line, so that no vector of a panel lies across two.
#[derive(Debug, Default)]
struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    const LINE: usize = 64;

    fn zeroed(len: usize) -> Self {
        let mut aligned = Self::default();
        aligned.resize(len);
        aligned
    }

    /// Changes the length; what the bytes are afterwards is not defined.
    fn resize(&mut self, len: usize) {
        if self.bytes.len() < len + Self::LINE {
            self.bytes.resize(len + Self::LINE, 0);
            self.start = self.bytes.as_ptr().align_offset(Self::LINE).min(Self::LINE);
        }
        self.len = len;
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
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
