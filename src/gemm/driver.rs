//! Blocks, tiles and threads.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::Byte;
use super::epilogue::Epilogue;
use super::kernel::{Kernel, KernelId, Portable};
use super::pack::{Layout, PackedLhs, PackedRhs, canonical_lhs_zero_point};

/// The bytes of the left side that are packed at a time: they stay in the second-level cache.
const LHS_BLOCK: usize = 256 * 1024;

/// No kernel has a wider tile.
const MAX_TILE_WIDTH: usize = 64;

/// Memory that products reuse from call to call.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    lhs: PackedLhs,
    tile: Vec<i32>,
    start: Vec<i32>,
}

impl Workspace {
    /// An empty one; it grows to the problems that it serves.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A product whose operands were checked.
struct Product<'a, A: Byte, B: Byte, E: Epilogue> {
    a: ArrayView2<'a, A>,
    /// Of canonical codes.
    a_zero_point: i32,
    b: &'a PackedRhs<B>,
    epilogue: &'a E,
}

/// Runs a checked product with the kernel that its right side was packed for.
pub(super) fn run<A: Byte, B: Byte, E: Epilogue>(
    a: ArrayView2<'_, A>,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
    out: ArrayViewMut2<'_, E::Out>,
    workspace: &mut Workspace,
) {
    let product = Product { a, a_zero_point: canonical_lhs_zero_point(a_zero_point), b, epilogue };
    match b.kernel() {
        KernelId::Portable => product.split(Portable, out, workspace),
    }
}

impl<A: Byte, B: Byte, E: Epilogue> Product<'_, A, B, E> {
    #[cfg(not(feature = "rayon"))]
    fn split<K: Kernel>(&self, kernel: K, out: ArrayViewMut2<'_, E::Out>, workspace: &mut Workspace) {
        self.part(kernel, 0, 0, out, workspace);
    }

    /// Splits the work over the threads of the caller's pool, as long as each part is worth a thread.
    #[cfg(feature = "rayon")]
    fn split<K: Kernel>(&self, kernel: K, out: ArrayViewMut2<'_, E::Out>, workspace: &mut Workspace) {
        const WORTH_A_THREAD: usize = 1 << 20;
        let work = self.a.len().saturating_mul(self.b.ncols());
        let threads = rayon::current_num_threads().min(work / WORTH_A_THREAD);
        if threads > 1 {
            self.fork(kernel, 0, 0, out, threads);
        } else {
            self.part(kernel, 0, 0, out, workspace);
        }
    }

    /// Halves the longer side, in whole tiles, until there is a part for each thread.
    #[cfg(feature = "rayon")]
    fn fork<K: Kernel>(&self, kernel: K, row: usize, col: usize, out: ArrayViewMut2<'_, E::Out>, threads: usize) {
        let (rows, cols) = out.dim();
        let by_rows = rows >= cols;
        let (len, unit) = if by_rows { (rows, K::MR) } else { (cols, K::NR) };
        let first_threads = threads / 2;
        let at = (len * first_threads / threads.max(1)).next_multiple_of(unit);
        if threads < 2 || at >= len || at == 0 {
            return self.part(kernel, row, col, out, &mut Workspace::new());
        }
        let (first, second) = out.split_at(ndarray::Axis(!by_rows as usize), at);
        let (next_row, next_col) = if by_rows { (row + at, col) } else { (row, col + at) };
        rayon::join(
            || self.fork(kernel, row, col, first, first_threads),
            || self.fork(kernel, next_row, next_col, second, threads - first_threads),
        );
    }

    /// Computes the part of the product that starts at this row and column and has the size of `out`.
    fn part<K: Kernel>(
        &self,
        kernel: K,
        row: usize,
        col: usize,
        mut out: ArrayViewMut2<'_, E::Out>,
        workspace: &mut Workspace,
    ) {
        let depth = self.b.nrows();
        let layout = Layout { width: K::MR, unit: K::KU };
        let (rows, cols) = out.dim();
        let block = (LHS_BLOCK / depth.max(1)).next_multiple_of(K::MR).max(K::MR);
        let Workspace { lhs, tile, start } = workspace;
        tile.resize(K::MR * K::NR, 0);
        start.resize(K::NR, 0);
        for first in (0..rows).step_by(block) {
            let range = first..rows.min(first + block);
            let out = out.slice_mut(s![range.clone(), ..]);
            let a = self.a.slice(s![row + range.start..row + range.end, ..]);
            kernel.run(|| {
                lhs.pack(a, layout);
                self.block(kernel, row + first, col..col + cols, lhs, out, tile, start);
            });
        }
    }

    /// One packed block of the left side against these columns of the right.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the buffers are borrowed one by one from the workspace")]
    fn block<K: Kernel>(
        &self,
        kernel: K,
        row: usize,
        cols: Range<usize>,
        lhs: &PackedLhs,
        mut out: ArrayViewMut2<'_, E::Out>,
        tile: &mut [i32],
        start: &mut [i32],
    ) {
        let depth = self.b.nrows();
        let a_len = Layout { width: K::MR, unit: K::KU }.panel_len(depth);
        let b_len = Layout { width: K::NR, unit: K::KU }.panel_len(depth);
        let rows = out.nrows();
        debug_assert_eq!(cols.start % K::NR, 0);
        for col in cols.clone().step_by(K::NR) {
            let width = K::NR.min(cols.end - col);
            let b_panel = &self.b.data()[col / K::NR * b_len..][..b_len];
            self.column_start(col, &mut start[..width]);
            let b_zero_points = match self.b.zero_points() {
                [] => None,
                zero_points => Some(&zero_points[col..col + width]),
            };
            for first in (0..rows).step_by(K::MR) {
                let height = K::MR.min(rows - first);
                let a_panel = &lhs.data()[first / K::MR * a_len..][..a_len];
                for (acc, &row_sum) in tile.chunks_exact_mut(K::NR).zip(&lhs.sums()[first..first + height]) {
                    acc.copy_from_slice(start);
                    if let Some(zero_points) = b_zero_points {
                        for (acc, &zero) in acc.iter_mut().zip(zero_points) {
                            *acc = acc.wrapping_sub(zero.wrapping_mul(row_sum));
                        }
                    }
                }
                kernel.accumulate(height, a_panel, b_panel, tile);
                for (i, acc) in tile.chunks_exact(K::NR).take(height).enumerate() {
                    let mut out = out.slice_mut(s![first + i, col - cols.start..col - cols.start + width]);
                    match out.as_slice_mut() {
                        Some(out) => self.epilogue.store(row + first + i, col, &acc[..width], out),
                        None => {
                            let mut values = [E::Out::default(); MAX_TILE_WIDTH];
                            let values = &mut values[..width];
                            self.epilogue.store(row + first + i, col, &acc[..width], values);
                            out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
                        }
                    }
                }
            }
        }
    }

    /// What the accumulators of these columns start from: the bias less the left zero point's share.
    #[inline(always)]
    fn column_start(&self, col: usize, start: &mut [i32]) {
        for (start, &sum) in start.iter_mut().zip(&self.b.centred_sums()[col..]) {
            *start = self.a_zero_point.wrapping_mul(sum).wrapping_neg();
        }
        if let Some(bias) = self.epilogue.bias() {
            start.iter_mut().zip(&bias[col..]).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
    }
}
