//! Blocks, tiles and threads.

use alloc::vec::Vec;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};

use super::Byte;
use super::epilogue::Epilogue;
use super::pack::{Layout, LhsBlock, PackedRhs, Panels, canonical_lhs_zero_point};
use crate::arch::{Kernel, Rows, Task, with_kernel};

/// The bytes of the left side that all columns are multiplied with at a time: they stay in the second-level cache.
const LHS_BLOCK: usize = 256 * 1024;

/// The bytes of the right side that stay in the second-level cache while all rows of a block pass.
const RHS_CHUNK: usize = 512 * 1024;

/// No kernel has a wider or a higher tile.
const MAX_TILE_WIDTH: usize = 64;
const MAX_TILE_HEIGHT: usize = 32;

/// Memory that products reuse from call to call.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    lhs: LhsBlock,
    tile: Vec<i32>,
    start: Vec<i32>,
}

impl Workspace {
    /// An empty one; it grows to the problems that it serves.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A checked product but for its left side. Not generic in the types of codes, so that there is one driver for all.
struct Product<'a, E: Epilogue> {
    /// Of canonical codes.
    a_zero_point: i32,
    b: &'a Panels,
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
    let b = b.panels();
    let product = Product { a_zero_point: canonical_lhs_zero_point(a_zero_point), b, epilogue };
    product.split(a, out, workspace);
}

impl<E: Epilogue> Product<'_, E> {
    #[cfg(not(feature = "rayon"))]
    fn split<A: Byte>(&self, a: ArrayView2<'_, A>, out: ArrayViewMut2<'_, E::Out>, workspace: &mut Workspace) {
        self.part(a, 0, 0, out, workspace);
    }

    /// Splits the work over the threads of the caller's pool, as long as each part is worth a thread.
    #[cfg(feature = "rayon")]
    fn split<A: Byte>(&self, a: ArrayView2<'_, A>, out: ArrayViewMut2<'_, E::Out>, workspace: &mut Workspace) {
        const WORTH_A_THREAD: usize = 1 << 20;
        let work = a.len().saturating_mul(self.b.cols);
        let threads = rayon::current_num_threads().min(work / WORTH_A_THREAD);
        if threads > 1 {
            self.fork(a, 0, 0, out, threads);
        } else {
            self.part(a, 0, 0, out, workspace);
        }
    }

    /// Halves the longer side, in whole tiles, until there is a part for each thread.
    #[cfg(feature = "rayon")]
    fn fork<A: Byte>(
        &self,
        a: ArrayView2<'_, A>,
        row: usize,
        col: usize,
        out: ArrayViewMut2<'_, E::Out>,
        threads: usize,
    ) {
        let (rows, cols) = out.dim();
        let by_rows = rows >= cols;
        let (mr, nr) = with_kernel!(self.b.isa, kernel => tile_size(kernel));
        let (len, unit) = if by_rows { (rows, mr) } else { (cols, nr) };
        let first_threads = threads / 2;
        let at = (len * first_threads / threads.max(1)).next_multiple_of(unit);
        if threads < 2 || at >= len || at == 0 {
            return self.part(a, row, col, out, &mut Workspace::new());
        }
        let (first, second) = out.split_at(Axis(!by_rows as usize), at);
        let (next_row, next_col) = if by_rows { (row + at, col) } else { (row, col + at) };
        rayon::join(
            || self.fork(a, row, col, first, first_threads),
            || self.fork(a, next_row, next_col, second, threads - first_threads),
        );
    }

    /// Computes the part of the product that starts at this row and column and has the size of `out`.
    fn part<A: Byte>(
        &self,
        a: ArrayView2<'_, A>,
        row: usize,
        col: usize,
        mut out: ArrayViewMut2<'_, E::Out>,
        workspace: &mut Workspace,
    ) {
        let Workspace { lhs, tile, start } = workspace;
        let rows = out.nrows();
        let block = (LHS_BLOCK / self.b.rows.max(1)).next_multiple_of(MAX_TILE_HEIGHT).max(MAX_TILE_HEIGHT);
        for first in (0..rows).step_by(block) {
            let end = rows.min(first + block);
            let out = out.slice_mut(s![first..end, ..]);
            let (a, row_sums) = lhs.read(a.slice(s![row + first..row + end, ..]), !self.b.zero_points.is_empty());
            self.block(Block { a, row_sums, row: row + first, col, out, tile, start });
        }
    }

    fn block(&self, block: Block<'_, E>) {
        with_kernel!(self.b.isa, kernel => kernel.run(Tiles { product: self, kernel, block }));
    }

    /// What the accumulators of each column from `col` on start from: the bias less the left zero point's share.
    #[inline(always)]
    fn column_starts(&self, col: usize, start: &mut Vec<i32>, len: usize) {
        let sums = &self.b.centred_sums[col..];
        start.clear();
        start.extend(sums.iter().take(len).map(|&sum| self.a_zero_point.wrapping_mul(sum).wrapping_neg()));
        if let Some(bias) = self.epilogue.bias() {
            start.iter_mut().zip(&bias[col..]).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
        start.resize(len, 0);
    }
}

