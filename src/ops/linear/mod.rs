//! Linear layers with integer weights.

mod float;
mod nbits;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;
pub(crate) mod quantized_rows;
pub(crate) mod rows;

use alloc::vec::Vec;

use ndarray::{Array2, ArrayRef1, ArrayRef2, Axis, Ix2};

use crate::element::Element;
use crate::error::{Error, Result, check_count, check_shapes};
use crate::gemm::{DequantizeEpilogue, Finish, Int8, PackedRhs, Workspace, check_depth, gemm_from, gemm_into};
use crate::ops::dynamic_lhs::DynamicLhs;
use crate::ops::output::Output;
use crate::ops::output_stage::{OutputStage, check_bias};
use crate::ops::params::{ChannelParams, check_params};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;
pub use nbits::LinearNBits;

/// A linear layer with integer weights: `y = x · wᵀ + bias` (PyTorch: `nn.Linear`; TFLite: `FULLY_CONNECTED`).
///
/// Weights are `[out, in]`, per tensor or per output channel (axis 0), of 8 bits or fewer. They are packed once. The
/// bias stays in `f32` until the scale of the input is known.
///
/// | form | input | output | use it for |
/// |---|---|---|---|
/// | [`prepare`](Self::prepare) | codes | codes | full-integer networks: returns a [`PreparedLinear`] |
/// | [`forward`](Self::forward) | codes | codes | the same once, without preparing |
/// | [`forward_dequantize`](Self::forward_dequantize) | codes | `f32` | the last layer |
/// | [`forward_dynamic`](Self::forward_dynamic) | `f32`, quantized per call | `f32` | dynamic quantization |
/// | [`forward_dynamic_per_row`](Self::forward_dynamic_per_row) | `f32`, quantized per row | `f32` | batches whose rows have different ranges |
///
/// Every form has an `_into` variant that writes into a caller-provided array.
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::{Linear, Output}};
///
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&array![[1.0f32, -1.0], [0.5, 0.25]])?;
/// let fc = Linear::new(&w, Some(&array![0.5, -4.0]))?;
///
/// let x = array![[2.0f32, 1.0]];
/// let y = fc.forward_dynamic(&x)?;
/// assert!((y[[0, 0]] - 1.5).abs() < 0.02 && (y[[0, 1]] + 2.75).abs() < 0.02);
///
/// let x = QParams::<u8>::per_tensor(0.01, 0)?.quantize(&x)?;
/// let to = QParams::<u8>::per_tensor(0.02, 0)?;
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
    /// Packs weights `[out, in]` and keeps a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Params`] unless the weights are per tensor or per axis 0. [`Error::Shape`] if the bias does not have
    /// one element per output. [`Error::Value`] if the bias holds a NaN or an infinity, or if an accumulator could
    /// overflow for every zero point of the input.
    pub fn new<T: Element<Code = W>>(weights: &QTensor<T, Ix2>, bias: Option<&ArrayRef1<f32>>) -> Result<Self> {
        let (scales, weights) = pack_weights(weights)?;
        check_bias(bias, weights.ncols())?;
        Ok(Self { weights, scales, bias: bias.map(|b| b.iter().copied().collect()) })
    }

    /// Returns the shape of the output, `[batch, out]`, for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn output_shape(&self, x: &[usize]) -> Result<[usize; 2]> {
        output_shape([self.weights.nrows(), self.weights.ncols()], x)
    }

    /// Computes codes from codes: `clamp(round((x · wᵀ + bias) * multiplier) + zero_point)`.
    ///
    /// The multiplier and the integer bias are computed in every call. To compute them once, call
    /// [`prepare`](Self::prepare).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`. Otherwise the same as [`Self::prepare`].
    pub fn forward<X: Int8, Y: Element>(&self, x: &QTensor<X, Ix2>, to: &Output<Y>) -> Result<QTensor<Y, Ix2>> {
        let codes = x.unpacked_codes();
        let mut out = Array2::from_elem(self.output_shape(codes.shape())?, Y::Code::default());
        self.forward_into(x.params(), &codes, to, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, to.params.clone())
    }

    /// [`Self::forward`] of codes with these parameters into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. Otherwise the same as
    /// [`Self::prepare`]. Nothing is written then.
    pub fn forward_into<X: Int8, Y: Element>(
        &self,
        x_params: &QParams<X>,
        x: &ArrayRef2<X>,
        to: &Output<Y>,
        out: &mut ArrayRef2<Y::Code>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.check_shapes(x.shape(), out.shape())?;
        let stage = OutputStage::new(x_params, &self.scales, self.bias.as_deref(), to)?;
        gemm_into(x, stage.x_zero_point, &self.weights, &stage.epilogue, out, workspace)
    }

    /// Fixes the parameters of input and output, so that inference only runs integer products and the output stage.
    ///
    /// The bias becomes `rne(bias / (x_scale * w_scale))`, an `i32`. To round biases in training as well, use
    /// [`FakeLinear`](crate::qat::FakeLinear).
    ///
    /// # Errors
    /// [`Error::Params`] unless `x` and the output are per tensor, and if a multiplier is infinite in `f32`.
    /// [`Error::Argument`] if it is outside the range of fixed-point numbers. [`Error::Value`] if an accumulator could
    /// overflow.
    pub fn prepare<X: Int8, Y: Element>(self, x: &QParams<X>, to: &Output<Y>) -> Result<PreparedLinear<X, W, Y>> {
        let stage = OutputStage::new(x, &self.scales, self.bias.as_deref(), to)?;
        PreparedLinear::checked(self.weights, stage)
    }

    /// Computes `f32` from codes: `f32(x · wᵀ) * (x_scale * w_scale) + bias`. The input is per tensor or per row (axis
    /// 0).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`. [`Error::Params`] unless `x` is per tensor or per axis 0.
    /// [`Error::Value`] if an accumulator could overflow.
    pub fn forward_dequantize<X: Int8>(&self, x: &QTensor<X, Ix2>) -> Result<Array2<f32>> {
        let codes = x.unpacked_codes();
        let mut out = Array2::zeros(self.output_shape(codes.shape())?);
        self.forward_dequantize_into(x.params(), &codes, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dequantize`] of codes with these parameters into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`, `out` is `[batch, out]` and parameters per axis are one per row.
    /// [`Error::Params`] unless `x` is per tensor or per axis 0. [`Error::Value`] if an accumulator could
    /// overflow. Nothing is written then.
    pub fn forward_dequantize_into<X: Int8>(
        &self,
        x_params: &QParams<X>,
        x: &ArrayRef2<X>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.forward_clamped_into(x_params, x, UNCLAMPED, out, workspace)
    }

    /// [`Self::forward_dequantize_into`] with a fused clamp of the outputs.
    pub(crate) fn forward_clamped_into<X: Int8>(
        &self,
        x_params: &QParams<X>,
        x: &ArrayRef2<X>,
        (low, high): (f32, f32),
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.check_shapes(x.shape(), out.shape())?;
        let ChannelParams { scales, zero_points } = ChannelParams::new("x", x_params, Axis(0))?;
        if scales.len() != 1 {
            check_count("scales of x, one or one per row", x.nrows(), scales.len())?;
        }
        if let &[zero_point] = zero_points.as_slice() {
            let epilogue = DequantizeEpilogue::new(&scales, &self.scales, self.bias.as_deref())?.with_clamp(low, high);
            return gemm_into(x, zero_point, &self.weights, &epilogue, out, workspace);
        }
        // Rows with zero points of their own are one GEMM each. All are checked before the first one writes.
        for &zero_point in &zero_points {
            check_depth(X::max_abs_diff(zero_point), self.weights.max_abs_diff(), self.weights.nrows(), None)?;
        }
        let rows = x.axis_chunks_iter(Axis(0), 1).zip(out.axis_chunks_iter_mut(Axis(0), 1));
        for (((x, mut out), zero_point), scale) in rows.zip(zero_points).zip(scales) {
            let epilogue = DequantizeEpilogue::new(&[scale], &self.scales, self.bias.as_deref())?.with_clamp(low, high);
            gemm_into(&x, zero_point, &self.weights, &epilogue, &mut out, workspace)?;
        }
        Ok(())
    }

    /// Computes `f32` from `f32`: the input is quantized to `u8` by its own range on the fly (ONNX:
    /// `DynamicQuantizeLinear`, `MatMulInteger`; PyTorch: dynamic quantization).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`. [`Error::Value`] if `x` holds a NaN or an infinity, or if an
    /// accumulator could overflow.
    pub fn forward_dynamic(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros(self.output_shape(x.shape())?);
        self.forward_dynamic_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dynamic`] into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. [`Error::Value`] if `x` holds a NaN or
    /// an infinity, or if an accumulator could overflow. Nothing is written then.
    pub fn forward_dynamic_into(
        &self,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.check_shapes(x.shape(), out.shape())?;
        let (scale, zero_point) = Scheme::<u8>::asymmetric().params_of(x)?.of_tensor("input")?;
        let x = DynamicLhs { values: x.view(), scales: &[scale], zero_point };
        self.quantize_and_multiply(x, UNCLAMPED, out, workspace)
    }

    /// Computes `f32` from `f32` with each row quantized symmetrically to `i8` by its own range, so that an outlier in
    /// one row does not cost the others precision.
    ///
    /// # Errors
    /// Same as [`Self::forward_dynamic`].
    pub fn forward_dynamic_per_row(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros(self.output_shape(x.shape())?);
        self.forward_dynamic_per_row_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dynamic_per_row`] into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// Same as [`Self::forward_dynamic_into`].
    pub fn forward_dynamic_per_row_into(
        &self,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.forward_dynamic_clamped_into(x, UNCLAMPED, out, workspace)
    }

    /// [`Self::forward_dynamic_per_row_into`] with a fused clamp of the outputs.
    pub(crate) fn forward_dynamic_clamped_into(
        &self,
        x: &ArrayRef2<f32>,
        clamp: (f32, f32),
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.check_shapes(x.shape(), out.shape())?;
        let params = Scheme::<i8>::symmetric().per_axis(Axis(0)).params_of(x)?;
        let scales = params.scale().as_slice().unwrap_or_default();
        // Codes of `i8` are used as `u8` with the sign bit flipped, so their zero point 0 is 128.
        self.quantize_and_multiply(DynamicLhs { values: x.view(), scales, zero_point: 128 }, clamp, out, workspace)
    }

    /// Multiplies an LHS of `f32` that is quantized while it is packed.
    fn quantize_and_multiply(
        &self,
        x: DynamicLhs<'_>,
        (low, high): (f32, f32),
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let epilogue = DequantizeEpilogue::new(x.scales, &self.scales, self.bias.as_deref())?.with_clamp(low, high);
        gemm_from(&x, x.zero_point, &self.weights, &epilogue, out, workspace)
    }

    /// Returns an error if an accumulator could overflow for inputs with these parameters.
    pub(crate) fn check_input<X: Int8>(&self, x: &QParams<X>) -> Result<()> {
        let (_, zero_point) = x.of_tensor("input")?;
        check_depth(X::max_abs_diff(zero_point), self.weights.max_abs_diff(), self.weights.nrows(), None)
    }

    fn check_shapes(&self, x: &[usize], out: &[usize]) -> Result<()> {
        check_shapes("out, [batch, out]", &self.output_shape(x)?, out)
    }

    /// Returns the size of packed weights, scales and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        let floats = self.scales.len() + self.bias.as_ref().map_or(0, Vec::len);
        self.weights.size_in_bytes() + size_of::<f32>() * floats
    }
}

