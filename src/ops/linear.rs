use alloc::vec::Vec;

use ndarray::{Array, Array1, Array2, ArrayRef1, ArrayRef2, Axis, Ix2};

use super::matmul::ChannelParams;
use super::requantize::{Output, check_params};
use super::stage::{Stage, check_bias};
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::gemm::{DequantizeEpilogue, DynamicLhs, Finish, Int8, PackedRhs, Workspace, check_depth, gemm, gemm_into};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;

/// A linear layer with integer weights: `y = x · wᵀ + bias`.
///
/// Weights are `[out, in]`, per tensor or per output channel (axis 0), of 8 bits or fewer, and packed once. The bias
/// stays in `f32` until the scale of the input is known. Three ways to run it:
///
/// | | input | output | for |
/// |---|---|---|---|
/// | [`forward`](Self::forward) | codes | codes | full-integer networks; [`prepare`](Self::prepare) does its set-up once |
/// | [`forward_dequantize`](Self::forward_dequantize) | codes | `f32` | the last layer |
/// | [`forward_dynamic`](Self::forward_dynamic) | `f32`, quantized per call | `f32` | dynamic-range networks |
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::{Linear, Output}};
///
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&array![[1.0f32, -1.0], [0.5, 0.25]])?;
/// let fc = Linear::new(&w, Some(&array![0.5, -4.0]))?;
///
/// let x = array![[2.0f32, 1.0]];
/// let real = fc.forward_dynamic(&x)?;
/// assert!((real[[0, 0]] - 1.5).abs() < 0.02 && (real[[0, 1]] + 2.75).abs() < 0.02);
///
/// let x = QParams::<u8, _>::per_tensor(0.01, 0)?.quantize(&x)?;
/// let to = QParams::<u8, _>::per_tensor(0.02, 0)?;
/// let y = fc.forward(&x, &Output::to(&to).relu())?;
/// assert_eq!(y.codes(), array![[75, 0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear<W: Int8 = i8> {
    weights: PackedRhs<W>,
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl<W: Int8> Linear<W> {
    /// Packs the weights, `[out, in]`, and keeps the bias, `[out]`.
    ///
    /// # Errors
    /// [`Error::Granularity`] unless the weights are per tensor or per axis 0, [`Error::Shape`] if the bias has another
    /// length, [`Error::NonFinite`] if it holds a NaN or an infinity, [`Error::Depth`] if the weights are so deep that
    /// an accumulator could overflow whatever the zero point of the input.
    pub fn new<T: Element<Code = W>>(weights: &QTensor<T, Ix2>, bias: Option<&ArrayRef1<f32>>) -> Result<Self> {
        let (scales, weights) = pack_weights(weights)?;
        check_bias(bias, weights.ncols())?;
        Ok(Self { weights, scales, bias: bias.map(|b| b.iter().copied().collect()) })
    }

    /// Codes to codes, set up for this very input: `clamp(round((x · wᵀ + bias) * multiplier) + zero_point)`.
    ///
    /// # Errors
    /// Those of [`Self::prepare`], and [`Error::Shape`] if `x` is not `[batch, in]`.
    pub fn forward<X: Int8, Y: Element>(&self, x: &QTensor<X, Ix2>, to: &Output<Y, Ix2>) -> Result<QTensor<Y, Ix2>> {
        let Stage { x_zero_point, epilogue, y, .. } = Stage::new(x.params(), &self.scales, self.bias.as_deref(), to)?;
        let codes = gemm(&x.unpacked_codes(), x_zero_point, &self.weights, &epilogue)?;
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
        x: &QParams<X, Ix2>,
        to: &Output<Y, Ix2>,
    ) -> Result<PreparedLinear<X, W, Y>> {
        let stage = Stage::new(x, &self.scales, self.bias.as_deref(), to)?;
        PreparedLinear::checked(self.weights, stage)
    }

    /// Codes to reals: `f32(x · wᵀ) * (x_scale * w_scale) + bias`. The input is per tensor or per row (axis 0).
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not `[batch, in]`, [`Error::Granularity`] for another granularity of `x`,
    /// [`Error::Depth`] if an accumulator could overflow.
    pub fn forward_dequantize<X: Int8>(&self, x: &QTensor<X, Ix2>) -> Result<Array2<f32>> {
        let x_params = ChannelParams::new(x.params(), Axis(0))?;
        let epilogue = DequantizeEpilogue::new(&x_params.scales, &self.scales, self.bias.as_deref())?;
        match x_params.zero_points.as_slice() {
            [zero_point] => gemm(&x.unpacked_codes(), *zero_point, &self.weights, &epilogue),
            zero_points => self.per_row(x, zero_points, &x_params.scales),
        }
    }

    /// Rows with zero points of their own, one product each.
    fn per_row<X: Int8>(&self, x: &QTensor<X, Ix2>, zero_points: &[X], scales: &[f32]) -> Result<Array2<f32>> {
        let codes = x.unpacked_codes();
        let mut out = Array2::zeros((codes.nrows(), self.weights.ncols()));
        let mut workspace = Workspace::new();
        let rows = codes.axis_chunks_iter(Axis(0), 1).zip(out.axis_chunks_iter_mut(Axis(0), 1));
        for (((x, mut out), &zero_point), &scale) in rows.zip(zero_points).zip(scales) {
            let epilogue = DequantizeEpilogue::new(&[scale], &self.scales, self.bias.as_deref())?;
            gemm_into(&x, zero_point, &self.weights, &epilogue, &mut out, &mut workspace)?;
        }
        Ok(out)
    }

    /// Reals to reals, the input quantized to `u8` by its own range (ONNX: `DynamicQuantizeLinear`, `MatMulInteger`).
    ///
    /// # Errors
    /// Those of [`Self::forward_dynamic_into`].
    pub fn forward_dynamic(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((x.nrows(), self.weights.ncols()));
        self.forward_dynamic_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dynamic`] into memory that exists. Any strides on either side.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not `[batch, in]` or `out` not `[batch, out]`, [`Error::NonFinite`] if `x` holds a
    /// NaN or an infinity, [`Error::Depth`] if an accumulator could overflow. Then nothing was written.
    pub fn forward_dynamic_into(
        &self,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (scale, zero_point) = Scheme::<u8>::asymmetric().params_of(x)?.of_tensor("parameters of the input")?;
        self.quantizing(DynamicLhs { values: x.view(), scales: &[scale], zero_point }, out, workspace)
    }

    /// As [`Self::forward_dynamic`], each row symmetrically to `i8` by its own range: rows of a batch do not share one.
    ///
    /// # Errors
    /// Those of [`Self::forward_dynamic_into`].
    pub fn forward_dynamic_per_row(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((x.nrows(), self.weights.ncols()));
        self.forward_dynamic_per_row_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dynamic_per_row`] into memory that exists. Any strides on either side.
    ///
    /// # Errors
    /// Those of [`Self::forward_dynamic_into`].
    pub fn forward_dynamic_per_row_into(
        &self,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let params = Scheme::<i8>::symmetric().per_axis(Axis(0)).params_of(x)?;
        let scales = params.scale().as_slice().unwrap_or_default();
        self.quantizing(DynamicLhs { values: x.view(), scales, zero_point: 128 }, out, workspace)
    }

    /// The product with reals that become codes on the way.
    fn quantizing(&self, x: DynamicLhs<'_>, out: &mut ArrayRef2<f32>, workspace: &mut Workspace) -> Result<()> {
        let epilogue = DequantizeEpilogue::new(x.scales, &self.scales, self.bias.as_deref())?;
        gemm_into(x, x.zero_point, &self.weights, &epilogue, out, workspace)
    }

    /// The bytes that packed weights, scales and bias take in memory.
    pub fn size_in_bytes(&self) -> usize {
        let floats = self.scales.len() + self.bias.as_ref().map_or(0, Vec::len);
        self.weights.size_in_bytes() + size_of::<f32>() * floats
    }
}

