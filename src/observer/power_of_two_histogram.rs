//! A histogram with bin widths that are powers of two, so that it merges exactly.

use alloc::{vec, vec::Vec};

use crate::range::Bounds;
use crate::simd::{self, Task};

/// The greatest number of bins.
const MAX_BINS: i64 = 2048;

/// A histogram whose bin width is a power of two, `2^e`, and whose edges are multiples of the width: bin `k` counts the
/// values in `[k * 2^e, (k + 1) * 2^e)`.
///
/// The bins span `min(min, 0)` to `max(max, 0)`, and `e` is the least exponent for at most 2048 bins, so the bins depend
/// only on the bounds of the data. When the bounds grow, `e` rises and neighbouring bins are added in pairs. The counts
/// are therefore the same for data observed at once, in batches of any order, or by several observers that are merged.
///
/// A [`Clip`](super::Clip) gets this histogram to choose a range from. ([`HistogramObserver`](super::HistogramObserver) has
/// PyTorch's histogram instead.)
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::observer::Mse;
/// let mut range = Mse::per_tensor();
/// range.observe(&array![-1.0f32, 0.0, 0.25, 1.5])?;
/// let histogram = &range.blocks()[0];
/// assert_eq!(histogram.bin_width(), 2.0 / 1024.0);
/// assert_eq!(histogram.edges(0).0, -1.0);
/// assert_eq!(histogram.counts().iter().sum::<u64>(), 4);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "Serialized", try_from = "Serialized"))]
pub struct PowerOfTwoHistogram {
    bounds: Bounds,
    layout: BinLayout,
    counts: Vec<u64>,
}

/// The serialized fields; the bounds determine the bins.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Serialized {
    bounds: Bounds,
    counts: Vec<u64>,
}

#[cfg(feature = "serde")]
impl From<PowerOfTwoHistogram> for Serialized {
    fn from(h: PowerOfTwoHistogram) -> Self {
        Serialized { bounds: h.bounds, counts: h.counts }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Serialized> for PowerOfTwoHistogram {
    type Error = crate::error::Error;
    fn try_from(serialized: Serialized) -> crate::error::Result<Self> {
        let empty = Self::new(serialized.bounds);
        crate::error::check_count("number of histogram bins", empty.counts.len(), serialized.counts.len())?;
        Ok(Self { counts: serialized.counts, ..empty })
    }
}

/// The bins `first..first + len` of width `2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct BinLayout {
    exponent: i32,
    first: i64,
    len: usize,
}

impl BinLayout {
    fn of(bounds: Bounds) -> Self {
        // If the greatest magnitude is at least 2^b, a width of 2^(b - 12) always needs more than MAX_BINS bins.
        let biased = (bounds.magnitude().to_bits() >> 23) as i32;
        let mut exponent = biased - 127 - 11;
        loop {
            let first = bin(bounds.min, exponent).min(0);
            let len = bin(bounds.max, exponent).max(0) - first + 1;
            if len <= MAX_BINS {
                return BinLayout { exponent, first, len: len as usize };
            }
            exponent += 1;
        }
    }
}

/// Number of values whose bins are computed together.
const CHUNK: usize = 64;

/// Computes the index of each value's bin in `counts`.
struct Bins<'a> {
    values: &'a [f32; CHUNK],
    layout: BinLayout,
}

impl Task for Bins<'_> {
    type Output = [u32; CHUNK];

    #[inline(always)]
    fn run(self) -> [u32; CHUNK] {
        let scale = power_of_two(-self.layout.exponent);
        let (first, last) = (self.layout.first as i32, self.layout.len as i32 - 1);
        let mut bins = [0; CHUNK];
        for (bin, &x) in bins.iter_mut().zip(self.values) {
            *bin = (floor(x as f64 * scale) - first).clamp(0, last) as u32;
        }
        bins
    }
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// `floor(x / 2^exponent)`, exactly. The quotient must be below 2^31 in magnitude.
fn bin(x: f32, exponent: i32) -> i64 {
    floor(x as f64 * power_of_two(-exponent)) as i64
}

/// Rounds down without `f64::floor`, because not every target has an instruction for it.
#[inline(always)]
fn floor(x: f64) -> i32 {
    let truncated = x as i32;
    truncated - (truncated as f64 > x) as i32
}

