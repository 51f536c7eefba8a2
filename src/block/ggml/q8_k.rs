use super::{array, first_max, nearest};
use crate::block::block_format;

block_format! {
    /// Symmetric 8-bit codes: `q * d`, 292 bytes for 256 values. Activations are quantized to it for products with the other formats
    /// of 256 values.
    ///
    /// `d = x / -127` for the first `x` of the greatest magnitude, and `q = min(127, round(x / d))`, ties to even.
    ///
    /// A block is `d` as an `f32`, the codes, then the sums of groups of 16 codes as 16-bit integers.
    Q8_K: 256 values, 292 bytes;
}

impl Q8_K {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 292]) {
        let max = first_max(x);
        let factor = if max == 0.0 { 0.0 } else { -127.0 / max };
        let d = if factor == 0.0 { 0.0 } else { 1.0 / factor };
        bytes[..4].copy_from_slice(&d.to_le_bytes());
        let codes = x.map(|x| nearest(factor * x).min(127) as i8);
        for i in 0..256 {
            bytes[4 + i] = codes[i] as u8;
        }
        for (codes, bytes) in codes.as_chunks::<16>().0.iter().zip(bytes[260..].as_chunks_mut::<2>().0) {
            *bytes = codes.iter().map(|&code| code as i16).sum::<i16>().to_le_bytes();
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 292], y: &mut [f32; 256]) {
        let d = f32::from_le_bytes(*array(bytes, 0));
        for i in 0..256 {
            y[i] = bytes[4 + i] as i8 as f32 * d;
        }
    }
}
