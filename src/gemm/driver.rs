//! The loops around the micro-kernel: threads, blocks of MC rows and NC columns, and tiles.

use alloc::{boxed::Box, vec::Vec};

use ndarray::{ArrayViewMut2, Axis, s};

use super::Int8;
use super::epilogue::{Epilogue, TileOut, TileProduct};
use super::lhs::{LhsLayout, LhsSource};
use super::rhs::{PackedRhs, Panels};
use super::workspace::{ScratchSlot, ThreadScratch, Workspace};
use crate::simd::{Isa, Kernel, LhsRows, RhsPanels, Task, with_kernel};
use crate::threads::{self, join};

/// Bytes of an MC block of the LHS, which stays in L2 while all columns are multiplied with it.
const MC_BYTES: usize = 256 * 1024;

/// Bytes of an NC block of the RHS, which stays in L2 while all rows of an MC block pass.
const NC_BYTES: usize = 512 * 1024;

/// Bytes of RHS panels that stay in L1 while rows of several tiles pass.
const L1_BYTES: usize = 16 * 1024;

/// The greatest MR of any micro-kernel.
const MAX_MR: usize = 32;

/// A thread gets at least this many tiles of rows; with fewer, threads split columns instead.
const MIN_ROW_TILES: usize = 2;

/// A checked product without its LHS. Not generic over the types of codes, so that one driver serves all.
struct Gemm<'a, E: Epilogue> {
    isa: Isa,
    lhs: LhsLayout,
    /// Zero point of the LHS after the sign offset.
    a_zero_point: i32,
    b: &'a Panels,
    epilogue: &'a E,
    /// Column of the epilogue that column 0 of the RHS belongs to.
    first_col: usize,
}

/// Computes a product whose shapes, depth and bias were checked, with the micro-kernel that its RHS was packed for.
///
/// Column 0 of the RHS is column `first_col` of the epilogue.
pub(crate) fn gemm_unchecked<A: Int8, B: Int8, E: Epilogue>(
    a: LhsSource<'_, A>,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
    first_col: usize,
    out: ArrayViewMut2<'_, E::Out>,
    workspace: &mut Workspace,
) {
    debug_assert_eq!((a.nrows(), a.depth()), (out.nrows(), b.nrows()));
    if out.is_empty() {
        return;
    }
    let b = b.panels();
    let isa = b.isa.for_rows(a.nrows());
    let lhs = LhsLayout::new(isa, a.nrows(), b.rows, b.cols);
    let gemm = Gemm { isa, lhs, a_zero_point: lhs.zero_point(a_zero_point), b, epilogue, first_col };
    let threads = threads::worth(out.len().saturating_mul(b.rows));
    workspace.threads.resize_with(workspace.threads.len().max(threads), ThreadScratch::default);
    gemm.fork(a, 0, 0, out, &mut workspace.threads[..threads]);
}

