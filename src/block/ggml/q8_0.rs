use super::{one_group, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes, max_magnitude, reciprocal};
use crate::element::Compute;

block_format! {
    /// Symmetric 8-bit codes: `q * d`, 34 bytes for 32 values.
    ///
    /// `d = max(abs(x)) / 127` and `q = round(x * (1 / d))`, ties away from zero, before `d` is rounded to 16 bits.
    ///
    /// A block is `d`, then the codes.
    Q8_0: 32 values, 34 bytes;
}

impl Q8_0 {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 34]) {
        let d = max_magnitude(x) / 127.0;
        write_f16(bytes, 0, d);
        let factor = reciprocal(d);
        for i in 0..32 {
            bytes[2 + i] = Compute::round_ties_away(x[i] * factor) as i8 as u8;
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 34], y: &mut [f32; 32]) {
        dequantize_codes::<Self, 32>(bytes, y);
    }
}

impl IntegerBlocks for Q8_0 {
    const BITS: u32 = 8;
    const ZERO_POINT: u8 = 128;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        codes.iter_mut().zip(&block[2..]).for_each(|(code, &byte)| *code = byte ^ 0x80);
    }

    #[inline(always)]
    fn scale(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 0)
    }
}
