//! Targets without SIMD of their own.

#[path = "one_set.rs"]
mod one_set;
#[path = "without_tiles.rs"]
mod without_tiles;

pub(crate) use one_set::*;

pub(crate) use super::portable::Portable as Baseline;

const NAME: &str = "portable";
