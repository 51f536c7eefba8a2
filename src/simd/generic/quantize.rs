//! Quantization to bytes.

use super::simd_f32::F32x4;
use crate::affine::{ByteQuantizer, Rounding};
use crate::simd::{NonTemporal, Task, Vector};

/// Values of a chunk: a cache line of codes.
const CHUNK: usize = 64;

/// Quantizes blocks of `size` values, each by its own operator. Blocks without one are left as they are.
pub(crate) struct QuantizeBytes<'a, V, R: Rounding> {
    pub(crate) v: V,
    pub(crate) ops: &'a [Option<ByteQuantizer<R>>],
    pub(crate) size: usize,
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [u8],
    pub(crate) non_temporal: Option<NonTemporal<'a>>,
}

impl<V: Vector, R: Rounding> Task for QuantizeBytes<'_, V, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { v, ops, size, from, to, non_temporal } = self;
        for ((op, from), to) in ops.iter().zip(from.chunks(size)).zip(to.chunks_mut(size)) {
            let Some(op) = *op else { continue };
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<CHUNK>(), to.as_chunks_mut::<CHUNK>());
            for (from, to) in from.iter().zip(to) {
                let codes = quantize_chunk(v, op, from);
                match non_temporal {
                    Some(non_temporal) => non_temporal.store(to, codes),
                    None => *to = codes,
                }
            }
            if !from_rest.is_empty() {
                let mut padded = [0.0; CHUNK];
                padded[..from_rest.len()].copy_from_slice(from_rest);
                to_rest.copy_from_slice(&quantize_chunk(v, op, &padded)[..to_rest.len()]);
            }
        }
    }
}

#[inline(always)]
fn quantize_chunk<V: Vector, R: Rounding>(v: V, op: ByteQuantizer<R>, from: &[f32; CHUNK]) -> [u8; CHUNK] {
    let (codes, any_nan) = quantize_numbers(v, op, from);
    if any_nan {
        return quantize_numbers(v, op, &from.map(|x| if x.is_nan() { 0.0 } else { x })).0;
    }
    codes
}

/// Returns the codes, and whether a value is NaN: codes beside it are unspecified.
#[inline(always)]
fn quantize_numbers<V: Vector, R: Rounding>(v: V, op: ByteQuantizer<R>, from: &[f32; CHUNK]) -> ([u8; CHUNK], bool) {
    const { assert!(CHUNK.is_multiple_of(4 * V::LANES)) }
    let sign_xor = v.splat(i32::from_ne_bytes([op.sign_xor(); 4]));
    let (mut codes, mut any_nan) = ([0; CHUNK], false);
    for i in (0..CHUNK).step_by(4 * V::LANES) {
        // SAFETY: `4 * LANES` divides the length of both arrays.
        unsafe {
            let x = array!(v.splat_f32(0.0), k => v.load_f32(from.as_ptr().add(i + k * V::LANES)));
            any_nan |= v.any_nan(x[0], x[1]) | v.any_nan(x[2], x[3]);
            v.store(codes.as_mut_ptr().add(i), v.xor(v.transpose_groups(op.codes(F32x4(v, x))), sign_xor));
        }
    }
    (codes, any_nan)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affine::rounding::{Onnx, TfLite, Torch};
    use crate::affine::{Codes, Quantizer};
    use crate::element::Code;
    use crate::simd::{Isa, Target, with_vector};

    fn check<Z: Code, R: Rounding>(x: &[f32], scale: f32, zero_point: Z, codes: Codes) -> Result<(), TestCaseError> {
        let op = ByteQuantizer::<R>::new::<Z>(scale, zero_point.to_i32(), codes);
        if op.is_none() {
            return Ok(());
        }
        let quantizer = Quantizer::<Z, f32, R>::new(scale, zero_point.to_i32(), codes);
        let expected: alloc::vec::Vec<u8> = x.iter().map(|&x| quantizer.quantize(x).to_i32() as u8).collect();
        for isa in Isa::available() {
            let mut found = alloc::vec![0; x.len()];
            with_vector!(isa, v => v.run(QuantizeBytes { v, ops: &[op], size: 1000, from: x, to: &mut found, non_temporal: None }));
            prop_assert_eq!(&found, &expected, "{:?}, scale {:e}", isa, scale);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn codes_of_every_set(
            values in proptest::collection::vec(prop_oneof![
                8 => -300f32..300.0, 2 => (-300..300).prop_map(|k| k as f32 + 0.5), 1 => any::<f32>(),
                1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY), 1 => Just(f32::MAX),
            ], 0..200),
            scale in prop_oneof![Just(1.0), Just(0.5), 1e-3f32..10.0, 0f32..], zero: i8, (min, max) in (-128..0, 0..128),
        ) {
            let near: alloc::vec::Vec<f32> = values.iter().map(|x| x * scale).collect();
            for x in [&values, &near] {
                check::<i8, Onnx>(x, scale, zero, Codes { min, max })?;
                check::<i8, Torch>(x, scale, zero, Codes { min, max })?;
                check::<i8, TfLite>(x, scale, zero, Codes { min, max })?;
                let (zero, codes) = (zero as u8, Codes { min: 0, max: max + 100 });
                check::<u8, Onnx>(x, scale, zero, codes)?;
                check::<u8, Torch>(x, scale, zero, codes)?;
                check::<u8, TfLite>(x, scale, zero, codes)?;
            }
        }
    }
}
