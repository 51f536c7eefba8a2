//! Logical shapes, as ONNX writes them, and the order in memory: tensors of four axes lie as `[batch, height, width,
//! channels]`, all others row-major.

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, IxDyn};

use crate::ops::copy_to_nhwc;

/// The physical axes of a tensor of four logical ones.
const TO_NHWC: [usize; 4] = [0, 2, 3, 1];
const TO_NCHW: [usize; 4] = [0, 3, 1, 2];

/// The shape in memory.
pub(crate) fn physical(shape: &[usize]) -> Vec<usize> {
    match shape {
        &[n, c, h, w] => alloc::vec![n, h, w, c],
        _ => shape.to_vec(),
    }
}

/// Where a logical axis lies in memory.
pub(crate) fn physical_axis(axis: usize, ndim: usize) -> usize {
    if ndim == 4 { TO_NCHW[axis] } else { axis }
}

/// A logical tensor, seen in the order of memory.
pub(crate) fn to_physical<T>(x: ArrayViewD<'_, T>) -> ArrayViewD<'_, T> {
    if x.ndim() == 4 { x.permuted_axes(&TO_NHWC[..]) } else { x }
}

/// As [`to_physical`], to be written.
pub(crate) fn to_physical_mut<T>(x: ArrayViewMutD<'_, T>) -> ArrayViewMutD<'_, T> {
    if x.ndim() == 4 { x.permuted_axes(&TO_NHWC[..]) } else { x }
}

/// Copies a logical tensor into memory of its length.
pub(crate) fn copy_to_physical<T: Copy + 'static>(x: ArrayViewD<'_, T>, to: &mut [T]) {
    let x = to_physical(x);
    match x.view().into_dimensionality() {
        Ok(images) => copy_to_nhwc(&images, to),
        Err(_) => ArrayViewMut::from_shape(x.raw_dim(), to).expect("the memory of a tensor has its length").assign(&x),
    }
}

/// Arena, seen as a logical tensor of this shape.
pub(crate) fn to_logical<'a, T>(memory: &'a [T], shape: &[usize]) -> ArrayViewD<'a, T> {
    let view = ArrayView::from_shape(IxDyn(&physical(shape)), memory).expect("the memory of a tensor has its length");
    if shape.len() == 4 { view.permuted_axes(&TO_NCHW[..]) } else { view }
}

/// The shape of a tensor that broadcasts to others of `ndim` axes, with as many.
pub(crate) fn broadcast_shape(shape: &[usize], ndim: usize) -> Vec<usize> {
    let missing = ndim.saturating_sub(shape.len());
    core::iter::repeat_n(1, missing).chain(shape.iter().copied()).collect()
}

/// A constant that broadcasts to tensors of `ndim` axes, in their order of memory.
pub(crate) fn broadcast_constant<T: Clone>(mut value: ArrayD<T>, ndim: usize) -> ArrayD<T> {
    while value.ndim() < ndim {
        value.insert_axis_inplace(Axis(0));
    }
    to_physical(value.view()).as_standard_layout().into_owned()
}

/// Whether the order in memory is also the logical row-major order.
pub(crate) fn is_row_major(shape: &[usize]) -> bool {
    match shape {
        &[_, c, h, w] => c == 1 || h * w == 1,
        _ => true,
    }
}
