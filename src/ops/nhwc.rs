//! Memory layout: shapes of the graph are logical, as in ONNX (NCHW); tensors of four axes are NHWC in memory, all
//! others row-major.

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, IxDyn};

use super::layout::copy_to_nhwc;

const NCHW_TO_NHWC: [usize; 4] = [0, 2, 3, 1];
const NHWC_TO_NCHW: [usize; 4] = [0, 3, 1, 2];

/// The shape in memory of a tensor of logical `shape`.
pub(crate) fn nhwc_shape(shape: &[usize]) -> Vec<usize> {
    match shape {
        &[n, c, h, w] => alloc::vec![n, h, w, c],
        _ => shape.to_vec(),
    }
}

/// The axis in memory of a logical axis.
pub(crate) fn nhwc_axis(axis: usize, ndim: usize) -> usize {
    if ndim == 4 { NHWC_TO_NCHW[axis] } else { axis }
}

/// Views a logical tensor in NHWC order.
pub(crate) fn to_nhwc<T>(x: ArrayViewD<'_, T>) -> ArrayViewD<'_, T> {
    if x.ndim() == 4 { x.permuted_axes(&NCHW_TO_NHWC[..]) } else { x }
}

/// Same as [`to_nhwc`], mutable.
pub(crate) fn to_nhwc_mut<T>(x: ArrayViewMutD<'_, T>) -> ArrayViewMutD<'_, T> {
    if x.ndim() == 4 { x.permuted_axes(&NCHW_TO_NHWC[..]) } else { x }
}

/// Transposes a logical tensor into a buffer of its length.
pub(crate) fn copy_into_nhwc<T: Copy + 'static>(x: ArrayViewD<'_, T>, to: &mut [T]) {
    let x = to_nhwc(x);
    match x.view().into_dimensionality() {
        Ok(images) => copy_to_nhwc(&images, to),
        Err(_) => ArrayViewMut::from_shape(x.raw_dim(), to).expect("the buffer has the tensor's length").assign(&x),
    }
}

/// Views a buffer as a tensor of logical `shape`.
pub(crate) fn to_nchw<'a, T>(buffer: &'a [T], shape: &[usize]) -> ArrayViewD<'a, T> {
    let view = ArrayView::from_shape(IxDyn(&nhwc_shape(shape)), buffer).expect("the buffer has the tensor's length");
    if shape.len() == 4 { view.permuted_axes(&NHWC_TO_NCHW[..]) } else { view }
}

/// Views a buffer as a batch of NHWC tensors. `shape` is logical, with any batch.
pub(crate) fn nhwc_batch<'a, T>(buffer: &'a [T], shape: &[usize], images: usize) -> ArrayViewD<'a, T> {
    memory_batch(buffer, &nhwc_shape(shape), images)
}

/// Views a buffer as a batch of tensors of this shape in memory, with any batch.
pub(crate) fn memory_batch<'a, T>(buffer: &'a [T], shape: &[usize], images: usize) -> ArrayViewD<'a, T> {
    let mut dims = shape.to_vec();
    dims[0] = images;
    ArrayView::from_shape(dims, buffer).expect("the buffer has the tensor's length")
}

/// Prepends axes of length 1 to a shape, up to `ndim` axes.
pub(crate) fn broadcast_shape(shape: &[usize], ndim: usize) -> Vec<usize> {
    let missing = ndim.saturating_sub(shape.len());
    core::iter::repeat_n(1, missing).chain(shape.iter().copied()).collect()
}

/// Transposes a constant that broadcasts to tensors of `ndim` axes to their memory layout.
pub(crate) fn broadcast_constant<T: Clone>(mut value: ArrayD<T>, ndim: usize) -> ArrayD<T> {
    while value.ndim() < ndim {
        value.insert_axis_inplace(Axis(0));
    }
    to_nhwc(value.view()).as_standard_layout().into_owned()
}

/// Returns whether NHWC and NCHW are the same order of elements for this shape.
pub(crate) fn nhwc_is_nchw(shape: &[usize]) -> bool {
    match shape {
        &[_, c, h, w] => c == 1 || h * w == 1,
        _ => true,
    }
}
