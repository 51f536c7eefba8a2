//! Clips where the mean squared error is least.

use super::clip::Clip;
use super::power_of_two_histogram::PowerOfTwoHistogram;
use super::{BlockObserver, squared_error};
use crate::element::{Code, Element};
use crate::range::Bounds;
use crate::scheme::Scheme;

/// The range with the least mean squared quantization error.
///
/// A narrower range clips some values and rounds all others more finely. Candidates are `[i / 1024 * min, j / 1024 * max]`
/// for integers `i`, `j` from 1 to 1024, with `i = j` for symmetric schemes; a coarse search is refined around its best
/// candidate by halving the step. The full range is a candidate, so the error never exceeds the error of
/// [`MinMax`](super::MinMax). The error is [`PowerOfTwoHistogram::mean_squared_error`]. Merging is exact.
///
/// ```
/// use ndarray::{Array, Ix1};
/// use ndarray_quant::{I4, QParams, Quantize, Result, Scheme, observer::{MinMax, Mse}};
/// let mut x = Array::from_shape_fn(1000, |i| (i as f32).sin());
/// x[7] = 5.0; // an outlier
///
/// let scheme = Scheme::<I4>::symmetric();
/// let error = |params: QParams<I4>| -> Result<f32> {
///     let y = params.quantize(&x)?.dequantize();
///     Ok((&x - &y).mapv(|e| e * e).sum() / 1000.0)
/// };
/// let (mut full, mut best) = (MinMax::per_tensor(), Mse::per_tensor());
/// full.observe(&x)?;
/// best.observe(&x)?;
/// assert!(error(scheme.params(&best)?)? < 0.7 * error(scheme.params(&full)?)?);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type Mse = BlockObserver<MseStatistic>;

/// The [`Clip`] of [`Mse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MseStatistic;

/// Candidates are multiples of `1 / PARTS` of the full range.
const PARTS: i32 = 1024;

/// The coarse search. Small candidates are for tensors with an outlier far from all other values.
const COARSE: [i32; 11] = [1024, 896, 768, 640, 512, 384, 256, 128, 64, 32, 8];

impl PowerOfTwoHistogram {
    /// The mean squared error `mean((x - dequantize(quantize(x)))²)` for a scheme and the range `[min, max]`, with values
    /// uniformly distributed within their bins.
    ///
    /// Returns infinity for bounds that are not finite or not in order.
    pub fn mean_squared_error<T: Element>(&self, scheme: &Scheme<T>, min: f32, max: f32) -> f64 {
        let Ok((scale, zero_point)) = scheme.choose(min, max) else { return f64::INFINITY };
        let (scale, zero_point) = (scale as f64, zero_point.to_i32() as f64);
        let (low, high) = (scheme.codes().min as f64 - zero_point, scheme.codes().max as f64 - zero_point);
        let (mut sum, mut total) = (0.0, 0.0);
        for (from, to, count) in self.occupied() {
            sum += count as f64 * squared_error::mean(from / scale, to / scale, low, high);
            total += count as f64;
        }
        if total > 0.0 { sum / total * (scale * scale) } else { 0.0 }
    }
}

impl Clip for MseStatistic {
    const NAME: &'static str = "Mse";

    fn clip<T: Element>(&self, histogram: &PowerOfTwoHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        let Bounds { min, max } = histogram.bounds();
        let part = |bound: f32, parts: i32| (bound as f64 * parts as f64 / PARTS as f64) as f32;
        let range = |(i, j): (i32, i32)| {
            let (low, high) = (part(min.min(0.0), i), part(max.max(0.0), j));
            // A bound that excludes zero stays in place until the other bound reaches it.
            (if min > 0.0 { min.min(high) } else { low }, if max < 0.0 { max.max(low) } else { high })
        };
        let error = |parts: (i32, i32)| {
            let (min, max) = range(parts);
            histogram.mean_squared_error(scheme, min, max)
        };
        // The search has two dimensions only if both bounds are free.
        let tied = scheme.is_symmetric() || min >= 0.0 || max <= 0.0;
        let improve = |mut best: (f64, (i32, i32)), i: &[i32], j: &[i32]| {
            for (row, &i) in i.iter().enumerate() {
                for (column, &j) in j.iter().enumerate() {
                    let parts = (i.clamp(1, PARTS), j.clamp(1, PARTS));
                    if !tied || row == column {
                        let error = error(parts);
                        best = if error < best.0 { (error, parts) } else { best };
                    }
                }
            }
            best
        };
        let full = (PARTS, PARTS);
        let mut best = improve((error(full), full), &COARSE, &COARSE);
        let mut step = COARSE[0] - COARSE[1];
        while step > 1 {
            step /= 2;
            let (i, j) = best.1;
            best = improve(best, &[i - step, i, i + step], &[j - step, j, j + step]);
        }
        range(best.1)
    }
}
