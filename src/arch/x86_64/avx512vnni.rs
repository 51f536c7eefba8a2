use core::arch::x86_64::*;

use super::detect::{Presence, has_avx512vnni};
use crate::arch::{Kernel, Rows, Task};

/// AVX-512 with VNNI: `vpdpbusd` multiplies 64 pairs of bytes and adds them by fours. It does not saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni(());

const MR: usize = 12;
const NR: usize = 32;
const KU: usize = 4;
/// How far ahead the right side is asked for, in bytes, where it is what the product waits for.
const AHEAD: usize = 4096;
/// Lanes of a register.
const LANES: usize = 16;

impl Avx512Vnni {
    pub(crate) fn new() -> Option<Self> {
        static PRESENT: Presence = Presence::unknown();
        PRESENT.ask_once(has_avx512vnni).then_some(Self(()))
    }
}

impl Kernel for Avx512Vnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = KU;

    #[inline(always)]
    fn multiply(self, rows: usize, a: Rows<'_>, b: &[u8], start: &[i32], acc: &mut [i32]) {
        let start: &[i32; NR] = start.first_chunk().expect("the tile has NR columns");
        let (b, _) = b.as_chunks();
        let (acc, _) = acc.as_chunks_mut();
        let acc: &mut [[i32; NR]; MR] = acc.first_chunk_mut().expect("the tile has MR rows");
        // SAFETY: the token says that the machine has these instructions.
        unsafe {
            match rows {
                1 => tile::<1, 4>(a, b, start, acc),
                2 => tile::<2, 2>(a, b, start, acc),
                3 => tile::<3, 2>(a, b, start, acc),
                4 => tile::<4, 1>(a, b, start, acc),
                5 => tile::<5, 1>(a, b, start, acc),
                6 => tile::<6, 1>(a, b, start, acc),
                7 => tile::<7, 1>(a, b, start, acc),
                8 => tile::<8, 1>(a, b, start, acc),
                9 => tile::<9, 1>(a, b, start, acc),
                10 => tile::<10, 1>(a, b, start, acc),
                11 => tile::<11, 1>(a, b, start, acc),
                _ => tile::<MR, 1>(a, b, start, acc),
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

/// The accumulators of a tile.
type Sums<const ROWS: usize> = [[__m512i; NR / LANES]; ROWS];

/// A tile of `ROWS` rows, the depth dealt out to `CHAINS` sets of accumulators, so that few rows do not wait for the
/// latency of each sum.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile<const ROWS: usize, const CHAINS: usize>(
    a: Rows<'_>,
    b: &[[u8; NR * KU]],
    start: &[i32; NR],
    acc: &mut [[i32; NR]; MR],
) {
    let mut sums: [Sums<ROWS>; CHAINS] = [[[_mm512_setzero_si512(); NR / LANES]; ROWS]; CHAINS];
    let (start, _) = start.as_chunks();
    sums[0] = [[load(&start[0]), load(&start[1])]; ROWS];
    if a.signed {
        depth::<ROWS, CHAINS, true>(a, b, &mut sums);
    } else {
        depth::<ROWS, CHAINS, false>(a, b, &mut sums);
    }
    for (i, acc) in acc.iter_mut().take(ROWS).enumerate() {
        for (j, acc) in acc.as_chunks_mut().0.iter_mut().enumerate() {
            let mut sum = sums[0][i][j];
            for chain in &sums[1..] {
                sum = _mm512_add_epi32(sum, chain[i][j]);
            }
            store(acc, sum);
        }
    }
}

/// The whole depth of a tile.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn depth<const ROWS: usize, const CHAINS: usize, const SIGNED: bool>(
    a: Rows<'_>,
    b: &[[u8; NR * KU]],
    sums: &mut [Sums<ROWS>; CHAINS],
) {
    let (units, rest) = a.units::<ROWS, KU>();
    let steps = (a.depth / KU).min(b.len());
    let (whole, b_rest) = b.split_at(steps);
    let (groups, b_left) = whole.as_chunks::<CHAINS>();
    for (g, b) in groups.iter().enumerate() {
        if CHAINS > 1 {
            // Few rows wait for the right side: ask for it early. An address beyond its end does no harm.
            for line in 0..CHAINS * NR * KU / 64 {
                _mm_prefetch::<_MM_HINT_T0>(b.as_ptr().cast::<i8>().wrapping_add(AHEAD + line * 64));
            }
        }
        for (c, (sums, b)) in sums.iter_mut().zip(b).enumerate() {
            // SAFETY: `g * CHAINS + c` is below `steps`, which no row is shorter than.
            let a = |i: usize| unsafe { *units[i].get_unchecked(g * CHAINS + c) };
            step::<ROWS, SIGNED>(sums, a, b);
        }
    }
    for (k, b) in b_left.iter().enumerate() {
        step::<ROWS, SIGNED>(&mut sums[0], |i| units[i][groups.len() * CHAINS + k], b);
    }
    if let (Some(a), Some(b)) = (rest, b_rest.first()) {
        step::<ROWS, SIGNED>(&mut sums[0], |i| a[i], b);
    }
}

/// Four codes of depth of a tile.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn step<const ROWS: usize, const SIGNED: bool>(
    sums: &mut Sums<ROWS>,
    a: impl Fn(usize) -> [u8; KU],
    b: &[u8; NR * KU],
) {
    let (b, _) = b.as_chunks::<{ LANES * KU }>();
    let (b0, b1) = (load_bytes(&b[0]), load_bytes(&b[1]));
    for (i, sums) in sums.iter_mut().enumerate() {
        let a = _mm512_set1_epi32(i32::from_le_bytes(a(i)));
        let a = if SIGNED { _mm512_xor_si512(a, _mm512_set1_epi8(i8::MIN)) } else { a };
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
