//! Targets with one instruction set, which programs are compiled for: there is nothing to detect, and no FMA in `core`.

use core::convert::Infallible;

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

/// Its registers.
pub(crate) enum Vectors {
    Baseline(Baseline),
}

/// Evaluates `$body` with `$v` bound to the vector of the instruction set.
macro_rules! with_vector {
    ($isa:expr, $v:ident => $body:expr) => {
        match $isa.vectors() {
            $crate::simd::Vectors::Baseline($v) => $body,
        }
    };
}
pub(crate) use with_vector;

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

    #[inline]
    pub(crate) fn vectors(self) -> Vectors {
        Vectors::Baseline(Baseline)
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
