//! Clips a fixed percentage of the values.

use alloc::string::ToString;

use super::BlockObserver;
use super::clip::Clip;
use super::power_of_two_histogram::PowerOfTwoHistogram;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::scheme::Scheme;

/// The range of the central `percentile` percent of all values. (ONNX Runtime: `PercentileCalibrater`.)
///
/// With `p = percentile / 100` and the quantile function `Q` of the values:
///
/// | scheme | range |
/// |---|---|
/// | asymmetric | `[Q((1 - p) / 2), Q((1 + p) / 2)]` |
/// | symmetric | `[min, max]` clipped to `[-a, a]`, with `a` the quantile `p` of `abs(x)` |
///
/// The default is ONNX Runtime's 99.999. Quantiles come from a [`PowerOfTwoHistogram`] whose bins are taken as uniformly
/// filled, so bounds are exact to one bin; a percentile of 100 gives the exact minimum and maximum. Merging is exact.
///
/// ```
/// use ndarray::{Array, Axis, Ix1};
/// use ndarray_quant::{QParams, Scheme, observer::Percentile};
/// let mut x = Array::linspace(0.0f32, 1.0, 1000);
/// x[7] = 100.0; // an outlier
/// let mut range = Percentile::per_tensor().with_percentile(99.0)?;
/// range.observe(&x)?;
/// let params: QParams<u8> = Scheme::asymmetric().params(&range)?;
/// assert!(params.scales()[0] < 1.05 / 255.0);
///
/// let per_channel = Percentile::per_axis(Axis(0)).with_percentile(99.0)?;
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type Percentile = BlockObserver<PercentileStatistic>;

impl Percentile {
    /// Keeps the central `percentile` percent of the values. Earlier observations stay, so one calibration serves several
    /// percentiles.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `50 < percentile <= 100`.
    pub fn with_percentile(self, percentile: f64) -> Result<Self> {
        Ok(self.replace_statistic(PercentileStatistic::new(percentile)?))
    }

    /// The percentage of the values that the range keeps.
    pub fn percentile(&self) -> f64 {
        self.statistic().percentile
    }
}

/// The [`Clip`] of [`Percentile`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "f64", try_from = "f64"))]
pub struct PercentileStatistic {
    percentile: f64,
}

impl PercentileStatistic {
    pub(crate) fn new(percentile: f64) -> Result<Self> {
        if 50.0 < percentile && percentile <= 100.0 {
            Ok(Self { percentile })
        } else {
            let found = percentile.to_string();
            Err(Error::Argument { what: "percentile", expected: "above 50 and at most 100", found })
        }
    }
}

/// ONNX Runtime's default, 99.999.
impl Default for PercentileStatistic {
    fn default() -> Self {
        Self { percentile: 99.999 }
    }
}

impl From<PercentileStatistic> for f64 {
    fn from(statistic: PercentileStatistic) -> f64 {
        statistic.percentile
    }
}

impl TryFrom<f64> for PercentileStatistic {
    type Error = Error;
    fn try_from(percentile: f64) -> Result<Self> {
        Self::new(percentile)
    }
}

impl Clip for PercentileStatistic {
    const NAME: &'static str = "Percentile";

    fn clip<T: Element>(&self, histogram: &PowerOfTwoHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        if scheme.is_symmetric() {
            histogram.clipped(histogram.magnitudes().quantile(self.percentile / 100.0))
        } else {
            let tail = (100.0 - self.percentile) / 200.0;
            (histogram.quantile(tail), histogram.quantile(1.0 - tail))
        }
    }
}
