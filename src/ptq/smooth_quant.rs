//! SmoothQuant: factors that move the outliers of inputs into the weights.

use ndarray::{Array1, ArrayRef1, ArrayRef2, Axis};

use super::hessian::check_option;
use super::power::power;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::range::check_finite;

/// SmoothQuant (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
/// 2022): one factor for each input channel of linear layers, which makes the ranges of channels more equal.
///
/// `s_j = max(abs(x_j))^α / max(abs(w_j))^(1 - α)`, and `x · wᵀ = (x / s) · (w * s)ᵀ`. Divide the channels of `x` where they
/// are written: in the weights of the layer or the normalization before it. A channel whose inputs or weights are all 0
/// has the factor 1. Layers that read the same `x` share their factors: pass their weights concatenated along axis 0.
///
/// [`Graph::transform_inputs`](crate::graph::Graph::transform_inputs) does this in a network.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ptq::SmoothQuant;
///
/// let (x, weights) = (array![[100.0f32, -1.0], [-50.0, 0.5]], array![[1.0f32, 4.0], [0.5, -2.0]]);
/// let s = SmoothQuant::new().factors(&weights, &array![100.0, 1.0])?; // the largest magnitudes of x
/// assert_eq!(s, array![10.0, 0.5]);
/// assert_eq!((&x / &s).dot(&(&weights * &s).t()), x.dot(&weights.t()));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SmoothQuant {
    alpha: f64,
}

impl Default for SmoothQuant {
    fn default() -> Self {
        Self::new()
    }
}

impl SmoothQuant {
    /// `α = 0.5`: inputs and weights get the same range in each channel.
    pub fn new() -> Self {
        Self { alpha: 0.5 }
    }

    /// Sets `α`, the migration strength: 0 equalizes the weights, 1 the inputs.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `0 <= alpha <= 1`.
    pub fn with_alpha(mut self, alpha: f64) -> Result<Self> {
        check_option("alpha", "a number in 0..=1", alpha, (0.0..=1.0).contains(&alpha))?;
        self.alpha = alpha;
        Ok(self)
    }

    /// Returns the factors `[in]` of weights `[out, in]` whose inputs have these largest magnitudes
    /// ([`InputStatistics::abs_max`](super::InputStatistics::abs_max)).
    ///
    /// # Errors
    /// [`Error::Value`] for a NaN or an infinity. [`Error::Shape`] unless there is a magnitude for each input channel.
    pub fn factors(&self, weights: &ArrayRef2<f32>, input_abs_max: &ArrayRef1<f32>) -> Result<Array1<f32>> {
        check_finite("weights", weights)?;
        check_shapes("largest magnitudes of the input, [in]", &[weights.ncols()], input_abs_max.shape())?;
        check_finite("largest magnitudes of the input", input_abs_max)?;
        let max = weights.fold_axis(Axis(0), 0f32, |max, w| max.max(w.abs()));
        Ok(input_abs_max.iter().zip(&max).map(|(&x, &w)| usable(self.factor(x.abs(), w))).collect())
    }

    /// The factor of a channel by the largest magnitudes of its inputs and its weights.
    pub(crate) fn factor(&self, x: f32, w: f32) -> f32 {
        let (x, w) = (f64::from(x), f64::from(w));
        let factor = match self.alpha {
            _ if x == 0.0 || w == 0.0 => 1.0,
            0.5 => num_traits::Float::sqrt(x / w),
            alpha => power(x, alpha) / power(w, 1.0 - alpha),
        };
        factor as f32
    }
}

/// Returns a factor, or 1 if it or its reciprocal overflows or underflows.
pub(super) fn usable(factor: f32) -> f32 {
    if factor.is_normal() && (1.0 / factor).is_normal() { factor } else { 1.0 }
}
