//! The product of AMX: blocks of 32 × 32 outputs, whose sums leave through the output stage while the next block is
//! multiplied.
//!
//! The compiler knows neither the configuration nor the content of tiles, so they live within one block of assembly, which
//! multiplies one block of outputs after the other. It asks [`next`] for each and calls [`leave`] between steps of depth.
//! Tiles are released before it ends.

use core::arch::asm;
use core::mem::offset_of;

use super::amx::{Config, TILE_BYTES, TILE_ROWS};
use super::{Amx, Avx512Vnni};
use crate::simd::generic::output::load_row;
use crate::simd::{Gemm, LhsRows, OutTile, REGISTERS, Stage, Target, Task, Vector};

const MR: usize = Amx::MR;
const NR: usize = Amx::NR;

/// Sums of a block, and bytes of them.
const SUMS: usize = MR * NR;
const SUMS_BYTES: usize = SUMS * size_of::<i32>();

/// Bytes of a tile, and of a strip in a step of depth: two tiles.
const TILE: usize = TILE_ROWS * TILE_BYTES;
const STRIP_STEP: usize = 2 * TILE;
/// Bytes of a row of sums: two tiles beside each other.
const SUMS_ROW: usize = NR * size_of::<i32>();

/// Rows that leave through registers together.
const CHUNK: usize = 8;

/// Steps of depth from which on outputs are not fetched before they are stored: stores have time enough.
const DEEP: usize = 8;

/// Steps of depth from which on every second block walks the depth backwards: an operand that fills L1 is then still there
/// in part.
const SERPENTINE: usize = 12;

/// Some rows of the LHS against panels of the RHS.
#[derive(Clone, Copy)]
pub(crate) struct AmxProduct<'a> {
    pub(crate) rows: usize,
    /// Rows that are not readable to the padded depth are copied.
    pub(crate) a: LhsRows<'a>,
    pub(crate) panels: &'a [u8],
    pub(crate) panel_len: usize,
    /// Initial accumulators and zero points of all columns of the panels. There are no zero points if all are 0.
    pub(crate) columns: [&'a [i32]; 2],
    /// True if a panel stays in cache and rows stream past it, for an RHS larger than L2. Otherwise 32 rows stay and
    /// panels stream past them.
    pub(crate) panel_stays: bool,
}

