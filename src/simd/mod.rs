//! Instruction sets: the list, the choice, and the only code that differs between them.
//!
//! Each instruction set is a token that can only be made where the machine has it, so holding one proves that its
//! instructions may run. A token does two things: it is a micro-kernel ([`Kernel::multiply`]), and it runs portable
//! loops compiled for its instruction set ([`Kernel::run`]), which vectorizes everything else without `unsafe`.

mod dot4;
mod fma;
mod isa;
mod non_temporal;
mod operands;
mod portable;
mod simd_f32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use core::any::TypeId;

pub(crate) use dot4::{CHANNELS, Dot4Accumulators, Dot4Input, Dot4Output, Interleave4, Vector64};
pub(crate) use fma::Fma;
pub(crate) use isa::Isa;
pub(crate) use non_temporal::{NonTemporal, with_non_temporal};
pub(crate) use operands::{ByteStage, ByteTile, LhsRows, OutputStage, RhsPanels};
#[cfg(target_arch = "x86_64")]
use operands::{LhsUnits, RhsPanel};
pub(crate) use portable::Portable;
pub(crate) use simd_f32::{RequantizeOp, SimdF32};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Amx, Avx2, Avx512Vnni, AvxVnni, transposed};

/// A loop to compile for an instruction set.
///
/// `run` and everything it calls must be `#[inline(always)]`: only inlined code is compiled for the instruction set.
pub(crate) trait Task {
    type Output;
    fn run(self) -> Self::Output;
}

/// Reinterprets signed codes as bytes.
#[allow(unsafe_code, reason = "a view of the same bytes")]
pub(crate) fn bytes_of(codes: &[i8]) -> &[u8] {
    // SAFETY: `i8` and `u8` have the same size and alignment, and every bit pattern is valid for both.
    unsafe { core::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) }
}

/// Reinterprets codes as bytes if `T` is `u8` or `i8`.
pub(crate) fn as_bytes<T: 'static>(codes: &[T]) -> Option<&[u8]> {
    if !is_byte::<T>() {
        return None;
    }
    // SAFETY: `T` is `u8` or `i8`, which have one size and alignment, and every bit pattern is valid for both.
    #[allow(unsafe_code, reason = "a view of the same bytes")]
    Some(unsafe { core::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) })
}

/// Reinterprets codes as mutable bytes if `T` is `u8` or `i8`.
pub(crate) fn as_bytes_mut<T: 'static>(codes: &mut [T]) -> Option<&mut [u8]> {
    if !is_byte::<T>() {
        return None;
    }
    // SAFETY: `T` is `u8` or `i8`, which have one size and alignment, and every bit pattern is valid for both.
    #[allow(unsafe_code, reason = "a view of the same bytes")]
    Some(unsafe { core::slice::from_raw_parts_mut(codes.as_mut_ptr().cast(), codes.len()) })
}

fn is_byte<T: 'static>() -> bool {
    [TypeId::of::<u8>(), TypeId::of::<i8>()].contains(&TypeId::of::<T>())
}

/// The micro-kernels of an instruction set, and its way to compile loops.
///
/// The codes of a packed RHS are signed; `gemm::pack` subtracts the sign offset where they are not.
pub(crate) trait Kernel: Copy + Send + Sync {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of an RHS panel.
    const NR: usize;
    /// The most panels in one call of [`multiply`](Self::multiply).
    const NR_PANELS: usize;
    /// Codes of depth that lie side by side in a panel.
    const KR: usize;
    /// Columns are computed in multiples of this, which may be half a panel.
    const NR_STEP: usize = Self::NR;
    /// True if the LHS must be unsigned. The micro-kernel then adds the sign offset to signed codes: XOR 0x80 adds 128.
    const UNSIGNED_LHS: bool = true;
    /// Row strides that are multiples of this make rows of a tile compete for the same cache sets of L1.
    const ALIASING_STRIDE: usize = 4096;

    /// Returns the depth of panels, zero-padded.
    fn padded_depth(depth: usize) -> usize {
        depth.next_multiple_of(Self::KR)
    }

    /// Returns whether rows of this depth can be read in place. Otherwise the micro-kernel reads beyond the end of
    /// rows, which takes a padded copy.
    fn reads_in_place(_depth: usize) -> bool {
        true
    }

    /// Computes a tile: `acc[i][j] = start[j] - sums[i] * zero_points[j] + Σ_k a[i][k] * b[k][j]` for `i < rows` and
    /// each `j` of `b.start`, with the row sums of `a`. All arithmetic wraps.
    ///
    /// `acc` is `[rows][b.start.len()]` with rows `acc_stride` apart; `rows` is 1 to `MR`.
    fn multiply(self, rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize);

    /// True if accumulators can go to an output stage from registers: see [`multiply_into`](Self::multiply_into).
    const FUSES_STAGE: bool = false;

