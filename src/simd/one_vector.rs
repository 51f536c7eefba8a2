//! The registers of targets whose instruction sets share them.

use super::{Baseline, Isa};

/// The registers of every set.
pub(crate) enum Vectors {
    Baseline(Baseline),
}

/// Evaluates `$body` with `$v` bound to the vector of an instruction set.
macro_rules! with_vector {
    ($isa:expr, $v:ident => $body:expr) => {
        match $isa.vectors() {
            $crate::simd::Vectors::Baseline($v) => $body,
        }
    };
}
pub(crate) use with_vector;

impl Isa {
    #[inline]
    pub(crate) fn vectors(self) -> Vectors {
        Vectors::Baseline(Baseline)
    }
}
