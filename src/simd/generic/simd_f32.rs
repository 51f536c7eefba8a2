//! Formulas over registers: [`SimdF32`] by the operations of a [`Vector`].

use crate::simd::{Fma, SimdF32, Vector};

/// A register of floats with its token, for formulas.
#[derive(Clone, Copy)]
pub(super) struct F32s<V: Vector>(pub(super) V, pub(super) V::F32);

impl<V: Vector> SimdF32 for F32s<V> {
    type I32 = V::I32;
    type Codes = V::I32;

    #[inline(always)]
    fn convert(self, acc: V::I32) -> Self {
        Self(self.0, self.0.to_f32(acc))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0, self.0.mul_f32(self.1, other.1))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0, self.0.add_f32(self.1, other.1))
    }

    #[inline(always)]
    fn clamp(self, low: f32, high: f32) -> Self {
        let v = self.0;
        Self(v, v.max_f32(v.splat_f32(low), self.1)).min(high)
    }

    #[inline(always)]
    fn min(self, high: f32) -> Self {
        Self(self.0, self.0.min_f32(self.0.splat_f32(high), self.1))
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        Self(self.0, self.0.mul_f32(self.1, self.0.splat_f32(factor)))
    }

    #[inline(always)]
    fn mul_add(self, fma: Fma, factor: f32, other: Self) -> Self {
        Self(self.0, self.0.mul_add(fma, self.1, self.0.splat_f32(factor), other.1))
    }

    #[inline(always)]
    fn round_clamp(self, halves_away: bool, low: i32, high: i32, zero_point: i32) -> V::I32 {
        let v = self.0;
        v.add(round(v, self.clamp(low as f32, high as f32).1, halves_away), v.splat(zero_point))
    }
}

/// Four registers of floats, whose codes are one register of bytes.
#[derive(Clone, Copy)]
pub(super) struct F32x4<V: Vector>(pub(super) V, pub(super) [V::F32; 4]);

impl<V: Vector> SimdF32 for F32x4<V> {
    type I32 = [V::I32; 4];
    /// Bytes in the order of packing: 4 of each register, then the next 4 of each.
    type Codes = V::I32;

    #[inline(always)]
    fn convert(self, acc: [V::I32; 4]) -> Self {
        Self(self.0, array!(self.1[0], i => self.0.to_f32(acc[i])))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0, array!(self.1[0], i => self.0.mul_f32(self.1[i], other.1[i])))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0, array!(self.1[0], i => self.0.add_f32(self.1[i], other.1[i])))
    }

    #[inline(always)]
    fn clamp(self, low: f32, high: f32) -> Self {
        Self(self.0, array!(self.1[0], i => F32s(self.0, self.1[i]).clamp(low, high).1))
    }

    #[inline(always)]
    fn min(self, high: f32) -> Self {
        Self(self.0, array!(self.1[0], i => F32s(self.0, self.1[i]).min(high).1))
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        Self(self.0, array!(self.1[0], i => F32s(self.0, self.1[i]).scale(factor).1))
    }

    #[inline(always)]
    fn mul_add(self, fma: Fma, factor: f32, other: Self) -> Self {
        Self(self.0, array!(self.1[0], i => F32s(self.0, self.1[i]).mul_add(fma, factor, F32s(self.0, other.1[i])).1))
    }

    #[inline(always)]
    fn round_clamp(self, halves_away: bool, low: i32, high: i32, zero_point: i32) -> V::I32 {
        let v = self.0;
        let [a, b, c, d] = array!(v.splat(0), i => round(v, self.1[i], halves_away));
        // No integer exceeds an i32. Packing saturates beyond `low` and `high`, so clamping bytes is enough.
        let pair = (zero_point as u16 as u32 * 0x0001_0001) as i32;
        let (ab, cd, zero_points) = (v.pack_i16(a, b), v.pack_i16(c, d), v.splat(pair));
        let bytes = v.pack_u8(v.add_saturating_i16(ab, zero_points), v.add_saturating_i16(cd, zero_points));
        let [low, high] = [low + zero_point, high + zero_point];
        let [low, high] = [v.splat(i32::from_ne_bytes([low as u8; 4])), v.splat(i32::from_ne_bytes([high as u8; 4]))];
        v.min_u8(v.max_u8(bytes, low), high)
    }
}

/// Rounds to integers, halves away from zero if `halves_away`, otherwise to even.
#[inline(always)]
fn round<V: Vector>(v: V, x: V::F32, halves_away: bool) -> V::I32 {
    if halves_away { v.round_ties_away(x) } else { v.round(x) }
}
