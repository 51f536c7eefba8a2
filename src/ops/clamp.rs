//! The bounds of a fused activation.

use super::shape::check_finite;
use crate::affine::clamp_f32;
use crate::error::Result;

/// The bounds of a fused activation: `min(max(x, low), high)` (ONNX: `Clip`). `None` leaves that side unbounded.
///
/// ```
/// use ndarray_quant::graph::Clamp;
/// assert_eq!([-1.0, 3.0, 9.0].map(|x| Clamp::RELU6.apply(x)), [0.0, 3.0, 6.0]);
/// assert_eq!(Clamp { low: None, high: Some(1.0) }.apply(-5.0), -5.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Clamp {
    /// Lower bound.
    pub low: Option<f32>,
    /// Upper bound.
    pub high: Option<f32>,
}

impl Clamp {
    /// No bounds.
    pub const NONE: Self = Clamp { low: None, high: None };
    /// `max(x, 0)`.
    pub const RELU: Self = Clamp { low: Some(0.0), high: None };
    /// `min(max(x, 0), 6)`.
    pub const RELU6: Self = Clamp { low: Some(0.0), high: Some(6.0) };

    /// Computes `min(max(x, low), high)`. NaN stays NaN.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        let (low, high) = self.bounds();
        clamp_f32(x, low, high)
    }

    /// Both bounds; a bound of `None` is infinite.
    pub(crate) fn bounds(self) -> (f32, f32) {
        (self.low.unwrap_or(f32::NEG_INFINITY), self.high.unwrap_or(f32::INFINITY))
    }

    /// The composition of two clamps: `then.apply(self.apply(x))` for every `x`.
    pub(crate) fn then(self, then: Clamp) -> Self {
        let ((low, high), (then_low, then_high)) = (self.bounds(), then.bounds());
        let bound = |x: f32| Some(then.apply(x)).filter(|x| x.is_finite());
        Clamp {
            low: if low.is_finite() || then_low.is_finite() { bound(low) } else { None },
            high: if high.is_finite() || then_high.is_finite() { bound(high) } else { None },
        }
    }

    /// Returns an error unless the bounds are finite or `None`.
    pub(crate) fn check(self) -> Result<()> {
        check_finite("bounds of a clamp", self.low.into_iter().chain(self.high))
    }
}
