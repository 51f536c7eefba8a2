use num_traits::Float;

use super::search::{Steps, fit_affine};
use super::{half_at, nearest, read_f16, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// 4-bit codes in groups of 32: `q * (d * scale) - m * min`, 144 bytes for 256 values.
    ///
    /// Scale and minimum of a group minimize `Σ w (x - y)²` with `w = abs(x) + sqrt(mean(x²))` over 22 steps, and are then rounded to
    /// 6 bits in units of `d = max(scale) / 63` and `m = max(min) / 63`.
    ///
    /// A block is `d`, `m`, 12 bytes of scales and minima, and the codes: byte `32 k + i` holds code `64 k + i` in its low bits and code
    /// `64 k + 32 + i` in its high bits. Of the 12 bytes, byte `i < 4` has the scale `i` and the high bits of the scale `4 + i`, byte `4 + i`
    /// the same of minima, and byte `8 + i` the low four bits of the scale and of the minimum `4 + i`.
    Q4_K: 256 values, 144 bytes;
}

/// The steps of the search.
const STEPS: Steps = Steps { first: -1.0, width: 0.1, count: 21, absolute: false };

impl Q4_K {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 144]) {
        let codes = encode_groups(x, 15, STEPS, &mut bytes[..16]);
        write_nibbles_64(&codes, &mut bytes[16..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 144], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for Q4_K {
    const BITS: u32 = 4;
    const GROUP: usize = 32;
    const HAS_OFFSET: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        read_nibbles_64(&block[16..], codes);
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

/// Quantizes to codes `0..=last` in groups of 32, and writes `d`, `m`, scales and minima to 16 bytes.
pub(super) fn encode_groups(x: &[f32; 256], last: u8, steps: Steps, bytes: &mut [u8]) -> [u8; 256] {
    bytes.fill(0);
    let (mut codes, mut fits) = ([0; 256], [(0.0, 0.0); 8]);
    for ((x, codes), fit) in x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0).zip(&mut fits) {
        let root_mean_square = Float::sqrt(x.iter().fold(0.0, |sum, x| sum + x * x) / 32.0);
        *fit = fit_affine(x, &x.map(|x| root_mean_square + x.abs()), last, steps, codes);
    }
    let (max_scale, max_min) = fits.iter().fold((0f32, 0f32), |max, fit| (max.0.max(fit.0), max.1.max(fit.1)));
    let code = |max: f32, x: f32| if max > 0.0 { nearest(63.0 / max * x).clamp(0, 63) as u8 } else { 0 };
    for (group, fit) in fits.iter().enumerate() {
        let (scale, min) = (code(max_scale, fit.0), code(max_min, fit.1));
        if group < 4 {
            bytes[4 + group] = scale;
            bytes[8 + group] = min;
        } else {
            bytes[8 + group] = scale & 0xf | (min & 0xf) << 4;
            bytes[group] |= scale >> 4 << 6;
            bytes[4 + group] |= min >> 4 << 6;
        }
    }
    write_f16(bytes, 0, max_scale / 63.0);
    write_f16(bytes, 2, max_min / 63.0);
    for (group, (x, codes)) in x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0).enumerate() {
        let (scale, min) = group_codes(bytes, group);
        let (scale, min) = (read_f16(bytes, 0) * f32::from(scale), read_f16(bytes, 2) * f32::from(min));
        if scale != 0.0 {
            *codes = x.map(|x| nearest((x + min) / scale).clamp(0, last as i32) as u8);
        }
    }
    codes
}

/// Returns the scale and the minimum of a group, from the first 16 bytes of a block.
#[inline(always)]
pub(super) fn group_codes(bytes: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (bytes[4 + group] & 63, bytes[8 + group] & 63);
    }
    let low = bytes[8 + group];
    (low & 0xf | bytes[group] >> 6 << 4, low >> 4 | bytes[4 + group] >> 6 << 4)
}

/// Writes the low four bits of codes: byte `32 k + i` holds the codes `64 k + i` and `64 k + 32 + i`.
pub(super) fn write_nibbles_64(codes: &[u8; 256], bytes: &mut [u8]) {
    for (codes, bytes) in codes.as_chunks::<64>().0.iter().zip(bytes.as_chunks_mut::<32>().0) {
        for i in 0..32 {
            bytes[i] = codes[i] & 0xf | (codes[32 + i] & 0xf) << 4;
        }
    }
}

/// Reads the low four bits of codes that [`write_nibbles_64`] wrote.
#[inline(always)]
pub(super) fn read_nibbles_64(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<64>().0) {
        for i in 0..32 {
            (codes[i], codes[32 + i]) = (bytes[i] & 0xf, bytes[i] >> 4);
        }
    }
}
