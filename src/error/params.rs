//! Quantization parameters.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::number;
use crate::granularity::Granularity;

/// Invalid quantization parameters, or parameters that an operation does not support.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// A scale is zero, negative, infinite or NaN.
    #[error("{what}: expected a finite, positive number, found {}{}", number(*.found), at(.index))]
    Scale {
        /// The scale, such as `scale of the output`.
        what: &'static str,
        /// The invalid value.
        found: f64,
        /// Its index in the scales; empty for a single scale.
        index: Vec<usize>,
    },
    /// A zero point is outside the code range.
    #[error("zero point: expected a code in {min}..={max}, found {found}")]
    ZeroPoint {
        /// The smallest code.
        min: i64,
        /// The greatest code.
        max: i64,
        /// The invalid zero point.
        found: i64,
    },
    /// A code range has fewer than two codes, or codes are outside the element type.
    #[error("{}", code_range(*.min..=*.max, *.found_min..=*.found_max))]
    CodeRange {
        /// The smallest code of the element type.
        min: i32,
        /// The greatest code of the element type.
        max: i32,
        /// The smallest code found.
        found_min: i32,
        /// The greatest code found.
        found_max: i32,
    },
    /// The operation does not support the granularity of parameters or ranges.
    #[error("granularity of {what}: expected {expected}, found {found}")]
    Granularity {
        /// The tensor or observer.
        what: &'static str,
        /// The expected granularity.
        expected: Granularity,
        /// The granularity found.
        found: Granularity,
    },
    /// A group size is 0.
    #[error("group size: expected at least 1 element, found {found}")]
    GroupSize {
        /// The invalid size.
        found: usize,
    },
    /// The bounds of a range are not finite or not in order.
    #[error("range: expected finite bounds with min <= max, found min {}, max {}", number(*.min), number(*.max))]
    Range {
        /// The lower bound found.
        min: f64,
        /// The upper bound found.
        max: f64,
    },
    /// The LHS and RHS of a product were packed for different micro-kernels.
    #[error("LHS: expected codes packed for {expected}, as the RHS is, found codes packed for {found}")]
    Kernel {
        /// The micro-kernel of the RHS.
        expected: &'static str,
        /// The micro-kernel of the LHS.
        found: &'static str,
    },
    /// A tensor has other parameters than the operator was prepared for, or than another tensor has.
    #[error("{what}: expected the parameters {of} ({}), found {}", pair(*.expected), pair(*.found))]
    Mismatch {
        /// The tensor.
        what: &'static str,
        /// The operator or tensor with the expected parameters, such as `of the input`.
        of: &'static str,
        /// The expected scale and zero point.
        expected: (f32, i32),
        /// The scale and zero point found.
        found: (f32, i32),
    },
}

fn at(index: &[usize]) -> String {
    if index.is_empty() { String::new() } else { format!(" at index {index:?}") }
}

fn pair((scale, zero_point): (f32, i32)) -> String {
    format!("scale {scale}, zero point {zero_point}")
}

fn code_range(limits: RangeInclusive<i32>, found: RangeInclusive<i32>) -> String {
    if found.start() == found.end() && !limits.contains(found.start()) {
        format!("codes: expected codes in {limits:?}, found {}", found.start())
    } else {
        format!("code range: expected at least 2 codes in {limits:?}, found {found:?}")
    }
}
