//! Lookup tables of 256 bytes in four registers, by the byte permutations of AVX512-VBMI.

use core::arch::x86_64::*;

use super::Avx512;
use super::detect::{Presence, has_avx512_vbmi};

/// Bytes of a register.
const LANES: usize = 64;

/// AVX512-VBMI, which Cascade Lake lacks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Vbmi(());

impl Avx512Vbmi {
    pub(crate) fn new(_: Avx512) -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        PRESENT.ask_once(has_avx512_vbmi).then_some(Self(()))
    }

    /// Implements [`lookup`](crate::simd::lookup).
    pub(crate) fn lookup(self, table: &[u8; 256], codes: (&[u8], usize), to: (&mut [u8], usize)) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { lookup(table, codes, to) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn lookup(table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
    // SAFETY: the quarters of the table have the size of registers.
    let table = [0, 1, 2, 3].map(|i| unsafe { _mm512_loadu_epi8(table.as_ptr().add(i * LANES).cast()) });
    for (codes, to) in codes.chunks_exact(len).zip(to.chunks_mut(stride)) {
        row(table, codes, to);
    }
}

/// Looks up a row; stops at the end of the shorter slice.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn row(table: [__m512i; 4], codes: &[u8], to: &mut [u8]) {
    let len = codes.len().min(to.len());
    let ((codes, codes_rest), (to, to_rest)) = (codes[..len].as_chunks::<LANES>(), to[..len].as_chunks_mut::<LANES>());
    for (codes, to) in codes.iter().zip(to) {
        // SAFETY: the arrays have the size of registers.
        unsafe { _mm512_storeu_epi8(to.as_mut_ptr().cast(), entries(table, _mm512_loadu_epi8(codes.as_ptr().cast()))) }
    }
    if !codes_rest.is_empty() {
        let mask = u64::MAX >> (LANES - codes_rest.len());
        // SAFETY: the mask has a bit for each byte of both remainders, which have one length.
        unsafe {
            let codes = _mm512_maskz_loadu_epi8(mask, codes_rest.as_ptr().cast());
            _mm512_mask_storeu_epi8(to_rest.as_mut_ptr().cast(), mask, entries(table, codes));
        }
    }
}

/// Looks up each half of the table by the lower seven bits; the top bit chooses between them.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn entries(table: [__m512i; 4], codes: __m512i) -> __m512i {
    let [low, high] = [[table[0], table[1]], [table[2], table[3]]].map(|[a, b]| _mm512_permutex2var_epi8(a, codes, b));
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high)
}
