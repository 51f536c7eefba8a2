//! Memory layout: shapes of the graph are logical, as in ONNX (NCHW); the axes of a tensor may have another order in
//! memory.

use alloc::vec::Vec;
use core::ops::Deref;

use ndarray::{ArrayD, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, IxDyn};

use super::layout::{self, copy_to_nhwc};

const NCHW_TO_NHWC: [usize; 4] = [0, 2, 3, 1];
const NHWC_TO_NCHW: [usize; 4] = [0, 3, 1, 2];

/// The order of the axes of a tensor in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Layout {
    #[default]
    RowMajor,
    /// NHWC. Only tensors of four axes have it.
    ChannelsLast,
}

/// The logical shape of a tensor, with its layout. For a batch of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims<'a> {
    pub(crate) shape: &'a [usize],
    pub(crate) layout: Layout,
}

impl Deref for Dims<'_> {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        self.shape
    }
}

impl<'a> Dims<'a> {
    pub(crate) fn new(shape: &'a [usize], layout: Layout) -> Self {
        Self { shape, layout }
    }

    /// The shape in memory.
    pub(crate) fn in_memory(&self) -> Vec<usize> {
        in_memory(self.shape, self.layout)
    }

    /// The axis in memory of a logical axis.
    pub(crate) fn axis(&self, axis: usize) -> usize {
        if self.layout == Layout::ChannelsLast { NHWC_TO_NCHW[axis] } else { axis }
    }
}

/// A [`Dims`] that owns its shape.
#[derive(Debug, Clone)]
pub(crate) struct OwnedDims {
    pub(crate) shape: Vec<usize>,
    pub(crate) layout: Layout,
}

impl From<Dims<'_>> for OwnedDims {
    fn from(dims: Dims<'_>) -> Self {
        Self { shape: dims.shape.to_vec(), layout: dims.layout }
    }
}

impl OwnedDims {
    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Views a buffer as a logical tensor.
    pub(crate) fn view<'a, T>(&self, buffer: &'a [T]) -> ArrayViewD<'a, T> {
        logical(buffer, &self.shape, self.layout)
    }

    /// Same as [`view`](Self::view), mutable.
    pub(crate) fn view_mut<'a, T>(&self, buffer: &'a mut [T]) -> ArrayViewMutD<'a, T> {
        let shape = IxDyn(&in_memory(&self.shape, self.layout));
        let view = ArrayViewMut::from_shape(shape, buffer).expect("the buffer has the tensor's length");
        if self.layout == Layout::ChannelsLast { view.permuted_axes(&NHWC_TO_NCHW[..]) } else { view }
    }
}

fn in_memory(shape: &[usize], layout: Layout) -> Vec<usize> {
    match (layout, shape) {
        (Layout::ChannelsLast, &[n, c, h, w]) => alloc::vec![n, h, w, c],
        _ => shape.to_vec(),
    }
}

/// Views a buffer as a tensor of logical `shape`.
pub(crate) fn logical<'a, T>(buffer: &'a [T], shape: &[usize], layout: Layout) -> ArrayViewD<'a, T> {
    let dims = IxDyn(&in_memory(shape, layout));
    let view = ArrayView::from_shape(dims, buffer).expect("the buffer has the tensor's length");
    if layout == Layout::ChannelsLast { view.permuted_axes(&NHWC_TO_NCHW[..]) } else { view }
}

/// Views a logical tensor with its axes in the order of memory.
pub(crate) fn in_order<T>(x: ArrayViewD<'_, T>, layout: Layout) -> ArrayViewD<'_, T> {
    if layout == Layout::ChannelsLast { x.permuted_axes(&NCHW_TO_NHWC[..]) } else { x }
}

/// Copies a logical tensor into a buffer of its length, in the order of memory.
pub(crate) fn copy_in_order<T: Copy + 'static>(x: ArrayViewD<'_, T>, layout: Layout, to: &mut [T]) {
    let x = in_order(x, layout);
    match x.view().into_dimensionality() {
        Ok(images) if layout == Layout::ChannelsLast => copy_to_nhwc(&images, to),
        _ => ArrayViewMut::from_shape(x.raw_dim(), to).expect("the buffer has the tensor's length").assign(&x),
    }
}

/// Copies a batch of tensors of logical `shape` to row-major order.
pub(crate) fn copy_to_row_major<T: Copy + 'static>(values: &[T], dims: Dims<'_>, to: &mut [T]) {
    let (Layout::ChannelsLast, &[_, c, h, w]) = (dims.layout, dims.shape) else { return to.copy_from_slice(values) };
    let n = values.len() / (c * h * w).max(1);
    let to = ArrayViewMut::from_shape((n, c, h, w), to).expect("the buffer has the tensor's length");
    layout::copy_from_nhwc(values, &mut to.permuted_axes(NCHW_TO_NHWC));
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

/// The shape in memory of a tensor of logical `shape` that broadcasts to an output. The first axis has length 1: it is the
/// batch. If the output has a longer one, there is an axis more.
pub(crate) fn broadcast_shape(shape: &[usize], output: Dims<'_>) -> Vec<usize> {
    let missing = output.len().saturating_sub(shape.len());
    let shape: Vec<usize> = core::iter::repeat_n(1, missing).chain(shape.iter().copied()).collect();
    let batch = if output.first() == Some(&1) { None } else { Some(1) };
    batch.into_iter().chain(in_memory(&shape, output.layout)).collect()
}

/// Copies a constant that broadcasts to an output to its memory layout, with the axes of [`broadcast_shape`].
pub(crate) fn broadcast_constant<T: Clone>(mut value: ArrayD<T>, output: Dims<'_>) -> ArrayD<T> {
    while value.ndim() < output.len() {
        value.insert_axis_inplace(Axis(0));
    }
    let value = in_order(value.view(), output.layout).as_standard_layout().into_owned();
    if output.first() == Some(&1) { value } else { value.insert_axis(Axis(0)) }
}
