//! OCP's microscaling formats.

use core::marker::PhantomData;

use super::{BlockFormat, max_magnitude, quantize_by_format};
use crate::element::e8m0::{E8M0, E8M0Rounding};
use crate::element::minifloat::{F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E4M3FN, F8E5M2, Minifloat, decode, encode};
use crate::simd::{self, Task};

/// A microscaling format of elements `T`: 32 values share a scale, a power of two.
///
/// With the greatest magnitude `a` of a block, `scale = 2^(floor(log2(a)) - floor(log2(T::MAX)))`, and each code is
/// `round(x / scale)`, to nearest, ties to even, saturated. The value of a code is `q * scale`, NaN if the scale is NaN.
///
/// A block is the byte of the scale ([`E8M0`]) and then the codes, one after the other from the low bits of the first byte
/// on. The specification leaves the order of bits to implementations; two 4-bit codes stand in a byte as ONNX stores them.
///
/// Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5.2 and 6.3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mx<T>(PhantomData<T>);

/// MXFP8 with elements [`F8E4M3FN`]: 33 bytes for 32 values.
pub type MXFP8E4M3 = Mx<F8E4M3FN>;
/// MXFP8 with elements [`F8E5M2`]: 33 bytes for 32 values.
pub type MXFP8E5M2 = Mx<F8E5M2>;
/// MXFP6 with elements [`F6E2M3FN`]: 25 bytes for 32 values.
pub type MXFP6E2M3 = Mx<F6E2M3FN>;
/// MXFP6 with elements [`F6E3M2FN`]: 25 bytes for 32 values.
pub type MXFP6E3M2 = Mx<F6E3M2FN>;
/// MXFP4 with elements [`F4E2M1FN`]: 17 bytes for 32 values.
pub type MXFP4 = Mx<F4E2M1FN>;

/// The number of values of a block.
const VALUES: usize = 32;

impl<T: Minifloat> BlockFormat for Mx<T> {
    const NAME: &'static str = match (T::BITS, T::MANTISSA_BITS) {
        (8, 3) => "MXFP8E4M3",
        (8, _) => "MXFP8E5M2",
        (6, 3) => "MXFP6E2M3",
        (6, _) => "MXFP6E3M2",
        _ => "MXFP4",
    };
    const VALUES: usize = VALUES;
    const BYTES: usize = 1 + VALUES * T::BITS as usize / 8;

    fn quantize_blocks(x: &[f32], bytes: &mut [u8]) {
        let max_exponent = (T::MAX.to_f32().to_bits() >> 23) as i32 - 127;
        for (x, bytes) in x.as_chunks::<VALUES>().0.iter().zip(bytes.chunks_exact_mut(Self::BYTES)) {
            let greatest = E8M0::from_f32_saturating(max_magnitude(x), E8M0Rounding::Down);
            let scale = E8M0::from_bits((greatest.to_bits() as i32 - max_exponent).max(0) as u8);
            // The quotient by a power of two is exact.
            let codes = x.map(|x| encode::<T>(x / scale.to_f32(), true));
            bytes[0] = scale.to_bits();
            pack::<T>(&codes, &mut bytes[1..]);
        }
    }

    fn dequantize_blocks(bytes: &[u8], y: &mut [f32]) {
        struct Decode<'a, T>(&'a [u8], &'a mut [f32], PhantomData<T>);
        impl<T: Minifloat> Task for Decode<'_, T> {
            type Output = ();
            #[inline(always)]
            fn run(self) {
                let blocks = self.0.chunks_exact(Mx::<T>::BYTES);
                for (bytes, y) in blocks.zip(self.1.as_chunks_mut::<VALUES>().0) {
                    let scale = E8M0::from_bits(bytes[0]).to_f32();
                    let codes = unpack::<T>(&bytes[1..]);
                    for i in 0..VALUES {
                        y[i] = decode::<T>(codes[i]) * scale;
                    }
                }
            }
        }
        simd::run(Decode::<T>(bytes, y, PhantomData));
    }
}

quantize_by_format!([T: Minifloat] Mx<T>);

/// Writes codes one after the other: eight codes fill as many bytes as a code has bits.
fn pack<T: Minifloat>(codes: &[u8; VALUES], bytes: &mut [u8]) {
    let bits = T::BITS as usize;
    for (codes, bytes) in codes.as_chunks::<8>().0.iter().zip(bytes.chunks_exact_mut(bits)) {
        let word = codes.iter().rev().fold(0u64, |word, &code| word << bits | code as u64);
        bytes.copy_from_slice(&word.to_le_bytes()[..bits]);
    }
}

