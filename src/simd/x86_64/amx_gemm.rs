//! The product of AMX: blocks of 32 × 32 outputs, whose sums leave through the output stage while the next block is
//! multiplied.
//!
//! The compiler knows neither the configuration nor the content of tiles, so they live within one block of assembly,
//! which walks a list of blocks. It calls back to [`leave`] between steps of depth. Tiles are released before it ends.

use core::arch::asm;
use core::mem::offset_of;
use core::slice;

use super::amx::{Config, TILE_BYTES, TILE_ROWS};
use super::{Amx, Avx512Vnni};
use crate::simd::{LhsRows, OutTile, Stage, Target, Task};

const MR: usize = Amx::MR;
const NR: usize = Amx::NR;

/// Sums of a block, and bytes of them.
const SUMS: usize = MR * NR;
const SUMS_BYTES: usize = SUMS * size_of::<i32>();

/// Bytes of a line of a panel: 4 codes of each of its columns.
const LINE: usize = NR * 4;
/// Bytes of a panel in a step of depth: two tiles. A tile takes one half of each of 16 lines, so AVX512-VNNI can read
/// the same panels, one line after the other.
const PANEL_STEP: usize = TILE_ROWS * LINE;

/// Blocks per configuration of tiles, which takes about 90 cycles. A block takes at least 64, mostly some hundreds.
const QUEUE: usize = 32;

/// The most calls of [`leave`] for a block: 8 rows each.
const MAX_CALLS: usize = 4;

/// Some rows of the LHS against panels of the RHS.
#[derive(Clone, Copy)]
pub(crate) struct AmxProduct<'a> {
    pub(crate) rows: usize,
    /// Readable to the padded depth.
    pub(crate) a: LhsRows<'a>,
    pub(crate) panels: &'a [u8],
    pub(crate) panel_len: usize,
    /// Initial accumulators and zero points of all columns of the panels. There are no zero points if all are 0.
    pub(crate) columns: [&'a [i32]; 2],
    /// True if a panel stays in cache and rows stream past it, for an RHS larger than L2. Otherwise 32 rows stay and
    /// panels stream past them.
    pub(crate) panel_stays: bool,
}

/// A block of outputs.
#[repr(C)]
#[derive(Clone, Copy)]
struct Block {
    a: *const u8,
    b: *const u8,
    /// Initial accumulators of `NR` columns.
    start: *const i32,
    /// Its first row and column.
    row: usize,
    col: usize,
}

/// The function that the assembly calls: context, block, its sums, and the number of calls that are left for it, this one
/// included.
type Leave = unsafe extern "sysv64" fn(*mut (), *const Block, *mut i32, usize);

/// Arguments and state of the assembly. It keeps them in memory: they outnumber the registers that calls preserve.
#[repr(C)]
struct Args {
    config: Config,
    /// Bytes from one row of the LHS to the next, to 16 rows further, and to the next step of depth.
    row_stride: usize,
    high: usize,
    step: usize,
    /// Number of steps of depth.
    steps: usize,
    /// The next block and the end of the list.
    block: *const Block,
    end: *const Block,
    /// The last block, whose sums are leaving.
    last: *const Block,
    /// Where the sums of the next block go. The last block's are in the other of two buffers, `SUMS_BYTES` away.
    sums: *mut i32,
    /// Calls that are left for the last block, and calls per block: at most `steps`.
    left: usize,
    calls: usize,
    leave: Leave,
    context: *mut (),
}

