//! Convolutions in one call by their ONNX names.

use ndarray::{Array4, ArrayRef1, ArrayRef4, Ix4};

use super::layer::PreparedConv2d;
use super::weights::ConvWeights;
use crate::element::Element;
use crate::error::Result;
use crate::gemm::{I32Epilogue, Int8, Workspace};
use crate::ops::output::Output;
use crate::qtensor::QTensor;
use crate::window::Window;

/// Convolves in exact `i32`: `Σ (x - x_zero) * (w - w_zero)` over the kernel (ONNX: `ConvInteger`). Padding is 0.
///
/// `x` is `[images, height, width, channels]` (NHWC), `w` is `[out, kh, kw, channels / groups]` (OHWI) with one zero
/// point, or one per output channel. Pass NCHW images and OIHW weights as `permuted_axes([0, 2, 3, 1])`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) unless `x` has the channels of the weights, there are 1 or `out` zero points,
/// and the padded image is at least as large as the kernel. [`Error::Argument`](crate::Error::Argument) if a stride, a
/// dilation or the kernel is 0, or `groups` does not divide the output channels. [`Error::Value`](crate::Error::Value)
/// if an accumulator could overflow.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{nn::Window, ops::conv_integer};
/// let x = array![[[[2u8], [3], [4]], [[5], [6], [7]], [[8], [9], [10]]]];
/// let w = array![[[[1u8], [1]], [[1], [1]]]];
/// let y = conv_integer(&x, 1, &w, &[0], &Window::new(), 1)?;
/// assert_eq!(y, array![[[[12], [16]], [[24], [28]]]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn conv_integer<X: Int8, W: Int8>(
    x: &ArrayRef4<X>,
    x_zero_point: X,
    w: &ArrayRef4<W>,
    w_zero_points: &[W],
    window: &Window,
    groups: usize,
) -> Result<Array4<i32>> {
    let weights = ConvWeights::new(w, w_zero_points, *window, groups)?;
    let mut y = Array4::zeros(weights.place(x.shape())?.0);
    weights.run(x, x_zero_point, &I32Epilogue::new(), &mut y, &mut Workspace::new())?;
    Ok(y)
}

/// Computes a quantized convolution in one call (ONNX: `QLinearConv`; TFLite: `CONV_2D`, and with one group per
/// channel `DEPTHWISE_CONV_2D`).
///
/// `x` is NHWC, the weights are OHWI, the bias `[out]` is in units of the accumulator, `x_scale * w_scale`. The weights
/// are packed in every call; for repeated calls prepare a [`PreparedConv2d`].
///
/// # Errors
/// Same as [`PreparedConv2d::new`] and [`PreparedConv2d::forward`].
///
/// ```
/// use ndarray::{Array4, array};
/// use ndarray_quant::{nn::{Padding, Window}, ops::qlinear_conv};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output};
/// let x = QParams::<u8>::per_tensor(0.1, 10)?.quantize(&Array4::from_elem((1, 4, 4, 2), 1.0f32))?;
/// let w = Scheme::<i8>::symmetric().narrow_range().quantize(&Array4::from_elem((3, 3, 3, 2), 0.5f32))?;
/// let to = Output::to(&QParams::<u8>::per_tensor(0.05, 0)?).relu();
/// let window = Window::new().with_padding(Padding::Same);
/// let y = qlinear_conv(&x, &w, Some(&array![0, 0, 0]), &window, 1, &to)?;
/// assert_eq!(y.codes()[[0, 1, 1, 2]], 180); // 18 products of 1 and 0.5
/// assert_eq!(y.codes()[[0, 0, 0, 2]], 80); // 8, at a corner
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn qlinear_conv<X: Int8, W: Int8, Y: Element>(
    x: &QTensor<X, Ix4>,
    weights: &QTensor<W, Ix4>,
    bias: Option<&ArrayRef1<i32>>,
    window: &Window,
    groups: usize,
    to: &Output<Y>,
) -> Result<QTensor<Y, Ix4>> {
    PreparedConv2d::new(x.params(), weights, bias, window, groups, to)?.forward(x)
}
