//! Instruction sets: which there are, which one is used, and the only code that differs between them.
//!
//! An instruction set is a token that can only be made where the machine has it; holding one is the proof that its
//! instructions may run. It does two things: it multiplies packed tiles ([`Kernel::multiply`]), and it runs plain
//! loops compiled for it ([`Kernel::run`]), which is how everything else is vectorized without any `unsafe`.

mod floats;
mod fused;
mod isa;
mod operands;
mod portable;
mod quads;
mod streaming;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use core::any::TypeId;

pub(crate) use floats::{Floats, Formula};
pub(crate) use fused::Fma;
pub(crate) use isa::Isa;
pub(crate) use operands::{Columns, Rows, Sink, TileBytes, ToBytes};
#[cfg(target_arch = "x86_64")]
use operands::{Panel, Units};
pub(crate) use portable::Portable;
pub(crate) use quads::{CHANNELS, Interleave, Line, QuadBytes, QuadSums, Quads};
pub(crate) use streaming::{NonTemporal, streaming};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Amx, Avx2, Avx512Vnni, AvxVnni, transposed};

/// A loop to be compiled for an instruction set. Everything it calls must be inlined into `run`, which itself must be
/// `#[inline(always)]`.
pub(crate) trait Task {
    type Output;
    fn run(self) -> Self::Output;
}

/// The bytes of signed codes.
#[allow(unsafe_code, reason = "a view of the same bytes")]
pub(crate) fn bytes_of(codes: &[i8]) -> &[u8] {
    // SAFETY: `i8` and `u8` have the same size and alignment, and every bit pattern is valid for both.
    unsafe { core::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) }
}

/// The bytes of codes, if `T` is `u8` or `i8`.
pub(crate) fn as_bytes<T: 'static>(codes: &[T]) -> Option<&[u8]> {
    if !is_byte::<T>() {
        return None;
    }
    // SAFETY: `T` is `u8` or `i8`, which have one size and alignment, and every bit pattern is valid for both.
    #[allow(unsafe_code, reason = "a view of the same bytes")]
    Some(unsafe { core::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) })
}

/// The bytes of codes, if `T` is `u8` or `i8`.
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

/// What instruction sets do differently.
///
/// The right side of a product is signed, `gemm::pack` makes it so.
pub(crate) trait Kernel: Copy + Send + Sync {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a panel of the right side.
    const NR: usize;
    /// Panels that are multiplied with the same rows at a time, at most.
    const PANELS: usize;
    /// Neighbours in depth that lie side by side.
    const KR: usize;
    /// Columns are multiplied in multiples of this: half of a panel may do.
    const COLS: usize = Self::NR;
    /// Whether signed codes of the left side are made unsigned on the way, their top bit flipped, which adds 128.
    const FLIPS: bool = true;
    /// Rows whose distance is a multiple of this crowd one another out of the first-level cache.
    const CONFLICT: usize = 4096;

    /// The depth that panels are filled up to with zeros.
    fn padded_depth(depth: usize) -> usize {
        depth.next_multiple_of(Self::KR)
    }

    /// Whether rows of this depth can be read where they are, and not only from a copy with room behind each row.
    fn reads_in_place(_depth: usize) -> bool {
        true
    }

    /// `acc[i][j] = start[j] - sums[i] * zero_points[j] + Σ_k a[i][k] * b[k][j]` for `i < rows` and each `j` of `b.start`,
    /// where `sums` are those of `a`. Everything wraps.
    ///
    /// `acc` is `[rows][b.start.len()]`, its rows `acc_stride` apart.
    fn multiply(self, rows: usize, a: Rows<'_>, b: Columns<'_>, acc: &mut [i32], acc_stride: usize);

    /// Whether sums need not go to memory: see [`multiply_to`](Self::multiply_to).
    const SINKS: bool = false;

    /// As [`multiply`](Self::multiply), for a multiple of `MR` rows, with sums that go to `sink` from registers. Only of sets
    /// with [`SINKS`](Self::SINKS).
    fn multiply_to(self, _rows: usize, _a: Rows<'_>, _b: Columns<'_>, _sink: impl Sink) {
        debug_assert!(false, "sums go to memory");
    }

    /// Whether sums become bytes in registers: see [`multiply_to_bytes`](Self::multiply_to_bytes).
    const MAKES_BYTES: bool = false;

    /// As [`multiply_to`](Self::multiply_to), where sums become bytes. Only of sets with [`MAKES_BYTES`](Self::MAKES_BYTES).
    fn multiply_to_bytes<F: Formula>(
        self,
        _rows: usize,
        _a: Rows<'_>,
        _b: Columns<'_>,
        _to: ToBytes<'_, F>,
        _out: TileBytes<'_>,
    ) {
        debug_assert!(false, "sums go to memory");
    }

    /// `acc[r][x][c] = start[c] + Σ_t Σ_i quads[x][t][c][i] * weights[r][t][c][i]` for all `x` of `quads`, 16 channels `c`
    /// and `i < 4`, where `quads[x][t]` is the line `x * step + offsets[t]`. Sums wrap.
    ///
    /// The quads are unsigned, the weights the bits of signed codes, a row `r` for each of as many as they are.
    #[inline(always)]
    fn multiply_quads(self, quads: Quads<'_>, weights: &[Line], start: &[i32; CHANNELS], acc: QuadSums<'_>) {
        quads::multiply(quads, weights, start, acc);
    }

    /// Whether [`Self::requantize_quads`] is faster than sums in memory and a loop over them.
    const REQUANTIZES_QUADS: bool = false;

