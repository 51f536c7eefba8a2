//! The formulas of affine quantization, each written once: `x ≈ (q - zero_point) * scale`.
//!
//! | file | formula |
//! |---|---|
//! | `convert` | quantize and dequantize one value |
//! | `reciprocal` | quantize to bytes without a division, to the same codes |
//! | `straight_through` | fake-quantize with the straight-through estimator |
//! | `choose` | range → scale and zero point |
//! | `requantize` | accumulator → code, in floats |
//! | `fixed_point` | accumulator → code, in integers |
//! | `fixed_point_simd` | the same, prepared for vectorized loops |
//! | `binary` | sum, product and mean of codes |

mod binary;
mod choose;
mod convert;
mod fixed_point;
mod fixed_point_simd;
mod reciprocal;
mod requantize;
mod straight_through;

pub(crate) use binary::{
    BinaryOp, DoubleProduct, FixedSum, FloatProduct, FloatSum, IntegerMean, OffsetCodes, ProductOf, float_mean,
    unsupported,
};
pub use choose::choose_qparams;
pub(crate) use choose::{asymmetric, check_range, symmetric};
pub(crate) use convert::{Dequantizer, FakeQuantizer, Quantizer, Rounding, clamp_to_code, dequantize, with_rounding};
pub use fixed_point::{FixedPoint, FixedPointRounding};
pub(crate) use fixed_point_simd::{MultiplyShifted, RequantizeFixed};
pub(crate) use reciprocal::ByteQuantizer;
pub(crate) use requantize::RequantizeFloat;
pub use requantize::{Arithmetic, Multiplier};
pub(crate) use requantize::{dequantize_sum, requantize_double, requantize_fixed, requantize_float};
pub use straight_through::SteClipping;
pub(crate) use straight_through::{
    FloatZeroPoint, IntegerZeroPoint, Settings, SteQuantizer, StochasticRounding, split_mix,
};

/// The rounding modes of the conventions, as types.
pub(crate) mod rounding {
    pub(crate) use super::convert::{Onnx, TfLite, Torch};
}

use crate::element::Element;
use crate::error::{ParamsError, Result};

/// A convention: the system whose formulas quantize and choose parameters, bit for bit.
///
/// | | quantize | range to parameters |
/// |---|---|---|
/// | `Onnx` | `clamp(rne(x / scale) + zp)` | DynamicQuantizeLinear |
/// | `Torch` | `clamp(rne(x * (1 / scale)) + zp)` | MinMaxObserver |
/// | `TfLite` | `clamp(rha(x / scale) + zp)` | gemmlowp's, in `f64` |
///
/// `rne` rounds halves to even, `rha` halves away from zero. A NaN becomes the zero point, infinities saturate. The
/// numerics page has all formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Convention {
    /// ONNX and ONNX Runtime.
    #[default]
    Onnx,
    /// PyTorch.
    Torch,
    /// TensorFlow Lite and LiteRT.
    TfLite,
}

/// Returns `min(max(x, low), high)`. NaN stays NaN.
#[inline(always)]
pub(crate) fn clamp_f32(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// The range of codes of a tensor: all codes of its element type, or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Codes {
    pub(crate) min: i32,
    pub(crate) max: i32,
}

impl Codes {
    pub(crate) fn all<T: Element>() -> Self {
        Codes { min: T::MIN, max: T::MAX }
    }

    pub(crate) fn within<T: Element>(min: i32, max: i32) -> Result<Self> {
        if T::MIN <= min && min < max && max <= T::MAX {
            Ok(Codes { min, max })
        } else {
            Err(ParamsError::CodeRange { min: T::MIN, max: T::MAX, found_min: min, found_max: max }.into())
        }
    }

    /// Returns the range of codes that are smaller by `offset`.
    pub(crate) fn minus(self, offset: i32) -> Self {
        Codes { min: self.min - offset, max: self.max - offset }
    }

    /// Returns the number of quantization steps: `max - min`.
    pub(crate) fn steps(self) -> i64 {
        self.max as i64 - self.min as i64
    }
}
