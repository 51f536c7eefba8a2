//! Floats of at most 8 bits: their layouts, and one conversion to and from `f32` for all of them.

use core::fmt;

use super::float::{Compute, to_odd_f32};
use super::sealed::Sealed;
use super::{DType, MaybeSerde};

/// A float code: a sign, a biased exponent and a mantissa in at most 8 bits. Sealed.
///
/// With `s`, `e` and `m` the three fields and `M` bits of mantissa, a code has the value
///
/// ```text
/// (-1)^s * 2^(e - BIAS) * (1 + m / 2^M)   if e > 0
/// (-1)^s * 2^(1 - BIAS) * m / 2^M         if e = 0, the subnormal numbers
/// ```
///
/// unless it is an infinity or a NaN. The names of the types spell the layout: `E4M3` has 4 bits of exponent and 3 of
/// mantissa, `F` only finite numbers beside NaN, `N` a NaN in its own place, and `UZ` no negative zero.
///
/// | type | ONNX, ml_dtypes | bias | greatest | smallest | infinity | NaN |
/// |---|---|---|---|---|---|---|
/// | [`F8E4M3FN`] | `FLOAT8E4M3FN`, `float8_e4m3fn` | 7 | 448 | 2^-9 | no | `0x7f`, `0xff` |
/// | [`F8E5M2`] | `FLOAT8E5M2`, `float8_e5m2` | 15 | 57344 | 2^-16 | `0x7c`, `0xfc` | `0x7d..=0x7f`, `0xfd..=0xff` |
/// | [`F8E4M3FNUZ`] | `FLOAT8E4M3FNUZ`, `float8_e4m3fnuz` | 8 | 240 | 2^-10 | no | `0x80` |
/// | [`F8E5M2FNUZ`] | `FLOAT8E5M2FNUZ`, `float8_e5m2fnuz` | 16 | 57344 | 2^-17 | no | `0x80` |
/// | [`F6E2M3FN`] | `float6_e2m3fn` | 1 | 7.5 | 0.125 | no | no |
/// | [`F6E3M2FN`] | `float6_e3m2fn` | 3 | 28 | 0.0625 | no | no |
/// | [`F4E2M1FN`] | `FLOAT4E2M1`, `float4_e2m1fn` | 1 | 6 | 0.5 | no | no |
///
/// Sources: Micikevicius et al., "FP8 Formats for Deep Learning", 2022; Noune et al., "8-bit Numerical Formats for Deep
/// Neural Networks", 2022 (FNUZ); OCP Microscaling Formats (MX) Specification 1.0, 2023 (6 and 4 bits).
pub trait Minifloat: Sealed + Copy + Default + fmt::Debug + Eq + Send + Sync + MaybeSerde + 'static {
    /// The name of the type at run time.
    const DTYPE: DType;
    /// The size of a code in bits.
    const BITS: u32;
    /// The bits of the mantissa.
    const MANTISSA_BITS: u32;
    /// The bias of the exponent.
    const BIAS: i32;
    /// The greatest finite value.
    const MAX: Self;
    /// The positive infinity, if there is one.
    const INFINITY: Option<Self>;
    /// A NaN, if there is one.
    const NAN: Option<Self>;
    /// False if the code of a negative zero is NaN.
    const NEGATIVE_ZERO: bool;

    /// Returns the code with these bits. Bits beyond `BITS` are dropped.
    fn from_bits(bits: u8) -> Self;
    /// Returns the bits, in the low bits of a byte.
    fn to_bits(self) -> u8;

    /// Rounds to the nearest value, ties to even. A magnitude that rounds beyond `MAX` becomes an infinity, NaN where the
    /// type has no infinity, and `MAX` where it has neither.
    ///
    /// NaN stays NaN. Where the type has no NaN it becomes a zero of the other sign, as in ml_dtypes.
    fn from_f32(x: f32) -> Self {
        Self::from_bits(encode::<Self>(x, false))
    }

    /// Same as [`from_f32`](Self::from_f32), but a magnitude that rounds beyond `MAX`, also infinity, becomes `MAX`.
    fn from_f32_saturating(x: f32) -> Self {
        Self::from_bits(encode::<Self>(x, true))
    }

    /// Returns the value. Exact.
    fn to_f32(self) -> f32 {
        decode::<Self>(self.to_bits())
    }

    /// Returns whether the code is NaN.
    fn is_nan(self) -> bool {
        self.to_f32().is_nan()
    }
}

