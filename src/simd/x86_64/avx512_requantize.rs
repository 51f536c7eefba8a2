//! Requantization of accumulators in AVX-512 registers: four registers of `i32` become one register of bytes.

use core::arch::x86_64::*;

use super::avx512vnni::{KR, LANES, MR, NR, tile};
use crate::simd::{ByteStage, ByteTile, LhsRows, LhsUnits, RequantizeOp, RhsPanels, SimdF32};

/// Implements [`Kernel::multiply_requantize`](crate::simd::Kernel::multiply_requantize).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn multiply_requantize<F: RequantizeOp>(
    rows: usize,
    a: LhsRows<'_>,
    b: RhsPanels<'_>,
    stage: ByteStage<'_, F>,
    out: ByteTile<'_>,
) {
    if a.signed {
        requantize_tiles::<true, F>(rows, a, b, stage, out)
    } else {
        requantize_tiles::<false, F>(rows, a, b, stage, out)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
fn requantize_tiles<const SIGNED: bool, F: RequantizeOp>(
    rows: usize,
    a: LhsRows<'_>,
    b: RhsPanels<'_>,
    stage: ByteStage<'_, F>,
    out: ByteTile<'_>,
) {
    // Rows are stored in pairs or in fours.
    const { assert!(MR.is_multiple_of(4)) }
    let ByteStage { op, multipliers, sign_xor } = stage;
    let ByteTile { bytes, width, stride } = out;
    let last = rows.saturating_sub(1) * stride + width;
    assert!(rows.is_multiple_of(MR) && bytes.len() >= last, "memory for a tile");
    // No panel starts beyond the width.
    assert!(b.start.len() == width.next_multiple_of(LANES), "columns of a tile");
    assert!(multipliers.len() == 1 || multipliers.len() >= width, "multipliers of all columns");
    let (store, bytes) = (StoreBytes::new(op, sign_xor), bytes.as_mut_ptr());
    for i in (0..rows).step_by(MR) {
        let mut last = [[0; KR]; MR];
        let units = LhsUnits::new(a.from(i), &mut last);
        for (b, p) in b.each::<NR, { NR * KR }>().zip(0..) {
            let col = p * NR;
            let width = width - col;
            let to = bytes.wrapping_add(i * stride + col);
            let multipliers = |first| columns(multipliers, col + first);
            // SAFETY: the first assertion bounds `width` bytes of each row.
            unsafe {
                if b.start.len() > LANES {
                    let acc = tile::<MR, 1, 2, SIGNED>(&units, b);
                    let multipliers = [multipliers(0), multipliers(LANES)];
                    for (r, &[[a, b], [c, d]]) in acc.as_chunks().0.iter().enumerate() {
                        let bytes =
                            store.bytes([a, b, c, d], [multipliers[0], multipliers[1], multipliers[0], multipliers[1]]);
                        let to = to.wrapping_add(2 * r * stride);
                        store_half(to, _mm512_castsi512_si256(bytes), width);
                        store_half(to.wrapping_add(stride), _mm512_extracti64x4_epi64::<1>(bytes), width);
                    }
                } else {
                    let acc = tile::<MR, 1, 1, SIGNED>(&units, b);
                    let multipliers = multipliers(0);
                    for (r, &[[a], [b], [c], [d]]) in acc.as_chunks().0.iter().enumerate() {
                        let to = [0, 1, 2, 3].map(|x| to.wrapping_add((4 * r + x) * stride));
                        store.store([a, b, c, d], multipliers, to, first(width));
                    }
                }
            }
        }
    }
}

/// Loads the multipliers of 16 columns, zeros past the end.
#[target_feature(enable = "avx512f")]
#[inline]
fn columns(multipliers: &[f32], col: usize) -> __m512 {
    if let &[one] = multipliers {
        return _mm512_set1_ps(one);
    }
    let multipliers = &multipliers[col.min(multipliers.len())..];
    // SAFETY: the mask has a bit per multiplier.
    unsafe { _mm512_maskz_loadu_ps(first(multipliers.len()), multipliers.as_ptr()) }
}

/// Stores the first `width` of 32 bytes.
///
/// # Safety
/// - `to` is valid for writes of `width` bytes.
#[target_feature(enable = "avx512bw,avx512vl")]
#[inline]
unsafe fn store_half(to: *mut u8, bytes: __m256i, width: usize) {
    // SAFETY: the caller promises `width` bytes.
    unsafe {
        if width >= 32 {
            _mm256_storeu_si256(to.cast(), bytes);
        } else {
            _mm256_mask_storeu_epi8(to.cast(), u32::MAX >> (32 - width), bytes);
        }
    }
}

/// Returns a mask of the first `count` of 16 elements.
pub(super) fn first(count: usize) -> u16 {
    u16::MAX.checked_shr(16 - count.min(16) as u32).unwrap_or(0)
}

/// Requantizes accumulators in registers and stores the bytes.
pub(super) struct StoreBytes<F> {
    op: F,
    sign_xor: __m512i,
    order: __m512i,
}

impl<F: RequantizeOp> StoreBytes<F> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    pub(super) fn new(op: F, sign_xor: u8) -> Self {
        Self { op, sign_xor: _mm512_set1_epi8(sign_xor as i8), order: transposed() }
    }

    /// Returns the bytes of four registers, one after the other.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    fn bytes(&self, acc: [__m512i; 4], multipliers: [__m512; 4]) -> __m512i {
        let bytes = self.op.codes(acc, F32x64(multipliers));
        _mm512_xor_si512(_mm512_permutexvar_epi32(self.order, bytes), self.sign_xor)
    }

    /// Stores the 16 bytes of each register, under a mask.
    ///
    /// # Safety
    /// - Each pointer of `to` is valid for writes of the bytes in `mask`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    pub(super) unsafe fn store(&self, acc: [__m512i; 4], multipliers: __m512, to: [*mut u8; 4], mask: u16) {
        let bytes = self.bytes(acc, [multipliers; 4]);
        let bytes = [
            _mm512_castsi512_si128(bytes),
            _mm512_extracti32x4_epi32::<1>(bytes),
            _mm512_extracti32x4_epi32::<2>(bytes),
            _mm512_extracti32x4_epi32::<3>(bytes),
        ];
        for i in 0..4 {
            // SAFETY: the caller promises the bytes in `mask`.
            unsafe {
                if mask == u16::MAX {
                    _mm_storeu_si128(to[i].cast(), bytes[i]);
                } else {
                    _mm_mask_storeu_epi8(to[i].cast(), mask, bytes[i]);
                }
            }
        }
    }
}

