#![allow(unsafe_code, reason = "intrinsics and assembly; each block states why it is sound")]

mod amx;
mod avx2;
mod avx512_dot4;
mod avx512_lookup;
mod avx512_requantize;
mod avx512vnni;
mod avx_vnni;
mod detect;
mod sse2;
mod vnni;

pub(crate) use amx::Amx;
pub(crate) use avx_vnni::AvxVnni;
pub(crate) use avx2::Avx2;
pub(crate) use avx512vnni::Avx512Vnni;
pub(crate) use sse2::transposed;
