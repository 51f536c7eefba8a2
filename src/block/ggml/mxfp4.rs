use super::{array, read_nibbles, write_nibbles};
use crate::block::{block_format, max_magnitude};
use crate::element::e8m0::{E8M0, E8M0Rounding};
use crate::element::minifloat::{F4E2M1FN, decode};

block_format! {
    /// MXFP4 in ggml's order of codes: `F4E2M1FN(q) * 2^(e - 127)`, 17 bytes for 32 values.
    ///
    /// `e = floor(log2(max(abs(x)))) - 2 + 127`, and `q` is the nearest code, of two equally near the one of smaller magnitude. A block
    /// without a value other than 0 has `e = 0`. The exponent 255 is not NaN here.
    ///
    /// A block is `e`, then the codes as in [`Q4_0`](super::Q4_0). [`block::MXFP4`](crate::block::MXFP4) has another order and
    /// rounds ties to even.
    MXFP4: 32 values, 17 bytes;
}

/// Returns twice the value of a code, an integer.
#[inline(always)]
pub(super) fn twice_value(code: u8) -> f32 {
    decode::<F4E2M1FN>(code) * 2.0
}

/// Returns the code nearest to a number in units of half a scale, of two equally near the smaller one.
pub(super) fn nearest_code(x: f32) -> u8 {
    /// The midpoints between magnitudes, in these units.
    const MIDPOINTS: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];
    let magnitude = MIDPOINTS.iter().fold(0, |code, &midpoint| code + (x.abs() > midpoint) as u8);
    // There is one zero.
    magnitude | if x < 0.0 && magnitude > 0 { 8 } else { 0 }
}

/// Returns half the scale of an exponent, `2^(e - 128)`.
#[inline(always)]
fn half_scale(e: u8) -> f32 {
    // Powers below 2^-126 are subnormal numbers.
    f32::from_bits(if e < 2 { 0x20_0000 << e } else { (e as u32 - 1) << 23 })
}

impl MXFP4 {
    #[inline(always)]
    fn encode(x: &[f32; 32], bytes: &mut [u8; 17]) {
        let greatest = E8M0::from_f32_saturating(max_magnitude(x), E8M0Rounding::Down);
        let e = greatest.to_bits().saturating_sub(2);
        bytes[0] = e;
        let scale = half_scale(e);
        write_nibbles(&x.map(|x| nearest_code(x / scale)), &mut bytes[1..]);
    }

    #[inline(always)]
    fn decode(bytes: &[u8; 17], y: &mut [f32; 32]) {
        let (scale, codes) = (half_scale(bytes[0]), read_nibbles(array(bytes, 1)));
        for i in 0..32 {
            y[i] = twice_value(codes[i]) * scale;
        }
    }
}
