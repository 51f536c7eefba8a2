//! Copies images of any strides to and from contiguous NHWC, the layout of all loops on images.

use alloc::vec::Vec;

use ndarray::{ArrayRef4, ArrayView4, ArrayViewMut4};

use crate::gemm::{Workspace, transpose};
use crate::simd::{as_bytes, as_bytes_mut};

/// Calls `f` with the elements of `x` and `out` in contiguous NHWC: in place if they are contiguous, else as copies.
pub(super) fn with_nhwc<A, B>(
    x: &ArrayRef4<A>,
    out: &mut ArrayRef4<B>,
    workspace: &mut Workspace,
    f: impl FnOnce(&[A], &mut [B], &mut Workspace),
) where
    A: Copy + Default + Send + Sync + 'static,
    B: Copy + Default + Send + Sync + 'static,
{
    if let Some(x) = x.as_slice() {
        return with_output(x, out, workspace, f);
    }
    let mut copy = workspace.input.take::<Vec<A>>();
    copy.resize(x.len(), A::default());
    copy_to_nhwc(x, &mut copy);
    with_output(&copy, out, workspace, f);
    workspace.input.put(copy);
}

fn with_output<A, B: Copy + Default + Send + Sync + 'static>(
    x: &[A],
    out: &mut ArrayRef4<B>,
    workspace: &mut Workspace,
    f: impl FnOnce(&[A], &mut [B], &mut Workspace),
) {
    if let Some(out) = out.as_slice_mut() {
        return f(x, out, workspace);
    }
    let mut copy = workspace.output.take::<Vec<B>>();
    copy.resize(out.len(), B::default());
    f(x, &mut copy, workspace);
    copy_from_nhwc(&copy, out);
    workspace.output.put(copy);
}

/// Axes of an NHWC array in the order NCHW.
const NCHW: [usize; 4] = [0, 3, 1, 2];

/// Transposes images from row-major order: each is a matrix of this number of columns.
fn transpose_images<A: Copy + 'static>(image: usize, columns: usize, from: &[A], to: &mut [A]) {
    let image = image.max(1);
    if let (Some(from), Some(to)) = (as_bytes(from), as_bytes_mut(to)) {
        let images = from.chunks_exact(image).zip(to.chunks_exact_mut(image));
        return images.for_each(|(from, to)| transpose(columns, from, to));
    }
    /// Columns of a block, whose rows of the transposed matrix stay in L1.
    const BLOCK: usize = 16;
    let rows = image / columns.max(1);
    for (from, to) in from.chunks_exact(image).zip(to.chunks_exact_mut(image)) {
        for first in (0..columns).step_by(BLOCK) {
            for (i, from) in from.chunks_exact(columns).enumerate() {
                let block = &from[first..columns.min(first + BLOCK)];
                for (&x, to) in block.iter().zip(to[first * rows..].chunks_exact_mut(rows)) {
                    to[i] = x;
                }
            }
        }
    }
}

/// Copies images of any strides into contiguous NHWC.
pub(crate) fn copy_to_nhwc<A: Copy + 'static>(x: &ArrayRef4<A>, copy: &mut [A]) {
    let (_, height, width, channels) = x.dim();
    let nchw = x.view().permuted_axes(NCHW);
    if let Some(from) = nchw.as_slice() {
        return transpose_images(height * width * channels, height * width, from, copy);
    }
    let mut copy = ArrayViewMut4::from_shape(x.dim(), copy).expect("the length is the product of the shape");
    copy.assign(x);
}

/// Copies contiguous NHWC into an array of any strides.
pub(super) fn copy_from_nhwc<B: Copy + 'static>(copy: &[B], out: &mut ArrayRef4<B>) {
    let (_, height, width, channels) = out.dim();
    let mut nchw = out.view_mut().permuted_axes(NCHW);
    if let Some(to) = nchw.as_slice_mut() {
        return transpose_images(height * width * channels, channels, copy, to);
    }
    out.assign(&ArrayView4::from_shape(out.dim(), copy).expect("the length is the product of the shape"));
}
