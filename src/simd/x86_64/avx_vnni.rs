use core::arch::x86_64::*;
use core::hint::black_box;

use super::Avx2;
use super::detect::{Presence, has_avx_vnni};
use super::vnni::vnni_tiles;
use crate::simd::{
    CHANNELS, Dot4Accumulators, Dot4Input, Kernel, LhsRows, LhsUnits, NonTemporal, OutputStage, RhsPanel, RhsPanels,
    Task, Vector64,
};

/// AVX-VNNI: `vpdpbusd` on 256 bits, for processors without AVX-512. It does not saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvxVnni(Avx2);

const MR: usize = 6;
const NR: usize = 16;
const PANELS: usize = 2;
const KR: usize = 4;
/// Prefetch distance of the RHS in bytes.
const AHEAD: usize = 2048;
/// `i32` elements of a register.
const LANES: usize = 8;

impl AvxVnni {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        let avx2 = Avx2::new()?;
        PRESENT.ask_once(has_avx_vnni).then_some(Self(avx2))
    }
}

impl Kernel for AvxVnni {
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
                1 => multiply_panels::<1, 2>(a, b, acc, acc_stride),
                2 => multiply_panels::<2, 2>(a, b, acc, acc_stride),
                3 => multiply_panels::<3, 2>(a, b, acc, acc_stride),
                4 => multiply_panels::<4, 1>(a, b, acc, acc_stride),
                5 => multiply_panels::<5, 1>(a, b, acc, acc_stride),
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

    #[inline(always)]
    fn dot4(self, input: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], out: Dot4Accumulators<'_>) {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { dot4_rows(input, weights, start, out) }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        self.0.run(task)
    }

    fn peak_macs(self, rounds: usize) -> u64 {
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { peak_macs(rounds) }
    }

    fn f32_to_f16(self, from: &[f32], to: &mut [u16], non_temporal: Option<NonTemporal<'_>>) {
        self.0.f32_to_f16(from, to, non_temporal);
    }

    fn f16_to_f32(self, from: &[u16], to: &mut [f32]) {
        self.0.f16_to_f32(from, to);
    }
}

vnni_tiles!(
    "avx2,avxvnni", __m256i, rows: [0 1 2 3 4 5],
    zero: _mm256_setzero_si256, add: _mm256_add_epi32, sub: _mm256_sub_epi32, mul: _mm256_mullo_epi32, xor: _mm256_xor_si256, set1: _mm256_set1_epi32, _mm256_set1_epi8,
    dpbusd: _mm256_dpbusd_avx_epi32, load: _mm256_loadu_si256, store: _mm256_storeu_si256,
);