/// Reads codes that [`pack`] wrote.
#[inline(always)]
fn unpack<T: Minifloat>(bytes: &[u8]) -> [u8; VALUES] {
    let (bits, mut codes) = (T::BITS as usize, [0; VALUES]);
    for (codes, bytes) in codes.as_chunks_mut::<8>().0.iter_mut().zip(bytes.chunks_exact(bits)) {
        let word = bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | byte as u64);
        for (i, code) in codes.iter_mut().enumerate() {
            *code = (word >> (i * bits)) as u8 & (0xff >> (8 - bits));
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::block::BlockTensor;

    /// Each value is the nearest of all codes, and the scale belongs to the greatest magnitude.
    fn check<T: Minifloat>(x: &[f32]) {
        let mut bytes = vec![0; Mx::<T>::BYTES];
        Mx::<T>::quantize_blocks(x, &mut bytes);
        let mut y = vec![0.0; VALUES];
        Mx::<T>::dequantize_blocks(&bytes, &mut y);
        let greatest = x.iter().fold(0f64, |a, &x| a.max((x as f64).abs()));
        let expected = if greatest == 0.0 {
            2f64.powi(-127)
        } else {
            2f64.powi((greatest.log2().floor() - (T::MAX.to_f32() as f64).log2().floor()) as i32).max(2f64.powi(-127))
        };
        let scale = E8M0::from_bits(bytes[0]).to_f32() as f64;
        assert_eq!(scale, expected);
        let values: Vec<f64> = (0..=0xffu8 >> (8 - T::BITS))
            .map(|bits| T::from_bits(bits).to_f32() as f64)
            .filter(|x| x.is_finite())
            .collect();
        for (&x, &y) in x.iter().zip(&y) {
            let error = |value: f64| (value * scale - x as f64).abs();
            let best = values.iter().map(|&value| error(value)).fold(f64::INFINITY, f64::min);
            assert_eq!((y as f64 - x as f64).abs(), best, "{x} became {y} with scale {scale}");
        }
    }

    proptest! {
        #[test]
        fn codes_are_nearest(x in prop::collection::vec(-10f32..10.0, 32), exponent in -100i32..100) {
            let x: Vec<f32> = x.into_iter().map(|x| x * 2f32.powi(exponent)).collect();
            check::<F8E4M3FN>(&x);
            check::<F8E5M2>(&x);
            check::<F6E2M3FN>(&x);
            check::<F6E3M2FN>(&x);
            check::<F4E2M1FN>(&x);
        }

        #[test]
        fn packing_is_inverted(codes in any::<[u8; 32]>()) {
            fn check<T: Minifloat>(codes: [u8; 32]) {
                let codes = codes.map(|code| T::from_bits(code).to_bits());
                let mut bytes = vec![0; Mx::<T>::BYTES - 1];
                pack::<T>(&codes, &mut bytes);
                assert_eq!(unpack::<T>(&bytes), codes);
            }
            check::<F8E4M3FN>(codes);
            check::<F6E2M3FN>(codes);
            check::<F4E2M1FN>(codes);
        }
    }

    #[test]
    fn special_blocks() {
        check::<F4E2M1FN>(&[0.0; 32]);
        check::<F8E4M3FN>(&[f32::from_bits(1); 32]);
        check::<F8E5M2>(&[f32::MAX; 32]);
        let mut bytes = [0x55; 17];
        bytes[0] = 255;
        let y = BlockTensor::<MXFP4, _, _>::from_bytes(32, bytes).unwrap().dequantize();
        assert!(y.iter().all(|y| y.is_nan()));
    }

    #[test]
    fn bytes_of_a_block() {
        let mut x = [0.0; 32];
        x[..4].copy_from_slice(&[6.0, -1.0, 2.5, 3.5]);
        let q = BlockTensor::<MXFP4, _>::quantize(&ndarray::arr1(&x)).unwrap();
        // Scale 1, and ties to even: 2.5 becomes 2, 3.5 becomes 4.
        assert_eq!(q.as_bytes()[..4], [127, 0xa7, 0x64, 0]);
    }
}
