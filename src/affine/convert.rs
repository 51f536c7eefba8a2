//! Real → code and code → real.

use super::{Codes, Convention};
use crate::element::{Code, Compute, Element};

/// The parameters of one block, made ready to quantize with.
///
/// `quantize` is `clamp(round(x / scale) + zero_point)`, see [`Convention`] for `round` and the division.
#[derive(Clone, Copy)]
pub(crate) struct Affine<C> {
    /// The scale, or its reciprocal in PyTorch's convention.
    factor: C,
    convention: Convention,
    zero_point: i32,
    codes: Codes,
    /// The codes less the zero point: what the quotient is clamped to before it is rounded.
    low: C,
    high: C,
}

impl<C: Compute> Affine<C> {
    #[inline(always)]
    pub(crate) fn new(scale: C, zero_point: i32, codes: Codes, convention: Convention) -> Self {
        let factor = if convention == Convention::Torch { C::ONE / scale } else { scale };
        let low = C::from_i64(codes.min as i64 - zero_point as i64);
        let high = C::from_i64(codes.max as i64 - zero_point as i64);
        Affine { factor, convention, zero_point, codes, low, high }
    }

    #[inline(always)]
    pub(crate) fn quantize<T: Element>(&self, x: C) -> T::Code {
        match self.convention {
            Convention::Onnx => self.round::<T>(x / self.factor, false),
            Convention::Torch => self.round::<T>(x * self.factor, false),
            Convention::TfLite => self.round::<T>(x / self.factor, true),
        }
    }

    #[inline(always)]
    fn round<T: Element>(&self, quotient: C, away: bool) -> T::Code {
        #[allow(clippy::eq_op, reason = "only a NaN differs from itself")]
        let quotient = if quotient == quotient { quotient } else { C::ZERO };
        if T::BITS > 16 {
            // Codes this wide do not fit a float's mantissa: the sum is formed in the float, as PyTorch does it.
            let rounded = if away { quotient.round_ties_away() } else { quotient.round_ties_even() };
            let code = (rounded + C::from_i32(self.zero_point)).to_i32_saturating();
            return T::Code::from_i32(code.clamp(self.codes.min, self.codes.max));
        }
        let code = clamp_to_code(quotient, self.low, self.high, away) + self.zero_point;
        T::Code::from_i32(code)
    }
}

/// `clamp(round(x), low, high)` for integers `low` and `high` of at most 17 bits. A NaN gives `low`.
///
/// Clamping to integers first gives the same result as clamping last, and keeps the rounding in range.
#[inline(always)]
pub(crate) fn clamp_to_code<C: Compute>(x: C, low: C, high: C, away: bool) -> i32 {
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    if away { x.round_ties_away().small_to_i32() } else { x.small_to_i32() }
}

/// `(code - zero_point) * scale`: the difference is exact, the product rounds once.
#[inline(always)]
pub(crate) fn dequantize<T: Element, C: Compute>(code: T::Code, zero_point: i32, scale: C) -> C {
    let difference = if T::BITS > 16 {
        C::from_i64(code.to_i32() as i64 - zero_point as i64)
    } else {
        C::from_i32(code.to_i32() - zero_point)
    };
    difference * scale
}
