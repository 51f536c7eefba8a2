use core::arch::x86_64::*;

use super::detect::has_avx512vnni;
use crate::arch::{Kernel, Task};

/// AVX-512 with VNNI: `vpdpbusd` multiplies 64 pairs of bytes and adds them by fours. It does not saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(());

const MR: usize = 12;
const NR: usize = 32;
const KU: usize = 4;
/// Lanes of a register.
const LANES: usize = 16;

impl Avx512Vnni {
    pub(crate) fn new() -> Option<Self> {
        // CPUID is slow in a virtual machine; ask once.
        use core::sync::atomic::{AtomicU8, Ordering};
        static PRESENT: AtomicU8 = AtomicU8::new(u8::MAX);
        if PRESENT.load(Ordering::Relaxed) == u8::MAX {
            PRESENT.store(has_avx512vnni() as u8, Ordering::Relaxed);
        }
        (PRESENT.load(Ordering::Relaxed) == 1).then_some(Self(()))
    }
}

impl Kernel for Avx512Vnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = KU;

    #[inline(always)]
    fn accumulate(self, rows: usize, a: &[u8], b: &[u8], acc: &mut [i32]) {
        let (a, _) = a.as_chunks();
        let (b, _) = b.as_chunks();
        let (acc, _) = acc.as_chunks_mut();
        let acc: &mut [[i32; NR]; MR] = acc.first_chunk_mut().expect("the tile has MR rows");
        // SAFETY: the token says that the machine has these instructions.
        unsafe {
            match rows {
                1 => tile::<1, 4>(a, b, acc),
                2 => tile::<2, 2>(a, b, acc),
                3 => tile::<3, 2>(a, b, acc),
                4 => tile::<4, 1>(a, b, acc),
                5 => tile::<5, 1>(a, b, acc),
                6 => tile::<6, 1>(a, b, acc),
                7 => tile::<7, 1>(a, b, acc),
                8 => tile::<8, 1>(a, b, acc),
                9 => tile::<9, 1>(a, b, acc),
                10 => tile::<10, 1>(a, b, acc),
                11 => tile::<11, 1>(a, b, acc),
                _ => tile::<MR, 1>(a, b, acc),
            }
        }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled<T: Task>(task: T) -> T::Output {
            task.run()
        }
        // SAFETY: the token says that the machine has these instructions.
        unsafe { compiled(task) }
    }
}

/// A tile of `ROWS` rows, the depth dealt out to `CHAINS` sets of accumulators, so that few rows do not wait for the
/// latency of each sum.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile<const ROWS: usize, const CHAINS: usize>(a: &[[u8; MR * KU]], b: &[[u8; NR * KU]], acc: &mut [[i32; NR]; MR]) {
    let mut sums = [[[_mm512_setzero_si512(); NR / LANES]; ROWS]; CHAINS];
    for (sums, acc) in sums[0].iter_mut().zip(acc.iter()) {
        for (sum, acc) in sums.iter_mut().zip(acc.as_chunks().0) {
            *sum = load(acc);
        }
    }
    let (a_groups, a_rest) = a.as_chunks::<CHAINS>();
    let (b_groups, b_rest) = b.as_chunks::<CHAINS>();
    for (a, b) in a_groups.iter().zip(b_groups) {
        for ((sums, a), b) in sums.iter_mut().zip(a).zip(b) {
            step(sums, a, b);
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        step(&mut sums[0], a, b);
    }
    for (i, acc) in acc.iter_mut().take(ROWS).enumerate() {
        for (j, acc) in acc.as_chunks_mut().0.iter_mut().enumerate() {
            let sum = sums[1..].iter().fold(sums[0][i][j], |sum, chain| _mm512_add_epi32(sum, chain[i][j]));
            store(acc, sum);
        }
    }
}

/// Four steps of depth of a tile.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn step<const ROWS: usize>(sums: &mut [[__m512i; NR / LANES]; ROWS], a: &[u8; MR * KU], b: &[u8; NR * KU]) {
    let (b, _) = b.as_chunks::<{ LANES * KU }>();
    let (b0, b1) = (load_bytes(&b[0]), load_bytes(&b[1]));
    for (sums, &a) in sums.iter_mut().zip(a.as_chunks::<KU>().0) {
        let a = _mm512_set1_epi32(i32::from_le_bytes(a));
        sums[0] = _mm512_dpbusd_epi32(sums[0], a, b0);
        sums[1] = _mm512_dpbusd_epi32(sums[1], a, b1);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_bytes(from: &[u8; LANES * KU]) -> __m512i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(from: &[i32; LANES]) -> __m512i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(to: &mut [i32; LANES], value: __m512i) {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}