/// Arguments and state of the assembly. It keeps them in memory: they outnumber the registers that calls preserve.
#[repr(C)]
struct Args {
    config: Config,
    /// Bytes from one row of the LHS to the next, and to 16 rows further.
    row_stride: usize,
    high: usize,
    /// Bytes to the next step of depth of both operands.
    a_step: isize,
    b_step: isize,
    /// Bytes between the tiles of the RHS: its columns of one register and of the next.
    register: usize,
    /// Number of steps of depth.
    steps: usize,
    /// The operands of the block.
    a: *const u8,
    b: *const u8,
    /// Where its sums go. The sums of the last block are in the other of two buffers, `SUMS_BYTES` away.
    sums: *mut i32,
    /// Calls of `leave` that are left for the last block.
    left: usize,
    /// Moves on to the next block, and returns false if there is none.
    next: unsafe extern "sysv64" fn(*mut Walk<'_>) -> bool,
    /// Lets some rows of the last block leave.
    leave: unsafe extern "sysv64" fn(*mut Walk<'_>),
}

/// Multiplies the blocks of `$walk`: up to 32 rows (`high`) or up to 16 (`low`).
///
/// `$a` and `$b` load tiles of the LHS and of the RHS: `tileloadd` for the operand that stays in L1, `tileloaddt1` for
/// the one that streams past it.
macro_rules! multiply_blocks {
    ($walk:expr, $multiply:literal, $a:literal, $b:literal, high) => {
        multiply_blocks!(@code $walk, $multiply, $a, $b,
            ["tilezero tmm2", "tilezero tmm3"],
            ["lea r8, [r14 + rdx]", concat!($a, " tmm5, [r8 + rax]"), concat!($multiply, " tmm2, tmm5, tmm6")],
            [concat!($multiply, " tmm3, tmm5, tmm7")],
            ["tilestored [r8 + rcx + 2048], tmm2", "tilestored [r8 + rcx + 2112], tmm3"])
    };
    ($walk:expr, $multiply:literal, $a:literal, $b:literal, low) => {
        multiply_blocks!(@code $walk, $multiply, $a, $b, [], [], [], [])
    };
    (@code $walk:expr, $multiply:literal, $a:literal, $b:literal,
        [$($zero:expr),*], [$($first:expr),*], [$($second:expr),*], [$($store:expr),*]) => {
        asm!(
            "mov r12, rdi",
            "ldtilecfg [r12]",
            // Each block.
            "2:",
            "mov rdi, r12",
            "call qword ptr [r12 + {NEXT}]",
            "test al, al",
            "jz 7f",
            "mov r14, [r12 + {A}]",
            "mov r13, [r12 + {B}]",
            "mov r15, [r12 + {STEPS}]",
            "tilezero tmm0",
            "tilezero tmm1",
            $($zero,)*
            // Registers that a call may have changed.
            "3:",
            "mov rax, [r12 + {ROW_STRIDE}]",
            "mov rdx, [r12 + {HIGH}]",
            "mov rsi, [r12 + {A_STEP}]",
            "mov r11, [r12 + {B_STEP}]",
            "mov r9, [r12 + {REGISTER}]",
            "mov ecx, {TILE_BYTES}",
            // Each step of depth.
            "4:",
            concat!($b, " tmm6, [r13 + rcx]"),
            concat!($a, " tmm4, [r14 + rax]"),
            concat!($multiply, " tmm0, tmm4, tmm6"),
            $($first,)*
            "lea r10, [r13 + r9]",
            concat!($b, " tmm7, [r10 + rcx]"),
            concat!($multiply, " tmm1, tmm4, tmm7"),
            $($second,)*
            "add r14, rsi",
            "add r13, r11",
            "cmp qword ptr [r12 + {LEFT}], 0",
            "jne 5f",
            "dec r15",
            "jnz 4b",
            "jmp 6f",
            // Some rows of the last block leave.
            "5:",
            "mov rdi, r12",
            "call qword ptr [r12 + {LEAVE}]",
            "dec r15",
            "jnz 3b",
            // The rest of it, if there are fewer steps than calls.
            "6:",
            "cmp qword ptr [r12 + {LEFT}], 0",
            "je 8f",
            "mov rdi, r12",
            "call qword ptr [r12 + {LEAVE}]",
            "jmp 6b",
            "8:",
            "mov r8, [r12 + {SUMS}]",
            "mov ecx, {SUMS_ROW}",
            "tilestored [r8 + rcx], tmm0",
            "tilestored [r8 + rcx + 64], tmm1",
            $($store,)*
            "jmp 2b",
            "7:",
            "tilerelease",
            inout("rdi") $walk => _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            NEXT = const offset_of!(Args, next),
            LEAVE = const offset_of!(Args, leave),
            A = const offset_of!(Args, a),
            B = const offset_of!(Args, b),
            ROW_STRIDE = const offset_of!(Args, row_stride),
            HIGH = const offset_of!(Args, high),
            A_STEP = const offset_of!(Args, a_step),
            B_STEP = const offset_of!(Args, b_step),
            STEPS = const offset_of!(Args, steps),
            SUMS = const offset_of!(Args, sums),
            LEFT = const offset_of!(Args, left),
            REGISTER = const offset_of!(Args, register),
            TILE_BYTES = const TILE_BYTES,
            SUMS_ROW = const SUMS_ROW,
            clobber_abi("sysv64"),
        )
    };
}

impl Amx {
    /// Products of more columns copy rows of the LHS to strips, `[depth / 64][32][64]`: tile after tile, each in whole lines.
    ///
    /// With fewer columns a strip meets at most 4 panels, and the copy costs more than tiles that cross lines. GOPS of a
    /// kernel in C on Emerald Rapids: 784 × 1152 × 128 2852 in place, 2360 with strips; 3136 × 576 × 64 2138 and 1800.
    /// With 384 columns or more, strips were faster.
    pub(crate) const fn packs(cols: usize) -> bool {
        cols > 128
    }

    /// Bytes of rows that stream past each panel of an RHS larger than L2: half of L2, or 256 rows of 4096 codes.
    pub(crate) const STREAMED_BYTES: usize = 1 << 20;

    /// Returns the rows that meet a panel before the next panel does. `depth` is padded.
    fn block_rows(depth: usize, panel_stays: bool) -> usize {
        if panel_stays { (Self::STREAMED_BYTES / (MR * depth)).max(1) * MR } else { MR }
    }

    /// Returns the bytes of scratch that [`multiply`](Self::multiply) needs.
    pub(crate) fn scratch_bytes(rows: usize, depth: usize, panel_stays: bool) -> usize {
        let depth = Self::padded_depth(depth);
        4 * SUMS_BYTES + Self::block_rows(depth, panel_stays).min(rows.next_multiple_of(MR)) * depth
    }

    /// Computes `start[j] - sums[i] * zero_points[j] + Σ_k a[i][k] * b[k][j]` for all rows and columns and stores it by
    /// `stage`. All arithmetic wraps. The depth is at least 1.
    pub(crate) fn multiply<S: Stage>(
        self,
        product: AmxProduct<'_>,
        stage: S,
        out: OutTile<'_, S::Out>,
        scratch: &mut [u8],
    ) {
        let AmxProduct { rows, a, panels, panel_len, columns: [start, zero_points], panel_stays } = product;
        let (depth, cols) = (Self::padded_depth(a.len), start.len());
        // The bounds of all reads and writes of the assembly.
        let readable = |len: usize| {
            let end = rows.saturating_sub(1).checked_mul(a.stride).and_then(|start| start.checked_add(len));
            end.is_some_and(|end| end <= a.bytes.len())
        };
        let crosses_lines = !(a.bytes.as_ptr().addr() | a.stride).is_multiple_of(TILE_BYTES);
        let pack = Self::packs(cols) && crosses_lines || !readable(depth);
        assert!(readable(if pack { a.len } else { depth }), "LHS of a product");
        assert!(depth > 0 && panel_len == depth * NR, "panels of a product");
        assert!(
            cols.is_multiple_of(NR) && (cols / NR).checked_mul(panel_len) <= Some(panels.len()),
            "RHS of a product"
        );
        assert!(a.sums.len() >= rows || zero_points.is_empty(), "row sums of a product");
        assert!(zero_points.len() == cols || zero_points.is_empty(), "zero points of a product");
        let aligned = scratch.as_ptr().align_offset(2 * SUMS_BYTES);
        let (sums, strips) = scratch[aligned..].split_at_mut(2 * SUMS_BYTES);
        let block_rows = Self::block_rows(depth, panel_stays);
        let strips = if pack { strips } else { &mut [] };
        let steps = depth / TILE_BYTES;
        let whole = rows - rows % MR;
        let mut leaving = Leaving {
            walk: Walk {
                args: Args {
                    config: Config::new(MR),
                    row_stride: if pack { TILE_BYTES } else { a.stride },
                    high: TILE_ROWS * if pack { TILE_BYTES } else { a.stride },
                    a_step: if pack { STRIP_STEP } else { TILE_BYTES } as isize,
                    b_step: TILE as isize,
                    register: panel_len / REGISTERS,
                    steps,
                    a: a.bytes.as_ptr(),
                    b: panels.as_ptr(),
                    sums: sums.as_mut_ptr().cast(),
                    left: 0,
                    next,
                    leave: leave::<S>,
                },
                vnni: self.vnni(),
                product,
                strips,
                block_rows,
                end: 0,
                first: 0,
                at: None,
                last: [0; 2],
            },
            stage,
            out,
        };
        for [first, end] in [[0, whole], [whole, rows]] {
            if first == end {
                continue;
            }
            let walk = &mut leaving.walk;
            walk.args.config = Config::new(MR.min(end - first));
            (walk.first, walk.end, walk.at) = (first, end, None);
            let kind = [a.signed, end - first > TILE_ROWS, panel_stays];
            // SAFETY: the token proves that the machine has AMX and that the operating system granted tiles. `next` moves to
            // blocks within the rows to `end` and the columns, whose operands the assertions above bound, or to strips,
            // whose bounds it checks. The two buffers of sums are `SUMS_BYTES` apart, and nothing else uses them.
            unsafe { run((&raw mut leaving).cast(), kind) }
            while leaving.walk.args.left > 0 {
                self.vnni().run(Leave(&mut leaving));
            }
        }
    }
}

/// Multiplies blocks until none is left. The sums of the last one have not left.
///
/// # Safety
/// - The machine has AMX, and the operating system granted tiles.
/// - `walk` points to a [`Walk`] that is what its `leave` expects.
/// - The operands of each block that `next` moves to are readable: rows as configured, `row_stride` apart, of `steps`
///   steps, and `steps` steps of a panel.
/// - `sums` is valid for `2 * SUMS_BYTES` and aligned to as much, or the second half of that.
unsafe fn run(walk: *mut Walk<'_>, [signed, high, panel_stays]: [bool; 3]) {
    // SAFETY: the caller promises all operands. The assembly reads and writes what `walk` points to, and calls `leave` for the
    // sums of the last block only, after they were stored and before they are overwritten.
    unsafe {
        match (signed, high, panel_stays) {
            (false, true, false) => multiply_blocks!(walk, "tdpbusd", "tileloadd", "tileloaddt1", high),
            (false, true, true) => multiply_blocks!(walk, "tdpbusd", "tileloaddt1", "tileloadd", high),
            (true, true, false) => multiply_blocks!(walk, "tdpbssd", "tileloadd", "tileloaddt1", high),
            (true, true, true) => multiply_blocks!(walk, "tdpbssd", "tileloaddt1", "tileloadd", high),
            // A single strip of few rows: panels stream, in either order.
            (false, false, _) => multiply_blocks!(walk, "tdpbusd", "tileloadd", "tileloaddt1", low),
            (true, false, _) => multiply_blocks!(walk, "tdpbssd", "tileloadd", "tileloaddt1", low),
        }
    }
}

/// The way through the blocks of a product: blocks of rows, then columns, then rows of a block.
#[repr(C)]
struct Walk<'a> {
    args: Args,
    vnni: Avx512Vnni,
    product: AmxProduct<'a>,
    /// Strips of a block of rows, or empty if rows are read in place.
    strips: &'a mut [u8],
    block_rows: usize,
    /// First row of the block of rows, and the end of all.
    first: usize,
    end: usize,
    /// First row and column of the block.
    at: Option<[usize; 2]>,
    /// The same of the last block, whose sums are leaving.
    last: [usize; 2],
}

impl Walk<'_> {
    fn next(&mut self) -> bool {
        let next = match self.at {
            None => [self.first, 0],
            Some(at) => {
                self.last = at;
                self.args.left = MR / CHUNK;
                self.args.sums = self.args.sums.map_addr(|addr| addr ^ SUMS_BYTES);
                self.following(at)
            }
        };
        let [row, col] = next;
        if row >= self.end {
            return false;
        }
        let AmxProduct { a, panels, panel_len, .. } = self.product;
        if next == [self.first, 0] && !self.strips.is_empty() {
            let count = self.block_rows.min(self.end - row);
            self.vnni.run(PackStrips { rows: a.from(row), count, to: self.strips });
        }
        self.at = Some(next);
        let steps = self.args.steps;
        self.args.b = panels[col / NR * panel_len..].as_ptr();
        self.args.a = if self.strips.is_empty() {
            a.bytes[row * a.stride..].as_ptr()
        } else {
            self.strips[(row - self.first) * steps * TILE_BYTES..][..steps * STRIP_STEP].as_ptr()
        };
        if steps >= SERPENTINE {
            // The other way than the last block.
            (self.args.a_step, self.args.b_step) = (-self.args.a_step, -self.args.b_step);
            if self.args.b_step < 0 {
                let last = steps as isize - 1;
                self.args.a = self.args.a.wrapping_offset(-self.args.a_step * last);
                self.args.b = self.args.b.wrapping_offset(-self.args.b_step * last);
            }
        }
        true
    }

