//! Memory layout: shapes of the graph are logical, as in ONNX (NCHW); tensors of four axes are NHWC in memory, all
//! others row-major.

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, IxDyn};

use super::layout::{self, copy_to_nhwc};

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

/// Transposes a logical tensor into a buffer of its length.
pub(crate) fn copy_into_nhwc<T: Copy + 'static>(x: ArrayViewD<'_, T>, to: &mut [T]) {
    let x = to_nhwc(x);
    match x.view().into_dimensionality() {
        Ok(images) => copy_to_nhwc(&images, to),
        Err(_) => ArrayViewMut::from_shape(x.raw_dim(), to).expect("the buffer has the tensor's length").assign(&x),
    }
}

/// Transposes a batch of tensors of logical `shape` to row-major order.
pub(crate) fn copy_from_nhwc<T: Copy + 'static>(values: &[T], shape: &[usize], to: &mut [T]) {
    let &[_, c, h, w] = shape else { return to.copy_from_slice(values) };
    let n = values.len() / (c * h * w).max(1);
    let to = ArrayViewMut::from_shape((n, c, h, w), to).expect("the buffer has the tensor's length");
    layout::copy_from_nhwc(values, &mut to.permuted_axes(NCHW_TO_NHWC));
}

/// Views a buffer as a tensor of logical `shape`.
pub(crate) fn to_nchw<'a, T>(buffer: &'a [T], shape: &[usize]) -> ArrayViewD<'a, T> {
    let view = ArrayView::from_shape(IxDyn(&nhwc_shape(shape)), buffer).expect("the buffer has the tensor's length");
    if shape.len() == 4 { view.permuted_axes(&NHWC_TO_NCHW[..]) } else { view }
}

/// Same as [`to_nchw`], mutable.
pub(crate) fn to_nchw_mut<'a, T>(buffer: &'a mut [T], shape: &[usize]) -> ArrayViewMutD<'a, T> {
    let view = ArrayViewMut::from_shape(IxDyn(&nhwc_shape(shape)), buffer).expect("the buffer has the tensor's length");
    if shape.len() == 4 { view.permuted_axes(&NHWC_TO_NCHW[..]) } else { view }
}

/// Views a buffer as a batch of tensors of a [`broadcast_shape`], whose first axis is the batch.
pub(crate) fn broadcast_batch<'a, T>(buffer: &'a [T], shape: &[usize], images: usize) -> ArrayViewD<'a, T> {
    let mut dims = shape.to_vec();
    dims[0] = images;
    ArrayView::from_shape(dims, buffer).expect("the buffer has the tensor's length")
}

/// Same as [`broadcast_batch`], mutable.
pub(crate) fn broadcast_batch_mut<'a, T>(buffer: &'a mut [T], shape: &[usize], images: usize) -> ArrayViewMutD<'a, T> {
    let mut dims = shape.to_vec();
    dims[0] = images;
    ArrayViewMut::from_shape(dims, buffer).expect("the buffer has the tensor's length")
}

/// The shape of a batch of tensors of this shape: with the batch as an axis of its own before the others.
pub(crate) fn batch_dims(shape: &[usize], images: usize) -> Vec<usize> {
    core::iter::once(images).chain(shape.iter().copied()).collect()
}

/// Views a buffer as a batch of tensors of this shape in memory.
pub(crate) fn batch_of<'a, T>(buffer: &'a [T], shape: &[usize], images: usize) -> ArrayViewD<'a, T> {
    ArrayView::from_shape(batch_dims(shape, images), buffer).expect("the buffer has the tensor's length")
}

/// Same as [`batch_of`], mutable.
pub(crate) fn batch_of_mut<'a, T>(buffer: &'a mut [T], shape: &[usize], images: usize) -> ArrayViewMutD<'a, T> {
    ArrayViewMut::from_shape(batch_dims(shape, images), buffer).expect("the buffer has the tensor's length")
}

/// The shape in memory of a tensor that broadcasts to an output of logical shape `output`. The first axis has length 1:
/// it is the batch. If the output has a longer one, there is an axis more.
pub(crate) fn broadcast_shape(shape: &[usize], output: &[usize]) -> Vec<usize> {
    let missing = output.len().saturating_sub(shape.len());
    let shape: Vec<usize> = core::iter::repeat_n(1, missing).chain(shape.iter().copied()).collect();
    let batch = if output.first() == Some(&1) { None } else { Some(1) };
    batch.into_iter().chain(nhwc_shape(&shape)).collect()
}

/// Transposes a constant that broadcasts to an output of logical shape `output` to its memory layout, with the axes of
/// [`broadcast_shape`].
pub(crate) fn broadcast_constant<T: Clone>(mut value: ArrayD<T>, output: &[usize]) -> ArrayD<T> {
    while value.ndim() < output.len() {
        value.insert_axis_inplace(Axis(0));
    }
    let value = to_nhwc(value.view()).as_standard_layout().into_owned();
    if output.first() == Some(&1) { value } else { value.insert_axis(Axis(0)) }
}
