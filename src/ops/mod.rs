//! Quantized operators, each named for the ONNX or TFLite operator that it equals.
//!
//! | operator | ONNX, ONNX Runtime | TFLite | on |
//! |---|---|---|---|
//! | [`matmul_integer`], [`qlinear_matmul`] | `MatMulInteger`, `QLinearMatMul` | | matrices |
//! | [`Linear`], [`PreparedLinear`], [`fully_connected`] | | `FULLY_CONNECTED` | `[batch, in]`, weights `[out, in]` |
//! | [`HalfLinear`] | | | the same, with half-precision weights |
//! | [`conv_integer`], [`qlinear_conv`], [`Conv2d`], [`PreparedConv2d`] | `ConvInteger`, `QLinearConv` | `CONV_2D`, `DEPTHWISE_CONV_2D` | images, weights `[out, kh, kw, in / groups]` |
//! | [`max_pool`], [`AveragePool`] | `MaxPool`, `QLinearAveragePool` | `MAX_POOL_2D`, `AVERAGE_POOL_2D` | images |
//! | [`GlobalAveragePool`] | `QLinearGlobalAveragePool` | | images |
//! | [`Add`], [`Mul`] | `QLinearAdd`, `QLinearMul` | `ADD`, `MUL` | any tensors that broadcast |
//! | [`Lookup`] | `QLinearSigmoid`, `QLinearLeakyRelu` | `LOGISTIC`, `TANH`, `HARD_SWISH`, `QUANTIZE` | any tensor |
//! | [`Softmax`] | `QLinearSoftmax` | `SOFTMAX` | the last axis |
//! | [`Concat`] | `QLinearConcat` | `CONCATENATION` | any axis |
//! | [`pad`], [`resize_nearest`], [`reshape`], [`flatten`] | `Pad`, `Resize`, `Reshape`, `Flatten` | `PAD`, `RESIZE_NEAREST_NEIGHBOR`, `RESHAPE` | any tensor; images |
//!
//! Images are `[images, height, width, channels]`; other layouts come as views with permuted axes. Whoever runs an
//! operator more than once prepares it, with the parameters of its inputs and what comes out as [`Output`] says,
//! and calls the form that ends in `_into`, which writes to memory of the caller. The [numerics](crate::numerics) page
//! has all formulas.

mod binary;
mod broadcast;
pub(crate) mod conv;
mod global_pool;
pub(crate) mod half_linear;
mod layout;
pub(crate) mod linear;
mod lookup;
mod matmul;
mod pool;
pub(crate) mod requantize;
mod shape;
mod softmax;
mod stage;

pub use binary::{Add, Mul};
pub(crate) use conv::{Conv2d, PreparedConv2d};
pub use conv::{conv_integer, qlinear_conv};
pub use global_pool::GlobalAveragePool;
pub(crate) use layout::copy_to_nhwc;
pub use linear::fully_connected;
pub use lookup::Lookup;
pub(crate) use matmul::ChannelParams;
pub use matmul::{matmul_integer, qlinear_matmul};
pub use pool::{AveragePool, max_pool, max_pool_into};
pub(crate) use requantize::Output;
pub(crate) use shape::of_other_rank;
pub use shape::{Concat, Nearest, flatten, pad, pad_into, reshape, resize_nearest, resize_nearest_into};
pub use softmax::Softmax;
pub(crate) use stage::{bias_scale, check_bias, quantize_bias};
