//! What all choices of a range from a histogram have in common.

use core::fmt::Debug;

use super::Statistic;
use super::dyadic::DyadicHistogram;
use crate::element::Element;
use crate::range::Bounds;
use crate::scheme::Scheme;

/// How to choose a range, given a histogram of the values. Whatever does is a [`Statistic`] that merges exactly.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::observer::statistic::{Clip, DyadicHistogram};
/// use ndarray_quant::{Element, Scheme, observer::{BlockObserver, Observer}};
///
/// /// Bins with a single value are taken for outliers.
/// #[derive(Debug, Clone, PartialEq)]
/// struct Crowded;
///
/// impl Clip for Crowded {
///     const NAME: &'static str = "Crowded";
///     fn clip<T: Element>(&self, histogram: &DyadicHistogram, _: &Scheme<T>) -> (f32, f32) {
///         let mut crowded = (0..histogram.counts().len()).filter(|&bin| histogram.counts()[bin] > 1);
///         let first = crowded.next().unwrap_or(0);
///         let last = crowded.next_back().unwrap_or(first);
///         (histogram.edges(first).0 as f32, histogram.edges(last).1 as f32)
///     }
/// }
///
/// let mut range = BlockObserver::of(Crowded);
/// range.observe(&array![0.0f32, 0.0, 2.0, 2.0, 7.0])?;
/// let ranges = range.ranges(&Scheme::<u8>::asymmetric())?;
/// assert_eq!(ranges.max().sum(), 2.0 + 1.0 / 256.0); // up to the edge of the bin
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Clip: Clone + Debug + PartialEq {
    /// The observer's name in its serialized form, see [`Statistic::NAME`].
    const NAME: &'static str;

    /// The lower and the upper bound that suit this scheme.
    fn clip<T: Element>(&self, histogram: &DyadicHistogram, scheme: &Scheme<T>) -> (f32, f32);
}

impl<C: Clip> Statistic for C {
    type State = DyadicHistogram;
    const NAME: &'static str = C::NAME;
    const NEEDS_VALUES: bool = true;

    fn start(&self, batch: Bounds) -> DyadicHistogram {
        DyadicHistogram::new(batch)
    }

    fn update(&self, state: &mut DyadicHistogram, batch: Bounds) {
        state.widen(batch);
    }

    fn extend(&self, state: &mut DyadicHistogram, values: &[f32]) {
        state.count(values);
    }

    fn merge(&self, state: &mut DyadicHistogram, other: &DyadicHistogram) {
        state.merge(other);
    }

    fn range<T: Element>(&self, state: &DyadicHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        self.clip(state, scheme)
    }
}
