#![allow(unsafe_code, reason = "intrinsics; each block says why it is sound")]

mod avx2;
mod avx512vnni;
mod detect;

pub(crate) use avx2::Avx2;
pub(crate) use avx512vnni::Avx512Vnni;
