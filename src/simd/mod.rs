//! Instruction sets: the list, the choice, and the only code with `unsafe`.
//!
//! Each instruction set is a token that can only be made where the machine has it, so holding one proves that its
//! instructions may run. A token is a [`Vector`]: registers, and a way to run loops compiled for the instruction set,
//! which vectorizes plain Rust. Some are a [`Gemm`] too: they multiply codes.
//!
//! | file | content |
//! |---|---|
//! | `arch` | the instruction sets of the target: one of `x86_64/`, `aarch64/`, `wasm32` and, without SIMD, `arch` |
//! | `isa` | the choice of an instruction set, and the sizes of blocks |
//! | `vector` | the operations on registers |
//! | `generic/` | the kernels, each written once over any registers: `gemm`, `output`, `depthwise`, `depthwise_f32`, `nbits`, `binary`, `quantize`, `half` |
//! | `portable`, `table` | registers and lookup tables in plain Rust |
//! | `one_set`, `one_vector`, `without_tiles` | the choice on targets with one instruction set, one kind of registers, or without hardware tiles |
//! | `gemm_f32` | float products by the crate `gemm`, with the feature of that name |
//! | `non_temporal`, `bytes` | stores past the caches, views of bytes |

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
#[cfg_attr(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"), path = "aarch64/mod.rs")]
#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), path = "wasm32.rs")]
mod arch;
mod bytes;
#[cfg(feature = "gemm")]
mod gemm_f32;
mod generic;
mod isa;
mod non_temporal;
#[allow(unsafe_code, reason = "registers from memory")]
#[allow(dead_code, reason = "for tests and targets without SIMD of their own")]
mod portable;
#[allow(dead_code, reason = "some targets have a better one")]
mod table;
mod vector;

#[cfg(target_arch = "x86_64")]
pub(crate) use arch::{Amx, AmxProduct, transposed};
pub(crate) use arch::{Baseline, Fma, Isa, Vectors, with_gemm, with_vector};
pub(crate) use bytes::{as_bytes, as_bytes_mut, same_size_view_mut};
#[cfg(feature = "gemm")]
pub(crate) use gemm_f32::gemm_f32;
pub(crate) use generic::binary::CountDifferent;
pub(crate) use generic::depthwise::{CHANNELS, Dot4, Dot4Call, Interleave4, Vector64};
pub(crate) use generic::depthwise_f32::KernelPositionsF32;
pub(crate) use generic::gemm::{Gemm, LhsRows, Panel, REGISTERS, UNIT, Units, tile};
use generic::gemm::{multiply_i16, small_i16};
use generic::half::{FromF16, ToF16};
pub(crate) use generic::nbits::{
    COLUMNS, CodeRows, CodesByNBits, FloatRows, FloatsByNBits, GroupScales, Line, NBitsPanel,
};
pub(crate) use generic::output::{Dequantize, OutTile, RequantizeBytes, Stage, StoreI32};
use generic::quantize::QuantizeBytes;
pub(crate) use isa::Blocking;
#[cfg(test)]
pub(crate) use non_temporal::with_non_temporal;
pub(crate) use non_temporal::{NonTemporal, with_non_temporal_lines};
pub(crate) use vector::Vector;

use crate::affine::{ByteQuantizer, Rounding};

/// A loop to compile for an instruction set.
///
/// `run` and everything it calls must be `#[inline(always)]`: only inlined code is compiled for the instruction set.
pub trait Task {
    type Output;
    fn run(self) -> Self::Output;
}

/// An instruction set.
///
/// A value is a token: it can be made only where the machine has the instruction set, so holding one proves that its
/// instructions may run.
pub trait Target: Copy + Send + Sync {
    /// Runs a task compiled for the instruction set.
    fn run<T: Task>(self, task: T) -> T::Output;
}

/// Implements [`Target`] for a token by the features that it proves.
#[allow(unused_macros, reason = "targets of one instruction set are compiled for it")]
macro_rules! target {
    ($token:ty, $features:literal) => {
        impl $crate::simd::Target for $token {
            #[inline(always)]
            fn run<T: $crate::simd::Task>(self, task: T) -> T::Output {
                // LLVM vectorizes loops less well within a larger function.
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn compiled<T: $crate::simd::Task>(task: T) -> T::Output {
                    task.run()
                }
                // SAFETY: the token proves that the machine has these instructions.
                unsafe { compiled(task) }
            }
        }
    };
}
#[allow(unused_imports, reason = "targets of one instruction set are compiled for it")]
use target;

/// The arithmetic that output stages are written in: one `f32`, or SIMD registers of them.
pub(crate) trait SimdF32: Copy {
    /// The accumulators: `i32` of the same count.
    type I32: Copy;
    /// Integers of the same count that codes fit in.
    type Codes: Copy;

