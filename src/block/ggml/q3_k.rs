use super::search::fit_symmetric_refined;
use super::tq2_0::write_2_bits;
use super::{nearest, read_f16, write_f16};
use crate::block::block_format;

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
            let scale = d * Self::scale(bytes, group) as f32;
            if scale != 0.0 {
                *codes = x.map(|x| (nearest(x / scale).clamp(-4, 3) + 4) as i8);
            }
        }
        for (i, code) in codes.iter().enumerate() {
            bytes[i % 32] |= ((*code > 3) as u8) << (i / 32);
        }
        write_2_bits(&codes.map(|code| code as u8 & 3), &mut bytes[32..SCALES]);
    }

    /// Returns the scale of a group, less 32.
    #[inline(always)]
    fn scale(bytes: &[u8; 110], group: usize) -> i32 {
        let low = bytes[SCALES + group % 8] >> (group / 8 * 4) & 0xf;
        let high = bytes[SCALES + 8 + group % 4] >> (group / 4 * 2) & 3;
        (low | high << 4) as i32 - 32
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 110], y: &mut [f32; 256]) {
        let d = read_f16(bytes, 108);
        for group in 0..16 {
            let scale = d * Self::scale(bytes, group) as f32;
            let (half, shift, first) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
            for i in 0..16 {
                let low = bytes[32 + 32 * half + first + i] >> shift & 3;
                let high = bytes[first + i] >> (group / 2) & 1;
                y[16 * group + i] = scale * ((low | high << 2) as i32 - 4) as f32;
            }
        }
    }
}
