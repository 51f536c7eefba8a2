//! Clips a fixed share of the values.

use alloc::string::ToString;

use super::BlockObserver;
use super::clip::Clip;
use super::dyadic::DyadicHistogram;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::scheme::Scheme;

/// The range of the central `percent` of all values. (ONNX Runtime: `PercentileCalibrater`.)
///
/// Asymmetric schemes lose `(100 - percent) / 2` percent of the values at each end. Symmetric ones get the magnitude
/// that `percent` of the values do not exceed. Values are taken as spread evenly within the bins of a
/// [`DyadicHistogram`], so bounds are exact to one bin; 100 percent are the exact bounds. Merging is exact.
///
/// ```
/// use ndarray::{Array, Axis, Ix1};
/// use ndarray_quant::{Granularity, QParams, Scheme, observer::{Observer, Percentile}};
/// let mut x = Array::linspace(0.0f32, 1.0, 1000);
/// x[7] = 100.0; // an outlier
/// let mut range = Percentile::new(99.0)?;
/// range.observe(&x)?;
/// let params: QParams<u8, Ix1> = Scheme::asymmetric().params(&range)?;
/// assert!(params.scale()[0] < 1.05 / 255.0);
///
/// let per_row = Percentile::new(99.0)?.with_granularity(Granularity::per_axis(Axis(0)));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type Percentile = BlockObserver<CentralMass>;

impl Percentile {
    /// An observer per tensor that keeps this share of the values.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `50 < percent <= 100`.
    pub fn new(percent: f64) -> Result<Self> {
        Ok(Self::of(CentralMass::new(percent)?))
    }
}

/// The [`Clip`] of [`Percentile`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "f64", try_from = "f64"))]
pub struct CentralMass {
    percent: f64,
}

impl CentralMass {
    /// With this share of the values. Errors as [`Percentile::new`].
    pub fn new(percent: f64) -> Result<Self> {
        if 50.0 < percent && percent <= 100.0 {
            Ok(Self { percent })
        } else {
            let found = percent.to_string();
            Err(Error::Argument { what: "percentile", expected: "above 50 and at most 100", found })
        }
    }
}

impl From<CentralMass> for f64 {
    fn from(c: CentralMass) -> f64 {
        c.percent
    }
}

impl TryFrom<f64> for CentralMass {
    type Error = Error;
    fn try_from(percent: f64) -> Result<Self> {
        Self::new(percent)
    }
}

impl Clip for CentralMass {
    const NAME: &'static str = "Percentile";

    fn clip<T: Element>(&self, histogram: &DyadicHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        if scheme.is_symmetric() {
            histogram.clipped(histogram.magnitudes().quantile(self.percent / 100.0))
        } else {
            let cut = (100.0 - self.percent) / 200.0;
            (histogram.quantile(cut), histogram.quantile(1.0 - cut))
        }
    }
}