/// 64 floats in four registers. Only functions compiled for AVX-512 make them.
#[derive(Clone, Copy)]
struct F32x64([__m512; 4]);

impl SimdF32 for F32x64 {
    type I32 = [__m512i; 4];
    /// Bytes in the order of packing: 4 of each register, then the next 4 of each.
    type Codes = __m512i;

    #[inline(always)]
    fn from_i32(acc: Self::I32) -> Self {
        let [a, b, c, d] = acc;
        // SAFETY: the type exists only in functions compiled for AVX-512.
        unsafe { Self([_mm512_cvtepi32_ps(a), _mm512_cvtepi32_ps(b), _mm512_cvtepi32_ps(c), _mm512_cvtepi32_ps(d)]) }
    }

    #[inline(always)]
    fn mul(mut self, multipliers: Self) -> Self {
        for i in 0..4 {
            // SAFETY: the type exists only in functions compiled for AVX-512.
            self.0[i] = unsafe { _mm512_mul_ps(self.0[i], multipliers.0[i]) };
        }
        self
    }

    #[inline(always)]
    fn round_clamp(self, low: f32, high: f32, zero_point: i32) -> Self::Codes {
        // SAFETY: the type exists only in functions compiled for AVX-512.
        unsafe {
            let [a, b, c, d] = self.0.map(|x| _mm512_cvtps_epi32(x));
            // No float exceeds an i32. Packing saturates beyond `low` and `high`, so clamping bytes is enough.
            let zero_points = _mm512_set1_epi16(zero_point as i16);
            let (ab, cd) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let bytes = _mm512_packus_epi16(_mm512_adds_epi16(ab, zero_points), _mm512_adds_epi16(cd, zero_points));
            let [low, high] = [low, high].map(|bound| _mm512_set1_epi8((bound as i32 + zero_point) as i8));
            _mm512_min_epu8(_mm512_max_epu8(bytes, low), high)
        }
    }
}

/// Returns the permutation that transposes 4 × 4 groups of 4 bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn transposed() -> __m512i {
    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}
