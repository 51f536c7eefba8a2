//! What a formula is written with that sums pass on their way to codes: a float, or registers full of them.
//!
//! Loops in plain Rust compute it for one sum at a time, and the compiler makes registers of that. A kernel has its sums in
//! registers already. Both compute the same formula.

/// A float, or as many as some registers hold.
pub(crate) trait Floats: Copy {
    /// As many accumulators.
    type Sums: Copy;
    /// As many integers that codes fit in.
    type Codes: Copy;

    fn from_sums(sums: Self::Sums) -> Self;

    fn times(self, factors: Self) -> Self;

    /// `round(clamp(self, low, high)) + zero_point`, halves to even, for integers `low` and `high` and floats that round
    /// to an `i32`.
    fn to_codes(self, low: f32, high: f32, zero_point: i32) -> Self::Codes;
}

/// What becomes of sums, each with a factor.
pub(crate) trait Formula: Copy {
    fn codes<F: Floats>(self, sums: F::Sums, factors: F) -> F::Codes;
}
