use alloc::vec::Vec;

use ndarray::{Array4, ArrayRef1, ArrayRef4, Axis, Ix4};

use super::weights::ConvWeights;
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::gemm::{DequantizeEpilogue, Finish, Int8, Workspace};
use crate::ops::matmul::ChannelParams;
use crate::ops::requantize::{Output, check_params};
use crate::ops::stage::{Stage, check_bias};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::quantize::Quantize;
use crate::scheme::Scheme;
use crate::window::Window;

/// A convolution with integer weights.
///
/// Images are `[images, height, width, channels]`, which is the fast layout; weights are
/// `[out, kh, kw, channels / groups]`, per tensor or per output channel (axis 0), of 8 bits or fewer, and packed once.
/// Tensors of other layouts come as views with permuted axes: `permuted_axes([0, 2, 3, 1])` for images in NCHW and for
/// weights in OIHW. As many groups as channels make a depthwise convolution. The bias stays in `f32` until the scale of
/// the input is known. As for [`Linear`](crate::nn::Linear) there are three ways to run it:
///
/// | | input | output | for |
/// |---|---|---|---|
/// | [`forward`](Self::forward) | codes | codes | full-integer networks; [`prepare`](Self::prepare) does its set-up once |
/// | [`forward_dequantize`](Self::forward_dequantize) | codes | `f32` | where floats go on |
/// | [`forward_dynamic`](Self::forward_dynamic) | `f32`, quantized per call | `f32` | dynamic-range networks |
///
/// ```
/// use ndarray::{Array4, Axis, array};
/// use ndarray_quant::nn::{Conv2d, Padding, Window};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output};
///
/// let w = Array4::from_shape_fn((2, 3, 3, 1), |(o, y, x, _)| if o == 0 { 0.5 } else { (y * 3 + x) as f32 * 0.1 });
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&w)?;
/// let conv = Conv2d::new(&w, Some(&array![0.5, -1.0]), &Window::new().with_padding(Padding::Same), 1)?;
///
/// let x = Array4::from_elem((1, 4, 4, 1), 1.0f32);
/// let real = conv.forward_dynamic(&x)?;
/// assert!((real[[0, 1, 1, 0]] - 5.0).abs() < 0.05 && (real[[0, 1, 1, 1]] - 2.6).abs() < 0.05);
///
/// let x = QParams::<u8, _>::per_tensor(0.01, 0)?.quantize(&x)?;
/// let y = conv.forward(&x, &Output::to(&QParams::<u8, _>::per_tensor(0.05, 0)?).relu())?;
/// assert_eq!((y.codes()[[0, 1, 1, 0]], y.codes()[[0, 1, 1, 1]]), (100, 52));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conv2d<W: Int8 = i8> {
    weights: ConvWeights<W>,
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl<W: Int8> Conv2d<W> {
    /// Packs the weights, `[out, kh, kw, channels / groups]`, and keeps the bias, `[out]`.
    ///
    /// # Errors
    /// [`Error::Granularity`] unless the weights are per tensor or per axis 0, [`Error::Shape`] if the bias has another
    /// length, [`Error::NonFinite`] if it holds a NaN or an infinity, [`Error::Argument`] for strides, dilations or
    /// groups that no convolution has, [`Error::Depth`] if the weights are so deep that an accumulator could overflow
    /// whatever the zero point of the input.
    pub fn new<T: Element<Code = W>>(
        weights: &QTensor<T, Ix4>,
        bias: Option<&ArrayRef1<f32>>,
        window: &Window,
        groups: usize,
    ) -> Result<Self> {
        let (scales, weights) = pack(weights, window, groups)?;
        check_bias(bias, weights.outputs())?;
        Ok(Self { weights, scales, bias: bias.map(|b| b.iter().copied().collect()) })
    }

    /// The shape of the output for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other channels or are smaller than the kernel.
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(self.weights.place(images)?.0)
    }

    /// Codes to codes, set up for this very input: `clamp(round((conv(x, w) + bias) * multiplier) + zero_point)`.
    ///
    /// # Errors
    /// Those of [`Self::prepare`] and of [`PreparedConv2d::forward`].
    pub fn forward<X: Int8, Y: Element>(&self, x: &QTensor<X, Ix4>, to: &Output<Y, Ix4>) -> Result<QTensor<Y, Ix4>> {
        let Stage { x_zero_point, epilogue, y, .. } = Stage::new(x.params(), &self.scales, self.bias.as_deref(), to)?;
        let mut codes = Array4::from_elem(self.output_shape(x.unpacked_codes().shape())?, Y::Code::default());
        self.weights.run(&x.unpacked_codes(), x_zero_point, &epilogue, &mut codes, &mut Workspace::new())?;
        QTensor::from_codes(codes, y)
    }

    /// Fixes the parameters of input and output, so that every later step from codes to codes is integer.
    ///
    /// The bias becomes `rne(bias / (x_scale * w_scale))`, an `i32`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` and the output are per tensor, [`Error::Depth`] and [`Error::Bias`] if an
    /// accumulator could overflow, and those of [`Multiplier::new`](crate::nn::Multiplier::new).
    pub fn prepare<X: Int8, Y: Element>(
        self,
        x: &QParams<X, Ix4>,
        to: &Output<Y, Ix4>,
    ) -> Result<PreparedConv2d<X, W, Y>> {
        let stage = Stage::new(x, &self.scales, self.bias.as_deref(), to)?;
        PreparedConv2d::checked(self.weights, stage)
    }

    /// Codes to reals: `f32(conv(x, w)) * (x_scale * w_scale) + bias`. The input is per tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not fit or is not per tensor, [`Error::Depth`] if an accumulator could overflow.
    pub fn forward_dequantize<X: Int8>(&self, x: &QTensor<X, Ix4>) -> Result<Array4<f32>> {
        let mut y = Array4::zeros(self.output_shape(x.unpacked_codes().shape())?);
        self.forward_dequantize_into(x.params(), &x.unpacked_codes(), &mut y, &mut Workspace::new())?;
        Ok(y)
    }

    /// [`Self::forward_dequantize`] of codes with these parameters, into memory that exists.
    ///
    /// # Errors
    /// Those of [`Self::forward_dequantize`], and [`Error::Shape`] if `out` has another shape. Then nothing was
    /// written.
    pub fn forward_dequantize_into<X: Int8>(
        &self,
        x_params: &QParams<X, Ix4>,
        x: &ArrayRef4<X>,
        out: &mut ArrayRef4<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.forward_clamped_into(x_params, x, (f32::NEG_INFINITY, f32::INFINITY), out, workspace)
    }

    /// As [`Self::forward_dequantize_into`], with outputs clamped to these bounds: a fused activation.
    pub(crate) fn forward_clamped_into<X: Int8>(
        &self,
        x_params: &QParams<X, Ix4>,
        x: &ArrayRef4<X>,
        (low, high): (f32, f32),
        out: &mut ArrayRef4<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (x_scale, zero_point) = x_params.of_tensor("parameters of the input")?;
        let epilogue = DequantizeEpilogue::new(&[x_scale], &self.scales, self.bias.as_deref())?.with_clamp(low, high);
        self.weights.run(x, zero_point, &epilogue, out, workspace)
    }

    /// Reals to reals, the input quantized to `u8` by its own range (ONNX: `DynamicQuantizeLinear`, `ConvInteger`).
    ///
    /// # Errors
    /// Those of [`Self::forward_dequantize`], [`Error::NonFinite`] if `x` holds a NaN or an infinity.
    pub fn forward_dynamic(&self, x: &ArrayRef4<f32>) -> Result<Array4<f32>> {
        self.forward_dequantize(&Scheme::<u8>::asymmetric().quantize(x)?)
    }

    /// Refuses inputs with these parameters if an accumulator could overflow.
    pub(crate) fn check_input<X: Int8>(&self, x: &QParams<X, Ix4>) -> Result<()> {
        let (_, zero_point) = x.of_tensor("parameters of the input")?;
        self.weights.check_depth(X::max_abs_diff(zero_point), None)
    }

    /// The bytes that packed weights, scales and bias take in memory.
    pub fn size_in_bytes(&self) -> usize {
        let floats = self.scales.len() + self.bias.as_ref().map_or(0, Vec::len);
        self.weights.size_in_bytes() + size_of::<f32>() * floats
    }
}

