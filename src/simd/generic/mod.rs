//! Kernels written once, over the registers of any instruction set.
#![allow(unsafe_code, reason = "registers from memory; each block states why it is sound")]

pub(super) mod depthwise;
pub(super) mod gemm;
pub(super) mod half;
pub(super) mod output;
