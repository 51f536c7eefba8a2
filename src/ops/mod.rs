//! Quantized operators, each named for the ONNX or TFLite operator that it equals.

mod conv;
mod elementwise;
mod fake_linear;
mod global_pool;
mod half_linear;
mod layout;
mod linear;
mod lookup;
mod matmul;
mod pool;
mod requantize;
mod shape;
mod softmax;
mod transpose;

pub use crate::window::{Padding, Window};
pub use conv::{QConv, StaticConv, conv_integer, qlinear_conv};
pub use elementwise::{QAdd, QMul};
pub use fake_linear::{FakeLinear, LinearGradients, LinearPass};
pub use global_pool::GlobalAveragePool;
pub use half_linear::HalfLinear;
pub use linear::{QLinear, StaticLinear, fully_connected};
pub use lookup::Lookup;
pub use matmul::{matmul_integer, qlinear_matmul};
pub use pool::{AveragePool, max_pool, max_pool_into};
pub use requantize::Requantize;
pub use shape::{Concat, Nearest, flatten, pad, pad_into, reshape, resize_nearest, resize_nearest_into};
pub use softmax::Softmax;
