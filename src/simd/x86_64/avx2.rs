use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::detect::{Presence, has_avx2};
use crate::simd::{
    CHANNELS, Dot4Accumulators, Dot4Input, Kernel, LhsRows, NonTemporal, Portable, RhsPanel, RhsPanels, Task, Vector64,
};

/// AVX2: bytes are widened to 16 bits and multiplied in pairs by `vpmaddwd`, which is exact.
///
/// `vpmaddubsw` would do twice the work but saturates: 255 × -128 + 255 × -128 leaves 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

const MR: usize = 6;
const NR: usize = 16;
const PANELS: usize = 2;
const KR: usize = 2;
/// `i32` elements of a register.
const LANES: usize = 8;

impl Avx2 {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        PRESENT.ask_once(has_avx2).then_some(Self(()))
    }
}

impl Kernel for Avx2 {
    const MR: usize = MR;
    const NR: usize = NR;
    const NR_PANELS: usize = PANELS;
    const KR: usize = KR;

    #[inline(always)]
    fn multiply(self, rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe {
            match rows {
                1 => multiply_panels::<1>(a, b, acc, acc_stride),
                2 => multiply_panels::<2>(a, b, acc, acc_stride),
                3 => multiply_panels::<3>(a, b, acc, acc_stride),
                4 => multiply_panels::<4>(a, b, acc, acc_stride),
                5 => multiply_panels::<5>(a, b, acc, acc_stride),
                _ => multiply_panels::<MR>(a, b, acc, acc_stride),
            }
        }
    }

    #[inline(always)]
    fn dot4(self, input: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], out: Dot4Accumulators<'_>) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { dot4_rows(input, weights, start, out) }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // LLVM vectorizes loops less well within a larger function.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<T: Task>(task: T) -> T::Output {
            task.run()
        }
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { compiled(task) }
    }

    fn f32_to_f16(self, from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
        #[target_feature(enable = "avx2,f16c")]
        fn compiled(from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
            // A cache line of results.
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<32>(), to.as_chunks_mut::<32>());
            for (from, to) in from.iter().zip(to) {
                let mut halves = [0; 32];
                for (from, to) in from.as_chunks::<LANES>().0.iter().zip(halves.as_chunks_mut::<LANES>().0) {
                    // SAFETY: the arrays have the size of the registers.
                    unsafe {
                        let wide = _mm256_loadu_ps(from.as_ptr());
                        _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide));
                    }
                }
                match non_temporal {
                    Some(non_temporal) => non_temporal.store(to, halves),
                    None => *to = halves,
                }
            }
            Portable.f32_to_f16(from_rest, to_rest, None);
        }
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { compiled(from, to, non_temporal) }
    }

    fn f16_to_f32(self, from: &[u16], to: &mut [f32]) {
        #[target_feature(enable = "avx2,f16c")]
        fn compiled(from: &[u16], to: &mut [f32]) {
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
            for (from, to) in from.iter().zip(to) {
                // SAFETY: the arrays have the size of the registers.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) }
            }
            Portable.f16_to_f32(from_rest, to_rest);
        }
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { compiled(from, to) }
    }
}

/// Units of depth per KC block: widened rows and this part of a panel stay in L1.
const UNITS: usize = 256;

/// Units of LHS rows widened to 16 bits, so that one broadcast load gives a unit.
type Wide<const ROWS: usize> = [[MaybeUninit<__m256i>; UNITS / LANES]; ROWS];

/// Multiplies `ROWS` rows with some panels.
#[target_feature(enable = "avx2")]
fn multiply_panels<const ROWS: usize>(a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize) {
    // Rows may be longer than panels: other micro-kernels multiply the excess by zeros.
    let units = a.depth.div_ceil(KR).min(b.panel_len / (NR * KR));
    let mut wide: Wide<ROWS> = [const { [const { MaybeUninit::uninit() }; UNITS / LANES] }; ROWS];
    let mut first = 0;
    loop {
        let count = (units - first).min(UNITS);
        widen_rows(a, first * KR..a.depth.min((first + count) * KR), &mut wide);
        for (panel, p) in b.each::<NR, { NR * KR }>().zip(0..) {
            let acc = &mut acc[p * NR..];
            let mut tile = if first == 0 { initial_acc(panel, a.sums) } else { load_acc(acc, acc_stride) };
            // SAFETY: `widen_rows` initialized `count` units of each row.
            unsafe { multiply(&wide, &panel.codes[first..first + count], &mut tile) }
            for (i, row) in tile.into_iter().enumerate() {
                let acc: &mut [i32; NR] = acc[i * acc_stride..].first_chunk_mut().expect("a tile has NR columns");
                for (acc, register) in acc.as_chunks_mut().0.iter_mut().zip(row) {
                    store(acc, register);
                }
            }
        }
        first += count;
        if first == units {
            return;
        }
    }
}

