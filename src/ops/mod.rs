//! Quantized operators, each named for the ONNX or TFLite operator that it equals.

mod half_linear;
mod linear;
mod matmul;
mod requantize;

pub use half_linear::HalfLinear;
pub use linear::{QLinear, StaticLinear, fully_connected};
pub use matmul::{matmul_integer, qlinear_matmul};
pub use requantize::Requantize;
