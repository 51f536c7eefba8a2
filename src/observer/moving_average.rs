//! The exponential moving average of the bounds of each batch.

use alloc::string::ToString;
use core::num::NonZeroU64;

use super::{BlockObserver, Statistic};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::range::Bounds;
use crate::scheme::Scheme;

/// The exponential moving average of the minimum and the maximum of each batch. (PyTorch:
/// `MovingAverageMinMaxObserver`, `MovingAveragePerChannelMinMaxObserver`; ONNX Runtime:
/// `MinMaxCalibrater(moving_average=True)`.)
///
/// The first batch sets `min` and `max`. Each later batch updates `min += c * (min(x) - min)`, and `max` alike, in `f32`;
/// `c` is PyTorch's `averaging_constant`, 0.01 by default. An outlier in one batch fades with the batches that follow.
///
/// Merging approximates one pass over both parts, up to rounding: if `b` observed `n` batches, the first with the bound
/// `first`, the merged bound is `b + (1 - c)^n * (a - first)`. The result depends on the order of the batches.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{Scheme, observer::MovingAverage};
/// let mut range = MovingAverage::per_tensor().with_averaging_constant(0.5)?;
/// range.observe(&array![0.0f32, 1.0])?;
/// range.observe(&array![-1.0f32, 2.0])?;
/// let ranges = range.ranges(&Scheme::<u8>::asymmetric())?;
/// assert_eq!((ranges.min().sum(), ranges.max().sum()), (-0.5, 1.5));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type MovingAverage = BlockObserver<MovingAverageStatistic>;

impl MovingAverage {
    /// An observer of the same granularity with this averaging constant, the weight of the newest batch. It starts without
    /// observations.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `0 < averaging_constant <= 1`.
    pub fn with_averaging_constant(self, averaging_constant: f32) -> Result<Self> {
        let statistic = MovingAverageStatistic::new(averaging_constant)?;
        Ok(Self::from_statistic(statistic).with_granularity(self.granularity()))
    }

    /// The weight of the newest batch.
    pub fn averaging_constant(&self) -> f32 {
        self.statistic().averaging_constant
    }
}

/// The [`Statistic`] of [`MovingAverage`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "f32", try_from = "f32"))]
pub struct MovingAverageStatistic {
    averaging_constant: f32,
}

impl MovingAverageStatistic {
    fn new(averaging_constant: f32) -> Result<Self> {
        if 0.0 < averaging_constant && averaging_constant <= 1.0 {
            Ok(Self { averaging_constant })
        } else {
            let found = averaging_constant.to_string();
            Err(Error::Argument { what: "averaging constant", expected: "above 0 and at most 1", found })
        }
    }

    /// Applies `f` to both bounds, and restores their order if rounding reversed it.
    fn both(a: Bounds, b: Bounds, f: impl Fn(f32, f32) -> f32) -> Bounds {
        let (min, max) = (f(a.min, b.min), f(a.max, b.max));
        Bounds { min: min.min(max), max }
    }
}

/// PyTorch's default, 0.01.
impl Default for MovingAverageStatistic {
    fn default() -> Self {
        Self { averaging_constant: 0.01 }
    }
}

impl From<MovingAverageStatistic> for f32 {
    fn from(statistic: MovingAverageStatistic) -> f32 {
        statistic.averaging_constant
    }
}

impl TryFrom<f32> for MovingAverageStatistic {
    type Error = Error;
    fn try_from(averaging_constant: f32) -> Result<Self> {
        Self::new(averaging_constant)
    }
}

/// The averaged bounds of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AveragedBounds {
    /// The bounds of the first batch, whose weight changes when the batches of another observer come before it.
    first: Bounds,
    mean: Bounds,
    batches: NonZeroU64,
}

impl AveragedBounds {
    /// The averaged bounds.
    pub fn bounds(&self) -> Bounds {
        self.mean
    }
}

impl Statistic for MovingAverageStatistic {
    type State = AveragedBounds;
    const NAME: &'static str = "MovingAverage";

    fn start(&self, batch: Bounds) -> AveragedBounds {
        AveragedBounds { first: batch, mean: batch, batches: NonZeroU64::MIN }
    }

    fn update(&self, state: &mut AveragedBounds, batch: Bounds) {
        let c = self.averaging_constant;
        state.batches = state.batches.saturating_add(1);
        state.mean = Self::both(state.mean, batch, |mean, new| {
            let difference = new - mean;
            if difference.is_finite() {
                mean + c * difference
            } else {
                (mean as f64 + c as f64 * (new as f64 - mean as f64)) as f32
            }
        });
    }

    fn merge(&self, state: &mut AveragedBounds, other: &AveragedBounds) {
        let weight = num_traits::Float::powf(1.0 - self.averaging_constant as f64, other.batches.get() as f64);
        // `other` gave this weight to its first batch; the earlier batches take it over.
        let correction = |mean: f32, first: f32| weight * (mean as f64 - first as f64);
        let min = correction(state.mean.min, other.first.min);
        let max = correction(state.mean.max, other.first.max);
        let within = |x: f64| x.clamp(-f32::MAX as f64, f32::MAX as f64) as f32;
        let (min, max) = (within(other.mean.min as f64 + min), within(other.mean.max as f64 + max));
        state.mean = Bounds { min: min.min(max), max };
        state.batches = state.batches.saturating_add(other.batches.get());
    }

    fn range<T: Element>(&self, state: &AveragedBounds, _: &Scheme<T>) -> (f32, f32) {
        (state.mean.min, state.mean.max)
    }
}
