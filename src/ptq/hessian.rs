//! The Hessian of a layer's squared error: checks, damping, and its Cholesky factor.

use ndarray::{Array2, ArrayRef2, Zip, s};

use crate::error::{Error, Result, ValueError, check_shapes};
use crate::range::check_finite;
use crate::simd::{self, Task};
use crate::threads;

/// A diagonal element for columns whose inputs are all 0, so that it is not 0.
const MIN_DIAGONAL: f64 = 1e-30;

/// Checks that `hessian` is a finite matrix of `depth` columns.
pub(super) fn check_hessian(depth: usize, hessian: &ArrayRef2<f64>) -> Result<()> {
    check_shapes("hessian, [in, in]", &[depth, depth], hessian.shape())?;
    // Not as `f32`, which squares of inputs may exceed.
    match hessian.indexed_iter().find(|(_, h)| !h.is_finite()) {
        None => Ok(()),
        Some(((i, j), &found)) => {
            Err(ValueError::NonFinite { what: "hessian", found, index: alloc::vec![i, j] }.into())
        }
    }
}

/// Checks that an option is a finite number in `min..=max`.
pub(super) fn check_option(what: &'static str, expected: &'static str, found: f64, within: bool) -> Result<()> {
    match within && found.is_finite() {
        true => Ok(()),
        false => Err(Error::Argument { what, expected, found: alloc::format!("{found}") }),
    }
}

/// Returns the rows and columns of the hessian in this order, with `damping` times the mean of the diagonal added to the
/// diagonal.
pub(super) fn damped(hessian: &ArrayRef2<f64>, damping: f64, order: &[usize]) -> Array2<f64> {
    let diagonal = hessian.diag();
    let mean = diagonal.sum() / diagonal.len().max(1) as f64;
    let mut damped = Array2::from_shape_fn(hessian.raw_dim(), |(i, j)| hessian[[order[i], order[j]]]);
    damped.diag_mut().mapv_inplace(|d| d + damping * mean + MIN_DIAGONAL);
    damped
}

/// Replaces a symmetric, positive definite matrix `H` by the upper triangular `U` with a unit diagonal, for which
/// `H = U · D · Uᵀ` with a diagonal `D`: the Cholesky factorization from the last row and column on. Below the diagonal the
/// matrix is left as it is, and on it the elements of `D`.
///
/// `(w - q) · H · (w - q)ᵀ` is then `Σ_j D_j · (e_j + Σ_{i < j} e_i · U_ij)²` for `e = w - q`: error `e_j` can cancel what the
/// errors before it add up to.
///
/// # Errors
/// [`Error::Argument`] if the matrix is not positive definite.
pub(super) fn factorize(h: &mut Array2<f64>) -> Result<()> {
    let depth = h.nrows();
    let found = match h.as_slice_mut() {
        Some(h) => simd::run(Factorize { h, depth }),
        None => unreachable!("the damped matrix is row-major"),
    };
    match found {
        None => Ok(()),
        Some((column, pivot)) => Err(Error::Argument {
            what: "hessian",
            expected: "a positive definite matrix, or more damping",
            found: alloc::format!("pivot {pivot:e} at column {column}"),
        }),
    }
}

struct Factorize<'a> {
    h: &'a mut [f64],
    depth: usize,
}

/// Columns that are factorized before the rows above them are updated by all of them.
const BLOCK: usize = 32;

impl Task for Factorize<'_> {
    /// The first pivot that is not positive, and its column.
    type Output = Option<(usize, f64)>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { h, depth } = self;
        // Columns of the block, of `U` and of `U · D`.
        let (mut u, mut ud) = (alloc::vec![0f64; BLOCK * depth], alloc::vec![0f64; BLOCK * depth]);
        let mut end = depth;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            for j in (start..end).rev() {
                let pivot = h[j * depth + j];
                if pivot.is_nan() || pivot <= 0.0 || pivot.is_infinite() {
                    return Some((j, pivot));
                }
                let (u, ud) = (&mut u[(j - start) * depth..][..j], &mut ud[(j - start) * depth..][..j]);
                for (i, (u, ud)) in u.iter_mut().zip(ud.iter_mut()).enumerate() {
                    *ud = h[i * depth + j];
                    *u = *ud / pivot;
                    h[i * depth + j] = *u;
                }
                for (i, ud) in ud.iter().enumerate() {
                    let first = i.max(start);
                    let row = &mut h[i * depth..][first..j];
                    row.iter_mut().zip(&u[first..]).for_each(|(h, u)| *h -= ud * u);
                }
            }
            for i in 0..start {
                let row = &mut h[i * depth..][i..start];
                for j in (0..end - start).rev() {
                    let (u, ud) = (&u[j * depth..][i..start], ud[j * depth + i]);
                    row.iter_mut().zip(u).for_each(|(h, u)| *h -= ud * u);
                }
            }
            end = start;
        }
        None
    }
}

