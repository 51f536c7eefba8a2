//! Binary operators on codes, sum and product, and the mean of the codes of a pooling window.

use super::{
    Arithmetic, Codes, FixedPoint, FixedPointRounding, MultiplyShifted, RequantizeFixed, clamp_to_code,
    requantize_double,
};
use crate::element::Code;
use crate::error::{Error, Result};
use crate::simd::Fma;

/// A scale and a zero point.
pub(crate) type ScaleZeroPoint = (f32, i32);

/// A binary elementwise operator on two 8-bit codes. A trait, because closures are not inlined into all loops.
pub(crate) trait BinaryOp: Copy + Sync {
    /// Must be `#[inline(always)]`.
    fn code(&self, a: i32, b: i32) -> i32;
}

/// An operator on codes that are stored with an offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OffsetCodes<Op> {
    pub(crate) op: Op,
    pub(crate) offset: i32,
}

impl<Op: BinaryOp> BinaryOp for OffsetCodes<Op> {
    #[inline(always)]
    fn code(&self, a: i32, b: i32) -> i32 {
        self.op.code(a - self.offset, b - self.offset) + self.offset
    }
}

/// Sum in `f32`: `clamp(rne(fma(a, ra, fma(b, rb, y_zero - fma(ra, a_zero, rb * b_zero)))))`, `ra = a_scale / y_scale`, `rb =
/// b_scale / y_scale`. The zero point is added before rounding (ONNX Runtime on x86-64: `QLinearAdd`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatSum {
    a: f32,
    b: f32,
    constant: f32,
    low: f32,
    high: f32,
    by: MulAdd,
}

/// How `a * b + c` is computed with one rounding. All ways that are chosen give the same bits.
#[derive(Debug, Clone, Copy)]
enum MulAdd {
    Fma(Fma),
    F64,
    F32,
}

impl FloatSum {
    pub(crate) fn new(a: ScaleZeroPoint, b: ScaleZeroPoint, y: ScaleZeroPoint, codes: Codes) -> Self {
        let (ra, rb) = (a.0 / y.0, b.0 / y.0);
        let constant = y.1 as f32 - MulAdd::F32.eval(a.1 as f32, ra, rb * b.1 as f32);
        Self { by: MulAdd::choose(ra, rb), ..Self::of_parts([ra, rb], constant, codes) }
    }

    /// A sum from the numbers of [`parts`](Self::parts), by arithmetic in `f32` alone.
    pub(crate) fn of_parts([a, b]: [f32; 2], constant: f32, codes: Codes) -> Self {
        Self { a, b, constant, low: codes.min as f32, high: codes.max as f32, by: MulAdd::F32 }
    }

    /// The ratios of both scales to that of the output, the constant, and the range of codes.
    pub(crate) fn parts(&self) -> ([f32; 2], f32, Codes) {
        ([self.a, self.b], self.constant, Codes { min: self.low as i32, max: self.high as i32 })
    }

    #[inline(always)]
    fn sum(&self, a: i32, b: i32) -> f32 {
        self.by.eval(a as f32, self.a, self.by.eval(b as f32, self.b, self.constant))
    }
}

impl MulAdd {
    /// Chooses the fastest way for two ratios of scales.
    fn choose(ra: f32, rb: f32) -> Self {
        /// Products of codes with ratios no smaller than this, and no further apart than its inverse, and the sums of two
        /// and a zero point have at most 53 bits.
        const MIN_RATIO: f32 = 1.0 / (1 << 20) as f32;
        let (least, greatest) = (ra.abs().min(rb.abs()), ra.abs().max(rb.abs()));
        match Fma::new() {
            // Sums in `f32` overflow where FMA does not.
            _ if greatest.is_nan() || greatest > (1u128 << 100) as f32 => MulAdd::F32,
            Some(fma) => MulAdd::Fma(fma),
            None if least >= MIN_RATIO * greatest.max(1.0) => MulAdd::F64,
            None => MulAdd::F32,
        }
    }

    #[inline(always)]
    fn eval(self, a: f32, b: f32, c: f32) -> f32 {
        match self {
            MulAdd::Fma(fma) => fma.mul_add(a, b, c),
            MulAdd::F64 => (f64::from(a) * f64::from(b) + f64::from(c)) as f32,
            MulAdd::F32 => fma_by_f32(a, b, c),
        }
    }
}

