//! A histogram whose bins merge exactly.

use alloc::{vec, vec::Vec};

use crate::arch::{self, Task};
use crate::range::Bounds;

/// A histogram never has more bins than this.
const MAX_BINS: i64 = 2048;

/// A histogram with bins of width `2^e` whose edges are multiples of the width: bin `k` counts values in
/// `[k * 2^e, (k + 1) * 2^e)`.
///
/// The bins reach from the smallest value, or zero, to the greatest, or zero, and `e` is the least for which they are
/// at most 2048. So the bins depend on the bounds of the data alone. When the bounds grow, `e` rises and neighbouring
/// bins are added pairwise, so the counts are the same whether the data came at once, in batches of any order, or from
/// merged histograms.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::observer::{Mse, Observer};
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
#[cfg_attr(feature = "serde", serde(into = "Raw", try_from = "Raw"))]
pub struct DyadicHistogram {
    bounds: Bounds,
    grid: Grid,
    counts: Vec<u64>,
}

/// What a serialized histogram holds: the bounds fix its bins.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Raw {
    bounds: Bounds,
    counts: Vec<u64>,
}

#[cfg(feature = "serde")]
impl From<DyadicHistogram> for Raw {
    fn from(h: DyadicHistogram) -> Self {
        Raw { bounds: h.bounds, counts: h.counts }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Raw> for DyadicHistogram {
    type Error = crate::error::Error;
    fn try_from(raw: Raw) -> crate::error::Result<Self> {
        let empty = Self::new(raw.bounds);
        if empty.counts.len() != raw.counts.len() {
            return Err(crate::error::Error::shape("histogram bins", &[empty.counts.len()], &[raw.counts.len()]));
        }
        Ok(Self { counts: raw.counts, ..empty })
    }
}

/// Bins `first..first + len` of width `2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    exponent: i32,
    first: i64,
    len: usize,
}

impl Grid {
    fn of(bounds: Bounds) -> Self {
        // With a greatest magnitude of at least 2^b, a width of 2^(b - 12) always needs too many bins.
        let biased = (bounds.magnitude().to_bits() >> 23) as i32;
        let mut exponent = biased - 127 - 11;
        loop {
            let first = bin(bounds.min, exponent).min(0);
            let len = bin(bounds.max, exponent).max(0) - first + 1;
            if len <= MAX_BINS {
                return Grid { exponent, first, len: len as usize };
            }
            exponent += 1;
        }
    }
}

/// Values whose bins are computed together.
const LANES: usize = 64;

/// The place of each value's bin in the counts.
struct Bins<'a> {
    values: &'a [f32; LANES],
    grid: Grid,
}

impl Task for Bins<'_> {
    type Output = [u32; LANES];

    #[inline(always)]
    fn run(self) -> [u32; LANES] {
        let scale = power_of_two(-self.grid.exponent);
        let (first, last) = (self.grid.first as i32, self.grid.len as i32 - 1);
        let mut bins = [0; LANES];
        for (bin, &x) in bins.iter_mut().zip(self.values) {
            *bin = (floor(x as f64 * scale) - first).clamp(0, last) as u32;
        }
        bins
    }
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// `floor(x / 2^exponent)`, for a quotient of far less than 2^31. It is exact.
fn bin(x: f32, exponent: i32) -> i64 {
    floor(x as f64 * power_of_two(-exponent)) as i64
}

/// Rounds down without the instruction for it, which not every target has.
#[inline(always)]
fn floor(x: f64) -> i32 {
    let truncated = x as i32;
    truncated - (truncated as f64 > x) as i32
}

impl DyadicHistogram {
    /// Without counts, for values within these bounds.
    pub(super) fn new(bounds: Bounds) -> Self {
        let grid = Grid::of(bounds);
        Self { bounds, grid, counts: vec![0; grid.len] }
    }

    /// Widens to these bounds, merging bins as needed.
    pub(super) fn widen(&mut self, bounds: Bounds) {
        self.bounds.join(bounds);
        let grid = Grid::of(self.bounds);
        if grid != self.grid {
            let old = core::mem::replace(&mut self.counts, vec![0; grid.len]);
            self.add(self.grid, &old, grid);
            self.grid = grid;
        }
    }

    fn add(&mut self, from: Grid, counts: &[u64], to: Grid) {
        let shift = (to.exponent - from.exponent).min(63);
        for (bin, &count) in (from.first..).zip(counts) {
            let sum = &mut self.counts[((bin >> shift) - to.first) as usize];
            *sum = sum.saturating_add(count);
        }
    }

    /// Counts values, which are within the bounds.
    pub(super) fn count(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks();
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let counted = chunks.iter().map(|chunk| (chunk, LANES)).chain([(&last, rest.len())]);
        for (chunk, len) in counted {
            let bins = arch::run(Bins { values: chunk, grid: self.grid });
            for &bin in &bins[..len] {
                let count = &mut self.counts[bin as usize];
                *count = count.saturating_add(1);
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.widen(other.bounds);
        self.add(other.grid, &other.counts, self.grid);
    }

    /// The exact bounds of the values.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The width of a bin, a power of two.
    pub fn bin_width(&self) -> f64 {
        power_of_two(self.grid.exponent)
    }

    /// How many values there are in each bin.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The lower and the upper edge of the bin at this place of [`counts`](Self::counts). Exact.
    pub fn edges(&self, bin: usize) -> (f64, f64) {
        let low = (self.grid.first + bin as i64) as f64 * self.bin_width();
        (low, low + self.bin_width())
    }

    /// The number of bins below zero.
    pub(super) fn bins_below_zero(&self) -> usize {
        -self.grid.first as usize
    }

    /// The bins that hold values: where these lie, and how many they are.
    pub(super) fn occupied(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let (min, max) = (self.bounds.min as f64, self.bounds.max as f64);
        let occupied = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        occupied.map(move |(bin, &count)| {
            let (low, high) = self.edges(bin);
            (low.clamp(min, max), high.clamp(min, max), count)
        })
    }

    /// The histogram of `abs(x)`: bin `-1 - k` joins bin `k`.
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
            grid: Grid { first: 0, len, ..self.grid },
            counts: (0..len).map(at).collect(),
        }
    }

    /// Where the `part` (0 to 1) of the values that is smallest ends, taking values as spread evenly within their bin.
    pub(super) fn quantile(&self, part: f64) -> f32 {
        let total: f64 = self.counts.iter().map(|&count| count as f64).sum();
        let mut rest = part * total;
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

    /// What remains of the bounds within `-reach..=reach`.
    pub(super) fn clipped(&self, reach: f32) -> (f32, f32) {
        (self.bounds.min.clamp(-reach, reach), self.bounds.max.clamp(-reach, reach))
    }
}
