//! Float products by the crate `gemm`, which chooses its instruction set itself.

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// Computes `y = x · w` on this thread.
///
/// # Panics
/// If the shapes do not match.
#[allow(unsafe_code, reason = "`gemm` takes pointers and strides")]
pub(crate) fn gemm_f32<'a>(mut x: ArrayView2<'a, f32>, mut w: ArrayView2<'a, f32>, mut y: ArrayViewMut2<'_, f32>) {
    // `gemm` vectorizes along the columns of its result, so it computes `yᵀ = wᵀ · xᵀ` unless `y` is column-major.
    if y.strides()[0].unsigned_abs() < y.strides()[1].unsigned_abs() {
        (x, w, y) = (w.reversed_axes(), x.reversed_axes(), y.reversed_axes());
    }
    // Its entry point for all types inverts negative strides before it calls this one.
    if y.strides()[0] < 0 {
        y.invert_axis(Axis(0));
        x.invert_axis(Axis(0));
    }
    if y.strides()[1] < 0 {
        y.invert_axis(Axis(1));
        w.invert_axis(Axis(1));
    }
    if x.strides()[1] < 0 {
        x.invert_axis(Axis(1));
        w.invert_axis(Axis(0));
    }
    let ((rows, depth), columns) = (x.dim(), w.ncols());
    assert!(w.nrows() == depth && y.dim() == (rows, columns), "the shapes of a product match");
    let strides = |strides: &[isize]| (strides[0], strides[1]);
    let ((x_row, x_column), (w_row, w_column)) = (strides(x.strides()), strides(w.strides()));
    let (y_row, y_column) = strides(y.strides());
    // SAFETY: `gemm` reads `rows` x `depth` elements of `x` and `depth` x `columns` of `w`, and writes `rows` x `columns`
    // of `y`, at their strides. The shapes match, so these are the elements of the views, and no two elements of a mutable
    // view are the same. It does not read `y`.
    unsafe {
        get_gemm_fn()(
            columns,
            rows,
            depth,
            y.as_mut_ptr(),
            y_row,
            y_column,
            false,
            w.as_ptr(),
            w_row,
            w_column,
            x.as_ptr(),
            x_row,
            x_column,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;

    /// Results of every order and direction of axes, of all lengths around those of registers and tiles.
    #[test]
    fn strides_and_lengths() {
        let integers = |rows, columns, by: usize| {
            Array2::from_shape_fn((rows, columns), |(i, j)| ((i * by + j * 5) % 7) as f32 - 3.0)
        };
        for (rows, depth, columns) in
            [(0, 3, 2), (2, 0, 3), (1, 1, 1), (1, 9, 17), (7, 33, 1), (19, 40, 35), (70, 600, 66)]
        {
            let (x, w) = (integers(rows, depth, 3), integers(depth, columns, 4));
            let expected =
                Array2::from_shape_fn((rows, columns), |(i, j)| (0..depth).map(|k| x[[i, k]] * w[[k, j]]).sum::<f32>());
            for layout in 0..64 {
                let flip = |bit: u32| if layout >> bit & 1 == 1 { -1 } else { 1 };
                // Memory whose order of axes and directions is that of the layout, with the logical values of `a`.
                let stored = |a: &Array2<f32>, bit: u32| {
                    let a = a.slice(s![..;flip(bit), ..;flip(bit + 1)]);
                    if layout & 1 == 1 {
                        a.reversed_axes().as_standard_layout().into_owned().reversed_axes()
                    } else {
                        a.to_owned()
                    }
                };
                let (x, w) = (stored(&x, 1), stored(&w, 3));
                let mut y = stored(&Array2::from_elem((rows, columns), f32::NAN), 5);
                let x = x.slice(s![..;flip(1), ..;flip(2)]);
                let w = w.slice(s![..;flip(3), ..;flip(4)]);
                gemm_f32(x, w, y.slice_mut(s![..;flip(5), ..]));
                assert_eq!(y.slice(s![..;flip(5), ..]), expected, "{rows} x {depth} x {columns}, layout {layout}");
            }
        }
    }
}
