//! FMA: a multiplication and an addition with one rounding.

use core::arch::x86_64::{_mm_cvtss_f32, _mm_fmadd_ss, _mm_set_ss};

use super::Isa;

/// Proof that the instruction set in use has FMA. Loops that use it are vectorized by [`run`](crate::simd::run).
///
/// Formulas are never contracted to FMA, so results are the same bits on every instruction set. Use it only where the
/// result is the same without FMA.
#[derive(Debug, Clone, Copy)]
pub struct Fma(());

impl Fma {
    pub(crate) fn new() -> Option<Self> {
        // Detection requires FMA for every instruction set above the baseline.
        (Isa::current() != Isa::BASELINE).then_some(Self(()))
    }

    /// Returns `a * b + c`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // SAFETY: the token proves FMA.
        unsafe { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
    }
}
