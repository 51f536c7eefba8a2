use core::arch::x86_64::*;
use core::hint::black_box;

use super::detect::{Presence, has_avx512vbmi, has_avx512vnni};
use super::vnni::vnni_tiles;
use super::{avx512_dot4, avx512_lookup, avx512_requantize};
use crate::simd::{
    ByteStage, ByteTile, CHANNELS, Dot4Accumulators, Dot4Input, Dot4Output, Interleave4, Kernel, LhsRows, LhsUnits,
    NonTemporal, OutputStage, Portable, RequantizeOp, RhsPanel, RhsPanels, Task, Vector64,
};

/// AVX-512 with VNNI: `vpdpbusd` multiplies 64 pairs of bytes and adds each four products to an accumulator, without
/// saturation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(());

pub(super) const MR: usize = 12;
pub(super) const NR: usize = 32;
/// Wide enough that epilogues run on whole registers.
const PANELS: usize = 2;
pub(super) const KR: usize = 4;
/// Prefetch distance of the RHS in bytes.
const AHEAD: usize = 4096;
/// `i32` elements of a register.
pub(super) const LANES: usize = 16;

impl Avx512Vnni {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        PRESENT.ask_once(has_avx512vnni).then_some(Self(()))
    }
}

impl Kernel for Avx512Vnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const NR_PANELS: usize = PANELS;
    const KR: usize = KR;
    const NR_STEP: usize = LANES;

    #[inline(always)]
    fn multiply(self, rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe {
            match rows {
                1 => multiply_panels::<1, 4>(a, b, acc, acc_stride),
                2 => multiply_panels::<2, 2>(a, b, acc, acc_stride),
                3 => multiply_panels::<3, 2>(a, b, acc, acc_stride),
                4 => multiply_panels::<4, 1>(a, b, acc, acc_stride),
                5 => multiply_panels::<5, 1>(a, b, acc, acc_stride),
                6 => multiply_panels::<6, 1>(a, b, acc, acc_stride),
                7 => multiply_panels::<7, 1>(a, b, acc, acc_stride),
                8 => multiply_panels::<8, 1>(a, b, acc, acc_stride),
                9 => multiply_panels::<9, 1>(a, b, acc, acc_stride),
                10 => multiply_panels::<10, 1>(a, b, acc, acc_stride),
                11 => multiply_panels::<11, 1>(a, b, acc, acc_stride),
                _ => multiply_panels::<MR, 1>(a, b, acc, acc_stride),
            }
        }
    }

    const FUSES_STAGE: bool = true;

    #[inline(always)]
    fn multiply_into(self, rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, stage: impl OutputStage) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { multiply_into(rows, a, b, stage) }
    }

    const FUSES_REQUANTIZE: bool = true;

    #[inline(always)]
    fn multiply_requantize<F: RequantizeOp>(
        self,
        rows: usize,
        a: LhsRows<'_>,
        b: RhsPanels<'_>,
        stage: ByteStage<'_, F>,
        out: ByteTile<'_>,
    ) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { avx512_requantize::multiply_requantize(rows, a, b, stage, out) }
    }

    #[inline(always)]
    fn dot4(self, input: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], out: Dot4Accumulators<'_>) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { dot4_rows(input, weights, start, out) }
    }

    const FUSES_DOT4_REQUANTIZE: bool = true;

    #[inline(always)]
    fn dot4_requantize<F: RequantizeOp>(
        self,
        input: Dot4Input<'_>,
        weights: &[Vector64],
        start: &[[i32; CHANNELS]],
        stage: ByteStage<'_, F>,
        out: Dot4Output<'_>,
    ) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { avx512_dot4::dot4_requantize(input, weights, start, stage, out) }
    }

    #[inline(always)]
    fn interleave4(self, task: Interleave4<'_>) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { avx512_dot4::interleave4(task) }
    }

    fn lookup(self, table: &[u8; 256], codes: (&[u8], usize), to: (&mut [u8], usize)) {
        // Cascade Lake has VNNI but not VBMI.
        static VBMI: Presence = Presence::unknown();
        if VBMI.ask_once(has_avx512vbmi) {
            // SAFETY: the token proves AVX-512, and VBMI was detected.
            unsafe { avx512_lookup::lookup(table, codes, to) }
        } else {
            Portable.lookup(table, codes, to);
        }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        // LLVM vectorizes loops less well within a larger function.
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled<T: Task>(task: T) -> T::Output {
            task.run()
        }
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { compiled(task) }
    }

    fn peak_macs(self, rounds: usize) -> u64 {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { peak_macs(rounds) }
    }

    fn f32_to_f16(self, from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
        #[target_feature(enable = "avx512f")]
        fn compiled(from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
            // A cache line of results.
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<32>(), to.as_chunks_mut::<32>());
            for (from, to) in from.iter().zip(to) {
                let mut halves = [0; 32];
                for (from, to) in from.as_chunks::<LANES>().0.iter().zip(halves.as_chunks_mut::<LANES>().0) {
                    // SAFETY: the arrays have the size of the registers.
                    unsafe {
                        let wide = _mm512_loadu_ps(from.as_ptr());
                        _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide));
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
        #[target_feature(enable = "avx512f")]
        fn compiled(from: &[u16], to: &mut [f32]) {
            let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
            for (from, to) in from.iter().zip(to) {
                // SAFETY: the arrays have the size of the registers.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) }
            }
            Portable.f16_to_f32(from_rest, to_rest);
        }
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { compiled(from, to) }
    }
}

vnni_tiles!(
    "avx512f,avx512vnni", __m512i, rows: [0 1 2 3 4 5 6 7 8 9 10 11],
    zero: _mm512_setzero_si512, add: _mm512_add_epi32, sub: _mm512_sub_epi32, mul: _mm512_mullo_epi32, xor: _mm512_xor_si512, set1: _mm512_set1_epi32, _mm512_set1_epi8,
    dpbusd: _mm512_dpbusd_epi32, load: _mm512_loadu_si512, store: _mm512_storeu_si512,
);