impl PowerOfTwoHistogram {
    /// An empty histogram for values within `bounds`.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let layout = BinLayout::of(bounds);
        Self { bounds, layout, counts: vec![0; layout.len] }
    }

    /// Widens the bounds to include `bounds`, adding bins in pairs where the width grows.
    pub(crate) fn widen(&mut self, bounds: Bounds) {
        self.bounds.join(bounds);
        let layout = BinLayout::of(self.bounds);
        if layout != self.layout {
            let old = core::mem::replace(&mut self.counts, vec![0; layout.len]);
            self.add(self.layout, &old, layout);
            self.layout = layout;
        }
    }

    fn add(&mut self, from: BinLayout, counts: &[u64], to: BinLayout) {
        let shift = (to.exponent - from.exponent).min(63);
        for (bin, &count) in (from.first..).zip(counts) {
            let sum = &mut self.counts[((bin >> shift) - to.first) as usize];
            *sum = sum.saturating_add(count);
        }
    }

    /// Counts values, which must be within the bounds.
    pub(crate) fn count(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks();
        let mut last = [0.0; CHUNK];
        last[..rest.len()].copy_from_slice(rest);
        let counted = chunks.iter().map(|chunk| (chunk, CHUNK)).chain([(&last, rest.len())]);
        for (chunk, len) in counted {
            let bins = simd::run(Bins { values: chunk, layout: self.layout });
            for &bin in &bins[..len] {
                let count = &mut self.counts[bin as usize];
                *count = count.saturating_add(1);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.widen(other.bounds);
        self.add(other.layout, &other.counts, self.layout);
    }

    /// The exact minimum and maximum of the values.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The width of a bin, a power of two.
    pub fn bin_width(&self) -> f64 {
        power_of_two(self.layout.exponent)
    }

    /// The number of values in each bin.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The lower and the upper edge of a bin, an index into [`counts`](Self::counts). Both are exact.
    pub fn edges(&self, bin: usize) -> (f64, f64) {
        let low = (self.layout.first + bin as i64) as f64 * self.bin_width();
        (low, low + self.bin_width())
    }

    /// The number of bins below zero.
    pub(super) fn bins_below_zero(&self) -> usize {
        -self.layout.first as usize
    }

    /// The lower edge, the upper edge and the count of each bin that is not empty; edges are clamped to the bounds.
    pub(super) fn occupied(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let (min, max) = (self.bounds.min as f64, self.bounds.max as f64);
        let occupied = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        occupied.map(move |(bin, &count)| {
            let (low, high) = self.edges(bin);
            (low.clamp(min, max), high.clamp(min, max), count)
        })
    }

    /// The histogram of `abs(x)`: the count of bin `-1 - k` is added to bin `k`.
    pub(super) fn magnitudes(&self) -> Self {
        let below = self.bins_below_zero();
        let (negative, positive) = self.counts.split_at(below);
        let len = negative.len().max(positive.len());
        let at = |k: usize| {
            let mirrored = below.checked_sub(k + 1).map_or(0, |i| negative[i]);
            positive.get(k).map_or(0, |&count| count).saturating_add(mirrored)
        };
        let Bounds { min, max } = self.bounds;
        Self {
            bounds: Bounds { min: min.max(-max).max(0.0), max: self.bounds.magnitude() },
            layout: BinLayout { first: 0, len, ..self.layout },
            counts: (0..len).map(at).collect(),
        }
    }

    /// The quantile `p` (0 to 1), with values uniformly distributed within their bins.
    pub(super) fn quantile(&self, p: f64) -> f32 {
        let total: f64 = self.counts.iter().map(|&count| count as f64).sum();
        let mut rest = p * total;
        for (low, high, count) in self.occupied() {
            let count = count as f64;
            if rest <= count {
                let x = if rest == count { high } else { low + (high - low) * (rest / count) };
                return (x as f32).clamp(self.bounds.min, self.bounds.max);
            }
            rest -= count;
        }
        self.bounds.max
    }

    /// The bounds clamped to `-threshold..=threshold`.
    pub(super) fn clipped(&self, threshold: f32) -> (f32, f32) {
        (self.bounds.min.clamp(-threshold, threshold), self.bounds.max.clamp(-threshold, threshold))
    }
}