impl<E: Epilogue> Gemm<'_, E> {
    /// Halves the output by whole tiles until there is one part per thread, each with its `scratch`.
    ///
    /// Columns are split only in skinny products: a block of rows is contiguous in `out`, so its epilogue can store from
    /// registers.
    fn fork<A: Int8>(
        &self,
        a: LhsSource<'_, A>,
        row: usize,
        col: usize,
        out: ArrayViewMut2<'_, E::Out>,
        scratch: &mut [ThreadScratch],
    ) {
        let (rows, cols) = out.dim();
        let (mr, nr) = with_kernel!(self.isa, kernel => tile_size(kernel));
        let threads = scratch.len();
        let by_rows = rows >= cols || rows >= MIN_ROW_TILES * mr * threads;
        let (len, unit) = if by_rows { (rows, mr) } else { (cols, nr) };
        let at = (len * (threads / 2) / threads).next_multiple_of(unit);
        if threads < 2 || at >= len || at == 0 {
            return self.compute(a, row, col, out, &mut scratch[0]);
        }
        let (first, second) = out.split_at(Axis(!by_rows as usize), at);
        let (next_row, next_col) = if by_rows { (row + at, col) } else { (row, col + at) };
        let (first_scratch, second_scratch) = scratch.split_at_mut(threads / 2);
        join(
            || self.fork(a, row, col, first, first_scratch),
            || self.fork(a, next_row, next_col, second, second_scratch),
        );
    }

    /// Computes the block `out`, which starts at this row and column, on one thread.
    fn compute<A: Int8>(
        &self,
        a: LhsSource<'_, A>,
        row: usize,
        col: usize,
        mut out: ArrayViewMut2<'_, E::Out>,
        scratch: &mut ThreadScratch,
    ) {
        let ThreadScratch { lhs, tile, start, zero_points, outputs } = scratch;
        let rows = out.nrows();
        // With an RHS that fits in L1, im2col blocks do too: they are written and read without a trip to L2.
        let bytes = if a.is_im2col() && self.b.data().len() <= L1_BYTES { L1_BYTES } else { MC_BYTES };
        let mc = (bytes / a.row_bytes(self.lhs).max(1)).next_multiple_of(MAX_MR).max(MAX_MR);
        let with_sums = !self.b.zero_points.is_empty();
        for first in (0..rows).step_by(mc) {
            let end = rows.min(first + mc);
            let out = out.slice_mut(s![first..end, ..]);
            let a = lhs.read(a, row + first..row + end, self.lhs, with_sums);
            let block = Block { a, row: row + first, col, out, tile, start, zero_points, outputs };
            with_kernel!(self.isa, kernel => kernel.run(MacroKernel { gemm: self, kernel, block }));
        }
    }

    /// Computes the initial accumulators of the columns from `col` on: the bias less the zero-point compensation of the
    /// LHS.
    #[inline(always)]
    fn column_starts(&self, col: usize, start: &mut Vec<i32>, len: usize) {
        let sums = &self.b.column_sums[col..];
        start.clear();
        start.extend(sums.iter().take(len).map(|&sum| self.a_zero_point.wrapping_mul(sum).wrapping_neg()));
        if let Some(bias) = self.epilogue.bias() {
            start
                .iter_mut()
                .zip(&bias[self.first_col + col..])
                .for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
        start.resize(len, 0);
    }

    /// Copies the zero points of the columns from `col` on, padded to `len`; none if all are 0.
    #[inline(always)]
    fn column_zero_points(&self, col: usize, zero_points: &mut Vec<i32>, len: usize) {
        zero_points.clear();
        if let Some(some) = self.b.zero_points.get(col..).filter(|some| !some.is_empty()) {
            zero_points.extend(some.iter().take(len));
            zero_points.resize(len, 0);
        }
    }
}

fn tile_size<K: Kernel>(_: K) -> (usize, usize) {
    (K::MR, K::NR)
}

/// An MC block of the LHS against some columns of the RHS.
struct Block<'a, E: Epilogue> {
    a: LhsRows<'a>,
    /// Row of the product that the block starts at.
    row: usize,
    /// Column of the RHS that the block starts at.
    col: usize,
    out: ArrayViewMut2<'a, E::Out>,
    tile: &'a mut Vec<i32>,
    start: &'a mut Vec<i32>,
    zero_points: &'a mut Vec<i32>,
    outputs: &'a mut ScratchSlot,
}

/// The loops of a block over NC columns, rows and tiles, compiled for one instruction set.
struct MacroKernel<'a, 'b, 'p, E: Epilogue, K> {
    gemm: &'a Gemm<'p, E>,
    kernel: K,
    block: Block<'b, E>,
}

