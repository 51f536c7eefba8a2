//! AArch64: NEON, which is part of nearly every target, and the dot products of later extensions.
#![allow(unsafe_code, reason = "intrinsics and assembly; each block states why it is sound")]

mod dot;
mod lookup;
mod neon;

pub(crate) use dot::{DotProd, I8mm};
pub(crate) use lookup::lookup;
pub(crate) use neon::Neon;
