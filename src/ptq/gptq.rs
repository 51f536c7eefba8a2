//! GPTQ: rounding column by column, with the errors passed on to the columns that follow.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayRef2, Ix2};

use super::hessian::{AT_ONCE, add_scaled, check_hessian, check_option, damped, factorize};
use super::rows::{Grid, Rounder, Row, Rows, ScaleZeroPoint};
use crate::element::{Code, Element};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;
use crate::simd::{self, Task};

/// GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022):
/// rounds weights one column after the other, and moves the columns that are not yet rounded to where they cancel the
/// error of those that are.
///
/// It minimizes `(w - ŵ) · H · (w - ŵ)ᵀ` of each output, for `H = E[x · xᵀ]`
/// ([`second_moments`](super::InputStatistics::second_moments)), greedily: with `H = U · D · Uᵀ`, `U` upper triangular with
/// a unit diagonal, and `e_i = w_i - ŵ_i`, column `j` becomes the code nearest to `w_j + Σ_{i < j} e_i · U_ij`. That is the
/// recursion of the paper without an inverse (Chee et al., "QuIP", 2023, theorem 6). All of it is computed in `f64`.
///
/// Groups without activation order: the scales of a group are chosen by a scheme when its columns are reached, from the
/// weights as they are moved by then. Otherwise they are those of the original weights (`static_groups`).
///
/// Cost: `in³ / 6 + out · in² / 2` multiply–accumulates, and `8 in²` bytes.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{I4, Scheme, metrics::sqnr_db, ptq::{Gptq, InputStatistics}};
///
/// let weights = Array2::from_shape_fn((8, 32), |(o, i)| ((o * 32 + i) as f32 * 0.7).sin());
/// let x = Array2::from_shape_fn((100, 32), |(n, i)| (n as f32 * 0.3).sin() + 0.2 * ((n * 32 + i) as f32 * 0.9).cos());
/// let mut statistics = InputStatistics::new(32);
/// statistics.observe(&x)?;
///
/// let scheme = Scheme::<I4>::symmetric().per_group(Axis(1), 16);
/// let nearest = scheme.quantize(&weights)?;
/// let gptq = Gptq::new().quantize(&weights, &scheme, &statistics.second_moments())?;
/// let sqnr = |q: Array2<f32>| sqnr_db(&x.dot(&weights.t()), &x.dot(&q.t()));
/// assert!(sqnr(gptq.dequantize())? > sqnr(nearest.dequantize())? + 3.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Gptq {
    damping: f64,
    activation_order: bool,
}

impl Default for Gptq {
    fn default() -> Self {
        Self::new()
    }
}

impl Gptq {
    /// Damping of 0.01, columns in their order.
    pub fn new() -> Self {
        Self { damping: 0.01, activation_order: false }
    }

    /// Sets the fraction of the mean of the Hessian's diagonal that is added to its diagonal (`percdamp`).
    ///
    /// # Errors
    /// [`Error::Argument`] unless it is finite and at least 0.
    pub fn with_damping(mut self, damping: f64) -> Result<Self> {
        check_option("damping", "a finite number of at least 0", damping, damping >= 0.0)?;
        self.damping = damping;
        Ok(self)
    }

    /// Rounds the columns of the largest `E[x²]` first, while many others can still cancel their error (`desc_act`,
    /// `act_order`).
    #[must_use]
    pub fn activation_order(mut self) -> Self {
        self.activation_order = true;
        self
    }

