//! Codes of two tensors → codes of their sum or product, and codes of a window → their mean.

use super::{Codes, FixedPoint, FixedPointRounding, Requantization, Rescale, clamp_to_code, requantize_fixed};
use crate::element::{Code, Element};
use crate::error::{Error, Result};

/// A scale and a zero point.
pub(crate) type Pair = (f32, i32);

/// `clamp(rne((y_zero - (ra * a_zero + rb * b_zero)) + a * ra + b * rb))`, `ra = a_scale / y_scale`,
/// `rb = b_scale / y_scale`, in `f32` from left to right: the zero point is added before rounding (ONNX Runtime:
/// `QLinearAdd`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatSum {
    a: f32,
    b: f32,
    constant: f32,
    low: f32,
    high: f32,
}

impl FloatSum {
    pub(crate) fn new(a: Pair, b: Pair, y: Pair, codes: Codes) -> Self {
        let (ra, rb) = (a.0 / y.0, b.0 / y.0);
        let constant = y.1 as f32 - (ra * a.1 as f32 + rb * b.1 as f32);
        Self { a: ra, b: rb, constant, low: codes.min as f32, high: codes.max as f32 }
    }

    #[inline(always)]
    pub(crate) fn eval(&self, a: i32, b: i32) -> i32 {
        clamp_to_code(self.constant + a as f32 * self.a + b as f32 * self.b, self.low, self.high, false)
    }
}

/// The sum in integers: both sides in units of `2 * max(a_scale, b_scale) / 2^20`, each rounded, then their sum in
/// units of the output (TFLite: `ADD`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedSum {
    a: FixedPoint,
    b: FixedPoint,
    a_zero: i32,
    b_zero: i32,
    y: FixedPoint,
    y_zero: i32,
    rounding: FixedPointRounding,
    codes: Codes,
}

impl FixedSum {
    /// The bits that codes are shifted left by before they are multiplied.
    const SHIFT: u32 = 20;

    pub(crate) fn new(a: Pair, b: Pair, y: Pair, rounding: FixedPointRounding, codes: Codes) -> Result<Self> {
        let twice_max = 2.0 * f64::from(a.0).max(f64::from(b.0));
        Ok(Self {
            a: FixedPoint::from_f64(f64::from(a.0) / twice_max)?,
            b: FixedPoint::from_f64(f64::from(b.0) / twice_max)?,
            a_zero: a.1,
            b_zero: b.1,
            y: FixedPoint::from_f64(twice_max / (f64::from(1 << Self::SHIFT) * f64::from(y.0)))?,
            y_zero: y.1,
            rounding,
            codes,
        })
    }

    #[inline(always)]
    pub(crate) fn eval(&self, a: i32, b: i32) -> i32 {
        let a = self.a.multiply((a - self.a_zero) << Self::SHIFT, self.rounding);
        let b = self.b.multiply((b - self.b_zero) << Self::SHIFT, self.rounding);
        requantize_fixed(a + b, self.y, self.rounding, self.y_zero, self.codes)
    }
}

/// The product of two codes in units of the output. In `f32` the zero point is added before rounding:
/// `clamp(rne((a - a_zero) * (b - b_zero) * ((a_scale * b_scale) / y_scale) + y_zero))` (ONNX Runtime: `QLinearMul`).
/// The other arithmetics requantize the product as any accumulator (TFLite: `MUL`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductOf {
    pub(crate) a_zero: i32,
    pub(crate) b_zero: i32,
    pub(crate) y_zero: i32,
    pub(crate) codes: Codes,
}

impl ProductOf {
    #[inline(always)]
    pub(crate) fn float(&self, a: i32, b: i32, factor: f32) -> i32 {
        let product = ((a - self.a_zero) * (b - self.b_zero)) as f32;
        let (low, high) = (self.codes.min as f32, self.codes.max as f32);
        clamp_to_code(product * factor + self.y_zero as f32, low, high, false)
    }

