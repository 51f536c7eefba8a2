//! Minimum and maximum of blocks.

use ndarray::{ArrayView1, Axis};

use crate::element::Float;
use crate::simd::{self, Task};

/// Widens bounds `i` by the values `i * size..(i + 1) * size`. Returns whether all values are finite.
pub(crate) fn include_all<F: Float>(min: &mut [f32], max: &mut [f32], values: ArrayView1<'_, F>, size: usize) -> bool {
    match values.to_slice() {
        Some(values) => simd::run(Scan { min, max, values, size }),
        None => {
            let blocks = values.axis_chunks_iter(Axis(0), size.min(values.len().max(1)));
            min.iter_mut().zip(max).zip(blocks).fold(true, |finite, ((min, max), values)| {
                values.fold(finite, |finite, x| finite & include(min, max, x.to_f32()))
            })
        }
    }
}

/// Widens bounds by a value. Returns whether it is finite.
#[inline(always)]
fn include(min: &mut f32, max: &mut f32, x: f32) -> bool {
    *min = if x < *min { x } else { *min };
    *max = if x > *max { x } else { *max };
    x.is_finite()
}

/// [`include_all`] for contiguous values.
struct Scan<'a, F> {
    min: &'a mut [f32],
    max: &'a mut [f32],
    values: &'a [F],
    size: usize,
}

impl<F: Float> Task for Scan<'_, F> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Self { min, max, values, size } = self;
        let mut finite = true;
        if size == 1 {
            for ((min, max), x) in min.iter_mut().zip(max).zip(values) {
                finite &= include(min, max, x.to_f32());
            }
            return finite;
        }
        for ((min, max), values) in min.iter_mut().zip(max).zip(values.chunks(size)) {
            let mut both = |(low, high): (f32, f32)| finite &= include(min, max, low) & include(min, max, high);
            let Some(values) = F::as_f32(values) else {
                let mut wide = [Default::default(); CHUNK];
                for values in values.chunks(CHUNK) {
                    let wide = &mut wide[..values.len()];
                    F::widen_slice(values, wide);
                    both(bounds_of(wide));
                }
                continue;
            };
            both(bounds_of(values));
        }
        finite
    }
}

/// Values per chunk that is widened to `f32`.
const CHUNK: usize = 512;

/// Computes the bounds of a slice. If a value is not finite, at least one bound is not finite.
///
/// Compares bit patterns as integers: the bits of positive floats grow with the value, the bits of negative floats with
/// the magnitude, and NaN compares beyond the infinities. Integer minima and maxima may be reordered, so the compiler
/// vectorizes the loop.
#[inline(always)]
fn bounds_of<F: Float>(values: &[F]) -> (f32, f32) {
    // The signed maximum is the greatest positive float, if there is one. The unsigned maximum is the least negative
    // float, if there is one. If all signs agree, the unsigned minimum is the float nearest to zero.
    let (mut greatest, mut farthest, mut nearest) = (i32::MIN, u32::MIN, u32::MAX);
    for x in values {
        let bits = x.to_f32().to_bits();
        greatest = greatest.max(bits as i32);
        farthest = farthest.max(bits);
        nearest = nearest.min(bits);
    }
    let max = if greatest >= 0 { greatest as u32 } else { nearest };
    let min = if (farthest as i32) < 0 { farthest } else { nearest };
    // Adding 0 turns -0 into +0.
    (f32::from_bits(min) + 0.0, f32::from_bits(max) + 0.0)
}
