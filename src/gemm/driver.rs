//! The loops of a product, by BLIS's names: threads, blocks of MC rows and NC columns, panels, tiles.

use alloc::{boxed::Box, vec::Vec};
use core::ops::Range;

use ndarray::{ArrayViewMut2, Axis, s};

use super::epilogue::Job;
use super::lhs::{LhsLayout, LhsSource};
use super::rhs::Panels;
use super::workspace::{ScratchSlot, ThreadScratch, Workspace};
use crate::simd::{
    Blocking, Gemm, Isa, LhsRows, OutTile, Panel, REGISTERS, Stage, Target, Task, UNIT, Units, Vector, tile, with_gemm,
};
use crate::threads::{self, join};

/// Bytes of RHS panels that stay in L1 while rows of several tiles pass.
const L1_BYTES: usize = 16 * 1024;

/// Up to this many rows meet this many panels in one call.
const MAX_SKINNY_ROWS: usize = 2;
const SKINNY_GROUP: usize = 16;

/// The greatest MR of any instruction set.
const MAX_MR: usize = 32;

/// A thread gets at least this many tiles of rows; with fewer, threads split columns instead.
const MIN_ROW_TILES: usize = 2;

/// A product whose shapes, depth and bias were checked. Not generic over the types of codes, so that one driver serves
/// all.
pub(crate) struct Product<'a> {
    pub(crate) a: &'a dyn LhsSource,
    /// Zero point of the codes of the LHS.
    pub(crate) a_zero_point: i32,
    pub(crate) b: &'a Panels,
    /// One per column of the epilogue.
    pub(crate) bias: Option<&'a [i32]>,
    /// Column of the epilogue that column 0 of the RHS belongs to.
    pub(crate) first_col: usize,
    pub(crate) workspace: &'a mut Workspace,
}

impl Job for Product<'_> {
    /// Multiplies with the instruction set that the RHS was packed for.
    fn run<S: Stage>(self, stage: S, out: ArrayViewMut2<'_, S::Out>) {
        let Self { a, a_zero_point, b, bias, first_col, workspace } = self;
        debug_assert_eq!((a.nrows(), a.depth()), (out.nrows(), b.rows));
        if out.is_empty() {
            return;
        }
        let isa = a.packed_for().unwrap_or_else(|| b.isa.for_product(a.nrows(), b.rows, b.cols));
        let layout = LhsLayout::new(isa, a.nrows(), b.rows, b.cols);
        let a_zero_point = a_zero_point + layout.sign_offset(a.signed());
        let loops = Loops { isa, blocking: isa.blocking(), a, layout, a_zero_point, b, bias, first_col, stage };
        let threads = threads::worth(out.len().saturating_mul(b.rows));
        workspace.threads.resize_with(workspace.threads.len().max(threads), ThreadScratch::default);
        loops.fork(0, 0, out, &mut workspace.threads[..threads]);
    }
}

struct Loops<'a, S> {
    isa: Isa,
    blocking: Blocking,
    a: &'a dyn LhsSource,
    layout: LhsLayout,
    /// Zero point of the codes that are multiplied: with the sign offset, if it is added.
    a_zero_point: i32,
    b: &'a Panels,
    bias: Option<&'a [i32]>,
    first_col: usize,
    stage: S,
}