/// A linear layer from codes to codes with everything prepared. With integer-only arithmetic no float instruction
/// runs in [`forward_into`](Self::forward_into).
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::{Linear, Output}};
///
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&array![[1.0f32, -1.0], [0.5, 0.25]])?;
/// let x = QParams::<u8, _>::per_tensor(0.01, 0)?;
/// let y = QParams::<u8, _>::per_tensor(0.02, 0)?;
/// let fc = Linear::new(&w, None)?.prepare(&x, &Output::to(&y).relu().integer_only())?;
/// assert_eq!(fc.forward(&x.quantize(&array![[2.0f32, 2.0]])?)?.codes(), array![[0, 75]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PreparedLinear<X: Int8, W: Int8, Y: Element> {
    weights: PackedRhs<W>,
    stage: Stage<X, Y, Ix2>,
}

impl<X: Int8, W: Int8, Y: Element> PreparedLinear<X, W, Y> {
    /// From weights `[out, in]` and a bias that is already in units of the accumulator, as integer files hold it.
    ///
    /// # Errors
    /// Those of [`Linear::new`] and [`Linear::prepare`].
    pub fn new<T: Element<Code = W>>(
        x: &QParams<X, Ix2>,
        weights: &QTensor<T, Ix2>,
        bias: Option<&ArrayRef1<i32>>,
        to: &Output<Y, Ix2>,
    ) -> Result<Self> {
        let (scales, weights) = pack_weights(weights)?;
        let bias: Option<Vec<i32>> = bias.map(|b| b.iter().copied().collect());
        Self::checked(weights, Stage::with_bias(x, &scales, bias.as_deref(), to)?)
    }

