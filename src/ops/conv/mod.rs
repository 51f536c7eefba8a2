//! Convolution of codes.
//!
//! | file | content |
//! |---|---|
//! | `weights` | weights packed once, and the integer convolution of any image with them |
//! | `depthwise` | weights and loops where every channel has a kernel of its own |
//! | `layer` | [`Conv2d`] and [`PreparedConv2d`]: scales, bias and output around it |
//! | `functions` | one-call operators by their ONNX names |

mod depthwise;
mod functions;
mod layer;
#[cfg(test)]
mod tests;
mod weights;

pub use functions::{conv_integer, qlinear_conv};
pub use layer::{Conv2d, PreparedConv2d};
