//! The error type of the crate. Every function that can fail on a caller's data returns it.

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::ops::RangeInclusive;

use crate::granularity::Granularity;

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An error in a caller's data. Each message names what was expected and what was found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A scale is zero, negative, infinite or NaN.
    #[error("expected a finite, positive scale, found {}{}", number(*.found), at_block(.index))]
    Scale {
        /// The invalid scale.
        found: f64,
        /// The index of its block; empty for a single scale.
        index: Vec<usize>,
    },
    /// A zero point outside the code range.
    #[error("expected a zero point in {min}..={max}, found {found}")]
    ZeroPoint {
        /// The smallest code.
        min: i64,
        /// The greatest code.
        max: i64,
        /// The invalid zero point.
        found: i64,
    },
    /// A shape, length, rank or number of tensors that does not fit the others.
    #[error("{what}: expected {}, found {}", extent(.what, .expected), bare_extent(.what, .found))]
    Shape {
        /// The tensor or the count.
        what: &'static str,
        /// The expected shape; a count is its only element.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// An axis that the tensor does not have.
    #[error("{}", axis(*.ndim, *.found))]
    Axis {
        /// The number of axes of the tensor.
        ndim: usize,
        /// The invalid axis.
        found: usize,
    },
    /// A group size of 0.
    #[error("expected groups of at least 1 element, found {found}")]
    GroupSize {
        /// The invalid size.
        found: usize,
    },
    /// A code range with fewer than two codes, or codes outside the element type.
    #[error("expected {}", codes(*.min..=*.max, *.found_min..=*.found_max))]
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
    /// A NaN or an infinity where values must be finite, or an `f64` that overflows `f32`.
    #[error("expected finite values, found {} at index {index:?}", number(*.found))]
    NonFinite {
        /// The invalid value.
        found: f64,
        /// Its index in the tensor.
        index: Vec<usize>,
    },
    /// A range whose bounds are not finite or not in order.
    #[error("expected finite bounds with min <= max, found min {}, max {}", number(*.min), number(*.max))]
    Range {
        /// The lower bound found.
        min: f64,
        /// The upper bound found.
        max: f64,
    },
    /// A value that overflows the half-precision type.
    #[error("expected magnitudes of at most {}, found {} at index {index:?}", number(*.limit), number(*.found))]
    Overflow {
        /// The greatest finite magnitude of the type.
        limit: f64,
        /// The value that overflows.
        found: f64,
        /// Its index in the tensor.
        index: Vec<usize>,
    },
    /// A range was requested from an observer without observations.
    #[error("expected at least 1 observed value, found 0: call `observe` before asking for a range")]
    EmptyCalibration,
    /// Parameters or ranges of a granularity that the operation does not support.
    #[error("expected granularity {}, found {}", granularity(.expected), granularity(.found))]
    Granularity {
        /// The expected granularity.
        expected: Granularity,
        /// The granularity found.
        found: Granularity,
    },
    /// The LHS and RHS of a product were packed for different micro-kernels.
    #[error("expected an LHS packed for {expected}, like the RHS, found one packed for {found}")]
    Kernel {
        /// The micro-kernel of the RHS.
        expected: &'static str,
        /// The micro-kernel of the LHS.
        found: &'static str,
    },
    /// A product whose depth could overflow an `i32` accumulator.
    #[error("expected a depth of at most {max}, found {found}: an i32 accumulator could overflow")]
    Depth {
        /// The greatest safe depth for these operands.
        max: usize,
        /// The depth found.
        found: usize,
    },
    /// A bias that could overflow an `i32` accumulator.
    #[error(
        "expected a bias of magnitude at most {max} in accumulator units at channel {channel}, found {}",
        number(*.found)
    )]
    Bias {
        /// The greatest safe magnitude.
        max: i64,
        /// The bias found, in units of the accumulator: `bias / (x_scale * w_scale)`.
        found: f64,
        /// The output channel.
        channel: usize,
    },
    /// An argument outside its domain.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// The argument.
        what: &'static str,
        /// Its domain.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// A name that does not exist.
    #[error("unknown {what} {name:?}{}", similar(nearest))]
    Unknown {
        /// The kind of named thing, such as `tensor`.
        what: &'static str,
        /// The unknown name.
        name: String,
        /// The most similar names that exist, best first.
        nearest: Vec<String>,
    },
    /// A name that is already taken, or that does not fit what it names.
    #[error("{what}: expected {expected}, found {found:?}")]
    Name {
        /// The kind of named thing, such as `tensor`.
        what: &'static str,
        /// The names that are valid.
        expected: &'static str,
        /// The name found.
        found: String,
    },
    /// An operator, attribute or input that is not supported.
    #[error("operator {op} of node {node:?} is not supported: {why}")]
    Unsupported {
        /// The operator's name.
        op: String,
        /// The node's name.
        node: String,
        /// The unsupported part.
        why: String,
    },
    /// An error in one node of a graph.
    #[error("node {node:?}: {error}")]
    Node {
        /// The node's name.
        node: String,
        /// The cause.
        error: Box<Error>,
    },
    /// A file that violates its format.
    #[error("{what}: expected {expected}, found {found}")]
    Format {
        /// The part of the file.
        what: &'static str,
        /// The valid content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The path of the file.
        path: String,
        /// The error of the operating system.
        reason: String,
    },
}

