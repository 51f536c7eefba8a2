//! Elementwise quantize, dequantize and fake-quantize, vectorized for the instruction set in use.
//!
//! There is one loop per size of codes, operator and convention: [`map`]. It reads and writes contiguous data of these
//! types directly. Other float types and strided data go through a small buffer, which keeps the number of loops low.
//!
//! | file | content |
//! |---|---|
//! | `mod` | the conversions of tensors' runs, and the choice of the loop |
//! | `buffered` | calls a loop on the data itself, or on a buffer |
//! | `ops` | the operators on one element |
//! | `map` | the loop |
//! | `minifloat` | encode and decode float codes |
//! | `map2` | the loop on codes of two tensors, with broadcasting |
//! | `reduce` | minimum and maximum of blocks |

mod buffered;
mod map;
mod map2;
mod minifloat;
mod ops;
mod reduce;

use ndarray::{ArrayView1, ArrayViewMut1};

use crate::affine::{ByteQuantizer, Codes, Convention, Dequantizer, FakeQuantizer, Quantizer, Rounding, with_rounding};
use crate::element::{Code, Compute, Float};
use crate::simd;
pub(crate) use buffered::{Stored, buffered};
use map::Map;
pub(crate) use map::padded;
pub(crate) use map2::map2;
pub(crate) use minifloat::{decode_run, encode_run};
use ops::AffineOp;
pub(crate) use reduce::include_all;

/// Scales in the type that they are stored in.
#[derive(Clone, Copy)]
pub(crate) enum Scales<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl Scales<'_> {
    fn load<C: Compute>(self, first: usize, to: &mut [C]) {
        match self {
            Scales::F32(scales) => {
                to.iter_mut().zip(&scales[first..]).for_each(|(to, &scale)| *to = C::from_f32(scale))
            }
            Scales::F64(scales) => {
                to.iter_mut().zip(&scales[first..]).for_each(|(to, &scale)| *to = C::from_f64(scale))
            }
        }
    }
}

/// The parameters of a run of elements: a scale and a zero point for each block of `size` elements. The last block may
/// be shorter.
#[derive(Clone, Copy)]
pub(crate) struct Params<'a, Z> {
    pub(crate) scales: Scales<'a>,
    pub(crate) zero_points: Option<&'a [Z]>,
    pub(crate) size: usize,
}

/// Quantizes: `codes[i] = clamp(round(x[i] / scale) + zero_point)`.
pub(crate) fn quantize_run<F: Float, Z: Code>(
    x: ArrayView1<'_, F>,
    params: Params<'_, Z>,
    range: Codes,
    convention: Convention,
    codes: ArrayViewMut1<'_, Z>,
) {
    buffered(Stored::floats(), x, Stored::codes(), codes, params.size, &mut |first, x, codes| {
        let params = params.starting_at(first);
        with_rounding!(convention, R => {
            if const { size_of::<Z>() == 1 } {
                quantize_bytes::<_, Z, R>(x, params, range, simd::as_bytes_mut(codes).unwrap_or_default());
            } else {
                map::<Quantizer<Z, _, R>, Z>(range, x, params, codes);
            }
        });
    });
}

/// Quantizes to bytes, where that is possible and pays without a division.
fn quantize_bytes<C: Compute, Z: Code, R: Rounding>(x: &[C], params: Params<'_, Z>, range: Codes, codes: &mut [u8]) {
    /// Preparing the reciprocal does not pay for shorter blocks.
    const MIN_SIZE: usize = 64;
    /// Blocks per call of the loop.
    const BLOCKS: usize = 16;
    let (Some(numbers), Scales::F32(scales), MIN_SIZE.., true) =
        (C::as_f32(x), params.scales, params.size, ByteQuantizer::<R>::is_available())
    else {
        return map::<Quantizer<u8, C, R>, Z>(range, x, params, codes);
    };
    let size = params.size;
    let chunk = size.saturating_mul(BLOCKS);
    for (k, (numbers, codes)) in numbers.chunks(chunk).zip(codes.chunks_mut(chunk)).enumerate() {
        let (first, count) = (k * BLOCKS, numbers.len().div_ceil(size));
        let mut ops = [None; BLOCKS];
        for (i, op) in ops[..count].iter_mut().enumerate() {
            let zero_point = params.zero_points.map_or(0, |zero_points| zero_points[first + i].to_i32());
            *op = ByteQuantizer::<R>::new::<Z>(scales[first + i], zero_point, range);
        }
        simd::quantize_bytes(&ops[..count], size, numbers, codes);
        for (i, _) in ops[..count].iter().enumerate().filter(|(_, op)| op.is_none()) {
            let (x, codes) = (&x[(first + i) * size..], &mut codes[i * size..]);
            let len = size.min(codes.len());
            map::<Quantizer<u8, C, R>, Z>(range, &x[..len], params.starting_at(first + i), &mut codes[..len]);
        }
    }
}

