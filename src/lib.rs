//! [guide]: crate::guide
//! [numerics]: crate::numerics
#![doc = include_str!("../README.md")]
//!
//! ## Map
//!
//! | to | see |
//! |---|---|
//! | quantize a tensor by its own range | [`Scheme`], [`Quantizer`] |
//! | quantize with parameters that are known | [`QParams`], [`QTensor`] |
//! | find ranges over many batches | [`Observer`], [`MinMax`], [`MovingAverage`], [`Percentile`], [`Entropy`], [`Mse`], [`Histogram`] |
//! | halve a tensor | [`HalfCast`], [`HalfLinear`] |
//! | run a linear layer on codes | [`QLinear`], [`StaticLinear`], [`Requantize`] |
//! | train with quantization | [`FakeQuantize`], [`LearnedQuantizer`], [`Pact`], [`ScheduledQuantizer`], [`BatchNormFold`] |
//! | train a layer that becomes an integer layer | [`FakeLinear`] |
//! | call an operator by its ONNX or TFLite name | [`ops`] |
//! | quantize a whole network | [`graph`] |
//! | build on the integer product | [`gemm`] |
//! | build on single formulas | [`choose_qparams`], [`Rescale`], [`FixedPoint`] |
//! | write a quantizer or an observer | [`Quantizer`], [`Statistic`], [`Clip`](statistic::Clip) |
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
mod element;
mod error;
mod fake_quant;
#[cfg(any(feature = "onnx", feature = "safetensors"))]
pub mod format;
pub mod gemm;
mod granularity;
pub mod graph;
mod lanes;
mod observer;
pub mod ops;
mod qparams;
mod qtensor;
mod quantizer;
mod range;
mod scheme;
mod threads;
mod window;

pub use affine::{
    Clipping, Convention, FixedPoint, FixedPointRounding, Requantization, Rescale, choose_qparams,
    rounding_divide_by_pot, saturating_rounding_doubling_high_mul,
};
pub use element::{Code, DType, Element, HalfFloat, I2, I4, Packed, Real, Storage, SubByte, U2, U4};
pub use error::{Error, Result};
pub use fake_quant::{
    BatchNormFold, BatchStatistics, FakeQuantize, FoldGradients, GradientFactor, Gradients, LearnedQuantizer, Mask,
    Pact, Phase, Schedule, ScheduledQuantizer, project_scale,
};
pub use granularity::Granularity;
pub use observer::{
    BlockObserver, Entropy, Histogram, MinMax, MovingAverage, Mse, Observer, Percentile, Statistic, statistic,
};
pub use ops::{FakeLinear, HalfLinear, LinearGradients, LinearPass, QLinear, Requantize, StaticLinear};
pub use qparams::QParams;
pub use qtensor::QTensor;
pub use quantizer::{Dequantizer, HalfCast, Overflow, Quantizer};
pub use range::Ranges;
pub use scheme::Scheme;

/// The ideas, and which of them to use when.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// Every formula.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/numerics.md")]
pub mod numerics {}