impl<S: Stage> Loops<'_, S> {
    /// Halves the output by whole tiles until there is one part per thread, each with its `scratch`.
    ///
    /// Columns are split only in skinny products: a block of rows is contiguous in `out`, so it is stored from
    /// registers.
    fn fork(&self, row: usize, col: usize, out: ArrayViewMut2<'_, S::Out>, scratch: &mut [ThreadScratch]) {
        let (rows, cols) = out.dim();
        let Blocking { mr, nr, .. } = self.blocking;
        let threads = scratch.len();
        let by_rows = rows >= cols || rows >= MIN_ROW_TILES * mr * threads;
        let (len, unit) = if by_rows { (rows, mr) } else { (cols, nr) };
        let at = (len * (threads / 2) / threads).next_multiple_of(unit);
        if threads < 2 || at >= len || at == 0 {
            return self.rows(row, col, out, &mut scratch[0]);
        }
        let (first, second) = out.split_at(Axis(!by_rows as usize), at);
        let (next_row, next_col) = if by_rows { (row + at, col) } else { (row, col + at) };
        let (first_scratch, second_scratch) = scratch.split_at_mut(threads / 2);
        join(|| self.fork(row, col, first, first_scratch), || self.fork(next_row, next_col, second, second_scratch));
    }

    /// Computes `out`, which starts at this row and column, on one thread: blocks of MC rows.
    fn rows(&self, row: usize, col: usize, mut out: ArrayViewMut2<'_, S::Out>, scratch: &mut ThreadScratch) {
        let ThreadScratch { lhs, tile, hardware_tiles, start, zero_points, outputs } = scratch;
        let (rows, cols) = out.dim();
        let Blocking { mr, nr, group, .. } = self.blocking;
        debug_assert_eq!(col % nr, 0);
        self.column_starts(col, start, cols.next_multiple_of(nr));
        self.column_zero_points(col, zero_points, start.len());
        tile.resize((mr * group).max(MAX_SKINNY_ROWS * SKINNY_GROUP) * nr, 0);
        hardware_tiles.resize(self.isa.tile_bytes(rows, self.b.rows, self.beyond_l2()));
        let mc = self.mc(row..row + rows);
        let with_sums = !self.b.zero_points.is_empty();
        for first in (0..rows).step_by(mc) {
            let end = rows.min(first + mc);
            let a = lhs.read(self.a, row + first..row + end, self.layout, with_sums);
            let out = OutBlock::new(out.slice_mut(s![first..end, ..]), outputs);
            let columns = [start.as_slice(), zero_points.as_slice()];
            let hardware_tiles = &mut **hardware_tiles;
            let mut block =
                Block { loops: self, a, row: row + first, col, columns, out, scratch: tile, hardware_tiles };
            block.columns(end - first, cols);
            block.out.release(outputs);
        }
    }

    /// Returns whether L2 does not hold the RHS.
    fn beyond_l2(&self) -> bool {
        self.b.data().len() > self.blocking.nc_bytes
    }

    /// Returns the rows of an MC block.
    fn mc(&self, rows: Range<usize>) -> usize {
        let Blocking { lhs_tiles, mc_bytes, streamed_bytes, .. } = self.blocking;
        let bytes = if self.a.is_computed() && self.b.data().len() <= L1_BYTES {
            // Computed blocks fit in L1 beside the RHS: they are written and read without a trip to L2.
            L1_BYTES
        } else if lhs_tiles && self.layout.reads_in_place() && self.a.in_place(rows.clone()).is_some() {
            // AMX has blocks of its own.
            return rows.len();
        } else if self.beyond_l2() {
            streamed_bytes
        } else {
            mc_bytes
        };
        (bytes / self.layout.row_bytes(self.a).max(1)).next_multiple_of(MAX_MR).max(MAX_MR)
    }

    /// Computes the initial accumulators of the columns from `col` on: the bias less the zero-point compensation of the
    /// LHS.
    fn column_starts(&self, col: usize, start: &mut Vec<i32>, len: usize) {
        let sums = &self.b.column_sums[col..];
        start.clear();
        start.extend(sums.iter().take(len).map(|&sum| self.a_zero_point.wrapping_mul(sum).wrapping_neg()));
        if let Some(bias) = self.bias {
            let bias = &bias[self.first_col + col..];
            start.iter_mut().zip(bias).for_each(|(start, &bias)| *start = start.wrapping_add(bias));
        }
        start.resize(len, 0);
    }

    /// Copies the zero points of the columns from `col` on, padded to `len`; none if all are 0.
    fn column_zero_points(&self, col: usize, zero_points: &mut Vec<i32>, len: usize) {
        zero_points.clear();
        if let Some(some) = self.b.zero_points.get(col..).filter(|some| !some.is_empty()) {
            zero_points.extend(some.iter().take(len));
            zero_points.resize(len, 0);
        }
    }
}