/// A [`Linear`] layer from codes to codes, prepared for fixed parameters of input and output.
///
/// With [integer-only](Output::integer_only) arithmetic, [`forward_into`](Self::forward_into) executes no
/// floating-point instruction. It allocates nothing once the workspace has grown to the problem, unless work is split
/// over threads.
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::{Linear, Output}};
///
/// let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&array![[1.0f32, -1.0], [0.5, 0.25]])?;
/// let x = QParams::<u8>::per_tensor(0.01, 0)?;
/// let y = QParams::<u8>::per_tensor(0.02, 0)?;
/// let fc = Linear::new(&w, None)?.prepare(&x, &Output::to(&y).relu().integer_only())?;
/// assert_eq!(fc.forward(&x.quantize(&array![[2.0f32, 2.0]])?)?.codes(), array![[0, 75]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PreparedLinear<X: Int8, W: Int8, Y: Element> {
    weights: PackedRhs<W>,
    stage: OutputStage<X, Y>,
}

impl<X: Int8, W: Int8, Y: Element> PreparedLinear<X, W, Y> {
    /// Prepares from weights `[out, in]` and a bias in units of the accumulator, `x_scale * w_scale`, as integer model
    /// files (TFLite, ONNX QDQ) store it.
    ///
    /// # Errors
    /// Same as [`Linear::new`] and [`Linear::prepare`].
    pub fn new<T: Element<Code = W>>(
        x: &QParams<X>,
        weights: &QTensor<T, Ix2>,
        bias: Option<&ArrayRef1<i32>>,
        to: &Output<Y>,
    ) -> Result<Self> {
        let (scales, weights) = pack_weights(weights)?;
        let bias: Option<Vec<i32>> = bias.map(|b| b.iter().copied().collect());
        Self::checked(weights, OutputStage::with_bias(x, &scales, bias.as_deref(), to)?)
    }

