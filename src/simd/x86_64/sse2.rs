//! SSE2, which every x86-64 processor has.

use core::arch::x86_64::*;

/// 16 rows of 16 bytes.
type Square = [[u8; 16]; 16];

/// Transposes a square in registers.
///
/// Each of four rounds interleaves row `i` with row `i + 8`, which moves one bit of a byte's row index to its column
/// index and back.
#[inline(always)]
pub(crate) fn transposed(square: &Square) -> Square {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { in_registers(square) }
}

#[target_feature(enable = "sse2")]
#[inline]
fn in_registers(square: &Square) -> Square {
    let mut rows = [_mm_setzero_si128(); 16];
    for (to, from) in rows.iter_mut().zip(square) {
        // SAFETY: a row has the size of the register.
        *to = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
    }
    let rows = round(round(round(round(rows))));
    let mut square = [[0; 16]; 16];
    for (to, from) in square.iter_mut().zip(rows) {
        // SAFETY: a row has the size of the register.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), from) };
    }
    square
}

#[target_feature(enable = "sse2")]
#[inline]
fn round(rows: [__m128i; 16]) -> [__m128i; 16] {
    let mut to = [_mm_setzero_si128(); 16];
    for i in 0..8 {
        to[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
        to[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
    }
    to
}
