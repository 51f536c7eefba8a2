//! Calls a loop on contiguous data of its own types. Other data go through a buffer.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Zip};

use crate::element::{Compute, Float};

/// How a loop on elements of type `L` reaches stored elements of type `A`.
pub(crate) struct Stored<A, L> {
    slice: fn(&[A]) -> Option<&[L]>,
    slice_mut: fn(&mut [A]) -> Option<&mut [L]>,
    /// Fills a buffer.
    load: fn(ArrayView1<'_, A>, &mut [L]),
    /// Empties a buffer.
    store: fn(&[L], ArrayViewMut1<'_, A>),
}

impl<Z: Copy> Stored<Z, Z> {
    /// Codes are copied.
    pub(crate) fn codes() -> Self {
        Self {
            slice: |codes| Some(codes),
            slice_mut: |codes| Some(codes),
            load: |from, to| Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, &from| *to = from),
            store: |from, to| Zip::from(to).and(ArrayView1::from(from)).for_each(|to, &from| *to = from),
        }
    }
}

impl<F: Float> Stored<F, F::Compute> {
    /// Floats are computed in their compute type.
    pub(crate) fn floats() -> Self {
        Self {
            slice: F::as_compute,
            slice_mut: F::as_compute_mut,
            load: |from, to| match from.to_slice() {
                Some(from) => F::widen_slice(from, to),
                None => Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, &from| *to = from.widen()),
            },
            store: |from, mut to| match to.as_slice_mut() {
                Some(to) => F::round_slice(from, to),
                None => Zip::from(to).and(ArrayView1::from(from)).for_each(|to, &from| *to = from.to_float()),
            },
        }
    }
}

impl<F: Float> Stored<F, f64> {
    /// Floats are computed in `f64` and rounded once.
    pub(crate) fn doubles() -> Self {
        Self {
            slice: |_| None,
            slice_mut: |_| None,
            load: |from, to| Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, from| *to = from.to_f64()),
            store: |from, to| Zip::from(to).and(ArrayView1::from(from)).for_each(|to, &from| *to = F::from_f64(from)),
        }
    }
}

/// A loop on slices; see [`buffered`].
type Eval<'a, X, Y> = &'a mut dyn FnMut(usize, &[X], &mut [Y]);

/// Calls `eval(first, x, y)` on slices that together are the whole run, in order; `first` is the block of their first
/// element. Blocks have `size` elements.
pub(crate) fn buffered<A, B, X: Copy + Default, Y: Copy + Default>(
    x_stored: Stored<A, X>,
    x: ArrayView1<'_, A>,
    y_stored: Stored<B, Y>,
    mut y: ArrayViewMut1<'_, B>,
    size: usize,
    eval: Eval<'_, X, Y>,
) {
    const LEN: usize = 256;
    if let (Some(x), Some(y)) = (x.to_slice().and_then(x_stored.slice), y.as_slice_mut().and_then(y_stored.slice_mut)) {
        return eval(0, x, y);
    }
    let (mut x_buffer, mut y_buffer) = ([X::default(); LEN], [Y::default(); LEN]);
    // The buffer holds whole blocks, or a part of one.
    let blocks = (LEN / size).max(1);
    let len = (blocks * size).min(x.len().max(1));
    let groups = x.axis_chunks_iter(Axis(0), len).zip(y.axis_chunks_iter_mut(Axis(0), len));
    for (k, (x, mut y)) in groups.enumerate() {
        for (x, y) in x.axis_chunks_iter(Axis(0), LEN).zip(y.axis_chunks_iter_mut(Axis(0), LEN)) {
            let (x_buffer, y_buffer) = (&mut x_buffer[..x.len()], &mut y_buffer[..x.len()]);
            (x_stored.load)(x, x_buffer);
            eval(k * blocks, x_buffer, y_buffer);
            (y_stored.store)(y_buffer, y);
        }
    }
}
