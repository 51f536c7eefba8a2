use ndarray::{Array4, ArrayRef1, ArrayRef4, Ix4};

use super::layer::PreparedConv2d;
use super::weights::ConvWeights;
use crate::element::Element;
use crate::error::Result;
use crate::gemm::{I32Epilogue, Int8, Workspace};
use crate::ops::Output;
use crate::qtensor::QTensor;
use crate::window::Window;

/// `Σ (x - x_zero) * (w - w_zero)` under a sliding kernel, in exact `i32` (ONNX: `ConvInteger`). The padding is real 0.
///
/// `x` is `[images, height, width, channels]`, `w` is `[out, kh, kw, channels / groups]` with one zero point, or one
/// per output channel. Tensors of other layouts pass as views with permuted axes.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if channels or zero points do not fit or the image is smaller than the kernel,
/// [`Error::Argument`](crate::Error::Argument) for strides, dilations or groups that no convolution has,
/// [`Error::Depth`](crate::Error::Depth) if an accumulator could overflow.
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

/// A quantized convolution in one call, the bias in units of the accumulator (ONNX: `QLinearConv`; TFLite: `CONV_2D`,
/// and with as many groups as channels `DEPTHWISE_CONV_2D`). For repeated calls prepare a [`PreparedConv2d`].
///
/// # Errors
/// Those of [`PreparedConv2d::new`] and [`PreparedConv2d::forward`].
///
/// ```
/// use ndarray::{Array4, array};
/// use ndarray_quant::{nn::{Padding, Window}, ops::qlinear_conv};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output};
/// let x = QParams::<u8, _>::per_tensor(0.1, 10)?.quantize(&Array4::from_elem((1, 4, 4, 2), 1.0f32))?;
/// let w = Scheme::<i8>::symmetric().narrow_range().quantize(&Array4::from_elem((3, 3, 3, 2), 0.5f32))?;
/// let to = Output::to(&QParams::<u8, _>::per_tensor(0.05, 0)?).relu();
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
    to: &Output<Y, Ix4>,
) -> Result<QTensor<Y, Ix4>> {
    PreparedConv2d::new(x.params(), weights, bias, window, groups, to)?.forward(x)
}
