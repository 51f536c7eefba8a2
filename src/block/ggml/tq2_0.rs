use super::{one_group, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes, max_magnitude, reciprocal};
use crate::element::Compute;

block_format! {
    /// Ternary codes of two bits: `(q - 1) * d`, 66 bytes for 256 values.
    ///
    /// `d = max(abs(x))` and `q = round(x * (1 / d)) + 1`, ties away from zero.
    ///
    /// A block is the codes and then `d`. Byte `32 h + i` holds the codes `128 h + 32 k + i` for `k` in `0..4`, from its low bits on.
    TQ2_0: 256 values, 66 bytes;
}

impl TQ2_0 {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 66]) {
        let (d, codes) = ternary_codes(x);
        write_2_bits(&codes, &mut bytes[..64]);
        write_f16(bytes, 64, d);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 66], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for TQ2_0 {
    const BITS: u32 = 2;
    const ZERO_POINT: u8 = 1;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        read_2_bits(block, codes);
    }

    #[inline(always)]
    fn scale(block: &[u8], _: usize) -> GroupScale {
        one_group(block, 64)
    }
}

/// Reads codes of two bits that [`write_2_bits`] wrote.
#[inline(always)]
pub(super) fn read_2_bits(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
        for k in 0..4 {
            for i in 0..32 {
                codes[32 * k + i] = bytes[i] >> (2 * k) & 3;
            }
        }
    }
}

/// Returns `d` and the codes 0, 1 and 2.
pub(super) fn ternary_codes(x: &[f32; 256]) -> (f32, [u8; 256]) {
    let d = max_magnitude(x);
    let factor = reciprocal(d);
    // The reciprocal of a subnormal number may be infinite, and its product with 0 is NaN, which becomes 0.
    (d, x.map(|x| (Compute::round_ties_away(x * factor).clamp(-1.0, 1.0) as i8 + 1) as u8))
}

/// Writes codes of two bits: byte `32 h + i` holds the codes `128 h + 32 k + i`.
pub(super) fn write_2_bits(codes: &[u8; 256], bytes: &mut [u8]) {
    for (codes, bytes) in codes.as_chunks::<128>().0.iter().zip(bytes.as_chunks_mut::<32>().0) {
        for i in 0..32 {
            bytes[i] = codes[i] & 3 | (codes[32 + i] & 3) << 2 | (codes[64 + i] & 3) << 4 | (codes[96 + i] & 3) << 6;
        }
    }
}
