//! The loop over blocks of contiguous elements, compiled per instruction set.
//!
//! A loop loads a chunk into an array, computes it and stores it. This shows the compiler that inputs and outputs do
//! not alias, so that it vectorizes the chunk.

use super::ops::AffineOp;
use crate::simd::{self, NonTemporal, Task};

/// Evaluates an operator with a scale and a zero point for each block of `size` elements, by a loop compiled for the
/// instruction set in use. Loops on `f64` and wide codes are compiled once, because they are rare.
pub(super) fn run<O: AffineOp>(map: Map<'_, O>) {
    if O::PER_ISA { simd::run(map) } else { map.run() }
}

/// The loop. Blocks of one element have parameters per element.
pub(super) struct Map<'a, O: AffineOp> {
    pub(super) settings: O::Settings,
    pub(super) x: &'a [O::In],
    pub(super) y: &'a mut [O::Out],
    pub(super) scale: &'a [O::Scale],
    pub(super) zero_point: &'a [i32],
    pub(super) size: usize,
    pub(super) non_temporal: Option<NonTemporal<'a>>,
}

impl<O: AffineOp> Task for Map<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if self.size == 1 { self.elements() } else { self.blocks() }
    }
}

/// Elements that are computed together: a cache line of bytes, so that codes can be stored non-temporally.
const LINE: usize = 64;

/// Elements of a chunk of short blocks. Groups often have as many.
const CHUNK: usize = 32;

impl<O: AffineOp> Map<'_, O> {
    #[inline(always)]
    fn blocks(self) {
        let Self { settings, x, y, scale, zero_point, size, non_temporal } = self;
        let blocks = x.chunks(size).zip(y.chunks_mut(size)).zip(scale.iter().zip(zero_point));
        if size < LINE {
            for ((x, y), (&scale, &zero_point)) in blocks {
                let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<CHUNK>(), y.as_chunks_mut::<CHUNK>());
                let op = O::new(scale, zero_point, settings);
                for (y, x) in y.iter_mut().zip(x) {
                    *y = op.eval_chunk(x);
                }
                eval_rest(op, x_rest, y_rest);
            }
            return;
        }
        for ((x, y), (&scale, &zero_point)) in blocks {
            let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LINE>(), y.as_chunks_mut::<LINE>());
            let op = O::new(scale, zero_point, settings);
            for (y, x) in y.iter_mut().zip(x) {
                let line = op.eval_chunk(x);
                match non_temporal {
                    Some(non_temporal) => non_temporal.store(y, line),
                    None => *y = line,
                }
            }
            eval_rest(op, x_rest, y_rest);
        }
    }

    #[inline(always)]
    fn elements(self) {
        const CHUNK: usize = 16;
        let Self { settings, x, y, scale, zero_point, .. } = self;
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<CHUNK>(), y.as_chunks_mut::<CHUNK>());
        let (scale, scale_rest) = scale.as_chunks::<CHUNK>();
        let (zero_point, zero_point_rest) = zero_point.as_chunks::<CHUNK>();
        for (((y, &x), &scale), &zero_point) in y.iter_mut().zip(x).zip(scale).zip(zero_point) {
            let mut chunk = [O::Out::default(); CHUNK];
            for i in 0..CHUNK {
                chunk[i] = O::new(scale[i], zero_point[i], settings).eval(x[i]);
            }
            *y = chunk;
        }
        for (((y, &x), &scale), &zero_point) in y_rest.iter_mut().zip(x_rest).zip(scale_rest).zip(zero_point_rest) {
            *y = O::new(scale, zero_point, settings).eval(x);
        }
    }
}

#[inline(always)]
fn eval_rest<O: AffineOp>(op: O, x: &[O::In], y: &mut [O::Out]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = op.eval(x);
    }
}

/// Returns a chunk that starts with these values.
#[inline(always)]
pub(crate) fn padded<A: Copy + Default, const N: usize>(values: &[A]) -> [A; N] {
    let mut chunk = [A::default(); N];
    chunk[..values.len()].copy_from_slice(values);
    chunk
}