    /// Refuses what could overflow an accumulator.
    fn checked(weights: PackedRhs<W>, stage: Stage<X, Y, Ix2>) -> Result<Self> {
        check_depth(stage.max_abs_diff(), weights.max_abs_diff(), weights.nrows(), stage.epilogue.bias())?;
        Ok(Self { weights, stage })
    }

    /// The parameters that inputs must have.
    pub fn input(&self) -> &QParams<X, Ix2> {
        &self.stage.x
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<Y, Ix2> {
        &self.stage.y
    }

    /// `[batch, in]` to `[batch, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another depth, [`Error::Argument`] if its parameters are not those of the input.
    pub fn forward(&self, x: &QTensor<X, Ix2>) -> Result<QTensor<Y, Ix2>> {
        check_params(x.params(), &self.stage.x)?;
        let x = x.unpacked_codes();
        let mut codes = Array::from_elem((x.nrows(), self.weights.ncols()), Y::Code::default());
        self.forward_into(&x, &mut codes, &mut Workspace::new())?;
        QTensor::from_codes(codes, self.stage.y.clone())
    }

    /// Codes `[batch, in]` with the parameters of the input, to codes `[batch, out]` in memory that exists.
    ///
    /// # Errors
    /// [`Error::Shape`] if a shape is another. Then nothing was written.
    pub fn forward_into(
        &self,
        x: &ArrayRef2<X>,
        out: &mut ArrayRef2<Y::Code>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        gemm_into(x, self.stage.x_zero_point, &self.weights, &self.stage.epilogue, out, workspace)
    }
}

/// A quantized linear layer in one call (TFLite: `FULLY_CONNECTED`): weights `[out, in]`, bias in units of the
/// accumulator. For repeated calls prepare a [`PreparedLinear`].
///
/// # Errors
/// Those of [`PreparedLinear::new`] and [`PreparedLinear::forward`].
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output, ops::fully_connected};
/// let x = QParams::<u8, _>::per_tensor(0.01, 0)?.quantize(&array![[2.0f32, 1.0]])?;
/// let w = Scheme::<i8>::symmetric().narrow_range().quantize(&array![[1.27f32, -1.0], [0.5, 0.25]])?;
/// let to = Output::to(&QParams::<u8, _>::per_tensor(0.02, 0)?).relu().integer_only();
/// let y = fully_connected(&x, &w, Some(&array![1000, 0]), &to)?; // the bias is 1000 * 0.01 * 0.01
/// assert_eq!(y.codes(), array![[82, 63]]); // 1.64 and 1.25
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn fully_connected<X: Int8, W: Int8, Y: Element>(
    x: &QTensor<X, Ix2>,
    weights: &QTensor<W, Ix2>,
    bias: Option<&Array1<i32>>,
    to: &Output<Y, Ix2>,
) -> Result<QTensor<Y, Ix2>> {
    PreparedLinear::new(x.params(), weights, bias.map(|b| &**b), to)?.forward(x)
}

/// The least that [`Int8::reach`] is, for the zero points 0 of `i8` and 127 and 128 of `u8`.
pub(super) const LEAST_REACH: i64 = 128;

/// Scales and packed weights, unless they are so deep that no input would do.
pub(crate) fn pack_weights<T: Element<Code = W>, W: Int8>(
    weights: &QTensor<T, Ix2>,
) -> Result<(Vec<f32>, PackedRhs<W>)> {
    let params = ChannelParams::new(weights.params(), Axis(0))?;
    let packed = PackedRhs::pack(&weights.unpacked_codes().t(), &params.zero_points)?;
    check_depth(LEAST_REACH, packed.max_abs_diff(), packed.nrows(), None)?;
    Ok((params.scales, packed))
}
