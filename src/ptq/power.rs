//! Powers of positive numbers in `f64`, without calls, so that loops vectorize. The same bits on every instruction set.

use crate::element::Compute;

/// `x^exponent`, with a relative error below 1e-13 while the result is in the range of `f32`. 0 for `x = 0` and
/// `exponent > 0`, 1 for `exponent = 0`.
#[inline(always)]
pub(super) fn power(x: f64, exponent: f64) -> f64 {
    if exponent == 0.0 {
        1.0
    } else if x == 0.0 {
        0.0
    } else {
        exp((exponent * ln(x)).clamp(-700.0, 700.0))
    }
}

/// The natural logarithm of a positive, normal number.
#[inline(always)]
pub(super) fn ln(x: f64) -> f64 {
    // `x = 2^exponent * m` with `m` in `sqrt(1/2)..sqrt(2)`: the exponent of `x * sqrt(2)`.
    let bits = x.to_bits();
    let above = u64::from(bits & 0x000f_ffff_ffff_ffff > 0x0006_a09e_667f_3bcd);
    let exponent = (bits >> 52) as i64 - 1023 + above as i64;
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | ((1023 - above) << 52));
    // `ln(m) = 2 * atanh(t)`, by its Taylor series for `abs(t) < 0.172`.
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let mut sum = 0.0;
    for k in (0..11).rev() {
        sum = sum * square + 1.0 / (2 * k + 1) as f64;
    }
    exponent as f64 * core::f64::consts::LN_2 + 2.0 * t * sum
}

/// The exponential, for magnitudes below 700.
#[inline(always)]
fn exp(x: f64) -> f64 {
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let n = Compute::round_ties_even(x * core::f64::consts::LOG2_E);
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    // The Taylor series for `abs(r) < 0.347`, by Horner.
    let mut sum = 1.0;
    for k in (1..15).rev() {
        sum = sum * r / k as f64 + 1.0;
    }
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_exact_values() {
        for i in 0..20_000 {
            let x = num_traits::Float::exp((i as f64 - 10_000.0) * 0.008);
            for exponent in [-1.3, -0.3, 0.05, 0.5, 0.7, 1.0] {
                let expected = num_traits::Float::powf(x, exponent);
                let found = power(x, exponent);
                assert!((found - expected).abs() <= 1e-13 * expected, "{x}^{exponent}: {found} for {expected}");
            }
        }
        assert_eq!([power(0.0, 0.7), power(3.0, 0.0), power(1.0, 0.3)], [0.0, 1.0, 1.0]);
    }
}