/// An MC block of the LHS against some columns of the RHS.
struct Block<'a, 'l, S: Stage> {
    loops: &'a Loops<'l, S>,
    a: LhsRows<'a>,
    /// Row and column of the product that the block starts at.
    row: usize,
    col: usize,
    /// Initial accumulators and zero points of the columns.
    columns: [&'a [i32]; 2],
    out: OutBlock<'a, S::Out>,
    /// Accumulators of the tiles of a group, on their way through memory.
    scratch: &'a mut [i32],
    /// Scratch of AMX.
    hardware_tiles: &'a mut [u8],
}

impl<S: Stage> Block<'_, '_, S> {
    /// The loops over NC columns, rows that pass panels in L1, and groups of panels.
    fn columns(&mut self, rows: usize, cols: usize) {
        let Blocking { mr, nr, nc_bytes, group, lhs_tiles, .. } = self.loops.blocking;
        if lhs_tiles {
            // AMX has loops of its own. Strided outputs need a tile of few columns.
            let most = if self.out.is_contiguous() { cols } else { group * nr };
            for (j, width) in chunks(cols, most, 1) {
                self.group([0, rows], [j, width]);
            }
            return;
        }
        let panel_len = self.loops.b.panel_len.max(1);
        // Few rows leave room for more panels, and a call costs them more.
        let group = if rows <= MAX_SKINNY_ROWS { group.max(SKINNY_GROUP) } else { group };
        let nc = (nc_bytes / panel_len / group).max(1) * group * nr;
        let height = mr * (L1_BYTES / panel_len / group).clamp(1, 16);
        for (first, len) in chunks(cols, nc, nr) {
            for (i, height) in chunks(rows, height, mr) {
                for (j, width) in chunks(len, group * nr, nr) {
                    self.group([i, height], [first + j, width]);
                }
            }
        }
    }

    /// Computes some rows of a group of panels.
    fn group(&mut self, [i, rows]: [usize; 2], [j, cols]: [usize; 2]) {
        let Loops { isa, blocking, b, first_col, stage, .. } = *self.loops;
        let (stride, out) = {
            let (out, stride) = self.out.tile(i, j, rows, cols);
            (stride, out)
        };
        let out = OutTile { row: self.row + i, col: first_col + self.col + j, width: cols, out, stride };
        let first = (self.col + j) / blocking.nr * b.panel_len;
        let panels = cols.div_ceil(blocking.nr);
        let group = Group {
            rows,
            a: self.a.from(i),
            above: i,
            whole: self.a,
            panels: &b.data()[first..first + panels * b.panel_len],
            panel_len: b.panel_len,
            columns: self.columns.map(|columns| columns.get(j..j + panels * blocking.nr).unwrap_or_default()),
            stage,
            out,
            scratch: &mut *self.scratch,
            hardware_tiles: &mut *self.hardware_tiles,
        };
        with_gemm!(isa, g => group.dispatch(g), amx => group.run_amx(amx, self.loops.beyond_l2()));
        self.out.scatter(i, j, rows, cols);
    }
}

/// Some rows against the panels of a group.
struct Group<'a, S: Stage> {
    rows: usize,
    a: LhsRows<'a>,
    /// Rows of the block above the first row, and the block.
    above: usize,
    whole: LhsRows<'a>,
    panels: &'a [u8],
    panel_len: usize,
    /// Initial accumulators and zero points of all columns of the panels.
    columns: [&'a [i32]; 2],
    stage: S,
    out: OutTile<'a, S::Out>,
    scratch: &'a mut [i32],
    hardware_tiles: &'a mut [u8],
}

impl<'a, S: Stage> Group<'a, S> {
    /// Branches on constants, so that only the tiles of the instruction set are compiled.
    fn dispatch<G: Gemm>(self, g: G) {
        const { assert!(matches!(G::MR, 4 | 6 | 8 | 12)) }
        if const { G::MR == 12 } {
            self.run::<G, 12>(g)
        } else if const { G::MR == 8 } {
            self.run::<G, 8>(g)
        } else if const { G::MR == 6 } {
            self.run::<G, 6>(g)
        } else {
            self.run::<G, 4>(g)
        }
    }