impl<E: Epilogue, K: Kernel> Task for MacroKernel<'_, '_, '_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { gemm, kernel, block } = self;
        let Block { a, row, col, out, tile, start, zero_points, outputs } = block;
        let (rows, cols) = out.dim();
        let panel_len = gemm.b.panel_len;
        let tile_cols = K::NR * K::NR_PANELS;
        debug_assert_eq!(col % K::NR, 0);
        tile.resize(K::MR * tile_cols, 0);
        gemm.column_starts(col, start, cols.next_multiple_of(K::NR_STEP));
        gemm.column_zero_points(col, zero_points, start.len());
        let nc = (NC_BYTES / panel_len.max(1) / K::NR_PANELS).max(1) * tile_cols;
        let mut out = OutBlock::new(out, outputs);
        // Rows that pass panels in L1 before the next panels are loaded.
        let height = K::MR * (L1_BYTES / panel_len.max(1) / K::NR_PANELS).clamp(1, 16);
        for (first, len) in chunks(cols, nc, K::NR) {
            for (i, height) in chunks(rows, height, K::MR) {
                for (j, width) in chunks(len, tile_cols, K::NR).map(|(j, width)| (first + j, width)) {
                    let panels = &gemm.b.data()[(col + j) / K::NR * panel_len..];
                    let panels = &panels[..width.div_ceil(K::NR) * panel_len];
                    let columns = j..j + width.next_multiple_of(K::NR_STEP);
                    let zero_points = zero_points.get(columns.clone()).unwrap_or_default();
                    let b = RhsPanels { panels, panel_len, start: &start[columns], zero_points };
                    let acc = TileProduct { kernel, rows: height, a: a.from(i), b, acc: tile, stride: tile_cols };
                    let at = (row + i, gemm.first_col + col + j);
                    let (to, stride) = out.tile(i, j, height, width);
                    gemm.epilogue.finish(acc, TileOut { at, width, out: to, stride });
                    out.scatter(i, j, height, width);
                }
            }
        }
        out.release(outputs);
    }
}

/// Splits `0..len` into `(start, len)` chunks of at most `most`. Each but the last is a multiple of `unit`; a remainder
/// shorter than `unit` is a chunk of its own.
fn chunks(len: usize, most: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    core::iter::from_fn(move || {
        let rest = (len - start).min(most);
        let whole = rest - rest % unit;
        let chunk = (start, if whole == 0 { rest } else { whole });
        start += chunk.1;
        (chunk.1 > 0).then_some(chunk)
    })
}

/// The outputs of a block: the caller's array, or a tile that is scattered into it if it is strided.
enum OutBlock<'a, T> {
    Contiguous {
        out: &'a mut [T],
        cols: usize,
    },
    #[allow(clippy::box_collection, reason = "it is kept in its box from call to call")]
    Strided {
        out: ArrayViewMut2<'a, T>,
        tile: Box<Vec<T>>,
    },
}

impl<'a, T: Copy + Default + Send + Sync + 'static> OutBlock<'a, T> {
    #[inline(always)]
    fn new(out: ArrayViewMut2<'a, T>, scratch: &mut ScratchSlot) -> Self {
        let cols = out.ncols();
        if out.is_standard_layout() {
            return Self::Contiguous { out: out.into_slice().unwrap_or_default(), cols };
        }
        Self::Strided { out, tile: scratch.take() }
    }

    /// Returns the memory of a tile and the distance between its rows.
    #[inline(always)]
    fn tile(&mut self, row: usize, col: usize, height: usize, width: usize) -> (&mut [T], usize) {
        match self {
            Self::Contiguous { out, cols } => (&mut out[row * *cols + col..], *cols),
            Self::Strided { tile, .. } => {
                tile.resize(height * width, T::default());
                (tile, width)
            }
        }
    }

    /// Copies a finished tile into a strided output.
    #[inline(always)]
    fn scatter(&mut self, row: usize, col: usize, height: usize, width: usize) {
        if let Self::Strided { out, tile } = self {
            let mut out = out.slice_mut(s![row..row + height, col..col + width]);
            for (mut to, from) in out.rows_mut().into_iter().zip(tile.chunks_exact(width)) {
                match to.as_slice_mut() {
                    Some(to) => to.copy_from_slice(from),
                    None => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
                }
            }
        }
    }

    /// Returns the tile to the scratch for the next block.
    #[inline(always)]
    fn release(self, scratch: &mut ScratchSlot) {
        if let Self::Strided { tile, .. } = self {
            scratch.put(tile);
        }
    }
}
