//! The loop over blocks of contiguous elements, compiled per instruction set.
//!
//! A loop loads a chunk into an array, computes it and stores it. This shows the compiler that inputs and outputs do
//! not alias, so that it vectorizes the chunk.

use super::ops::{AffineOp, LINE};
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

/// Elements of the last chunks of a block. Groups often have as many.
const CHUNK: usize = 32;

impl<O: AffineOp> Map<'_, O> {
    #[inline(always)]
    fn blocks(self) {
        let Self { settings, x, y, scale, zero_point, size, non_temporal } = self;
        let (mut x_rest, mut y_rest) = ([O::In::default(); CHUNK], [O::Out::default(); CHUNK]);
        let params = scale.iter().zip(zero_point);
        for ((x, y), (&scale, &zero_point)) in x.chunks(size).zip(y.chunks_mut(size)).zip(params) {
            let op = O::new(scale, zero_point, settings);
            let ((x_lines, x), (y_lines, y)) = (x.as_chunks::<LINE>(), y.as_chunks_mut::<LINE>());
            for (y, x) in y_lines.iter_mut().zip(x_lines) {
                let line = op.eval_line(x);
                match non_temporal {
                    Some(non_temporal) => non_temporal.store(y, line),
                    None => *y = line,
                }
            }
            let ((x, x_last), (y, y_last)) = (x.as_chunks::<CHUNK>(), y.as_chunks_mut::<CHUNK>());
            let rest = x_last.len();
            x_rest[..rest].copy_from_slice(x_last);
            // One loop for whole chunks and for the rest, so that the code of a chunk exists once.
            for i in 0..x.len() + usize::from(rest > 0) {
                let chunk = op.eval_chunk(x.get(i).unwrap_or(&x_rest));
                *y.get_mut(i).unwrap_or(&mut y_rest) = chunk;
            }
            y_last.copy_from_slice(&y_rest[..rest]);
        }
    }

    #[inline(always)]
    fn elements(self) {
        const CHUNK: usize = 16;
        let Self { settings, x, y, scale, zero_point, .. } = self;
        let ((x, x_last), (y, y_last)) = (x.as_chunks::<CHUNK>(), y.as_chunks_mut::<CHUNK>());
        let (scale, scale_last) = scale.as_chunks::<CHUNK>();
        let (zero_point, zero_point_last) = zero_point.as_chunks::<CHUNK>();
        let rest = x_last.len();
        let (x_rest, mut y_rest) = (padded(x_last), [O::Out::default(); CHUNK]);
        let (scale_rest, zero_point_rest) = (padded(scale_last), padded(zero_point_last));
        for i in 0..x.len() + usize::from(rest > 0) {
            let &x = x.get(i).unwrap_or(&x_rest);
            let &scale = scale.get(i).unwrap_or(&scale_rest);
            let &zero_point = zero_point.get(i).unwrap_or(&zero_point_rest);
            let mut chunk = [O::Out::default(); CHUNK];
            for i in 0..CHUNK {
                chunk[i] = O::new(scale[i], zero_point[i], settings).eval(x[i]);
            }
            *y.get_mut(i).unwrap_or(&mut y_rest) = chunk;
        }
        y_last.copy_from_slice(&y_rest[..rest]);
    }
}

/// Returns a chunk that starts with these values.
#[inline(always)]
pub(crate) fn padded<A: Copy + Default, const N: usize>(values: &[A]) -> [A; N] {
    let mut chunk = [A::default(); N];
    chunk[..values.len()].copy_from_slice(values);
    chunk
}
