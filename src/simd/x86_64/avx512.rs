//! AVX-512 without VNNI: F, BW, DQ and VL, which all server processors with AVX-512 have.

use core::arch::x86_64::*;

use super::detect::{Presence, has_avx512};
use crate::simd::vector::vector_methods;
use crate::simd::{Fma, Vector, multiply_i16, target};

/// AVX-512 F, BW, DQ and VL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        PRESENT.ask_once(has_avx512).then_some(Self(()))
    }
}

target!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

type I = __m512i;
type F = __m512;

/// Transposes 4 × 4 elements.
const TRANSPOSED: [i32; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];

// SAFETY: `new` detects the instruction set.
unsafe impl Vector for Avx512 {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 16;

    vector_methods! {
        safe {
            fn splat(x: i32) -> I = _mm512_set1_epi32(x);
            fn splat_f32(x: f32) -> F = _mm512_set1_ps(x);
            fn add(a: I, b: I) -> I = _mm512_add_epi32(a, b);
            fn sub(a: I, b: I) -> I = _mm512_sub_epi32(a, b);
            fn mul(a: I, b: I) -> I = _mm512_mullo_epi32(a, b);
            fn xor(a: I, b: I) -> I = _mm512_xor_si512(a, b);
            fn and(a: I, b: I) -> I = _mm512_and_si512(a, b);
            fn shift_right(x: I, bits: i32) -> I = _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits));
            fn multiply_add_i16(a: I, b: I) -> I = _mm512_madd_epi16(a, b);
            fn multiply_add_i8(a: I, b: I) -> I = _mm512_maddubs_epi16(a, b);
            fn add_saturating_i16(a: I, b: I) -> I = _mm512_adds_epi16(a, b);
            fn pack_i16(a: I, b: I) -> I = _mm512_packs_epi32(a, b);
            fn pack_u8(a: I, b: I) -> I = _mm512_packus_epi16(a, b);
            // By a table of the ones of four bits.
            fn count_ones_u8(x: I) -> I = {
                let table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
                let mask = _mm512_set1_epi8(0xf);
                let low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, mask));
                let high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask));
                _mm512_add_epi8(low, high)
            };
            fn min_u8(a: I, b: I) -> I = _mm512_min_epu8(a, b);
            fn max_u8(a: I, b: I) -> I = _mm512_max_epu8(a, b);
            fn even_u8(x: I) -> I = _mm512_and_si512(x, _mm512_set1_epi16(0xff));
            fn odd_u8(x: I) -> I = _mm512_srli_epi16::<8>(x);
            fn even_i8(x: I) -> I = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x));
            fn odd_i8(x: I) -> I = _mm512_srai_epi16::<8>(x);
            fn unpack_low_i8(a: I, b: I) -> I = _mm512_unpacklo_epi8(a, b);
            fn unpack_high_i8(a: I, b: I) -> I = _mm512_unpackhi_epi8(a, b);
            fn unpack_low_i16(a: I, b: I) -> I = _mm512_unpacklo_epi16(a, b);
            fn unpack_high_i16(a: I, b: I) -> I = _mm512_unpackhi_epi16(a, b);
            fn transpose_groups(x: I) -> I = _mm512_permutexvar_epi32(_mm512_loadu_si512(TRANSPOSED.as_ptr().cast()), x);
            fn transpose_to_groups(x: I) -> I = _mm512_permutexvar_epi32(_mm512_loadu_si512(TRANSPOSED.as_ptr().cast()), x);
            fn to_f32(x: I) -> F = _mm512_cvtepi32_ps(x);
            fn round(x: F) -> I = _mm512_cvtps_epi32(x);
            // With 1/2, the sum of the float below a tie would round up to an integer.
            fn round_ties_away(x: F) -> I = {
                let sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0));
                _mm512_cvttps_epi32(_mm512_add_ps(x, _mm512_or_ps(sign, _mm512_set1_ps(0.5f32.next_down()))))
            };
            fn add_f32(a: F, b: F) -> F = _mm512_add_ps(a, b);
            fn mul_f32(a: F, b: F) -> F = _mm512_mul_ps(a, b);
            fn mul_add(_fma: Fma, a: F, b: F, c: F) -> F = _mm512_fmadd_ps(a, b, c);
            fn any_nan(a: F, b: F) -> bool = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b) != 0;
            fn max_f32(a: F, b: F) -> F = _mm512_max_ps(a, b);
            fn min_f32(a: F, b: F) -> F = _mm512_min_ps(a, b);
            fn prefetch(address: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
        unsafe {
            fn load(from: *const u8) -> I = _mm512_loadu_si512(from.cast());
            fn load_i8_as_i16(from: *const u8) -> I = _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast()));
            fn store(to: *mut u8, x: I) = _mm512_storeu_si512(to.cast(), x);
            fn store_half<const PART>(to: *mut u8, x: I) = _mm256_storeu_si256(to.cast(), _mm512_extracti64x4_epi64::<PART>(x));
            fn store_quarter<const PART>(to: *mut u8, x: I) = _mm_storeu_si128(to.cast(), _mm512_extracti32x4_epi32::<PART>(x));
            fn load_f32(from: *const f32) -> F = _mm512_loadu_ps(from);
            fn store_f32(to: *mut f32, x: F) = _mm512_storeu_ps(to, x);
            fn load_f16(from: *const u16) -> F = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
            fn store_f16(to: *mut u16, x: F) = _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
        }
    }
}

multiply_i16!(Avx512, MR = 12);