    /// Converts accumulators. `self` names the registers only.
    fn convert(self, acc: Self::I32) -> Self;
    fn mul(self, other: Self) -> Self;
    fn add(self, other: Self) -> Self;
    /// Returns `min(max(self, low), high)`. NaN stays NaN.
    fn clamp(self, low: f32, high: f32) -> Self;
    /// Returns `min(self, high)`. NaN stays NaN.
    fn min(self, high: f32) -> Self;
    fn scale(self, factor: f32) -> Self;
    /// Returns `self * factor + other`, rounded once.
    fn mul_add(self, fma: Fma, factor: f32, other: Self) -> Self;
    /// Returns `round(clamp(self, low, high)) + zero_point`, halves away from zero if `halves_away`, otherwise to even.
    /// `self` must be below `2^31` and not NaN.
    fn round_clamp(self, halves_away: bool, low: i32, high: i32, zero_point: i32) -> Self::Codes;
}

/// Runs a task compiled for the instruction set in use.
#[inline]
pub(crate) fn run<T: Task>(task: T) -> T::Output {
    with_vector!(Isa::current(), v => v.run(task))
}

/// Multiplies operands in registers or L1 with the instruction set that deep products use, and returns the number of
/// multiply–accumulates (MACs).
pub(crate) fn peak_macs(rounds: usize) -> u64 {
    struct Peak<G>(G, usize);
    impl<G: Gemm> Task for Peak<G> {
        type Output = u64;

        #[inline(always)]
        fn run(self) -> u64 {
            generic::gemm::peak_macs(self.0, self.1)
        }
    }
    with_gemm!(Isa::for_gemm(usize::MAX), g => g.run(Peak(g, rounds)), amx => amx.peak_macs(rounds))
}

/// Quantizes blocks of `size` values to bytes, each by its own operator. Blocks without one are left as they are.
pub(crate) fn quantize_bytes<R: Rounding>(ops: &[Option<ByteQuantizer<R>>], size: usize, from: &[f32], to: &mut [u8]) {
    with_vector!(Isa::current(), v => {
        if from.len() > size {
            return v.run(QuantizeBytes { v, ops, size, from, to, non_temporal: None });
        }
        with_non_temporal_lines(from, to, |from, to, non_temporal| {
            v.run(QuantizeBytes { v, ops, size, from, to, non_temporal });
        });
    })
}

/// Rounds to half precision, ties to even. Stops at the end of the shorter slice.
pub(crate) fn f32_to_f16(from: &[f32], to: &mut [u16]) {
    let len = from.len().min(to.len());
    let (from, to) = (&from[..len], &mut to[..len]);
    with_vector!(Isa::current(), v => with_non_temporal_lines(from, to, |from, to, non_temporal| {
        v.run(ToF16 { v, from, to, non_temporal });
    }));
}

/// Converts from half precision. Stops at the end of the shorter slice.
pub(crate) fn f16_to_f32(from: &[u16], to: &mut [f32]) {
    let len = from.len().min(to.len());
    let (from, to) = (&from[..len], &mut to[..len]);
    with_vector!(Isa::current(), v => v.run(FromF16 { v, from, to }));
}

/// Looks up codes in a table: `to[i] = table[codes[i]]`, for contiguous rows of `len` codes into rows `stride` apart.
/// Stops at the end of either.
pub(crate) fn lookup(table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
    if len == 0 || stride == 0 {
        return;
    }
    arch::lookup(table, (codes, len), (to, stride));
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use half::f16;

    use super::*;

    /// Every code and every length of a remainder after whole registers, with gaps between rows.
    #[test]
    fn tables() {
        let table = core::array::from_fn(|i| (i * 167 + i / 16) as u8);
        let codes: Vec<u8> = (0..700).map(|i| (i * 73) as u8).collect();
        for (len, gap) in (1..200).map(|len| (len, len % 3)) {
            let stride = len + gap;
            let rows = codes.len() / len;
            let mut found = alloc::vec![1; rows * stride];
            lookup(&table, (&codes, len), (&mut found, stride));
            for (x, y) in codes.chunks_exact(len).zip(found.chunks_exact(stride)) {
                assert!(y.iter().zip(x).all(|(&y, &x)| y == table[x as usize]), "{len}");
                assert!(y[len..].iter().all(|&y| y == 1), "{len}");
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
                    let to = &mut narrow[head..][..floats.len()];
                    with_vector!(isa, v => v.run(ToF16 { v, from: &floats, to: &mut *to, non_temporal }));
                    for (x, found) in floats.iter().zip(to) {
                        assert!(same(found, &f16::from_f32(*x).to_bits()), "{isa:?}: {x:e} gives {found:#x}");
                    }
                });
            }
            let mut wide = alloc::vec![0.0; halves.len()];
            with_vector!(isa, v => v.run(FromF16 { v, from: &halves, to: &mut wide }));
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
