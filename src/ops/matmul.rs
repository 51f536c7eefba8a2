use alloc::vec::Vec;

use ndarray::{Array2, ArrayRef2, Axis, Dimension, Ix2};

use crate::affine::Arithmetic;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::gemm::{I32Epilogue, Int8, PackedRhs, RequantizeEpilogue, gemm};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// `(a - a_zero) · (b - b_zero)` in exact `i32` (ONNX: `MatMulInteger`).
///
/// `a` is `[m, k]`, `b` is `[k, n]` with one zero point, or one per column.
///
/// # Errors
/// [`Error::Shape`] if the inner lengths differ or there are neither 1 nor `n` zero points, [`Error::Depth`] if an
/// accumulator could overflow.
///
/// ```
/// use ndarray::array;
/// let y = ndarray_quant::ops::matmul_integer(&array![[11u8, 7]], 12, &array![[1i8, 4], [2, 5]], &[0])?;
/// assert_eq!(y, array![[-11, -29]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn matmul_integer<A: Int8, B: Int8>(
    a: &ArrayRef2<A>,
    a_zero_point: A,
    b: &ArrayRef2<B>,
    b_zero_points: &[B],
) -> Result<Array2<i32>> {
    gemm(a, a_zero_point, &PackedRhs::pack(b, b_zero_points)?, &I32Epilogue::new())
}

/// The quantized product of two quantized matrices (ONNX: `QLinearMatMul`):
/// `clamp(rne(f32((a - a_zero) · (b - b_zero)) * m) + y_zero)`, `m = (a_scale * b_scale) / y_scale`.
///
/// `a` and `to` are per tensor, `b` per tensor or per column (axis 1).
///
/// # Errors
/// [`Error::Shape`] if the inner lengths differ or parameters are not per tensor, [`Error::Granularity`] for other
/// parameters of `b`, [`Error::Depth`] if an accumulator could overflow.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, Quantize, ops::qlinear_matmul};
/// let a = QParams::<u8, _>::per_tensor(0.5, 128)?.quantize(&array![[1.0f32, -2.0]])?;
/// let b = QParams::<i8, _>::per_tensor(0.25, 0)?.quantize(&array![[3.0f32], [4.0]])?;
/// let y = qlinear_matmul(&a, &b, &QParams::<i8, _>::per_tensor(0.125, 0)?)?;
/// assert_eq!(y.dequantize(), array![[-5.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn qlinear_matmul<A: Int8, B: Int8, Y: Element>(
    a: &QTensor<A, Ix2>,
    b: &QTensor<B, Ix2>,
    to: &QParams<Y, Ix2>,
) -> Result<QTensor<Y, Ix2>> {
    let (a_scale, a_zero_point) = a.params().of_tensor("parameters of the left side")?;
    let b_params = ChannelParams::new(b.params(), Axis(1))?;
    let packed = PackedRhs::pack(&b.unpacked_codes(), &b_params.zero_points)?;
    let epilogue = RequantizeEpilogue::new(a_scale, &b_params.scales, None, to, Arithmetic::F32)?;
    QTensor::from_codes(gemm(&a.unpacked_codes(), a_zero_point, &packed, &epilogue)?, to.clone())
}

/// The scales and zero points of weights: one, or one per output channel.
pub(crate) struct ChannelParams<Z> {
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Vec<Z>,
}

impl<Z: Copy + Default> ChannelParams<Z> {
    /// Refuses other granularities than per tensor and per `axis`.
    pub(crate) fn new<T: Element<Code = Z>, D: Dimension>(params: &QParams<T, D>, axis: Axis) -> Result<Self> {
        let expected = Granularity::per_axis(axis);
        let found = params.granularity();
        if found != Granularity::PerTensor && found != expected {
            return Err(Error::Granularity { expected, found });
        }
        let zero_points =
            params.zero_point().map_or_else(|| alloc::vec![Z::default()], |z| z.iter().copied().collect());
        Ok(Self { scales: params.scale().iter().copied().collect(), zero_points })
    }
}
