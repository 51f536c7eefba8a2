use super::mxfp4::{nearest_code, twice_value};
use crate::block::{block_format, max_magnitude};
use crate::element::minifloat::{F8E4M3FN, decode, encode};

block_format! {
    /// NVFP4 in ggml's order of codes: `F4E2M1FN(q) * scale`, groups of 16 with 8-bit floats as scales, 36 bytes for 64 values.
    ///
    /// `scale = F8E4M3FN(max(abs(x)) / 6)` for each group, and `q` is the nearest code, of two equally near the one of smaller
    /// magnitude. Files keep the scale of the tensor in a tensor of its own. ggml itself rounds ties of scales up, and takes 448 for
    /// every scale from 256 on.
    ///
    /// A block is four scales, then eight bytes for each group: byte `i` holds code `i` in its low bits and code `8 + i` in its high
    /// bits. The sign of a scale is ignored, and NaN is the scale 0. [`block::NVFP4`](crate::block::NVFP4) has another order.
    NVFP4: 64 values, 36 bytes;
}

/// Returns half the value of a scale.
#[inline(always)]
fn half_scale(scale: u8) -> f32 {
    let code = scale & 0x7f;
    if code == 0x7f { 0.0 } else { decode::<F8E4M3FN>(code) * 0.5 }
}

impl NVFP4 {
    #[inline(always)]
    fn encode(x: &[f32; 64], bytes: &mut [u8; 36]) {
        let (scales, codes) = bytes.split_at_mut(4);
        for ((x, scale), codes) in x.as_chunks::<16>().0.iter().zip(scales).zip(codes.as_chunks_mut::<8>().0) {
            *scale = encode::<F8E4M3FN>(max_magnitude(x) / 6.0, true);
            let half = half_scale(*scale);
            let code = |x: f32| if half == 0.0 { 0 } else { nearest_code(x / half) };
            for i in 0..8 {
                codes[i] = code(x[i]) | code(x[8 + i]) << 4;
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 36], y: &mut [f32; 64]) {
        let (scales, codes) = bytes.split_at(4);
        for ((y, &scale), codes) in y.as_chunks_mut::<16>().0.iter_mut().zip(scales).zip(codes.as_chunks::<8>().0) {
            let half = half_scale(scale);
            for i in 0..8 {
                y[i] = twice_value(codes[i] & 0xf) * half;
                y[8 + i] = twice_value(codes[i] >> 4) * half;
            }
        }
    }
}
