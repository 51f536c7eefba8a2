//! HQQ: the scale and zero point of each block by half-quadratic splitting, without data.

use alloc::vec::Vec;

use ndarray::{ArrayRef2, Ix2};

use super::hessian::check_option;
use super::power::power;
use super::rows::{Rounder, Rows, ScaleZeroPoint};
use crate::element::{Compute, Element};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;
use crate::simd::{self, Task};

/// HQQ, half-quadratic quantization (Badri & Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023):
/// chooses the grid of each block by the weights alone, where few large errors cost less than in a squared error.
///
/// It lowers `Σ abs(w - ŵ)^p` of each block, `p < 1`, for the codes nearest to `w` on the grid. An auxiliary error `e`
/// splits that into two problems, which are solved in turn with a growing `β`:
///
/// 1. `e = sign(w - ŵ) * max(0, abs(w - ŵ) - abs(w - ŵ)^(p - 1) / β)`, the proximal operator of the `p`-norm,
/// 2. the zero point as the mean of `q - (w - e) / scale`, the least squares of `w - e - ŵ`.
///
/// The paper's zero points are floats and its scales are fixed. Here a zero point is a code, so step 2 rounds it, and then
/// takes the scale of least squares, too: `Σ (w - e)(q - z) / Σ (q - z)²`. Symmetric schemes keep their zero point. `w` is
/// in units of the block's first scale, and the grid of least `Σ abs(w - ŵ)^p` is kept, so that no block becomes worse than
/// with the range's grid.
///
/// Cost: about 100 operations for each weight and iteration.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{Scheme, U4, ptq::Hqq};
///
/// let weights = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin().powi(5));
/// let scheme = Scheme::<U4>::asymmetric().per_group(Axis(1), 32);
/// let error = |q: Array2<f32>| (&weights - &q).mapv(|e| e.abs().powf(0.7)).sum();
/// let (nearest, hqq) = (scheme.quantize(&weights)?, Hqq::new().quantize(&weights, &scheme)?);
/// assert!(error(hqq.dequantize()) < error(nearest.dequantize()));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hqq {
    norm: f64,
    beta: f64,
    beta_growth: f64,
    iterations: usize,
}

impl Default for Hqq {
    fn default() -> Self {
        Self::new()
    }
}

impl Hqq {
    /// The paper's settings: the norm of `p = 0.7`, `β = 10` growing by 1.01, 20 iterations.
    pub fn new() -> Self {
        Self { norm: 0.7, beta: 10.0, beta_growth: 1.01, iterations: 20 }
    }

    /// Sets `p`, the norm of errors (`lp_norm`).
    ///
    /// # Errors
    /// [`Error::Argument`] unless it is above 0 and at most 1.
    pub fn with_norm(mut self, p: f64) -> Result<Self> {
        check_option("norm", "above 0 and at most 1", p, p > 0.0 && p <= 1.0)?;
        self.norm = p;
        Ok(self)
    }

    /// Sets `β` and the factor by which it grows in each iteration (`beta`, `kappa`).
    ///
    /// # Errors
    /// [`Error::Argument`] unless `β` is positive and the factor at least 1.
    pub fn with_beta(mut self, beta: f64, growth: f64) -> Result<Self> {
        check_option("beta", "a positive, finite number", beta, beta > 0.0)?;
        check_option("growth of beta", "a finite number of at least 1", growth, growth >= 1.0)?;
        (self.beta, self.beta_growth) = (beta, growth);
        Ok(self)
    }

    /// Sets the number of iterations (`iters`).
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Quantizes weights `[out, in]`. Scales and zero points are in the shapes of the scheme, see
    /// [`QParams::new`](crate::QParams::new).
    ///
    /// # Errors
    /// [`Error::Value`] for a NaN or an infinity. [`Error::Params`] for blocks along axis 0.
    pub fn quantize<T: Element>(&self, weights: &ArrayRef2<f32>, scheme: &Scheme<T>) -> Result<QTensor<T, Ix2>> {
        let params = scheme.params_of(weights)?;
        if params.granularity() == Granularity::PerTensor {
            // One block of all rows.
            let row = weights.to_shape((1, weights.len())).expect("the elements of the matrix");
            let found = self.search(&row, params, scheme.is_symmetric())?.with_row_params()?;
            let (codes, params) = found.into();
            let codes = codes.into_shape_with_order(weights.raw_dim()).expect("the elements of the matrix");
            return QTensor::from_valid_codes(codes, params);
        }
        self.search(weights, params, scheme.is_symmetric())?.with_row_params()
    }

