//! The error type of the crate.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{FileError, GraphError, ParamsError, ShapeError, ValueError};

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An error in a caller's data, by domain. Every fallible function of the crate returns it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, length, rank or axis does not fit the other arguments.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Invalid quantization parameters: scales, zero points, code ranges, granularities.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Invalid values in a tensor: NaN, infinities, or values that overflow.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Invalid use of a graph, or an error in one of its nodes.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file that cannot be read or written, violates its format or exceeds a limit.
    #[error(transparent)]
    File(#[from] FileError),
    /// An option outside its domain.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// The option.
        what: &'static str,
        /// Its domain.
        expected: &'static str,
        /// The value found.
        found: String,
    },
}

impl Error {
    pub(crate) fn shape(what: &'static str, expected: &[usize], found: &[usize]) -> Self {
        ShapeError::Mismatch { what, expected: expected.to_vec(), found: found.to_vec() }.into()
    }

    pub(crate) fn layout(what: &'static str, expected: impl Into<String>, found: &[usize]) -> Self {
        ShapeError::Layout { what, expected: expected.into(), found: found.to_vec() }.into()
    }

    pub(crate) fn too_large(what: &'static str, limit: &'static str, found: &[usize]) -> Self {
        ShapeError::TooLarge { what, limit, found: found.to_vec() }.into()
    }

    pub(crate) fn axis(ndim: usize, found: usize) -> Self {
        ShapeError::Axis { ndim, found }.into()
    }

    /// Returns an error for an unknown name, with the most similar names among `names`.
    pub(crate) fn unknown<'a>(what: &'static str, name: &str, names: impl IntoIterator<Item = &'a String>) -> Self {
        const NEAREST: usize = 3;
        // Bounds the cost of an error, because names also come from files.
        const COMPARED: usize = 10_000;
        let names = names.into_iter().take(COMPARED);
        let mut names: Vec<(usize, &String)> = names.map(|other| (edit_distance(name, other), other)).collect();
        names.sort();
        let nearest = names.into_iter().take(NEAREST).map(|(_, name)| name.clone()).collect();
        GraphError::Unknown { what, name: name.into(), nearest }.into()
    }

    /// Adds the name of the node that the error occurred in, unless the error has one.
    pub(crate) fn at(self, node: &str) -> Self {
        match self {
            Error::Graph(
                GraphError::Node { .. } | GraphError::Unsupported { .. } | GraphError::UnsupportedNodes { .. },
            ) => self,
            error => GraphError::Node { node: node.into(), error: Box::new(error) }.into(),
        }
    }
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
