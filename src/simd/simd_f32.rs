//! The arithmetic that requantization is written in: one `f32`, or SIMD registers of them.
//!
//! Portable loops compute one accumulator after the other and leave vectorization to the compiler. A micro-kernel has
//! its accumulators in registers already. Both evaluate the same [`RequantizeOp`].

/// One `f32`, or SIMD registers of them.
pub trait SimdF32: Copy {
    /// The accumulators: `i32` of the same count.
    type I32: Copy;
    /// Integers of the same count that codes fit in.
    type Codes: Copy;

    fn from_i32(acc: Self::I32) -> Self;

    fn mul(self, multipliers: Self) -> Self;

    /// Returns `rne(clamp(self, low, high)) + zero_point` for integers `low` and `high`. `self` must round to an `i32`.
    fn round_clamp(self, low: f32, high: f32, zero_point: i32) -> Self::Codes;
}

/// A requantization of accumulators, each by its multiplier.
pub trait RequantizeOp: Copy {
    fn codes<V: SimdF32>(self, acc: V::I32, multipliers: V) -> V::Codes;
}
