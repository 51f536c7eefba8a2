//! Convolution layers with integer weights.

use alloc::vec::Vec;

use ndarray::{Array4, ArrayRef1, ArrayRef4, ArrayViewMut4, Axis, Ix4};

use super::weights::ConvWeights;
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::gemm::{DequantizeEpilogue, Finish, Int8, Workspace};
use crate::ops::output::Output;
use crate::ops::output_stage::{OutputStage, check_bias};
use crate::ops::params::{ChannelParams, check_params};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;
use crate::window::Window;

/// A 2-D convolution with integer weights (PyTorch: `nn.Conv2d`; TFLite: `CONV_2D`, `DEPTHWISE_CONV_2D`).
///
/// Images are `[images, height, width, channels]` (NHWC), weights are `[out, kh, kw, channels / groups]` (OHWI), per
/// tensor or per output channel (axis 0), of 8 bits or fewer. Weights are packed once. Other layouts come as views with
/// permuted axes: `permuted_axes([0, 2, 3, 1])` for NCHW images and for OIHW weights. One group per channel makes a
/// depthwise convolution. The bias stays in `f32` until the scale of the input is known.
///
/// | form | input | output | use it for |
/// |---|---|---|---|
/// | [`prepare`](Self::prepare) | codes | codes | full-integer networks: returns a [`PreparedConv2d`] |
/// | [`forward`](Self::forward) | codes | codes | the same once, without preparing |
/// | [`forward_dequantize`](Self::forward_dequantize) | codes | `f32` | the last quantized layer |
/// | [`forward_dynamic`](Self::forward_dynamic) | `f32`, quantized per call | `f32` | dynamic quantization |
///
/// Every form has an `_into` variant that writes into a caller-provided array.
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
/// let y = conv.forward_dynamic(&x)?;
/// assert!((y[[0, 1, 1, 0]] - 5.0).abs() < 0.05 && (y[[0, 1, 1, 1]] - 2.6).abs() < 0.05);
///
/// let x = QParams::<u8>::per_tensor(0.01, 0)?.quantize(&x)?;
/// let y = conv.forward(&x, &Output::to(&QParams::<u8>::per_tensor(0.05, 0)?).relu())?;
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
    /// Packs weights `[out, kh, kw, channels / groups]` and keeps a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Params`] unless the weights are per tensor or per axis 0. [`Error::Shape`] if the bias does not have
    /// one element per output channel. [`Error::Argument`] if a stride, a dilation or the kernel is 0, or `groups` does
    /// not divide the output channels. [`Error::Value`] if the bias holds a NaN or an infinity, or if an accumulator
    /// could overflow for every zero point of the input.
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

    /// Returns the shape of the output, `[images, out_height, out_width, out]`, for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the images are 4-D NHWC with the channels of the weights and, padded, at least as large
    /// as the kernel.
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(self.weights.place(images)?.0)
    }

    /// Computes codes from codes: `clamp(round((conv(x, w) + bias) * multiplier) + zero_point)`.
    ///
    /// The multiplier and the integer bias are computed in every call. To compute them once, call
    /// [`prepare`](Self::prepare).
    ///
    /// # Errors
    /// Same as [`Self::output_shape`] and [`Self::prepare`].
    pub fn forward<X: Int8, Y: Element>(&self, x: &QTensor<X, Ix4>, to: &Output<Y>) -> Result<QTensor<Y, Ix4>> {
        let codes = x.unpacked_codes();
        let mut out = Array4::from_elem(self.output_shape(codes.shape())?, Y::Code::default());
        self.forward_into(x.params(), &codes, to, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, to.params.clone())
    }

    /// [`Self::forward`] of codes with these parameters into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::forward`]. Nothing is written then.
    pub fn forward_into<X: Int8, Y: Element>(
        &self,
        x_params: &QParams<X>,
        x: &ArrayRef4<X>,
        to: &Output<Y>,
        out: &mut ArrayRef4<Y::Code>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let stage = OutputStage::new(x_params, &self.scales, self.bias.as_deref(), to)?;
        self.weights.run(x, stage.x_zero_point, &stage.epilogue, out, workspace)
    }

    /// Fixes the parameters of input and output, so that inference only runs integer products and the output stage.
    ///
    /// The bias becomes `rne(bias / (x_scale * w_scale))`, an `i32`.
    ///
    /// # Errors
    /// [`Error::Params`] unless `x` and the output are per tensor, and if a multiplier is infinite in `f32`.
    /// [`Error::Argument`] if it is outside the range of fixed-point numbers. [`Error::Value`] if an accumulator could
    /// overflow.
    pub fn prepare<X: Int8, Y: Element>(self, x: &QParams<X>, to: &Output<Y>) -> Result<PreparedConv2d<X, W, Y>> {
        let stage = OutputStage::new(x, &self.scales, self.bias.as_deref(), to)?;
        PreparedConv2d::checked(self.weights, stage)
    }

    /// Computes `f32` from codes: `f32(conv(x, w)) * (x_scale * w_scale) + bias`. The input is per tensor.
    ///
    /// # Errors
    /// [`Error::Params`] unless `x` is per tensor. [`Error::Value`] if an accumulator could overflow. Otherwise the
    /// same as [`Self::output_shape`].
    pub fn forward_dequantize<X: Int8>(&self, x: &QTensor<X, Ix4>) -> Result<Array4<f32>> {
        let codes = x.unpacked_codes();
        let mut out = Array4::zeros(self.output_shape(codes.shape())?);
        self.forward_dequantize_into(x.params(), &codes, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dequantize`] of codes with these parameters into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::forward_dequantize`]. Nothing is written then.
    pub fn forward_dequantize_into<X: Int8>(
        &self,
        x_params: &QParams<X>,
        x: &ArrayRef4<X>,
        out: &mut ArrayRef4<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.forward_clamped_into(x_params, x, (f32::NEG_INFINITY, f32::INFINITY), out, workspace)
    }

    /// [`Self::forward_dequantize_into`] with a fused clamp of the outputs.
    pub(crate) fn forward_clamped_into<X: Int8>(
        &self,
        x_params: &QParams<X>,
        x: &ArrayRef4<X>,
        (low, high): (f32, f32),
        out: &mut ArrayRef4<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (x_scale, zero_point) = x_params.of_tensor("input")?;
        let epilogue = DequantizeEpilogue::new(&[x_scale], &self.scales, self.bias.as_deref())?.with_clamp(low, high);
        self.weights.run(x, zero_point, &epilogue, out, workspace)
    }

    /// Computes `f32` from `f32`: the input is quantized to `u8` by its own range on the fly (ONNX:
    /// `DynamicQuantizeLinear`, `ConvInteger`). All images of the batch share one range.
    ///
    /// # Errors
    /// [`Error::Value`] if `x` holds a NaN or an infinity, or if an accumulator could overflow. Otherwise the same as
    /// [`Self::output_shape`].
    pub fn forward_dynamic(&self, x: &ArrayRef4<f32>) -> Result<Array4<f32>> {
        let mut out = Array4::zeros(self.output_shape(x.shape())?);
        self.forward_dynamic_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dynamic`] into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::forward_dynamic`]. Nothing is written then.
    pub fn forward_dynamic_into(
        &self,
        x: &ArrayRef4<f32>,
        out: &mut ArrayRef4<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        check_shapes("output", &self.output_shape(x.shape())?, out.shape())?;
        let params = Scheme::<u8>::asymmetric().params_of(x)?;
        let mut codes = workspace.input.take::<Vec<u8>>();
        codes.resize(x.len(), 0);
        let mut view = ArrayViewMut4::from_shape(x.raw_dim(), &mut codes).expect("the length is that of x");
        let result = params
            .quantize_into(x, &mut view)
            .and_then(|()| self.forward_dequantize_into(&params, &view, out, workspace));
        workspace.input.put(codes);
        result
    }

    /// Returns an error if an accumulator could overflow for inputs with these parameters.
    pub(crate) fn check_input<X: Int8>(&self, x: &QParams<X>) -> Result<()> {
        let (_, zero_point) = x.of_tensor("input")?;
        self.weights.check_depth(X::max_abs_diff(zero_point), None)
    }

    /// Returns the size of packed weights, scales and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        let floats = self.scales.len() + self.bias.as_ref().map_or(0, Vec::len);
        self.weights.size_in_bytes() + size_of::<f32>() * floats
    }
}

