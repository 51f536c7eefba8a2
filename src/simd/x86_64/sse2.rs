//! SSE2, which every x86-64 processor has.

use core::arch::x86_64::*;

use crate::simd::vector::vector_methods;
use crate::simd::{Fma, Target, Task, Vector, multiply_i16};

/// SSE2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sse2;

impl Target for Sse2 {
    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        task.run()
    }
}

type I = __m128i;
type F = __m128;

// SAFETY: every x86-64 processor has SSE2.
unsafe impl Vector for Sse2 {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 4;

    vector_methods! {
        safe {
            fn splat(x: i32) -> I = _mm_set1_epi32(x);
            fn splat_f32(x: f32) -> F = _mm_set1_ps(x);
            fn add(a: I, b: I) -> I = _mm_add_epi32(a, b);
            fn sub(a: I, b: I) -> I = _mm_sub_epi32(a, b);
            // The low halves of the products of even and of odd elements.
            fn mul(a: I, b: I) -> I = {
                let even = _mm_shuffle_epi32::<0b1000>(_mm_mul_epu32(a, b));
                let odd = _mm_shuffle_epi32::<0b1000>(_mm_mul_epu32(_mm_srli_epi64::<32>(a), _mm_srli_epi64::<32>(b)));
                _mm_unpacklo_epi32(even, odd)
            };
            fn xor(a: I, b: I) -> I = _mm_xor_si128(a, b);
            fn and(a: I, b: I) -> I = _mm_and_si128(a, b);
            fn shift_right(x: I, bits: i32) -> I = _mm_srl_epi32(x, _mm_cvtsi32_si128(bits));
            fn multiply_add_i16(a: I, b: I) -> I = _mm_madd_epi16(a, b);
            fn multiply_add_i8(a: I, b: I) -> I = {
                let even = _mm_mullo_epi16(Sse2.even_u8(a), Sse2.even_i8(b));
                _mm_add_epi16(even, _mm_mullo_epi16(Sse2.odd_u8(a), Sse2.odd_i8(b)))
            };
            fn add_saturating_i16(a: I, b: I) -> I = _mm_adds_epi16(a, b);
            fn pack_i16(a: I, b: I) -> I = _mm_packs_epi32(a, b);
            fn pack_u8(a: I, b: I) -> I = _mm_packus_epi16(a, b);
            fn min_u8(a: I, b: I) -> I = _mm_min_epu8(a, b);
            fn max_u8(a: I, b: I) -> I = _mm_max_epu8(a, b);
            fn even_u8(x: I) -> I = _mm_and_si128(x, _mm_set1_epi16(0xff));
            fn odd_u8(x: I) -> I = _mm_srli_epi16::<8>(x);
            fn even_i8(x: I) -> I = _mm_srai_epi16::<8>(_mm_slli_epi16::<8>(x));
            fn odd_i8(x: I) -> I = _mm_srai_epi16::<8>(x);
            fn unpack_low_i8(a: I, b: I) -> I = _mm_unpacklo_epi8(a, b);
            fn unpack_high_i8(a: I, b: I) -> I = _mm_unpackhi_epi8(a, b);
            fn unpack_low_i16(a: I, b: I) -> I = _mm_unpacklo_epi16(a, b);
            fn unpack_high_i16(a: I, b: I) -> I = _mm_unpackhi_epi16(a, b);
            fn transpose_groups(x: I) -> I = x;
            fn transpose_to_groups(x: I) -> I = x;
            fn to_f32(x: I) -> F = _mm_cvtepi32_ps(x);
            fn round(x: F) -> I = _mm_cvtps_epi32(x);
            // With 1/2, the sum of the float below a tie would round up to an integer.
            fn round_ties_away(x: F) -> I = {
                let sign = _mm_and_ps(x, _mm_set1_ps(-0.0));
                _mm_cvttps_epi32(_mm_add_ps(x, _mm_or_ps(sign, _mm_set1_ps(0.5f32.next_down()))))
            };
            fn add_f32(a: F, b: F) -> F = _mm_add_ps(a, b);
            fn mul_f32(a: F, b: F) -> F = _mm_mul_ps(a, b);
            fn mul_add(_fma: Fma, a: F, b: F, c: F) -> F = _mm_fmadd_ps(a, b, c);
            fn any_nan(a: F, b: F) -> bool = _mm_movemask_ps(_mm_cmpunord_ps(a, b)) != 0;
            fn max_f32(a: F, b: F) -> F = _mm_max_ps(a, b);
            fn min_f32(a: F, b: F) -> F = _mm_min_ps(a, b);
            fn prefetch(address: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
        unsafe {
            fn load(from: *const u8) -> I = _mm_loadu_si128(from.cast());
            fn load_i8_as_i16(from: *const u8) -> I = {
                let bytes = _mm_loadl_epi64(from.cast());
                _mm_srai_epi16::<8>(_mm_unpacklo_epi8(bytes, bytes))
            };
            fn store(to: *mut u8, x: I) = _mm_storeu_si128(to.cast(), x);
            fn store_half<const PART>(to: *mut u8, x: I) = {
                let part = if PART == 0 { x } else { _mm_unpackhi_epi64(x, x) };
                _mm_storel_epi64(to.cast(), part)
            };
            fn store_quarter<const PART>(to: *mut u8, x: I) = {
                to.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(_mm_shuffle_epi32::<PART>(x)))
            };
            fn load_f32(from: *const f32) -> F = _mm_loadu_ps(from);
            fn store_f32(to: *mut f32, x: F) = _mm_storeu_ps(to, x);
        }
    }
}

multiply_i16!(Sse2, MR = 6);

/// 16 rows of 16 bytes.
type Square = [[u8; 16]; 16];

/// Transposes a square in registers.
///
/// Each of four rounds interleaves row `i` with row `i + 8`, which moves one bit of a byte's row index to its column
/// index and back.
#[inline(always)]
pub(crate) fn transposed(square: &Square) -> Square {
    let mut rows = [Sse2.splat(0); 16];
    for (to, from) in rows.iter_mut().zip(square) {
        // SAFETY: a row has the size of the register.
        *to = unsafe { Sse2.load(from.as_ptr()) };
    }
    for _ in 0..4 {
        let from = rows;
        for i in 0..8 {
            rows[2 * i] = Sse2.unpack_low_i8(from[i], from[i + 8]);
            rows[2 * i + 1] = Sse2.unpack_high_i8(from[i], from[i + 8]);
        }
    }
    let mut square = [[0; 16]; 16];
    for (to, from) in square.iter_mut().zip(rows) {
        // SAFETY: a row has the size of the register.
        unsafe { Sse2.store(to.as_mut_ptr(), from) };
    }
    square
}
