use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::block::BlockFormat;

fn round_trip<B: BlockFormat>(x: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = vec![0xa5; x.len() / B::VALUES * B::BYTES];
    B::quantize_blocks(x, &mut bytes);
    let mut y = vec![f32::NAN; x.len()];
    B::dequantize_blocks(&bytes, &mut y);
    (bytes, y)
}

/// Signal to noise in dB.
fn sqnr<B: BlockFormat>(x: &[f32]) -> f64 {
    let (_, y) = round_trip::<B>(x);
    let error: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    10.0 * (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / error).log10()
}

/// Values with a normal distribution, by Box and Muller.
fn normal(len: usize) -> Vec<f32> {
    let mut state = 12345u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f64 + 0.5) / (1u64 << 24) as f64
    };
    (0..len).map(|_| ((-2.0 * uniform().ln()).sqrt() * (core::f64::consts::TAU * uniform()).cos()) as f32).collect()
}

macro_rules! each {
    ($f:ident) => {
        $f::<Q4_0>();
        $f::<Q4_1>();
        $f::<Q5_0>();
        $f::<Q5_1>();
        $f::<Q8_0>();
        $f::<Q2_K>();
        $f::<Q3_K>();
        $f::<Q4_K>();
        $f::<Q5_K>();
        $f::<Q6_K>();
        $f::<Q8_K>();
        $f::<IQ4_NL>();
        $f::<IQ4_XS>();
        $f::<TQ1_0>();
        $f::<TQ2_0>();
        $f::<MXFP4>();
        $f::<NVFP4>();
    };
}

#[test]
fn normal_values_are_close() {
    let x = normal(1 << 14);
    // The bits of a code give about 6 dB each.
    for (name, found, least) in [
        ("Q2_K", sqnr::<Q2_K>(&x), 8.5),
        ("Q3_K", sqnr::<Q3_K>(&x), 14.0),
        ("Q4_0", sqnr::<Q4_0>(&x), 19.5),
        ("Q4_1", sqnr::<Q4_1>(&x), 20.5),
        ("Q4_K", sqnr::<Q4_K>(&x), 20.5),
        ("IQ4_NL", sqnr::<IQ4_NL>(&x), 21.0),
        ("IQ4_XS", sqnr::<IQ4_XS>(&x), 21.0),
        ("MXFP4", sqnr::<MXFP4>(&x), 16.0),
        ("NVFP4", sqnr::<NVFP4>(&x), 19.5),
        ("Q5_0", sqnr::<Q5_0>(&x), 26.0),
        ("Q5_1", sqnr::<Q5_1>(&x), 26.5),
        ("Q5_K", sqnr::<Q5_K>(&x), 26.5),
        ("Q6_K", sqnr::<Q6_K>(&x), 32.5),
        ("Q8_0", sqnr::<Q8_0>(&x), 43.0),
        ("Q8_K", sqnr::<Q8_K>(&x), 41.0),
    ] {
        assert!(found > least, "{name}: {found} dB of at least {least}");
    }
}

#[test]
fn zeros_stay_zeros() {
    fn zeros<B: BlockFormat>() {
        let (_, y) = round_trip::<B>(&vec![0.0; 2 * B::VALUES]);
        assert!(y.iter().all(|&y| y == 0.0), "{}", B::NAME);
    }
    each!(zeros);
}

#[test]
fn extreme_values_do_not_fail() {
    fn extremes<B: BlockFormat>() {
        for value in [f32::MAX, f32::MIN, f32::from_bits(1), -f32::MIN_POSITIVE, 1e-20, 65504.0] {
            let x: Vec<f32> =
                (0..B::VALUES).map(|i| if i % 3 == 0 { value } else { -value / (1 + i) as f32 }).collect();
            round_trip::<B>(&x);
        }
    }
    each!(extremes);
}

/// Decoding a block and quantizing the values again changes them by no more than quantizing did.
#[test]
fn all_bytes_decode() {
    fn bytes<B: BlockFormat>() {
        for seed in 0..64u32 {
            let bytes: Vec<u8> =
                (0..B::BYTES as u32).map(|i| ((seed * 7919 + i).wrapping_mul(2654435761) >> 13) as u8).collect();
            let mut y = vec![0.0; B::VALUES];
            B::dequantize_blocks(&bytes, &mut y);
        }
    }
    each!(bytes);
}

/// The value of each code by its place in the block.
fn plain_q4_k(block: &[u8]) -> Vec<f32> {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let s = &block[4..16];
    let six_bits = |i: usize, of_min: usize| {
        if i < 4 { s[4 * of_min + i] & 63 } else { s[4 + i] >> (4 * of_min) & 15 | s[4 * of_min + i - 4] >> 6 << 4 }
    };
    let value = |i: usize| {
        let byte = block[16 + i / 64 * 32 + i % 32];
        let code = if i % 64 < 32 { byte & 15 } else { byte >> 4 };
        half(0) * f32::from(six_bits(i / 32, 0)) * f32::from(code) - half(2) * f32::from(six_bits(i / 32, 1))
    };
    (0..256).map(value).collect()
}

proptest! {
    #[test]
    fn q4_k_by_places(mut block in prop::collection::vec(any::<u8>(), 144), d in 0f32..1.0, m in 0f32..1.0) {
        write_f16(&mut block, 0, d);
        write_f16(&mut block, 2, m);
        let mut y = vec![0.0; 256];
        Q4_K::dequantize_blocks(&block, &mut y);
        prop_assert_eq!(y, plain_q4_k(&block));
    }

    /// Codes that fit are found again: nothing is rounded.
    #[test]
    fn steps_of_a_scale_are_exact(codes in prop::collection::vec(-8i8..8, 32), exponent in -10i32..10) {
        let scale = 2f32.powi(exponent);
        let mut x: Vec<f32> = codes.iter().map(|&code| f32::from(code) * scale).collect();
        x[0] = -8.0 * scale;
        prop_assert_eq!(&round_trip::<Q4_0>(&x).1, &x);
        x[0] = -127.0 * scale;
        prop_assert_eq!(&round_trip::<Q8_0>(&x).1, &x);
    }

    #[test]
    fn ternary_values_are_exact(codes in prop::collection::vec(-1i8..=1, 256), exponent in -10i32..10) {
        let x: Vec<f32> = codes.iter().map(|&code| f32::from(code) * 2f32.powi(exponent)).collect();
        prop_assert_eq!(&round_trip::<TQ1_0>(&x).1, &x);
        prop_assert_eq!(&round_trip::<TQ2_0>(&x).1, &x);
    }

    /// Each code is the nearest one for the scale of its group.
    #[test]
    fn codes_of_six_bits_are_nearest(x in prop::collection::vec(-3f32..3.0, 256)) {
        let (bytes, y) = round_trip::<Q6_K>(&x);
        let d = read_f16(&bytes, 208);
        for (i, (x, y)) in x.iter().zip(&y).enumerate() {
            let scale = d * f32::from(bytes[192 + i / 16] as i8);
            let clipped = (x / scale).clamp(-32.0, 31.0) * scale;
            prop_assert!((clipped - y).abs() <= scale.abs() * 0.5001, "{x} {y} {scale}");
        }
    }
}
