//! Float → code and code → real.

use core::marker::PhantomData;

use super::Codes;
use crate::element::{Code, Compute};

/// What the conventions do differently, as types, so that each has loops of its own.
pub(crate) trait Rounding: Copy {
    /// Whether halves are rounded away from zero, and not to even.
    const HALVES_AWAY: bool;
    /// Whether the quotient is a division, rounded once.
    const DIVIDES: bool;
    /// What is kept of the scale.
    fn factor<C: Compute>(scale: C) -> C;
    /// The value in units of the scale.
    fn quotient<C: Compute>(x: C, factor: C) -> C;
}

/// True division, halves to even.
#[derive(Clone, Copy)]
pub(crate) struct Onnx;
/// Multiplication with the reciprocal, halves to even.
#[derive(Clone, Copy)]
pub(crate) struct Torch;
/// True division, halves away from zero.
#[derive(Clone, Copy)]
pub(crate) struct TfLite;

macro_rules! rule {
    ($name:ident, away: $away:literal, divides: $divides:literal, |$scale:ident| $factor:expr, |$x:ident, $f:ident| $quotient:expr) => {
        impl Rounding for $name {
            const HALVES_AWAY: bool = $away;
            const DIVIDES: bool = $divides;
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
rule!(Onnx, away: false, divides: true, |scale| scale, |x, f| x / f);
rule!(Torch, away: false, divides: false, |scale| C::ONE / scale, |x, f| x * f);
rule!(TfLite, away: true, divides: true, |scale| scale, |x, f| x / f);

/// Evaluates `$body` with `$rule` standing for the rule of a convention.
macro_rules! with_rounding {
    ($convention:expr, $rule:ident => $body:expr) => {
        match $convention {
            $crate::affine::Convention::Onnx => {
                type $rule = $crate::affine::rules::Onnx;
                $body
            }
            $crate::affine::Convention::Torch => {
                type $rule = $crate::affine::rules::Torch;
                $body
            }
            $crate::affine::Convention::TfLite => {
                type $rule = $crate::affine::rules::TfLite;
                $body
            }
        }
    };
}
pub(crate) use with_rounding;

/// The parameters of one block, made ready to quantize with: `clamp(round(x / scale) + zero_point)`.
#[derive(Clone, Copy)]
pub(crate) struct Affine<Z, C, R> {
    factor: C,
    zero_point: i32,
    codes: Codes,
    /// The codes less the zero point: what the quotient is clamped to before it is rounded.
    low: C,
    high: C,
    rule: PhantomData<(Z, R)>,
}

impl<Z: Code, C: Compute, R: Rounding> Affine<Z, C, R> {
    #[inline(always)]
    pub(crate) fn new(scale: C, zero_point: i32, codes: Codes) -> Self {
        let low = C::from_i32(codes.min.wrapping_sub(zero_point));
        let high = C::from_i32(codes.max.wrapping_sub(zero_point));
        Affine { factor: R::factor(scale), zero_point, codes, low, high, rule: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn quantize(&self, x: C) -> Z {
        let quotient = quotient::<C, R>(x, self.factor);
        if Z::WIDE {
            // Codes this wide do not fit a float's mantissa: the sum is formed in the float, as PyTorch does it.
            let rounded = if R::HALVES_AWAY { quotient.round_ties_away() } else { quotient.round_ties_even() };
            let code = (rounded + C::from_i32(self.zero_point)).to_i32_saturating();
            return Z::from_i32(code.clamp(self.codes.min, self.codes.max));
        }
        Z::from_i32(clamp_to_code(quotient, self.low, self.high, R::HALVES_AWAY) + self.zero_point)
    }
}

/// The value in units of the scale; 0 for a NaN.
#[inline(always)]
pub(crate) fn quotient<C: Compute, R: Rounding>(x: C, factor: C) -> C {
    let quotient = R::quotient(x, factor);
    #[allow(clippy::eq_op, reason = "only a NaN differs from itself")]
    if quotient == quotient { quotient } else { C::ZERO }
}

/// `clamp(round(x), low, high)` for integers `low` and `high` of at most 17 bits. A NaN gives `low`.
///
/// Clamping to integers first gives the same result as clamping last, and keeps the rounding in range.
#[inline(always)]
pub(crate) fn clamp_to_code<C: Compute>(x: C, low: C, high: C, away: bool) -> i32 {
    round_to_code(clamp(x, low, high), away)
}

/// `x` or the limit that it is beyond. A NaN gives `low`.
#[inline(always)]
pub(super) fn clamp<C: Compute>(x: C, low: C, high: C) -> C {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// The nearest integer of a number of at most 17 bits.
#[inline(always)]
pub(super) fn round_to_code<C: Compute>(x: C, away: bool) -> i32 {
    if away { x.round_ties_away().small_to_i32() } else { x.small_to_i32() }
}

/// `(code - zero_point) * scale`: the difference is exact, the product rounds once.
#[inline(always)]
pub(crate) fn dequantize<Z: Code, C: Compute>(code: Z, zero_point: i32, scale: C) -> C {
    let difference = if Z::WIDE {
        C::from_i64(code.to_i32() as i64 - zero_point as i64)
    } else {
        C::from_i32(code.to_i32() - zero_point)
    };
    real(difference, scale)
}

/// The real value of a difference of codes.
#[inline(always)]
pub(crate) fn real<C: Compute>(steps: C, scale: C) -> C {
    steps * scale
}
