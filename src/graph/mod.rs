//! Networks: a float network of operators over named tensors, and the way from there to integers.
//!
//! ```text
//! GraphBuilder or ONNX → Graph → simplify → Calibration → Recipe → quantize → QuantizedNetwork → run
//!                                  └→ compile → FloatNetwork → run                   └→ report
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `op`, `shape` | what operators there are, and the shapes that they make |
//! | `network`, `builder` | operators over named tensors, checked; written in Rust |
//! | `fold` | fewer operators that compute the same |
//! | `kernel`, `plan`, `buffers`, `layout`, `compile` | steps over buffers that tensors share; the order in memory |
//! | `movement`, `real/` | operators that only move elements, and those on floats |
//! | `recipe`, `calibrate` | how each tensor is kept; ranges from batches |
//! | `moments`, `rounding` | what inputs of layers are like, and the codes of weights that suit it |
//! | `equalize` | the same function with channels of more equal range |
//! | `quantize`, `stored` | weights in fewer bits |
//! | `codes`, `code_ops`, `lower`, `qnetwork` | operators on codes; the plan on codes, and its simulation on floats |
//! | `mixed` | precision where it matters, under a budget |
//! | `report` | which layer hurts |

mod buffers;
mod builder;
mod calibrate;
mod code_ops;
mod codes;
mod compile;
mod equalize;
mod fold;
mod kernel;
mod layout;
mod lower;
mod mixed;
mod moments;
mod movement;
mod network;
mod op;
mod plan;
mod qnetwork;
mod quantize;
mod real;
mod recipe;
mod report;
mod rounding;
mod shape;
mod stored;

#[doc(no_inline)]
pub use crate::window::{Padding, Window};
pub use builder::GraphBuilder;
pub use calibrate::{Calibration, calibrate};
pub use compile::FloatNetwork;
pub use equalize::ChannelRanges;
pub use mixed::Budget;
pub use moments::InputMoments;
#[cfg(feature = "safetensors")]
pub(crate) use network::Parts;
pub use network::{Constant, Graph, Input, Node};
pub use op::{Activation, Clamp, Op};
pub use plan::Memory;
pub use qnetwork::QuantizedNetwork;
pub use recipe::{Precision, Recipe, TensorRecipe};
pub use report::{ErrorReport, Fidelity, LayerReport};
#[cfg(feature = "safetensors")]
pub(crate) use stored::Stored;