    /// Computes tiles as [`multiply`](Self::multiply) does and passes accumulators to `stage` from registers. `rows` is
    /// a multiple of `MR`. Implemented where [`FUSES_STAGE`](Self::FUSES_STAGE).
    fn multiply_into(self, _rows: usize, _a: LhsRows<'_>, _b: RhsPanels<'_>, _stage: impl OutputStage) {
        debug_assert!(false, "not implemented: accumulators go to memory");
    }

    /// True if accumulators can be requantized to bytes in registers: see
    /// [`multiply_requantize`](Self::multiply_requantize).
    const FUSES_REQUANTIZE: bool = false;

    /// Computes tiles as [`multiply_into`](Self::multiply_into) does and requantizes them to bytes. Implemented where
    /// [`FUSES_REQUANTIZE`](Self::FUSES_REQUANTIZE).
    fn multiply_requantize<F: RequantizeOp>(
        self,
        _rows: usize,
        _a: LhsRows<'_>,
        _b: RhsPanels<'_>,
        _stage: ByteStage<'_, F>,
        _out: ByteTile<'_>,
    ) {
        debug_assert!(false, "not implemented: accumulators go to memory");
    }

    /// Computes rows of depthwise outputs: `out[r][x][c] = start[c] + Σ_t Σ_i input[x][t][c][i] * weights[r][t][c][i]`
    /// for all outputs `x`, 16 channels `c`, taps `t` and `i < 4`. `input[x][t]` is vector `x * step + offsets[t]`. All
    /// arithmetic wraps.
    ///
    /// Input codes are unsigned, weights the bits of signed codes. The number of rows follows from `weights.len()`.
    #[inline(always)]
    fn dot4(self, input: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], out: Dot4Accumulators<'_>) {
        dot4::dot4(input, weights, start, out);
    }

    /// True if [`Self::dot4_requantize`] is faster than [`Self::dot4`] and a loop over accumulators in memory.
    const FUSES_DOT4_REQUANTIZE: bool = false;

    /// Requantizes depthwise outputs: `out[r][x][c] = op(acc[r][x][c], multipliers[c]) ^ sign_xor`, with the
    /// accumulators of [`Self::dot4`], for `start.len()` blocks of 16 channels whose first vectors are neighbours.
    ///
    /// The weights are `[blocks][rows][taps]`, with at least the rows of `out`.
    #[inline(always)]
    fn dot4_requantize<F: RequantizeOp>(
        self,
        input: Dot4Input<'_>,
        weights: &[Vector64],
        start: &[[i32; CHANNELS]],
        stage: ByteStage<'_, F>,
        out: Dot4Output<'_>,
    ) {
        dot4::dot4_requantize(input, weights, start, stage, out);
    }

    /// Interleaves four rows for [`Self::dot4`].
    #[inline(always)]
    fn interleave4(self, task: Interleave4<'_>) {
        self.run(task);
    }

    /// Looks up codes in a table: `to[i] = table[codes[i]]`, for contiguous rows of `len` codes into rows `stride`
    /// apart. Stops at the end of either.
    fn lookup(self, table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
        for (codes, to) in codes.chunks_exact(len).zip(to.chunks_mut(stride)) {
            to.iter_mut().zip(codes).for_each(|(to, &code)| *to = table[code as usize]);
        }
    }

    /// Runs a task compiled for this instruction set.
    fn run<T: Task>(self, task: T) -> T::Output;

    /// Multiplies operands in registers or L1 and returns the number of multiply–accumulates (MACs).
    fn peak_macs(self, rounds: usize) -> u64 {
        const DEPTH: usize = 256;
        let (a, b) = (alloc::vec![1; Self::MR * DEPTH], alloc::vec![1; Self::NR * DEPTH]);
        let (start, mut acc) = (alloc::vec![0; Self::NR], alloc::vec![0; Self::MR * Self::NR]);
        for _ in 0..rounds {
            let a = LhsRows { bytes: &a, stride: DEPTH, depth: DEPTH, signed: false, sums: &[] };
            let b = RhsPanels { panels: &b, panel_len: b.len(), start: &start, zero_points: &[] };
            self.multiply(Self::MR, a, b, core::hint::black_box(&mut acc), Self::NR);
        }
        (rounds * Self::MR * Self::NR * DEPTH) as u64
    }

    /// Converts to half precision, ties to even. The slices have one length.
    fn f32_to_f16(self, from: &[f32], to: &mut [u16], _non_temporal: Option<NonTemporal<'_>>) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = half::f16::from_f32(from).to_bits());
    }

    /// Converts from half precision. The slices have one length.
    fn f16_to_f32(self, from: &[u16], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = half::f16::from_bits(from).to_f32());
    }
}

