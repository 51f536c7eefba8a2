//! AdaRound: rounding up or down, learned by gradient descent on a relaxation.

use alloc::vec::Vec;

use ndarray::{ArrayRef2, Ix2};

use super::hessian::{AT_ONCE, check_hessian, check_option};
use super::power::{ln, power};
use super::rows::{Grid, Row, Rows};
use crate::affine::Codes;
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::ops::unary::math::sigmoid;
use crate::qtensor::QTensor;
use crate::simd::{self, Task};

/// Ends of the rectified sigmoid before it is clipped to `0..=1`.
const LOW: f32 = -0.1;
const HIGH: f32 = 1.1;

/// The exponent of the regularizer, at the end of the warm start and at the end.
const EXPONENT: [f64; 2] = [20.0, 2.0];

/// The fraction of iterations without the regularizer.
const WARM_START: f64 = 0.2;

/// Adam's decay rates and the number that keeps its quotient finite.
const MOMENTUM: f32 = 0.9;
const SQUARES: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// AdaRound (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020): learns whether each
/// weight is rounded up or down.
///
/// It minimizes `(w - ŵ) · H · (w - ŵ)ᵀ` of each output, for `H = E[x · xᵀ]`
/// ([`second_moments`](super::InputStatistics::second_moments)), over `ŵ = scale * (clamp(floor(w / scale) + z + h(v)) - z)`,
/// where `h(v) = clamp(1.2 * sigmoid(v) - 0.1, 0, 1)` is the rectified sigmoid. The term `λ Σ (1 - abs(2 h(v) - 1)^β)`
/// drives `h` to 0 or 1; `β` falls from 20 to 2, and the first fifth of the iterations is without it. Adam descends on all
/// rows of the sample at once, which `H` stands for, where the paper takes batches of them. The error is in units of the
/// largest scale of the output and `H` in units of its mean diagonal element, so that `λ` and the learning rate do not
/// depend on the layer. An output whose noise would be larger than with the nearest codes keeps those.
///
/// [`CoordinateDescent`](super::CoordinateDescent) minimizes the same objective over all codes, and takes a fraction of the
/// time.
///
/// Cost: `iterations · out · in²` multiply–accumulates.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{I4, Scheme, metrics::sqnr_db, ptq::{AdaRound, InputStatistics}};
///
/// let weights = Array2::from_shape_fn((4, 32), |(o, i)| ((o * 32 + i) as f32 * 0.7).sin());
/// let x = Array2::from_shape_fn((100, 32), |(n, i)| (n as f32 * 0.3).sin() + 0.2 * ((n * 32 + i) as f32 * 0.9).cos());
/// let mut statistics = InputStatistics::new(32);
/// statistics.observe(&x)?;
///
/// let scheme = Scheme::<I4>::symmetric().per_axis(Axis(0));
/// let learned = AdaRound::new().quantize(&weights, &scheme, &statistics.second_moments())?;
/// let sqnr = |q: Array2<f32>| sqnr_db(&x.dot(&weights.t()), &x.dot(&q.t()));
/// assert!(sqnr(learned.dequantize())? > sqnr(scheme.quantize(&weights)?.dequantize())? + 3.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AdaRound {
    iterations: usize,
    learning_rate: f64,
    regularization: f64,
}

impl Default for AdaRound {
    fn default() -> Self {
        Self::new()
    }
}

impl AdaRound {
    /// 1000 iterations at a learning rate of 0.02, `λ = 0.1`.
    pub fn new() -> Self {
        Self { iterations: 1000, learning_rate: 0.02, regularization: 0.1 }
    }

    /// Sets the number of iterations.
    #[must_use]
    pub fn with_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Sets Adam's learning rate.
    ///
    /// # Errors
    /// [`Error::Argument`] unless it is positive and finite.
    pub fn with_learning_rate(mut self, rate: f64) -> Result<Self> {
        check_option("learning rate", "a positive, finite number", rate, rate > 0.0)?;
        self.learning_rate = rate;
        Ok(self)
    }

