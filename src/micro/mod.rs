//! Full-integer networks on microcontrollers, without a heap.
//!
//! The host writes a quantized network to bytes, [`QuantizedNetwork::to_micro`](crate::graph::QuantizedNetwork::to_micro), and
//! tells the flash and the RAM that each node will take: a [`ModelBuf`]. Firmware holds the bytes in flash and reads them in
//! place, [`Model`], with activations in an arena that the caller provides. Both compute the same codes.
//!
//! ```
//! use ndarray_quant::micro::{Model, ModelError, Sizes};
//!
//! # macro_rules! include_bytes { ($name:literal) => { b"NDQM\x01\0\0\0\x30\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\0\0\0\x80\x3f\0\0\0\0" } }
//! static MODEL: &[u8] = include_bytes!("model.bin");
//! const SIZES: Sizes = match Sizes::of(MODEL) {
//!     Ok(sizes) => sizes,
//!     Err(_) => panic!("no model"),
//! };
//!
//! /// The class of the greatest score.
//! fn classify(image: &[u8; SIZES.input]) -> Result<usize, ModelError> {
//!     let (mut scores, mut arena) = ([0; SIZES.output], [0; SIZES.arena]);
//!     Model::new(MODEL)?.run(image, &mut scores, &mut arena)?;
//!     Ok((0..scores.len()).max_by_key(|&class| scores[class]).unwrap_or(0))
//! }
//! ```
//!
//! `integrations/cortex-m` has firmware for a Cortex-M4, with its flash, RAM and instructions.
//!
//! # What a model can compute
//!
//! Networks of one input and one output, both kept as codes, and between them only nodes that compute on codes:
//!
//! | nodes | step of the model |
//! |---|---|
//! | `Conv`, `Linear`: groups, depthwise, strides, dilations, padding; `i8` and 4-bit weights without zero points | convolution |
//! | `MaxPool`, `AveragePool`, `GlobalAveragePool` | pooling |
//! | `Add`, `Sub`, `Mul`; one operand may be constant, a number, or one for each channel | sum, product |
//! | functions of one tensor: `Sigmoid`, `HardSwish`, … | table of 256 codes |
//! | `Transpose`, `Reshape`, `Slice`, … and `Concat`, if a few nested loops copy the elements | copy |
//!
//! An activation such as ReLU is fused into the node before it by
//! [`Graph::simplify`](crate::graph::Graph::simplify). For other nodes, `to_micro` returns an error that names the node.
//! Leave a softmax out: the greatest code has the greatest probability.
//!
//! # Numbers
//!
//! Arithmetic is that of the network: integers, and `f32` in the output stage. No instruction on `f64` runs. A Cortex-M4F
//! or better computes `f32` in hardware; smaller cores do it in software, to the same bits.

// | file | content |
// |---|---|
// | `format`, `error` | header, visitors of the fields of steps, checks of memory |
// | `model`, `memory` | the reader; what a step borrows |
// | `conv`, `pool`, `binary`, `copy` | the kinds of steps |
// | `write`, `arena` | the writer; places of tensors |
//
// `graph/micro` translates a network.

mod arena;
mod binary;
mod conv;
mod copy;
mod error;
mod format;
mod memory;
mod model;
mod pool;
mod write;

pub(crate) use binary::{Add, Mul, Operand, Operands};
pub(crate) use conv::Conv;
pub(crate) use copy::StridedCopy;
pub use error::ModelError;
pub(crate) use format::Region;
pub use format::Sizes;
pub use model::Model;
pub(crate) use model::Step;
pub(crate) use pool::{AveragePool, GlobalAveragePool, Windows};
pub use write::{ModelBuf, NodeMemory};
pub(crate) use write::{ModelWriter, StepWriter, Unsupported, Written};
