//! The bounds of batches, averaged with exponentially falling weights.

use alloc::string::ToString;
use core::num::NonZeroU64;

use super::{BlockObserver, Statistic};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::range::Bounds;
use crate::scheme::Scheme;

/// The moving average of the bounds of each batch. (PyTorch: `MovingAverageMinMaxObserver`.)
///
/// The first batch sets `min` and `max`; each later one moves them by `min += c * (batch_min - min)`, and `max` alike,
/// in `f32`. An outlier of one batch fades.
///
/// With `n` batches in `b`, whose first had the bound `first`, merging gives `b + (1 - c)^n * (a - first)`: what one
/// pass over both gives, up to rounding.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::observer::{MovingAverage, Observer};
/// let mut range = MovingAverage::new(0.5)?; // `per_tensor()` takes PyTorch's 0.01
/// range.observe(&array![0.0f32, 1.0])?;
/// range.observe(&array![-1.0f32, 2.0])?;
/// let average = range.blocks()[0].bounds();
/// assert_eq!((average.min(), average.max()), (-0.5, 1.5));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type MovingAverage = BlockObserver<Smoothed>;

impl MovingAverage {
    /// An observer per tensor with this averaging constant.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `0 < constant <= 1`.
    pub fn new(constant: f32) -> Result<Self> {
        Ok(Self::of(Smoothed::new(constant)?))
    }
}

/// The [`Statistic`] of [`MovingAverage`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "f32", try_from = "f32"))]
pub struct Smoothed {
    constant: f32,
}

impl Smoothed {
    /// With this averaging constant: the weight of the newest batch. Errors as [`MovingAverage::new`].
    pub fn new(constant: f32) -> Result<Self> {
        if 0.0 < constant && constant <= 1.0 {
            Ok(Self { constant })
        } else {
            let found = constant.to_string();
            Err(Error::Argument { what: "averaging constant", expected: "above 0 and at most 1", found })
        }
    }

    /// `f` for both bounds; kept in order where rounding crosses them.
    fn both(a: Bounds, b: Bounds, f: impl Fn(f32, f32) -> f32) -> Bounds {
        let (min, max) = (f(a.min, b.min), f(a.max, b.max));
        Bounds { min: min.min(max), max }
    }
}

/// The constant of PyTorch.
impl Default for Smoothed {
    fn default() -> Self {
        Self { constant: 0.01 }
    }
}

impl From<Smoothed> for f32 {
    fn from(s: Smoothed) -> f32 {
        s.constant
    }
}

impl TryFrom<f32> for Smoothed {
    type Error = Error;
    fn try_from(constant: f32) -> Result<Self> {
        Self::new(constant)
    }
}

/// What [`Smoothed`] keeps of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Average {
    /// Merging takes its weight back.
    first: Bounds,
    mean: Bounds,
    batches: NonZeroU64,
}

impl Average {
    /// The averaged bounds.
    pub fn bounds(&self) -> Bounds {
        self.mean
    }
}

impl Statistic for Smoothed {
    type State = Average;
    const NAME: &'static str = "MovingAverage";

    fn start(&self, batch: Bounds) -> Average {
        Average { first: batch, mean: batch, batches: NonZeroU64::MIN }
    }

    fn update(&self, state: &mut Average, batch: Bounds) {
        state.batches = state.batches.saturating_add(1);
        state.mean = Self::both(state.mean, batch, |mean, new| {
            let step = new - mean;
            if step.is_finite() {
                mean + self.constant * step
            } else {
                (mean as f64 + self.constant as f64 * (new as f64 - mean as f64)) as f32
            }
        });
    }

    fn merge(&self, state: &mut Average, other: &Average) {
        let kept = num_traits::Float::powf(1.0 - self.constant as f64, other.batches.get() as f64);
        // What is left of the difference that the other's first batch would have made.
        let rest = |mean: f32, first: f32| kept * (mean as f64 - first as f64);
        let (min, max) = (rest(state.mean.min, other.first.min), rest(state.mean.max, other.first.max));
        let within = |x: f64| x.clamp(-f32::MAX as f64, f32::MAX as f64) as f32;
        let (min, max) = (within(other.mean.min as f64 + min), within(other.mean.max as f64 + max));
        state.mean = Bounds { min: min.min(max), max };
        state.batches = state.batches.saturating_add(other.batches.get());
    }

    fn range<T: Element>(&self, state: &Average, _: &Scheme<T>) -> (f32, f32) {
        (state.mean.min, state.mean.max)
    }
}