    /// Returns the block after this one, and enters its block of rows.
    fn following(&mut self, [row, col]: [usize; 2]) -> [usize; 2] {
        let end = self.end.min(self.first + self.block_rows);
        if row + MR < end {
            [row + MR, col]
        } else if col + NR < self.product.columns[0].len() {
            [self.first, col + NR]
        } else {
            self.first = end;
            [end, 0]
        }
    }
}

/// # Safety
/// - `walk` is valid, and nothing else uses it.
unsafe extern "sysv64" fn next(walk: *mut Walk<'_>) -> bool {
    // SAFETY: the caller promises it.
    unsafe { (*walk).next() }
}

/// Copies rows to strips. The remainder of the last step of depth is unspecified: the RHS holds zeros there. So are rows past
/// the last one: their sums are not stored.
struct PackStrips<'a> {
    rows: LhsRows<'a>,
    count: usize,
    to: &'a mut [u8],
}

impl Task for PackStrips<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, count, to } = self;
        let strip = MR * Amx::padded_depth(rows.len);
        for (s, to) in to.chunks_exact_mut(strip).take(count.div_ceil(MR)).enumerate() {
            for i in 0..MR.min(count - s * MR) {
                let (steps, rest) = rows.row(s * MR + i).as_chunks::<TILE_BYTES>();
                let to = to.as_chunks_mut::<TILE_BYTES>().0;
                let mut to = to.iter_mut().skip(i).step_by(MR);
                for (from, to) in steps.iter().zip(to.by_ref()) {
                    *to = *from;
                }
                if let Some(to) = to.next() {
                    to[..rest.len()].copy_from_slice(rest);
                }
            }
        }
    }
}

