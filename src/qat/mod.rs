//! Quantization during training: the forward pass rounds to the very grid that the integer network will use, the
//! backward pass lets the gradient through.
//!
//! | file | idea |
//! |---|---|
//! | `fake_quantize` | given parameters: forward, backward, gradients of scales and zero points |
//! | `mask` | what backward must know of forward: one bit per element |
//! | `loops` | the passes over elements |
//! | `learned` | scales and zero points that are trained (LSQ, LSQ+) |
//! | `pact` | an upper bound that is trained |
//! | `schedule` | ranges that are observed during training: observe, quantize, freeze |
//! | `batch_norm` | batch normalization folded into weights during training |

mod batch_norm;
mod bias;
mod fake_linear;
mod fake_quantize;
mod learned;
mod loops;
mod mask;
mod pact;
mod schedule;

pub use crate::affine::SteClipping;
pub use batch_norm::{BatchNormFold, BatchStatistics, FoldGradients};
pub use bias::fake_quantize_bias;
pub use fake_linear::{FakeLinear, LinearGradients, LinearPass};
pub use fake_quantize::{FakeQuantize, Gradients};
pub use learned::{GradientScale, LearnedQuantizer};
pub use mask::SteMask;
pub use pact::Pact;
pub use schedule::{Schedule, ScheduledQuantizer};
