//! AVX2, with FMA and F16C, which every processor with AVX2 has.

use core::arch::x86_64::*;

use super::detect::{Presence, has_avx2};
use crate::simd::vector::vector_methods;
use crate::simd::{Fma, Vector, multiply_i16, target};

/// AVX2 with FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        PRESENT.ask_once(has_avx2).then_some(Self(()))
    }
}

target!(Avx2, "avx2,fma,f16c");

type I = __m256i;
type F = __m256;

// SAFETY: `new` detects the instruction set.
unsafe impl Vector for Avx2 {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 8;

    vector_methods! {
        safe {
            fn splat(x: i32) -> I = _mm256_set1_epi32(x);
            fn splat_f32(x: f32) -> F = _mm256_set1_ps(x);
            fn add(a: I, b: I) -> I = _mm256_add_epi32(a, b);
            fn sub(a: I, b: I) -> I = _mm256_sub_epi32(a, b);
            fn mul(a: I, b: I) -> I = _mm256_mullo_epi32(a, b);
            fn xor(a: I, b: I) -> I = _mm256_xor_si256(a, b);
            fn and(a: I, b: I) -> I = _mm256_and_si256(a, b);
            fn shift_right(x: I, bits: i32) -> I = _mm256_srl_epi32(x, _mm_cvtsi32_si128(bits));
            fn multiply_add_i16(a: I, b: I) -> I = _mm256_madd_epi16(a, b);
            fn multiply_add_i8(a: I, b: I) -> I = _mm256_maddubs_epi16(a, b);
            fn add_saturating_i16(a: I, b: I) -> I = _mm256_adds_epi16(a, b);
            fn pack_i16(a: I, b: I) -> I = _mm256_packs_epi32(a, b);
            fn pack_u8(a: I, b: I) -> I = _mm256_packus_epi16(a, b);
            // By a table of the ones of four bits.
            fn count_ones_u8(x: I) -> I = {
                let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
                let mask = _mm256_set1_epi8(0xf);
                let low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, mask));
                let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(x), mask));
                _mm256_add_epi8(low, high)
            };
            fn min_u8(a: I, b: I) -> I = _mm256_min_epu8(a, b);
            fn max_u8(a: I, b: I) -> I = _mm256_max_epu8(a, b);
            fn even_u8(x: I) -> I = _mm256_and_si256(x, _mm256_set1_epi16(0xff));
            fn odd_u8(x: I) -> I = _mm256_srli_epi16::<8>(x);
            fn even_i8(x: I) -> I = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
            fn odd_i8(x: I) -> I = _mm256_srai_epi16::<8>(x);
            fn unpack_low_i8(a: I, b: I) -> I = _mm256_unpacklo_epi8(a, b);
            fn unpack_high_i8(a: I, b: I) -> I = _mm256_unpackhi_epi8(a, b);
            fn unpack_low_i16(a: I, b: I) -> I = _mm256_unpacklo_epi16(a, b);
            fn unpack_high_i16(a: I, b: I) -> I = _mm256_unpackhi_epi16(a, b);
            fn transpose_groups(x: I) -> I = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            fn transpose_to_groups(x: I) -> I = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
            fn to_f32(x: I) -> F = _mm256_cvtepi32_ps(x);
            fn round(x: F) -> I = _mm256_cvtps_epi32(x);
            // With 1/2, the sum of the float below a tie would round up to an integer.
            fn round_ties_away(x: F) -> I = {
                let sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0));
                _mm256_cvttps_epi32(_mm256_add_ps(x, _mm256_or_ps(sign, _mm256_set1_ps(0.5f32.next_down()))))
            };
            fn add_f32(a: F, b: F) -> F = _mm256_add_ps(a, b);
            fn mul_f32(a: F, b: F) -> F = _mm256_mul_ps(a, b);
            fn mul_add(_fma: Fma, a: F, b: F, c: F) -> F = _mm256_fmadd_ps(a, b, c);
            fn any_nan(a: F, b: F) -> bool = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, b)) != 0;
            fn max_f32(a: F, b: F) -> F = _mm256_max_ps(a, b);
            fn min_f32(a: F, b: F) -> F = _mm256_min_ps(a, b);
            fn prefetch(address: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
        unsafe {
            fn load(from: *const u8) -> I = _mm256_loadu_si256(from.cast());
            fn load_i8_as_i16(from: *const u8) -> I = _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast()));
            fn store(to: *mut u8, x: I) = _mm256_storeu_si256(to.cast(), x);
            fn store_half<const PART>(to: *mut u8, x: I) = _mm_storeu_si128(to.cast(), _mm256_extracti128_si256::<PART>(x));
            fn store_quarter<const PART>(to: *mut u8, x: I) = to.cast::<i64>().write_unaligned(_mm256_extract_epi64::<PART>(x));
            fn load_f32(from: *const f32) -> F = _mm256_loadu_ps(from);
            fn store_f32(to: *mut f32, x: F) = _mm256_storeu_ps(to, x);
            fn load_f16(from: *const u16) -> F = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
            fn store_f16(to: *mut u16, x: F) = _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
        }
    }
}

multiply_i16!(Avx2, MR = 6);
