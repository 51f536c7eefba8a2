//! Requantize an accumulator: `clamp(round(acc * multiplier) + zero_point)`,
//! `multiplier = x_scale * w_scale / y_scale`.

use super::{Codes, FixedPoint, FixedPointRounding, clamp_to_code};
use crate::element::{Code, Compute, Element};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::simd::{Fma, SimdF32};

/// Arithmetic mode of requantization, from an `i32` accumulator to a code. Results differ only at and near ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Arithmetic {
    /// `rne(f32(acc) * m)`, `m = (x_scale * w_scale) / y_scale` in `f32`, left to right (ONNX Runtime, XNNPACK).
    #[default]
    F32,
    /// `rha(f64(acc) * m)`, `m = f64(x_scale) * f64(w_scale) / f64(y_scale)` (LiteRT's reference fully-connected).
    F64,
    /// Integer multiplier and shift, without float instructions (TFLite, TFLM, gemmlowp).
    FixedPoint(FixedPointRounding),
}

/// The multiplier from accumulator to output, `x_scale * w_scale / y_scale`, in the form of one [`Arithmetic`] mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Multiplier {
    /// For [`Arithmetic::F32`].
    F32(f32),
    /// For [`Arithmetic::F64`].
    F64(f64),
    /// For [`Arithmetic::FixedPoint`].
    FixedPoint(FixedPoint, FixedPointRounding),
}

impl Multiplier {
    /// Computes `x_scale * w_scale / y_scale`.
    ///
    /// # Errors
    /// [`Error::Params`] if a scale is not finite and positive or the `f32` multiplier overflows; same as
    /// [`FixedPoint::from_f64`] for [`Arithmetic::FixedPoint`].
    pub fn new(x_scale: f32, w_scale: f32, y_scale: f32, arithmetic: Arithmetic) -> Result<Self> {
        check_positive("x_scale", x_scale as f64)?;
        check_positive("w_scale", w_scale as f64)?;
        check_positive("y_scale", y_scale as f64)?;
        let double = x_scale as f64 * w_scale as f64 / y_scale as f64;
        Ok(match arithmetic {
            Arithmetic::F32 => {
                let factor = (x_scale * w_scale) / y_scale;
                // An underflow to 0 correctly maps every accumulator to 0. NaN and infinity mean nothing.
                if !factor.is_finite() {
                    let (what, found) = ("multiplier x_scale * w_scale / y_scale", factor as f64);
                    return Err(ParamsError::Scale { what, found, index: alloc::vec::Vec::new() }.into());
                }
                Multiplier::F32(factor)
            }
            Arithmetic::F64 => Multiplier::F64(double),
            Arithmetic::FixedPoint(rounding) => Multiplier::FixedPoint(FixedPoint::from_f64(double)?, rounding),
        })
    }

    /// Computes `x_scale / (y_scale * count)`: the multiplier from the sum of `count` codes to their mean.
    pub(crate) fn mean(x_scale: f32, y_scale: f32, count: usize, arithmetic: Arithmetic) -> Result<Self> {
        let double = f64::from(x_scale) / (f64::from(y_scale) * count as f64);
        Ok(match arithmetic {
            Arithmetic::F32 => Multiplier::F32(x_scale / (y_scale * count as f32)),
            Arithmetic::F64 => Multiplier::F64(double),
            Arithmetic::FixedPoint(rounding) => Multiplier::FixedPoint(FixedPoint::from_f64(double)?, rounding),
        })
    }

    /// Returns `clamp(round(acc * multiplier) + zero_point)` over all codes of `T`.
    ///
    /// ```
    /// use ndarray_quant::nn::{Arithmetic, Multiplier};
    /// let multiplier = Multiplier::new(0.5, 0.25, 0.125, Arithmetic::F32)?;
    /// assert_eq!(multiplier.requantize::<u8>(17, 3), 20);
    /// assert_eq!(multiplier.requantize::<u8>(-17, 3), 0);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn requantize<T: Element>(self, acc: i32, zero_point: T::Code) -> T::Code {
        T::Code::from_i32(self.apply::<T>(acc, zero_point.to_i32(), Codes::all::<T>()))
    }

    /// Returns `acc * multiplier`: the centred output code, rounded only in fixed point.
    pub(crate) fn centred(self, acc: i32) -> f32 {
        match self {
            Multiplier::F32(factor) => scaled(acc, factor),
            Multiplier::F64(factor) => (acc as f64 * factor) as f32,
            Multiplier::FixedPoint(factor, rounding) => factor.multiply(acc, rounding) as f32,
        }
    }

    /// Requantizes one accumulator to `codes`.
    #[inline(always)]
    pub(crate) fn apply<T: Element>(self, acc: i32, zero_point: i32, codes: Codes) -> i32 {
        match self {
            Multiplier::F32(factor) => requantize_float::<T>(acc, factor, zero_point, codes),
            Multiplier::F64(factor) => requantize_double::<T>(acc, factor, zero_point, codes),
            Multiplier::FixedPoint(factor, rounding) => requantize_fixed(acc, factor, rounding, zero_point, codes),
        }
    }
}