macro_rules! minifloats {
    ($($(#[$doc:meta])* $t:ident: $bits:literal bits, mantissa $mantissa:literal, bias $bias:literal, max $max:literal,
        infinity $infinity:expr, nan $nan:expr, negative zero $zero:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Codes are equal if their bits are. See [`Minifloat`] for the value of a code.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(into = "u8", from = "u8"))]
        pub struct $t(u8);
        impl Sealed for $t {}
        impl Minifloat for $t {
            const DTYPE: DType = DType::$t;
            const BITS: u32 = $bits;
            const MANTISSA_BITS: u32 = $mantissa;
            const BIAS: i32 = $bias;
            const MAX: Self = $t($max);
            const INFINITY: Option<Self> = match $infinity { Some(bits) => Some($t(bits)), None => None };
            const NAN: Option<Self> = match $nan { Some(bits) => Some($t(bits)), None => None };
            const NEGATIVE_ZERO: bool = $zero;
            #[inline(always)]
            fn from_bits(bits: u8) -> Self { $t(bits & (0xff >> (8 - $bits))) }
            #[inline(always)]
            fn to_bits(self) -> u8 { self.0 }
        }
        impl From<u8> for $t {
            /// Returns the code with these bits. Bits beyond its size are dropped.
            fn from(bits: u8) -> Self { Self::from_bits(bits) }
        }
        impl From<$t> for u8 {
            fn from(code: $t) -> u8 { code.0 }
        }
        impl From<$t> for f32 {
            fn from(code: $t) -> f32 { code.to_f32() }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&self.to_f32(), f) }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.to_f32(), f) }
        }
    )*};
}
// The annotated `None` is the type of a literal that stands for no bits.
minifloats! {
    /// 8-bit float with 4 bits of exponent and 3 of mantissa, up to 448, with NaN and without infinities: weights and
    /// activations.
    F8E4M3FN: 8 bits, mantissa 3, bias 7, max 0x7e, infinity None::<u8>, nan Some(0x7f), negative zero true;
    /// 8-bit float with 5 bits of exponent and 2 of mantissa, up to 57344, with infinities as IEEE 754 has them: gradients.
    F8E5M2: 8 bits, mantissa 2, bias 15, max 0x7b, infinity Some(0x7c), nan Some(0x7e), negative zero true;
    /// 8-bit float with 4 bits of exponent and 3 of mantissa, up to 240, with one NaN in the place of the negative zero.
    F8E4M3FNUZ: 8 bits, mantissa 3, bias 8, max 0x7f, infinity None::<u8>, nan Some(0x80), negative zero false;
    /// 8-bit float with 5 bits of exponent and 2 of mantissa, up to 57344, with one NaN in the place of the negative zero.
    F8E5M2FNUZ: 8 bits, mantissa 2, bias 16, max 0x7f, infinity None::<u8>, nan Some(0x80), negative zero false;
    /// 6-bit float with 2 bits of exponent and 3 of mantissa, up to 7.5. All codes are finite.
    F6E2M3FN: 6 bits, mantissa 3, bias 1, max 0x1f, infinity None::<u8>, nan None::<u8>, negative zero true;
    /// 6-bit float with 3 bits of exponent and 2 of mantissa, up to 28. All codes are finite.
    F6E3M2FN: 6 bits, mantissa 2, bias 3, max 0x1f, infinity None::<u8>, nan None::<u8>, negative zero true;
    /// 4-bit float with 2 bits of exponent and 1 of mantissa: ±0, 0.5, 1, 1.5, 2, 3, 4, 6. All codes are finite.
    F4E2M1FN: 4 bits, mantissa 1, bias 1, max 0x7, infinity None::<u8>, nan None::<u8>, negative zero true;
}

/// The number of mantissa bits of an `f32`.
const F32_MANTISSA: u32 = 23;

/// Returns the bits of the power of two `2^exponent` as an `f32`.
const fn power_of_two(exponent: i32) -> u32 {
    ((127 + exponent) as u32) << F32_MANTISSA
}

/// Returns the code nearest to `x`, ties to even. Without a branch, so that loops are vectorized.
#[inline(always)]
pub(crate) fn encode<T: Minifloat>(x: f32, saturate: bool) -> u8 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Adds half a unit of the last place, less one bit if that place is even. A carry moves on to the next exponent.
    let shift = F32_MANTISSA - T::MANTISSA_BITS;
    let rounded = (magnitude + ((1 << (shift - 1)) - 1) + (magnitude >> shift & 1)) >> shift;
    let normal = rounded.wrapping_sub(power_of_two(-T::BIAS) >> shift);
    // One unit of this float's last place is the smallest subnormal, so the addition rounds to multiples of it.
    let unit = power_of_two(1 - T::BIAS - T::MANTISSA_BITS as i32 + F32_MANTISSA as i32);
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits(unit)).to_bits().wrapping_sub(unit);
    let code = if magnitude < power_of_two(1 - T::BIAS) { subnormal } else { normal };
    let max = T::MAX.to_bits() as u32;
    let nan = T::NAN.map_or(0, |nan| nan.to_bits() as u32);
    let beyond = match (saturate, T::INFINITY, T::NAN) {
        (false, Some(infinity), _) => infinity.to_bits() as u32,
        (false, None, Some(_)) => nan,
        _ => max,
    };
    let code = if code > max { beyond } else { code };
    let code = if x.is_nan() { nan } else { code };
    let sign = (bits >> 31) << (T::BITS - 1);
    // Without a negative zero, only numbers other than 0 have a sign.
    let sign = if T::NEGATIVE_ZERO || (code != 0 && code != nan) { sign } else { 0 };
    // A NaN without a code becomes a zero of the other sign, as in ml_dtypes and in the node tests of ONNX.
    let flip = if T::NAN.is_none() && x.is_nan() { 1 << (T::BITS - 1) } else { 0 };
    (code | sign ^ flip) as u8
}

