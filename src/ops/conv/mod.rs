//! Quantized convolution.
//!
//! | file | content |
//! |---|---|
//! | `weights` | packed weights and the exact integer convolution: one GEMM per group by im2col, or depthwise |
//! | `im2col` | the rows of a product's LHS: the windows of an image |
//! | `depthwise` | depthwise convolution: one kernel per channel |
//! | `layer` | [`Conv2d`] and [`PreparedConv2d`]: scales, bias and output stage |
//! | `float`, `float_depthwise` | kernels on floats |
//! | `op` | the operator of graphs |
//! | `functions` | one-call operators by their ONNX names |

mod depthwise;
mod float;
mod float_depthwise;
mod functions;
mod im2col;
mod layer;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use float::Geometry;
pub use functions::{conv_integer, qlinear_conv};
pub use layer::{Conv2d, PreparedConv2d};