    /// `out[r][x][c] = formula(acc[r][x][c], factors[c]) ^ flip` for some blocks of 16 channels, of the `acc` that
    /// [`Self::multiply_quads`] computes for each. The first lines of the blocks are neighbours.
    ///
    /// The weights are `[blocks][rows][taps]`, with at least as many rows as `out` has.
    #[inline(always)]
    fn requantize_quads<F: Formula>(
        self,
        quads: Quads<'_>,
        weights: &[Line],
        start: &[[i32; CHANNELS]],
        to: ToBytes<'_, F>,
        out: QuadBytes<'_>,
    ) {
        quads::requantize(quads, weights, start, to, out);
    }

    /// Makes quads of four rows.
    #[inline(always)]
    fn interleave(self, task: Interleave<'_>) {
        self.run(task);
    }

    /// `to[i] = table[codes[i]]`, row by row; as many rows as both have.
    fn look_up(self, table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
        for (codes, to) in codes.chunks_exact(len).zip(to.chunks_mut(stride)) {
            to.iter_mut().zip(codes).for_each(|(to, &code)| *to = table[code as usize]);
        }
    }

    /// Runs a task compiled for this instruction set.
    fn run<T: Task>(self, task: T) -> T::Output;

    /// Multiplies as fast as the multiplier goes, with nothing to wait for; returns how many products of codes these are.
    fn peak(self, rounds: usize) -> u64 {
        // A tile whose operands lie in the first-level cache.
        const DEPTH: usize = 256;
        let (a, b) = (alloc::vec![1; Self::MR * DEPTH], alloc::vec![1; Self::NR * DEPTH]);
        let (start, mut acc) = (alloc::vec![0; Self::NR], alloc::vec![0; Self::MR * Self::NR]);
        for _ in 0..rounds {
            let a = Rows { bytes: &a, stride: DEPTH, depth: DEPTH, signed: false, sums: &[] };
            let b = Columns { panels: &b, panel_len: b.len(), start: &start, zero_points: &[] };
            self.multiply(Self::MR, a, b, core::hint::black_box(&mut acc), Self::NR);
        }
        (rounds * Self::MR * Self::NR * DEPTH) as u64
    }

    /// `to[i] = from[i]`, rounded to half precision, ties to even; the slices have one length.
    fn f32_to_f16(self, from: &[f32], to: &mut [u16], _past_caches: Option<NonTemporal<'_>>) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = half::f16::from_f32(from).to_bits());
    }

    /// `to[i] = from[i]`; the slices have one length.
    fn f16_to_f32(self, from: &[u16], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = half::f16::from_bits(from).to_f32());
    }
}

/// Evaluates `$body` with `$kernel` bound to the token of the instruction set `$isa`.
macro_rules! with_kernel {
    ($isa:expr, $kernel:ident => $body:expr) => {
        match $isa {
            $crate::arch::Isa::Portable => {
                let $kernel = $crate::arch::Portable;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::arch::Isa::Avx2($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::arch::Isa::AvxVnni($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::arch::Isa::Avx512Vnni($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::arch::Isa::Amx($kernel) => $body,
        }
    };
}
pub(crate) use with_kernel;

/// [`Kernel::peak`] with the instruction set in use.
pub(crate) fn peak(rounds: usize) -> u64 {
    with_kernel!(Isa::current(), kernel => kernel.peak(rounds))
}

/// [`Kernel::f32_to_f16`] with the instruction set in use, as far as the shorter slice goes.
pub(crate) fn f32_to_f16(from: &[f32], to: &mut [u16]) {
    let len = from.len().min(to.len());
    let (from, to) = (&from[..len], &mut to[..len]);
    with_kernel!(Isa::current(), kernel => streaming(size_of_val(from) + size_of_val(to), |non_temporal| {
        let head = non_temporal.map_or(0, |non_temporal| non_temporal.head(to));
        let ((from_head, from), (to_head, to)) = (from.split_at(head), to.split_at_mut(head));
        kernel.f32_to_f16(from_head, to_head, None);
        kernel.f32_to_f16(from, to, non_temporal);
    }));
}

/// [`Kernel::f16_to_f32`] with the instruction set in use, as far as the shorter slice goes.
pub(crate) fn f16_to_f32(from: &[u16], to: &mut [f32]) {
    let len = from.len().min(to.len());
    with_kernel!(Isa::current(), kernel => kernel.f16_to_f32(&from[..len], &mut to[..len]));
}

/// `to[i] = table[codes[i]]` with the instruction set in use, for rows of `len` codes, without gaps in `codes` and `stride`
/// apart in `to`.
pub(crate) fn look_up(table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
    if len > 0 && stride > 0 {
        with_kernel!(Isa::current(), kernel => kernel.look_up(table, (codes, len), (to, stride)));
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

    /// Every code, and every length of what is left behind whole registers; with a gap between rows.
    #[test]
    fn tables_on_every_set() {
        let table = core::array::from_fn(|i| (i * 167 + i / 16) as u8);
        let codes: Vec<u8> = (0..700).map(|i| (i * 73) as u8).collect();
        for isa in Isa::available() {
            for (len, gap) in (1..200).map(|len| (len, len % 3)) {
                let stride = len + gap;
                let rows = codes.len() / len;
                let mut found = alloc::vec![1; rows * stride];
                with_kernel!(isa, kernel => kernel.look_up(&table, (&codes, len), (&mut found, stride)));
                for (x, y) in codes.chunks_exact(len).zip(found.chunks_exact(stride)) {
                    assert!(y.iter().zip(x).all(|(&y, &x)| y == table[x as usize]), "{isa:?}, {len}");
                    assert!(y[len..].iter().all(|&y| y == 1), "{isa:?}, {len}");
                }
            }
        }
    }

    /// Every half-precision number, the numbers halfway between two of them, and those next to these.
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
                streaming(bytes, |non_temporal| {
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