/// Returns `a * b + c`, rounded once, for an integer `a` of at most 12 bits. Any result if a sum overflows.
///
/// The product is exact as a sum of two floats. Adding three floats rounds once if the lesser of their two last sums is
/// rounded to odd (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
#[inline(always)]
fn fma_by_f32(a: f32, b: f32, c: f32) -> f32 {
    let high = f32::from_bits(b.to_bits() & !0xfff);
    let (product, rest) = two_sum(a * high, a * (b - high));
    let (sum, low) = two_sum(c, rest);
    let (sum, middle) = two_sum(product, sum);
    let (near, error) = two_sum(low, middle);
    // To odd: the float on the other side of the exact sum if this one is even.
    let away = (error < 0.0) != (near < 0.0);
    let step = if error == 0.0 || near.to_bits() & 1 == 1 {
        0
    } else if away {
        u32::MAX
    } else {
        1
    };
    sum + f32::from_bits(near.to_bits().wrapping_add(step))
}

/// Returns a sum and its rounding error, exactly.
#[inline(always)]
fn two_sum(a: f32, b: f32) -> (f32, f32) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

impl BinaryOp for FloatSum {
    #[inline(always)]
    fn code(&self, a: i32, b: i32) -> i32 {
        clamp_to_code(self.sum(a, b), self.low, self.high, false)
    }
}

/// Sum in integers (TFLite: `ADD`): both operands are rescaled to units of `2 * max(a_scale, b_scale) / 2^20`, each
/// rounded, and their sum to units of the output.
///
/// The operand with the greater scale comes first. Its multiplier is a half, and its product exact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedSum {
    a_zero: i32,
    b_zero: i32,
    b: MultiplyShifted,
    y: RequantizeFixed,
}

impl FixedSum {
    pub(crate) fn new(
        a: ScaleZeroPoint,
        b: ScaleZeroPoint,
        y: ScaleZeroPoint,
        rounding: FixedPointRounding,
        codes: Codes,
    ) -> Result<Self> {
        debug_assert!(a.0 >= b.0, "the greater scale comes first");
        let twice_max = 2.0 * f64::from(a.0);
        let b_factor = FixedPoint::from_f64(f64::from(b.0) / twice_max)?;
        let y_factor = FixedPoint::from_f64(twice_max / (f64::from(1 << MultiplyShifted::SHIFT) * f64::from(y.0)))?;
        Ok(Self {
            a_zero: a.1,
            b_zero: b.1,
            b: MultiplyShifted::new(b_factor, rounding),
            y: RequantizeFixed::new(y_factor, rounding, y.1, codes),
        })
    }
}

impl BinaryOp for FixedSum {
    #[inline(always)]
    fn code(&self, a: i32, b: i32) -> i32 {
        let a = (a - self.a_zero) << (MultiplyShifted::SHIFT - 1);
        self.y.code(a + self.b.multiply(b - self.b_zero))
    }
}

/// Product of two centred codes, requantized to units of the output by `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductOf<R> {
    pub(crate) a_zero: i32,
    pub(crate) b_zero: i32,
    pub(crate) to: R,
}

/// Product in `f32`, with the zero point added before rounding:
/// `clamp(rne((a - a_zero) * (b - b_zero) * ((a_scale * b_scale) / y_scale) + y_zero))` (ONNX Runtime: `QLinearMul`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatProduct {
    pub(crate) factor: f32,
    pub(crate) zero_point: i32,
    pub(crate) codes: Codes,
}

impl BinaryOp for ProductOf<FloatProduct> {
    #[inline(always)]
    fn code(&self, a: i32, b: i32) -> i32 {
        let product = ((a - self.a_zero) * (b - self.b_zero)) as f32;
        let FloatProduct { factor, zero_point, codes } = self.to;
        clamp_to_code(product * factor + zero_point as f32, codes.min as f32, codes.max as f32, false)
    }
}

/// Product in `f64`, requantized like an accumulator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DoubleProduct {
    pub(crate) factor: f64,
    pub(crate) zero_point: i32,
    pub(crate) codes: Codes,
}

impl BinaryOp for ProductOf<DoubleProduct> {
    #[inline(always)]
    fn code(&self, a: i32, b: i32) -> i32 {
        let DoubleProduct { factor, zero_point, codes } = self.to;
        requantize_double::<u8>((a - self.a_zero) * (b - self.b_zero), factor, zero_point, codes)
    }
}

/// Product in integers (TFLite: `MUL`).
impl BinaryOp for ProductOf<RequantizeFixed> {
    #[inline(always)]
    fn code(&self, a: i32, b: i32) -> i32 {
        self.to.code((a - self.a_zero) * (b - self.b_zero))
    }
}

/// Returns the error for an arithmetic mode that an operator does not support.
pub(crate) fn unsupported(what: &'static str, found: Arithmetic) -> Error {
    Error::Argument { what, expected: "F32 or FixedPoint arithmetic", found: alloc::format!("{found:?}") }
}

