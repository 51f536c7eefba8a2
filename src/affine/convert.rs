//! Quantize and dequantize one value.

use core::marker::PhantomData;

use super::Codes;
use super::reciprocal::{Division, ExactReciprocal, RoundedReciprocal};
use crate::element::{Code, Compute};

/// The rounding mode of a convention. A type, so that loops are compiled for each.
pub(crate) trait Rounding: Copy + Send + Sync {
    /// True if halves round away from zero. Otherwise they round to even.
    const HALVES_AWAY: bool;
    /// `x / scale` without a division.
    type Division: Division;
    /// Returns the factor of [`Self::quotient`]: the scale or its reciprocal.
    fn factor<C: Compute>(scale: C) -> C;
    /// Returns `x / scale`.
    fn quotient<C: Compute>(x: C, factor: C) -> C;
}

/// True division, halves to even.
#[derive(Clone, Copy)]
pub(crate) struct Onnx;
/// Multiplication by the rounded reciprocal, halves to even.
#[derive(Clone, Copy)]
pub(crate) struct Torch;
/// True division, halves away from zero.
#[derive(Clone, Copy)]
pub(crate) struct TfLite;

macro_rules! rounding_mode {
    ($name:ident, away: $away:literal, $division:ident, |$scale:ident| $factor:expr, |$x:ident, $f:ident| $quotient:expr) => {
        impl Rounding for $name {
            const HALVES_AWAY: bool = $away;
            type Division = $division;
            #[inline(always)]
            fn factor<C: Compute>($scale: C) -> C {
                $factor
            }
            #[inline(always)]
            fn quotient<C: Compute>($x: C, $f: C) -> C {
                $quotient
            }
        }
    };
}
rounding_mode!(Onnx, away: false, ExactReciprocal, |scale| scale, |x, f| x / f);
rounding_mode!(Torch, away: false, RoundedReciprocal, |scale| C::ONE / scale, |x, f| x * f);
rounding_mode!(TfLite, away: true, ExactReciprocal, |scale| scale, |x, f| x / f);

/// Evaluates `$body` with the type `$rounding` bound to the rounding mode of a convention.
macro_rules! with_rounding {
    ($convention:expr, $rounding:ident => $body:expr) => {
        match $convention {
            $crate::affine::Convention::Onnx => {
                type $rounding = $crate::affine::rounding::Onnx;
                $body
            }
            $crate::affine::Convention::Torch => {
                type $rounding = $crate::affine::rounding::Torch;
                $body
            }
            $crate::affine::Convention::TfLite => {
                type $rounding = $crate::affine::rounding::TfLite;
                $body
            }
        }
    };
}
pub(crate) use with_rounding;

/// Quantizes with one scale and zero point: `clamp(round(x / scale) + zero_point)`.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer<Z, C, R> {
    pub(super) factor: C,
    zero_point: i32,
    codes: Codes,
    /// Bounds of the quotient before rounding: code bounds less the zero point.
    pub(super) low: C,
    pub(super) high: C,
    rounding: PhantomData<(Z, R)>,
}

