//! Targets with one instruction set, which programs are compiled for: there is nothing to detect, and no FMA in `core`.

#[path = "one_vector.rs"]
mod one_vector;

use core::convert::Infallible;

pub(crate) use one_vector::{Vectors, with_vector};

use super::{Baseline, NAME};
#[cfg(test)]
use crate::simd::portable::Portable;
pub(crate) use crate::simd::table::lookup;

/// The instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(test)]
    Portable(Portable),
    /// The set of every machine of the target.
    Baseline(Baseline),
}

/// Evaluates `$body` with `$g` bound to the [`Gemm`](crate::simd::Gemm) of the instruction set.
macro_rules! with_gemm {
    ($isa:expr, $g:ident => $body:expr, $amx:ident => $amx_body:expr) => {
        match $isa {
            #[cfg(test)]
            $crate::simd::Isa::Portable($g) => $body,
            $crate::simd::Isa::Baseline($g) => $body,
        }
    };
}
pub(crate) use with_gemm;

impl Isa {
    /// The value of `NDARRAY_QUANT_ISA`.
    pub(crate) const NAMES: &[&str] = &[NAME];
    pub(crate) const ANY_NAME: &str = NAME;

    #[inline]
    pub(crate) fn detect(level: u8) -> Option<Self> {
        (level == 0).then_some(Self::BASELINE)
    }

    /// Returns the name that `NDARRAY_QUANT_ISA` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(test)]
            Isa::Portable(_) => "portable",
            Isa::Baseline(_) => NAME,
        }
    }
}

/// FMA, which no target here has.
#[derive(Debug, Clone, Copy)]
pub struct Fma(pub(in crate::simd) Infallible);

impl Fma {
    pub(crate) fn new() -> Option<Self> {
        None
    }

    pub(crate) fn mul_add(self, _: f32, _: f32, _: f32) -> f32 {
        match self.0 {}
    }
}
