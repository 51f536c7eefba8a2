//! Quantized operators, each named for the ONNX or TFLite operator that it equals.

mod conv;
mod half_linear;
mod layout;
mod linear;
mod matmul;
mod requantize;

pub use crate::window::{Padding, Window};
pub use conv::{QConv, StaticConv, conv_integer, qlinear_conv};
pub use half_linear::HalfLinear;
pub use linear::{QLinear, StaticLinear, fully_connected};
pub use matmul::{matmul_integer, qlinear_matmul};
pub use requantize::Requantize;
