use super::iq4_nl::CODEBOOK;
use super::search::{fit_codebook, nearest_in_codebook};
use super::{array, first_max, nearest, read_f16, read_nibbles, write_f16, write_nibbles};
use crate::block::{block_format, reciprocal};

block_format! {
    /// 4-bit indices of a codebook in groups of 32: `c[q] * (d * (scale - 32))`, 136 bytes for 256 values.
    ///
    /// The codebook and the scale of a group as in [`IQ4_NL`](super::IQ4_NL). Scales are then rounded to 6 bits in units of `d = -scale /
    /// 32` of the scale of the greatest magnitude.
    ///
    /// A block is `d`, a word with the high two bits of each scale, four bytes with the low four bits, and 16 bytes of codes for each
    /// group as in [`Q4_0`](super::Q4_0).
    IQ4_XS: 256 values, 136 bytes;
}

impl IQ4_XS {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 136]) {
        bytes.fill(0);
        let mut scales = [0.0; 8];
        for (x, scale) in x.as_chunks::<32>().0.iter().zip(&mut scales) {
            *scale = fit_codebook(x);
        }
        let d = first_max(&scales) / -32.0;
        write_f16(bytes, 0, d);
        let (factor, mut high) = (reciprocal(d), 0u16);
        for (group, x) in x.as_chunks::<32>().0.iter().enumerate() {
            let scale = nearest(factor * scales[group]).clamp(-32, 31);
            let step = reciprocal(d * scale as f32);
            write_nibbles(&x.map(|x| nearest_in_codebook(x * step)), &mut bytes[8 + 16 * group..]);
            let code = (scale + 32) as u8;
            bytes[4 + group / 2] |= (code & 0xf) << (group % 2 * 4);
            high |= ((code >> 4) as u16) << (2 * group);
        }
        bytes[2..4].copy_from_slice(&high.to_le_bytes());
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 136], y: &mut [f32; 256]) {
        let (d, high) = (read_f16(bytes, 0), u16::from_le_bytes([bytes[2], bytes[3]]));
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = bytes[4 + group / 2] >> (group % 2 * 4) & 0xf;
            let scale = d * ((low as u16 | (high >> (2 * group) & 3) << 4) as i32 - 32) as f32;
            let codes = read_nibbles(array(bytes, 8 + 16 * group));
            for i in 0..32 {
                y[i] = CODEBOOK[codes[i] as usize] as f32 * scale;
            }
        }
    }
}