    fn search<T: Element>(
        &self,
        weights: &ArrayRef2<f32>,
        params: crate::QParams<T>,
        symmetric: bool,
    ) -> Result<Rows<T>> {
        let mut rows = Rows::nearest(weights, params)?;
        let macs = weights.ncols().saturating_mul(self.iterations).saturating_mul(100);
        rows.each(macs, |rounder, group, rows| {
            for row in rows {
                let blocks = row.weights.chunks(group).zip(row.codes.chunks_mut(group)).zip(&mut row.blocks);
                for ((weights, codes), block) in blocks {
                    simd::run(Split { hqq: self, rounder, symmetric, weights, codes, block });
                }
            }
        });
        Ok(rows)
    }
}

/// The search for the grid of one block.
struct Split<'a, T: Element> {
    hqq: &'a Hqq,
    rounder: &'a Rounder<T>,
    symmetric: bool,
    weights: &'a [f32],
    codes: &'a mut [i32],
    block: &'a mut ScaleZeroPoint,
}

impl<T: Element> Task for Split<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { hqq, rounder, symmetric, weights, codes, block } = self;
        let first = f64::from(block.scale);
        let (low, high) = (f64::from(rounder.codes.min), f64::from(rounder.codes.max));
        let errors = |block: ScaleZeroPoint, codes: &mut [i32], errors: &mut [f64]| {
            for ((&w, code), error) in weights.iter().zip(codes).zip(errors) {
                *code = rounder.code(f64::from(w), block);
                *error = (f64::from(w) - rounder.value(*code, block)) / first;
            }
        };
        let objective = |errors: &[f64]| errors.iter().map(|e| power(e.abs(), hqq.norm)).sum::<f64>();
        let (mut error, mut found) = (alloc::vec![0f64; weights.len()], codes.to_vec());
        errors(*block, &mut found, &mut error);
        let (mut current, mut least, mut beta) = (*block, objective(&error), hqq.beta);
        for _ in 0..hqq.iterations {
            // `w - e`.
            let target: Vec<f64> = weights
                .iter()
                .zip(&error)
                .map(|(&w, &error)| {
                    let magnitude = error.abs();
                    let shrunk = magnitude - power(magnitude, hqq.norm - 1.0) / beta;
                    let shrunk = if magnitude > 0.0 && shrunk > 0.0 { shrunk } else { 0.0 };
                    f64::from(w) - shrunk.copysign(error) * first
                })
                .collect();
            if !symmetric {
                let scale = f64::from(current.scale);
                let sum: f64 = found.iter().zip(&target).map(|(&q, w)| f64::from(q) - w / scale).sum();
                let mean = Compute::round_ties_even(sum / weights.len() as f64);
                current.zero_point = (if mean < low {
                    low
                } else if mean > high {
                    high
                } else {
                    mean
                }) as i32;
            }
            let zero = f64::from(current.zero_point);
            let (mut product, mut square) = (0.0, 0.0);
            for (&q, w) in found.iter().zip(&target) {
                let q = f64::from(q) - zero;
                product += w * q;
                square += q * q;
            }
            let scale = (product / square) as f32;
            // Also false for NaN. Reciprocals of smaller scales are not finite.
            if scale >= f32::MIN_POSITIVE && scale.is_finite() {
                current.scale = scale;
            }
            errors(current, &mut found, &mut error);
            let sum = objective(&error);
            if sum < least {
                least = sum;
                *block = current;
                codes.copy_from_slice(&found);
            }
            beta *= hqq.beta_growth;
        }
    }
}
