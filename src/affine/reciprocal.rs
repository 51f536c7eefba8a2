//! Quantize without a division, by FMA: the codes of [`Quantizer`](super::Quantizer), several times as fast.
//!
//! The quotient `x / scale` is only rounded to an integer. So it suffices to know whether the correctly rounded
//! quotient is below, at or above each tie `t = k + 1/2`. With `1 / scale` as the sum of two floats, `near + rest`, the
//! approximation (Brisebarre, Muller and Raina, "Accelerating correctly rounded floating-point division when the
//! divisor is known in advance", 2004)
//!
//! ```text
//! q = round(x * near + round(x * rest))
//! ```
//!
//! decides this as the division does, for all codes of at most 8 bits. Proof: let `v = x / scale`, in significands
//! `X / S` with `2^23 <= X, S < 2^24`.
//!
//! 1. *The error of `q` before rounding is small.* `near` is within `2^-24 / scale` of `1 / scale`; `rest` makes that
//!    `2^-48 / scale`, with `2^-53 / scale` for the reciprocal in `f64` that both are taken from; and `x * rest` rounds
//!    by `2^-48 v`. So the value that rounds to `q` is within `η v` of `v`, `η = 1.04 · 2^-47`.
//! 2. *No exact quotient lies that close to a rounding boundary.* The boundaries are midpoints `M / 2^24` between two
//!    floats (for `X >= S`; otherwise `M / 2^25`), `M` odd. `v` is at least `N / (2^24 S)` away, where
//!    `N = |2^24 X - M S|` is a positive integer, because `S` has at most 24 bits. If the midpoint separates `v` from
//!    the approximation, `N <= 2^25 η X < 4.2`.
//! 3. *Midpoints next to ties belong to few scales.* Ties below 2^8 have 9 significant bits, so the midpoints next to
//!    them have `M = ±1` modulo 2^16. Then `N <= 4` means that `S` is within 4 of a multiple of 2^16, but not equal to
//!    one, where `N` would be a multiple of 2^16.
//! 4. *These scales agree as well.* There are 1024 such significands; a test below tries each with every tie and the
//!    floats next to it.
//!
//! Codes of 16 bits have ties with 17 significant bits and too many exceptions to test, so they keep the division.

use core::marker::PhantomData;

use super::Codes;
use super::convert::{Rounding, clamp, round_to_code};
use crate::simd::Fma;

/// Quantizes as [`Quantizer`](super::Quantizer) does: `f32` to the bits of 8-bit codes, by rounding modes that divide.
#[derive(Clone, Copy)]
pub(crate) struct ReciprocalQuantizer<R> {
    reciprocal: Reciprocal,
    /// Bounds of `x` before the multiplication: the values of the smallest and the greatest code. Their quotients are
    /// within one ulp of these codes, so they round to them.
    low: f32,
    high: f32,
    zero_point: i32,
    rounding: PhantomData<R>,
}

impl<R: Rounding> ReciprocalQuantizer<R> {
    /// Requires a scale for which [`reciprocal_is_exact`].
    #[inline(always)]
    pub(crate) fn new(scale: f32, zero_point: i32, (codes, fma): (Codes, Fma)) -> Self {
        const { assert!(R::DIVIDES, "a convention that multiplies by the reciprocal has other codes") };
        let value = |code: i32| (code - zero_point) as f32 * scale;
        let (low, high) = (value(codes.min), value(codes.max));
        Self { reciprocal: Reciprocal::new(scale, fma), low, high, zero_point, rounding: PhantomData }
    }

    #[inline(always)]
    #[allow(clippy::eq_op, reason = "only a NaN differs from itself")]
    pub(crate) fn quantize(&self, x: f32) -> u8 {
        let inside = clamp(x, self.low, self.high);
        let inside = if x == x { inside } else { 0.0 };
        let quotient = self.reciprocal.mul(inside);
        (round_to_code(quotient, R::HALVES_AWAY) + self.zero_point) as u8
    }
}

