//! Range → scale and zero point. Every range is first widened to contain zero, so that zero is exactly representable.

use super::{Codes, Convention};
use crate::element::Compute;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};

/// Smallest scale of PyTorch's observers.
const TORCH_EPSILON: f32 = f32::EPSILON;

/// Smallest scale of FBGEMM.
const FBGEMM_SMALL_SCALE: f64 = 6.1e-5f32 as f64;

/// Chooses scale and zero point of an asymmetric scheme.
pub(crate) fn asymmetric(min: f32, max: f32, codes: Codes, convention: Convention) -> (f32, i32) {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let steps = codes.steps() as f32;
    match convention {
        Convention::Onnx => {
            let scale = if min == max { 1.0 } else { at_least_normal(width(min, max, steps)) };
            let zero_point = (codes.min as f32 - min / scale).clamp(codes.min as f32, codes.max as f32);
            (scale, Compute::round_ties_even(zero_point) as i32)
        }
        Convention::Torch => {
            let scale = width(min, max, steps).max(TORCH_EPSILON);
            let offset = Compute::round_ties_even(min / scale);
            // With i32 codes the sum needs more than the 24 bits of f32.
            let zero_point = codes.min as i64 - offset as i64;
            (scale, zero_point.clamp(codes.min as i64, codes.max as i64) as i32)
        }
        Convention::TfLite => {
            let width = max as f64 - min as f64;
            let scale = if width == 0.0 { 1.0 } else { (width / codes.steps() as f64).max(f32::MIN_POSITIVE as f64) };
            let zero_point = Compute::round_ties_away(nearer_end_zero_point(min, max, scale, codes, 1.0));
            (scale as f32, zero_point.clamp(codes.min as f64, codes.max as f64) as i32)
        }
    }
}

/// Chooses scale and zero point of a symmetric scheme: the middle code is zero.
pub(crate) fn symmetric(min: f32, max: f32, codes: Codes, convention: Convention) -> (f32, i32) {
    let magnitude = max.max(-min).max(0.0);
    let half_steps = codes.steps() as f32 / 2.0;
    let scale = match convention {
        Convention::Torch => (magnitude / half_steps).max(TORCH_EPSILON),
        _ if magnitude == 0.0 => 1.0,
        _ => at_least_normal(magnitude / half_steps),
    };
    (scale, symmetric_zero_point(codes))
}

/// Returns the middle code, the upper of two: 0 for signed types, 128 for `u8`.
pub(crate) fn symmetric_zero_point(codes: Codes) -> i32 {
    (codes.min as i64 + codes.max as i64 + 1).div_euclid(2) as i32
}

/// Chooses scale and zero point as FBGEMM does, in `f64` (PyTorch: `torch._choose_qparams_per_tensor`).
///
/// The range is widened to contain zero. Then `scale = (max - min) / (code_max - code_min)`. A scale without a finite
/// reciprocal in `f32` becomes 0.1; a scale below 6.1e-5 becomes 6.1e-5, and the range grows with it. The zero point is
/// `code - x / scale` at the bound where `abs(code) - abs(x / scale)` is smaller, rounded half to even.
///
/// # Errors
/// [`Error::Params`] if a bound is not finite, if `min > max`, or if `code_min >= code_max`.
///
/// ```
/// let (scale, zero_point) = ndarray_quant::compat::fbgemm::choose_qparams(-1.0, 1.55, 0, 255)?;
/// assert!((scale - 0.01).abs() < 1e-9);
/// assert_eq!(zero_point, 100);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn choose_qparams(min: f32, max: f32, code_min: i32, code_max: i32) -> Result<(f64, i32)> {
    check_range(min, max)?;
    let codes = Codes::within::<i32>(code_min, code_max)?;
    let (mut min, mut max) = (min.min(0.0), max.max(0.0));
    let mut scale = (max as f64 - min as f64) / codes.steps() as f64;
    if scale as f32 == 0.0 || (1.0 / scale as f32).is_infinite() {
        scale = 0.1;
    }
    if scale < FBGEMM_SMALL_SCALE {
        let amplifier = (FBGEMM_SMALL_SCALE as f32) / scale as f32;
        if min == 0.0 {
            max = FBGEMM_SMALL_SCALE as f32 * codes.steps() as f32;
        } else if max == 0.0 {
            min = -(FBGEMM_SMALL_SCALE as f32) * codes.steps() as f32;
        } else {
            min *= amplifier;
            max *= amplifier;
        }
        scale = FBGEMM_SMALL_SCALE;
    }
    let zero_point = Compute::round_ties_even(nearer_end_zero_point(min, max, scale, codes, -1.0));
    Ok((scale, zero_point.clamp(codes.min as f64, codes.max as f64) as i32))
}

/// Returns the unrounded zero point from the bound of the range with the smaller error estimate.
///
/// gemmlowp estimates the error by `|code| + |x / scale|` (sign 1), PyTorch by `|code| - |x / scale|` (sign -1).
fn nearer_end_zero_point(min: f32, max: f32, scale: f64, codes: Codes, sign: f64) -> f64 {
    let from = |code: i32, x: f32| {
        let quotient = x as f64 / scale;
        (code as f64 - quotient, (code as f64).abs() + sign * quotient.abs())
    };
    let (from_min, min_error) = from(codes.min, min);
    let (from_max, max_error) = from(codes.max, max);
    if min_error < max_error { from_min } else { from_max }
}

/// Returns an error unless the bounds are finite and in order.
pub(crate) fn check_range(min: f32, max: f32) -> Result<()> {
    if min.is_finite() && max.is_finite() && min <= max {
        Ok(())
    } else {
        Err(ParamsError::Range { min: min as f64, max: max as f64 }.into())
    }
}

/// Returns `(max - min) / steps` without overflow of the difference.
fn width(min: f32, max: f32, steps: f32) -> f32 {
    let width = max - min;
    if width.is_finite() { width / steps } else { max / steps - min / steps }
}

/// Raises an underflowed scale to the smallest one with a finite reciprocal.
fn at_least_normal(scale: f32) -> f32 {
    scale.max(f32::MIN_POSITIVE)
}
