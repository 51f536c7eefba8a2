//! Networks: a float network of operators over named tensors, and the way from there to integers.
//!
//! ```text
//! GraphBuilder or ONNX → Graph → simplify → compile → run
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `op`, `shape` | what operators there are, and the shapes that they make |
//! | `network`, `builder` | operators over named tensors, checked; written in Rust |
//! | `fold` | fewer operators that compute the same |
//! | `plan`, `layout`, `compile` | steps over buffers that tensors share; the order in memory |
//! | `movement`, `real/` | the operators themselves: those that only move elements, and those on floats |

mod builder;
mod compile;
mod fold;
mod layout;
mod movement;
mod network;
mod op;
mod plan;
mod real;
mod shape;

pub use builder::GraphBuilder;
pub use compile::FloatNetwork;
pub use network::{Constant, Graph, Input, Node};
pub use op::{Activation, Clamp, Op, Window};
pub use plan::Memory;
