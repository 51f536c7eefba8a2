//! NVIDIA's 4-bit floats.

use super::{block_format, max_magnitude};
use crate::element::minifloat::{F4E2M1FN, F8E4M3FN, decode, encode};

block_format! {
    /// NVFP4: 16 values share an 8-bit float as scale, and all blocks a `f32`. 9 bytes for 16 values.
    ///
    /// With the greatest magnitude `m` of the tensor, `tensor_scale = m / (448 * 6)`. With the greatest magnitude `a` of a
    /// block, `scale = F8E4M3FN(a / tensor_scale / 6)`, and each code is `F4E2M1FN(x / tensor_scale / scale)`, to nearest, ties
    /// to even, saturated. The value of a code is `q * scale * tensor_scale`.
    ///
    /// A block is the byte of the scale ([`F8E4M3FN`](crate::minifloat::F8E4M3FN)) and then 8 bytes of codes
    /// ([`F4E2M1FN`](crate::minifloat::F4E2M1FN)), the first code of a byte in its low bits.
    ///
    /// Source: NVIDIA, "Pretraining Large Language Models with NVFP4", 2025, appendix C.
    NVFP4: 16 values, 9 bytes, tensor 448.0 * 6.0;
}

impl NVFP4 {
    #[inline(always)]
    fn encode(x: &[f32; 16], bytes: &mut [u8; 9]) {
        let scale = encode::<F8E4M3FN>(max_magnitude(x) / 6.0, true);
        bytes[0] = scale;
        let scale = decode::<F8E4M3FN>(scale);
        // A block of values that are tiny beside the others of the tensor has the scale 0.
        let code = |x: f32| if scale == 0.0 { 0 } else { encode::<F4E2M1FN>(x / scale, true) };
        for i in 0..8 {
            bytes[1 + i] = code(x[2 * i]) | code(x[2 * i + 1]) << 4;
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 9], y: &mut [f32; 16]) {
        let scale = decode::<F8E4M3FN>(bytes[0]);
        for i in 0..8 {
            y[2 * i] = decode::<F4E2M1FN>(bytes[1 + i] & 0xf) * scale;
            y[2 * i + 1] = decode::<F4E2M1FN>(bytes[1 + i] >> 4) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::BlockTensor;

    proptest! {
        /// Two errors: of the scale, 2^-4 of a value, and of the code, 2^-2 of a value or half the smallest one.
        #[test]
        fn errors_are_bounded(x in prop::collection::vec(-10f32..10.0, 48), exponent in -60i32..60) {
            let x = ndarray::Array1::from_vec(x).mapv(|x| x * 2f32.powi(exponent));
            let q = BlockTensor::<NVFP4, _>::quantize(&x).unwrap();
            let y = q.dequantize();
            for (block, (x, y)) in x.as_slice().unwrap().chunks(16).zip(y.as_slice().unwrap().chunks(16)).enumerate() {
                let scale = decode::<F8E4M3FN>(q.as_bytes()[block * 9]) * q.tensor_scale();
                for (x, y) in x.iter().zip(y) {
                    prop_assert!((x - y).abs() <= (x.abs() / 5.0).max(scale / 4.0) * 1.0001 + scale * 0.4, "{x} {y} {scale}");
                }
            }
        }
    }

    #[test]
    fn exact_values() {
        // Magnitudes up to 2688 = 448 * 6: the scale of the tensor is 1.
        let x = ndarray::arr2(&[[2688.0f32, 448.0, -224.0], [6.0, 0.5, -1.5], [0.0, 0.0, 0.0]]);
        let q = BlockTensor::<NVFP4, _>::quantize(&x).unwrap();
        assert_eq!((q.tensor_scale(), q.size_in_bytes()), (1.0, 31));
        assert_eq!(q.dequantize(), x);
        assert_eq!(q.as_bytes()[9..12], [0x38, 0x17, 0x3b | 0x80]);
    }
}
