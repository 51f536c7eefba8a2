//! Layers: linear and convolution with integer weights, and linear with half-precision weights.

pub use crate::affine::{Arithmetic, Multiplier};
pub use crate::ops::conv::{Conv2d, PreparedConv2d};
pub use crate::ops::half_linear::HalfLinear;
pub use crate::ops::linear::{Linear, PreparedLinear};
pub use crate::ops::requantize::Output;
pub use crate::window::{Padding, Window};