    /// Returns an error if an accumulator could overflow.
    fn checked(weights: PackedRhs<W>, stage: OutputStage<X, Y>) -> Result<Self> {
        check_depth(stage.max_abs_diff(), weights.max_abs_diff(), weights.nrows(), stage.epilogue.bias())?;
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

    /// Returns the shape of the output, `[batch, out]`, for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn output_shape(&self, x: &[usize]) -> Result<[usize; 2]> {
        output_shape([self.weights.nrows(), self.weights.ncols()], x)
    }

    /// Computes `[batch, out]` from `[batch, in]`. The input must have the prepared scale and zero point; its
    /// convention and code range may differ.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`. [`Error::Params`] if it has another scale or zero point.
    pub fn forward(&self, x: &QTensor<X, Ix2>) -> Result<QTensor<Y, Ix2>> {
        check_params("input", x.params(), &self.stage.x)?;
        let x = x.unpacked_codes();
        let mut out = Array2::from_elem(self.output_shape(x.shape())?, Y::Code::default());
        self.forward_into(&x, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, self.stage.y.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. Nothing is written then.
    pub fn forward_into(
        &self,
        x: &ArrayRef2<X>,
        out: &mut ArrayRef2<Y::Code>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        check_shapes("out, [batch, out]", &self.output_shape(x.shape())?, out.shape())?;
        gemm_into(x, self.stage.x_zero_point, &self.weights, &self.stage.epilogue, out, workspace)
    }

    /// Returns the size of packed weights and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes() + self.stage.size_in_bytes()
    }
}

/// Computes a quantized linear layer in one call (TFLite: `FULLY_CONNECTED`).
///
/// Weights are `[out, in]`, the bias `[out]` is in units of the accumulator, `x_scale * w_scale`. The weights are
/// packed in every call; for repeated calls prepare a [`PreparedLinear`].
///
/// # Errors
/// Same as [`PreparedLinear::new`] and [`PreparedLinear::forward`].
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output, ops::fully_connected};
/// let x = QParams::<u8>::per_tensor(0.01, 0)?.quantize(&array![[2.0f32, 1.0]])?;
/// let w = Scheme::<i8>::symmetric().narrow_range().quantize(&array![[1.27f32, -1.0], [0.5, 0.25]])?;
/// let to = Output::to(&QParams::<u8>::per_tensor(0.02, 0)?).relu().integer_only();
/// let y = fully_connected(&x, &w, Some(&array![1000, 0]), &to)?; // the bias is 1000 * 0.01 * 0.01
/// assert_eq!(y.codes(), array![[82, 63]]); // 1.64 and 1.25
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn fully_connected<X: Int8, W: Int8, Y: Element>(
    x: &QTensor<X, Ix2>,
    weights: &QTensor<W, Ix2>,
    bias: Option<&ArrayRef1<i32>>,
    to: &Output<Y>,
) -> Result<QTensor<Y, Ix2>> {
    PreparedLinear::new(x.params(), weights, bias, to)?.forward(x)
}

