//! AArch64: NEON, which is part of nearly every target, and the dot products of later extensions.
#![allow(unsafe_code, reason = "intrinsics and assembly; each block states why it is sound")]

mod dot;
mod fma;
mod lookup;
mod neon;
#[path = "../one_vector.rs"]
mod one_vector;
mod sets;
#[path = "../without_tiles.rs"]
mod without_tiles;

use dot::{DotProd, I8mm};
pub(crate) use fma::Fma;
pub(crate) use lookup::lookup;
use neon::Neon;
pub(crate) use neon::Neon as Baseline;
pub(crate) use one_vector::{Vectors, with_vector};
pub(crate) use sets::{Isa, with_gemm};
