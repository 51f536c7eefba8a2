use super::{array, first_max, one_group, read_nibbles, write_f16, write_nibbles};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes, reciprocal};

block_format! {
    /// Symmetric 4-bit codes: `(q - 8) * d`, 18 bytes for 32 values.
    ///
    /// `d = x / -8` for the first `x` of the greatest magnitude, and `q = min(15, trunc(x * (1 / d) + 8.5))`, where product and sum
    /// round once to `f32`, and `1 / d` is computed before `d` is rounded to 16 bits.
    ///
    /// A block is `d`, then the codes: byte `i` holds code `i` in its low bits and code `16 + i` in its high bits.
    Q4_0: 32 values, 18 bytes;
}

impl Q4_0 {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 18]) {
        let d = first_max(x) / -8.0;
        write_f16(bytes, 0, d);
        write_nibbles(&symmetric_codes(x, d, 8), &mut bytes[2..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 18], y: &mut [f32; 32]) {
        dequantize_codes::<Self, 32>(bytes, y);
    }
}

impl IntegerBlocks for Q4_0 {
    const BITS: u32 = 4;
    const ZERO_POINT: u8 = 8;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        codes.copy_from_slice(&read_nibbles(array(block, 2)));
    }

    #[inline(always)]
    fn scale(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 0)
    }
}

/// Returns `min(2 * middle - 1, trunc(x * (1 / d) + middle + 0.5))`.
///
/// The sum in `f64` is exact but for bits that do not matter, so rounding it is a fused multiply-add.
pub(super) fn symmetric_codes(x: &[f32; 32], d: f32, middle: u8) -> [u8; 32] {
    let factor = reciprocal(d) as f64;
    x.map(|x| ((x as f64 * factor + (middle as f64 + 0.5)) as f32 as u8).min(2 * middle - 1))
}