/// Where sums go.
#[repr(C)]
struct Leaving<'a, S: Stage> {
    walk: Walk<'a>,
    stage: S,
    out: OutTile<'a, S::Out>,
}

/// # Safety
/// - `walk` points to a valid `Leaving<S>`, and nothing else uses it. The sums of its last block were stored.
unsafe extern "sysv64" fn leave<S: Stage>(walk: *mut Walk<'_>) {
    // SAFETY: the caller promises it.
    let leaving = unsafe { &mut *walk.cast::<Leaving<'_, S>>() };
    leaving.walk.vnni.run(Leave(leaving));
}

/// Stores some rows of the last block by the output stage.
struct Leave<'l, 'a, S: Stage>(&'l mut Leaving<'a, S>);

impl<S: Stage> Task for Leave<'_, '_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Leaving { walk, stage, out } = self.0;
        let (vnni, v, stage) = (walk.vnni, walk.vnni.vector(), *stage);
        let [row, col] = walk.last;
        let first = MR - walk.args.left * CHUNK;
        walk.args.left -= 1;
        let end = (first + CHUNK).min(walk.end - row);
        if first >= end {
            return;
        }
        let sums = walk.args.sums.map_addr(|addr| addr ^ SUMS_BYTES);
        // SAFETY: the other buffer holds the sums of the last block.
        let sums = &mut unsafe { &mut *sums.cast::<[[i32; NR]; MR]>() }[first..end];
        let AmxProduct { a, columns: [start, zero_points], .. } = walk.product;
        let start = &start[col..col + NR];
        // Outputs of the block that is being multiplied.
        if let Some([row, col]) = walk.at
            && walk.args.steps < DEEP
        {
            out.prefetch(v, [row + first, col], end - first, NR);
        }
        let mut out = out.from(row + first, col);
        if S::FROM_REGISTERS && zero_points.is_empty() && sums.len() == CHUNK {
            let chunk = StoreChunk { vnni, stage, out, sums, start };
            // The width of whole blocks is constant: with one that varies, addresses took more instructions than the
            // stage, and the multiplier waited for them.
            return if chunk.out.width >= NR { chunk.store(NR) } else { vnni.run(chunk) };
        }
        let zero_points = zero_points.get(col..col + NR).unwrap_or_default();
        let row_sums = a.sums.get(row + first..).unwrap_or_default();
        out.width = out.width.min(NR);
        vnni.run(StoreRows { vnni, stage, out, sums, start, row_sums, zero_points });
    }
}

