use super::{array, bounds, one_group, read_nibbles, write_f16, write_nibbles};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes, reciprocal};

block_format! {
    /// Asymmetric 4-bit codes: `q * d + m`, 20 bytes for 32 values.
    ///
    /// `d = (max - min) / 15`, `m = min`, and `q = min(15, trunc((x - min) * (1 / d) + 0.5))`, before `d` and `m` are rounded to 16
    /// bits.
    ///
    /// A block is `d`, `m`, then the codes as in [`Q4_0`](super::Q4_0).
    Q4_1: 32 values, 20 bytes;
}

impl Q4_1 {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 20]) {
        let (min, d, codes) = asymmetric_codes(x, 15);
        write_f16(bytes, 0, d);
        write_f16(bytes, 2, min);
        write_nibbles(&codes, &mut bytes[4..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 20], y: &mut [f32; 32]) {
        dequantize_codes::<Self, 32>(bytes, y);
    }
}

impl IntegerBlocks for Q4_1 {
    const BITS: u32 = 4;
    const HAS_OFFSET: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        codes.copy_from_slice(&read_nibbles(array(block, 4)));
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

/// Returns minimum, scale and `min(last, trunc((x - min) * (1 / d) + 0.5))`.
pub(super) fn asymmetric_codes(x: &[f32; 32], last: u8) -> (f32, f32, [u8; 32]) {
    let (min, max) = bounds(x);
    let d = (max - min) / last as f32;
    let factor = reciprocal(d);
    (min, d, x.map(|x| (((x - min) * factor + 0.5) as u8).min(last)))
}
