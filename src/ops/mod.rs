//! Quantized operators under the names of ONNX, TFLite and PyTorch.
//!
//! | operator | ONNX, ONNX Runtime | TFLite | PyTorch | works on |
//! |---|---|---|---|---|
//! | [`matmul_integer`], [`qlinear_matmul`] | `MatMulInteger`, `QLinearMatMul` | | `torch._int_mm` | matrices |
//! | [`fully_connected`] | | `FULLY_CONNECTED` | `nn.Linear` | `[batch, in]`, weights `[out, in]` |
//! | [`conv_integer`], [`qlinear_conv`] | `ConvInteger`, `QLinearConv` | `CONV_2D`, `DEPTHWISE_CONV_2D` | `nn.Conv2d` | images, weights `[out, kh, kw, in / groups]` |
//! | [`MaxPool`] | `MaxPool` | `MAX_POOL_2D` | `nn.MaxPool2d` | images |
//! | [`AveragePool`] | `QLinearAveragePool` | `AVERAGE_POOL_2D` | `nn.AvgPool2d` | images |
//! | [`GlobalAveragePool`] | `QLinearGlobalAveragePool` | `MEAN` | `nn.AdaptiveAvgPool2d` | images |
//! | [`Add`], [`Mul`] | `QLinearAdd`, `QLinearMul` | `ADD`, `MUL` | `add`, `mul` | tensors that broadcast |
//! | [`Lookup`] | `QLinearSigmoid`, `QLinearLeakyRelu` | `LOGISTIC`, `TANH`, `HARD_SWISH`, `GELU`, `QUANTIZE` | `nn.Sigmoid`, `nn.Tanh`, `nn.Hardswish`, … | tensors |
//! | [`Softmax`] | `QLinearSoftmax` | `SOFTMAX` | `nn.Softmax` | the last axis |
//! | [`Concat`] | `QLinearConcat` | `CONCATENATION` | `cat` | any axis |
//! | [`Pad`] | `Pad` | `PAD` | `pad` | tensors |
//! | [`Resize`] | `Resize` (nearest) | `RESIZE_NEAREST_NEIGHBOR` | `interpolate` (nearest) | images |
//! | [`QTensor::into_shape`](crate::QTensor::into_shape), [`QTensor::flatten`](crate::QTensor::flatten) | `Reshape`, `Flatten` | `RESHAPE` | `reshape`, `flatten` | tensors |
//!
//! Images are `[images, height, width, channels]` (NHWC). Pass other layouts as views with permuted axes.
//!
//! The functions prepare and compute in one call. The types are prepared once for the parameters of input and output
//! and then applied to any number of tensors: `forward` takes and returns a [`QTensor`](crate::QTensor), `forward_into`
//! takes codes and writes into a caller-provided array. [`nn`](crate::nn) has linear and convolution layers in this
//! form. An operator that changes values takes its output as [`Output`]: parameters, arithmetic, and
//! fused activation. The [numerics](crate::numerics) page lists all formulas.
//!
//! ```
//! use ndarray::array;
//! use ndarray_quant::{QParams, Quantize, nn::Output, ops::{Add, Lookup}};
//!
//! let a = QParams::<u8>::per_tensor(0.05, 128)?.quantize(&array![[1.0f32, -2.0]])?;
//! let b = QParams::<u8>::per_tensor(0.02, 0)?.quantize(&array![[0.5f32, 3.0]])?;
//! let add = Add::new(a.params(), b.params(), &Output::to(&QParams::per_tensor(0.05, 128)?))?;
//! let sigmoid = Lookup::sigmoid(add.output(), &QParams::<u8>::per_tensor(1.0 / 256.0, 0)?)?;
//! let y = sigmoid.forward(&add.forward(&a, &b)?)?;
//! assert_eq!(y.codes(), array![[209, 187]]); // sigmoid(1.5), sigmoid(1.0)
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

pub(crate) mod arg_max;
mod batch_norm;
pub(crate) mod binary;
pub(crate) mod clamp;
mod concat;
pub(crate) mod conv;
pub(crate) mod depth_to_space;
mod dynamic_lhs;
pub(crate) mod expand;
mod float_matmul;
pub(crate) mod float_weights;
mod gather;
mod hadamard;
pub(crate) mod half_linear;
pub(crate) mod index;
pub(crate) mod integer_layer;
mod interpolate;
pub(crate) mod kernel;
mod layer_norm;
mod layout;
pub(crate) mod linear;
mod matmul;
mod movement;
pub(crate) mod nhwc;
pub(crate) mod operator;
pub(crate) mod output;
pub(crate) mod output_stage;
mod pad;
mod params;
pub(crate) mod pool;
pub(crate) mod quantize;
mod recurrent;
pub(crate) mod reduce;
pub(crate) mod registry;
pub(crate) mod reshape;
mod resize;
mod select;
pub(crate) mod shape;
pub(crate) mod slice;
mod softmax;
pub(crate) mod transpose;
pub(crate) mod unary;
pub(crate) mod xnor;

pub use binary::{Add, Mul};
pub use concat::Concat;
pub(crate) use conv::{Conv2d, Geometry};
pub use conv::{conv_integer, qlinear_conv};
pub(crate) use float_matmul::{float_matmul, float_product};
pub use linear::fully_connected;
pub use matmul::{matmul_integer, qlinear_matmul};
pub(crate) use output::Output;
pub(crate) use output_stage::{bias_scale, check_bias, quantize_bias};
pub use pad::Pad;
pub(crate) use params::ChannelParams;
pub use pool::{AveragePool, GlobalAveragePool, MaxPool};
pub use resize::{NearestMode, Resize};
pub use softmax::Softmax;
pub use unary::Lookup;
