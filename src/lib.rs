//! [guide]: crate::guide
//! [numerics]: crate::numerics
#![doc = include_str!("../README.md")]
//!
//! ## Where to find what
//!
//! | task | see |
//! |---|---|
//! | quantize a tensor by its own range | [`Scheme`], [`QTensor`] |
//! | quantize with known parameters | [`QParams`] |
//! | quantize weights to −1, 0 and 1, or take signs | [`Ternary`], [`BinaryTensor`] |
//! | calibrate over many batches | [`observer`]: [`MinMax`](observer::MinMax), [`Entropy`](observer::Entropy), [`Mse`](observer::Mse) … |
//! | halve a tensor | [`half`]: [`HalfCast`](half::HalfCast) |
//! | use 8-bit, 6-bit and 4-bit floats | [`minifloat`]: [`F8E4M3FN`](minifloat::F8E4M3FN), [`MinifloatParams`](minifloat::MinifloatParams) … |
//! | use block formats: MX, NVFP4, NF4, ggml's | [`block`]: [`BlockTensor`](block::BlockTensor) |
//! | run linear and convolution layers on codes | [`nn`]: [`Linear`](nn::Linear), [`Conv2d`](nn::Conv2d), [`Output`](nn::Output) |
//! | quantize weights to four bits and fewer: GPTQ, AWQ, HQQ … | [`ptq`]: [`Gptq`](ptq::Gptq), [`Awq`](ptq::Awq), [`Hqq`](ptq::Hqq) … |
//! | train with quantization | [`qat`]: [`FakeQuantize`](qat::FakeQuantize), [`LearnedQuantizer`](qat::LearnedQuantizer), [`FakeLinear`](qat::FakeLinear) … |
//! | call an operator by its ONNX or TFLite name | [`ops`] |
//! | quantize a whole network | [`graph`] |
//! | run a network on a microcontroller, without a heap | [`micro`]: [`Model`](micro::Model), [`ModelBuf`](micro::ModelBuf) |
//! | measure the error: SQNR, cosine similarity | [`metrics`] |
//! | multiply integer matrices | [`gemm`] |
//! | call a formula of FBGEMM or gemmlowp | [`compat`] |
//! | compare the results of machines | [`fingerprint`](fingerprint::fingerprint) |
//! | import the names of most programs at once | [`prelude`] |
//! | write a quantizer or an observer | [`Quantize`], [`Statistic`](observer::Statistic), [`Clip`](observer::Clip) |
//!
//! Public functions take `&ArrayRef<F, D>`, which arrays and views dereference to, and return owned arrays. Functions that
//! end in `_into` write into a caller-provided array instead.
// The README links to files. Here the pages are modules, so the links are defined above it: the first definition of a
// link takes precedence.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "parts of other instruction sets, such as tiles of AMX")
)]

extern crate alloc;

mod affine;
mod binary;
pub mod block;
pub mod compat;
pub mod element;
mod elementwise;
pub mod error;
pub mod fingerprint;
pub mod gemm;
mod granularity;
pub mod graph;
pub mod half;
#[cfg(any(feature = "gguf", feature = "onnx", feature = "safetensors"))]
pub mod io;
pub mod metrics;
pub mod micro;
pub mod minifloat;
pub mod nn;
pub mod observer;
pub mod ops;
pub mod prelude;
pub mod ptq;
pub mod qat;
mod qparams;
mod qtensor;
mod quantize;
mod range;
mod scheme;
mod simd;
mod ternary;
mod threads;
mod window;

pub use affine::Convention;
pub use binary::BinaryTensor;
pub use element::dtype::DType;
pub use element::float::Float;
pub use element::integer::{Element, I2, I4, U2, U4};
pub use element::packed::Packed;
pub use error::root::{Error, Result};
pub use granularity::Granularity;
pub use qparams::QParams;
pub use qtensor::QTensor;
pub use quantize::{Dequantize, Quantize};
pub use scheme::Scheme;
pub use ternary::Ternary;

/// Guide: the ideas, and when to use them.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// Numerics: every formula.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/numerics.md")]
pub mod numerics {}

/// ONNX files: quantized networks from other systems, and for them.
#[cfg(all(feature = "onnx", feature = "std", any(doc, doctest)))]
#[doc = include_str!("../docs/onnx.md")]
pub mod onnx_files {}
