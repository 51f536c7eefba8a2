//! FMA: a multiplication and an addition with one rounding, which NEON has.

use core::arch::aarch64::{vdup_n_f32, vfmas_lane_f32};

/// Proof that the instruction set in use has FMA.
///
/// Formulas are never contracted to FMA, so results are the same bits on every instruction set. Use it only where the
/// result is the same without FMA.
#[derive(Debug, Clone, Copy)]
pub struct Fma(());

impl Fma {
    pub(crate) fn new() -> Option<Self> {
        Some(Self(()))
    }

    /// Returns `a * b + c`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // SAFETY: the target has NEON.
        unsafe { vfmas_lane_f32::<0>(c, a, vdup_n_f32(b)) }
    }
}
