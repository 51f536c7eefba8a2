//! Accumulator → code by integer instructions only: gemmlowp's fixed-point multiplication.

use crate::element::Compute;
use crate::error::{Error, Result};

/// Rounding mode of a fixed-point multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum FixedPointRounding {
    /// Two roundings, halves up and then halves away from zero: `RoundingDivideByPOT(SRDHM(x << left, q31), right)`,
    /// with `left = max(shift, 0)` and `right = max(-shift, 0)` (gemmlowp; the reference kernels of TFLite and TFLM).
    #[default]
    Double,
    /// One rounding, halves up: `(x * q31 + (1 << (30 - shift))) >> (31 - shift)` (TFLite's `TFLITE_SINGLE_ROUNDING`).
    Single,
}

/// A fixed-point multiplier: `q31 * 2^(shift - 31)`, with `q31` in `2^30..2^31` or 0.
///
/// TFLite: `QuantizeMultiplier`, `MultiplyByQuantizedMultiplier`.
///
/// ```
/// use ndarray_quant::compat::gemmlowp::{FixedPoint, FixedPointRounding};
/// let half = FixedPoint::from_f64(0.5)?;
/// assert_eq!((half.q31(), half.shift()), (1 << 30, 0));
/// assert_eq!(half.multiply(7, FixedPointRounding::Double), 4);
/// assert_eq!(half.multiply(-7, FixedPointRounding::Single), -3);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "(i32, i32)", try_from = "(i32, i32)"))]
pub struct FixedPoint {
    q31: i32,
    shift: i32,
}

impl From<FixedPoint> for (i32, i32) {
    fn from(f: FixedPoint) -> (i32, i32) {
        (f.q31, f.shift)
    }
}

impl TryFrom<(i32, i32)> for FixedPoint {
    type Error = Error;
    fn try_from((q31, shift): (i32, i32)) -> Result<Self> {
        Self::from_parts(q31, shift)
    }
}

impl FixedPoint {
    /// Returns the nearest fixed-point multiplier: `q31 = rha(fraction * 2^31)`, where `factor = fraction * 2^shift`
    /// and `fraction` is in `0.5..1`. Factors below `2^-32` become 0.
    ///
    /// # Errors
    /// [`Error::Argument`] if the factor is negative, not finite, or at least `2^30`.
    pub fn from_f64(factor: f64) -> Result<Self> {
        if !(0.0..(1u64 << 30) as f64).contains(&factor) {
            return Err(Error::Argument {
                what: "fixed-point factor",
                expected: "a value in 0..2^30",
                found: alloc::format!("{factor}"),
            });
        }
        // A normal f64 is 1.m * 2^e; the fraction in 0.5..1 has the same mantissa and e + 1.
        if factor < f64::MIN_POSITIVE {
            return Ok(FixedPoint { q31: 0, shift: 0 });
        }
        let bits = factor.to_bits();
        let mut shift = (bits >> 52) as i32 - 1022;
        let fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1022 << 52));
        let mut q31 = Compute::round_ties_away(fraction * (1u64 << 31) as f64) as i64;
        if q31 == 1 << 31 {
            q31 /= 2;
            shift += 1;
        }
        if shift < -31 { Ok(FixedPoint { q31: 0, shift: 0 }) } else { Ok(FixedPoint { q31: q31 as i32, shift }) }
    }

    /// Creates a multiplier from its two parts, as files store them.
    ///
    /// # Errors
    /// [`Error::Argument`] if `q31` is negative or `shift` is outside `-31..=30`.
    pub fn from_parts(q31: i32, shift: i32) -> Result<Self> {
        if q31 >= 0 && (-31..=30).contains(&shift) {
            Ok(FixedPoint { q31, shift })
        } else {
            Err(Error::Argument {
                what: "fixed-point factor",
                expected: "q31 >= 0 and shift in -31..=30",
                found: alloc::format!("q31 {q31}, shift {shift}"),
            })
        }
    }

    /// [`from_parts`](Self::from_parts) without checks.
    #[inline(always)]
    pub(crate) fn of_parts(q31: i32, shift: i32) -> Self {
        FixedPoint { q31, shift }
    }

    /// Returns the significand in units of `2^-31`.
    pub fn q31(self) -> i32 {
        self.q31
    }

    /// Returns the exponent of the power of two.
    pub fn shift(self) -> i32 {
        self.shift
    }

    /// Returns `round(x * q31 * 2^(shift - 31))`, saturating at the bounds of `i32`.
    #[inline(always)]
    pub fn multiply(self, x: i32, rounding: FixedPointRounding) -> i32 {
        match rounding {
            FixedPointRounding::Double => {
                let (left, right) = (self.shift.max(0), (-self.shift).max(0));
                // C++ wraps here. No accumulator that large is near a code, so this saturates: to the limit with all
                // low bits set, without branches, so that it vectorizes.
                let limit = i32::MAX >> left;
                let low_bits = -((x > limit) as i32) & ((1u32 << left) - 1) as i32;
                let shifted = x.clamp(!limit, limit) << left | low_bits;
                // `q31` is not negative, so the product cannot saturate.
                Self::rounding_divide_by_pot(rounding_doubling_high_mul(shifted, self.q31), right)
            }
            FixedPointRounding::Single => {
                let right = 31 - self.shift;
                let product = x as i64 * self.q31 as i64 + (1 << (right - 1));
                (product >> right).clamp(i32::MIN as i64, i32::MAX as i64) as i32
            }
        }
    }

    /// Returns `round(a * b / 2^31)`, halves up; the only overflow, `i32::MIN` squared, saturates.
    ///
    /// gemmlowp: `SaturatingRoundingDoublingHighMul`; Arm: `SQRDMULH`.
    ///
    /// ```
    /// use ndarray_quant::compat::gemmlowp::FixedPoint;
    /// let product = FixedPoint::saturating_rounding_doubling_high_mul;
    /// assert_eq!((product(5, 1 << 30), product(-5, 1 << 30)), (3, -2)); // 2.5 and -2.5
    /// ```
    #[inline(always)]
    pub fn saturating_rounding_doubling_high_mul(a: i32, b: i32) -> i32 {
        if a == i32::MIN && b == i32::MIN { i32::MAX } else { rounding_doubling_high_mul(a, b) }
    }

    /// Returns `round(x / 2^exponent)`, halves away from zero. `exponent` is clamped to `0..=31`.
    ///
    /// gemmlowp: `RoundingDivideByPOT`.
    ///
    /// ```
    /// use ndarray_quant::compat::gemmlowp::FixedPoint;
    /// let quotient = FixedPoint::rounding_divide_by_pot;
    /// assert_eq!((quotient(5, 1), quotient(-5, 1)), (3, -3)); // 2.5 and -2.5
    /// ```
    #[inline(always)]
    pub fn rounding_divide_by_pot(x: i32, exponent: i32) -> i32 {
        let exponent = exponent.clamp(0, 31);
        let mask = (1u32 << exponent).wrapping_sub(1) as i32;
        let remainder = x & mask;
        let threshold = (mask >> 1) + (x < 0) as i32;
        (x >> exponent) + (remainder > threshold) as i32
    }
}

/// Same as [`FixedPoint::saturating_rounding_doubling_high_mul`] for operands that are not both `i32::MIN`.
///
/// gemmlowp adds a nudge by sign and divides toward zero, which equals one arithmetic shift.
#[inline(always)]
fn rounding_doubling_high_mul(a: i32, b: i32) -> i32 {
    ((a as i64 * b as i64 + (1 << 30)) >> 31) as i32
}
