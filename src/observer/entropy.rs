//! Clips where the quantized distribution tells most about the original one.

use alloc::vec::Vec;

use super::BlockObserver;
use super::clip::Clip;
use super::dyadic::DyadicHistogram;
use crate::element::Element;
use crate::scheme::Scheme;

/// The range whose quantized distribution is nearest to that of the values. (TensorRT's and ONNX Runtime's entropy
/// calibration; Migacz, "8-bit inference with TensorRT", 2017.)
///
/// Candidates clip the values to `-t..=t`, for each bin edge `t` of a [`DyadicHistogram`]. `P` is the clipped
/// histogram: what was clipped counts in the outermost bins. For `Q` the bins within are joined to as many as the
/// scheme has codes (half as many of `abs(x)` if it is symmetric), and each joined count, at least 1e-4, is spread
/// evenly over those of its bins that `P` has values in. The range is the widest with the least divergence
/// `sum(P * ln(P / Q))` of the two distributions.
///
/// Schemes with more codes than the histogram has bins are not clipped. Merging is exact.
///
/// ```
/// use ndarray::{Array, Ix1};
/// use ndarray_quant::{QParams, Scheme, observer::{Entropy, Observer}};
/// let mut x = Array::from_shape_fn(10_000, |i| (i as f32).sin());
/// x[7] = 20.0; // an outlier
/// let mut range = Entropy::per_tensor();
/// range.observe(&x)?;
/// let params: QParams<i8, Ix1> = Scheme::symmetric().params(&range)?;
/// assert!(params.scale()[0] < 5.0 / 127.5);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type Entropy = BlockObserver<LeastDivergence>;

/// The [`Clip`] of [`Entropy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeastDivergence;

impl Clip for LeastDivergence {
    const NAME: &'static str = "Entropy";

    fn clip<T: Element>(&self, histogram: &DyadicHistogram, scheme: &Scheme<T>) -> (f32, f32) {
        let threshold = if scheme.is_symmetric() {
            threshold(&histogram.magnitudes(), scheme.levels().div_ceil(2))
        } else {
            threshold(histogram, scheme.levels())
        };
        histogram.clipped(threshold)
    }
}

/// What a bin counts whose emptiness would make the divergence infinite. (The smoothing of ONNX Runtime.)
const ALMOST_NONE: f64 = 1e-4;

/// The widest magnitude with the least divergence.
fn threshold(histogram: &DyadicHistogram, levels: u64) -> f32 {
    let below = histogram.bins_below_zero();
    let above = histogram.counts().len() - below;
    let sums = Sums::new(histogram.counts());
    let widest = below.max(above);
    let windows = (1..=widest).rev().map(|reach| (reach, below - reach.min(below), below + reach.min(above)));
    let (mut best, mut least) = (widest, f64::INFINITY);
    for (reach, from, to) in windows.take_while(|(_, from, to)| (to - from) as u64 >= levels) {
        let divergence = sums.divergence(from, to, levels as usize);
        // Rounding alone must not clip.
        if divergence < least - 1e-12 {
            (best, least) = (reach, divergence);
        }
    }
    if best == widest { histogram.bounds().magnitude() } else { (best as f64 * histogram.bin_width()) as f32 }
}

/// Sums over the bins before each edge, so that a candidate costs one step per level.
struct Sums<'h> {
    counts: &'h [u64],
    mass: Vec<f64>,
    x_ln_x: Vec<f64>,
    occupied: Vec<f64>,
}

fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * num_traits::Float::ln(x) } else { 0.0 }
}

impl<'h> Sums<'h> {
    fn new(counts: &'h [u64]) -> Self {
        let running = |f: fn(f64) -> f64| {
            let mut sum = 0.0;
            let sums = counts.iter().map(|&count| {
                sum += f(count as f64);
                sum
            });
            core::iter::once(0.0).chain(sums).collect()
        };
        let occupied = |x| if x > 0.0 { 1.0 } else { 0.0 };
        Sums { counts, mass: running(|x| x), x_ln_x: running(x_ln_x), occupied: running(occupied) }
    }

    /// Of the bins `from..to` joined to `levels`, at least two.
    ///
    /// With `p` and `q` as counts, `sum(P * ln(P / Q))` is
    /// `(sum(p ln p) - sum(p ln q)) / sum(p) + ln(sum(q) / sum(p))`, and `q` is the same all over a level.
    fn divergence(&self, from: usize, to: usize, levels: usize) -> f64 {
        let total = self.mass[self.counts.len()];
        let clipped = [(from, self.mass[from]), (to - 1, total - self.mass[to])];
        let mut p_ln_p = self.x_ln_x[to] - self.x_ln_x[from];
        for (bin, clipped) in clipped {
            let count = self.counts[bin] as f64;
            p_ln_p += x_ln_x(count + clipped) - x_ln_x(count);
        }
        let (mut p_ln_q, mut kept) = (0.0, 0.0);
        let edge = |level: usize| from + level * (to - from) / levels;
        for level in 0..levels {
            let (start, end) = (edge(level), edge(level + 1));
            let joined = self.mass[end] - self.mass[start];
            let (mut p, mut occupied) = (joined, self.occupied[end] - self.occupied[start]);
            for (bin, clipped) in clipped {
                if (start..end).contains(&bin) && clipped > 0.0 {
                    p += clipped;
                    occupied += if self.counts[bin] == 0 { 1.0 } else { 0.0 };
                }
            }
            if p > 0.0 {
                let q = if joined > 0.0 { joined } else { ALMOST_NONE };
                p_ln_q += p * num_traits::Float::ln(q / occupied);
                kept += q;
            }
        }
        (p_ln_p - p_ln_q) / total + num_traits::Float::ln(kept / total)
    }
}
