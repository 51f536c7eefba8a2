//! PyTorch's histogram observer.

use alloc::{vec, vec::Vec};

use super::squared_error::integral;
use super::{BlockObserver, Statistic};
use crate::element::Element;
use crate::range::Bounds;
use crate::scheme::Scheme;

const BINS: usize = 2048;

/// A bin is split into this number of parts before they move to wider bins (PyTorch: `upsample_rate`).
const UPSAMPLE: usize = 16;

/// The search narrows the range by this quantile per step.
const STEP: f64 = 1e-5;

/// PyTorch's `HistogramObserver`, with its 2048 bins and upsampling rate of 16.
///
/// Use it to agree with PyTorch. [`Mse`](super::Mse) minimizes the same error and merges exactly.
///
/// The bins span the minimum to the maximum. When the range grows, each bin is split into 16 parts, and each part moves to
/// the new bin that contains its centre. The range is then narrowed by quantiles, 1e-5 per step, at the end where the
/// bound moves further, while that lowers the squared error of rounding to `2^bits` equal intervals.
///
/// Merging moves bins in the same way; each move displaces a value by at most one bin.
///
/// ```
/// use ndarray::{Array, Ix1};
/// use ndarray_quant::{Convention, QParams, Scheme, observer::HistogramObserver};
/// let mut range = HistogramObserver::per_tensor();
/// range.observe(&Array::linspace(-1.0f32, 1.0, 4096))?;
/// assert_eq!(range.blocks()[0].counts().iter().sum::<f64>(), 4096.0);
/// let scheme = Scheme::<u8>::asymmetric().with_convention(Convention::Torch);
/// let params: QParams<u8> = scheme.params(&range)?;
/// assert!((params.scales()[0] - 2.0 / 255.0).abs() < 1e-4);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type HistogramObserver = BlockObserver<HistogramStatistic>;

/// The [`Statistic`] of [`HistogramObserver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HistogramStatistic;

/// 2048 equal bins from the minimum to the maximum, with fractional counts.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Serialized"))]
pub struct TorchHistogram {
    bounds: Bounds,
    counts: Vec<f64>,
}

/// The serialized fields, before they are validated.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Serialized {
    bounds: Bounds,
    counts: Vec<f64>,
}

#[cfg(feature = "serde")]
impl TryFrom<Serialized> for TorchHistogram {
    type Error = crate::error::Error;
    fn try_from(Serialized { bounds, counts }: Serialized) -> crate::error::Result<Self> {
        use crate::error::{Error, check_count};
        check_count("number of histogram bins", BINS, counts.len())?;
        let count = |x: &f64| (0.0..=u64::MAX as f64).contains(x);
        if let Some(bad) = counts.iter().find(|x| !count(x)) {
            let found = alloc::string::ToString::to_string(bad);
            return Err(Error::Argument { what: "histogram count", expected: "at least 0 and below 2^64", found });
        }
        Ok(Self { bounds, counts })
    }
}

impl TorchHistogram {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, counts: vec![0.0; BINS] }
    }

    /// The exact bounds of the values.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The number of values in each bin.
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    fn bin_width(&self) -> f64 {
        (self.bounds.max as f64 - self.bounds.min as f64) / BINS as f64
    }

    /// The bin of a value. If all values are equal, the bins have no width, and the value is in the middle bin.
    fn bin_of(&self) -> impl Fn(f64) -> usize + use<> {
        let (min, width) = (self.bounds.min as f64, self.bin_width());
        move |x| if width > 0.0 { (((x - min) / width) as usize).min(BINS - 1) } else { BINS / 2 }
    }

    fn widen(&mut self, bounds: Bounds) {
        let mut wide = Self::new(self.bounds);
        wide.bounds.join(bounds);
        if wide.bounds != self.bounds {
            wide.add(self);
            *self = wide;
        }
    }

    /// Adds the counts of a histogram whose bounds lie within the bounds of `self`.
    fn add(&mut self, other: &Self) {
        if self.bounds == other.bounds {
            self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
            return;
        }
        let bin_of = self.bin_of();
        let (min, part) = (other.bounds.min as f64, other.bin_width() / UPSAMPLE as f64);
        for (bin, &count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            for centre in (bin * UPSAMPLE..(bin + 1) * UPSAMPLE).map(|i| i as f64 + 0.5) {
                self.counts[bin_of(min + centre * part)] += count / UPSAMPLE as f64;
            }
        }
    }

    /// The squared error, up to a constant factor, if `intervals` equal intervals cover the bins `start..=end` and each
    /// value is rounded to the centre of its interval.
    fn error(&self, start: usize, end: usize, intervals: f64) -> f64 {
        let interval = (end + 1 - start) as f64 / intervals;
        let edge = |bin: usize| integral((bin as f64 - start as f64) / interval - 0.5, 0.0, intervals - 1.0);
        let mut low = edge(0);
        let mut sum = 0.0;
        for (bin, &count) in self.counts.iter().enumerate() {
            let high = edge(bin + 1);
            sum += count * (high - low);
            low = high;
        }
        sum * interval * interval * interval
    }

    /// The first and the last bin of the range with the least error.
    fn search(&self, intervals: f64) -> (usize, usize) {
        let running = self.counts.iter().scan(0.0, |sum, &count| {
            *sum += count;
            Some(*sum)
        });
        let running: Vec<f64> = running.collect();
        let total = running[BINS - 1];
        let (mut start, mut end) = (0, BINS - 1);
        let (mut alpha, mut beta) = (0.0, 1.0);
        let mut least = f64::INFINITY;
        while alpha < beta {
            let (next_alpha, next_beta) = (alpha + STEP, beta - STEP);
            let (mut left, mut right) = (start, end);
            while left < end && running[left] < next_alpha * total {
                left += 1;
            }
            while right > start && running[right] > next_beta * total {
                right -= 1;
            }
            let next = if left - start > end - right {
                alpha = next_alpha;
                (left, end)
            } else {
                beta = next_beta;
                (start, right)
            };
            if next == (start, end) {
                continue;
            }
            let error = self.error(next.0, next.1, intervals);
            if error > least {
                break;
            }
            least = error;
            (start, end) = next;
        }
        (start, end)
    }
}

impl Statistic for HistogramStatistic {
    type State = TorchHistogram;
    const NAME: &'static str = "HistogramObserver";
    const NEEDS_VALUES: bool = true;

    fn start(&self, batch: Bounds) -> TorchHistogram {
        TorchHistogram::new(batch)
    }

    fn update(&self, state: &mut TorchHistogram, batch: Bounds) {
        state.widen(batch);
    }

    fn extend(&self, state: &mut TorchHistogram, values: &[f32]) {
        let bin_of = state.bin_of();
        values.iter().for_each(|&x| state.counts[bin_of(x as f64)] += 1.0);
    }

    fn merge(&self, state: &mut TorchHistogram, other: &TorchHistogram) {
        state.widen(other.bounds);
        let mut other = other.clone();
        other.widen(state.bounds);
        state.add(&other);
    }

    fn range<T: Element>(&self, state: &TorchHistogram, _: &Scheme<T>) -> (f32, f32) {
        let Bounds { min, max } = state.bounds;
        if min == max {
            return (min, max);
        }
        let (start, end) = state.search((1u64 << T::BITS) as f64);
        let at = |bin: usize| ((min as f64 + state.bin_width() * bin as f64) as f32).clamp(min, max);
        (at(start), at(end + 1))
    }
}
