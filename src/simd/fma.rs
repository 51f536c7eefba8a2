//! FMA: a multiplication and an addition with one rounding.

/// Proof that the instruction set in use has FMA. Loops that use it are vectorized by [`super::run`].
///
/// Formulas are never contracted to FMA, so results are the same bits on every instruction set. Use it only where the
/// result equals that of the formula without FMA.
#[derive(Debug, Clone, Copy)]
pub struct Fma(pub(super) Proof);

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little", target_feature = "neon")))]
type Proof = ();
/// Rust has no FMA in `core` for other targets yet.
#[cfg(not(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_endian = "little", target_feature = "neon")
)))]
type Proof = core::convert::Infallible;

impl Fma {
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn new() -> Option<Self> {
        // Detection requires FMA for every instruction set above the baseline.
        (super::Isa::current() != super::Isa::BASELINE).then_some(Self(()))
    }

    #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
    pub(crate) fn new() -> Option<Self> {
        Some(Self(()))
    }

    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_endian = "little", target_feature = "neon")
    )))]
    pub(crate) fn new() -> Option<Self> {
        None
    }

    /// Returns `a * b + c`, rounded once.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[allow(unsafe_code, reason = "an intrinsic that needs FMA")]
    pub(crate) fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        use core::arch::x86_64::{_mm_cvtss_f32, _mm_fmadd_ss, _mm_set_ss};
        // SAFETY: the token proves FMA.
        unsafe { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
    }

    #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
    #[inline(always)]
    #[allow(unsafe_code, reason = "an intrinsic that needs NEON")]
    pub(crate) fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        use core::arch::aarch64::{vdup_n_f32, vfmas_lane_f32};
        // SAFETY: the target has NEON.
        unsafe { vfmas_lane_f32::<0>(c, a, vdup_n_f32(b)) }
    }

    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_endian = "little", target_feature = "neon")
    )))]
    pub(crate) fn mul_add(self, _: f32, _: f32, _: f32) -> f32 {
        match self.0 {}
    }
}