/// Mean in `f32`: `clamp(rne(sum / count / y_scale + y_zero))`, where `sum` adds `(x - x_zero) * x_scale` in the order
/// of the window. The zero point is added before rounding (ONNX Runtime: `QLinearAveragePool`).
#[inline(always)]
pub(crate) fn float_mean(sum: f32, count: f32, y: ScaleZeroPoint, codes: Codes) -> i32 {
    clamp_to_code(sum / count / y.0 + y.1 as f32, codes.min as f32, codes.max as f32, false)
}

/// Mean of `count` codes in integers, halves away from zero, clamped to `codes` (TFLite: `AVERAGE_POOL_2D`).
///
/// The division is a multiplication: with `2^shift >= 256 * count^2`, `reciprocal = 2^shift / count` rounded up is too
/// large by less than 1 part in `2^shift / count`, which changes no quotient of a number below `256 * count`. The
/// product is below `2^(shift + 8)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntegerMean {
    half: u32,
    reciprocal: u64,
    shift: u32,
    codes: Codes,
}

impl IntegerMean {
    /// Prepares a count of at least 1. The sum of the codes must fit an `i32`.
    #[inline(always)]
    pub(crate) fn new(count: usize, codes: Codes) -> Self {
        let count = count as u64;
        let shift = 8 + 2 * count.next_power_of_two().trailing_zeros();
        Self { half: count as u32 / 2, reciprocal: (1u64 << shift).div_ceil(count), shift, codes }
    }

    #[inline(always)]
    pub(crate) fn eval<Acc: Code>(self, sum: Acc) -> i32 {
        let sum = sum.to_i32();
        let rounded = sum.unsigned_abs() + self.half;
        let mean = if Acc::WIDE {
            ((u64::from(rounded) * self.reciprocal) >> self.shift) as i32
        } else {
            // 16-bit sums have at most 128 codes, so `shift` is at most 22.
            ((rounded * self.reciprocal as u32) >> self.shift) as i32
        };
        let mean = if sum < 0 { -mean } else { mean };
        mean.clamp(self.codes.min, self.codes.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// By each way of multiplying and adding, for ratios up to the bounds of where it is used, and near ties.
        #[test]
        fn sums_have_the_same_codes_without_fma(
            ratios in prop_oneof![
                (0.01f32..2.0, 0.01f32..2.0), (1e-6f32..1e-5, 0.5f32..1.0), (1e-4f32..1e-3, 100f32..1000.0),
                (1e-30f32..1e-20, 1e-3f32..1e3), (1e5f32..1e20, 1e-3f32..1.0),
            ],
            zeros in (0..256, 0..256, 0..256), a in 0..256, b in 0..256,
        ) {
            let codes = Codes { min: 0, max: 255 };
            let with = FloatSum::new((ratios.0, zeros.0), (ratios.1, zeros.1), (1.0, zeros.2), codes);
            let by_f32 = FloatSum { by: MulAdd::F32, ..with };
            let tie = by_f32.sum(a, b).round() + 0.5 - by_f32.sum(a, b);
            for constant in [with.constant, with.constant + tie, (with.constant + tie).next_up(), (with.constant + tie).next_down()] {
                let with = FloatSum { constant, ..with };
                let code = FloatSum { by: MulAdd::F32, ..with }.code(a, b);
                prop_assert_eq!(with.code(a, b), code, "{:?}", with);
                let least = ratios.0.min(ratios.1);
                if least >= 1e-6 && ratios.0.max(ratios.1) / least <= 1e6 {
                    prop_assert_eq!(FloatSum { by: MulAdd::F64, ..with }.code(a, b), code, "{:?}", with);
                }
            }
        }

        /// In `f32`, equal to FMA for all floats that do not overflow.
        #[test]
        fn multiplies_and_adds_in_f32(a in -4095..4096, b in any::<u32>(), c in any::<u32>(), near in any::<bool>(), ulps in -40i32..40) {
            let (a, b) = (a as f32, f32::from_bits(b & !0x4000_0000));
            // Sums that cancel most of the product, and others.
            let c = if near { f32::from_bits((-a * b).to_bits().wrapping_add_signed(ulps)) } else { f32::from_bits(c & !0x4000_0000) };
            if let Some(fma) = Fma::new().filter(|_| b.is_finite() && c.is_finite()) {
                let (found, expected) = (fma_by_f32(a, b, c), fma.mul_add(a, b, c));
                prop_assert!(found == expected, "{} * {:e} + {:e}: {:e}, not {:e}", a, b, c, found, expected);
            }
        }
    }

    /// Every sum of small counts; sums next to multiples and halves of large counts.
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
