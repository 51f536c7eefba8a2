//! Blocks, tiles and threads.

use alloc::{boxed::Box, vec::Vec};

use ndarray::{ArrayViewMut2, Axis, s};

use super::Int8;
use super::epilogue::{Epilogue, Products, TileOut};
use super::lhs::{Lhs, LhsLayout};
use super::rhs::{PackedRhs, Panels};
use super::workspace::{PartSpace, Room, Workspace};
use crate::arch::{Columns, Isa, Kernel, Rows, Task, with_kernel};
use crate::threads::{self, join};

/// The bytes of the left side that all columns are multiplied with at a time: they stay in the second-level cache.
const LHS_BLOCK: usize = 256 * 1024;

/// The bytes of the right side that stay in the second-level cache while all rows of a block pass.
const RHS_CHUNK: usize = 512 * 1024;

/// The bytes of the right side that many rows pass at a time, because they stay in the first-level cache.
const STRIP: usize = 16 * 1024;

/// No kernel multiplies more rows at a time.
const MAX_TILE_HEIGHT: usize = 32;

/// Tiles of rows that a thread should have, unless it gets columns instead.
const FEW_TILES: usize = 2;

/// A checked product but for its left side. Not generic in the types of codes, so that there is one driver for all.
struct Product<'a, E: Epilogue> {
    isa: Isa,
    lhs: LhsLayout,
    /// Of canonical codes.
    a_zero_point: i32,
    b: &'a Panels,
    epilogue: &'a E,
    /// The column of the epilogue that column 0 of the right side is.
    first_col: usize,
}

/// Runs a checked product, of any left side, with the kernel that its right side was packed for. Column 0 of the right side
/// is column `first_col` of the epilogue.
pub(crate) fn run<A: Int8, B: Int8, E: Epilogue>(
    a: Lhs<'_, A>,
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
    let lhs = LhsLayout::of(isa, a.nrows(), b.rows, b.cols);
    let product = Product { isa, lhs, a_zero_point: lhs.zero_point(a_zero_point), b, epilogue, first_col };
    let threads = threads::worth(out.len().saturating_mul(b.rows));
    workspace.parts.resize_with(workspace.parts.len().max(threads), PartSpace::default);
    product.fork(a, 0, 0, out, &mut workspace.parts[..threads]);
}

