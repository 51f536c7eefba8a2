//! Values of tensors.

use alloc::vec::Vec;

use super::number;

/// An invalid value in a tensor, or values that overflow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A value that must be finite is NaN or infinite, or an `f64` that overflows `f32`.
    #[error("{what}: expected finite values, found {} at index {index:?}", number(*.found))]
    NonFinite {
        /// The tensor.
        what: &'static str,
        /// The invalid value.
        found: f64,
        /// Its index in the tensor.
        index: Vec<usize>,
    },
    /// A value overflows the half-precision or float code type.
    #[error("x: expected magnitudes of at most {}, found {} at index {index:?}", number(*.limit), number(*.found))]
    Overflow {
        /// The greatest finite magnitude of the type.
        limit: f64,
        /// The value that overflows.
        found: f64,
        /// Its index in the tensor.
        index: Vec<usize>,
    },
    /// An observer without observations was asked for a range.
    #[error("observer: expected at least 1 observed value, found none: call `observe` before asking for a range")]
    EmptyCalibration,
    /// A product is so deep that an `i32` accumulator could overflow.
    #[error("depth of the product: expected at most {max}, found {found}: an i32 accumulator could overflow")]
    Depth {
        /// The greatest safe depth for these operands.
        max: usize,
        /// The depth found.
        found: usize,
    },
    /// A bias could overflow an `i32` accumulator.
    #[error(
        "bias: expected a magnitude of at most {max} in units of the accumulator, found {} at channel {channel}",
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
}
