//! Images in standard layout, `[images][height][width][channels]` without gaps, which is what the loops work on.

use alloc::vec::Vec;

use ndarray::{ArrayRef4, ArrayView4, ArrayViewMut4};

use crate::arch::{as_bytes, as_bytes_mut};
use crate::gemm::{Workspace, transpose};

/// Calls `f` with the elements of `x` and of `out` in standard layout: their own memory if it is so, else copies.
pub(super) fn in_standard_layout<A, B>(
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
    copy_images(x, &mut copy);
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
    to_any_layout(&copy, out);
    workspace.output.put(copy);
}

/// The axes of channels first.
const CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];

/// Copies images of any strides into standard layout.
pub(crate) fn copy_images<A: Copy + 'static>(x: &ArrayRef4<A>, copy: &mut [A]) {
    let (_, height, width, channels) = x.dim();
    let first = x.view().permuted_axes(CHANNELS_FIRST);
    if let (Some(from), Some(to)) = (first.as_slice().and_then(as_bytes), as_bytes_mut(copy)) {
        let image = (height * width * channels).max(1);
        let images = from.chunks_exact(image).zip(to.chunks_exact_mut(image));
        return images.for_each(|(from, to)| transpose(height * width, from, to));
    }
    let mut copy = ArrayViewMut4::from_shape(x.dim(), copy).expect("as many elements as the shape has");
    copy.assign(x);
}

fn to_any_layout<B: Copy + 'static>(copy: &[B], out: &mut ArrayRef4<B>) {
    let (_, height, width, channels) = out.dim();
    let mut first = out.view_mut().permuted_axes(CHANNELS_FIRST);
    if let (Some(from), Some(to)) = (as_bytes(copy), first.as_slice_mut().and_then(as_bytes_mut)) {
        let image = (height * width * channels).max(1);
        let images = from.chunks_exact(image).zip(to.chunks_exact_mut(image));
        return images.for_each(|(from, to)| transpose(channels, from, to));
    }
    out.assign(&ArrayView4::from_shape(out.dim(), copy).expect("as many elements as the shape has"));
}