    /// Sets `λ`, the weight of the term that drives `h` to 0 or 1.
    ///
    /// # Errors
    /// [`Error::Argument`] unless it is finite and at least 0.
    pub fn with_regularization(mut self, lambda: f64) -> Result<Self> {
        check_option("regularization", "a finite number of at least 0", lambda, lambda >= 0.0)?;
        self.regularization = lambda;
        Ok(self)
    }

    /// Quantizes weights `[out, in]` by the Hessian `[in, in]` of the layer, a symmetric matrix.
    ///
    /// # Errors
    /// [`Error::Value`] for a NaN or an infinity. [`Error::Shape`] if the Hessian is not `[in, in]`, or given parameters do
    /// not fit the weights. [`Error::Params`] for blocks along axis 0.
    pub fn quantize<'a, T: Element>(
        &self,
        weights: &ArrayRef2<f32>,
        grid: impl Into<Grid<'a, T>>,
        hessian: &ArrayRef2<f64>,
    ) -> Result<QTensor<T, Ix2>> {
        let mut rows = Rows::nearest(weights, grid.into().params(weights)?)?;
        let depth = weights.ncols();
        check_hessian(depth, hessian)?;
        let mean = hessian.diag().mean().unwrap_or(0.0);
        let hessian: Vec<f32> = hessian.iter().map(|h| (h / mean) as f32).collect();
        // Inputs that are all 0 leave every code as it is.
        if hessian.iter().all(|h| h.is_finite()) {
            let macs = depth.saturating_mul(depth).saturating_mul(self.iterations);
            rows.each(macs, |rounder, group, rows| {
                for rows in rows.chunks_mut(AT_ONCE) {
                    simd::run(Learn { settings: self, codes: rounder.codes, group, hessian: &hessian, rows });
                }
            });
        }
        rows.with_same_params()
    }
}

/// The relaxed rounding of some rows, `[rows, in]` each.
struct Learn<'a> {
    settings: &'a AdaRound,
    codes: Codes,
    group: usize,
    hessian: &'a [f32],
    rows: &'a mut [Row],
}

/// What a weight is rounded to: `scale * clamp(floor + h, low, high)` in units of the row's largest scale, where `weight` is
/// the weight itself.
#[derive(Clone, Copy, Default)]
struct Target {
    weight: f32,
    scale: f32,
    floor: f32,
    low: f32,
    high: f32,
}

