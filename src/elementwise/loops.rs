//! Loops with per-tensor, per-block and per-element parameters.
//!
//! A loop loads a chunk into an array, computes it and stores it. This shows the compiler that inputs and outputs do
//! not alias, so that it vectorizes the chunk.

use super::ops::{AffineOp, ElementwiseOp};
use crate::simd::{self, NonTemporal, Task};

/// Runs a loop compiled for the instruction set in use. Loops on `f64` and wide codes are compiled once, because they
/// are rare.
pub(super) fn run<F: ElementwiseOp>(task: impl Task<Output = ()> + ElementwiseLoop<F>) {
    if F::PER_ISA { simd::run(task) } else { task.run() }
}

/// A loop that evaluates the operator `F`.
pub(super) trait ElementwiseLoop<F: ElementwiseOp> {}
impl<F: ElementwiseOp> ElementwiseLoop<F> for PerTensor<'_, F> {}
impl<F: AffineOp> ElementwiseLoop<F::Op> for PerBlock<'_, F> {}
impl<F: AffineOp> ElementwiseLoop<F::Op> for PerElement<'_, F> {}

/// Evaluates an operator with one scale and zero point for all elements.
pub(super) struct PerTensor<'a, F: ElementwiseOp> {
    pub(super) op: F,
    pub(super) x: &'a [F::In],
    pub(super) y: &'a mut [F::Out],
    pub(super) non_temporal: Option<NonTemporal<'a>>,
}

impl<F: ElementwiseOp> Task for PerTensor<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        /// A cache line of bytes, so that codes can be stored non-temporally.
        const CHUNK: usize = 64;
        let Self { op, x, y, non_temporal } = self;
        eval_chunks::<CHUNK, F>(op, x, y, non_temporal);
    }
}

#[inline(always)]
fn eval_chunks<const CHUNK: usize, F: ElementwiseOp>(
    op: F,
    x: &[F::In],
    y: &mut [F::Out],
    non_temporal: Option<NonTemporal<'_>>,
) {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<CHUNK>(), y.as_chunks_mut::<CHUNK>());
    for (y, &x) in y.iter_mut().zip(x) {
        let mut chunk = [F::Out::default(); CHUNK];
        for i in 0..CHUNK {
            chunk[i] = op.eval(x[i]);
        }
        match non_temporal {
            Some(non_temporal) => non_temporal.store(y, chunk),
            None => *y = chunk,
        }
    }
    for (y, &x) in y_rest.iter_mut().zip(x_rest) {
        *y = op.eval(x);
    }
}

/// Evaluates an operator with a scale and a zero point for each block of `size` elements.
pub(super) struct PerBlock<'a, F: AffineOp> {
    pub(super) op: F,
    pub(super) x: &'a [<F::Op as ElementwiseOp>::In],
    pub(super) y: &'a mut [<F::Op as ElementwiseOp>::Out],
    pub(super) scale: &'a [F::Scale],
    pub(super) zero_point: &'a [i32],
    pub(super) size: usize,
}

impl<F: AffineOp> Task for PerBlock<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        /// Groups often have 32 elements.
        const CHUNK: usize = 32;
        let Self { op, x, y, scale, zero_point, size } = self;
        let params = scale.iter().zip(zero_point);
        for ((x, y), (&scale, &zero_point)) in x.chunks(size).zip(y.chunks_mut(size)).zip(params) {
            eval_chunks::<CHUNK, _>(op.with_params(scale, zero_point), x, y, None);
        }
    }
}

/// Evaluates an operator with a scale and a zero point for each element.
pub(super) struct PerElement<'a, F: AffineOp> {
    pub(super) op: F,
    pub(super) x: &'a [<F::Op as ElementwiseOp>::In],
    pub(super) y: &'a mut [<F::Op as ElementwiseOp>::Out],
    pub(super) scale: &'a [F::Scale],
    pub(super) zero_point: &'a [i32],
}

impl<F: AffineOp> Task for PerElement<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const CHUNK: usize = 16;
        let ((x, x_rest), (y, y_rest)) = (self.x.as_chunks::<CHUNK>(), self.y.as_chunks_mut::<CHUNK>());
        let (scale, scale_rest) = self.scale.as_chunks::<CHUNK>();
        let (zero_point, zero_point_rest) = self.zero_point.as_chunks::<CHUNK>();
        for (((y, &x), &scale), &zero_point) in y.iter_mut().zip(x).zip(scale).zip(zero_point) {
            let mut chunk = [Default::default(); CHUNK];
            for i in 0..CHUNK {
                chunk[i] = self.op.with_params(scale[i], zero_point[i]).eval(x[i]);
            }
            *y = chunk;
        }
        for (((y, &x), &scale), &zero_point) in y_rest.iter_mut().zip(x_rest).zip(scale_rest).zip(zero_point_rest) {
            *y = self.op.with_params(scale, zero_point).eval(x);
        }
    }
}
