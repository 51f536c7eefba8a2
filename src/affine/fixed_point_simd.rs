//! Fixed-point multiplication for vectorized loops: the results of [`FixedPoint::multiply`] by a product, a sum and a
//! shift.
//!
//! Let `q` be the significand, at least `2^30`, `r >= 0` the shift to the right, and `h = 2^r / 2`, rounded down. Then
//! `Double` is `floor((floor((x * q + 2^30) / 2^31) + h - n) / 2^r)`, where `n` is 1 if `x < 0` and `r > 0`: halves go
//! away from zero. (For `x = -1` and `q = 2^30` the inner quotient is 0 and not negative; with `n` or without, the
//! outer one is 0 too.) Floors nest, so it is `floor((x * q + 2^30 + (h - n) * 2^31) / 2^(31 + r))`. `Single` rounds
//! once, that is without `2^30` and `n` if `r > 0`. Both shift to the left by shifting less to the right.

use super::{Codes, FixedPoint, FixedPointRounding};

/// Requantizes in integers: `clamp(round(acc * factor) + zero_point)`, for codes of 16 bits or fewer. Equals
/// [`requantize_fixed`](super::requantize_fixed).
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequantizeFixed {
    /// Accumulators beyond it saturate.
    limit: i32,
    q31: i32,
    half: i64,
    /// Added to products of negative accumulators.
    negative: i64,
    right: u32,
    /// Code bounds less the zero point.
    low: i32,
    high: i32,
    zero_point: i32,
}

impl RequantizeFixed {
    /// Prepares a factor that is normalized or 0, as [`FixedPoint::from_f64`] returns it.
    #[inline(always)]
    pub(crate) fn new(factor: FixedPoint, rounding: FixedPointRounding, zero_point: i32, codes: Codes) -> Self {
        let right = 31 - factor.shift();
        let twice = rounding == FixedPointRounding::Double && factor.shift() < 0;
        Self {
            limit: i32::MAX >> factor.shift().max(0),
            q31: factor.q31(),
            half: (1 << (right - 1)) + if twice { 1 << 30 } else { 0 },
            negative: if twice { -(1 << 31) } else { 0 },
            right: right as u32,
            low: codes.min - zero_point,
            high: codes.max - zero_point,
            zero_point,
        }
    }

    #[inline(always)]
    pub(crate) fn code(&self, acc: i32) -> i32 {
        // One instruction each; `clamp` would assert its bounds.
        let acc = acc.max(!self.limit).min(self.limit);
        let negative = if acc < 0 { self.negative } else { 0 };
        let centred = ((i64::from(acc) * i64::from(self.q31) + self.half + negative) >> self.right) as i32;
        centred.max(self.low).min(self.high) + self.zero_point
    }
}

/// Multiplies a centred 8-bit code, shifted left by 20, by a factor of at most a half, in 32-bit arithmetic.
///
/// The significand is cut in two, `q = high * 2^11 + low`, so that `2^20` cancels and `low` contributes a carry only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MultiplyShifted {
    high: i32,
    low: i32,
    /// Rounding constant of the carry.
    nudge: i32,
    half: i32,
    /// Added to products of negative centred codes.
    negative: i32,
    right: u32,
}

impl MultiplyShifted {
    /// Bits that centred codes are shifted left by.
    pub(crate) const SHIFT: u32 = 20;
    /// Bits of the low part of the significand.
    const CUT: u32 = 31 - Self::SHIFT;

    /// Prepares a factor that is normalized or 0, and at most a half.
    pub(crate) fn new(factor: FixedPoint, rounding: FixedPointRounding) -> Self {
        let right = -factor.shift();
        let double = rounding == FixedPointRounding::Double;
        Self {
            high: factor.q31() >> Self::CUT,
            low: factor.q31() & ((1 << Self::CUT) - 1),
            nudge: if double || right == 0 { 1 << (Self::CUT - 1) } else { 0 },
            half: if right > 0 { 1 << (right - 1) } else { 0 },
            negative: if double && right > 0 { -1 } else { 0 },
            right: right as u32,
        }
    }

    #[inline(always)]
    pub(crate) fn multiply(&self, centred: i32) -> i32 {
        let carry = (centred * self.low + self.nudge) >> Self::CUT;
        let negative = (centred >> 31) & self.negative;
        (centred * self.high + carry + self.half + negative) >> self.right
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affine::requantize_fixed;

    fn roundings() -> impl Strategy<Value = FixedPointRounding> {
        prop_oneof![Just(FixedPointRounding::Double), Just(FixedPointRounding::Single)]
    }

    /// Normalized significands, with powers of two.
    fn significands() -> impl Strategy<Value = i32> {
        prop_oneof![Just(1 << 30), Just(i32::MAX), 1 << 30..=i32::MAX]
    }

    proptest! {
        #[test]
        fn codes_equal_the_formula(
            q31 in significands(), shift in -31..=30, rounding in roundings(), zero_point in -128..=255,
            acc in any::<i32>(), bits in 0..32, (min, max) in (-128..0, 0..=255),
        ) {
            let codes = Codes { min, max };
            for factor in [FixedPoint::of_parts(q31, shift), FixedPoint::of_parts(0, 0)] {
                let prepared = RequantizeFixed::new(factor, rounding, zero_point, codes);
                // Ties, if the factor is a power of two; small accumulators; the bounds of i32.
                let half = 1i32.checked_shl((-shift).max(0) as u32).unwrap_or(0);
                let near_half = (half / 2).wrapping_mul((acc % 8) | 1);
                for acc in [near_half, near_half.wrapping_sub(1), near_half.wrapping_add(1), acc >> bits, -1, 0, 1, i32::MIN, i32::MAX] {
                    let expected = requantize_fixed(acc, factor, rounding, zero_point, codes);
                    prop_assert_eq!(prepared.code(acc), expected, "{} * {:?}", acc, factor);
                }
            }
        }

        #[test]
        fn shifted_products_equal_the_formula(q31 in significands(), shift in -31..=0, rounding in roundings()) {
            for factor in [FixedPoint::of_parts(q31, shift), FixedPoint::of_parts(0, 0)] {
                let prepared = MultiplyShifted::new(factor, rounding);
                for x in -255..=255 {
                    let expected = factor.multiply(x << MultiplyShifted::SHIFT, rounding);
                    prop_assert_eq!(prepared.multiply(x), expected, "{} * {:?}", x, factor);
                }
            }
        }
    }
}
