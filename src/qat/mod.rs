//! Quantization-aware training (QAT): train a network with the rounding of its integer form.
//!
//! The forward pass quantizes and dequantizes (*fake quantization*); the backward pass passes the gradient through the
//! rounding (*straight-through estimator*, STE). For 8 bits, train with ranges that are observed; below 8 bits, train the
//! scales too.
//!
//! | | scale comes from | source |
//! |---|---|---|
//! | [`FakeQuantize`] | fixed parameters | Jacob et al. 2018; PyTorch `fake_quantize_per_tensor_affine` |
//! | [`ScheduledQuantizer`] | an observer, enabled and frozen at chosen steps | PyTorch `FakeQuantize`; TensorFlow `quant_delay` |
//! | [`LearnedQuantizer`] | gradient descent, with zero points if asked for | LSQ (Esser et al. 2020), LSQ+ (Bhalgat et al. 2020) |
//! | [`Pact`] | gradient descent on the upper bound of a ReLU | PACT (Choi et al. 2018) |
//! | [`FakeTernary`] | the mean magnitude of the weights | ternary weight networks (Li et al. 2016), BitNet b1.58 (Ma et al. 2024) |
//! | [`FakeSign`] | none, or the mean magnitude of the weights | Courbariaux et al. 2016, XNOR-Net (Rastegari et al. 2016) |
//!
//! | | for |
//! |---|---|
//! | [`FakeLinear`] | a linear layer in training with exactly the codes of its integer form |
//! | [`fake_quantize_bias`] | the same exactness for layers of another framework: rounds their biases |
//! | [`BatchNormFold`] | batch normalization folded into the weights during training |
//!
//! ```
//! use ndarray::array;
//! use ndarray_quant::{QParams, qat::FakeQuantize};
//! let fake = FakeQuantize::new(QParams::<i8>::per_tensor(0.5, 0)?.with_code_range(-2, 1)?);
//! let (y, mask) = fake.forward(&array![0.3f32, -0.8, 2.0])?;
//! assert_eq!(y, array![0.5, -1.0, 0.5]); // 2.0 is clipped to the greatest code
//! assert_eq!(fake.backward(&mask, &array![1.0f32, 2.0, 3.0])?, array![1.0, 2.0, 0.0]);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```
// | file | content |
// |---|---|
// | `fake_quantize` | forward, backward and parameter gradients for given parameters |
// | `mask` | the straight-through mask, one bit per element |
// | `loops` | the elementwise forward and backward loops |
// | `fake_sign` | one bit, and ternary weights |
// | `learned`, `pact`, `schedule` | parameters that are trained or observed |
// | `bias`, `batch_norm`, `fake_linear` | layers in training |

mod batch_norm;
mod bias;
mod fake_linear;
mod fake_quantize;
mod fake_sign;
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
pub use fake_sign::{FakeSign, FakeTernary};
pub use learned::{GradientScale, LearnedQuantizer};
pub use mask::SteMask;
pub use pact::Pact;
pub use schedule::ScheduledQuantizer;
