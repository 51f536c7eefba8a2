use super::q4_1::asymmetric_codes;
use super::{array, one_group, read_fifth_bits, read_nibbles, write_f16, write_fifth_bits, write_nibbles};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// Asymmetric 5-bit codes: `q * d + m`, 24 bytes for 32 values.
    ///
    /// `d = (max - min) / 31`, `m = min`, and `q = min(31, trunc((x - min) * (1 / d) + 0.5))`, before `d` and `m` are rounded to 16
    /// bits.
    ///
    /// A block is `d`, `m`, then the codes as in [`Q5_0`](super::Q5_0).
    Q5_1: 32 values, 24 bytes;
}

impl Q5_1 {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 24]) {
        let (min, d, codes) = asymmetric_codes(x, 31);
        write_f16(bytes, 0, d);
        write_f16(bytes, 2, min);
        write_fifth_bits(&codes, &mut bytes[4..]);
        write_nibbles(&codes, &mut bytes[8..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 24], y: &mut [f32; 32]) {
        dequantize_codes::<Self, 32>(bytes, y);
    }
}

impl IntegerBlocks for Q5_1 {
    const BITS: u32 = 8;
    const HAS_OFFSET: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        let (high, low) = (read_fifth_bits(array(block, 4)), read_nibbles(array(block, 8)));
        codes.iter_mut().zip(low.iter().zip(&high)).for_each(|(code, (low, high))| *code = low | high << 4);
    }

    #[inline(always)]
    fn scale(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 0)
    }

    #[inline(always)]
    fn offset(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 2)
    }
}
