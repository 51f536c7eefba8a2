//! The choice of an activation's range.

use core::fmt;

use crate::error::Result;
use crate::observer::{Clip, EntropyStatistic, MseStatistic, PercentileStatistic, PowerOfTwoHistogram};
use crate::scheme::Scheme;

/// The choice of an activation's range from its values, by [`Calibration::recipe`](super::Calibration::recipe). (ONNX
/// Runtime: `CalibrationMethod`.)
///
/// Each uses the formula of the [observer](crate::observer) of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum CalibrationMethod {
    /// Minimum to maximum, see [`MinMax`](crate::observer::MinMax).
    #[default]
    MinMax,
    /// The central percentage of the values, above 50 and at most 100, see [`Percentile`](crate::observer::Percentile).
    Percentile(f64),
    /// Least mean squared error, see [`Mse`](crate::observer::Mse).
    Mse,
    /// Least Kullback-Leibler divergence, see [`Entropy`](crate::observer::Entropy).
    Entropy,
}

impl fmt::Display for CalibrationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalibrationMethod::MinMax => f.pad("MinMax"),
            CalibrationMethod::Percentile(p) => write!(f, "Percentile {p}"),
            CalibrationMethod::Mse => f.pad("Mse"),
            CalibrationMethod::Entropy => f.pad("Entropy"),
        }
    }
}

impl CalibrationMethod {
    /// The range of an activation.
    pub(crate) fn range(self, histogram: &PowerOfTwoHistogram) -> Result<(f32, f32)> {
        let scheme = Scheme::<u8>::asymmetric();
        Ok(match self {
            CalibrationMethod::MinMax => (histogram.bounds().min(), histogram.bounds().max()),
            CalibrationMethod::Percentile(p) => PercentileStatistic::new(p)?.clip(histogram, &scheme),
            CalibrationMethod::Mse => MseStatistic.clip(histogram, &scheme),
            CalibrationMethod::Entropy => EntropyStatistic.clip(histogram, &scheme),
        })
    }
}
