//! The one error type. Whatever depends on a caller's data returns it.

use alloc::{boxed::Box, string::String, vec::Vec};

use crate::granularity::Granularity;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What was wrong with a caller's data: each variant says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A scale is zero, negative, infinite or NaN.
    #[error("expected a finite, positive scale, found {found} at block {index:?}")]
    Scale {
        /// The offending scale.
        found: f64,
        /// The position of the block it belongs to.
        index: Vec<usize>,
    },
    /// A zero point is not a code of the element type.
    #[error("expected a zero point in {min}..={max}, found {found}")]
    ZeroPoint {
        /// The smallest code.
        min: i64,
        /// The greatest code.
        max: i64,
        /// The offending zero point.
        found: i64,
    },
    /// Two shapes that must agree do not.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Whose shape it is.
        what: &'static str,
        /// The shape that was needed.
        expected: Vec<usize>,
        /// The shape that came.
        found: Vec<usize>,
    },
    /// An axis that the tensor does not have.
    #[error("expected an axis below {ndim}, found {found}")]
    Axis {
        /// The number of axes of the tensor.
        ndim: usize,
        /// The offending axis.
        found: usize,
    },
    /// A group of no elements.
    #[error("expected a group size of at least 1, found {found}")]
    GroupSize {
        /// The offending size.
        found: usize,
    },
    /// A range of codes that is empty or leaves the element type.
    #[error("expected codes within {min}..={max} and at least two of them, found {found_min}..={found_max}")]
    CodeRange {
        /// The smallest code of the element type.
        min: i32,
        /// The greatest code of the element type.
        max: i32,
        /// The smallest code asked for.
        found_min: i32,
        /// The greatest code asked for.
        found_max: i32,
    },
    /// A NaN or an infinity where only finite values have a meaning.
    #[error("expected finite values, found {found} at {index:?}")]
    NonFinite {
        /// The offending value.
        found: f64,
        /// Its position in the tensor.
        index: Vec<usize>,
    },
    /// A range whose ends are not finite or not in order.
    #[error("expected finite bounds with min <= max, found min {min}, max {max}")]
    Range {
        /// The lower bound found.
        min: f64,
        /// The upper bound found.
        max: f64,
    },
    /// A value too large for the half-precision type.
    #[error("expected magnitudes of at most {limit}, found {found} at {index:?}")]
    Overflow {
        /// The greatest finite magnitude of the type.
        limit: f64,
        /// The offending value.
        found: f64,
        /// Its position in the tensor.
        index: Vec<usize>,
    },
    /// An observer was asked for a range before it saw any value.
    #[error("expected at least 1 observed value, found 0 (calibration is empty)")]
    EmptyCalibration,
    /// The parameters' granularity is not the one that was asked for.
    #[error("expected granularity {expected:?}, found {found:?}")]
    Granularity {
        /// The granularity that was needed.
        expected: Granularity,
        /// The granularity that came.
        found: Granularity,
    },
    /// The two sides of a product were packed for different kernels.
    #[error("expected a left side packed for {expected}, as the right side is, found one for {found}")]
    Kernel {
        /// The kernel that the right side was packed for.
        expected: &'static str,
        /// The kernel that the left side was packed for.
        found: &'static str,
    },
    /// A product so deep that an `i32` accumulator could overflow.
    #[error("expected a depth of at most {max}, found {found}: an i32 accumulator could overflow")]
    Depth {
        /// The greatest depth that is safe for these operands.
        max: usize,
        /// The depth found.
        found: usize,
    },
    /// A bias that, added to the product, could overflow an `i32` accumulator.
    #[error("expected a bias of magnitude at most {max} at channel {channel}, found {found}")]
    Bias {
        /// The greatest magnitude that is safe here.
        max: i64,
        /// The bias found, in units of the accumulator.
        found: f64,
        /// The output channel.
        channel: usize,
    },
    /// An option outside of its domain.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// The option.
        what: &'static str,
        /// Its domain.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// A name that nothing has.
    #[error("unknown {what} {name:?}{}", similar(nearest))]
    Unknown {
        /// What should have the name.
        what: &'static str,
        /// The name.
        name: String,
        /// The most similar names that exist, best first.
        nearest: Vec<String>,
    },
    /// A name that is already taken, or that does not fit what it names.
    #[error("{what}: expected {expected}, found {found:?}")]
    Name {
        /// What bears the name.
        what: &'static str,
        /// What the name should have been.
        expected: &'static str,
        /// The name.
        found: String,
    },
    /// An operator, or a use of one, that is not implemented.
    #[error("operator {op} of node {node:?} is not supported: {why}")]
    Unsupported {
        /// The operator's name.
        op: String,
        /// The node's name.
        node: String,
        /// What is missing.
        why: String,
    },
    /// An error in one node of a graph.
    #[error("node {node:?}: {error}")]
    Node {
        /// The node's name.
        node: String,
        /// What is wrong there.
        error: Box<Error>,
    },
    /// A file that is not what its format says.
    #[error("{what}: expected {expected}, found {found}")]
    Format {
        /// The part of the file.
        what: &'static str,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        reason: String,
    },
}

/// The number of elements of a tensor, refused if no array could hold it, even without the axes that make it empty.
pub(crate) fn elements(what: &'static str, shape: &[usize]) -> Result<usize> {
    // As many as numbers of eight bytes would fill the address space with.
    const MOST: usize = isize::MAX as usize / 8;
    let lengths = shape.iter().filter(|&&len| len != 0);
    match lengths.copied().try_fold(1usize, usize::checked_mul).filter(|&product| product <= MOST) {
        Some(_) => Ok(shape.iter().product()),
        None => {
            let found = alloc::format!("shape {shape:?}");
            Err(Error::Argument { what, expected: "a tensor that fits in memory", found })
        }
    }
}

/// Lists names that exist, for the message of an unknown one.
fn similar(nearest: &[String]) -> String {
    let mut text = String::new();
    for (i, name) in nearest.iter().enumerate() {
        text += if i == 0 { "; similar: " } else { ", " };
        text += &alloc::format!("{name:?}");
    }
    text
}

impl Error {
    /// An unknown name, with the most similar names among `names`.
    pub(crate) fn unknown<'a>(what: &'static str, name: &str, names: impl IntoIterator<Item = &'a String>) -> Self {
        const NEAREST: usize = 3;
        // Names come from files, too: the cost of an error is bounded.
        const COMPARED: usize = 10_000;
        let names = names.into_iter().take(COMPARED);
        let mut names: Vec<(usize, &String)> = names.map(|other| (edit_distance(name, other), other)).collect();
        names.sort();
        let nearest = names.into_iter().take(NEAREST).map(|(_, name)| name.clone()).collect();
        Error::Unknown { what, name: name.into(), nearest }
    }

    /// The same error, said of a node.
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

/// Refuses a shape that must be another.
pub(crate) fn check_shapes(what: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(what, expected, found)) }
}

/// The Levenshtein distance of the first characters of two names.
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