    fn run<G: Gemm, const MR: usize>(mut self, g: G) {
        let mut done = 0;
        if S::FROM_REGISTERS {
            done = self.rows - self.rows % MR;
            if done > 0 {
                self.tiles::<G, MR>(g);
            }
        }
        while done < self.rows {
            done += self.tile_rows::<G, MR>(g, done);
        }
    }

    fn tiles<G: Gemm, const MR: usize>(&mut self, g: G) {
        if const { G::KR == UNIT } && self.a.signed != G::SIGNED_LHS {
            g.run(Tiles::<G, S, MR, true> { g, group: self });
        } else {
            g.run(Tiles::<G, S, MR, false> { g, group: self });
        }
    }

    /// Computes the tiles from row `i` on through memory: `MR` rows, or what is left. Returns the number of rows.
    ///
    /// Tiles have 1, 2, 4, 8 or `MR` rows. A tile with more rows than are left starts above them, or reads beyond them
    /// where there is memory, and what is computed twice or in vain is not stored.
    fn tile_rows<G: Gemm, const MR: usize>(&mut self, g: G, i: usize) -> usize {
        let (left, above) = (self.rows - i, self.above + i);
        let LhsRows { bytes, stride, len, .. } = self.whole;
        let beyond = |size: usize| (above + size - 1) * stride + len <= bytes.len();
        let sizes = [1, 2, 4, 8, MR].into_iter().filter(|&size| size <= MR);
        let enough = sizes.clone().find(|&size| size >= left && (size <= left + above || beyond(size)));
        let size = enough.or_else(|| sizes.rev().find(|&size| size <= left)).unwrap_or(1);
        let count = size.min(left);
        let skip = if size <= left + above { size - count } else { 0 };
        let a = self.whole.from(above - skip);
        let acc = &mut *self.scratch;
        let tiles = TilesToMemory { g, a, panels: self.panels, panel_len: self.panel_len, columns: self.columns, acc };
        match size {
            1 => g.run(TileRows::<G, 1, 4>(tiles)),
            2 => g.run(TileRows::<G, 2, 2>(tiles)),
            4 => g.run(TileRows::<G, 4, 1>(tiles)),
            8 if MR > 8 => g.run(TileRows::<G, 8, 1>(tiles)),
            _ => g.run(TileRows::<G, MR, 1>(tiles)),
        }
        let (stage, stride) = (self.stage, self.columns[0].len());
        let (acc, out) = (&self.scratch[skip * stride..], self.out.from(i, 0));
        // By the registers, not the product: sets that share registers share this code.
        let v = g.vector();
        v.run(StoreRows { v, rows: count, acc, stride, stage, out });
        count
    }