/// Widens the codes of a range of depth of each row. The rest of the last register is unspecified: the RHS holds zeros
/// there.
#[target_feature(enable = "avx2")]
#[inline]
fn widen_rows<const ROWS: usize>(a: LhsRows<'_>, codes: Range<usize>, wide: &mut Wide<ROWS>) {
    let sign_xor = _mm_set1_epi8(if a.signed { i8::MIN } else { 0 });
    for (i, wide) in wide.iter_mut().enumerate() {
        let (whole, rest) = a.row(i)[codes.clone()].as_chunks();
        let mut last = [0; 2 * LANES];
        last[..rest.len()].copy_from_slice(rest);
        for (wide, codes) in wide.iter_mut().zip(whole.iter().chain((!rest.is_empty()).then_some(&last))) {
            // SAFETY: the array has the size of the register.
            let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
            wide.write(_mm256_cvtepu8_epi16(_mm_xor_si128(codes, sign_xor)));
        }
    }
}

/// Returns the initial accumulators of a tile, with the zero-point compensation of the RHS.
#[target_feature(enable = "avx2")]
#[inline]
fn initial_acc<const ROWS: usize>(panel: RhsPanel<'_, { NR * KR }>, row_sums: &[i32]) -> [[__m256i; NR / LANES]; ROWS] {
    let (start, _) = panel.start.as_chunks();
    let mut tile = [[load(&start[0]), load(&start[1])]; ROWS];
    if !panel.zero_points.is_empty() {
        let (zero_points, _) = panel.zero_points.as_chunks();
        for (row, &row_sum) in tile.iter_mut().zip(&row_sums[..ROWS]) {
            for (register, zero_points) in row.iter_mut().zip(zero_points) {
                *register =
                    _mm256_sub_epi32(*register, _mm256_mullo_epi32(load(zero_points), _mm256_set1_epi32(row_sum)));
            }
        }
    }
    tile
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_acc<const ROWS: usize>(acc: &[i32], acc_stride: usize) -> [[__m256i; NR / LANES]; ROWS] {
    let mut tile = [[_mm256_setzero_si256(); NR / LANES]; ROWS];
    for (i, row) in tile.iter_mut().enumerate() {
        for (register, acc) in row.iter_mut().zip(acc[i * acc_stride..][..NR].as_chunks().0) {
            *register = load(acc);
        }
    }
    tile
}

/// Accumulates products with some units of a panel.
///
/// # Safety
/// - `panel.len()` units of each row of `wide` are initialized.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn multiply<const ROWS: usize>(
    wide: &Wide<ROWS>,
    panel: &[[u8; NR * KR]],
    tile: &mut [[__m256i; NR / LANES]; ROWS],
) {
    let first = wide.as_ptr().cast::<i32>();
    for (k, b) in panel.iter().enumerate() {
        let (b, _) = b.as_chunks();
        let (b0, b1) = (widen(&b[0]), widen(&b[1]));
        for (i, row) in tile.iter_mut().enumerate() {
            // SAFETY: row `i` starts at unit `i * UNITS`, and the caller promises its unit `k`.
            let a = _mm256_set1_epi32(unsafe { first.add(i * UNITS + k).read() });
            row[0] = _mm256_add_epi32(row[0], _mm256_madd_epi16(a, b0));
            row[1] = _mm256_add_epi32(row[1], _mm256_madd_epi16(a, b1));
        }
    }
}

/// Widens two signed codes of each of eight columns to 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn widen(from: &[u8; LANES * KR]) -> __m256i {
    // SAFETY: the array has the size of the register.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(from: &[i32; LANES]) -> __m256i {
    // SAFETY: the array has the size of the register.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(to: &mut [i32; LANES], value: __m256i) {
    // SAFETY: the array has the size of the register.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) }
}

/// Computes rows of depthwise outputs in 16-bit pairs, the even and the odd bytes apart: `vpmaddubsw` would
/// saturate.
#[target_feature(enable = "avx2")]
fn dot4_rows(input: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], out: Dot4Accumulators<'_>) {
    input.check(1);
    let even = _mm256_set1_epi16(0xff);
    let (start, _) = start.as_chunks();
    for (r, weights) in weights.chunks_exact(input.offsets.len()).enumerate() {
        for x in 0..input.outputs {
            let mut channels = [load(&start[0]), load(&start[1])];
            for (&offset, weights) in input.offsets.iter().zip(weights) {
                // SAFETY: `check` saw that the vectors of all taps and outputs exist.
                let codes = unsafe { input.vectors.get_unchecked(x * input.step + offset) };
                let (codes, weights) = (codes.as_chunks().0, weights.as_chunks().0);
                for i in 0..CHANNELS / LANES {
                    let (codes, weights) = (load_bytes(&codes[i]), load_bytes(&weights[i]));
                    let first = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
                    let products = _mm256_madd_epi16(_mm256_and_si256(codes, even), first);
                    let others = _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), _mm256_srai_epi16::<8>(weights));
                    channels[i] = _mm256_add_epi32(channels[i], _mm256_add_epi32(products, others));
                }
            }
            let to = &mut out.acc[r * out.row_stride + x * out.stride..][..CHANNELS];
            for (to, from) in to.as_chunks_mut().0.iter_mut().zip(channels) {
                store(to, from);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_bytes(from: &[u8; 4 * LANES]) -> __m256i {
    // SAFETY: the array has the size of the register.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}