impl Task for Learn<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { settings, codes, group, hessian, rows } = self;
        let depth = rows.first().map_or(0, |row| row.weights.len());
        if depth == 0 {
            return;
        }
        let mut targets = Vec::with_capacity(rows.len() * depth);
        for row in rows.iter() {
            let unit = row.blocks.iter().fold(f32::MIN_POSITIVE, |max, block| max.max(block.scale));
            for (k, &w) in row.weights.iter().enumerate() {
                let block = row.blocks[k / group];
                let [low, high] = [codes.min, codes.max].map(|code| (code - block.zero_point) as f32);
                let floor = num_traits::Float::floor(w / block.scale);
                targets.push(Target { weight: w / unit, scale: block.scale / unit, floor, low, high });
            }
        }
        // `h` starts as the fraction.
        let start = |t: &Target| {
            let fraction = t.weight / t.scale - t.floor;
            let fraction = if fraction > 0.0 { fraction.min(1.0) } else { 0.0 };
            -ln(f64::from((HIGH - LOW) / (fraction - LOW) - 1.0)) as f32
        };
        let mut v: Vec<f32> = targets.iter().map(start).collect();
        let [mut momentum, mut squares, mut errors, mut gradients] = [const { Vec::new() }; 4];
        for values in [&mut momentum, &mut squares, &mut errors, &mut gradients] {
            *values = alloc::vec![0f32; v.len()];
        }
        let (mut decay, mut decay_squares) = (1.0, 1.0);
        for step in 0..settings.iterations {
            for ((error, &v), t) in errors.iter_mut().zip(&v).zip(&targets) {
                *error = t.scale * (t.floor + rectified(v)).clamp(t.low, t.high) - t.weight;
            }
            multiply(&errors, hessian, depth, &mut gradients);
            let progress = step as f64 / settings.iterations as f64;
            let annealed = (progress - WARM_START) / (1.0 - WARM_START);
            let exponent = EXPONENT[0] + (EXPONENT[1] - EXPONENT[0]) * annealed;
            let lambda = if annealed < 0.0 { 0.0 } else { settings.regularization };
            decay *= MOMENTUM;
            decay_squares *= SQUARES;
            let rate = settings.learning_rate as f32;
            let moments = momentum.iter_mut().zip(&mut squares);
            for (((v, (m, s)), gradient), t) in v.iter_mut().zip(moments).zip(&gradients).zip(&targets) {
                let h = rectified(*v);
                let code = t.floor + h;
                let inside = code > t.low && code < t.high;
                let by_error = if inside { 2.0 * t.scale * gradient } else { 0.0 };
                let side = 2.0 * h - 1.0;
                let by_term = match lambda > 0.0 {
                    true => -(2.0 * lambda * exponent * power(f64::from(side.abs()), exponent - 1.0)) as f32,
                    false => 0.0,
                };
                let sigmoid = sigmoid(*v);
                let slope = if h > 0.0 && h < 1.0 { (HIGH - LOW) * sigmoid * (1.0 - sigmoid) } else { 0.0 };
                let gradient = (by_error + by_term.copysign(-side) * f32::from(side != 0.0)) * slope;
                *m = MOMENTUM * *m + (1.0 - MOMENTUM) * gradient;
                *s = SQUARES * *s + (1.0 - SQUARES) * gradient * gradient;
                let (m, s) = (*m / (1.0 - decay), *s / (1.0 - decay_squares));
                *v -= rate * m / (num_traits::Float::sqrt(s) + EPSILON);
            }
        }
        // Keeps what is better than the nearest codes.
        let noise = |errors: &[f32], gradients: &mut [f32]| {
            multiply(errors, hessian, depth, gradients);
            let rows = errors.chunks_exact(depth.max(1)).zip(gradients.chunks_exact(depth.max(1)));
            let sum = |(e, g): (&[f32], &[f32])| e.iter().zip(g).map(|(e, g)| f64::from(*e) * f64::from(*g)).sum();
            rows.map(sum).collect::<Vec<f64>>()
        };
        let code = |t: &Target, h: f32| (t.floor + h).clamp(t.low, t.high);
        let learned: Vec<f32> = targets.iter().zip(&v).map(|(t, &v)| code(t, f32::from(rectified(v) >= 0.5))).collect();
        let error = |(t, code): (&Target, &f32)| t.scale * code - t.weight;
        errors = targets.iter().zip(&learned).map(error).collect();
        let found = noise(&errors, &mut gradients);
        let nearest: Vec<f32> = rows
            .iter()
            .flat_map(|row| {
                row.codes.iter().enumerate().map(|(k, code)| (code - row.blocks[k / group].zero_point) as f32)
            })
            .collect();
        errors = targets.iter().zip(&nearest).map(error).collect();
        let before = noise(&errors, &mut gradients);
        for (r, row) in rows.iter_mut().enumerate().filter(|(r, _)| found[*r] < before[*r]) {
            for (k, (code, &learned)) in row.codes.iter_mut().zip(&learned[r * depth..]).enumerate() {
                *code = learned as i32 + row.blocks[k / group].zero_point;
            }
        }
    }
}

/// The rectified sigmoid `h`.
#[inline(always)]
fn rectified(v: f32) -> f32 {
    ((HIGH - LOW) * sigmoid(v) + LOW).clamp(0.0, 1.0)
}

/// `out = errors · hessian`, row by row of the Hessian.
#[inline(always)]
fn multiply(errors: &[f32], hessian: &[f32], depth: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (i, row) in hessian.chunks_exact(depth.max(1)).enumerate() {
        for (out, errors) in out.chunks_exact_mut(depth).zip(errors.chunks_exact(depth)) {
            let error = errors[i];
            out.iter_mut().zip(row).for_each(|(out, h)| *out += error * h);
        }
    }
}