/// A [`Conv2d`] layer from codes to codes, prepared for fixed parameters of input and output.
///
/// With [integer-only](Output::integer_only) arithmetic, [`forward_into`](Self::forward_into) executes no
/// floating-point instruction. It allocates nothing once the workspace has grown to the problem, unless work is split
/// over threads.
///
/// ```
/// use ndarray::{Array4, Axis};
/// use ndarray_quant::gemm::Workspace;
/// use ndarray_quant::nn::{Conv2d, Padding, Window};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output};
///
/// // Depthwise: one 3×3 kernel for each of 8 channels.
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&Array4::from_elem((8, 3, 3, 1), 0.25f32))?;
/// let (x, y) = (QParams::<u8>::per_tensor(0.1, 0)?, QParams::<u8>::per_tensor(0.1, 0)?);
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
    stage: OutputStage<X, Y>,
}

impl<X: Int8, W: Int8, Y: Element> PreparedConv2d<X, W, Y> {
    /// Prepares from weights `[out, kh, kw, channels / groups]` and a bias in units of the accumulator,
    /// `x_scale * w_scale`, as integer model files (TFLite, ONNX QDQ) store it.
    ///
    /// # Errors
    /// Same as [`Conv2d::new`] and [`Conv2d::prepare`].
    pub fn new<T: Element<Code = W>>(
        x: &QParams<X>,
        weights: &QTensor<T, Ix4>,
        bias: Option<&ArrayRef1<i32>>,
        window: &Window,
        groups: usize,
        to: &Output<Y>,
    ) -> Result<Self> {
        let (scales, weights) = pack(weights, window, groups)?;
        let bias: Option<Vec<i32>> = bias.map(|b| b.iter().copied().collect());
        Self::checked(weights, OutputStage::with_bias(x, &scales, bias.as_deref(), to)?)
    }