    /// Multiplies with AMX, which has loops of its own.
    #[cfg(target_arch = "x86_64")]
    fn run_amx(self, amx: crate::simd::Amx, beyond_l2: bool) {
        let Self { rows, a, panels, panel_len, columns, stage, out, hardware_tiles, .. } = self;
        let panel_stays = beyond_l2 && rows > crate::simd::Amx::MR;
        let product = crate::simd::AmxProduct { rows, a, panels, panel_len, columns, panel_stays };
        amx.multiply(product, stage, out, hardware_tiles);
    }
}

/// Tiles of `MR` rows: multiply, store, from registers. The hot loop of every product.
struct Tiles<'a, 'g, G, S: Stage, const MR: usize, const SIGNED: bool> {
    g: G,
    group: &'a mut Group<'g, S>,
}

impl<G: Gemm, S: Stage, const MR: usize, const SIGNED: bool> Task for Tiles<'_, '_, G, S, MR, SIGNED> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { g, group } = self;
        // Locals, so that the compiler keeps them in registers: stores of bytes could alias the group.
        let (v, stage, nr) = (g.vector(), group.stage, REGISTERS * G::V::LANES);
        for i in (0..group.rows - group.rows % MR).step_by(MR) {
            let mut last = [[0; UNIT]; MR];
            let a = Units::new(group.a.from(i), G::SIGNED_LHS, &mut last);
            for p in 0..group.columns[0].len() / nr {
                let b = panel(group.panels, group.panel_len, group.columns, p, nr);
                let out = group.out.from(i, p * nr);
                out.prefetch(v, [0, 0], MR, REGISTERS * G::V::LANES);
                if out.width > G::V::LANES {
                    let acc = tile::<G, MR, REGISTERS, 1, SIGNED>(g, &a, b);
                    stage.store(v, &acc, OutTile { width: out.width.min(nr), ..out });
                } else {
                    let acc = tile::<G, MR, 1, 1, SIGNED>(g, &a, b);
                    stage.store(v, &acc, out);
                }
            }
        }
    }
}

/// A tile of each panel, to be computed into memory, `[rows][columns]`.
struct TilesToMemory<'a, G> {
    g: G,
    a: LhsRows<'a>,
    panels: &'a [u8],
    panel_len: usize,
    columns: [&'a [i32]; 2],
    acc: &'a mut [i32],
}

/// Tiles of `ROWS` rows.
struct TileRows<'a, G, const ROWS: usize, const CHAINS: usize>(TilesToMemory<'a, G>);

impl<G: Gemm, const ROWS: usize, const CHAINS: usize> Task for TileRows<'_, G, ROWS, CHAINS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let TilesToMemory { g, a, panels, panel_len, columns, acc } = self.0;
        let (width, stride) = (REGISTERS * G::V::LANES, columns[0].len());
        let mut last = [[0; UNIT]; ROWS];
        let a = Units::new(a, G::SIGNED_LHS, &mut last);
        for p in 0..stride / width {
            let tile = tile::<G, ROWS, REGISTERS, CHAINS, true>(g, &a, panel(panels, panel_len, columns, p, width));
            let out = OutTile { row: 0, col: 0, width, out: &mut acc[p * width..], stride };
            crate::simd::StoreI32.store(g.vector(), &tile, out);
        }
    }
}

/// Returns panel `p` of some panels.
#[inline(always)]
fn panel<'a>(panels: &'a [u8], len: usize, columns: [&'a [i32]; 2], p: usize, nr: usize) -> Panel<'a> {
    let [start, zero_points] = columns;
    Panel {
        codes: &panels[p * len..][..len],
        start: &start[p * nr..][..nr],
        zero_points: if zero_points.is_empty() { &[] } else { &zero_points[p * nr..][..nr] },
    }
}

/// Stores rows of accumulators in memory by a stage.
struct StoreRows<'a, V, S: Stage> {
    v: V,
    rows: usize,
    acc: &'a [i32],
    stride: usize,
    stage: S,
    out: OutTile<'a, S::Out>,
}

impl<V: Vector, S: Stage> Task for StoreRows<'_, V, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.stage.store_rows(self.v, self.rows, self.acc, self.stride, self.out);
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
    fn new(out: ArrayViewMut2<'a, T>, scratch: &mut ScratchSlot) -> Self {
        let cols = out.ncols();
        if out.is_standard_layout() {
            return Self::Contiguous { out: out.into_slice().unwrap_or_default(), cols };
        }
        Self::Strided { out, tile: scratch.take() }
    }

    fn is_contiguous(&self) -> bool {
        matches!(self, Self::Contiguous { .. })
    }

    /// Returns the memory of a tile and the distance between its rows.
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
    fn release(self, scratch: &mut ScratchSlot) {
        if let Self::Strided { tile, .. } = self {
            scratch.put(tile);
        }
    }
}
