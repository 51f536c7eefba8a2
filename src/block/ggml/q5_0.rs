use super::q4_0::symmetric_codes;
use super::{array, first_max, one_group, read_fifth_bits, read_nibbles, write_f16, write_fifth_bits, write_nibbles};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// Symmetric 5-bit codes: `(q - 16) * d`, 22 bytes for 32 values.
    ///
    /// `d = x / -16` for the first `x` of the greatest magnitude, and `q = min(31, trunc(x * (1 / d) + 16.5))`, rounded as in
    /// [`Q4_0`](super::Q4_0).
    ///
    /// A block is `d`, four bytes with the fifth bits, bit `i` of code `i`, then the low bits as in [`Q4_0`](super::Q4_0).
    Q5_0: 32 values, 22 bytes;
}

impl Q5_0 {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 22]) {
        let d = first_max(x) / -16.0;
        write_f16(bytes, 0, d);
        let codes = symmetric_codes(x, d, 16);
        write_fifth_bits(&codes, &mut bytes[2..]);
        write_nibbles(&codes, &mut bytes[6..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 22], y: &mut [f32; 32]) {
        dequantize_codes::<Self, 32>(bytes, y);
    }
}

impl IntegerBlocks for Q5_0 {
    const BITS: u32 = 8;
    const ZERO_POINT: u8 = 16;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        let (high, low) = (read_fifth_bits(array(block, 2)), read_nibbles(array(block, 6)));
        codes.iter_mut().zip(low.iter().zip(&high)).for_each(|(code, (low, high))| *code = low | high << 4);
    }

    #[inline(always)]
    fn scale(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 0)
    }
}