impl<Z: Code, C: Compute, R: Rounding> Quantizer<Z, C, R> {
    #[inline(always)]
    pub(crate) fn new(scale: C, zero_point: i32, codes: Codes) -> Self {
        let low = C::from_i32(codes.min.wrapping_sub(zero_point));
        let high = C::from_i32(codes.max.wrapping_sub(zero_point));
        Quantizer { factor: R::factor(scale), zero_point, codes, low, high, rounding: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn quantize(&self, x: C) -> Z {
        let quotient = quotient::<C, R>(x, self.factor);
        if Z::WIDE {
            // Codes wider than a float's mantissa: the zero point is added in the float, as PyTorch does.
            let rounded = if R::HALVES_AWAY { quotient.round_ties_away() } else { quotient.round_ties_even() };
            let code = (rounded + C::from_i32(self.zero_point)).to_i32_saturating();
            return Z::from_i32(code.clamp(self.codes.min, self.codes.max));
        }
        Z::from_i32(clamp_to_code(quotient, self.low, self.high, R::HALVES_AWAY) + self.zero_point)
    }
}

/// Returns `x / scale`, 0 for a NaN.
#[inline(always)]
pub(crate) fn quotient<C: Compute, R: Rounding>(x: C, factor: C) -> C {
    let quotient = R::quotient(x, factor);
    #[allow(clippy::eq_op, reason = "only a NaN differs from itself")]
    if quotient == quotient { quotient } else { C::ZERO }
}

/// Returns `clamp(round(x), low, high)` for integers `low` and `high` of at most 17 bits. A NaN gives `low`.
///
/// Clamping before rounding gives the same result for integer bounds, and keeps the rounding in range.
#[inline(always)]
pub(crate) fn clamp_to_code<C: Compute>(x: C, low: C, high: C, away: bool) -> i32 {
    round_to_code(clamp(x, low, high), away)
}

/// Returns `min(max(x, low), high)`. A NaN gives `low`.
#[inline(always)]
pub(super) fn clamp<C: Compute>(x: C, low: C, high: C) -> C {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// Rounds a number of at most 17 bits to an integer, halves away from zero if `away`, otherwise to even.
#[inline(always)]
pub(super) fn round_to_code<C: Compute>(x: C, away: bool) -> i32 {
    if away { round_small(x, away).small_to_i32() } else { x.small_to_i32() }
}

/// [`round_to_code`] as a float. Zero has the sign plus.
#[inline(always)]
fn round_small<C: Compute>(x: C, away: bool) -> C {
    let even = x.round_small();
    // Adding one half before rounding down would fail just below a tie, so the exact remainder identifies ties.
    let tie_toward_zero = away && x - even == C::HALF.copysign(x);
    if tie_toward_zero { even + C::ONE.copysign(x) } else { even }
}

/// Returns `(code - zero_point) * scale`: the difference is exact, the product rounds once.
#[inline(always)]
pub(crate) fn dequantize<Z: Code, C: Compute>(code: Z, zero_point: i32, scale: C) -> C {
    let difference = if Z::WIDE {
        C::from_i64(code.to_i32() as i64 - zero_point as i64)
    } else {
        C::from_i32(code.to_i32() - zero_point)
    };
    dequantize_centred(difference, scale)
}

/// Returns `centred * scale` for a centred code `q - zero_point`.
#[inline(always)]
pub(crate) fn dequantize_centred<C: Compute>(centred: C, scale: C) -> C {
    centred * scale
}

/// [`dequantize`] with one scale and zero point.
#[derive(Clone, Copy)]
pub(crate) struct Dequantizer<Z, C> {
    scale: C,
    zero_point: i32,
    code: PhantomData<Z>,
}

impl<Z: Code, C: Compute> Dequantizer<Z, C> {
    #[inline(always)]
    pub(crate) fn new(scale: C, zero_point: i32, (): ()) -> Self {
        Self { scale, zero_point, code: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn dequantize(self, code: Z) -> C {
        dequantize(code, self.zero_point, self.scale)
    }
}

/// Fake-quantizes: [`Quantizer`], then [`dequantize`].
#[derive(Clone, Copy)]
pub(crate) struct FakeQuantizer<Z, C, R> {
    pub(super) quantizer: Quantizer<Z, C, R>,
    pub(super) scale: C,
}

impl<Z: Code, C: Compute, R: Rounding> FakeQuantizer<Z, C, R> {
    #[inline(always)]
    pub(crate) fn new(scale: C, zero_point: i32, codes: Codes) -> Self {
        Self { quantizer: Quantizer::new(scale, zero_point, codes), scale }
    }

    #[inline(always)]
    pub(crate) fn value(&self, x: C) -> C {
        if Z::WIDE {
            return dequantize(self.quantizer.quantize(x), self.quantizer.zero_point, self.scale);
        }
        dequantize_centred(self.centred(quotient::<C, R>(x, self.quantizer.factor)), self.scale)
    }

    /// Returns the centred code of a quotient.
    #[inline(always)]
    pub(super) fn centred(&self, quotient: C) -> C {
        round_small(clamp(quotient, self.quantizer.low, self.quantizer.high), R::HALVES_AWAY)
    }
}
