use super::tq2_0::ternary_codes;
use super::{one_group, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// Ternary codes, five to a byte: `(q - 1) * d`, 54 bytes for 256 values.
    ///
    /// Codes as in [`TQ2_0`](super::TQ2_0). A byte is `ceil(256 / 243 * n)`, where `n` is the number with the five codes as digits in
    /// base 3, the first one weighing most. So the digit `k` is `(byte * 3^k mod 256) * 3 / 256`, rounded down.
    ///
    /// A block is 52 bytes of codes and then `d`. Byte `i` of the first 32 has the codes `32 k + i`, byte `i` of the next 16 the codes
    /// `160 + 16 k + i`, byte `i` of the last four the codes `240 + 4 k + i` for `k` in `0..4`, with a fifth digit of 0.
    TQ1_0: 256 values, 54 bytes;
}

/// The parts of a block: the first byte, the first code, the number of bytes, and the number of digits.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 0, 32, 5), (32, 160, 16, 5), (48, 240, 4, 4)];

impl TQ1_0 {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 54]) {
        let (d, codes) = ternary_codes(x);
        write_f16(bytes, 52, d);
        for (first_byte, first_code, count, digits) in PARTS {
            for i in 0..count {
                let digit = |k: usize| if k < digits { codes[first_code + count * k + i] as u16 } else { 0 };
                let number = (0..5).fold(0, |number, k| number * 3 + digit(k));
                bytes[first_byte + i] = (number * 256).div_ceil(243) as u8;
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 54], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for TQ1_0 {
    const BITS: u32 = 2;
    const ZERO_POINT: u8 = 1;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        read_digits(block, codes);
    }

    #[inline(always)]
    fn scale(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 52)
    }
}

/// Reads the codes of a block.
#[inline(always)]
fn read_digits(bytes: &[u8], codes: &mut [u8]) {
    for (first_byte, first_code, count, digits) in PARTS {
        for k in 0..digits {
            let power = const { [1u8, 3, 9, 27, 81] }[k];
            for i in 0..count {
                let digit = (bytes[first_byte + i].wrapping_mul(power) as u16 * 3) >> 8;
                codes[first_code + count * k + i] = digit as u8;
            }
        }
    }
}
