//! Files.

use alloc::string::String;
use core::fmt;
#[cfg(feature = "std")]
use std::{io, path::PathBuf, sync::Arc};

/// A file that cannot be read or written, violates its format or exceeds a limit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FileError {
    /// The content violates the format.
    Format {
        /// The part of the file.
        what: &'static str,
        /// The valid content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// The file, or a part of it, exceeds a limit of the reader.
    Limit {
        /// The limited quantity, such as `number of nodes`.
        what: &'static str,
        /// The limit.
        max: usize,
        /// The quantity found.
        found: String,
    },
    /// The file cannot be read or written. [`source`](core::error::Error::source) is the [`io::Error`].
    ///
    /// Two such errors are equal if the paths and the kinds of the [`io::Error`] are.
    #[cfg(feature = "std")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        error: Arc<io::Error>,
    },
}

impl PartialEq for FileError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Format { what, expected, found },
                Self::Format { what: other_what, expected: other_expected, found: other_found },
            ) => (what, expected, found) == (other_what, other_expected, other_found),
            (
                Self::Limit { what, max, found },
                Self::Limit { what: other_what, max: other_max, found: other_found },
            ) => (what, max, found) == (other_what, other_max, other_found),
            #[cfg(feature = "std")]
            (Self::Io { path, error }, Self::Io { path: other_path, error: other_error }) => {
                (path, error.kind()) == (other_path, other_error.kind())
            }
            _ => false,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
            Self::Limit { what, max, found } => write!(f, "{what}: expected at most {max}, found {found}"),
            #[cfg(feature = "std")]
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

// Not derived: the source is the `io::Error` itself, so that a caller can downcast it, not the `Arc` around it.
impl core::error::Error for FileError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            #[cfg(feature = "std")]
            Self::Io { error, .. } => Some(&**error),
            _ => None,
        }
    }
}
