use super::q4_k::{encode_groups, group_params, write_nibbles_64};
use super::search::Steps;
use crate::block::block_format;

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
        for group in 0..8 {
            let (scale, min) = group_params(bytes, group);
            for i in 0..32 {
                let low = bytes[48 + 32 * (group / 2) + i] >> (group % 2 * 4) & 0xf;
                let high = bytes[16 + i] >> group & 1;
                y[32 * group + i] = scale * (low | high << 4) as f32 - min;
            }
        }
    }
}
