//! The 4-bit code of QLoRA.

use super::{block_format, max_magnitude, reciprocal};

block_format! {
    /// NF4: 64 values share a `f32`, their greatest magnitude. 36 bytes for 64 values.
    ///
    /// Each code is the index of the nearest of 16 numbers in `-1..=1`, quantiles of the normal distribution, so that values of a
    /// normal distribution use all codes equally often. With the greatest magnitude `a` of a block and the numbers `c`, the
    /// code of `x` is the number of midpoints `(c[i] + c[i + 1]) / 2` that are less than `x * (1 / a)`, and its value `c[q] * a`.
    ///
    /// A block is `a` as a little-endian `f32` and then 32 bytes of codes, the first code of a byte in its *high* bits, as
    /// bitsandbytes stores them. Scales are not quantized once more.
    ///
    /// Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, appendix E.
    NF4: 64 values, 36 bytes;
}

/// The quantiles of the normal distribution, divided by the greatest one.
const CODEBOOK: [f32; 16] = [
    -1.0,
    -0.6961928,
    -0.52507305,
    -0.3949175,
    -0.28444138,
    -0.18477343,
    -0.091050036,
    0.0,
    0.0795803,
    0.1609302,
    0.2461123,
    0.33791524,
    0.44070983,
    0.562617,
    0.72295684,
    1.0,
];

/// The midpoints between neighbours.
const MIDPOINTS: [f32; 15] = {
    let mut midpoints = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        midpoints[i] = (CODEBOOK[i] + CODEBOOK[i + 1]) / 2.0;
        i += 1;
    }
    midpoints
};

/// The number of bytes of the scale.
const SCALE: usize = size_of::<f32>();

impl NF4 {
    #[inline(always)]
    fn encode(x: &[f32; 64], bytes: &mut [u8; 36]) {
        let scale = max_magnitude(x);
        let factor = reciprocal(scale);
        // The reciprocal of a subnormal number may be infinite.
        let factor = if factor.is_finite() { factor } else { f32::MAX };
        bytes[..SCALE].copy_from_slice(&scale.to_le_bytes());
        let code = |x: f32| MIDPOINTS.iter().fold(0, |code, &midpoint| code + (x * factor > midpoint) as u8);
        for i in 0..32 {
            bytes[SCALE + i] = code(x[2 * i]) << 4 | code(x[2 * i + 1]);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 36], y: &mut [f32; 64]) {
        let scale = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        for i in 0..32 {
            y[2 * i] = CODEBOOK[(bytes[SCALE + i] >> 4) as usize] * scale;
            y[2 * i + 1] = CODEBOOK[(bytes[SCALE + i] & 0xf) as usize] * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::BlockTensor;

    proptest! {
        #[test]
        fn codes_are_nearest(x in prop::collection::vec(-10f32..10.0, 64)) {
            let scale = max_magnitude(&x);
            let y = BlockTensor::<NF4, _>::quantize(&ndarray::Array1::from_vec(x.clone())).unwrap().dequantize();
            for (x, y) in x.iter().zip(&y) {
                let best = CODEBOOK.iter().map(|c| (c * scale - x).abs()).fold(f32::INFINITY, f32::min);
                prop_assert!((x - y).abs() <= best + scale * 1e-6, "{x} {y}");
            }
        }
    }

    #[test]
    fn every_code() {
        let mut x = [0.0; 64];
        x[..16].copy_from_slice(&CODEBOOK.map(|c| c * 4.0));
        let q = BlockTensor::<NF4, _>::quantize(&ndarray::arr1(&x)).unwrap();
        assert_eq!(q.dequantize().as_slice(), Some(&x[..]));
        assert_eq!(q.as_bytes()[..12], [0, 0, 128, 64, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(q.as_bytes()[12], 0x77);
    }
}
