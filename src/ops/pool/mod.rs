//! Pooling: the maximum or the mean of each window, channel by channel.
//!
//! | file | content |
//! |---|---|
//! | `mod` | [`MaxPool`] and [`AveragePool`] |
//! | `pool_op` | the reductions of a window |
//! | `windows` | the loops over output rows, pixels and blocks of elements |

mod float;
mod global;
mod micro;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;
pub(crate) mod pool_op;
#[cfg(test)]
mod tests;
mod windows;

use ndarray::{Array4, ArrayRef4, Ix4};

use super::layout::with_nhwc;
use super::output::Output;
use super::params::check_params;
use crate::affine::{Arithmetic, Codes, unsupported};
use crate::error::{Error, ParamsError, Result, ValueError, check_shapes, elements};
use crate::gemm::{Int8, Workspace};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::window::{Placed, Window};
pub use global::GlobalAveragePool;
use pool_op::{FloatMean, IntegerMean, Max};
use windows::pool_windows;

/// Max pooling: the greatest code of each window (ONNX: `MaxPool`; TFLite: `MAX_POOL_2D`; PyTorch: `nn.MaxPool2d`).
///
/// Images are `[images, height, width, channels]` (NHWC). Codes keep their parameters, so it is exact for any input.
/// Padding is ignored.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::{nn::Window, ops::MaxPool};
/// use ndarray_quant::{QParams, QTensor};
/// let codes = Array4::from_shape_fn((1, 4, 4, 1), |(_, y, x, _)| (4 * y + x) as u8);
/// let x = QTensor::<u8, Ix4>::new(codes, QParams::per_tensor(0.1, 0)?)?;
/// let y = MaxPool::new([2, 2], &Window::new().with_strides([2, 2]))?.forward(&x)?;
/// assert_eq!(y.codes().iter().copied().collect::<Vec<_>>(), [5, 7, 13, 15]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    kernel: [usize; 2],
    window: Window,
}

impl MaxPool {
    /// Takes the height and width of the kernel, and the window.
    ///
    /// # Errors
    /// [`Error::Argument`] if a stride, a dilation or the kernel is 0.
    pub fn new(kernel: [usize; 2], window: &Window) -> Result<Self> {
        check_window(kernel, window)?;
        Ok(Self { kernel, window: *window })
    }

    /// Returns the shape of the output for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the images are 4-D. Otherwise the same as [`Window::output_size`].
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(place(images, self.kernel, &self.window)?.0)
    }

    /// Computes the maximum of each window.
    ///
    /// # Errors
    /// Same as [`Self::output_shape`].
    pub fn forward<T: Int8>(&self, x: &QTensor<T, Ix4>) -> Result<QTensor<T, Ix4>> {
        let codes = x.unpacked_codes();
        let mut out = Array4::from_elem(self.output_shape(codes.shape())?, T::default());
        self.forward_into(&codes, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, x.params().clone())
    }

    /// [`Self::forward`] of codes into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::output_shape`]. Nothing is written then.
    pub fn forward_into<T: Int8>(
        &self,
        x: &ArrayRef4<T>,
        out: &mut ArrayRef4<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (shape, placed) = place(x.shape(), self.kernel, &self.window)?;
        check_shapes("output", &shape, out.shape())?;
        with_nhwc(x, out, workspace, |x, out, _| pool_windows(x, out, shape[3], &placed, Max));
        Ok(())
    }
}

/// Average pooling: the mean of each window (ONNX Runtime: `QLinearAveragePool`; TFLite: `AVERAGE_POOL_2D`; PyTorch:
/// `nn.AvgPool2d`).
///
/// Images are `[images, height, width, channels]` (NHWC). The arithmetic of the output selects the formula:
///
/// | arithmetic | formula | source |
/// |---|---|---|
/// | [`Arithmetic::F32`] | mean of the dequantized codes in `f32`, quantized to any output parameters | ONNX Runtime |
/// | [`Arithmetic::FixedPoint`] | integer mean of the codes, halves away from zero; the output has the input's parameters | TFLite |
///
/// Padding is not counted unless [`count_include_pad`](Self::count_include_pad) is set.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::{nn::Window, ops::AveragePool};
/// use ndarray_quant::{QParams, QTensor, nn::Output};
/// let params = QParams::<u8>::per_tensor(0.5, 0)?;
/// let codes = Array4::from_shape_fn((1, 2, 2, 3), |(_, y, x, c)| (10 * c + 2 * y + x) as u8);
/// let x = QTensor::new(codes, params.clone())?;
/// let pool = AveragePool::new(&params, [2, 2], &Window::new(), &Output::to(&QParams::per_tensor(0.25, 0)?))?;
/// assert_eq!(pool.forward(&x)?.codes().iter().copied().collect::<Vec<_>>(), [3, 23, 43]); // 1.5, 11.5, 21.5, halved
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AveragePool<T: Int8> {
    x: QParams<T>,
    y: QParams<T>,
    kernel: [usize; 2],
    window: Window,
    count_include_pad: bool,
    codes: Codes,
    code_offset: i32,
    fixed_point: bool,
}