/// Returns the value of a code. Without a branch, so that loops are vectorized.
#[inline(always)]
pub(crate) fn decode<T: Minifloat>(code: u8) -> f32 {
    let code = code as u32;
    let magnitude = code & ((1 << (T::BITS - 1)) - 1);
    let shift = F32_MANTISSA - T::MANTISSA_BITS;
    let normal = (magnitude << shift).wrapping_add(power_of_two(-T::BIAS));
    let unit = f32::from_bits(power_of_two(1 - T::BIAS - T::MANTISSA_BITS as i32));
    let subnormal = (magnitude as f32 * unit).to_bits();
    let value = if magnitude >> T::MANTISSA_BITS == 0 { subnormal } else { normal };
    let is_infinity = T::INFINITY.is_some_and(|infinity| infinity.to_bits() as u32 == magnitude);
    let is_nan = if T::NEGATIVE_ZERO {
        magnitude > T::MAX.to_bits() as u32
    } else {
        T::NAN.is_some_and(|nan| nan.to_bits() as u32 == code)
    };
    let value = if is_nan { f32::NAN.to_bits() } else { value };
    let value = if is_infinity { f32::INFINITY.to_bits() } else { value };
    f32::from_bits(value | (code >> (T::BITS - 1)) << 31)
}

/// [`encode`] of a value in the type that formulas are computed in. Rounds once, also from `f64`.
#[inline(always)]
pub(crate) fn encode_compute<T: Minifloat, C: Compute>(x: C, saturate: bool) -> u8 {
    let x = if const { size_of::<C>() == 4 } { x.to_f32() } else { to_odd_f32(x.to_f64()) };
    encode::<T>(x, saturate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use alloc::vec::Vec;

    /// The value of a code by the formula, in `f64`.
    fn value<T: Minifloat>(code: u8) -> f64 {
        let magnitude = magnitude::<T>(code & ((1 << (T::BITS - 1)) - 1));
        if code >> (T::BITS - 1) == 1 { -magnitude } else { magnitude }
    }

    /// The value of exponent and mantissa, also of an exponent beyond the last one.
    fn magnitude<T: Minifloat>(fields: u8) -> f64 {
        let (exponent, mantissa) = ((fields >> T::MANTISSA_BITS) as i32, fields & ((1 << T::MANTISSA_BITS) - 1));
        let fraction = mantissa as f64 / (1 << T::MANTISSA_BITS) as f64;
        match exponent {
            0 => 2f64.powi(1 - T::BIAS) * fraction,
            e => 2f64.powi(e - T::BIAS) * (1.0 + fraction),
        }
    }

    /// Finite codes of one sign, in ascending order of magnitude.
    fn finite<T: Minifloat>() -> Vec<u8> {
        (0..=T::MAX.to_bits()).collect()
    }

    /// The nearest finite code by search, ties to even; `None` beyond the last one.
    fn nearest<T: Minifloat>(x: f64) -> Option<u8> {
        let codes = finite::<T>();
        // The number that would follow the greatest one decides what rounds to it.
        let limit = (magnitude::<T>(T::MAX.to_bits()) + magnitude::<T>(T::MAX.to_bits() + 1)) / 2.0;
        let tie_is_over = T::MAX.to_bits() & 1 == 1;
        if x.abs() > limit || x.abs() == limit && tie_is_over {
            return None;
        }
        let error = |code: u8| (value::<T>(code) - x.abs()).abs();
        let best = codes.iter().map(|&code| error(code)).fold(f64::INFINITY, f64::min);
        let candidates: Vec<u8> = codes.into_iter().filter(|&code| error(code) == best).collect();
        let code = candidates.iter().copied().find(|code| candidates.len() == 1 || code & 1 == 0)?;
        let signed = x.is_sign_negative() && (T::NEGATIVE_ZERO || code != 0);
        Some(code | (signed as u8) << (T::BITS - 1))
    }

    /// Every code has the value of the formula, and its value rounds to the code.
    fn all_codes<T: Minifloat>() {
        for bits in 0..=(0xffu8 >> (8 - T::BITS)) {
            let code = T::from_bits(bits);
            let magnitude = bits & (0x7f >> (8 - T::BITS));
            let is_finite = magnitude <= T::MAX.to_bits() && (T::NEGATIVE_ZERO || bits != 0x80);
            if is_finite {
                assert_eq!(code.to_f32() as f64, value::<T>(bits), "{bits:#x}");
                assert_eq!(code.to_f32().is_sign_negative(), bits >> (T::BITS - 1) == 1, "{bits:#x}");
                assert_eq!((T::from_f32(code.to_f32()), T::from_f32_saturating(code.to_f32())), (code, code));
            } else if T::INFINITY.is_some_and(|infinity| infinity.to_bits() == magnitude) {
                assert!(code.to_f32().is_infinite() && T::from_f32(code.to_f32()) == code);
            } else {
                assert!(code.is_nan() && T::from_f32(code.to_f32()).is_nan());
            }
        }
    }

    /// Ties between neighbours, and the floats next to them.
    fn ties<T: Minifloat>() {
        for code in finite::<T>() {
            let tie = ((magnitude::<T>(code) + magnitude::<T>(code + 1)) / 2.0) as f32;
            for x in [tie.next_down(), tie, tie.next_up(), -tie.next_down(), -tie, -tie.next_up()] {
                rounds::<T>(x);
            }
        }
    }

    fn rounds<T: Minifloat>(x: f32) {
        let max = T::from_bits(T::MAX.to_bits() | (x.is_sign_negative() as u8) << (T::BITS - 1));
        match nearest::<T>(x as f64) {
            Some(code) => {
                assert_eq!(T::from_f32(x).to_bits(), code, "{x}");
                assert_eq!(T::from_f32_saturating(x).to_bits(), code, "{x}");
            }
            None => {
                assert_eq!(T::from_f32_saturating(x), max, "{x}");
                let beyond = T::from_f32(x);
                match (T::INFINITY, T::NAN) {
                    (Some(_), _) => assert_eq!(beyond.to_f32(), f32::INFINITY.copysign(x)),
                    (None, Some(_)) => assert!(beyond.is_nan(), "{x}"),
                    (None, None) => assert_eq!(beyond, max, "{x}"),
                }
            }
        }
    }

    macro_rules! each {
        ($f:ident $(, $x:expr)?) => {
            $f::<F8E4M3FN>($($x)?); $f::<F8E5M2>($($x)?); $f::<F8E4M3FNUZ>($($x)?); $f::<F8E5M2FNUZ>($($x)?);
            $f::<F6E2M3FN>($($x)?); $f::<F6E3M2FN>($($x)?); $f::<F4E2M1FN>($($x)?);
        };
    }

    #[test]
    fn all_codes_have_the_value_of_the_formula() {
        each!(all_codes);
    }

    #[test]
    fn ties_round_to_even() {
        each!(ties);
        each!(rounds, 0.0);
        each!(rounds, -0.0);
        each!(rounds, f32::MIN_POSITIVE / 4.0);
        each!(rounds, f32::MAX);
        each!(rounds, f32::INFINITY);
        each!(rounds, f32::NEG_INFINITY);
    }

    #[test]
    fn nan_stays_nan_or_becomes_zero() {
        fn nan<T: Minifloat>() {
            for x in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
                for code in [T::from_f32(x), T::from_f32_saturating(x)] {
                    let other_zero = (x.is_sign_positive() as u8) << (T::BITS - 1);
                    let expected = if T::NAN.is_some() { code.is_nan() } else { code.to_bits() == other_zero };
                    assert!(expected, "{x} {code:?}");
                }
            }
        }
        each!(nan);
    }

    proptest! {
        #[test]
        fn floats_round_to_the_nearest_code(bits in any::<u32>(), small in -20f32..20.0) {
            let any = f32::from_bits(bits);
            if !any.is_nan() {
                each!(rounds, any);
            }
            each!(rounds, small);
            each!(rounds, small.exp2());
        }

        #[test]
        fn doubles_round_once(code in 0u8..0x7e, offset in -2i32..=2) {
            let tie = (value::<F8E4M3FN>(code) + value::<F8E4M3FN>(code + 1)) / 2.0;
            let x = tie + offset as f64 * tie * f64::EPSILON;
            prop_assert_eq!(Some(encode_compute::<F8E4M3FN, f64>(x, false)), nearest::<F8E4M3FN>(x));
        }
    }
}
