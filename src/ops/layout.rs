//! Images in standard layout, `[images][height][width][channels]` without gaps, which is what the loops work on.

use alloc::vec::Vec;

use ndarray::{ArrayRef4, ArrayView4, ArrayViewMut4};

use crate::gemm::Workspace;

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
    let view = ArrayViewMut4::from_shape(x.dim(), &mut copy).expect("as many elements as the shape has");
    { view }.assign(x);
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
    out.assign(&ArrayView4::from_shape(out.dim(), &copy).expect("as many elements as the shape has"));
    workspace.output.put(copy);
}