impl<T: Int8> AveragePool<T> {
    /// Prepares for input parameters, a kernel of this height and width, a window and an output.
    ///
    /// # Errors
    /// [`Error::Params`] unless all parameters are per tensor, and for fixed point if input and output have different
    /// parameters. [`Error::Argument`] for [`Arithmetic::F64`], and if a stride, a dilation or the kernel is 0.
    /// [`Error::Value`] in fixed point if the kernel is so large that a sum could overflow.
    pub fn new(x: &QParams<T>, kernel: [usize; 2], window: &Window, to: &Output<T>) -> Result<Self> {
        let (x_params, y_params) = (x.scale_zero_point("input")?, to.params.scale_zero_point("output")?);
        check_window(kernel, window)?;
        let fixed_point = match to.arithmetic {
            Arithmetic::F32 => false,
            Arithmetic::FixedPoint(_) if x_params == y_params => {
                let (count, max) = (kernel[0].saturating_mul(kernel[1]), i32::MAX as usize / 255);
                if count > max {
                    return Err(ValueError::Depth { max, found: count }.into());
                }
                true
            }
            Arithmetic::FixedPoint(_) => {
                let what = "output of a fixed-point mean";
                let (expected, found) = (x_params, y_params);
                return Err(ParamsError::Mismatch { what, of: "of the input", expected, found }.into());
            }
            other => return Err(unsupported("arithmetic of a mean", other)),
        };
        let (codes, code_offset, y) = (to.codes(), to.code_offset, to.params.clone());
        let (x, window) = (x.clone(), *window);
        Ok(Self { x, y, kernel, window, count_include_pad: false, codes, code_offset, fixed_point })
    }

    /// Counts padding as values of 0, so that every full window is divided by the size of the kernel (ONNX, PyTorch:
    /// `count_include_pad`). Pixels beyond the padding, which [`Window::with_ceil_mode`] may add, are never counted.
    pub fn count_include_pad(mut self, include: bool) -> Self {
        self.count_include_pad = include;
        self
    }

    /// The parameters of the input.
    pub fn input(&self) -> &QParams<T> {
        &self.x
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<T> {
        &self.y
    }

    /// Returns the shape of the output for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the images are 4-D. Otherwise the same as [`Window::output_size`].
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(place(images, self.kernel, &self.window)?.0)
    }

    /// Computes the mean of each window.
    ///
    /// # Errors
    /// [`Error::Params`] if `x` has another scale or zero point. Otherwise the same as [`Self::output_shape`].
    pub fn forward(&self, x: &QTensor<T, Ix4>) -> Result<QTensor<T, Ix4>> {
        check_params("input", x.params(), &self.x)?;
        let codes = x.unpacked_codes();
        let mut out = Array4::from_elem(self.output_shape(codes.shape())?, T::default());
        self.forward_into(&codes, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, self.y.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::output_shape`]. Nothing is written then.
    pub fn forward_into(&self, x: &ArrayRef4<T>, out: &mut ArrayRef4<T>, workspace: &mut Workspace) -> Result<()> {
        let (shape, placed) = place(x.shape(), self.kernel, &self.window)?;
        check_shapes("output", &shape, out.shape())?;
        let (x_params, y_params) = (self.x.scale_zero_point("input")?, self.y.scale_zero_point("output")?);
        let (channels, include, codes) = (shape[3], self.count_include_pad, self.codes);
        with_nhwc(x, out, workspace, |x, out, _| {
            if self.fixed_point && self.kernel[0] * self.kernel[1] <= i16::MAX as usize / 255 {
                pool_windows(x, out, channels, &placed, IntegerMean::<i16>::new(x_params.1, include, codes));
            } else if self.fixed_point {
                pool_windows(x, out, channels, &placed, IntegerMean::<i32>::new(x_params.1, include, codes));
            } else {
                pool_windows(
                    x,
                    out,
                    channels,
                    &placed,
                    FloatMean::new(x_params, y_params, include, codes, self.code_offset),
                );
            }
        });
        Ok(())
    }
}

/// Returns an error for windows that fit no image.
fn check_window(kernel: [usize; 2], window: &Window) -> Result<()> {
    match window.place(kernel, [i32::MAX as usize / 2; 2]) {
        // The padded image is too large, or smaller than the kernel: whether it fits depends on the image.
        Err(Error::Shape(_)) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the output shape for images of this shape, and the placed window.
fn place(images: &[usize], kernel: [usize; 2], window: &Window) -> Result<([usize; 4], Placed)> {
    let &[count, height, width, channels] = images else {
        return Err(Error::layout("image", "4-D NHWC", images));
    };
    let placed = window.place(kernel, [height, width])?;
    let output = [count, placed.output[0], placed.output[1], channels];
    elements("output of a pooling", &output)?;
    Ok((output, placed))
}
