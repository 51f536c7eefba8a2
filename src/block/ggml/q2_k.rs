use super::search::{Steps, fit_affine};
use super::tq2_0::{read_2_bits, write_2_bits};
use super::{half_at, nearest, write_f16};
use crate::block::{GroupScale, IntegerBlocks, block_format, dequantize_codes};

block_format! {
    /// 2-bit codes in groups of 16: `q * (d * scale) - m * min`, 84 bytes for 256 values.
    ///
    /// Scale and minimum of a group minimize `Σ abs(x) * abs(x - y)` over 17 steps, and are then rounded to 4 bits in units of `d =
    /// max(scale) / 15` and `m = max(min) / 15`.
    ///
    /// A block is 16 bytes, each the scale of a group in the low bits and its minimum in the high bits, the codes as in
    /// [`TQ2_0`](super::TQ2_0), `d` and `m`.
    Q2_K: 256 values, 84 bytes;
}

/// The steps of the search.
const STEPS: Steps = Steps { first: -0.5, width: 0.1, count: 16, absolute: true };

impl Q2_K {
    #[inline(always)]
    fn encode(x: &[f32; 256], bytes: &mut [u8; 84]) {
        let mut codes = [0; 256];
        let mut fits = [(0.0, 0.0); 16];
        for ((x, codes), fit) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).zip(&mut fits) {
            *fit = fit_affine(x, &x.map(f32::abs), 3, STEPS, codes);
        }
        let (max_scale, max_min) = fits.iter().fold((0f32, 0f32), |max, fit| (max.0.max(fit.0), max.1.max(fit.1)));
        let code = |max: f32, x: f32| if max > 0.0 { nearest(15.0 / max * x).clamp(0, 15) as u8 } else { 0 };
        for (byte, fit) in bytes.iter_mut().zip(fits) {
            *byte = code(max_scale, fit.0) | code(max_min, fit.1) << 4;
        }
        let (d, m) = (write_f16(bytes, 80, max_scale / 15.0), write_f16(bytes, 82, max_min / 15.0));
        for (group, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate() {
            let (scale, min) = (d * (bytes[group] & 0xf) as f32, m * (bytes[group] >> 4) as f32);
            if scale != 0.0 {
                *codes = x.map(|x| nearest((x + min) / scale).clamp(0, 3) as u8);
            }
        }
        write_2_bits(&codes, &mut bytes[16..80]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 84], y: &mut [f32; 256]) {
        dequantize_codes::<Self, 256>(bytes, y);
    }
}

impl IntegerBlocks for Q2_K {
    const BITS: u32 = 2;
    const GROUP: usize = 16;
    const HAS_OFFSET: bool = true;

    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [u8]) {
        read_2_bits(&block[16..80], codes);
    }

    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> GroupScale {
        GroupScale { of_block: half_at(block, 80), of_group: (block[group] & 0xf) as i8 }
    }

    #[inline(always)]
    fn offset(block: &[u8], group: usize) -> GroupScale {
        GroupScale { of_block: -half_at(block, 82), of_group: (block[group] >> 4) as i8 }
    }
}
