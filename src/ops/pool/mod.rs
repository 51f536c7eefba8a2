//! Pooling: the greatest or the mean code of each window, channel by channel.

mod pool_op;
#[cfg(test)]
mod tests;
mod windows;

use ndarray::{Array4, ArrayRef4, Ix4};

use super::layout::with_nhwc;
use super::requantize::{Output, check_params};
use crate::affine::{Arithmetic, Codes, unsupported};
use crate::error::{Error, Result, elements};
use crate::gemm::{Int8, Workspace};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::window::{Placed, Window};
use pool_op::{FloatMean, IntegerMean, Max};
use windows::pool_windows;

/// The greatest code of each window (ONNX: `MaxPool`; TFLite: `MAX_POOL_2D`). Parameters stay; the padding counts for
/// nothing.
///
/// Images are `[images, height, width, channels]`.
///
/// # Errors
/// Those of [`max_pool_into`].
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::{nn::Window, ops::max_pool};
/// use ndarray_quant::{QParams, QTensor};
/// let codes = Array4::from_shape_fn((1, 4, 4, 1), |(_, y, x, _)| (4 * y + x) as u8);
/// let x = QTensor::<u8, Ix4>::new(codes, QParams::per_tensor(0.1, 0)?)?;
/// let y = max_pool(&x, [2, 2], &Window::new().with_strides([2, 2]))?;
/// assert_eq!(y.codes().iter().copied().collect::<Vec<_>>(), [5, 7, 13, 15]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn max_pool<T: Int8>(x: &QTensor<T, Ix4>, kernel: [usize; 2], window: &Window) -> Result<QTensor<T, Ix4>> {
    let codes = x.unpacked_codes();
    let mut out = Array4::from_elem(pooled_shape(codes.shape(), kernel, window)?, T::default());
    max_pool_into(&codes, kernel, window, &mut out, &mut Workspace::new())?;
    QTensor::from_codes(out, x.params().clone())
}

/// [`max_pool`] of codes into memory that exists. Any strides.
///
/// # Errors
/// [`Error::Shape`] if `out` has another shape or the padded image is smaller than the kernel, and those of
/// [`Window::output_size`].
pub fn max_pool_into<T: Int8>(
    x: &ArrayRef4<T>,
    kernel: [usize; 2],
    window: &Window,
    out: &mut ArrayRef4<T>,
    workspace: &mut Workspace,
) -> Result<()> {
    let placed = placed_for(x, kernel, window, out)?;
    let channels = x.dim().3;
    with_nhwc(x, out, workspace, |x, out, _| {
        pool_windows(x, out, channels, &placed, Max);
    });
    Ok(())
}

/// The mean of each window (ONNX Runtime: `QLinearAveragePool`; TFLite: `AVERAGE_POOL_2D`).
///
/// The arithmetic decides whose formula it is. [`Arithmetic::F32`] is that of ONNX Runtime: the mean of
/// reals, in `f32`, to any output. [`Arithmetic::FixedPoint`] is that of TFLite: the mean of codes, halves away
/// from zero, whose output has the parameters of the input. Padding does not count, unless
/// [`count_include_pad`](Self::count_include_pad) has it count as real zeros.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::{nn::Window, ops::AveragePool};
/// use ndarray_quant::{QParams, QTensor, nn::Output};
/// let params = QParams::<u8, Ix4>::per_tensor(0.5, 0)?;
/// let codes = Array4::from_shape_fn((1, 2, 2, 3), |(_, y, x, c)| (10 * c + 2 * y + x) as u8);
/// let x = QTensor::new(codes, params.clone())?;
/// let pool = AveragePool::new(&params, [2, 2], &Window::new(), &Output::to(&QParams::per_tensor(0.25, 0)?))?;
/// assert_eq!(pool.forward(&x)?.codes().iter().copied().collect::<Vec<_>>(), [3, 23, 43]); // 1.5, 11.5, 21.5, halved
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AveragePool<T: Int8> {
    x: QParams<T, Ix4>,
    y: QParams<T, Ix4>,
    kernel: [usize; 2],
    window: Window,
    include_pad: bool,
    codes: Codes,
    in_integers: bool,
}