/// Stores `CHUNK` rows from registers. As a task it is a function of its own, for blocks of fewer columns.
struct StoreChunk<'a, S: Stage> {
    vnni: Avx512Vnni,
    stage: S,
    out: OutTile<'a, S::Out>,
    sums: &'a [[i32; NR]],
    start: &'a [i32],
}

impl<S: Stage> StoreChunk<'_, S> {
    #[inline(always)]
    fn store(self, width: usize) {
        let Self { vnni, stage, out, sums, start } = self;
        let v = vnni.vector();
        let start = load_row(v, start);
        let mut acc = [[v.splat(0); REGISTERS]; CHUNK];
        for (acc, sums) in acc.iter_mut().zip(sums) {
            let sums = load_row(v, sums);
            for j in 0..REGISTERS {
                acc[j] = v.add(sums[j], start[j]);
            }
        }
        stage.store(v, &acc, OutTile { width, ..out });
    }
}

impl<S: Stage> Task for StoreChunk<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let width = self.out.width;
        self.store(width);
    }
}

/// Stores what is left over: fewer rows, zero points of the RHS, and outputs that take more code.
struct StoreRows<'a, S: Stage> {
    vnni: Avx512Vnni,
    stage: S,
    out: OutTile<'a, S::Out>,
    sums: &'a mut [[i32; NR]],
    start: &'a [i32],
    row_sums: &'a [i32],
    zero_points: &'a [i32],
}

