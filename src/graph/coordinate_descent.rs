//! Rounds weights by coordinate descent on the error of the layer's output.

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};

use super::calibrate::LayerMoments;
use super::network::Constant;
use crate::element::Compute;
use crate::simd::{self, Task};

/// Passes over all codes. Few codes move after the first passes.
const PASSES: usize = 6;

/// Damping of the covariance, as a fraction of each variance and of the mean variance. It keeps the codes from
/// overfitting the sample. (GPTQ adds 0.01 of the mean to the diagonal of the Hessian for the same reason.)
const DAMPING: f64 = 0.05;

/// A variance for inputs that never vary, so that it is not 0.
const MIN_VARIANCE: f64 = 1e-30;

/// Moves the codes `[out, ...]` of weights to where `(w - ŵ) · Cov[x] · (w - ŵ)ᵀ`, the variance of the output's error, is
/// least in every single code. `scales` has one scale per output channel, `code_range` the smallest and the largest code.
pub(crate) fn round(
    moments: &LayerMoments,
    weights: &Constant,
    scales: &[f32],
    code_range: (i32, i32),
    codes: &mut ArrayD<i8>,
) {
    let out = weights.len_of(Axis(0)) / moments.groups().max(1);
    for group in 0..moments.groups() {
        let mut covariance = moments.covariance(group);
        let variances = covariance.diag().mapv(|v| v.max(0.0));
        let mean = variances.mean().unwrap_or(0.0);
        covariance.diag_mut().zip_mut_with(&variances, |c, v| *c = v + DAMPING * (v + mean) + MIN_VARIANCE);
        // The sums of huge inputs overflow. The nearest codes stay then.
        if !covariance.iter().all(|c| c.is_finite()) {
            continue;
        }
        let covariance = covariance.as_slice().expect("the covariance is row-major");
        let channels = Slice::from(group * out..(group + 1) * out);
        let weights = weights.slice_axis(Axis(0), channels);
        let mut codes = codes.slice_axis_mut(Axis(0), channels);
        for (c, w) in weights.outer_iter().enumerate() {
            let mut codes = codes.index_axis_mut(Axis(0), c);
            let scale = scales[group * out + c] as f64;
            let w: Vec<f64> = row_order(w).iter().map(|&w| w as f64 / scale).collect();
            let mut q: Vec<f64> = row_order(codes.view()).iter().map(|&q| q.into()).collect();
            simd::run(Descend { covariance, weights: &w, code_range, codes: &mut q });
            let mut codes = codes.view_mut();
            if codes.ndim() == 3 {
                codes = codes.permuted_axes(&[1, 2, 0][..]);
            }
            codes.iter_mut().zip(&q).for_each(|(code, &q)| *code = q as i8);
        }
    }
}

/// The mean error of each output channel, `(w - ŵ) · E[x]`, which bias correction adds to the bias.
pub(crate) fn mean_error(moments: &LayerMoments, w: &Constant, rounded: &Constant) -> Vec<f64> {
    let out = w.len_of(Axis(0)) / moments.groups().max(1);
    let means: Vec<_> = (0..moments.groups()).map(|group| moments.mean(group)).collect();
    let error = |channel: usize| {
        let [w, rounded] = [w, rounded].map(|w| row_order(w.index_axis(Axis(0), channel)));
        w.iter().zip(&rounded).zip(&means[channel / out]).map(|((&w, &r), m)| (w as f64 - r as f64) * m).sum()
    };
    (0..w.len_of(Axis(0))).map(error).collect()
}

/// The weights of one output channel in the order of its input rows: `[in, kh, kw]` as `[kh, kw, in]`.
fn row_order<T: Copy>(w: ArrayViewD<'_, T>) -> Vec<T> {
    let w = if w.ndim() == 3 { w.permuted_axes(&[1, 2, 0][..]) } else { w };
    w.iter().copied().collect()
}

/// Coordinate descent on `(w - q) · C · (w - q)ᵀ` over integers `q`, for one output channel. Weights are in units of the
/// scale.
struct Descend<'a> {
    covariance: &'a [f64],
    weights: &'a [f64],
    code_range: (i32, i32),
    codes: &'a mut [f64],
}

impl Task for Descend<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { covariance, weights, code_range, codes } = self;
        let (low, high) = (code_range.0 as f64, code_range.1 as f64);
        let depth = weights.len();
        // `C · (w - q)ᵀ`: minus half the gradient.
        let mut gradient = alloc::vec![0f64; depth];
        for (k, row) in covariance.chunks_exact(depth.max(1)).enumerate() {
            let error = weights[k] - codes[k];
            for (g, c) in gradient.iter_mut().zip(row) {
                *g += error * c;
            }
        }
        for _ in 0..PASSES {
            let mut moved = false;
            for (k, row) in covariance.chunks_exact(depth.max(1)).enumerate() {
                let target = codes[k] + Compute::round_ties_even(gradient[k] / row[k]);
                let target = if target < low { low } else { target };
                let target = if target > high { high } else { target };
                let step = target - codes[k];
                if step != 0.0 {
                    moved = true;
                    codes[k] = target;
                    for (g, c) in gradient.iter_mut().zip(row) {
                        *g -= step * c;
                    }
                }
            }
            if !moved {
                break;
            }
        }
    }
}