/// Dequantizes: `y[i] = (codes[i] - zero_point) * scale`, in `f64` if `double`, rounded once to `F`.
pub(crate) fn dequantize_run<F: Float, Z: Code>(
    codes: ArrayView1<'_, Z>,
    params: Params<'_, Z>,
    double: bool,
    y: ArrayViewMut1<'_, F>,
) {
    if double {
        return buffered(Stored::codes(), codes, Stored::doubles(), y, params.size, &mut |first, codes, y| {
            map::<Dequantizer<Z, f64>, Z>((), codes, params.starting_at(first), y);
        });
    }
    buffered(Stored::codes(), codes, Stored::floats(), y, params.size, &mut |first, codes, y| {
        map::<Dequantizer<Z, F::Compute>, Z>((), codes, params.starting_at(first), y);
    });
}

/// Fake-quantizes: `y[i] = dequantize(quantize(x[i]))`.
pub(crate) fn fake_quantize_run<F: Float, Z: Code>(
    x: ArrayView1<'_, F>,
    params: Params<'_, Z>,
    range: Codes,
    convention: Convention,
    y: ArrayViewMut1<'_, F>,
) {
    buffered(Stored::floats(), x, Stored::floats(), y, params.size, &mut |first, x, y| {
        let params = params.starting_at(first);
        with_rounding!(convention, R => {
            if Z::WIDE {
                map::<FakeQuantizer<Z, F::Compute, R>, Z>(range, x, params, y);
            } else {
                map::<FakeQuantizer<u16, F::Compute, R>, Z>(range, x, params, y);
            }
        });
    });
}

impl<Z> Params<'_, Z> {
    /// Returns the parameters of the elements from block `first` on.
    pub(crate) fn starting_at(self, first: usize) -> Self {
        let scales = match self.scales {
            Scales::F32(scales) => Scales::F32(&scales[first..]),
            Scales::F64(scales) => Scales::F64(&scales[first..]),
        };
        Self { scales, zero_points: self.zero_points.map(|zero_points| &zero_points[first..]), size: self.size }
    }
}

/// Evaluates an operator on slices, with non-temporal stores if they are large and in one block.
fn map<O: AffineOp, Z: Code>(settings: O::Settings, x: &[O::In], params: Params<'_, Z>, y: &mut [O::Out]) {
    /// Blocks per call of the loop.
    const BLOCKS: usize = 128;
    /// Shorter blocks are evaluated with parameters per element.
    const MIN_SIZE: usize = 16;
    let Params { scales, zero_points, size } = params;
    if x.len() <= size && size > 1 {
        let mut scale = [O::Scale::ONE];
        scales.load(0, &mut scale);
        let (scale, zero_point) = (&scale, &[zero_points.map_or(0, |zero_points| zero_points[0].to_i32())]);
        let size = x.len().max(MIN_SIZE);
        return simd::with_non_temporal_lines(x, y, |x, y, non_temporal| {
            map::run(Map::<O> { settings, x, y, scale, zero_point, size, non_temporal });
        });
    }
    let repeat = if size < MIN_SIZE { size } else { 1 };
    let (mut scale, mut zero_point) = ([O::Scale::ONE; BLOCKS], [0; BLOCKS]);
    let blocks = BLOCKS / repeat;
    let chunks = x.chunks(blocks * size).zip(y.chunks_mut(blocks * size));
    for (k, (x, y)) in chunks.enumerate() {
        let count = x.len().div_ceil(size);
        scales.load(k * blocks, &mut scale[..count]);
        if let Some(zero_points) = zero_points {
            let from = &zero_points[k * blocks..];
            zero_point[..count].iter_mut().zip(from).for_each(|(to, from)| *to = from.to_i32());
        }
        if repeat > 1 {
            for i in (0..count * repeat).rev() {
                (scale[i], zero_point[i]) = (scale[i / repeat], zero_point[i / repeat]);
            }
        }
        let len = if repeat == size { x.len() } else { count };
        let (scale, zero_point, size) = (&scale[..len], &zero_point[..len], size / repeat);
        map::run(Map::<O> { settings, x, y, scale, zero_point, size, non_temporal: None });
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::affine::rounding::Onnx;

    /// Non-temporal stores give the same codes at every alignment of the output.
    #[test]
    fn non_temporal_stores_give_the_same_codes() {
        let x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.1 - 50.0).collect();
        let (scale, zero_point, range) = (0.3, 5, Codes::all::<i8>());
        let quantizer = Quantizer::<i8, f32, Onnx>::new(scale, zero_point, range);
        let expected: Vec<i8> = x.iter().map(|&x| quantizer.quantize(x)).collect();
        let mut codes = alloc::vec![0; x.len() + 64];
        for offset in 0..64 {
            let y = &mut codes[offset..][..x.len()];
            y.fill(0);
            simd::with_non_temporal(usize::MAX, |non_temporal| {
                let (scale, zero_point, size) = (&[scale], &[zero_point], x.len());
                map::run(Map::<Quantizer<i8, f32, Onnx>> {
                    settings: range,
                    x: &x,
                    y,
                    scale,
                    zero_point,
                    size,
                    non_temporal,
                });
            });
            assert_eq!(&codes[offset..][..x.len()], expected);
        }
    }
}