    #[inline(always)]
    pub(crate) fn rescaled<T: Element>(&self, a: i32, b: i32, factor: Rescale) -> i32 {
        factor.apply::<T>((a - self.a_zero) * (b - self.b_zero), self.y_zero, self.codes)
    }
}

/// Refuses an arithmetic that no system has for an operator.
pub(crate) fn unsupported(what: &'static str, found: Requantization) -> Error {
    Error::Argument { what, expected: "Float or FixedPoint arithmetic", found: alloc::format!("{found:?}") }
}

/// `clamp(rne(sum / count / y_scale + y_zero))`, `sum` being that of `(x - x_zero) * x_scale` in the order of the
/// window, all in `f32`: the zero point is added before rounding (ONNX Runtime: `QLinearAveragePool`).
#[inline(always)]
pub(crate) fn float_mean(sum: f32, count: f32, y: Pair, codes: Codes) -> i32 {
    clamp_to_code(sum / count / y.0 + y.1 as f32, codes.min as f32, codes.max as f32, false)
}

/// The mean of so many codes, halves away from zero, within `codes` (TFLite: `AVERAGE_POOL_2D`).
///
/// The quotient is a product: with `2^shift >= 256 * count^2`, `reciprocal = 2^shift / count` rounded up is too large by
/// less than 1 part in `2^shift / count`, which changes no quotient of a number below `256 * count`. Their product is below `2^(shift + 8)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntegerMean {
    half: u32,
    reciprocal: u64,
    shift: u32,
    codes: Codes,
}

impl IntegerMean {
    /// Of at least one code and so few that their sum is an `i32`.
    #[inline(always)]
    pub(crate) fn new(count: usize, codes: Codes) -> Self {
        let count = count as u64;
        let shift = 8 + 2 * count.next_power_of_two().trailing_zeros();
        Self { half: count as u32 / 2, reciprocal: (1u64 << shift).div_ceil(count), shift, codes }
    }

    #[inline(always)]
    pub(crate) fn eval<Sum: Code>(self, sum: Sum) -> i32 {
        let sum = sum.to_i32();
        let rounded = sum.unsigned_abs() + self.half;
        let mean = if Sum::WIDE {
            ((u64::from(rounded) * self.reciprocal) >> self.shift) as i32
        } else {
            // Sums of at most 128 codes, so `shift` is at most 22.
            ((rounded * self.reciprocal as u32) >> self.shift) as i32
        };
        let mean = if sum < 0 { -mean } else { mean };
        mean.clamp(self.codes.min, self.codes.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sum of few codes, and those next to multiples and halves of many.
    #[test]
    fn means_of_integers_are_quotients() {
        let codes = Codes { min: -300, max: 300 };
        let divided = |sum: i32, count: i64| {
            let (sum, half) = (i64::from(sum), count / 2);
            (if sum > 0 { sum + half } else { sum - half }) / count
        };
        let check = |count: i32, sum: i32| {
            let mean = IntegerMean::new(count as usize, codes).eval(sum);
            assert_eq!(i64::from(mean), divided(sum, count.into()), "{sum} / {count}");
            if count <= 128 {
                assert_eq!(IntegerMean::new(count as usize, codes).eval(sum as i16), mean, "{sum} / {count}");
            }
        };
        for count in 1..130 {
            (-255 * count..=255 * count).for_each(|sum| check(count, sum));
        }
        for count in [255, 256, 257, 65535, 65537, (1 << 23) - 1, 1 << 23, (1 << 23) + 1, i32::MAX / 255] {
            let greatest = 255 * i64::from(count);
            let near = |sum: i64| (sum - 1..=sum + 1).map(|sum| sum.clamp(-greatest, greatest) as i32);
            for half in -510..=510 {
                near(half * i64::from(count) / 2).for_each(|sum| check(count, sum));
            }
        }
    }
}
