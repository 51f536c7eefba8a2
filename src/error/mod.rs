//! Errors by domain. [`Error`], the error type of the crate, has a variant for each domain.
//!
//! A message says which argument is wrong, what was expected and what was found. [`source`](core::error::Error::source)
//! leads from the error of a graph node to its cause, and from the error of a file to the [`std::io::Error`].
//!
//! ```
//! use ndarray::Axis;
//! use ndarray_quant::error::ShapeError;
//! use ndarray_quant::{Error, Scheme};
//!
//! let error = Scheme::<i8>::symmetric().per_axis(Axis(2)).quantize(&ndarray::array![[1.0f32]]).unwrap_err();
//! assert!(matches!(error, Error::Shape(ShapeError::Axis { ndim: 2, found: 2 })));
//! assert_eq!(error.to_string(), "expected an axis in 0..=1 of a 2-D tensor, found axis 2");
//! ```

mod file;
mod graph;
mod params;
pub(crate) mod root;
mod shape;
mod value;

use alloc::format;
use alloc::string::String;

pub use file::FileError;
pub use graph::{GraphError, UnsupportedUse};
pub use params::ParamsError;
pub(crate) use root::{Error, Result};
pub use shape::ShapeError;
pub(crate) use shape::{check_count, check_shapes, elements};
pub use value::ValueError;

/// Formats a number without hundreds of zeros.
fn number(x: f64) -> String {
    if x.is_finite() && x != 0.0 && !(1e-6..1e16).contains(&x.abs()) { format!("{x:e}") } else { format!("{x}") }
}