/// Evaluates `$body` with `$kernel` bound to the token of the instruction set `$isa`.
macro_rules! with_kernel {
    ($isa:expr, $kernel:ident => $body:expr) => {
        match $isa {
            $crate::simd::Isa::Portable => {
                let $kernel = $crate::simd::Portable;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx2($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::AvxVnni($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx512Vnni($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Amx($kernel) => $body,
        }
    };
}
pub(crate) use with_kernel;

/// [`Kernel::peak_macs`] with the instruction set that deep products use.
pub(crate) fn peak_macs(rounds: usize) -> u64 {
    with_kernel!(Isa::for_gemm(usize::MAX), kernel => kernel.peak_macs(rounds))
}

/// [`Kernel::f32_to_f16`] with the instruction set in use. Stops at the end of the shorter slice.
pub(crate) fn f32_to_f16(from: &[f32], to: &mut [u16]) {
    let len = from.len().min(to.len());
    let (from, to) = (&from[..len], &mut to[..len]);
    with_kernel!(Isa::current(), kernel => with_non_temporal(size_of_val(from) + size_of_val(to), |non_temporal| {
        let head = non_temporal.map_or(0, |non_temporal| non_temporal.head(to));
        let ((from_head, from), (to_head, to)) = (from.split_at(head), to.split_at_mut(head));
        kernel.f32_to_f16(from_head, to_head, None);
        kernel.f32_to_f16(from, to, non_temporal);
    }));
}

/// [`Kernel::f16_to_f32`] with the instruction set in use. Stops at the end of the shorter slice.
pub(crate) fn f16_to_f32(from: &[u16], to: &mut [f32]) {
    let len = from.len().min(to.len());
    with_kernel!(Isa::current(), kernel => kernel.f16_to_f32(&from[..len], &mut to[..len]));
}

/// [`Kernel::lookup`] with the instruction set in use.
pub(crate) fn lookup(table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
    if len > 0 && stride > 0 {
        with_kernel!(Isa::current(), kernel => kernel.lookup(table, (codes, len), (to, stride)));
    }
}

/// Runs a task compiled for the instruction set in use.
#[inline]
pub(crate) fn run<T: Task>(task: T) -> T::Output {
    with_kernel!(Isa::current(), kernel => kernel.run(task))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use half::f16;

    use super::*;

    /// Every code and every length of a remainder after whole registers, with gaps between rows.
    #[test]
    fn tables_on_every_set() {
        let table = core::array::from_fn(|i| (i * 167 + i / 16) as u8);
        let codes: Vec<u8> = (0..700).map(|i| (i * 73) as u8).collect();
        for isa in Isa::available() {
            for (len, gap) in (1..200).map(|len| (len, len % 3)) {
                let stride = len + gap;
                let rows = codes.len() / len;
                let mut found = alloc::vec![1; rows * stride];
                with_kernel!(isa, kernel => kernel.lookup(&table, (&codes, len), (&mut found, stride)));
                for (x, y) in codes.chunks_exact(len).zip(found.chunks_exact(stride)) {
                    assert!(y.iter().zip(x).all(|(&y, &x)| y == table[x as usize]), "{isa:?}, {len}");
                    assert!(y[len..].iter().all(|&y| y == 1), "{isa:?}, {len}");
                }
            }
        }
    }

    /// Every half-precision number, every midpoint between two, and the floats next to both.
    #[test]
    fn half_precision_on_every_set() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let near = |bits: u32| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(f32::from_bits);
        let from = |h: &u16| f16::from_bits(*h).to_f32().to_bits();
        let floats: Vec<f32> = halves.iter().flat_map(|h| [near(from(h)), near(from(h) | 0x1000)]).flatten().collect();
        let same = |a: &u16, b: &u16| a == b || f16::from_bits(*a).is_nan() && f16::from_bits(*b).is_nan();
        for isa in Isa::available() {
            for bytes in [0, usize::MAX] {
                let mut narrow = alloc::vec![0; floats.len() + 64];
                with_non_temporal(bytes, |non_temporal| {
                    let head = non_temporal.map_or(0, |non_temporal| non_temporal.head(&narrow));
                    let narrow = &mut narrow[head..][..floats.len()];
                    with_kernel!(isa, kernel => kernel.f32_to_f16(&floats, narrow, non_temporal));
                    for (x, found) in floats.iter().zip(narrow) {
                        assert!(same(found, &f16::from_f32(*x).to_bits()), "{isa:?}: {x:e} gives {found:#x}");
                    }
                });
            }
            let mut wide = alloc::vec![0.0; halves.len()];
            with_kernel!(isa, kernel => kernel.f16_to_f32(&halves, &mut wide));
            for (h, x) in halves.iter().zip(&wide) {
                let expected = f16::from_bits(*h).to_f32();
                assert!(
                    x.to_bits() == expected.to_bits() || x.is_nan() && expected.is_nan(),
                    "{isa:?}: {h:#x} gives {x:e}"
                );
            }
        }
    }
}