    /// Returns an error if an accumulator could overflow.
    fn checked(weights: ConvWeights<W>, stage: OutputStage<X, Y>) -> Result<Self> {
        weights.check_depth(stage.max_abs_diff(), stage.epilogue.bias())?;
        Ok(Self { weights, stage })
    }

    /// The parameters of the input.
    pub fn input(&self) -> &QParams<X> {
        &self.stage.x
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<Y> {
        &self.stage.y
    }

    /// Returns the shape of the output, `[images, out_height, out_width, out]`, for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the images are 4-D NHWC with the channels of the weights and, padded, at least as large
    /// as the kernel.
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(self.weights.place(images)?.0)
    }

    /// Computes `[images, out_height, out_width, out]` from `[images, height, width, channels]`. The input must have
    /// the prepared scale and zero point; its convention and code range may differ.
    ///
    /// # Errors
    /// [`Error::Params`] if `x` has another scale or zero point. Otherwise the same as [`Self::output_shape`].
    pub fn forward(&self, x: &QTensor<X, Ix4>) -> Result<QTensor<Y, Ix4>> {
        check_params("input", x.params(), &self.stage.x)?;
        let x = x.unpacked_codes();
        let mut out = Array4::from_elem(self.output_shape(x.shape())?, Y::Code::default());
        self.forward_into(&x, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, self.stage.y.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::output_shape`]. Nothing is written then.
    pub fn forward_into(
        &self,
        x: &ArrayRef4<X>,
        out: &mut ArrayRef4<Y::Code>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.weights.run(x, self.stage.x_zero_point, &self.stage.epilogue, out, workspace)
    }

    /// Returns the size of packed weights and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes() + self.stage.size_in_bytes()
    }
}

fn pack<T: Element<Code = W>, W: Int8>(
    weights: &QTensor<T, Ix4>,
    window: &Window,
    groups: usize,
) -> Result<(Vec<f32>, ConvWeights<W>)> {
    let params = ChannelParams::new("weights", weights.params(), Axis(0))?;
    let packed = ConvWeights::new(&weights.unpacked_codes(), &params.zero_points, *window, groups)?;
    Ok((params.scales, packed))
}
