//! Sums in registers of AVX-512 become bytes, four registers at a time: so many fill one with their bytes.

use core::arch::x86_64::*;

use super::avx512vnni::{KR, LANES, MR, NR, tile};
use crate::arch::{ByteStage, ByteTile, LhsRows, LhsUnits, RequantizeOp, RhsPanels, SimdF32};

/// See [`Kernel::multiply_requantize`](crate::arch::Kernel::multiply_requantize).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn multiply_requantize<F: RequantizeOp>(
    rows: usize,
    a: LhsRows<'_>,
    b: RhsPanels<'_>,
    to: ByteStage<'_, F>,
    out: ByteTile<'_>,
) {
    if a.signed { tiles::<true, F>(rows, a, b, to, out) } else { tiles::<false, F>(rows, a, b, to, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
fn tiles<const SIGNED: bool, F: RequantizeOp>(
    rows: usize,
    a: LhsRows<'_>,
    b: RhsPanels<'_>,
    to: ByteStage<'_, F>,
    out: ByteTile<'_>,
) {
    // Rows are taken by twos and by fours.
    const { assert!(MR.is_multiple_of(4)) }
    let ByteStage { op, multipliers, sign_xor } = to;
    let ByteTile { bytes, width, stride } = out;
    let last = rows.saturating_sub(1) * stride + width;
    assert!(rows.is_multiple_of(MR) && bytes.len() >= last, "room for a tile");
    // No panel lies beyond the width.
    assert!(b.start.len() == width.next_multiple_of(LANES), "columns of a tile");
    assert!(multipliers.len() == 1 || multipliers.len() >= width, "multipliers of all columns");
    let (finish, bytes) = (Finish::new(op, sign_xor), bytes.as_mut_ptr());
    for i in (0..rows).step_by(MR) {
        let mut last = [[0; KR]; MR];
        let units = LhsUnits::new(a.from(i), &mut last);
        for (b, p) in b.each::<NR, { NR * KR }>().zip(0..) {
            let col = p * NR;
            let width = width - col;
            let to = bytes.wrapping_add(i * stride + col);
            let multipliers = |first| columns(multipliers, col + first);
            // SAFETY: as many bytes of each row as the tile is wide are there, as was asked above.
            unsafe {
                if b.start.len() > LANES {
                    let sums = tile::<MR, 1, 2, SIGNED>(&units, b);
                    let multipliers = [multipliers(0), multipliers(LANES)];
                    for (r, &[[a, b], [c, d]]) in sums.as_chunks().0.iter().enumerate() {
                        let bytes = finish
                            .bytes([a, b, c, d], [multipliers[0], multipliers[1], multipliers[0], multipliers[1]]);
                        let to = to.wrapping_add(2 * r * stride);
                        store_half(to, _mm512_castsi512_si256(bytes), width);
                        store_half(to.wrapping_add(stride), _mm512_extracti64x4_epi64::<1>(bytes), width);
                    }
                } else {
                    let sums = tile::<MR, 1, 1, SIGNED>(&units, b);
                    let multipliers = multipliers(0);
                    for (r, &[[a], [b], [c], [d]]) in sums.as_chunks().0.iter().enumerate() {
                        let to = [0, 1, 2, 3].map(|x| to.wrapping_add((4 * r + x) * stride));
                        finish.store([a, b, c, d], multipliers, to, first(width));
                    }
                }
            }
        }
    }
}

/// The factors of 16 columns, those that there are.
#[target_feature(enable = "avx512f")]
#[inline]
fn columns(multipliers: &[f32], col: usize) -> __m512 {
    if let &[one] = multipliers {
        return _mm512_set1_ps(one);
    }
    let multipliers = &multipliers[col.min(multipliers.len())..];
    // SAFETY: the mask has as many bits as there are factors.
    unsafe { _mm512_maskz_loadu_ps(first(multipliers.len()), multipliers.as_ptr()) }
}

/// The first of 32 bytes.
///
/// # Safety
/// - From `to` on as many bytes may be written as the tile is wide.
#[target_feature(enable = "avx512bw,avx512vl")]
#[inline]
unsafe fn store_half(to: *mut u8, bytes: __m256i, width: usize) {
    // SAFETY: the caller promises so many bytes.
    unsafe {
        if width >= 32 {
            _mm256_storeu_si256(to.cast(), bytes);
        } else {
            _mm256_mask_storeu_epi8(to.cast(), u32::MAX >> (32 - width), bytes);
        }
    }
}

/// The first of 16 lanes, as many as there are.
pub(super) fn first(lanes: usize) -> u16 {
    u16::MAX.checked_shr(16 - lanes.min(16) as u32).unwrap_or(0)
}

/// From sums to bytes in memory.
pub(super) struct Finish<F> {
    op: F,
    sign_xor: __m512i,
    order: __m512i,
}

impl<F: RequantizeOp> Finish<F> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    pub(super) fn new(op: F, sign_xor: u8) -> Self {
        Self { op, sign_xor: _mm512_set1_epi8(sign_xor as i8), order: transposed() }
    }

    /// The bytes of four registers, one after the other.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    fn bytes(&self, sums: [__m512i; 4], multipliers: [__m512; 4]) -> __m512i {
        let bytes = self.op.codes(sums, FourRegisters(multipliers));
        _mm512_xor_si512(_mm512_permutexvar_epi32(self.order, bytes), self.sign_xor)
    }

    /// Puts the bytes of each register where they belong.
    ///
    /// # Safety
    /// - From each place on as many bytes may be written as the mask has bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    pub(super) unsafe fn store(&self, sums: [__m512i; 4], multipliers: __m512, to: [*mut u8; 4], mask: u16) {
        let bytes = self.bytes(sums, [multipliers; 4]);
        let bytes = [
            _mm512_castsi512_si128(bytes),
            _mm512_extracti32x4_epi32::<1>(bytes),
            _mm512_extracti32x4_epi32::<2>(bytes),
            _mm512_extracti32x4_epi32::<3>(bytes),
        ];
        for i in 0..4 {
            // SAFETY: the caller promises as many bytes here as the mask has bits.
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

/// The floats of four registers. They are made in functions compiled for AVX-512 only.
#[derive(Clone, Copy)]
struct FourRegisters([__m512; 4]);

impl SimdF32 for FourRegisters {
    type I32 = [__m512i; 4];
    /// Bytes by groups of four, as packing leaves them: the first of each register, then the next of each.
    type Codes = __m512i;

    #[inline(always)]
    fn from_i32(sums: Self::I32) -> Self {
        let [a, b, c, d] = sums;
        // SAFETY: this is called in functions compiled for AVX-512 only.
        unsafe { Self([_mm512_cvtepi32_ps(a), _mm512_cvtepi32_ps(b), _mm512_cvtepi32_ps(c), _mm512_cvtepi32_ps(d)]) }
    }

    #[inline(always)]
    fn mul(mut self, multipliers: Self) -> Self {
        for i in 0..4 {
            // SAFETY: this is called in functions compiled for AVX-512 only.
            self.0[i] = unsafe { _mm512_mul_ps(self.0[i], multipliers.0[i]) };
        }
        self
    }

    #[inline(always)]
    fn round_clamp(self, low: f32, high: f32, zero_point: i32) -> Self::Codes {
        // SAFETY: this is called in functions compiled for AVX-512 only.
        unsafe {
            let [a, b, c, d] = self.0.map(|x| _mm512_cvtps_epi32(x));
            // None is too great for an integer. Packing saturates far beyond `low` and `high`, so bytes are clamped.
            let zero_points = _mm512_set1_epi16(zero_point as i16);
            let (ab, cd) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let bytes = _mm512_packus_epi16(_mm512_adds_epi16(ab, zero_points), _mm512_adds_epi16(cd, zero_points));
            let [low, high] = [low, high].map(|bound| _mm512_set1_epi8((bound as i32 + zero_point) as i8));
            _mm512_min_epu8(_mm512_max_epu8(bytes, low), high)
        }
    }
}

/// The order of a 4 × 4 transposition of groups of four bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn transposed() -> __m512i {
    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}