#[inline(always)]
fn scaled<V: SimdF32>(acc: V::I32, factor: V) -> V {
    factor.convert(acc).mul(factor)
}

/// Returns `clamp(f32(acc) * scale + bias)`: dequantizes accumulators, in this order, without FMA.
#[inline(always)]
pub(crate) fn dequantize_sum<V: SimdF32>(acc: V::I32, scale: V, bias: Option<V>, clamp: Option<(f32, f32)>) -> V {
    let y = scaled(acc, scale);
    let y = if let Some(bias) = bias { y.add(bias) } else { y };
    if let Some((low, high)) = clamp { y.clamp(low, high) } else { y }
}

/// Returns `clamp(rne(f32(acc) * factor) + zero_point)`.
#[inline(always)]
pub(crate) fn requantize_float<T: Element>(acc: i32, factor: f32, zero_point: i32, codes: Codes) -> i32 {
    if T::BITS > 16 {
        return saturate(Compute::round_ties_even(scaled(acc, factor)) as i64, zero_point, codes);
    }
    RequantizeFloat::new(zero_point, codes).codes(acc, factor)
}

/// [`requantize_float`] for codes of 16 bits or fewer, of one accumulator or of SIMD registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequantizeFloat {
    zero_point: i32,
    /// Bounds of the product before rounding: code bounds less the zero point.
    low: i32,
    high: i32,
}

impl RequantizeFloat {
    #[inline(always)]
    pub(crate) fn new(zero_point: i32, codes: Codes) -> Self {
        Self { zero_point, low: codes.min - zero_point, high: codes.max - zero_point }
    }

    #[inline(always)]
    pub(crate) fn codes<V: SimdF32>(self, acc: V::I32, multipliers: V) -> V::Codes {
        scaled(acc, multipliers).round_clamp(false, self.low, self.high, self.zero_point)
    }
}

impl SimdF32 for f32 {
    type I32 = i32;
    type Codes = i32;

    #[inline(always)]
    fn convert(self, acc: i32) -> Self {
        acc as f32
    }

    #[inline(always)]
    fn mul(self, multiplier: Self) -> Self {
        self * multiplier
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn clamp(self, low: f32, high: f32) -> Self {
        super::clamp_f32(self, low, high)
    }

    #[inline(always)]
    fn min(self, high: f32) -> Self {
        if self > high { high } else { self }
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        self * factor
    }

    #[inline(always)]
    fn mul_add(self, fma: Fma, factor: f32, other: Self) -> Self {
        fma.mul_add(self, factor, other)
    }

    #[inline(always)]
    fn round_clamp(self, halves_away: bool, low: i32, high: i32, zero_point: i32) -> i32 {
        clamp_to_code(self, low as f32, high as f32, halves_away) + zero_point
    }
}

/// Returns `clamp(rha(f64(acc) * factor) + zero_point)`.
#[inline(always)]
pub(crate) fn requantize_double<T: Element>(acc: i32, factor: f64, zero_point: i32, codes: Codes) -> i32 {
    let product = acc as f64 * factor;
    if T::BITS > 16 {
        return saturate(Compute::round_ties_away(product) as i64, zero_point, codes);
    }
    let (low, high) = ((codes.min - zero_point) as f64, (codes.max - zero_point) as f64);
    clamp_to_code(product, low, high, true) + zero_point
}

/// Returns `clamp(round(acc * factor) + zero_point)`, in integers.
#[inline(always)]
pub(crate) fn requantize_fixed(
    acc: i32,
    factor: FixedPoint,
    rounding: FixedPointRounding,
    zero_point: i32,
    codes: Codes,
) -> i32 {
    factor.multiply(acc, rounding).saturating_add(zero_point).clamp(codes.min, codes.max)
}

#[inline(always)]
fn saturate(value: i64, zero_point: i32, codes: Codes) -> i32 {
    value.saturating_add(zero_point as i64).clamp(codes.min as i64, codes.max as i64) as i32
}

fn check_positive(what: &'static str, scale: f64) -> Result<()> {
    if scale.is_finite() && scale > 0.0 {
        Ok(())
    } else {
        Err(ParamsError::Scale { what, found: scale, index: alloc::vec::Vec::new() }.into())
    }
}
