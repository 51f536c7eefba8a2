//! Blocks, tiles and threads.

use alloc::vec::Vec;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::Byte;
use super::epilogue::Epilogue;
use super::pack::{Layout, PackedLhs, PackedRhs, canonical_lhs_zero_point};
use crate::arch::{Kernel, Task, with_kernel};

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
    with_kernel!(b.isa(), kernel => product.split(kernel, out, workspace))
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
        let rows = out.nrows();
        let block = (LHS_BLOCK / self.b.nrows().max(1)).next_multiple_of(K::MR).max(K::MR);
        workspace.tile.resize(K::MR * K::NR, 0);
        workspace.start.resize(K::NR, 0);
        for first in (0..rows).step_by(block) {
            let out = out.slice_mut(s![first..rows.min(first + block), ..]);
            kernel.run(Block { product: self, kernel, row: row + first, col, out, workspace });
        }
    }

    /// What the accumulators of these columns start from: the bias less the left zero point's share.
    #[inline(always)]
    fn column_start(&self, col: usize, start: &mut [i32]) {
        let sums = &self.b.centred_sums()[col..][..start.len()];
        for (start, &sum) in start.iter_mut().zip(sums) {
            *start = self.a_zero_point.wrapping_mul(sum).wrapping_neg();
        }
        if let Some(bias) = self.epilogue.bias() {
            let bias = &bias[col..][..start.len()];
            start.iter_mut().zip(bias).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
    }
}

/// One block of rows of the left side, packed here, against some columns of the right.
struct Block<'a, 'p, A: Byte, B: Byte, E: Epilogue, K> {
    product: &'a Product<'p, A, B, E>,
    kernel: K,
    /// Where the block starts in the whole product.
    row: usize,
    col: usize,
    out: ArrayViewMut2<'a, E::Out>,
    workspace: &'a mut Workspace,
}

impl<A: Byte, B: Byte, E: Epilogue, K: Kernel> Task for Block<'_, '_, A, B, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { product, kernel, row, col, mut out, workspace } = self;
        let Workspace { lhs, tile, start } = workspace;
        let (rows, cols) = out.dim();
        let depth = product.b.nrows();
        lhs.pack(product.a.slice(s![row..row + rows, ..]), Layout::lhs::<K>());
        let a_len = Layout::lhs::<K>().panel_len(depth);
        let b_len = Layout::rhs::<K>().panel_len(depth);
        debug_assert_eq!(col % K::NR, 0);
        for (panel, j) in (0..cols).step_by(K::NR).enumerate() {
            let width = K::NR.min(cols - j);
            let b_panel = &product.b.data()[(col / K::NR + panel) * b_len..][..b_len];
            product.column_start(col + j, &mut start[..width]);
            let b_zero_points = match product.b.zero_points() {
                [] => None,
                zero_points => Some(&zero_points[col + j..][..width]),
            };
            for (panel, i) in (0..rows).step_by(K::MR).enumerate() {
                let height = K::MR.min(rows - i);
                let a_panel = &lhs.data()[panel * a_len..][..a_len];
                for (acc, &row_sum) in tile.chunks_exact_mut(K::NR).zip(&lhs.sums()[i..i + height]) {
                    acc.copy_from_slice(start);
                    if let Some(zero_points) = b_zero_points {
                        for (acc, &zero) in acc.iter_mut().zip(zero_points) {
                            *acc = acc.wrapping_sub(zero.wrapping_mul(row_sum));
                        }
                    }
                }
                kernel.accumulate(height, a_panel, b_panel, tile);
                for (r, acc) in tile.chunks_exact(K::NR).take(height).enumerate() {
                    let mut out = out.slice_mut(s![i + r, j..j + width]);
                    let acc = &acc[..width];
                    match out.as_slice_mut() {
                        Some(out) => product.epilogue.store(row + i + r, col + j, acc, out),
                        None => {
                            let mut values = [E::Out::default(); MAX_TILE_WIDTH];
                            let values = &mut values[..width];
                            product.epilogue.store(row + i + r, col + j, acc, values);
                            out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
                        }
                    }
                }
            }
        }
    }
}
