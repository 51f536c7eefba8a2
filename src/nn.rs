//! Layers with quantized weights: linear and 2-D convolution, linear in groups of few bits, and linear with half-precision
//! weights.
//!
//! | layer | weights | PyTorch | TFLite |
//! |---|---|---|---|
//! | [`Linear`] | `[out, in]`, 8 bits or fewer, per tensor or per output | `nn.Linear` | `FULLY_CONNECTED` |
//! | [`Conv2d`] | `[out, kh, kw, in / groups]`, 8 bits or fewer, per tensor or per output channel | `nn.Conv2d` | `CONV_2D`, `DEPTHWISE_CONV_2D` |
//! | [`LinearNBits`] | `[out, in]`, 2, 4 or 8 bits, in groups along the depth | torchao's `Int4WeightOnlyConfig` | |
//! | [`BinaryLinear`], [`BinaryConv2d`] | signs, one bit each, as are the activations | | Larq's `QuantDense`, `QuantConv2D` |
//! | [`HalfLinear`] | `[out, in]`, `f16` or `bf16` | `nn.Linear` in half precision | |
//!
//! A layer packs its weights when it is made. Choose the form by what the layer reads and writes:
//!
//! | input | output | form | needs | use it for |
//! |---|---|---|---|---|
//! | codes | codes | [`prepare`](Linear::prepare), then [`PreparedLinear::forward`] | calibrated input and output parameters | full-integer networks |
//! | codes | codes | [`forward`](Linear::forward) | the same | a single call |
//! | codes | `f32` | [`forward_dequantize`](Linear::forward_dequantize) | calibrated input parameters | the last layer |
//! | `f32` | `f32` | [`forward_dynamic`](Linear::forward_dynamic) | nothing | dynamic quantization: no calibration |
//! | `f32` | `f32` | [`forward_dynamic_per_row`](Linear::forward_dynamic_per_row) | nothing | rows with different ranges, such as tokens (linear only) |
//! | `f32` | `f32` | [`LinearNBits::forward_dynamic`], [`LinearNBits::forward`] | nothing | large layers, a quarter or an eighth of the memory of `i8` or `f32` |
//! | `f32` | `f32` | [`HalfLinear::forward`] | nothing | half the memory at almost the accuracy of `f32` |
//!
//! Every form has an `_into` variant that writes into a caller-provided array. With a reused
//! [`Workspace`](crate::gemm::Workspace) it allocates nothing once the workspace has grown.
//!
//! [`Output`] describes the output codes of a layer: their parameters, a fused activation, and the [`Arithmetic`] that
//! multiplies accumulators by the [`Multiplier`] `x_scale * w_scale / y_scale`. [`Window`] and [`Padding`] describe how
//! a kernel slides over an image.
//!
//! ```
//! use ndarray::{Axis, array};
//! use ndarray_quant::{QParams, Quantize, Scheme, nn::{Linear, Output}};
//!
//! let weights = array![[1.0f32, -1.0], [0.5, 0.25]];
//! let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&weights)?;
//! let layer = Linear::new(&w, Some(&array![0.5, -4.0]))?;
//! let x = array![[2.0f32, 1.0]];
//! let y = layer.forward_dynamic(&x)?; // f32 to f32: near [1.5, -2.75]
//! assert!((y[[0, 0]] - 1.5).abs() < 0.02);
//!
//! let (x_params, y_params) = (QParams::<u8>::per_tensor(0.01, 0)?, QParams::<u8>::per_tensor(0.02, 0)?);
//! let layer = layer.prepare(&x_params, &Output::to(&y_params).relu().integer_only())?; // codes to codes
//! assert_eq!(layer.forward(&x_params.quantize(&x)?)?.codes(), array![[75, 0]]);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

pub use crate::affine::{Arithmetic, Multiplier};
pub use crate::ops::conv::{Conv2d, PreparedConv2d};
pub use crate::ops::half_linear::HalfLinear;
pub use crate::ops::linear::{Linear, LinearNBits, PreparedLinear};
pub use crate::ops::output::Output;
pub use crate::ops::xnor::{BinaryConv2d, BinaryLinear};
pub use crate::window::{Padding, Window};