/// A convolution from codes to codes with everything prepared. With integer-only arithmetic no float instruction
/// runs in [`forward_into`](Self::forward_into).
///
/// ```
/// use ndarray::{Array4, Axis};
/// use ndarray_quant::gemm::Workspace;
/// use ndarray_quant::nn::{Conv2d, Padding, Window};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output};
///
/// // Depthwise: a 3×3 kernel of its own for each of 8 channels.
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&Array4::from_elem((8, 3, 3, 1), 0.25f32))?;
/// let (x, y) = (QParams::<u8, _>::per_tensor(0.1, 0)?, QParams::<u8, _>::per_tensor(0.1, 0)?);
/// let window = Window::new().with_strides([2, 2]).with_padding(Padding::Same);
/// let conv = Conv2d::new(&w, None, &window, 8)?.prepare(&x, &Output::to(&y).relu6().integer_only())?;
///
/// let codes = Array4::from_elem((1, 7, 7, 8), 20u8);
/// let mut out = Array4::zeros(conv.output_shape(codes.shape())?);
/// conv.forward_into(&codes, &mut out, &mut Workspace::new())?;
/// assert_eq!(out.dim(), (1, 4, 4, 8));
/// assert_eq!((out[[0, 0, 0, 3]], out[[0, 1, 1, 3]]), (20, 45)); // 4 and 9 times 0.25 * 2.0
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PreparedConv2d<X: Int8, W: Int8, Y: Element> {
    weights: ConvWeights<W>,
    stage: Stage<X, Y, Ix4>,
}

