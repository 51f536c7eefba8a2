#![allow(unsafe_code, reason = "intrinsics and assembly; each block states why it is sound")]

mod amx;
mod amx_gemm;
mod avx2;
mod avx512;
mod avx512vbmi;
mod detect;
mod fma;
mod sets;
mod sse2;
mod vnni;

pub(crate) use amx::Amx;
pub(crate) use amx_gemm::AmxProduct;
use avx2::Avx2;
use avx512::Avx512;
use avx512vbmi::Avx512Vbmi;
pub(crate) use fma::Fma;
pub(crate) use sets::{Isa, Vectors, with_gemm, with_vector};
pub(crate) use sse2::{Sse2 as Baseline, transposed};
use vnni::{Avx512Vnni, AvxVnni};

/// Implements [`lookup`](crate::simd::lookup).
pub(crate) fn lookup(table: &[u8; 256], codes: (&[u8], usize), to: (&mut [u8], usize)) {
    match Isa::current().vbmi() {
        Some(vbmi) => vbmi.lookup(table, codes, to),
        None => crate::simd::table::lookup(table, codes, to),
    }
}