/// Multiplies the blocks of `$args`: up to 32 rows (`high`) or up to 16 (`low`).
///
/// `$a` and `$b` load tiles of the LHS and of the RHS: `tileloadd` for the operand that stays in L1, `tileloaddt1` for
/// the one that streams past it. A stride of zero loads the initial accumulators into every row.
macro_rules! multiply_blocks {
    ($args:expr, $multiply:literal, $a:literal, $b:literal, high) => {
        multiply_blocks!(@code $args, $multiply, $a, $b,
            ["tileloadd tmm2, [r8 + rcx]", "tileloadd tmm3, [r8 + rcx + 64]"],
            ["lea r8, [r14 + rdx]", concat!($a, " tmm5, [r8 + rax]"), concat!($multiply, " tmm2, tmm5, tmm6")],
            [concat!($multiply, " tmm3, tmm5, tmm7")],
            ["tilestored [r8 + rcx + 2048], tmm2", "tilestored [r8 + rcx + 2112], tmm3"])
    };
    ($args:expr, $multiply:literal, $a:literal, $b:literal, low) => {
        multiply_blocks!(@code $args, $multiply, $a, $b, [], [], [], [])
    };
    (@code $args:expr, $multiply:literal, $a:literal, $b:literal,
        [$($load:expr),*], [$($first:expr),*], [$($second:expr),*], [$($store:expr),*]) => {
        asm!(
            "mov r12, rdi",
            "ldtilecfg [r12]",
            // Each block.
            "2:",
            "mov rax, [r12 + {BLOCK}]",
            "mov r14, [rax + {A}]",
            "mov r13, [rax + {B}]",
            "mov r8, [rax + {START}]",
            "xor ecx, ecx",
            "tileloadd tmm0, [r8 + rcx]",
            "tileloadd tmm1, [r8 + rcx + 64]",
            $($load,)*
            "mov r15, [r12 + {STEPS}]",
            // What a call may have changed.
            "3:",
            "mov rax, [r12 + {ROW_STRIDE}]",
            "mov rdx, [r12 + {HIGH}]",
            "mov rsi, [r12 + {STEP}]",
            "mov ecx, {LINE}",
            // Each step of depth.
            "4:",
            concat!($b, " tmm6, [r13 + rcx]"),
            concat!($a, " tmm4, [r14 + rax]"),
            concat!($multiply, " tmm0, tmm4, tmm6"),
            $($first,)*
            concat!($b, " tmm7, [r13 + rcx + 64]"),
            concat!($multiply, " tmm1, tmm4, tmm7"),
            $($second,)*
            "add r14, rsi",
            "add r13, {PANEL_STEP}",
            "cmp qword ptr [r12 + {LEFT}], 0",
            "jne 5f",
            "dec r15",
            "jnz 4b",
            "jmp 6f",
            // Some rows of the last block leave.
            "5:",
            "mov rdi, [r12 + {CONTEXT}]",
            "mov rsi, [r12 + {LAST}]",
            "mov rdx, [r12 + {SUMS}]",
            "xor rdx, {SUMS_BYTES}",
            "mov rcx, [r12 + {LEFT}]",
            "dec qword ptr [r12 + {LEFT}]",
            "call qword ptr [r12 + {LEAVE}]",
            "dec r15",
            "jnz 3b",
            "6:",
            "mov r8, [r12 + {SUMS}]",
            "mov ecx, {LINE}",
            "tilestored [r8 + rcx], tmm0",
            "tilestored [r8 + rcx + 64], tmm1",
            $($store,)*
            "xor r8, {SUMS_BYTES}",
            "mov [r12 + {SUMS}], r8",
            "mov rcx, [r12 + {CALLS}]",
            "mov [r12 + {LEFT}], rcx",
            "mov rax, [r12 + {BLOCK}]",
            "mov [r12 + {LAST}], rax",
            "add rax, {BLOCK_BYTES}",
            "mov [r12 + {BLOCK}], rax",
            "cmp rax, [r12 + {END}]",
            "jne 2b",
            "tilerelease",
            inout("rdi") $args => _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            BLOCK = const offset_of!(Args, block),
            END = const offset_of!(Args, end),
            LAST = const offset_of!(Args, last),
            A = const offset_of!(Block, a),
            B = const offset_of!(Block, b),
            START = const offset_of!(Block, start),
            BLOCK_BYTES = const size_of::<Block>(),
            ROW_STRIDE = const offset_of!(Args, row_stride),
            HIGH = const offset_of!(Args, high),
            STEP = const offset_of!(Args, step),
            STEPS = const offset_of!(Args, steps),
            SUMS = const offset_of!(Args, sums),
            LEFT = const offset_of!(Args, left),
            CALLS = const offset_of!(Args, calls),
            LEAVE = const offset_of!(Args, leave),
            CONTEXT = const offset_of!(Args, context),
            LINE = const LINE,
            PANEL_STEP = const PANEL_STEP,
            SUMS_BYTES = const SUMS_BYTES,
            clobber_abi("sysv64"),
        )
    };
}

