//! Float → code without a division: the codes of [`Affine`](super::Affine), several times as fast where there is fused
//! multiplication and addition.
//!
//! The quotient `x / scale` is only needed as far as its rounding to an integer goes, so it is enough to know on which
//! side of every tie `t = k + 1/2` the correctly rounded quotient lies, or that it is the tie. With `1 / scale` as the
//! sum of two floats, `near + rest`, the approximation (Brisebarre, Muller and Raina, "Accelerating correctly rounded
//! floating-point division when the divisor is known in advance", 2004)
//!
//! ```text
//! q = round(x * near + round(x * rest))
//! ```
//!
//! tells that as well as the division does, for all codes of at most 8 bits. For let `v = x / scale`, in significands
//! `X / S` with `2^23 <= X, S < 2^24`.
//!
//! 1. *`q` is off by little before it is rounded.* `near` is within `2^-24 / scale` of `1 / scale`; `rest` makes that
//!    `2^-48 / scale`, with `2^-53 / scale` for the reciprocal in `f64` that both are taken from; and `x * rest` rounds by
//!    `2^-48 v`. So what is rounded to `q` is within `η v` of `v`, `η = 1.04 · 2^-47`.
//! 2. *No quotient comes that near to where rounding changes its mind.* This is at midpoints `M / 2^24` between two floats (for
//!    `X >= S`; else `M / 2^25`), `M` odd. `v` is at least `N / (2^24 S)` away, `N = |2^24 X - M S|` a positive integer, as `S` has no
//!    more than 24 bits. If `v` and what is rounded lie on two sides of the midpoint, `N <= 2^25 η X < 4.2`.
//! 3. *Midpoints next to ties belong to few scales.* Ties below 2^8 have 9 significant bits, so the midpoints on their
//!    two sides have `M = ±1` modulo 2^16. Then `N <= 4` means that `S` is within 4 of a multiple of 2^16; not at one, for
//!    there `N` would be a multiple of 2^16.
//! 4. *These scales are no exception either.* There are 1024 such significands; a test below tries each of them with every
//!    tie and all numbers next to it.
//!
//! Codes of 16 bits would have ties with 17 significant bits, and so many exceptions that they keep the division.

use core::marker::PhantomData;

use super::Codes;
use super::convert::{Rounding, clamp, round_to_code};
use crate::arch::Fma;
use crate::element::Code;

/// As [`Affine`](super::Affine), for `f32`, codes of 8 bits and rules that divide.
#[derive(Clone, Copy)]
pub(crate) struct ByReciprocal<Z, R> {
    reciprocal: Reciprocal,
    /// The values of the smallest and the greatest code: what a value is clamped to before it is divided. Their own
    /// quotients are within a unit in the last place of these codes, and so round to them.
    low: f32,
    high: f32,
    zero_point: i32,
    types: PhantomData<(Z, R)>,
}

impl<Z: Code, R: Rounding> ByReciprocal<Z, R> {
    /// `None` where this way is not open: the caller divides then.
    pub(crate) fn new(scale: f32, zero_point: i32, codes: Codes) -> Option<Self> {
        if !R::DIVIDES || size_of::<Z>() > 1 {
            return None;
        }
        let reciprocal = Reciprocal::of(scale)?;
        let value = |code: i32| (code - zero_point) as f32 * scale;
        Some(Self { reciprocal, low: value(codes.min), high: value(codes.max), zero_point, types: PhantomData })
    }

    #[inline(always)]
    #[allow(clippy::eq_op, reason = "only a NaN differs from itself")]
    pub(crate) fn quantize(&self, x: f32) -> Z {
        let inside = clamp(x, self.low, self.high);
        let inside = if x == x { inside } else { 0.0 };
        let quotient = self.reciprocal.times(inside);
        Z::from_i32(round_to_code(quotient, R::HALVES_AWAY) + self.zero_point)
    }
}

/// `1 / scale` as a sum of two floats.
#[derive(Clone, Copy)]
struct Reciprocal {
    near: f32,
    rest: f32,
    fused: Fma,
}

impl Reciprocal {
    fn of(scale: f32) -> Option<Self> {
        // Far from the ends of the exponents, so that nothing above becomes subnormal or infinite.
        const SAFE: f32 = (1u64 << 60) as f32;
        let fused = Fma::new()?;
        if !(1.0 / SAFE..=SAFE).contains(&scale) {
            return None;
        }
        let exact = 1.0 / scale as f64;
        let near = exact as f32;
        Some(Self { near, rest: (exact - near as f64) as f32, fused })
    }

    #[inline(always)]
    fn times(self, x: f32) -> f32 {
        self.fused.mul_add(x, self.near, x * self.rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affine::Affine;
    use crate::affine::rules::{Onnx, TfLite};

    /// The number that is so many places above.
    fn moved(x: f32, places: i32) -> f32 {
        f32::from_bits(x.to_bits().wrapping_add_signed(places))
    }

    /// Whether the quotient lies below, at or above the tie as the division says, for all numbers near it.
    fn agrees_near(tie: f32, scale: f32, reciprocal: Reciprocal) -> bool {
        (-3..=3).map(|places| moved(tie * scale, places)).all(|x| {
            let (found, expected) = (reciprocal.times(x), x / scale);
            (found < tie, found > tie) == (expected < tie, expected > tie)
        })
    }

    fn codes_agree<Z: Code, R: Rounding>(x: f32, scale: f32, zero_point: Z, codes: Codes) -> Result<(), TestCaseError> {
        let Some(fast) = ByReciprocal::<Z, R>::new(scale, zero_point.to_i32(), codes) else { return Ok(()) };
        let expected = Affine::<Z, f32, R>::new(scale, zero_point.to_i32(), codes).quantize(x);
        prop_assert_eq!(fast.quantize(x), expected, "{:e} / {:e}", x, scale);
        Ok(())
    }

    #[test]
    fn significands_that_the_proof_leaves_out() {
        for multiple in 1 << 7..=1 << 8 {
            for off in (-4..=4).filter(|&off| off != 0) {
                let scale = ((multiple << 16) + off) as f32 * 2f32.powi(-23);
                let Some(reciprocal) = Reciprocal::of(scale) else { return };
                for k in 0..256 {
                    assert!(agrees_near(k as f32 + 0.5, scale, reciprocal), "{k} + 1/2 at {scale:e}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn quotients_near_ties(scale in 1e-18f32..1e18, k in 0..256) {
            if let Some(reciprocal) = Reciprocal::of(scale) {
                prop_assert!(agrees_near(k as f32 + 0.5, scale, reciprocal));
            }
        }

        #[test]
        fn codes_of_any_float(x: f32, scale in prop_oneof![1e-3f32..10.0, 0f32..], zero: i8, k in -260..260, places in -3..=3) {
            let near_tie = moved((k as f32 + 0.5) * scale, places);
            for x in [x, near_tie] {
                codes_agree::<i8, Onnx>(x, scale, zero, Codes::all::<i8>())?;
                codes_agree::<i8, TfLite>(x, scale, zero, Codes::all::<i8>())?;
                codes_agree::<u8, Onnx>(x, scale, zero as u8, Codes::all::<u8>())?;
                codes_agree::<u8, TfLite>(x, scale, zero.rem_euclid(16) as u8, Codes { min: 0, max: 15 })?;
            }
        }
    }
}