/// The bounds of outputs without a clamp.
const UNCLAMPED: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// Returns `[batch, out]` for an input `[batch, in]`.
pub(crate) fn output_shape([depth, outputs]: [usize; 2], x: &[usize]) -> Result<[usize; 2]> {
    match *x {
        [batch, found] if found == depth => Ok([batch, outputs]),
        _ => Err(Error::shape("x, [batch, in]", &[x.first().copied().unwrap_or(1), depth], x)),
    }
}

/// The minimum of `Int8::max_abs_diff` over all zero points: 0 of `i8`, 127 and 128 of `u8`.
pub(super) const MIN_MAX_ABS_DIFF: i64 = 128;

/// Returns scales and packed weights. Returns an error if an accumulator could overflow for every zero point of the
/// input.
pub(crate) fn pack_weights<T: Element<Code = W>, W: Int8>(
    weights: &QTensor<T, Ix2>,
) -> Result<(Vec<f32>, PackedRhs<W>)> {
    let params = ChannelParams::new("weights", weights.params(), Axis(0))?;
    let packed = PackedRhs::pack(&weights.unpacked_codes().t(), &params.zero_points)?;
    check_depth(MIN_MAX_ABS_DIFF, packed.max_abs_diff(), packed.nrows(), None)?;
    Ok((params.scales, packed))
}
