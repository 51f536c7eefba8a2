use super::half_at;
use super::q4_k::{encode_groups, group_codes, read_nibbles_64, write_nibbles_64};
use super::search::Steps;
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// 5-bit codes in groups of 32: `q * (d * scale) - m * min`, 176 bytes for 256 values.
    ///
    /// Scales and minima as in [`Q4_K`](super::Q4_K), by 17 steps.
    ///
    /// A block is `d`, `m` and 12 bytes as in [`Q4_K`](super::Q4_K), 32 bytes with the fifth bits, bit `k` of byte `i` of code `32 k + i`,
    /// and the low bits as in [`Q4_K`](super::Q4_K).
    Q5_K: 256 values, 176 bytes;
}

/// The steps of the search.
const STEPS: Steps = Steps { first: -0.5, width: 0.1, count: 16, absolute: false };

impl Q5_K {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 176]) {
        let codes = encode_groups(x, 31, STEPS, &mut bytes[..16]);
        bytes[16..48].fill(0);
        for (i, code) in codes.iter().enumerate() {
            bytes[16 + i % 32] |= (code >> 4) << (i / 32);
        }
        write_nibbles_64(&codes, &mut bytes[48..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 176], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for Q5_K {
    const BITS: u32 = 8;
    const GROUP: usize = 32;
    const HAS_OFFSET: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        read_nibbles_64(&block[48..], codes);
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (block[16 + i % 32] >> (i / 32) & 1) << 4;
        }
    }

    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> GroupScale {
        GroupScale { of_block: half_at(block, 0), of_group: group_codes(block, group).0 as i8 }
    }

    #[inline(always)]
    fn offset(block: &[u8], group: usize) -> GroupScale {
        GroupScale { of_block: -half_at(block, 2), of_group: group_codes(block, group).1 as i8 }
    }
}
