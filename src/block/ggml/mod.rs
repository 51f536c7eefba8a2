//! The block formats of ggml, which GGUF files hold: bytes and algorithms of its reference implementation.
//!
//! Notation: `d` and `m` are 16-bit floats of a block, `q` codes. In blocks of 256 values, groups of 16 or 32 have a scale
//! and perhaps a minimum of a few bits of their own, in units of `d` and of `m`. Decoding is in `f32`: products first, then
//! the sum, not fused.
//!
//! | format | values | bytes | value of a code |
//! |---|---|---|---|
//! | [`Q4_0`] | 32 | 18 | `(q - 8) * d` |
//! | [`Q4_1`] | 32 | 20 | `q * d + m`, 4 bits |
//! | [`Q5_0`] | 32 | 22 | `(q - 16) * d` |
//! | [`Q5_1`] | 32 | 24 | `q * d + m`, 5 bits |
//! | [`Q8_0`] | 32 | 34 | `q * d`, 8 bits |
//! | [`Q2_K`] | 256 | 84 | `q * (d * scale) - m * min`, 2 bits, groups of 16, 4-bit scales |
//! | [`Q3_K`] | 256 | 110 | `(q - 4) * (d * (scale - 32))`, groups of 16, 6-bit scales |
//! | [`Q4_K`] | 256 | 144 | `q * (d * scale) - m * min`, 4 bits, groups of 32, 6-bit scales |
//! | [`Q5_K`] | 256 | 176 | the same with 5 bits |
//! | [`Q6_K`] | 256 | 210 | `(q - 32) * (d * scale)`, groups of 16, 8-bit scales |
//! | [`Q8_K`] | 256 | 292 | `q * d`, 8 bits, `d` an `f32`: activations of products with the above |
//! | [`IQ4_NL`] | 32 | 18 | `c[q] * d`, a codebook of 16 numbers |
//! | [`IQ4_XS`] | 256 | 136 | `c[q] * (d * (scale - 32))`, groups of 32, 6-bit scales |
//! | [`TQ1_0`] | 256 | 54 | `(q - 1) * d`, ternary, five to a byte |
//! | [`TQ2_0`] | 256 | 66 | `(q - 1) * d`, ternary, four to a byte |
//! | [`MXFP4`] | 32 | 17 | `F4E2M1FN(q) * 2^(e - 127)` |
//! | [`NVFP4`] | 64 | 36 | `F4E2M1FN(q) * F8E4M3FN(scale)`, groups of 16 |
//!
//! Quantization of the first five, of ternary and of MXFP4 gives the bytes of gguf-py. The others search scales as ggml's
//! reference implementation does without an importance matrix.
//!
//! Source: ggml, `ggml-quants.c`, and gguf-py, `quants.py`.

mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nvfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod q8_k;
mod search;
#[cfg(test)]
mod tests;
mod tq1_0;
mod tq2_0;

pub use iq4_nl::IQ4_NL;
pub use iq4_xs::IQ4_XS;
pub use mxfp4::MXFP4;
pub use nvfp4::NVFP4;
pub use q2_k::Q2_K;
pub use q3_k::Q3_K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4_K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5_K;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;
pub use q8_k::Q8_K;
pub use tq1_0::TQ1_0;
pub use tq2_0::TQ2_0;

use half::f16;

use crate::block::GroupScale;
use crate::element::Compute;

/// Reads the 16-bit float at this place of a block.
#[inline(always)]
fn read_f16(bytes: &[u8], at: usize) -> f32 {
    half_at(bytes, at).to_f32_const()
}

#[inline(always)]
fn half_at(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The scale or offset of a block with one group: the 16-bit float at this place.
#[inline(always)]
fn one_group(bytes: &[u8], at: usize) -> GroupScale {
    GroupScale { of_block: half_at(bytes, at), of_group: 1 }
}

/// Writes a 16-bit float, and returns the value that was written.
fn write_f16(bytes: &mut [u8], at: usize, x: f32) -> f32 {
    let half = f16::from_f32(x);
    bytes[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// Rounds to the nearest integer, ties to even.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    Compute::round_ties_even(x) as i32
}

/// Returns the first value of the greatest magnitude.
fn first_max(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max: f32, &x| if x.abs() > max.abs() { x } else { max })
}

/// Returns the least and the greatest value.
fn bounds(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)))
}

/// Writes the low four bits of 32 codes: byte `i` holds code `i` in its low bits and code `16 + i` in its high bits.
fn write_nibbles(codes: &[u8; 32], bytes: &mut [u8]) {
    for i in 0..16 {
        bytes[i] = codes[i] & 0xf | (codes[16 + i] & 0xf) << 4;
    }
}

/// Reads 32 codes of four bits that [`write_nibbles`] wrote.
#[inline(always)]
fn read_nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    for i in 0..16 {
        codes[i] = bytes[i] & 0xf;
        codes[16 + i] = bytes[i] >> 4;
    }
    codes
}

/// Reads the fifth bits of 32 codes: bit `i` of a little-endian word belongs to code `i`.
#[inline(always)]
fn read_fifth_bits(bytes: &[u8; 4]) -> [u8; 32] {
    let (word, mut bits) = (u32::from_le_bytes(*bytes), [0; 32]);
    for (i, bit) in bits.iter_mut().enumerate() {
        *bit = (word >> i) as u8 & 1;
    }
    bits
}

/// Writes the fifth bits of 32 codes.
fn write_fifth_bits(codes: &[u8; 32], bytes: &mut [u8]) {
    let word = codes.iter().rev().fold(0u32, |word, &code| word << 1 | (code >> 4 & 1) as u32);
    bytes[..4].copy_from_slice(&word.to_le_bytes());
}

/// Returns an array at a place of a block.
#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("the formats define the sizes of their blocks")
}