/// The noise power of a layer's outputs, summed over the outputs: `Σ (w - ŵ) · H · (w - ŵ)ᵀ` of weights `[out, in]`, where `H`
/// is `E[x · xᵀ]` ([`second_moments`](super::InputStatistics::second_moments)). It is the mean of `Σ (x · wᵀ - x · ŵᵀ)²` over
/// the rows `x`, and what the methods of this module reduce.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ptq::output_noise;
/// let (weights, found) = (array![[1.0f32, 2.0]], array![[1.5f32, 1.0]]);
/// assert_eq!(output_noise(&weights, &found, &array![[4.0, 1.0], [1.0, 9.0]])?, 9.0); // e = [-0.5, 1]
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if the weights have different shapes or the Hessian is not `[in, in]`. [`Error::Value`] for a NaN or an
/// infinity.
pub fn output_noise(weights: &ArrayRef2<f32>, found: &ArrayRef2<f32>, hessian: &ArrayRef2<f64>) -> Result<f64> {
    check_shapes("found weights, [out, in]", weights.shape(), found.shape())?;
    check_finite("weights", weights)?;
    check_finite("found weights", found)?;
    check_hessian(weights.ncols(), hessian)?;
    let (depth, hessian) = (weights.ncols(), hessian.as_standard_layout());
    let hessian = hessian.as_slice().expect("the hessian is row-major");
    let errors = Zip::from(weights).and(found).map_collect(|&w, &f| f64::from(w) - f64::from(f));
    let mut noise = alloc::vec![0.0; weights.nrows()];
    let mut parts = alloc::vec![(); threads::worth(weights.len().saturating_mul(depth) / 2)];
    threads::each_part(&mut noise, 1, &mut parts, &|first, noise, ()| {
        for (i, noise) in noise.chunks_mut(AT_ONCE).enumerate() {
            let first = first + i * AT_ONCE;
            let errors = errors.slice(s![first..first + noise.len(), ..]);
            let errors = errors.as_slice().expect("errors are row-major");
            simd::run(Noise { errors, hessian, depth, noise });
        }
    });
    Ok(noise.iter().sum())
}

/// Rows that are multiplied together, so that a row of the Hessian is read once for all of them.
pub(super) const AT_ONCE: usize = 16;

struct Noise<'a> {
    errors: &'a [f64],
    hessian: &'a [f64],
    depth: usize,
    noise: &'a mut [f64],
}

impl Task for Noise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { errors, hessian, depth, noise } = self;
        // `Σ_{i < j} e_i · H_ij` of each column `j`.
        let mut sums = alloc::vec![0f64; errors.len()];
        for (i, row) in hessian.chunks_exact(depth.max(1)).enumerate() {
            for (sums, errors) in sums.chunks_exact_mut(depth).zip(errors.chunks_exact(depth)) {
                add_scaled(&mut sums[i + 1..], errors[i], &row[i + 1..]);
            }
        }
        let rows = sums.chunks_exact(depth.max(1)).zip(errors.chunks_exact(depth.max(1)));
        for (noise, (sums, errors)) in noise.iter_mut().zip(rows) {
            let terms = errors.iter().zip(sums).enumerate();
            *noise = terms.map(|(j, (e, sum))| e * (2.0 * sum + hessian[j * depth + j] * e)).sum();
        }
    }
}

/// `to[i] += factor * from[i]`, up to the length of `to`.
#[inline(always)]
pub(super) fn add_scaled(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    /// `U · D · Uᵀ` is the matrix, at sizes around blocks, for every instruction set the same bits.
    #[test]
    fn factors() {
        for depth in [0, 1, 2, 5, 31, 32, 33, 70, 130] {
            let a = Array2::from_shape_fn((depth + 3, depth), |(i, j)| ((i * 7 + j * 13) as f64 * 0.37).sin());
            let mut h = a.t().dot(&a);
            h.diag_mut().mapv_inplace(|d| d + 0.1);
            let mut found = h.clone();
            factorize(&mut found).unwrap();
            let mut plain = h.clone();
            for j in (0..depth).rev() {
                let column: alloc::vec::Vec<f64> = (0..j).map(|i| plain[[i, j]]).collect();
                for i in 0..j {
                    plain[[i, j]] = column[i] / plain[[j, j]];
                }
                for i in 0..j {
                    for k in i..j {
                        plain[[i, k]] -= column[i] * plain[[k, j]];
                    }
                }
            }
            for i in 0..depth {
                for j in i + 1..depth {
                    assert_eq!(found[[i, j]].to_bits(), plain[[i, j]].to_bits(), "{depth}: [{i}, {j}]");
                }
            }
            let u = |i: usize, j: usize| if i == j { 1.0 } else { found[[i, j]] };
            for (i, j) in (0..depth).flat_map(|i| (i..depth).map(move |j| (i, j))) {
                let sum: f64 = (j..depth).map(|k| u(i, k) * plain[[k, k]] * u(j, k)).sum();
                assert!((sum - h[[i, j]]).abs() < 1e-9, "{depth}: [{i}, {j}] {sum} for {}", h[[i, j]]);
            }
        }
    }

    #[test]
    fn not_positive_definite() {
        let mut h = ndarray::array![[1.0, 1.0], [1.0, 1.0]];
        let error = factorize(&mut h).unwrap_err();
        assert!(matches!(error, Error::Argument { what: "hessian", .. }), "{error}");
    }
}
