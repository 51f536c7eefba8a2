//! Float types: `f32`, `f64`, `f16` and `bf16` for tensors, `f32` and `f64` for computing.

use core::fmt::Debug;
use core::ops::{Add, Div, Mul, Sub};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{DType, MaybeSerde};
use crate::simd::{self, Task};

/// A float type of tensors: `f32`, `f64`, [`half::f16`] or [`half::bf16`]. Sealed.
///
/// Formulas on half-precision values are computed in `f32`: inputs are widened, which is exact, and results are rounded
/// to nearest, ties to even.
pub trait Float: Widen + Copy + Default + Debug + PartialEq + PartialOrd + Send + Sync + MaybeSerde + 'static {
    /// The name of the type at run time.
    const DTYPE: DType;
    /// Converts to `f32`, rounding to nearest, ties to even.
    fn to_f32(self) -> f32;
    /// Converts to `f64`. Exact.
    fn to_f64(self) -> f64;
    /// Converts from `f32`, rounding to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
    /// Converts from `f64`, rounding once to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
}

/// The private part of [`Float`]: conversion to the type that formulas are computed in.
pub trait Widen: Sized {
    /// `f64` for `f64`, otherwise `f32`.
    type Compute: Compute;
    /// Converts to the compute type. Exact.
    fn widen(self) -> Self::Compute;
    /// Widens each value, up to the length of the shorter slice.
    fn widen_slice(from: &[Self], to: &mut [Self::Compute]);
    /// Rounds each value to the nearest of this type, ties to even, up to the length of the shorter slice.
    fn round_slice(from: &[Self::Compute], to: &mut [Self]);
    /// Returns the slice itself if this is the compute type.
    fn as_compute(values: &[Self]) -> Option<&[Self::Compute]>;
    /// Same as [`as_compute`](Self::as_compute), mutable.
    fn as_compute_mut(values: &mut [Self]) -> Option<&mut [Self::Compute]>;
    /// Returns the slice itself if it holds `f32`.
    fn as_f32(values: &[Self]) -> Option<&[f32]>;
    /// Returns the value, or 0 if `condition` is false, without a branch.
    fn only_if(self, condition: bool) -> Self;
}

/// `f32` or `f64`, in which formulas are computed.
pub trait Compute:
    Float + Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const HALF: Self;

    fn from_float<F: Float>(value: F) -> Self;
    fn from_i32(value: i32) -> Self;
    fn from_i64(value: i64) -> Self;
    fn to_float<F: Float>(self) -> F;
    /// Truncates toward zero and saturates at the bounds of `i32`. NaN becomes 0.
    fn to_i32_saturating(self) -> i32;
    /// Rounds a value of magnitude at most 2^22 to the nearest integer, ties to even.
    fn small_to_i32(self) -> i32;
    /// [`Self::small_to_i32`] as a float. Zero has the sign plus.
    fn round_small(self) -> Self;
    /// Rounds to the nearest integer, ties to even.
    fn round_ties_even(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    /// Returns the least number greater than `self`.
    fn next_up(self) -> Self;
    /// Returns the greatest number less than `self`.
    fn next_down(self) -> Self;

    /// Rounds to the nearest integer, ties away from zero.
    ///
    /// Adding one half before rounding down would fail just below a tie, so the exact remainder identifies ties.
    #[inline(always)]
    fn round_ties_away(self) -> Self {
        let even = self.round_ties_even();
        let tie_toward_zero = self - even == Self::HALF.copysign(self);
        if tie_toward_zero { even + Self::ONE.copysign(self) } else { even }
    }
}

macro_rules! compute {
    ($t:ident, $bits:ident, $int:ident, $from:ident, $into:ident, $mantissa:literal) => {
        const _: () = {
            /// One ULP of it is 1. So adding it to a small number rounds to an integer, which the low bits hold.
            const SHIFT: $t = 1.5 * (1u64 << $mantissa) as $t;
            impl Compute for $t {
                const ZERO: Self = 0.0;
                const ONE: Self = 1.0;
                const HALF: Self = 0.5;
                #[inline(always)]
                fn from_float<F: Float>(value: F) -> Self {
                    value.$from()
                }
                #[inline(always)]
                fn from_i32(value: i32) -> Self {
                    value as $t
                }
                #[inline(always)]
                fn from_i64(value: i64) -> Self {
                    value as $t
                }
                #[inline(always)]
                fn to_float<F: Float>(self) -> F {
                    F::$into(self)
                }
                #[inline(always)]
                fn to_i32_saturating(self) -> i32 {
                    self as i32
                }
                #[inline(always)]
                fn small_to_i32(self) -> i32 {
                    ((self + SHIFT).to_bits() as $int).wrapping_sub(SHIFT.to_bits() as $int) as i32
                }
                #[inline(always)]
                fn round_small(self) -> Self {
                    (self + SHIFT) - SHIFT
                }
                #[inline(always)]
                fn round_ties_even(self) -> Self {
                    // Needs neither `std` nor a rounding instruction.
                    const SHIFT: $t = (1u64 << $mantissa) as $t;
                    let magnitude = self.abs();
                    let rounded = (magnitude + SHIFT) - SHIFT;
                    let rounded = if magnitude < SHIFT { rounded } else { magnitude };
                    rounded.copysign(self)
                }
                #[inline(always)]
                fn copysign(self, sign: Self) -> Self {
                    self.copysign(sign)
                }
                #[inline(always)]
                fn next_up(self) -> Self {
                    self.next_up()
                }
                #[inline(always)]
                fn next_down(self) -> Self {
                    self.next_down()
                }
            }
        };
    };
}
compute!(f32, u32, i32, to_f32, from_f32, 23);
compute!(f64, u64, i64, to_f64, from_f64, 52);

