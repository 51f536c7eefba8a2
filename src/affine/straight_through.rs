//! Fake quantization with the straight-through estimator: value, centred code and clipping mask.

use core::marker::PhantomData;

use super::Codes;
use super::convert::{FakeQuantizer, Quantizer, Rounding, clamp_to_code, dequantize_centred, quotient};
use crate::element::Compute;

/// The clipping condition of the straight-through estimator (STE): which values count as clipped in the backward pass.
///
/// The gradient by an unclipped value is 1. The gradient by a clipped value is 0, and its contribution to the gradients
/// of scale and zero point is the contribution of the outermost code.
///
/// With `v = x / scale`, `low = code_min - zero_point` and `high = code_max - zero_point`:
///
/// | | unclipped | source |
/// |---|---|---|
/// | `Rounded` | `low <= round(v) <= high` | PyTorch's `fake_quantize_*_affine`, up to half a scale beyond the last code |
/// | `Unrounded` | `low < v < high` | LSQ (Esser et al. 2020), LSQ+ (Bhalgat et al. 2020), PACT (Choi et al. 2018) |
/// | `Never` | always | Bengio et al. 2013; ternary weights: Li et al. 2016, BitNet b1.58 (Ma et al. 2024) |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SteClipping {
    /// A value is clipped if its rounded code is out of range.
    #[default]
    Rounded,
    /// A value is clipped if it reaches or exceeds the value of an outermost code, before rounding.
    Unrounded,
    /// No value counts as clipped, so every gradient passes.
    Never,
}

/// A fake-quantized value.
#[derive(Clone, Copy)]
pub(crate) struct FakeQuantized<C> {
    /// Centred code: code - zero point.
    pub(crate) centred: C,
    /// `x / scale`; 0 for a NaN.
    pub(crate) quotient: C,
    /// Dequantized value of the code.
    pub(crate) value: C,
    /// True if it was clipped at the lower bound.
    pub(crate) below: bool,
    /// True if it was clipped at the upper bound.
    pub(crate) above: bool,
}

impl<C: Compute> FakeQuantized<C> {
    /// Returns whether the gradient passes: the straight-through mask.
    #[inline(always)]
    pub(crate) fn in_range(self) -> bool {
        !(self.below | self.above)
    }

    /// Returns the derivative of the fake-quantized value by the scale: `centred - v` where the gradient passes,
    /// otherwise `centred`.
    #[inline(always)]
    pub(crate) fn by_scale(self) -> C {
        self.centred - if self.in_range() { self.quotient } else { C::ZERO }
    }
}

/// Settings shared by all blocks of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) codes: Codes,
    pub(crate) clipping: SteClipping,
    /// Seed of stochastic rounding.
    pub(crate) seed: u64,
}

/// Fake quantization with one scale and zero point.
pub(crate) trait SteQuantizer<C: Compute>: Copy {
    fn new(scale: C, zero_point: C, settings: &Settings) -> Self;
    /// Fake-quantizes the element at `position` in row-major order.
    fn fake_quantize(&self, x: C, position: u64) -> FakeQuantized<C>;
}

/// The open interval of unclipped values, in which the gradient passes.
#[derive(Clone, Copy)]
struct StraightThrough<C> {
    above: C,
    below: C,
}

impl<C: Compute> StraightThrough<C> {
    #[inline(always)]
    fn new(low: i32, high: i32, clipping: SteClipping, halves_away: bool) -> Self {
        let (above, below) = (C::from_i32(low), C::from_i32(high));
        match clipping {
            SteClipping::Rounded => {}
            SteClipping::Unrounded => return Self { above, below },
            // No comparison with NaN holds.
            SteClipping::Never => return Self { above: C::from_f64(f64::NAN), below: C::from_f64(f64::NAN) },
        }
        // The bounds are half a step beyond the outermost codes. A tie that rounds to such a code is not clipped.
        let (above, below) = (above - C::HALF, below + C::HALF);
        let keeps_low = if halves_away { low > 0 } else { low & 1 == 0 };
        let keeps_high = if halves_away { high < 0 } else { high & 1 == 0 };
        Self {
            above: if keeps_low { above.next_down() } else { above },
            below: if keeps_high { below.next_up() } else { below },
        }
    }
}

/// Fake quantization with an integer zero point: `clamp(round(x / scale) + zero_point)`.
#[derive(Clone, Copy)]
pub(crate) struct IntegerZeroPoint<C, R> {
    fake: FakeQuantizer<u16, C, R>,
    unclipped: StraightThrough<C>,
}

impl<C: Compute, R: Rounding> SteQuantizer<C> for IntegerZeroPoint<C, R> {
    #[inline(always)]
    fn new(scale: C, zero_point: C, settings: &Settings) -> Self {
        let Settings { codes, clipping, .. } = *settings;
        let zero_point = zero_point.small_to_i32();
        let (low, high) = (codes.min - zero_point, codes.max - zero_point);
        let unclipped = StraightThrough::new(low, high, clipping, R::HALVES_AWAY);
        Self { fake: FakeQuantizer::new(scale, zero_point, codes), unclipped }
    }

