use super::search::{fit_codebook, nearest_in_codebook};
use super::{array, read_f16, read_nibbles, write_f16, write_nibbles};
use crate::block::{block_format, reciprocal};

block_format! {
    /// 4-bit indices of a codebook: `c[q] * d`, 18 bytes for 32 values.
    ///
    /// The codebook is denser near zero: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113. `d` minimizes `Σ x² (x
    /// - y)²` over 16 steps, and `q` is the nearest number to `x * (1 / d)`, of two equally near the greater one.
    ///
    /// A block is `d`, then the codes as in [`Q4_0`](super::Q4_0).
    IQ4_NL: 32 values, 18 bytes;
}

/// The numbers of the codes.
pub(super) const CODEBOOK: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl IQ4_NL {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 18]) {
        let d = fit_codebook(x);
        write_f16(bytes, 0, d);
        let factor = reciprocal(d);
        write_nibbles(&x.map(|x| nearest_in_codebook(x * factor)), &mut bytes[2..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 18], y: &mut [f32; 32]) {
        let (d, codes) = (read_f16(bytes, 0), read_nibbles(array(bytes, 2)));
        for i in 0..32 {
            y[i] = CODEBOOK[codes[i] as usize] as f32 * d;
        }
    }
}
