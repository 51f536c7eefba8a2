use super::search::fit_symmetric;
use super::{half_at, nearest, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// 6-bit codes in groups of 16: `(q - 32) * (d * scale)`, 210 bytes for 256 values.
    ///
    /// The scale of a group minimizes `Σ x² (x - y)²` over 19 steps, and is then rounded to 8 bits in units of `d = -scale / 128` of
    /// the scale of the greatest magnitude.
    ///
    /// A block is 128 bytes of low bits, 64 bytes of high bits, the scales as 16 signed bytes, and `d`. Byte `64 h + i` has the low four
    /// bits of the codes `128 h + i` and `128 h + 64 + i`, byte `32 h + i` of the next 64 the high two bits of the codes `128 h + 32 k + i`.
    Q6_K: 256 values, 210 bytes;
}

/// Magnitudes of scales below this one are 0.
const LEAST_SCALE: f32 = 1e-15;

impl Q6_K {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 210]) {
        bytes.fill(0);
        let (mut codes, mut scales) = ([0i8; 256], [0.0; 16]);
        for ((x, codes), scale) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).zip(&mut scales) {
            *scale = fit_symmetric(x, 32, codes);
        }
        let max = super::first_max(&scales);
        if max.abs() < LEAST_SCALE {
            return;
        }
        let factor = -128.0 / max;
        let d = write_f16(bytes, 208, 1.0 / factor);
        for (group, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate() {
            let scale_code = nearest(factor * scales[group]).clamp(-128, 127) as i8;
            bytes[192 + group] = scale_code as u8;
            let scale = d * scale_code as f32;
            if scale != 0.0 {
                *codes = x.map(|x| (nearest(x / scale).clamp(-32, 31) + 32) as i8);
            }
        }
        for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
            let code = |k: usize, i: usize| codes[32 * k + i] as u8;
            for i in 0..32 {
                bytes[64 * half + i] = code(0, i) & 0xf | (code(2, i) & 0xf) << 4;
                bytes[64 * half + 32 + i] = code(1, i) & 0xf | (code(3, i) & 0xf) << 4;
                bytes[128 + 32 * half + i] = (0..4).fold(0, |byte, k| byte | (code(k, i) >> 4) << (2 * k));
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 210], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for Q6_K {
    const BITS: u32 = 8;
    const GROUP: usize = 16;
    const ZERO_POINT: u8 = 32;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        for (i, code) in codes.iter_mut().enumerate() {
            let (half, k, i) = (i / 128, i % 128 / 32, i % 32);
            let low = block[64 * half + 32 * (k % 2) + i] >> (k / 2 * 4) & 0xf;
            let high = block[128 + 32 * half + i] >> (2 * k) & 3;
            *code = low | high << 4;
        }
    }

    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> GroupScale {
        GroupScale { of_block: half_at(block, 208), of_group: block[192 + group] as i8 }
    }
}