impl<X: Int8, W: Int8, Y: Element> PreparedConv2d<X, W, Y> {
    /// From weights `[out, kh, kw, channels / groups]` and a bias that is already in units of the accumulator, as
    /// integer files hold it.
    ///
    /// # Errors
    /// Those of [`Conv2d::new`] and [`Conv2d::prepare`].
    pub fn new<T: Element<Code = W>>(
        x: &QParams<X, Ix4>,
        weights: &QTensor<T, Ix4>,
        bias: Option<&ArrayRef1<i32>>,
        window: &Window,
        groups: usize,
        to: &Output<Y, Ix4>,
    ) -> Result<Self> {
        let (scales, weights) = pack(weights, window, groups)?;
        let bias: Option<Vec<i32>> = bias.map(|b| b.iter().copied().collect());
        Self::checked(weights, Stage::with_bias(x, &scales, bias.as_deref(), to)?)
    }

    /// Refuses what could overflow an accumulator.
    fn checked(weights: ConvWeights<W>, stage: Stage<X, Y, Ix4>) -> Result<Self> {
        weights.check_depth(stage.max_abs_diff(), stage.epilogue.bias())?;
        Ok(Self { weights, stage })
    }

    /// The parameters that inputs must have.
    pub fn input(&self) -> &QParams<X, Ix4> {
        &self.stage.x
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<Y, Ix4> {
        &self.stage.y
    }

    /// The shape of the output for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other channels or are smaller than the kernel.
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(self.weights.place(images)?.0)
    }

    /// `[images, height, width, channels]` to `[images, out_height, out_width, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has other channels or is smaller than the kernel, [`Error::Argument`] if its parameters
    /// are not those of the input.
    pub fn forward(&self, x: &QTensor<X, Ix4>) -> Result<QTensor<Y, Ix4>> {
        check_params(x.params(), &self.stage.x)?;
        let mut codes = Array4::from_elem(self.output_shape(x.unpacked_codes().shape())?, Y::Code::default());
        self.forward_into(&x.unpacked_codes(), &mut codes, &mut Workspace::new())?;
        QTensor::from_codes(codes, self.stage.y.clone())
    }

    /// Codes with the parameters of the input, to codes in memory that exists; any strides on either side. Allocates
    /// nothing once `workspace` has grown to the problem, unless the work is split over threads.
    ///
    /// # Errors
    /// [`Error::Shape`] if a shape is another. Then nothing was written.
    pub fn forward_into(
        &self,
        x: &ArrayRef4<X>,
        out: &mut ArrayRef4<Y::Code>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.weights.run(x, self.stage.x_zero_point, &self.stage.epilogue, out, workspace)
    }

    /// The bytes that packed weights take in memory.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes()
    }
}

fn pack<T: Element<Code = W>, W: Int8>(
    weights: &QTensor<T, Ix4>,
    window: &Window,
    groups: usize,
) -> Result<(Vec<f32>, ConvWeights<W>)> {
    let params = ChannelParams::new(weights.params(), Axis(0))?;
    let packed = ConvWeights::new(&weights.unpacked_codes(), &params.zero_points, *window, groups)?;
    Ok((params.scales, packed))
}
