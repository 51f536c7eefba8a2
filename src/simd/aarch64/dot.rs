//! Dot products of four bytes by element, without saturation: `sdot`, signed by signed, and with I8MM `sudot` and
//! `usdot`, which multiply unsigned by signed bytes. Their intrinsics are not stable.

use core::arch::asm;
#[cfg(feature = "std")]
use std::arch::is_aarch64_feature_detected;

use super::Neon;
use crate::simd::{Gemm, Vector, target};

/// Without the operating system, only the features of the target are known.
#[cfg(not(feature = "std"))]
macro_rules! is_aarch64_feature_detected {
    ($feature:tt) => {
        cfg!(target_feature = $feature)
    };
}

macro_rules! dot {
    ($(#[$doc:meta])* $token:ident, $feature:tt, $by_element:literal, $dot:literal, signed: $signed:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $token(());

        impl $token {
            pub(crate) fn new() -> Option<Self> {
                is_aarch64_feature_detected!($feature).then_some(Self(()))
            }
        }

        target!($token, $feature);

        impl Gemm for $token {
            type V = Neon;
            type Weights = <Neon as Vector>::I32;
            const MR: usize = 8;
            const KR: usize = 4;
            const BY_ELEMENT: bool = true;
            const SIGNED_LHS: bool = $signed;
            const AHEAD: usize = 0;

            #[inline(always)]
            fn vector(self) -> Neon {
                Neon
            }

            #[inline(always)]
            unsafe fn load_rhs(self, from: *const u8) -> Self::Weights {
                // SAFETY: the caller promises a register.
                unsafe { Neon.load(from) }
            }

            #[inline(always)]
            fn dot<const UNIT: i32>(self, mut acc: Self::Weights, a: Self::Weights, b: Self::Weights) -> Self::Weights {
                // SAFETY: the token proves that the machine has the instruction, which reads registers only.
                unsafe {
                    asm!(concat!($by_element, " {acc:v}.4s, {b:v}.16b, {a:v}.4b[{unit}]"), acc = inout(vreg) acc,
                        a = in(vreg) a, b = in(vreg) b, unit = const UNIT, options(pure, nomem, nostack, preserves_flags));
                }
                acc
            }

            #[inline(always)]
            fn weights(self, bytes: Self::Weights) -> Self::Weights {
                bytes
            }

            #[inline(always)]
            fn dot4(self, mut acc: Self::Weights, codes: Self::Weights, weights: Self::Weights) -> Self::Weights {
                // SAFETY: the token proves that the machine has the instruction, which reads registers only.
                unsafe {
                    asm!(concat!($dot, " {acc:v}.4s, {a:v}.16b, {b:v}.16b"), acc = inout(vreg) acc,
                        a = in(vreg) codes, b = in(vreg) weights, options(pure, nomem, nostack, preserves_flags));
                }
                acc
            }
        }
    };
}
dot!(
    /// `sdot` (FEAT_DotProd): Cortex-A75 and later.
    DotProd, "dotprod", "sdot", "sdot", signed: true
);
dot!(
    /// `sudot` (FEAT_I8MM): Neoverse V1, Cortex-X2 and later.
    I8mm, "i8mm", "sudot", "usdot", signed: false
);