impl Amx {
    /// Computes `start[j] - sums[i] * zero_points[j] + Σ_k a[i][k] * b[k][j]` for all rows and columns and stores it by
    /// `stage`. All arithmetic wraps. The depth is at least 1.
    ///
    /// `scratch` holds two buffers of sums, aligned to the size of both, and the initial accumulators: `4 * MR * NR` integers
    /// and one for each column.
    pub(crate) fn multiply<S: Stage>(
        self,
        product: AmxProduct<'_>,
        stage: S,
        out: OutTile<'_, S::Out>,
        scratch: &mut [i32],
    ) {
        let AmxProduct { rows, a, panels, panel_len, columns: [start, zero_points], panel_stays } = product;
        let (depth, cols) = (Self::padded_depth(a.len), start.len());
        // The bounds of all reads and writes of the assembly.
        let end = if a.strips {
            rows.checked_next_multiple_of(MR).and_then(|rows| rows.checked_mul(depth))
        } else {
            rows.saturating_sub(1).checked_mul(a.stride).and_then(|start| start.checked_add(depth))
        };
        assert!(end.is_some_and(|end| end <= a.bytes.len()), "LHS of a product");
        assert!(depth > 0 && panel_len == depth * NR, "panels of a product");
        assert!((cols / NR).checked_mul(panel_len).is_some_and(|len| len <= panels.len()), "RHS of a product");
        assert!(a.sums.len() >= rows || zero_points.is_empty(), "row sums of a product");
        assert!(zero_points.len() == cols || zero_points.is_empty(), "zero points of a product");
        let aligned = scratch.as_ptr().align_offset(2 * SUMS_BYTES);
        assert!(cols.is_multiple_of(NR) && scratch.len().checked_sub(aligned) >= Some(2 * SUMS + cols), "scratch");
        let (sums, starts) = scratch[aligned..].split_at_mut(2 * SUMS);
        // A copy, so that tiles of initial accumulators do not cross lines.
        starts[..cols].copy_from_slice(start);
        let steps = depth / TILE_BYTES;
        let calls = steps.min(MAX_CALLS);
        let per_call = MR.div_ceil(calls).next_multiple_of(2);
        let (vnni, row_sums) = (self.vnni(), a.sums);
        let mut leaving = Leaving { vnni, stage, out, rows, row_sums, zero_points, calls, per_call };
        let whole = rows - rows % MR;
        for [first, end] in [[0, whole], [whole, rows]] {
            if first == end {
                continue;
            }
            let [row_stride, step] = if a.strips { [TILE_BYTES, MR * TILE_BYTES] } else { [a.stride, TILE_BYTES] };
            let mut queue = Queue { blocks: [Block::NONE; QUEUE], len: 0 };
            let mut args = Args {
                config: Config::new(MR.min(end - first)),
                row_stride,
                high: TILE_ROWS * row_stride,
                step,
                steps,
                block: core::ptr::null(),
                end: core::ptr::null(),
                last: core::ptr::null(),
                sums: sums.as_mut_ptr(),
                left: 0,
                calls,
                leave: leave::<S>,
                context: (&raw mut leaving).cast(),
            };
            let kind = [a.signed, end - first > TILE_ROWS, panel_stays];
            let mut push = |row: usize, col: usize| {
                let (a, b) = (&a.bytes[row * a.stride..], &panels[col / NR * panel_len..]);
                queue.blocks[queue.len] =
                    Block { a: a.as_ptr(), b: b.as_ptr(), start: starts[col..].as_ptr(), row, col };
                queue.len += 1;
                if queue.len == QUEUE || (row + MR >= end && col + NR >= cols) {
                    let blocks = &queue.blocks[..core::mem::take(&mut queue.len)];
                    // SAFETY: the token proves that the machine has AMX and that the operating system granted tiles.
                    // The assertions above hold for each block: the rows from `row` on, to `end`, are readable to
                    // `steps` steps of depth, the panel has as many, there are `NR` initial accumulators at `starts`,
                    // and the two buffers of sums are `SUMS_BYTES` apart. `leaving` lives, and nothing else uses it or
                    // the sums.
                    unsafe { args.run(blocks, kind) }
                }
            };
            if panel_stays {
                for col in (0..cols).step_by(NR) {
                    for row in (first..end).step_by(MR) {
                        push(row, col);
                    }
                }
            } else {
                for row in (first..end).step_by(MR) {
                    for col in (0..cols).step_by(NR) {
                        push(row, col);
                    }
                }
            }
        }
    }
}