    #[inline(always)]
    fn fake_quantize(&self, x: C, _: u64) -> FakeQuantized<C> {
        let quotient = quotient::<C, R>(x, self.fake.quantizer.factor);
        let centred = self.fake.centred(quotient);
        let (below, above) = (quotient <= self.unclipped.above, quotient >= self.unclipped.below);
        FakeQuantized { centred, quotient, value: dequantize_centred(centred, self.fake.scale), below, above }
    }
}

/// Fake quantization with a float zero point, added before rounding: `clamp(round(x / scale + zero_point))`. The value
/// is `(code - zero_point) * scale` in `f64`, rounded once (PyTorch: `fake_quantize_per_channel_affine` with float zero
/// points).
#[derive(Clone, Copy)]
pub(crate) struct FloatZeroPoint<C, R> {
    factor: C,
    scale: C,
    zero_point: C,
    min: C,
    max: C,
    unclipped: StraightThrough<C>,
    rounding: PhantomData<R>,
}

impl<C: Compute, R: Rounding> SteQuantizer<C> for FloatZeroPoint<C, R> {
    #[inline(always)]
    fn new(scale: C, zero_point: C, settings: &Settings) -> Self {
        let Settings { codes, clipping, .. } = *settings;
        Self {
            factor: R::factor(scale),
            scale,
            zero_point,
            min: C::from_i32(codes.min),
            max: C::from_i32(codes.max),
            unclipped: StraightThrough::new(codes.min, codes.max, clipping, R::HALVES_AWAY),
            rounding: PhantomData,
        }
    }

    #[inline(always)]
    fn fake_quantize(&self, x: C, _: u64) -> FakeQuantized<C> {
        let quotient = quotient::<C, R>(x, self.factor);
        let sum = quotient + self.zero_point;
        let code = C::from_i32(clamp_to_code(sum, self.min, self.max, R::HALVES_AWAY));
        let (below, above) = (sum <= self.unclipped.above, sum >= self.unclipped.below);
        let value = C::from_f64((code.to_f64() - self.zero_point.to_f64()) * self.scale.to_f64());
        FakeQuantized { centred: code - self.zero_point, quotient, value, below, above }
    }
}

/// [`IntegerZeroPoint`] with stochastic rounding: `clamp(floor(v + u) + zero_point)`, `u` uniform in
/// `0..1`. The expected centred code is `v` where nothing is clipped.
#[derive(Clone, Copy)]
pub(crate) struct StochasticRounding<C, R> {
    deterministic: IntegerZeroPoint<C, R>,
    clipping: SteClipping,
    seed: u64,
}

impl<C: Compute, R: Rounding> SteQuantizer<C> for StochasticRounding<C, R> {
    #[inline(always)]
    fn new(scale: C, zero_point: C, settings: &Settings) -> Self {
        let deterministic = SteQuantizer::new(scale, zero_point, settings);
        Self { deterministic, clipping: settings.clipping, seed: settings.seed }
    }

    #[inline(always)]
    fn fake_quantize(&self, x: C, position: u64) -> FakeQuantized<C> {
        let FakeQuantizer { quantizer: Quantizer { factor, low, high, .. }, scale } = self.deterministic.fake;
        let quotient = quotient::<C, R>(x, factor);
        let nearest = quotient.round_ties_even();
        let floor = if nearest > quotient { nearest - C::ONE } else { nearest };
        // The subtraction is exact: floats with a fraction are small, and all others are integers.
        let up = uniform::<C>(self.seed, position) < quotient - floor;
        let rounded = if up { floor + C::ONE } else { floor };
        let (below, above) = match self.clipping {
            SteClipping::Rounded => (rounded < low, rounded > high),
            SteClipping::Unrounded => (quotient <= low, quotient >= high),
            SteClipping::Never => (false, false),
        };
        let centred = if rounded > low { rounded } else { low };
        let centred = if centred < high { centred } else { high };
        FakeQuantized { centred, quotient, value: dequantize_centred(centred, scale), below, above }
    }
}

/// Returns the random number of an element: a multiple of 2^-24 in `0..1`.
///
/// It is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) at this position of
/// its sequence, so neither order nor instruction set matters.
#[inline(always)]
fn uniform<C: Compute>(seed: u64, position: u64) -> C {
    let bits = split_mix(seed.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    C::from_i32((bits >> 40) as i32) * C::from_f64(1.0 / (1u64 << 24) as f64)
}

/// The finalizer of SplitMix64. Seeds go through it once, or neighbouring seeds would give shifted sequences.
#[inline(always)]
pub(crate) fn split_mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
