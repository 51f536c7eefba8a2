//! placeholder
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(missing_docs)]

extern crate alloc;

mod affine;
mod arch;
mod element;
mod error;
pub mod gemm;
mod granularity;
mod observer;
pub mod ops;
mod qparams;
mod qtensor;
mod quantizer;
mod range;
mod scheme;

pub use affine::{
    Convention, FixedPoint, FixedPointRounding, Requantization, Rescale, choose_qparams, rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
};
pub use element::{Code, DType, Element, HalfFloat, I2, I4, Packed, Real, Storage, SubByte, U2, U4};
pub use error::{Error, Result};
pub use granularity::Granularity;
pub use observer::{
    BlockObserver, Entropy, Histogram, MinMax, MovingAverage, Mse, Observer, Percentile, Statistic, statistic,
};
pub use ops::{HalfLinear, QLinear, Requantize, StaticLinear};
pub use qparams::QParams;
pub use qtensor::QTensor;
pub use quantizer::{Dequantizer, HalfCast, Overflow, Quantizer};
pub use range::Ranges;
pub use scheme::Scheme;