macro_rules! floats {
    ($($t:ident $bits:ident $dtype:ident via $compute:ident $in_place:ident $as_f32:ident: $widen:expr, $to_f32:expr, $to_f64:expr, $from_f32:expr, $from_f64:expr $(, $slices:item)*;)*) => {$(
        impl Widen for $t {
            type Compute = $compute;
            #[inline(always)]
            fn widen(self) -> $compute { $widen(self) }
            fn as_compute(values: &[Self]) -> Option<&[$compute]> { $in_place(values) }
            fn as_compute_mut(values: &mut [Self]) -> Option<&mut [$compute]> { $in_place(values) }
            fn as_f32(values: &[Self]) -> Option<&[f32]> { $as_f32(values) }
            #[inline(always)]
            fn only_if(self, condition: bool) -> Self { $t::from_bits(self.to_bits() & (condition as $bits).wrapping_neg()) }
            $($slices)*
        }
        impl Float for $t {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn to_f32(self) -> f32 { $to_f32(self) }
            #[inline(always)]
            fn to_f64(self) -> f64 { $to_f64(self) }
            #[inline(always)]
            fn from_f32(value: f32) -> Self { $from_f32(value) }
            #[inline(always)]
            fn from_f64(value: f64) -> Self { $from_f64(value) }
        }
    )*};
}
floats! {
    f32 u32 F32 via f32 Some Some: |x| x, |x| x, |x| x as f64, |x| x, |x| x as f32,
        fn round_slice(from: &[f32], to: &mut [Self]) { to.iter_mut().zip(from).for_each(|(to, &from)| *to = from); },
        fn widen_slice(from: &[Self], to: &mut [f32]) { to.iter_mut().zip(from).for_each(|(to, &from)| *to = from); };
    f64 u64 F64 via f64 Some other_type: |x| x, |x| x as f32, |x| x, |x| x as f64, |x| x,
        fn round_slice(from: &[f64], to: &mut [Self]) { to.iter_mut().zip(from).for_each(|(to, &from)| *to = from); },
        fn widen_slice(from: &[Self], to: &mut [f64]) { to.iter_mut().zip(from).for_each(|(to, &from)| *to = from); };
    f16 u16 F16 via f32 other_type other_type: f16::to_f32, f16::to_f32, f16::to_f64, f16::from_f32, |x| f16::from_f32(to_odd_f32(x)),
        fn round_slice(from: &[f32], to: &mut [Self]) { simd::f32_to_f16(from, to.reinterpret_cast_mut()); },
        fn widen_slice(from: &[Self], to: &mut [f32]) { simd::f16_to_f32(from.reinterpret_cast(), to); };
    bf16 u16 BF16 via f32 other_type other_type: bf16::to_f32, bf16::to_f32, bf16::to_f64, bf16::from_f32, |x| bf16::from_f32(to_odd_f32(x)),
        fn round_slice(from: &[f32], to: &mut [Self]) { simd::run(RoundToBf16 { from, to: to.reinterpret_cast_mut() }); },
        fn widen_slice(from: &[Self], to: &mut [f32]) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from_bits((from.to_bits() as u32) << 16));
        };
}

/// Returns `None`: the values are not of the requested type.
fn other_type<T, U>(_: T) -> Option<U> {
    None
}

/// Rounds `x` to odd: toward zero, with the last bit set if the result is inexact.
///
/// Rounding to odd in `f32` and then to nearest in half precision equals one rounding to nearest (Boldo and Melquiond,
/// "Emulation of FMA and correctly rounded sums", 2008). `half` itself drops the low half of an `f64` before it rounds.
pub(super) fn to_odd_f32(x: f64) -> f32 {
    let nearest = x as f32;
    if nearest as f64 == x || x.is_nan() {
        return nearest;
    }
    let away = (nearest as f64).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - away as u32) | 1)
}

/// A half-precision float type: [`half::f16`] or [`half::bf16`]. Sealed.
pub trait HalfFloat: Float<Compute = f32> {
    /// The greatest finite value.
    const MAX: Self;
}

impl HalfFloat for f16 {
    const MAX: Self = f16::MAX;
}

impl HalfFloat for bf16 {
    const MAX: Self = bf16::MAX;
}

/// Rounds `f32` to bfloat16 bits, ties to even.
struct RoundToBf16<'a> {
    from: &'a [f32],
    to: &'a mut [u16],
}

impl Task for RoundToBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            let bits = from.to_bits();
            // Adds half a unit of the last place, less one bit if that place is even. A carry rounds up.
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // A NaN must not become an infinity.
            let quiet = bits >> 16 | 0x40;
            *to = if from.is_nan() { quiet } else { rounded } as u16;
        }
    }
}