#[cfg(feature = "rayon")]
fn tile_size<K: Kernel>(_: K) -> (usize, usize) {
    (K::MR, K::NR)
}

/// One block of rows of the left side against some columns of the right.
struct Block<'a, E: Epilogue> {
    a: Rows<'a>,
    /// The sums of the rows' canonical codes, if they are needed.
    row_sums: &'a [i32],
    /// Where the block starts in the whole product.
    row: usize,
    col: usize,
    out: ArrayViewMut2<'a, E::Out>,
    tile: &'a mut Vec<i32>,
    start: &'a mut Vec<i32>,
}

/// The tiles of a block, one after the other.
struct Tiles<'a, 'b, 'p, E: Epilogue, K> {
    product: &'a Product<'p, E>,
    kernel: K,
    block: Block<'b, E>,
}

impl<E: Epilogue, K: Kernel> Task for Tiles<'_, '_, '_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { product, kernel, block } = self;
        let Block { a, row_sums, row, col, mut out, tile, start } = block;
        let (rows, cols) = out.dim();
        let panel_len = Layout::rhs::<K>().panel_len(product.b.rows);
        debug_assert_eq!(col % K::NR, 0);
        tile.resize(K::MR * K::NR, 0);
        product.column_starts(col, start, cols.next_multiple_of(K::NR));
        let chunk = (RHS_CHUNK / panel_len.max(1)).max(1) * K::NR;
        for first in (0..cols).step_by(chunk) {
            for i in (0..rows).step_by(K::MR) {
                let height = K::MR.min(rows - i);
                let a = Rows { bytes: &a.bytes[i * a.stride..], ..a };
                let mut out = OutRows::new(out.slice_mut(s![i..i + height, ..]));
                for j in (first..cols.min(first + chunk)).step_by(K::NR) {
                    let width = K::NR.min(cols - j);
                    let panel = &product.b.data()[(col + j) / K::NR * panel_len..][..panel_len];
                    kernel.multiply(height, a, panel, &start[j..j + K::NR], tile);
                    for (r, acc) in tile.chunks_exact_mut(K::NR).take(height).enumerate() {
                        let acc = &mut acc[..width];
                        if let Some(&row_sum) = row_sums.get(i + r) {
                            let zero_points = &product.b.zero_points[col + j..][..width];
                            for (acc, &zero) in acc.iter_mut().zip(zero_points) {
                                *acc = acc.wrapping_sub(zero.wrapping_mul(row_sum));
                            }
                        }
                        // No closures here: they would not be compiled for the instruction set.
                        match &mut out {
                            OutRows::Slices(rows) => {
                                let out = rows[r].as_deref_mut().unwrap_or_default();
                                product.epilogue.store(row + i + r, col + j, acc, &mut out[j..j + width]);
                            }
                            OutRows::Strided(rows) => {
                                let mut values = [E::Out::default(); MAX_TILE_WIDTH];
                                let values = &mut values[..width];
                                product.epilogue.store(row + i + r, col + j, acc, values);
                                let mut out = rows.slice_mut(s![r, j..j + width]);
                                out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The rows of a tile's outputs, as slices where they are contiguous.
#[allow(clippy::large_enum_variant, reason = "one per tile, on the stack")]
enum OutRows<'a, T> {
    Slices([Option<&'a mut [T]>; MAX_TILE_HEIGHT]),
    Strided(ArrayViewMut2<'a, T>),
}

impl<'a, T> OutRows<'a, T> {
    #[inline(always)]
    fn new(out: ArrayViewMut2<'a, T>) -> Self {
        if out.ncols() > 1 && out.strides()[1] != 1 {
            return Self::Strided(out);
        }
        let mut slices = [const { None }; MAX_TILE_HEIGHT];
        let mut rest = out;
        for slice in slices.iter_mut().take(rest.nrows()) {
            let (row, others) = rest.split_at(Axis(0), 1);
            *slice = row.into_slice();
            rest = others;
        }
        Self::Slices(slices)
    }
}
