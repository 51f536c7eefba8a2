//! Quantization during training: the forward pass rounds to the very grid that the integer network will use, the
//! backward pass lets the gradient through.
//!
//! | file | idea |
//! |---|---|
//! | `fake_quantize` | given parameters: forward, backward, gradients of scales and zero points |
//! | `mask` | what backward must know of forward: one bit per element |
//! | `loops` | the passes over elements |

mod fake_quantize;
mod loops;
mod mask;

pub use fake_quantize::{FakeQuantize, Gradients};
pub use mask::Mask;
