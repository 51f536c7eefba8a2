//! AWQ: factors that give the weights of large inputs finer steps.

use ndarray::{Array1, ArrayRef2};

use super::hessian::output_noise;
use super::power::power;
use super::smooth_quant::usable;
use super::statistics::InputStatistics;
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::scheme::Scheme;

/// Values of `α` that are tried: `0, 1/20, …, 19/20`.
const GRID: usize = 20;

/// The least factor before normalization.
const MIN_FACTOR: f64 = 1e-4;

/// AWQ's scaling (Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", 2023): one
/// factor for each input channel of linear layers, so that the weights of large inputs lose less.
///
/// `s_j = E[abs(x_j)]^α`, divided by `sqrt(max(s) * min(s))`, for the `α` of `0, 0.05, …, 0.95` of the least
/// [noise](output_noise) `(w - ŵ) · E[x · xᵀ] · (w - ŵ)ᵀ` of all outputs, where `ŵ = quantize(w * s) / s`. `α = 0` rounds to
/// nearest, so the noise is never larger than that. The layer is `x · wᵀ = (x / s) · (w * s)ᵀ`: quantize `w * s`, and divide
/// the channels of `x` where they are written, in the weights of the layer or the normalization before it. Layers that read
/// the same `x` share their factors: pass their weights concatenated along axis 0.
///
/// [`Graph::transform_inputs`](crate::graph::Graph::transform_inputs) does this in a network.
///
/// Cost: `10 · out · in²` multiply–accumulates.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{I4, Scheme, metrics::sqnr_db, nn::LinearNBits, ptq::{Awq, InputStatistics}};
///
/// let weights = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin());
/// let large = |i: usize| if i % 16 == 3 { 20.0 } else { 1.0 };
/// let x = Array2::from_shape_fn((100, 64), |(n, i)| large(i) * ((n * 64 + i) as f32 * 0.9).cos());
/// let mut statistics = InputStatistics::new(64);
/// statistics.observe(&x)?;
///
/// let scheme = Scheme::<I4>::symmetric().per_group(Axis(1), 32);
/// let s = Awq::new().factors(&weights, &scheme, &statistics)?;
/// let layer = LinearNBits::new(&scheme.quantize(&(&weights * &s))?, None)?;
/// let nearest = LinearNBits::new(&scheme.quantize(&weights)?, None)?;
/// let y = x.dot(&weights.t());
/// assert!(sqnr_db(&y, &layer.forward(&(&x / &s))?)? > sqnr_db(&y, &nearest.forward(&x)?)? + 1.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Awq {}

impl Awq {
    /// Creates the method.
    pub fn new() -> Self {
        Self {}
    }

    /// Returns the factors `[in]` of weights `[out, in]` that will be quantized by this scheme.
    ///
    /// # Errors
    /// [`Error::Value`] for a NaN or an infinity. [`Error::Shape`] unless the statistics are of `in` channels, or if the
    /// weights do not have the axis of the scheme. [`Error::Params`] for groups of 0 elements.
    pub fn factors<T: Element>(
        &self,
        weights: &ArrayRef2<f32>,
        scheme: &Scheme<T>,
        statistics: &InputStatistics,
    ) -> Result<Array1<f32>> {
        let (mean_abs, hessian) = (statistics.mean_abs(), statistics.second_moments());
        check_shapes("statistics of the input, [in]", &[weights.ncols()], mean_abs.shape())?;
        let mut least = (f64::INFINITY, Array1::ones(weights.ncols()));
        for k in 0..GRID {
            let factors = factors(&mean_abs, k as f64 / GRID as f64);
            let scaled = &weights.view() * &factors;
            // Weights that overflow have no codes. Those that are not finite without factors are an error.
            if k > 0 && !scaled.iter().all(|w| w.is_finite()) {
                continue;
            }
            let found = scheme.params_of(&scaled)?.fake_quantize(&scaled)? / &factors;
            if k > 0 && !found.iter().all(|w| w.is_finite()) {
                continue;
            }
            let noise = output_noise(weights, &found, &hessian)?;
            if noise < least.0 {
                least = (noise, factors);
            }
        }
        Ok(least.1)
    }
}

/// The factors for one `α`.
fn factors(mean_abs: &Array1<f64>, alpha: f64) -> Array1<f32> {
    let s = mean_abs.mapv(|x| power(x, alpha).max(MIN_FACTOR));
    let (min, max) = s.iter().fold((f64::INFINITY, 0f64), |(min, max), &s| (min.min(s), max.max(s)));
    let middle = num_traits::Float::sqrt(max * min);
    s.mapv(|s| usable((s / middle) as f32))
}
