//! Clips where the KL divergence of the quantized distribution is least.

use alloc::vec::Vec;

use super::BlockObserver;
use super::clip::Clip;
use super::power_of_two_histogram::PowerOfTwoHistogram;
use crate::element::Element;
use crate::scheme::Scheme;

/// The range with the least Kullback-Leibler divergence between the values and the quantized values. (TensorRT:
/// `IInt8EntropyCalibrator`; ONNX Runtime: `EntropyCalibrater`; Migacz, "8-bit inference with TensorRT", GTC 2017.)
///
/// For each bin edge `t` of a [`PowerOfTwoHistogram`], values are clipped to `[-t, t]` and two distributions are compared:
///
/// - `P`: the histogram, with clipped values counted in the outermost bins;
/// - `Q`: the bins within `[-t, t]`, without the clipped values, merged into one bin per code of the scheme (for symmetric
///   schemes: the bins of `abs(x)`, merged into half the number of codes). Each merged count, at least 1e-4, is then
///   spread evenly over its bins in which `P` is not zero.
///
/// The range is the widest one with the least divergence `sum(P * ln(P / Q))`, both normalized. Nothing is clipped if the
/// scheme has more codes than the histogram has bins. Merging is exact.
///
/// ```
/// use ndarray::{Array, Ix1};
/// use ndarray_quant::{QParams, Scheme, observer::Entropy};
/// let mut x = Array::from_shape_fn(10_000, |i| (i as f32).sin());
/// x[7] = 20.0; // an outlier
/// let mut range = Entropy::per_tensor();
/// range.observe(&x)?;
/// let params: QParams<i8> = Scheme::symmetric().params(&range)?;
/// assert!(params.scales()[0] < 5.0 / 127.5);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type Entropy = BlockObserver<EntropyStatistic>;

/// The [`Clip`] of [`Entropy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EntropyStatistic;

impl Clip for EntropyStatistic {
    const NAME: &'static str = "Entropy";

    fn clip<T: Element>(&self, histogram: &PowerOfTwoHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        let threshold = if scheme.is_symmetric() {
            threshold(&histogram.magnitudes(), scheme.levels().div_ceil(2))
        } else {
            threshold(histogram, scheme.levels())
        };
        histogram.clipped(threshold)
    }
}

/// Count of an empty merged bin that `P` needs, so that the divergence stays finite. (ONNX Runtime's smoothing.)
const SMOOTHING: f64 = 1e-4;

/// The greatest clipping threshold with the least divergence.
fn threshold(histogram: &PowerOfTwoHistogram, levels: u64) -> f32 {
    let below = histogram.bins_below_zero();
    let above = histogram.counts().len() - below;
    let prefix_sums = PrefixSums::new(histogram.counts());
    let widest = below.max(above);
    // Candidate thresholds in bins, with the range of bins that each keeps.
    let candidates = (1..=widest).rev().map(|bins| (bins, below - bins.min(below), below + bins.min(above)));
    let (mut best, mut least) = (widest, f64::INFINITY);
    for (bins, from, to) in candidates.take_while(|(_, from, to)| (to - from) as u64 >= levels) {
        let divergence = prefix_sums.divergence(from, to, levels as usize);
        // A difference within the rounding error must not narrow the range.
        if divergence < least - 1e-12 {
            (best, least) = (bins, divergence);
        }
    }
    if best == widest { histogram.bounds().magnitude() } else { (best as f64 * histogram.bin_width()) as f32 }
}

/// Prefix sums over the bins, so that the divergence of a candidate takes one step per code.
struct PrefixSums<'h> {
    counts: &'h [u64],
    cumulative: Vec<f64>,
    x_ln_x: Vec<f64>,
    occupied: Vec<f64>,
}

fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * num_traits::Float::ln(x) } else { 0.0 }
}

impl<'h> PrefixSums<'h> {
    fn new(counts: &'h [u64]) -> Self {
        let prefix_sum = |f: fn(f64) -> f64| {
            let mut sum = 0.0;
            let sums = counts.iter().map(|&count| {
                sum += f(count as f64);
                sum
            });
            core::iter::once(0.0).chain(sums).collect()
        };
        let occupied = |x| if x > 0.0 { 1.0 } else { 0.0 };
        PrefixSums { counts, cumulative: prefix_sum(|x| x), x_ln_x: prefix_sum(x_ln_x), occupied: prefix_sum(occupied) }
    }

    /// The divergence of the bins `from..to` merged into `levels` bins, at least two.
    ///
    /// With counts `p` and `q`, `sum(P * ln(P / Q)) = (sum(p ln p) - sum(p ln q)) / sum(p) + ln(sum(q) / sum(p))`, and `q`
    /// is constant over a merged bin.
    fn divergence(&self, from: usize, to: usize, levels: usize) -> f64 {
        let total = self.cumulative[self.counts.len()];
        let clipped = [(from, self.cumulative[from]), (to - 1, total - self.cumulative[to])];
        let mut p_ln_p = self.x_ln_x[to] - self.x_ln_x[from];
        for (bin, clipped) in clipped {
            let count = self.counts[bin] as f64;
            p_ln_p += x_ln_x(count + clipped) - x_ln_x(count);
        }
        let (mut p_ln_q, mut kept) = (0.0, 0.0);
        let edge = |level: usize| from + level * (to - from) / levels;
        for level in 0..levels {
            let (start, end) = (edge(level), edge(level + 1));
            let merged = self.cumulative[end] - self.cumulative[start];
            let (mut p, mut occupied) = (merged, self.occupied[end] - self.occupied[start]);
            for (bin, clipped) in clipped {
                if (start..end).contains(&bin) && clipped > 0.0 {
                    p += clipped;
                    occupied += if self.counts[bin] == 0 { 1.0 } else { 0.0 };
                }
            }
            if p > 0.0 {
                let q = if merged > 0.0 { merged } else { SMOOTHING };
                p_ln_q += p * num_traits::Float::ln(q / occupied);
                kept += q;
            }
        }
        (p_ln_p - p_ln_q) / total + num_traits::Float::ln(kept / total)
    }
}
