//! The instruction sets of AArch64.

use super::{Baseline, DotProd, I8mm};
#[cfg(test)]
use crate::simd::portable::Portable;

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(test)]
    Portable(Portable),
    /// The set of every machine of the target.
    Baseline(Baseline),
    DotProd(DotProd),
    I8mm(I8mm),
}

/// Evaluates `$body` with `$g` bound to the [`Gemm`](crate::simd::Gemm) of an instruction set.
macro_rules! with_gemm {
    ($isa:expr, $g:ident => $body:expr, $amx:ident => $amx_body:expr) => {
        match $isa {
            #[cfg(test)]
            $crate::simd::Isa::Portable($g) => $body,
            $crate::simd::Isa::Baseline($g) => $body,
            $crate::simd::Isa::DotProd($g) => $body,
            $crate::simd::Isa::I8mm($g) => $body,
        }
    };
}
pub(crate) use with_gemm;

impl Isa {
    /// The values of `NDARRAY_QUANT_ISA` in ascending order of preference. A *level* is an index into this list.
    pub(crate) const NAMES: &[&str] = &["neon", "dotprod", "i8mm"];

    /// The same as a phrase.
    pub(crate) const ANY_NAME: &str = "neon, dotprod or i8mm";

    /// Detects the instruction set of a level.
    #[inline]
    pub(crate) fn detect(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::BASELINE),
            1 => DotProd::new().map(Isa::DotProd),
            2 => I8mm::new().map(Isa::I8mm),
            _ => None,
        }
    }

    /// Returns the name that `NDARRAY_QUANT_ISA` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(test)]
            Isa::Portable(_) => "portable",
            Isa::Baseline(_) => Self::NAMES[0],
            Isa::DotProd(_) => "dotprod",
            Isa::I8mm(_) => "i8mm",
        }
    }
}
