use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::detect::{Presence, has_avx2};
use crate::arch::{
    CHANNELS, Dot4Accumulators, Dot4Input, Kernel, LhsRows, NonTemporal, Portable, RhsPanel, RhsPanels, Task, Vector64,
};

/// AVX2: bytes are widened to 16 bits and multiplied in pairs by `vpmaddwd`, which is exact.
///
/// `vpmaddubsw` would do twice the work, but it saturates pairs such as 255 × -128 twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

const MR: usize = 6;
const NR: usize = 16;
const PANELS: usize = 2;
const KR: usize = 2;
/// Lanes of a register.
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
        // SAFETY: the token says that the machine has these instructions.
        unsafe {
            match rows {
                1 => panels::<1>(a, b, acc, acc_stride),
                2 => panels::<2>(a, b, acc, acc_stride),
                3 => panels::<3>(a, b, acc, acc_stride),
                4 => panels::<4>(a, b, acc, acc_stride),
                5 => panels::<5>(a, b, acc, acc_stride),
                _ => panels::<MR>(a, b, acc, acc_stride),
            }
        }
    }

    #[inline(always)]
    fn dot4(self, quads: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], acc: Dot4Accumulators<'_>) {
        // SAFETY: the token says that the machine has these instructions.
        unsafe { dot4_rows(quads, weights, start, acc) }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // Within a larger function loops are not vectorized as well.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<T: Task>(task: T) -> T::Output {
            task.run()
        }
        // SAFETY: the token says that the machine has these instructions.
        unsafe { compiled(task) }
    }

    fn f32_to_f16(self, from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
        #[target_feature(enable = "avx2,f16c")]
        fn compiled(from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
            // A line of results.
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<32>(), to.as_chunks_mut::<32>());
            for (from, to) in from.iter().zip(to) {
                let mut halves = [0; 32];
                for (from, to) in from.as_chunks::<LANES>().0.iter().zip(halves.as_chunks_mut::<LANES>().0) {
                    // SAFETY: the arrays are as long as the registers.
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
        // SAFETY: the token says that the machine has these instructions.
        unsafe { compiled(from, to, non_temporal) }
    }

    fn f16_to_f32(self, from: &[u16], to: &mut [f32]) {
        #[target_feature(enable = "avx2,f16c")]
        fn compiled(from: &[u16], to: &mut [f32]) {
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
            for (from, to) in from.iter().zip(to) {
                // SAFETY: the arrays are as long as the registers.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) }
            }
            Portable.f16_to_f32(from_rest, to_rest);
        }
        // SAFETY: the token says that the machine has these instructions.
        unsafe { compiled(from, to) }
    }
}

/// Units of each row that are widened at a time: those of all rows, and of a panel, stay in the first-level cache.
const UNITS: usize = 256;

/// What some units of some rows are as 16-bit numbers, so that a unit of a row fills a register by one load.
type Wide<const ROWS: usize> = [[MaybeUninit<__m256i>; UNITS / LANES]; ROWS];

/// `ROWS` rows against some panels.
#[target_feature(enable = "avx2")]
fn panels<const ROWS: usize>(a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize) {
    // Rows may be longer than panels, by what is multiplied with zeros elsewhere.
    let units = a.depth.div_ceil(KR).min(b.panel_len / (NR * KR));
    let mut wide: Wide<ROWS> = [const { [const { MaybeUninit::uninit() }; UNITS / LANES] }; ROWS];
    let mut first = 0;
    loop {
        let count = (units - first).min(UNITS);
        widen_rows(a, first * KR..a.depth.min((first + count) * KR), &mut wide);
        for (panel, p) in b.each::<NR, { NR * KR }>().zip(0..) {
            let acc = &mut acc[p * NR..];
            let mut sums = if first == 0 { starts(panel, a.sums) } else { load_sums(acc, acc_stride) };
            // SAFETY: so many units were just widened.
            unsafe { multiply(&wide, &panel.codes[first..first + count], &mut sums) }
            for (i, sums) in sums.into_iter().enumerate() {
                let acc: &mut [i32; NR] = acc[i * acc_stride..].first_chunk_mut().expect("a tile has NR columns");
                for (acc, sum) in acc.as_chunks_mut().0.iter_mut().zip(sums) {
                    store(acc, sum);
                }
            }
        }
        first += count;
        if first == units {
            return;
        }
    }
}

/// Widens these codes of each row. What is beyond them in the last register may become anything: the right side holds zeros
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
            // SAFETY: the array is as long as the register.
            let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
            wide.write(_mm256_cvtepu8_epi16(_mm_xor_si128(codes, sign_xor)));
        }
    }
}