/// Blocks that wait for a configuration of tiles.
struct Queue {
    blocks: [Block; QUEUE],
    len: usize,
}

impl Block {
    const NONE: Self = Self { a: core::ptr::null(), b: core::ptr::null(), start: core::ptr::null(), row: 0, col: 0 };
}

impl Args {
    /// Multiplies blocks and lets all their sums leave.
    ///
    /// # Safety
    /// - The machine has AMX, and the operating system granted tiles.
    /// - There is a block. The operands of each are readable: rows as configured, `row_stride` apart, of `steps` steps;
    ///   `steps` steps of a panel; and `NR` initial accumulators.
    /// - `sums` is valid for `2 * SUMS_BYTES` and aligned to as much, or the second half of that. `context` is what
    ///   `leave` expects.
    /// - `0 < calls <= steps`.
    unsafe fn run(&mut self, blocks: &[Block], [signed, high, panel_stays]: [bool; 3]) {
        let range = blocks.as_ptr_range();
        (self.block, self.end, self.left) = (range.start, range.end, 0);
        let args = &raw mut *self;
        // SAFETY: the caller promises all operands. The assembly reads and writes what `args` points to, and calls
        // `leave` for the sums of the last block only, after they were stored and before they are overwritten.
        unsafe {
            match (signed, high, panel_stays) {
                (false, true, false) => multiply_blocks!(args, "tdpbusd", "tileloadd", "tileloaddt1", high),
                (false, true, true) => multiply_blocks!(args, "tdpbusd", "tileloaddt1", "tileloadd", high),
                (true, true, false) => multiply_blocks!(args, "tdpbssd", "tileloadd", "tileloaddt1", high),
                (true, true, true) => multiply_blocks!(args, "tdpbssd", "tileloaddt1", "tileloadd", high),
                // A single strip of few rows: panels stream, in either order.
                (false, false, _) => multiply_blocks!(args, "tdpbusd", "tileloadd", "tileloaddt1", low),
                (true, false, _) => multiply_blocks!(args, "tdpbssd", "tileloadd", "tileloaddt1", low),
            }
            let sums = self.sums.map_addr(|addr| addr ^ SUMS_BYTES);
            for left in (1..=self.calls).rev() {
                (self.leave)(self.context, self.last, sums, left);
            }
        }
    }
}

/// Where sums go.
struct Leaving<'a, S: Stage> {
    vnni: Avx512Vnni,
    stage: S,
    out: OutTile<'a, S::Out>,
    rows: usize,
    row_sums: &'a [i32],
    zero_points: &'a [i32],
    /// Calls per block and rows per call.
    calls: usize,
    per_call: usize,
}

