//! Quantize to bytes without a division: the codes of [`Quantizer`](super::Quantizer), several times as fast.
//!
//! A convention that multiplies by the rounded reciprocal needs one multiplication. The others divide, and are computed
//! by FMA.
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
//!    fluse core::marker::PhantomData;

use super::{Codes, Rounding};
use crate::element::Code;
use crate::simd::{Fma, SimdF32};

/// Quantizes numbers to bytes, one `f32` or SIMD registers of them.
#[derive(Clone, Copy)]
pub(crate) struct ByteQuantizer<R: Rounding> {
    division: R::Division,
    /// Code bounds less the zero point.
    low: i32,
    high: i32,
    /// That of unsigned codes.
    zero_point: i32,
    sign_xor: u8,
}

impl<R: Rounding> ByteQuantizer<R> {
    /// Returns whether this machine can do without the division for some scales.
    pub(crate) fn is_available() -> bool {
        R::Division::is_available()
    }

    /// Returns `None` if this machine or this scale needs the division.
    #[inline(always)]
    pub(crate) fn new<Z: Code>(scale: f32, zero_point: i32, codes: Codes) -> Option<Self> {
        // Not a constant assertion: without optimization it is also evaluated for types that never reach it.
        assert!(size_of::<Z>() == 1);
        let (low, high) = (codes.min - zero_point, codes.max - zero_point);
        let division = R::Division::new(scale, low as f32, high as f32)?;
        let signed = Z::from_i32(-1).to_i32() < 0;
        let (zero_point, sign_xor) = if signed { (zero_point + 128, 0x80) } else { (zero_point, 0) };
        Some(Self { division, low, high, zero_point, sign_xor })
    }

    /// Returns the codes of numbers, XOR [`Self::sign_xor`]. That of a NaN is unspecified.
    #[inline(always)]
    pub(crate) fn codes<V: SimdF32>(self, x: V) -> V::Codes {
        self.division.quotient(x).round_clamp(R::HALVES_AWAY, self.low, self.high, self.zero_point)
    }

    /// 0x80 for signed codes, otherwise 0.
    #[inline(always)]
    pub(crate) fn sign_xor(self) -> u8 {
        self.sign_xor
    }
}

/// Divides by a scale, for quotients that are rounded to codes between two bounds.
pub(crate) trait Division: Copy + Send + Sync {
    /// Returns whether this machine can do without the division for some scales.
    fn is_available() -> bool;
    /// Returns `None` if this machine or this scale needs the division.
    fn new(scale: f32, low: f32, high: f32) -> Option<Self>;
    /// Returns a number that rounds and saturates as `x / scale` does.
    fn quotient<V: SimdF32>(self, x: V) -> V;
}

/// Multiplies by the rounded reciprocal.
#[derive(Clone, Copy)]
pub(crate) struct RoundedReciprocal {
    factor: f32,
    high: f32,
}

impl Division for RoundedReciprocal {
    fn is_available() -> bool {
        true
    }

    #[inline(always)]
    fn new(scale: f32, _: f32, high: f32) -> Option<Self> {
        let factor = 1.0 / scale;
        // Otherwise the quotient of 0 is NaN.
        factor.is_finite().then_some(Self { factor, high })
    }

    #[inline(always)]
    fn quotient<V: SimdF32>(self, x: V) -> V {
        x.scale(self.factor).min(self.high)
    }
}

/// Divides by FMA.
#[derive(Clone, Copy)]
pub(crate) struct ExactReciprocal {
    /// `1 / scale` as a sum of two floats.
    near: f32,
    rest: f32,
    fma: Fma,
    /// Bounds of `x`: the values of the smallest and the greatest code. Their quotients are within one ulp of these
    /// codes, so they round to them.
    low: f32,
    high: f32,
}

impl Division for ExactReciprocal {
    fn is_available() -> bool {
        Fma::new().is_some()
    }

    #[inline(always)]
    fn new(scale: f32, low: f32, high: f32) -> Option<Self> {
        /// Scales far from the extreme exponents: no intermediate value becomes subnormal or infinite.
        const SAFE: f32 = (1u64 << 60) as f32;
        let fma = Fma::new().filter(|_| (1.0 / SAFE..=SAFE).contains(&scale))?;
        let exact = 1.0 / scale as f64;
        let near = exact as f32;
        Some(Self { near, rest: (exact - near as f64) as f32, fma, low: low * scale, high: high * scale })
    }

    #[inline(always)]
    fn quotient<V: SimdF32>(self, x: V) -> V {
        let x = x.clamp(self.low, self.high);
        x.mul_add(self.fma, self.near, x.scale(self.rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the float `ulps` above `x`.
    fn moved(x: f32, ulps: i32) -> f32 {
        f32::from_bits(x.to_bits().wrapping_add_signed(ulps))
    }

    /// Returns whether the quotient is below, at or above the tie as by division, for all floats near it.
    fn agrees_near(tie: f32, scale: f32, division: ExactReciprocal) -> bool {
        (-3..=3).map(|ulps| moved(tie * scale, ulps)).all(|x| {
            let (found, expected) = (division.quotient(x), x / scale);
            (found < tie, found > tie) == (expected < tie, expected > tie)
        })
    }

    /// Returns the division, with bounds that no tie of a test exceeds.
    fn division(scale: f32) -> Option<ExactReciprocal> {
        ExactReciprocal::new(scale, -1000.0, 1000.0)
    }

    #[test]
    fn significands_that_the_proof_leaves_out() {
        for multiple in 1 << 7..=1 << 8 {
            for off in (-4..=4).filter(|&off| off != 0) {
                let scale = ((multiple << 16) + off) as f32 * 2f32.powi(-23);
                let Some(division) = division(scale) else { return };
                for k in 0..256 {
                    assert!(agrees_near(k as f32 + 0.5, scale, division), "{k} + 1/2 at {scale:e}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn quotients_near_ties(scale in 1e-18f32..1e18, k in 0..256) {
            if let Some(division) = division(scale) {
                prop_assert!(agrees_near(k as f32 + 0.5, scale, division));
            }
        }
    }
}