impl<S: Stage> Task for StoreRows<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { vnni, stage, out, sums, start, row_sums, zero_points } = self;
        for sums in &mut *sums {
            for (sum, start) in sums.iter_mut().zip(start) {
                *sum = sum.wrapping_add(*start);
            }
        }
        // The compensation differs by row and column. Without zero points there is nothing to subtract.
        for (sums, &row_sum) in sums.iter_mut().zip(row_sums) {
            for (sum, zero) in sums.iter_mut().zip(zero_points) {
                *sum = sum.wrapping_sub(zero.wrapping_mul(row_sum));
            }
        }
        stage.store_rows(vnni.vector(), sums.len(), sums.as_flattened(), NR, out);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;
    use crate::simd::StoreI32;

    /// Every number of rows of the last strip, depths that are no multiple of 64 or 4, many blocks, and both orders, from
    /// rows that start at lines and from rows that cross them and end at the depth.
    #[test]
    fn blocks() {
        let Some(amx) = Amx::new() else { return };
        let small = (1..=40).map(|rows| ([rows, 1 + rows * 7 % 131, 1 + rows * 11 % 100], rows * 5 % 16));
        let large = [[65, 70, 545], [33, 129, 133], [40, 330, 40], [16, 1030, 133], [300, 4100, 150]];
        let large = large.into_iter().flat_map(|size| (0..16).map(move |kind| (size, kind)));
        for ([rows, depth, cols], kind) in small.chain(large) {
            let [signed, aligned, panel_stays, zeros] = [kind & 1, kind & 2, kind & 4, kind & 8].map(|bit| bit > 0);
            let code = |i: usize, k: usize| if k < depth { (i * 31 + k * 7 + i * k) as u8 } else { 0xa5 };
            let weight = |k: usize, j: usize| if k < depth && j < cols { (k * 13 + j * 29 + k * j) as i8 } else { 0 };
            let padded = Amx::padded_depth(depth);
            let panels = cols.div_ceil(NR);
            let stride = if aligned { padded } else { padded + 5 };
            let readable = if !aligned && Amx::packs(panels * NR) { depth } else { padded };
            let mut memory = vec![0u8; rows * stride + 2 * TILE_BYTES];
            let start = memory.as_ptr().align_offset(TILE_BYTES) + if aligned { 0 } else { 1 };
            let bytes = &mut memory[start..][..(rows - 1) * stride + readable];
            for i in 0..rows {
                for k in 0..padded.min(bytes.len() - i * stride) {
                    bytes[i * stride + k] = code(i, k);
                }
            }
            let mut data = vec![0u8; panels * padded * NR];
            for k in 0..padded {
                for j in 0..panels * NR {
                    data[j / 16 * padded * 16 + k / 4 * 64 + j % 16 * 4 + k % 4] = weight(k, j) as u8;
                }
            }
            let start: Vec<i32> = (0..panels * NR).map(|j| j as i32 * 1001 - 20000).collect();
            let zero_points: Vec<i32> =
                (0..panels * NR).map(|j| if zeros { j as i32 % 255 - 100 } else { 0 }).collect();
            let sums: Vec<i32> = (0..rows).map(|i| i as i32 * 37 - 300).collect();
            let product = AmxProduct {
                rows,
                a: LhsRows { bytes, stride, len: depth, signed, sums: &sums },
                panels: &data,
                panel_len: padded * NR,
                columns: [&start, if zeros { &zero_points } else { &[] }],
                panel_stays,
            };
            let mut found = vec![77; rows * (cols + 3)];
            let out = OutTile { row: 0, col: 0, width: cols, out: &mut found, stride: cols + 3 };
            amx.multiply(product, StoreI32, out, &mut vec![0; Amx::scratch_bytes(rows, depth, panel_stays)]);
            for i in 0..rows {
                for j in 0..cols {
                    let product = |k| {
                        let code = if signed { code(i, k) as i8 as i32 } else { code(i, k) as i32 };
                        code * weight(k, j) as i32
                    };
                    let expected = start[j] - sums[i] * zero_points[j] + (0..depth).map(product).sum::<i32>();
                    assert_eq!(found[i * (cols + 3) + j], expected, "{rows} x {depth} x {cols}, {kind}: {i}, {j}");
                }
                assert_eq!(found[i * (cols + 3) + cols..][..3], [77; 3]);
            }
        }
    }
}
