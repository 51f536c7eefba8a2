//! Biases as the integer layers see them.

use ndarray::{Array1, ArrayRef1, Axis};

use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::ops::{ChannelParams, bias_scale, check_bias, quantize_bias};
use crate::qparams::QParams;

/// Rounds a bias to the unit of the layer's `i32` accumulator, as the integer layers do:
///
/// `y = rne(bias / (x_scale * w_scale)) * (x_scale * w_scale)`, in `f64`, rounded to `f32` once.
///
/// Integer layers ([`Linear`](crate::nn::Linear), [`Conv2d`](crate::nn::Conv2d)) keep their bias as an `i32` with scale
/// `x_scale * w_scale`. A network in training that adds the float bias to its fake-quantized products therefore differs
/// from its integer form: with few bits the unit is large, and up to a tenth of the output codes were seen to differ.
/// Pass each bias through this function to train with the values that will run. [`FakeLinear`](super::FakeLinear) does so
/// by itself. The gradient by the bias is straight-through: the gradient of `y`, unchanged. (Jacob et al., "Quantization
/// and training of neural networks for efficient integer-arithmetic-only inference", 2018, section 2.4.)
///
/// `x` holds the parameters of the layer's input, per tensor; `weights` the parameters of its weights, per tensor or per axis 0,
/// the output channels, with one bias each.
///
/// ```
/// use ndarray::{Ix2, array};
/// use ndarray_quant::{QParams, qat::fake_quantize_bias};
/// let x = QParams::<u8>::per_tensor(0.5, 128)?;
/// let weights = QParams::<i8>::per_tensor(0.25, 0)?;
/// let bias = fake_quantize_bias(&array![0.3f32, -1.0], &x, &weights)?; // in units of 1 / 8
/// assert_eq!(bias, array![0.25, -1.0]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// # Errors
/// [`Error::Params`] unless `x` is per tensor and `weights` are per tensor or per axis 0. [`Error::Shape`] if `bias`
/// has not one element per output channel. [`Error::Value`] if `bias` holds a NaN or an infinity, or a rounded bias
/// leaves `i32`.
pub fn fake_quantize_bias<X: Element, W: Element>(
    bias: &ArrayRef1<f32>,
    x: &QParams<X>,
    weights: &QParams<W>,
) -> Result<Array1<f32>> {
    let (x_scale, _) = x.of_tensor("x")?;
    let w_scales = ChannelParams::new("weights", weights, Axis(0))?.scales;
    check_bias(Some(bias), if w_scales.len() == 1 { bias.len() } else { w_scales.len() })?;
    let codes = quantize_bias(&bias.to_vec(), x_scale, &w_scales)?;
    let value = |(channel, code)| (code as f64 * bias_scale(x_scale, &w_scales, channel)) as f32;
    Ok(codes.into_iter().enumerate().map(value).collect())
}
