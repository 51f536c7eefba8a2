//! The 8-bit power of two.

use core::fmt;

use super::DType;

/// An 8-bit power of two, `2^(code - 127)`, with NaN for the code 255: the scale of OCP's microscaling formats. It has
/// neither sign nor zero.
///
/// ONNX: `FLOAT8E8M0`; ml_dtypes: `float8_e8m0fnu`; OCP Microscaling Formats (MX) Specification 1.0: E8M0.
///
/// ```
/// use ndarray_quant::minifloat::{E8M0, E8M0Rounding};
/// assert_eq!(E8M0::from_f32(3.0, E8M0Rounding::Down).to_f32(), 2.0);
/// assert_eq!(E8M0::from_f32(3.0, E8M0Rounding::Up).to_f32(), 4.0);
/// assert_eq!(E8M0::from_bits(127).to_f32(), 1.0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct E8M0(u8);

/// The rounding of a number to a power of two (ONNX: `round_mode` of `Cast`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum E8M0Rounding {
    /// The next greater power.
    #[default]
    Up,
    /// The next smaller power: `2^floor(log2(x))`.
    Down,
    /// The nearest power, ties up: `1.5` becomes `2`. All numbers between `2^-127` and `2^-126` go up, as in ml_dtypes and PyTorch.
    Nearest,
}

impl E8M0 {
    /// The name of the type at run time.
    pub const DTYPE: DType = DType::E8M0;
    /// The greatest power, `2^127`.
    pub const MAX: Self = E8M0(254);
    /// The smallest power, `2^-127`.
    pub const MIN: Self = E8M0(0);
    /// NaN.
    pub const NAN: Self = E8M0(255);

    /// Returns the code with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        E8M0(bits)
    }

    /// Returns the bits: the exponent plus 127.
    #[inline(always)]
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// Rounds to a power of two. A number that rounds beyond `2^127`, 0, a negative number and NaN become NaN. Positive
    /// numbers below `2^-127` become `2^-127`.
    #[inline(always)]
    pub fn from_f32(x: f32, rounding: E8M0Rounding) -> Self {
        let bits = x.to_bits();
        if x.is_nan() || x <= 0.0 {
            return Self::NAN;
        }
        // The subnormal 2^-127 has the bits of half the first mantissa: 0x40_0000.
        let below = if bits < 0x80_0000 { 0x40_0000 } else { bits & 0x7f80_0000 };
        let above = if bits < 0x80_0000 { 0x80_0000 } else { below + 0x80_0000 };
        let up = match rounding {
            E8M0Rounding::Up => bits > below,
            E8M0Rounding::Down => false,
            E8M0Rounding::Nearest if bits < 0x80_0000 => bits > below,
            E8M0Rounding::Nearest => bits >= below + (above - below) / 2,
        };
        let power = if up { above } else { below };
        E8M0((power >> 23) as u8)
    }

    /// Same as [`from_f32`](Self::from_f32), but 0 becomes `2^-127`, and a number that rounds beyond `2^127` becomes
    /// `2^127`.
    #[inline(always)]
    pub fn from_f32_saturating(x: f32, rounding: E8M0Rounding) -> Self {
        if x == 0.0 {
            return Self::MIN;
        }
        let code = Self::from_f32(x, rounding);
        if code.is_nan() && x > 0.0 { Self::MAX } else { code }
    }

    /// Returns the value. Exact.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        match self.0 {
            0 => f32::from_bits(0x40_0000),
            255 => f32::NAN,
            code => f32::from_bits((code as u32) << 23),
        }
    }

    /// Returns whether the code is NaN.
    #[inline(always)]
    pub const fn is_nan(self) -> bool {
        self.0 == 255
    }
}

impl From<E8M0> for f32 {
    fn from(code: E8M0) -> f32 {
        code.to_f32()
    }
}

impl fmt::Debug for E8M0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_f32(), f)
    }
}

impl fmt::Display for E8M0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_f32(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes() {
        for bits in 0..255u8 {
            let code = E8M0::from_bits(bits);
            assert_eq!(code.to_f32() as f64, 2f64.powi(bits as i32 - 127));
            for rounding in [E8M0Rounding::Up, E8M0Rounding::Down, E8M0Rounding::Nearest] {
                assert_eq!(E8M0::from_f32(code.to_f32(), rounding), code);
                assert_eq!(E8M0::from_f32_saturating(code.to_f32(), rounding), code);
            }
            let next = if bits == 254 { E8M0::NAN } else { E8M0::from_bits(bits + 1) };
            let tie = (2f64.powi(bits as i32 - 127) * 1.5) as f32;
            assert_eq!(E8M0::from_f32(tie, E8M0Rounding::Nearest), next);
            assert_eq!(E8M0::from_f32(tie.next_down(), E8M0Rounding::Nearest), if bits == 0 { next } else { code });
            assert_eq!(E8M0::from_f32(code.to_f32().next_up(), E8M0Rounding::Up), next);
            assert_eq!(E8M0::from_f32(tie, E8M0Rounding::Down), code);
        }
        assert!(E8M0::from_bits(255).to_f32().is_nan());
    }

    #[test]
    fn numbers_without_a_power() {
        for rounding in [E8M0Rounding::Up, E8M0Rounding::Down, E8M0Rounding::Nearest] {
            for x in [-1.0, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, f32::INFINITY] {
                assert!(E8M0::from_f32(x, rounding).is_nan(), "{x}");
            }
            for x in [0.0, -0.0, f32::from_bits(1).next_down()] {
                assert_eq!(E8M0::from_f32_saturating(x, rounding), E8M0::MIN, "{x}");
            }
            assert_eq!(E8M0::from_f32_saturating(f32::INFINITY, rounding), E8M0::MAX);
            assert!(E8M0::from_f32_saturating(-1.0, rounding).is_nan());
        }
        assert_eq!(E8M0::from_f32(f32::from_bits(1), E8M0Rounding::Nearest), E8M0::MIN);
        assert_eq!(E8M0::from_f32(f32::from_bits(1), E8M0Rounding::Down), E8M0::MIN);
    }
}