/// Stores some rows of a block by the output stage.
///
/// # Safety
/// - `context` points to a `Leaving<S>` and `block` to a block that nothing else writes or holds a reference to, and
///   `sums` is valid for `SUMS` integers.
unsafe extern "sysv64" fn leave<S: Stage>(context: *mut (), block: *const Block, sums: *mut i32, left: usize) {
    // SAFETY: the caller promises all three.
    let (leaving, block, sums) =
        unsafe { (&mut *context.cast::<Leaving<'_, S>>(), *block, slice::from_raw_parts_mut(sums, SUMS)) };
    let first = leaving.calls.saturating_sub(left) * leaving.per_call;
    let end = (first + leaving.per_call).min(MR).min(leaving.rows - block.row);
    if first < end {
        let Leaving { vnni, stage, .. } = *leaving;
        let row = block.row + first;
        let out = leaving.out.from(row, block.col);
        let out = OutTile { width: out.width.min(NR), ..out };
        let zero_points = leaving.zero_points.get(block.col..block.col + NR).unwrap_or_default();
        let row_sums = leaving.row_sums.get(row..).unwrap_or_default();
        vnni.run(StoreSums { vnni, stage, out, sums: &mut sums[first * NR..end * NR], row_sums, zero_points });
    }
}

/// Stores rows of sums, less the zero-point compensation of the RHS, which differs by row and column.
struct StoreSums<'a, S: Stage> {
    vnni: Avx512Vnni,
    stage: S,
    out: OutTile<'a, S::Out>,
    sums: &'a mut [i32],
    row_sums: &'a [i32],
    /// Of the columns of the block, or empty.
    zero_points: &'a [i32],
}

impl<S: Stage> Task for StoreSums<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        use crate::simd::Gemm;
        let Self { vnni, stage, out, sums, row_sums, zero_points } = self;
        if !zero_points.is_empty() {
            for (sums, &row_sum) in sums.chunks_exact_mut(NR).zip(row_sums) {
                for (sum, zero) in sums.iter_mut().zip(zero_points) {
                    *sum = sum.wrapping_sub(zero.wrapping_mul(row_sum));
                }
            }
        }
        stage.store_rows(vnni.vector(), sums.len() / NR, sums, NR, out);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;
    use crate::simd::StoreI32;

    /// Every number of rows of the last strip, depths that are no multiple of 64 or 4, more blocks than one
    /// configuration takes, and both orders, from strips and from rows in place.
    #[test]
    fn blocks() {
        let Some(amx) = Amx::new() else { return };
        let small = (1..=40).map(|rows| ([rows, 1 + rows * 7 % 131, 1 + rows * 11 % 100], rows * 5 % 16));
        let large = [[65, 70, 545], [33, 129, 33], [40, 330, 40], [16, 1030, 33]];
        let large = large.into_iter().flat_map(|size| (0..16).map(move |kind| (size, kind)));
        for ([rows, depth, cols], kind) in small.chain(large) {
            let [signed, strips, panel_stays, zeros] = [kind & 1, kind & 2, kind & 4, kind & 8].map(|bit| bit > 0);
            let code = |i: usize, k: usize| if k < depth { (i * 31 + k * 7 + i * k) as u8 } else { 0xa5 };
            let weight = |k: usize, j: usize| if k < depth && j < cols { (k * 13 + j * 29 + k * j) as i8 } else { 0 };
            let padded = Amx::padded_depth(depth);
            let panels = cols.div_ceil(NR);
            let stride = if strips { padded } else { padded + 5 };
            let mut bytes = vec![0u8; rows.next_multiple_of(MR) * stride];
            for i in 0..rows {
                for k in 0..padded {
                    let in_strip = i / MR * MR * padded + k / 64 * MR * 64 + i % MR * 64 + k % 64;
                    bytes[if strips { in_strip } else { i * stride + k }] = code(i, k);
                }
            }
            let mut data = vec![0u8; panels * padded * NR];
            for k in 0..padded {
                for j in 0..panels * NR {
                    data[j / NR * padded * NR + k / 4 * LINE + j % NR * 4 + k % 4] = weight(k, j) as u8;
                }
            }
            let start: Vec<i32> = (0..panels * NR).map(|j| j as i32 * 1001 - 20000).collect();
            let zero_points: Vec<i32> =
                (0..panels * NR).map(|j| if zeros { j as i32 % 255 - 100 } else { 0 }).collect();
            let sums: Vec<i32> = (0..rows).map(|i| i as i32 * 37 - 300).collect();
            let product = AmxProduct {
                rows,
                a: LhsRows { bytes: &bytes, stride, len: depth, signed, sums: &sums, strips },
                panels: &data,
                panel_len: padded * NR,
                columns: [&start, if zeros { &zero_points } else { &[] }],
                panel_stays,
            };
            let mut found = vec![77; rows * (cols + 3)];
            let out = OutTile { row: 0, col: 0, width: cols, out: &mut found, stride: cols + 3 };
            amx.multiply(product, StoreI32, out, &mut vec![0; 4 * SUMS + panels * NR]);
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
