//! Statistics that choose the range from a histogram.

use core::fmt::Debug;

use super::Statistic;
use super::power_of_two_histogram::PowerOfTwoHistogram;
use crate::element::Element;
use crate::range::Bounds;
use crate::scheme::Scheme;

/// Chooses a range from a histogram of the values, and may clip some of them. Every `Clip` is a [`Statistic`] that merges
/// exactly.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{Element, Scheme, observer::{BlockObserver, Clip, PowerOfTwoHistogram}};
///
/// /// Ignores bins with a single value at both ends.
/// #[derive(Debug, Clone, PartialEq)]
/// struct WithoutOutliers;
///
/// impl Clip for WithoutOutliers {
///     const NAME: &'static str = "WithoutOutliers";
///     fn clip<T: Element>(&self, histogram: &PowerOfTwoHistogram, _: &Scheme<T>) -> (f32, f32) {
///         let mut bins = (0..histogram.counts().len()).filter(|&bin| histogram.counts()[bin] > 1);
///         let first = bins.next().unwrap_or(0);
///         let last = bins.next_back().unwrap_or(first);
///         (histogram.edges(first).0 as f32, histogram.edges(last).1 as f32)
///     }
/// }
///
/// let mut range = BlockObserver::from_statistic(WithoutOutliers);
/// range.observe(&array![0.0f32, 0.0, 2.0, 2.0, 7.0])?;
/// let ranges = range.ranges(&Scheme::<u8>::asymmetric())?;
/// assert_eq!(ranges.max().sum(), 2.0 + 1.0 / 256.0); // the upper edge of the bin
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Clip: Clone + Debug + PartialEq {
    /// The observer's name in its serialized form, see [`Statistic::NAME`].
    const NAME: &'static str;

    /// The lower and the upper bound for a scheme.
    fn clip<T: Element>(&self, histogram: &PowerOfTwoHistogram, scheme: &Scheme<T>) -> (f32, f32);
}

impl<C: Clip> Statistic for C {
    type State = PowerOfTwoHistogram;
    const NAME: &'static str = C::NAME;
    const NEEDS_VALUES: bool = true;

    fn start(&self, batch: Bounds) -> PowerOfTwoHistogram {
        PowerOfTwoHistogram::new(batch)
    }

    fn update(&self, state: &mut PowerOfTwoHistogram, batch: Bounds) {
        state.widen(batch);
    }

    fn extend(&self, state: &mut PowerOfTwoHistogram, values: &[f32]) {
        state.count(values);
    }

    fn merge(&self, state: &mut PowerOfTwoHistogram, other: &PowerOfTwoHistogram) {
        state.merge(other);
    }

    fn range<T: Element>(&self, state: &PowerOfTwoHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        self.clip(state, scheme)
    }
}
