#![allow(unsafe_code, reason = "intrinsics and assembly; each block states why it is sound")]

mod amx;
mod amx_gemm;
mod avx2;
mod avx512;
mod avx512vbmi;
mod detect;
mod sse2;
mod vnni;

pub(crate) use amx::Amx;
pub(crate) use amx_gemm::AmxProduct;
pub(crate) use avx2::Avx2;
pub(crate) use avx512::Avx512;
pub(crate) use avx512vbmi::Avx512Vbmi;
pub(crate) use sse2::{Sse2, transposed};
pub(crate) use vnni::{Avx512Vnni, AvxVnni};
