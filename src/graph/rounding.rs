//! Codes that make a layer's output err least.

use alloc::vec::Vec;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayD, ArrayView2, ArrayViewD, Axis, Slice};

use super::network::Constant;
use crate::arch::{self, Task};
use crate::element::Compute;

/// The moments of the rows that the weights of each group are multiplied with, in the order of rows.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    rows: usize,
    groups: Vec<Group>,
}

#[derive(Debug, Clone)]
struct Group {
    sum: Array1<f64>,
    /// The sums of products of two elements of a row.
    products: Array2<f32>,
}

/// Rounds over all codes; few move after the first ones.
const ROUNDS: usize = 6;

/// Added to the variance of each element, as a part of it and of the mean of all: what was seen is a sample, and codes
/// must not fit it too well. (Frantar and others, "GPTQ", 2022, add a hundredth of the mean for the same reason.)
const DAMPING: f64 = 0.05;

/// Keeps the variance of what never varies away from 0.
const TINY: f64 = 1e-30;

impl Moments {
    pub(crate) fn new(groups: usize, depth: usize) -> Self {
        let group = Group { sum: Array1::zeros(depth), products: Array2::zeros((depth, depth)) };
        Self { rows: 0, groups: alloc::vec![group; groups] }
    }

    pub(crate) fn depth(&self) -> usize {
        self.groups.first().map_or(0, |group| group.sum.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Takes in some rows of a group; each time as many for every group.
    pub(crate) fn add(&mut self, group: usize, rows: ArrayView2<'_, f32>) {
        if group == 0 {
            self.rows += rows.nrows();
        }
        let group = &mut self.groups[group];
        for row in rows.rows() {
            group.sum.zip_mut_with(&row, |sum, &x| *sum += x as f64);
        }
        general_mat_mul(1.0, &rows.t(), &rows, 1.0, &mut group.products);
    }

    fn mean(&self, group: usize) -> Array1<f64> {
        &self.groups[group].sum / self.rows.max(1) as f64
    }

    /// The covariance of the elements of a row, damped.
    fn covariance(&self, group: usize) -> Array2<f64> {
        let (rows, mean) = (self.rows.max(1) as f64, self.mean(group));
        let mut c = self.groups[group].products.mapv(|p| p as f64 / rows);
        for (i, mut row) in c.rows_mut().into_iter().enumerate() {
            row.zip_mut_with(&mean, |c, m| *c -= mean[i] * m);
        }
        let variances = c.diag().mapv(|v| v.max(0.0));
        let mean = variances.mean().unwrap_or(0.0);
        c.diag_mut().zip_mut_with(&variances, |c, v| *c = v + DAMPING * (v + mean) + TINY);
        c
    }

    /// `(w - ŵ) · mean(x)` for each output channel.
    pub(crate) fn mean_error(&self, w: &Constant, rounded: &Constant) -> Vec<f64> {
        let out = w.len_of(Axis(0)) / self.groups.len().max(1);
        let each = |channel: usize| {
            let mean = self.mean(channel / out);
            let rows = [w, rounded].map(|w| row_order(w.index_axis(Axis(0), channel)));
            rows[0].iter().zip(&rows[1]).zip(&mean).map(|((&w, &r), m)| (w as f64 - r as f64) * m).sum()
        };
        (0..w.len_of(Axis(0))).map(each).collect()
    }

    /// Moves codes `[out, ...]` to where the outputs vary least from those of the weights.
    pub(crate) fn round(&self, weights: &Constant, scales: &[f32], codes: (i32, i32), rounded: &mut ArrayD<i8>) {
        let out = weights.len_of(Axis(0)) / self.groups.len().max(1);
        for group in 0..self.groups.len() {
            let covariance = self.covariance(group);
            let covariance = covariance.as_slice().expect("in row-major order");
            let channels = Slice::from(group * out..(group + 1) * out);
            let weights = weights.slice_axis(Axis(0), channels);
            let mut rounded = rounded.slice_axis_mut(Axis(0), channels);
            for (c, w) in weights.outer_iter().enumerate() {
                let mut rounded = rounded.index_axis_mut(Axis(0), c);
                let scale = scales[group * out + c] as f64;
                let w: Vec<f64> = row_order(w).iter().map(|&w| w as f64 / scale).collect();
                let mut steps: Vec<f64> = row_order(rounded.view()).iter().map(|&q| q.into()).collect();
                arch::run(Descend { covariance, weights: &w, codes, steps: &mut steps });
                let mut back = rounded.view_mut();
                if back.ndim() == 3 {
                    back = back.permuted_axes(&[1, 2, 0][..]);
                }
                back.iter_mut().zip(&steps).for_each(|(q, &step)| *q = step as i8);
            }
        }
    }
}

/// The weights of a channel in the order of rows: `[in, height, width]` as `[height, width, in]`.
fn row_order<T: Copy>(w: ArrayViewD<'_, T>) -> Vec<T> {
    let w = if w.ndim() == 3 { w.permuted_axes(&[1, 2, 0][..]) } else { w };
    w.iter().copied().collect()
}

/// Coordinate descent on `(w - q) · C · (w - q)ᵀ` over codes `q`.
struct Descend<'a> {
    covariance: &'a [f64],
    weights: &'a [f64],
    codes: (i32, i32),
    steps: &'a mut [f64],
}

impl Task for Descend<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { covariance, weights, codes, steps } = self;
        let (low, high) = (codes.0 as f64, codes.1 as f64);
        let depth = weights.len();
        // Half the gradient in each code.
        let mut gradient = alloc::vec![0f64; depth];
        for (k, row) in covariance.chunks_exact(depth.max(1)).enumerate() {
            let error = weights[k] - steps[k];
            for (g, c) in gradient.iter_mut().zip(row) {
                *g += error * c;
            }
        }
        for _ in 0..ROUNDS {
            let mut moved = false;
            for (k, row) in covariance.chunks_exact(depth.max(1)).enumerate() {
                let target = steps[k] + Compute::round_ties_even(gradient[k] / row[k]);
                let target = if target < low { low } else { target };
                let target = if target > high { high } else { target };
                let step = target - steps[k];
                if step != 0.0 {
                    moved = true;
                    steps[k] = target;
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