fn at_block(index: &[usize]) -> String {
    if index.is_empty() { String::new() } else { format!(" at block {index:?}") }
}

/// Returns true if the errors named `what` compare counts instead of shapes.
fn is_count(what: &str) -> bool {
    ["number of ", "rank of ", "length of "].iter().any(|start| what.starts_with(start))
}

fn extent(what: &str, extent: &[usize]) -> String {
    match extent {
        [count] if is_count(what) => format!("{count}"),
        shape => format!("shape {shape:?}"),
    }
}

fn bare_extent(what: &str, extent: &[usize]) -> String {
    match extent {
        [count] if is_count(what) => format!("{count}"),
        shape => format!("{shape:?}"),
    }
}

fn axis(ndim: usize, found: usize) -> String {
    match ndim {
        0 => format!("expected no axis, found axis {found}: the tensor has no axes"),
        1 => format!("expected axis 0 of a 1-D tensor, found axis {found}"),
        _ => format!("expected an axis in 0..={} of a {ndim}-D tensor, found axis {found}", ndim - 1),
    }
}

/// Formats a number without hundreds of zeros.
fn number(x: f64) -> String {
    if x.is_finite() && x != 0.0 && !(1e-6..1e16).contains(&x.abs()) { format!("{x:e}") } else { format!("{x}") }
}

fn codes(limits: RangeInclusive<i32>, found: RangeInclusive<i32>) -> String {
    if found.start() == found.end() && !limits.contains(found.start()) {
        format!("codes within {limits:?}, found {}", found.start())
    } else {
        format!("a code range of at least 2 codes within {limits:?}, found {found:?}")
    }
}

fn granularity(granularity: &Granularity) -> String {
    match granularity {
        Granularity::PerTensor => "per tensor".into(),
        Granularity::PerAxis { axis } => format!("per axis {axis}"),
        Granularity::PerGroup { axis, size } => format!("per group of {size} along axis {axis}"),
    }
}

/// Returns the number of elements of a tensor. Returns an error if no array can hold its axes of nonzero length.
pub(crate) fn elements(what: &'static str, shape: &[usize]) -> Result<usize> {
    // The number of 8-byte elements that fills the address space.
    const MOST: usize = isize::MAX as usize / 8;
    let lengths = shape.iter().filter(|&&len| len != 0);
    match lengths.copied().try_fold(1usize, usize::checked_mul).filter(|&product| product <= MOST) {
        Some(_) => Ok(shape.iter().product()),
        None => {
            let found = format!("shape {shape:?}");
            Err(Error::Argument { what, expected: "a tensor that fits in memory", found })
        }
    }
}

/// Lists the existing names for the message of an unknown one.
fn similar(nearest: &[String]) -> String {
    let mut text = String::new();
    for (i, name) in nearest.iter().enumerate() {
        text += if i == 0 { "; similar: " } else { ", " };
        text += &format!("{name:?}");
    }
    text
}

impl Error {
    /// Returns an error for an unknown name, with the most similar names among `names`.
    pub(crate) fn unknown<'a>(what: &'static str, name: &str, names: impl IntoIterator<Item = &'a String>) -> Self {
        const NEAREST: usize = 3;
        // Bounds the cost of an error, because names also come from files.
        const COMPARED: usize = 10_000;
        let names = names.into_iter().take(COMPARED);
        let mut names: Vec<(usize, &String)> = names.map(|other| (edit_distance(name, other), other)).collect();
        names.sort();
        let nearest = names.into_iter().take(NEAREST).map(|(_, name)| name.clone()).collect();
        Error::Unknown { what, name: name.into(), nearest }
    }

    /// Adds the name of the node that the error occurred in, unless the error has one.
    pub(crate) fn at(self, node: &str) -> Self {
        match self {
            Error::Node { .. } | Error::Unsupported { .. } => self,
            error => Error::Node { node: node.into(), error: Box::new(error) },
        }
    }

    pub(crate) fn shape(what: &'static str, expected: &[usize], found: &[usize]) -> Self {
        Error::Shape { what, expected: expected.to_vec(), found: found.to_vec() }
    }
}

/// Returns an error if the shapes differ.
pub(crate) fn check_shapes(what: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(what, expected, found)) }
}

/// Returns the Levenshtein distance of the first 64 characters of two names.
fn edit_distance(a: &str, b: &str) -> usize {
    const CHARS: usize = 64;
    let b: Vec<char> = b.chars().take(CHARS).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(CHARS).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