/// What the sums of a tile start from.
#[target_feature(enable = "avx2")]
#[inline]
fn starts<const ROWS: usize>(panel: RhsPanel<'_, { NR * KR }>, row_sums: &[i32]) -> [[__m256i; NR / LANES]; ROWS] {
    let (start, _) = panel.start.as_chunks();
    let mut sums = [[load(&start[0]), load(&start[1])]; ROWS];
    if !panel.zero_points.is_empty() {
        let (zero_points, _) = panel.zero_points.as_chunks();
        for (sums, &row) in sums.iter_mut().zip(&row_sums[..ROWS]) {
            for (sum, zero_points) in sums.iter_mut().zip(zero_points) {
                *sum = _mm256_sub_epi32(*sum, _mm256_mullo_epi32(load(zero_points), _mm256_set1_epi32(row)));
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_sums<const ROWS: usize>(acc: &[i32], acc_stride: usize) -> [[__m256i; NR / LANES]; ROWS] {
    let mut sums = [[_mm256_setzero_si256(); NR / LANES]; ROWS];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (sum, acc) in sums.iter_mut().zip(acc[i * acc_stride..][..NR].as_chunks().0) {
            *sum = load(acc);
        }
    }
    sums
}

/// Adds the products with these units of a panel.
///
/// # Safety
/// - As many units of each row are initialized.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn multiply<const ROWS: usize>(
    wide: &Wide<ROWS>,
    panel: &[[u8; NR * KR]],
    sums: &mut [[__m256i; NR / LANES]; ROWS],
) {
    let first = wide.as_ptr().cast::<i32>();
    for (k, b) in panel.iter().enumerate() {
        let (b, _) = b.as_chunks();
        let (b0, b1) = (widen(&b[0]), widen(&b[1]));
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: row `i` starts `i * UNITS` units on, and the caller promises that unit `k` of it is there.
            let a = _mm256_set1_epi32(unsafe { first.add(i * UNITS + k).read() });
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(a, b0));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(a, b1));
        }
    }
}

/// Eight columns of two signed codes each, as 16-bit numbers.
#[target_feature(enable = "avx2")]
#[inline]
fn widen(from: &[u8; LANES * KR]) -> __m256i {
    // SAFETY: the array is as long as the register.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(from: &[i32; LANES]) -> __m256i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(to: &mut [i32; LANES], value: __m256i) {
    // SAFETY: the array is as long as the register.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) }
}

/// Dot4Input in pairs of 16-bit numbers: the even and the odd bytes of each lane, since `vpmaddubsw` would saturate.
#[target_feature(enable = "avx2")]
fn dot4_rows(quads: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], acc: Dot4Accumulators<'_>) {
    quads.check(1);
    let even = _mm256_set1_epi16(0xff);
    let (start, _) = start.as_chunks();
    for (r, weights) in weights.chunks_exact(quads.offsets.len()).enumerate() {
        for x in 0..quads.outputs {
            let mut sums = [load(&start[0]), load(&start[1])];
            for (&offset, weights) in quads.offsets.iter().zip(weights) {
                // SAFETY: the lines of all taps of all outputs exist.
                let codes = unsafe { quads.vectors.get_unchecked(x * quads.step + offset) };
                let (codes, weights) = (codes.as_chunks().0, weights.as_chunks().0);
                for i in 0..CHANNELS / LANES {
                    let (codes, weights) = (load_bytes(&codes[i]), load_bytes(&weights[i]));
                    let first = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
                    let products = _mm256_madd_epi16(_mm256_and_si256(codes, even), first);
                    let others = _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), _mm256_srai_epi16::<8>(weights));
                    sums[i] = _mm256_add_epi32(sums[i], _mm256_add_epi32(products, others));
                }
            }
            let to = &mut acc.acc[r * acc.row_stride + x * acc.stride..][..CHANNELS];
            for (to, from) in to.as_chunks_mut().0.iter_mut().zip(sums) {
                store(to, from);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_bytes(from: &[u8; 4 * LANES]) -> __m256i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}