/// Returns whether the scale is far from the extreme exponents, so that no intermediate value becomes subnormal or
/// infinite.
pub(crate) fn reciprocal_is_exact(scale: f32) -> bool {
    const SAFE: f32 = (1u64 << 60) as f32;
    (1.0 / SAFE..=SAFE).contains(&scale)
}

/// `1 / scale` as a sum of two floats.
#[derive(Clone, Copy)]
struct Reciprocal {
    near: f32,
    rest: f32,
    fma: Fma,
}

impl Reciprocal {
    #[inline(always)]
    fn new(scale: f32, fma: Fma) -> Self {
        let exact = 1.0 / scale as f64;
        let near = exact as f32;
        Self { near, rest: (exact - near as f64) as f32, fma }
    }

    #[inline(always)]
    fn mul(self, x: f32) -> f32 {
        self.fma.mul_add(x, self.near, x * self.rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affine::Quantizer;
    use crate::affine::rounding::{Onnx, TfLite};
    use crate::element::Code;

    /// Returns the float `ulps` above `x`.
    fn moved(x: f32, ulps: i32) -> f32 {
        f32::from_bits(x.to_bits().wrapping_add_signed(ulps))
    }

    /// Returns whether the quotient is below, at or above the tie as by division, for all floats near it.
    fn agrees_near(tie: f32, scale: f32, reciprocal: Reciprocal) -> bool {
        (-3..=3).map(|ulps| moved(tie * scale, ulps)).all(|x| {
            let (found, expected) = (reciprocal.mul(x), x / scale);
            (found < tie, found > tie) == (expected < tie, expected > tie)
        })
    }

    fn codes_agree<Z: Code, R: Rounding>(x: f32, scale: f32, zero_point: Z, codes: Codes) -> Result<(), TestCaseError> {
        let Some(fma) = Fma::new().filter(|_| reciprocal_is_exact(scale)) else { return Ok(()) };
        let fast = ReciprocalQuantizer::<R>::new(scale, zero_point.to_i32(), (codes, fma));
        let expected = Quantizer::<Z, f32, R>::new(scale, zero_point.to_i32(), codes).quantize(x);
        prop_assert_eq!(fast.quantize(x), expected.to_i32() as u8, "{:e} / {:e}", x, scale);
        Ok(())
    }

    #[test]
    fn significands_that_the_proof_leaves_out() {
        let Some(fma) = Fma::new() else { return };
        for multiple in 1 << 7..=1 << 8 {
            for off in (-4..=4).filter(|&off| off != 0) {
                let scale = ((multiple << 16) + off) as f32 * 2f32.powi(-23);
                let reciprocal = Reciprocal::new(scale, fma);
                for k in 0..256 {
                    assert!(agrees_near(k as f32 + 0.5, scale, reciprocal), "{k} + 1/2 at {scale:e}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn quotients_near_ties(scale in 1e-18f32..1e18, k in 0..256) {
            if let Some(fma) = Fma::new() {
                prop_assert!(agrees_near(k as f32 + 0.5, scale, Reciprocal::new(scale, fma)));
            }
        }

        #[test]
        fn codes_of_any_float(x: f32, scale in prop_oneof![1e-3f32..10.0, 0f32..], zero: i8, k in -260..260, ulps in -3..=3) {
            let near_tie = moved((k as f32 + 0.5) * scale, ulps);
            for x in [x, near_tie] {
                codes_agree::<i8, Onnx>(x, scale, zero, Codes::all::<i8>())?;
                codes_agree::<i8, TfLite>(x, scale, zero, Codes::all::<i8>())?;
                codes_agree::<u8, Onnx>(x, scale, zero as u8, Codes::all::<u8>())?;
                codes_agree::<u8, TfLite>(x, scale, zero.rem_euclid(16) as u8, Codes { min: 0, max: 15 })?;
            }
        }
    }
}
