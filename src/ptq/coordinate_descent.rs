//! Coordinate descent on the codes of weights.

use alloc::vec::Vec;

use ndarray::{ArrayRef2, Ix2};

use super::hessian::{add_scaled, check_hessian};
use super::rows::{Grid, Rounder, Row, Rows};
use crate::element::{Compute, Element};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::qtensor::QTensor;
use crate::simd::{self, Task};

/// Passes over all codes. Few codes move after the first passes.
const PASSES: usize = 6;

/// Damping of the Hessian, as a fraction of each diagonal element and of their mean. It keeps the codes from overfitting
/// the sample. (GPTQ adds 0.01 of the mean to the diagonal for the same reason.)
const DAMPING: f64 = 0.05;

/// A diagonal element for inputs that are always 0, so that it is not 0.
const MIN_DIAGONAL: f64 = 1e-30;

/// Cyclic coordinate descent (QuantEase: Behdin et al., "QuantEase: Optimization-based Quantization for Language Models",
/// 2023): moves one code after the other to where the layer's squared error is least, until no code moves or after 6
/// passes.
///
/// It minimizes `(w - ŵ) · H · (w - ŵ)ᵀ` of each output, the objective of GPTQ and AdaRound, starting from the nearest
/// codes. The Hessian is damped: 0.05 of each diagonal element and of their mean are added to the diagonal.
///
/// Cost: up to `6 · out · in²` multiply–accumulates if every code moved; few do.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{I4, Scheme, metrics::sqnr_db, ptq::{CoordinateDescent, InputStatistics}};
///
/// let weights = Array2::from_shape_fn((8, 32), |(o, i)| ((o * 32 + i) as f32 * 0.7).sin());
/// let x = Array2::from_shape_fn((100, 32), |(n, i)| (n as f32 * 0.3).sin() + 0.2 * ((n * 32 + i) as f32 * 0.9).cos());
/// let mut statistics = InputStatistics::new(32);
/// statistics.observe(&x)?;
///
/// let scheme = Scheme::<I4>::symmetric().per_axis(Axis(0));
/// let moved = CoordinateDescent::new().quantize(&weights, &scheme, &statistics.second_moments())?;
/// let sqnr = |q: Array2<f32>| sqnr_db(&x.dot(&weights.t()), &x.dot(&q.t()));
/// assert!(sqnr(moved.dequantize())? > sqnr(scheme.quantize(&weights)?.dequantize())? + 3.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CoordinateDescent {}

impl CoordinateDescent {
    /// Creates the method.
    pub fn new() -> Self {
        Self {}
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
        let diagonal = hessian.diag().mapv(|v| v.max(0.0));
        let mean = diagonal.mean().unwrap_or(0.0);
        let mut hessian = hessian.as_standard_layout().into_owned();
        hessian.diag_mut().zip_mut_with(&diagonal, |c, v| *c = v + DAMPING * (v + mean) + MIN_DIAGONAL);
        let hessian = hessian.as_slice().expect("the hessian is row-major");
        rows.each(depth * depth, |rounder, group, rows| {
            rows.iter_mut().for_each(|row| simd::run(Descend { rounder, group, hessian, row }));
        });
        rows.with_same_params()
    }
}

/// Coordinate descent on `(w - ŵ) · H · (w - ŵ)ᵀ` over the codes of `ŵ`, for one output.
struct Descend<'a, T: Element> {
    rounder: &'a Rounder<T>,
    group: usize,
    hessian: &'a [f64],
    row: &'a mut Row,
}

impl<T: Element> Task for Descend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rounder, group, hessian, row: Row { weights, codes, blocks } } = self;
        let (low, high) = (f64::from(rounder.codes.min), f64::from(rounder.codes.max));
        let depth = weights.len();
        let mut codes_f64: Vec<f64> = codes.iter().map(|&code| f64::from(code)).collect();
        // `H · (w - ŵ)ᵀ`: minus half the gradient.
        let mut gradient = alloc::vec![0f64; depth];
        for (k, row) in hessian.chunks_exact(depth.max(1)).enumerate() {
            let error = f64::from(weights[k]) - rounder.value(codes[k], blocks[k / group]);
            add_scaled(&mut gradient, error, row);
        }
        for _ in 0..PASSES {
            let mut moved = false;
            for (k, row) in hessian.chunks_exact(depth.max(1)).enumerate() {
                let scale = f64::from(blocks[k / group].scale);
                let target = codes_f64[k] + Compute::round_ties_even(gradient[k] / (row[k] * scale));
                let target = if target < low { low } else { target };
                let target = if target > high { high } else { target };
                let step = target - codes_f64[k];
                // Not for NaN.
                if step.abs() > 0.0 {
                    moved = true;
                    codes_f64[k] = target;
                    add_scaled(&mut gradient, -(step * scale), row);
                }
            }
            if !moved {
                break;
            }
        }
        codes.iter_mut().zip(&codes_f64).for_each(|(code, &q)| *code = q as i32);
    }
}
