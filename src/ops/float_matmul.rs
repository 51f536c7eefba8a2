//! Products of float matrices: every one in the crate goes through here.

#[cfg(not(feature = "gemm"))]
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2};

use crate::simd::{self, Task};

/// Below this number of rows, a GEMV per row is faster than a GEMM, which packs the weights.
const MIN_GEMM_ROWS: usize = 4;

/// Computes `y = x · w` on this thread.
///
/// The order of sums depends on the shapes: split rows where the number of threads does not matter.
pub(crate) fn float_matmul(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>) {
    if x.nrows() < MIN_GEMM_ROWS
        && let Some(w) = w.to_slice()
    {
        for (x, mut y) in x.rows().into_iter().zip(y.rows_mut()) {
            match y.as_slice_mut() {
                Some(y) => simd::run(Gemv { x, w, y }),
                None => {
                    let mut row = alloc::vec![0.0; y.len()];
                    simd::run(Gemv { x, w, y: &mut row });
                    y.iter_mut().zip(row).for_each(|(y, product)| *y = product);
                }
            }
        }
        return;
    }
    gemm(x, w, y);
}

/// Returns `x · w`, computed by [`float_matmul`].
pub(crate) fn float_product(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut y = Array2::zeros((x.nrows(), w.ncols()));
    float_matmul(x, w, y.view_mut());
    y
}

#[cfg(feature = "gemm")]
fn gemm(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>) {
    simd::gemm_f32(x, w, y);
}

#[cfg(not(feature = "gemm"))]
fn gemm(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>) {
    general_mat_mul(1.0, &x, &w, 0.0, &mut y);
}

/// GEMV: `y = x · w` with row-major `w`, accumulated over its rows.
struct Gemv<'a> {
    x: ArrayView1<'a, f32>,
    w: &'a [f32],
    y: &'a mut [f32],
}

impl Task for Gemv<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.y.fill(0.0);
        for (x, w) in self.x.iter().zip(self.w.chunks_exact(self.y.len().max(1))) {
            for (y, w) in self.y.iter_mut().zip(w) {
                *y += x * w;
            }
        }
    }
}
