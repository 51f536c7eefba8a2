use super::search::fit_symmetric_refined;
use super::tq2_0::{read_2_bits, write_2_bits};
use super::{half_at, nearest, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// 3-bit codes in groups of 16: `(q - 4) * (d * (scale - 32))`, 110 bytes for 256 values.
    ///
    /// The scale of a group minimizes `Σ x² (x - y)²` by moving one code after the other, and is then rounded to 6 bits in units of
    /// `d = -scale / 32` of the scale of the greatest magnitude.
    ///
    /// A block is 32 bytes with the third bits, bit `k` of byte `i` of code `32 k + i`, the low bits as in
    /// [`TQ2_0`](super::TQ2_0), 12 bytes of scales and `d`. Byte `i` of the first eight has the low four bits of the scales `i` and `8 +
    /// i`, byte `i` of the last four the high two bits of the scales `4 k + i`.
    Q3_K: 256 values, 110 bytes;
}

/// The first byte of the scales.
const SCALES: usize = 96;

impl Q3_K {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 110]) {
        bytes.fill(0);
        let (mut codes, mut scales) = ([0i8; 256], [0.0; 16]);
        for ((x, codes), scale) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).zip(&mut scales) {
            *scale = fit_symmetric_refined(x, 4, codes);
        }
        let max = super::first_max(&scales);
        let factor = if max == 0.0 { 0.0 } else { -32.0 / max };
        let d = write_f16(bytes, 108, if max == 0.0 { 0.0 } else { 1.0 / factor });
        if max != 0.0 {
            for (group, scale) in scales.iter().enumerate() {
                let code = (nearest(factor * scale).clamp(-32, 31) + 32) as u8;
                bytes[SCALES + group % 8] |= (code & 0xf) << (group / 8 * 4);
                bytes[SCALES + 8 + group % 4] |= (code >> 4) << (group / 4 * 2);
            }
        }
        for (group, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate() {
            let scale = d * f32::from(scale_code(bytes, group));
            if scale != 0.0 {
                *codes = x.map(|x| (nearest(x / scale).clamp(-4, 3) + 4) as i8);
            }
        }
        for (i, code) in codes.iter().enumerate() {
            bytes[i % 32] |= ((*code > 3) as u8) << (i / 32);
        }
        write_2_bits(&codes.map(|code| code as u8 & 3), &mut bytes[32..SCALES]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 110], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for Q3_K {
    const BITS: u32 = 4;
    const GROUP: usize = 16;
    const ZERO_POINT: u8 = 4;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        read_2_bits(&block[32..SCALES], codes);
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (block[i % 32] >> (i / 32) & 1) << 2;
        }
    }

    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> GroupScale {
        GroupScale { of_block: half_at(block, 108), of_group: scale_code(block, group) }
    }
}

/// Returns the scale of a group, less 32.
#[inline(always)]
fn scale_code(bytes: &[u8], group: usize) -> i8 {
    let low = bytes[SCALES + group % 8] >> (group / 8 * 4) & 0xf;
    let high = bytes[SCALES + 8 + group % 4] >> (group / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}