impl<E: Epilogue> Product<'_, E> {
    /// Halves a side, in whole tiles, until there is a part for each thread, which `spaces` are for: the columns only where
    /// there are few rows. Parts of rows are contiguous, so that their outputs can be made in registers.
    fn fork<A: Int8>(
        &self,
        a: Lhs<'_, A>,
        row: usize,
        col: usize,
        out: ArrayViewMut2<'_, E::Out>,
        spaces: &mut [PartSpace],
    ) {
        let (rows, cols) = out.dim();
        let (mr, nr) = with_kernel!(self.isa, kernel => tile_size(kernel));
        let threads = spaces.len();
        let by_rows = rows >= cols || rows >= FEW_TILES * mr * threads;
        let (len, unit) = if by_rows { (rows, mr) } else { (cols, nr) };
        let at = (len * (threads / 2) / threads).next_multiple_of(unit);
        if threads < 2 || at >= len || at == 0 {
            return self.part(a, row, col, out, &mut spaces[0]);
        }
        let (first, second) = out.split_at(Axis(!by_rows as usize), at);
        let (next_row, next_col) = if by_rows { (row + at, col) } else { (row, col + at) };
        let (first_spaces, second_spaces) = spaces.split_at_mut(threads / 2);
        join(
            || self.fork(a, row, col, first, first_spaces),
            || self.fork(a, next_row, next_col, second, second_spaces),
        );
    }

    /// Computes the part of the product that starts at this row and column and has the size of `out`.
    fn part<A: Int8>(
        &self,
        a: Lhs<'_, A>,
        row: usize,
        col: usize,
        mut out: ArrayViewMut2<'_, E::Out>,
        space: &mut PartSpace,
    ) {
        let PartSpace { lhs, tile, start, zero_points, outputs } = space;
        let rows = out.nrows();
        // Im2col that few columns read do not leave the first-level cache in between.
        let bytes = if a.is_gathered() && self.b.data().len() <= STRIP { STRIP } else { LHS_BLOCK };
        let block = (bytes / a.row_bytes(self.lhs).max(1)).next_multiple_of(MAX_TILE_HEIGHT).max(MAX_TILE_HEIGHT);
        let with_sums = !self.b.zero_points.is_empty();
        for first in (0..rows).step_by(block) {
            let end = rows.min(first + block);
            let out = out.slice_mut(s![first..end, ..]);
            let a = lhs.read(a, row + first..row + end, self.lhs, with_sums);
            let block = Block { a, row: row + first, col, out, tile, start, zero_points, outputs };
            with_kernel!(self.isa, kernel => kernel.run(Tiles { product: self, kernel, block }));
        }
    }

    /// What the accumulators of each column from `col` on start from: the bias less the left zero point's share.
    #[inline(always)]
    fn column_starts(&self, col: usize, start: &mut Vec<i32>, len: usize) {
        let sums = &self.b.centred_sums[col..];
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

    /// The zero points of the columns from `col` on, if there are any.
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

/// One block of rows of the left side against some columns of the right.
struct Block<'a, E: Epilogue> {
    a: Rows<'a>,
    /// Where the block starts in the whole product.
    row: usize,
    col: usize,
    out: ArrayViewMut2<'a, E::Out>,
    tile: &'a mut Vec<i32>,
    start: &'a mut Vec<i32>,
    zero_points: &'a mut Vec<i32>,
    outputs: &'a mut Room,
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
        let Block { a, row, col, out, tile, start, zero_points, outputs } = block;
        let (rows, cols) = out.dim();
        let panel_len = product.b.panel_len;
        let group = K::NR * K::PANELS;
        debug_assert_eq!(col % K::NR, 0);
        tile.resize(K::MR * group, 0);
        product.column_starts(col, start, cols.next_multiple_of(K::COLS));
        product.column_zero_points(col, zero_points, start.len());
        let chunk = (RHS_CHUNK / panel_len.max(1) / K::PANELS).max(1) * group;
        let mut out = OutBlock::new(out, outputs);
        let strip = K::MR * (STRIP / panel_len.max(1) / K::PANELS).clamp(1, 16);
        for (first, len) in parts(cols, chunk, K::NR) {
            for (i, height) in parts(rows, strip, K::MR) {
                for (j, width) in parts(len, group, K::NR).map(|(j, width)| (first + j, width)) {
                    let panels = &product.b.data()[(col + j) / K::NR * panel_len..];
                    let panels = &panels[..width.div_ceil(K::NR) * panel_len];
                    let columns = j..j + width.next_multiple_of(K::COLS);
                    let zero_points = zero_points.get(columns.clone()).unwrap_or_default();
                    let b = Columns { panels, panel_len, start: &start[columns], zero_points };
                    let sums = Products { kernel, rows: height, a: a.from(i), b, acc: tile, stride: group };
                    let at = (row + i, product.first_col + col + j);
                    let (to, stride) = out.room(i, j, height, width);
                    product.epilogue.finish(sums, TileOut { at, width, out: to, stride });
                    out.finish(i, j, height, width);
                }
            }
        }
        out.release(outputs);
    }
}

/// Cuts a length into parts of `most`, each as where it starts and how long it is. The last part but one is shorter, if
/// that makes whole units of it.
fn parts(len: usize, most: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    core::iter::from_fn(move || {
        let left = (len - start).min(most);
        let whole = left - left % unit;
        let part = (start, if whole == 0 { left } else { whole });
        start += part.1;
        (part.1 > 0).then_some(part)
    })
}

/// The outputs of a block: where they belong, or elsewhere until a tile of them is finished.
enum OutBlock<'a, T> {
    Whole {
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
    fn new(out: ArrayViewMut2<'a, T>, room: &mut Room) -> Self {
        let cols = out.ncols();
        if out.is_standard_layout() {
            return Self::Whole { out: out.into_slice().unwrap_or_default(), cols };
        }
        Self::Strided { out, tile: room.take() }
    }

    /// Room for a tile, and the distance of its rows.
    #[inline(always)]
    fn room(&mut self, row: usize, col: usize, height: usize, width: usize) -> (&mut [T], usize) {
        match self {
            Self::Whole { out, cols } => (&mut out[row * *cols + col..], *cols),
            Self::Strided { tile, .. } => {
                tile.resize(height * width, T::default());
                (tile, width)
            }
        }
    }

    /// Moves a tile to where it belongs.
    #[inline(always)]
    fn finish(&mut self, row: usize, col: usize, height: usize, width: usize) {
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

    /// Gives the room back.
    #[inline(always)]
    fn release(self, room: &mut Room) {
        if let Self::Strided { tile, .. } = self {
            room.put(tile);
        }
    }
}
