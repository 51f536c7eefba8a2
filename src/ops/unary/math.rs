//! The exponential, functions made of it, and folds, without branches and calls, so that loops vectorize. The same bits on
//! every instruction set.

/// `exp(x)`, with a relative error below 2e-7. 0 where the result would be subnormal.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // `x = n * ln(2) + r`, with `n` rounded to the nearest integer by adding 1.5 * 2^23, in whose lowest bits it is then.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.8);
    let shifted = clamped * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    // The polynomial of Cephes' expf for |r| <= ln(2) / 2.
    let mut p = 1.987_569_2e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    // Two factors, because 2^128 is not finite.
    let half = ((shifted.to_bits() as i32) - (ROUND.to_bits() as i32)) >> 1;
    let rest = (shifted.to_bits() as i32) - (ROUND.to_bits() as i32) - half;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = p * power(half) * power(rest);
    let y = if x < -87.3 { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh(x)`, with a relative error below 1e-6.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let decay = exp(-2.0 * magnitude);
    let far = ((1.0 - decay) / (1.0 + decay)).copysign(x);
    // The Taylor series, where the difference from 1 cancels.
    let square = x * x;
    let mut p = -1382.0 / 155_925.0;
    for c in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0] {
        p = p * square + c;
    }
    let near = x + x * square * p;
    if magnitude < 0.3 { near } else { far }
}

/// The error function, with a relative error below 1e-6.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    // The Taylor series `2 / sqrt(pi) * Σ (-1)^n x^(2n + 1) / (n! (2n + 1))`.
    const SERIES: [f32; 10] = [
        1.0 / (362_880.0 * 19.0),
        -1.0 / (40_320.0 * 17.0),
        1.0 / (5040.0 * 15.0),
        -1.0 / (720.0 * 13.0),
        1.0 / (120.0 * 11.0),
        -1.0 / (24.0 * 9.0),
        1.0 / (6.0 * 7.0),
        -1.0 / (2.0 * 5.0),
        1.0 / 3.0,
        -1.0,
    ];
    let mut p = 0.0;
    for c in SERIES {
        p = p * square + c;
    }
    let near = -p * x * core::f32::consts::FRAC_2_SQRT_PI;
    // Abramowitz and Stegun, 7.1.26: an absolute error of 1.5e-7.
    let t = 1.0 / (1.0 + 0.327_591_1 * magnitude);
    let mut q = 0.0;
    for a in [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        q = (q + a) * t;
    }
    let far = (1.0 - q * exp(-square)).copysign(x);
    let y = if magnitude < 1.0 { near } else { far };
    if x.is_nan() { x } else { y }
}

/// Combines a function of each element of a slice by `f`, for which the order does not matter. `start` is neutral.
#[inline(always)]
pub(crate) fn fold(x: &[f32], start: f32, map: impl Fn(f32) -> f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    /// Partial results per step of the loop, so that it vectorizes.
    const PARTS: usize = 16;
    let (chunks, rest) = x.as_chunks::<PARTS>();
    let mut parts = [start; PARTS];
    for chunk in chunks {
        (0..PARTS).for_each(|i| parts[i] = f(parts[i], map(chunk[i])));
    }
    let rest = rest.iter().map(|&x| map(x));
    parts.into_iter().chain(rest).fold(start, f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f32, expected: f64, tolerance: f64) {
        assert!((f64::from(found) - expected).abs() <= tolerance * expected.abs(), "{found} for {expected}");
    }

    #[test]
    fn near_the_exact_values() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            close(exp(x), num_traits::Float::exp(f64::from(x)), 3e-7);
            close(tanh(x), num_traits::Float::tanh(f64::from(x)), 1e-6);
            close(sigmoid(x), 1.0 / (1.0 + num_traits::Float::exp(-f64::from(x))), 4e-7);
        }
        close(tanh(1e-20), 1e-20, 1e-6);
        assert_eq!([exp(0.0), exp(-1000.0), exp(f32::NEG_INFINITY)], [1.0, 0.0, 0.0]);
        assert_eq!([exp(89.0), exp(f32::INFINITY)], [f32::INFINITY; 2]);
        assert_eq!([tanh(f32::INFINITY), tanh(f32::NEG_INFINITY), sigmoid(-1000.0)], [1.0, -1.0, 0.0]);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn error_function() {
        // From tables.
        let pairs = [(0.0, 0.0), (0.1, 0.112_462_92), (0.5, 0.520_499_9), (0.999, 0.842_285_6), (1.0, 0.842_700_8)];
        for (x, y) in pairs.into_iter().chain([(1.5, 0.966_105_2), (2.0, 0.995_322_3), (4.0, 1.0)]) {
            assert!((erf(x) - y).abs() < 4e-7, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!([erf(f32::INFINITY), erf(f32::NEG_INFINITY)], [1.0, -1.0]);
        assert!(erf(f32::NAN).is_nan());
    }
}
