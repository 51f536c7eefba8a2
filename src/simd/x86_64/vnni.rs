//! VNNI: `vpdpbusd` multiplies unsigned by signed bytes and adds four products to each accumulator, without saturation.

use core::arch::x86_64::*;

use super::detect::{Presence, has_avx_vnni, has_avx512_vnni};
use super::{Avx2, Avx512};
use crate::simd::{Gemm, Vector, target};

/// VNNI on 256 bits, for processors without AVX-512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvxVnni(Avx2);

/// VNNI on 512 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(Avx512);

impl AvxVnni {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        Avx2::new().filter(|_| PRESENT.ask_once(has_avx_vnni)).map(Self)
    }
}

impl Avx512Vnni {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        Avx512::new().filter(|_| PRESENT.ask_once(has_avx512_vnni)).map(Self)
    }
}

macro_rules! vnni {
    ($token:ident, $vector:ty, $features:literal, MR = $mr:literal, AHEAD = $ahead:literal, $dpbusd:ident) => {
        target!($token, $features);

        impl Gemm for $token {
            type V = $vector;
            type Weights = <$vector as Vector>::I32;
            const MR: usize = $mr;
            const KR: usize = 4;
            const AHEAD: usize = $ahead;

            #[inline(always)]
            fn vector(self) -> $vector {
                self.0
            }

            #[inline(always)]
            unsafe fn load_rhs(self, from: *const u8) -> Self::Weights {
                // SAFETY: the caller promises `LANES * KR` bytes, a register.
                unsafe { self.0.load(from) }
            }

            #[inline(always)]
            fn dot<const UNIT: i32>(self, acc: Self::Weights, a: Self::Weights, b: Self::Weights) -> Self::Weights {
                // SAFETY: the token proves that the machine has the instruction.
                unsafe { $dpbusd(acc, a, b) }
            }

            #[inline(always)]
            fn weights(self, bytes: Self::Weights) -> Self::Weights {
                bytes
            }

            #[inline(always)]
            fn dot4(self, acc: Self::Weights, codes: Self::Weights, weights: Self::Weights) -> Self::Weights {
                self.dot::<0>(acc, codes, weights)
            }
        }
    };
}
vnni!(AvxVnni, Avx2, "avxvnni,avx2,fma,f16c", MR = 6, AHEAD = 2048, _mm256_dpbusd_avx_epi32);
vnni!(
    Avx512Vnni,
    Avx512,
    "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
    MR = 12,
    AHEAD = 4096,
    _mm512_dpbusd_epi32
);