    /// Quantizes weights `[out, in]` by the Hessian `[in, in]` of the layer, a symmetric matrix. Columns whose inputs were
    /// always 0 are rounded to the nearest code.
    ///
    /// # Errors
    /// [`Error::Value`] for a NaN or an infinity. [`Error::Shape`] if the Hessian is not `[in, in]`, or given parameters do
    /// not fit the weights. [`Error::Params`] for blocks along axis 0. [`Error::Argument`] if the Hessian is not positive
    /// definite with its damping.
    pub fn quantize<'a, T: Element>(
        &self,
        weights: &ArrayRef2<f32>,
        grid: impl Into<Grid<'a, T>>,
        hessian: &ArrayRef2<f64>,
    ) -> Result<QTensor<T, Ix2>> {
        let grid = grid.into();
        let mut rows = Rows::nearest(weights, grid.params(weights)?)?;
        check_hessian(weights.ncols(), hessian)?;
        let mut order: Vec<usize> = (0..weights.ncols()).collect();
        if self.activation_order {
            // Stable, so that equal columns keep their order.
            order.sort_by(|&a, &b| hessian[[b, b]].total_cmp(&hessian[[a, a]]));
        }
        let mut factor = damped(hessian, self.damping, &order);
        factorize(&mut factor)?;
        let factor = factor.as_slice().expect("the factor is row-major");
        let scheme = match grid {
            Grid::Scheme(scheme) if matches!(scheme.granularity(), Granularity::PerGroup { .. }) => Some(scheme),
            _ => None,
        };
        let scheme = scheme.filter(|_| !self.activation_order);
        let depth = weights.ncols();
        rows.each(depth * depth / 2, |rounder, group, rows| {
            for rows in rows.chunks_mut(AT_ONCE) {
                simd::run(Compensate { rounder, group, scheme, factor, order: &order, rows });
            }
        });
        if scheme.is_some() { rows.with_row_params() } else { rows.with_same_params() }
    }
}

/// Columns that are rounded before the columns after them get their errors.
const BLOCK: usize = 128;

struct Compensate<'a, T: Element> {
    rounder: &'a Rounder<T>,
    group: usize,
    /// Chooses the grid of each group when it is reached.
    scheme: Option<&'a Scheme<T>>,
    /// `U`, row-major.
    factor: &'a [f64],
    order: &'a [usize],
    rows: &'a mut [Row],
}

impl<T: Element> Task for Compensate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rounder, group, scheme, factor, order, rows } = self;
        let depth = order.len();
        // `Σ e_i · U_ij` of the columns so far, by row, and the errors of a block.
        let mut feedback = alloc::vec![0f64; rows.len() * depth];
        let mut errors = alloc::vec![0f64; rows.len() * BLOCK];
        let mut moved = alloc::vec![0f64; if scheme.is_some() { group } else { 0 }];
        let mut start = 0;
        while start < depth {
            let end = depth.min(start + BLOCK);
            // A group starts when all columns before it are done.
            let end = if scheme.is_some() { end.min((start / group + 1) * group) } else { end };
            for (r, row) in rows.iter_mut().enumerate() {
                let feedback = &mut feedback[r * depth..][..depth];
                if let Some(scheme) = scheme.filter(|_| start.is_multiple_of(group)) {
                    let columns = start..depth.min(start + group);
                    let moved = &mut moved[..columns.len()];
                    moved.copy_from_slice(&feedback[columns.clone()]);
                    if let Some(block) = choose_grid(scheme, factor, columns, moved, row) {
                        row.blocks[start / group] = block;
                    }
                }
                for (j, &column) in order.iter().enumerate().take(end).skip(start) {
                    let w = f64::from(row.weights[column]);
                    let block = row.blocks[column / group];
                    let code = rounder.code(w + feedback[j], block);
                    row.codes[column] = code;
                    let error = w - rounder.value(code, block);
                    errors[r * BLOCK + j - start] = error;
                    add_scaled(&mut feedback[j + 1..end], error, &factor[j * depth + j + 1..]);
                }
            }
            for j in start..end {
                let factor = &factor[j * depth..][end..depth];
                for r in 0..rows.len() {
                    add_scaled(&mut feedback[r * depth..][end..depth], errors[r * BLOCK + j - start], factor);
                }
            }
            start = end;
        }
    }
}

/// Chooses the grid of a group by the range of its weights, each moved to where it would cancel the errors so far if there
/// were no rounding. `feedback` is that of the columns.
#[inline(always)]
fn choose_grid<T: Element>(
    scheme: &Scheme<T>,
    factor: &[f64],
    columns: Range<usize>,
    feedback: &mut [f64],
    row: &Row,
) -> Option<ScaleZeroPoint> {
    let depth = row.weights.len();
    let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
    for k in 0..columns.len() {
        let j = columns.start + k;
        let by = feedback[k];
        let moved = (f64::from(row.weights[j]) + by) as f32;
        let moved = if moved.is_finite() { moved } else { row.weights[j] };
        (min, max) = (min.min(moved), max.max(moved));
        // Its error is then `-by`.
        add_scaled(&mut feedback[k + 1..], -by, &factor[j * depth + j + 1..]);
    }
    let (scale, zero_point) = scheme.choose(min, max).ok()?;
    Some(ScaleZeroPoint { scale, zero_point: zero_point.to_i32() })
}