impl<T: Int8> AveragePool<T> {
    /// For images with these parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all parameters are per tensor, [`Error::Argument`] for an arithmetic in `f64`, or for
    /// one in integers if the output has other parameters than the input, [`Error::Depth`] in integers if the kernel has
    /// so many taps that a sum could overflow.
    pub fn new(x: &QParams<T, Ix4>, kernel: [usize; 2], window: &Window, to: &Output<T, Ix4>) -> Result<Self> {
        let (x_pair, y_pair) = (x.pair("parameters of the input")?, to.params.pair("parameters of the output")?);
        let in_integers = match to.arithmetic {
            Arithmetic::F32 => false,
            Arithmetic::FixedPoint(_) if x_pair == y_pair => {
                let (taps, max) = (kernel[0].saturating_mul(kernel[1]), i32::MAX as usize / 255);
                if taps > max {
                    return Err(Error::Depth { max, found: taps });
                }
                true
            }
            Arithmetic::FixedPoint(_) => {
                return Err(Error::Argument {
                    what: "output of a mean in integers",
                    expected: "the scale and zero point of the input",
                    found: alloc::format!("{y_pair:?}, not {x_pair:?}"),
                });
            }
            other => return Err(unsupported("arithmetic of a mean", other)),
        };
        let (codes, y) = (to.codes(), to.params.clone());
        Ok(Self { x: x.clone(), y, kernel, window: *window, include_pad: false, codes, in_integers })
    }

    /// With the padding counted as real zeros (ONNX: `count_include_pad`). What [`Window::ceil`] lets a kernel cover
    /// beyond the padding does not count.
    pub fn count_include_pad(mut self, include: bool) -> Self {
        self.include_pad = include;
        self
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<T, Ix4> {
        &self.y
    }

    /// `[images, height, width, channels]` to the means of all windows.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` has other parameters, and those of [`Window::output_size`].
    pub fn forward(&self, x: &QTensor<T, Ix4>) -> Result<QTensor<T, Ix4>> {
        check_params(x.params(), &self.x)?;
        let codes = x.unpacked_codes();
        let mut out = Array4::from_elem(pooled_shape(codes.shape(), self.kernel, &self.window)?, T::default());
        self.forward_into(&codes, &mut out, &mut Workspace::new())?;
        QTensor::from_codes(out, self.y.clone())
    }

    /// [`Self::forward`] of codes into memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape, and those of [`Window::output_size`].
    pub fn forward_into(&self, x: &ArrayRef4<T>, out: &mut ArrayRef4<T>, workspace: &mut Workspace) -> Result<()> {
        let window = placed_for(x, self.kernel, &self.window, out)?;
        let (x_pair, y_pair) = (self.x.pair("parameters of the input")?, self.y.pair("parameters of the output")?);
        let (channels, codes) = (x.dim().3, self.codes);
        let include_pad = self.include_pad;
        with_nhwc(x, out, workspace, |x, out, _| {
            if self.in_integers && self.kernel[0] * self.kernel[1] <= i16::MAX as usize / 255 {
                pool_windows(x, out, channels, &window, IntegerMean::<i16>::new(x_pair.1, include_pad, codes));
            } else if self.in_integers {
                pool_windows(x, out, channels, &window, IntegerMean::<i32>::new(x_pair.1, include_pad, codes));
            } else {
                pool_windows(x, out, channels, &window, FloatMean::new(x_pair, y_pair, include_pad, codes));
            }
        });
        Ok(())
    }
}

fn pooled_shape(image: &[usize], kernel: [usize; 2], window: &Window) -> Result<[usize; 4]> {
    let [height, width] = window.output_size(kernel, [image[1], image[2]])?;
    let output = [image[0], height, width, image[3]];
    elements("output of a pooling", &output)?;
    Ok(output)
}

fn placed_for<T>(x: &ArrayRef4<T>, kernel: [usize; 2], window: &Window, out: &ArrayRef4<T>) -> Result<Placed> {
    let shape = pooled_shape(x.shape(), kernel, window)?;
    if out.shape() != shape {
        return Err(Error::shape("output", &shape, out.shape()));
    }
    window.place(kernel, [x.dim().1, x.dim().2])
}
