//! Kernels written once, over the registers of any instruction set.
#![allow(unsafe_code, reason = "registers from memory; each block states why it is sound")]

/// `core::array::from_fn` without a closure: one that is not inlined would not be compiled for the instruction set.
macro_rules! array {
    ($init:expr, $i:ident => $value:expr) => {{
        let mut array = [$init; _];
        let mut $i = 0;
        while $i < array.len() {
            array[$i] = $value;
            $i += 1;
        }
        array
    }};
}

pub(super) mod binary;
pub(super) mod depthwise;
pub(super) mod depthwise_f32;
pub(super) mod gemm;
pub(super) mod half;
pub(super) mod nbits;
pub(super) mod output;
pub(super) mod quantize;
mod simd_f32;
