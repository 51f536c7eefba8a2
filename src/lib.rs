//! [guide]: crate::guide
//! [numerics]: crate::numerics
#![doc = include_str!("../README.md")]
//!
//! ## Map
//!
//! | to | see |
//! |---|---|
//! | quantize a tensor by its own range | [`Scheme`], [`Quantize`] |
//! | quantize with parameters that are known | [`QParams`], [`QTensor`] |
//! | find ranges over many batches | [`Observer`], [`MinMax`], [`MovingAverage`], [`Percentile`], [`Entropy`], [`Mse`], [`HistogramObserver`] |
//! | halve a tensor | [`HalfCast`], [`HalfLinear`] |
//! | run a linear layer on codes | [`Linear`], [`PreparedLinear`], [`Output`] |
//! | train with quantization | [`FakeQuantize`], [`LearnedQuantizer`], [`Pact`], [`ScheduledQuantizer`], [`BatchNormFold`] |
//! | train a layer that becomes an integer layer | [`FakeLinear`] |
//! | call an operator by its ONNX or TFLite name | [`ops`] |
//! | quantize a whole network | [`graph`] |
//! | build on the integer product | [`gemm`] |
//! | build on single formulas | [`choose_qparams`], [`Multiplier`], [`FixedPoint`] |
//! | write a quantizer or an observer | [`Quantize`], [`Statistic`], [`Clip`](observer::Clip) |
//!
//! Public functions take `&ArrayRef<F, D>`, so that arrays and views both fit, and return owned arrays. Those that end
//! in `_into` write to memory of the caller instead.
// The README is shown where it has files beside it; here its pages are modules. Of two definitions of a link the first
// one holds, hence those above.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only kernels of x86-64 keep sums in registers"))]

extern crate alloc;

mod affine;
mod arch;
pub mod compat;
pub mod element;
mod elementwise;
mod error;
pub mod gemm;
mod granularity;
pub mod graph;
pub mod half;
#[cfg(any(feature = "onnx", feature = "safetensors"))]
pub mod io;
pub mod nn;
pub mod observer;
pub mod ops;
pub mod qat;
mod qparams;
mod qtensor;
mod quantize;
mod range;
mod scheme;
mod threads;
mod window;

pub use affine::Convention;
pub use element::dtype::DType;
pub use element::float::Float;
pub use element::integer::{Element, I2, I4, U2, U4};
pub use element::packed::Packed;
pub use error::{Error, Result};
pub use granularity::Granularity;
pub use qparams::QParams;
pub use qtensor::QTensor;
pub use quantize::{Dequantize, Quantize};
pub use scheme::Scheme;

/// The ideas, and which of them to use when.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// Every formula.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/numerics.md")]
pub mod numerics {}
