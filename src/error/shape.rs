//! Shapes, lengths, ranks and axes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Result;

/// A shape, length, rank or axis that does not fit the other arguments.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A shape differs from the one that the other arguments require.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Mismatch {
        /// The tensor.
        what: &'static str,
        /// The expected shape.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A length, rank or number of tensors differs from the one that the other arguments require.
    #[error("{what}: expected {expected}, found {found}")]
    Count {
        /// The counted elements, such as `number of inputs`.
        what: &'static str,
        /// The expected count.
        expected: usize,
        /// The count found.
        found: usize,
    },
    /// The tensor does not have the axis.
    #[error("{}", axis(*.ndim, *.found))]
    Axis {
        /// The number of axes of the tensor.
        ndim: usize,
        /// The invalid axis.
        found: usize,
    },
    /// The axes of a tensor do not have the layout that an operator takes, such as NHWC.
    #[error("{what}: expected {expected}, found shape {found:?}")]
    Layout {
        /// The tensor.
        what: &'static str,
        /// The expected layout.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Two operands do not broadcast to a common shape.
    #[error("operands: expected shapes that broadcast to each other, found {a:?} and {b:?}")]
    Broadcast {
        /// The shape of the first operand.
        a: Vec<usize>,
        /// The shape of the second operand.
        b: Vec<usize>,
    },
    /// A tensor has too many elements.
    #[error("{what}: expected {limit}, found shape {found:?}")]
    TooLarge {
        /// The tensor.
        what: &'static str,
        /// The limit, such as `at most 2^28 elements`.
        limit: &'static str,
        /// The shape found.
        found: Vec<usize>,
    },
}

fn axis(ndim: usize, found: usize) -> String {
    match ndim {
        0 => format!("expected no axis, found axis {found}: the tensor has no axes"),
        1 => format!("expected axis 0 of a 1-D tensor, found axis {found}"),
        _ => format!("expected an axis in 0..={} of a {ndim}-D tensor, found axis {found}", ndim - 1),
    }
}

/// Returns an error if the shapes differ.
pub(crate) fn check_shapes(what: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found { Ok(()) } else { Err(super::Error::shape(what, expected, found)) }
}

/// Returns an error if the counts differ.
pub(crate) fn check_count(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(ShapeError::Count { what, expected, found }.into()) }
}

/// Returns the number of elements of a tensor. Returns an error if no array can hold its axes of nonzero length.
pub(crate) fn elements(what: &'static str, shape: &[usize]) -> Result<usize> {
    // The number of 8-byte elements that fills the address space.
    const MOST: usize = isize::MAX as usize / 8;
    let lengths = shape.iter().filter(|&&len| len != 0);
    match lengths.copied().try_fold(1usize, usize::checked_mul).filter(|&product| product <= MOST) {
        Some(_) => Ok(shape.iter().product()),
        None => Err(super::Error::too_large(what, "a tensor that fits in memory", shape)),
    }
}
