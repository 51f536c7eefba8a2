//! Products of quantized matrices by their ONNX names.

#[cfg(feature = "onnx")]
mod einsum;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;

use ndarray::{Array2, ArrayRef2, Axis, Dimension, Ix2};

use crate::affine::Arithmetic;
use crate::element::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::gemm::{I32Epilogue, Int8, PackedRhs, RequantizeEpilogue, gemm};
use crate::ops::params::ChannelParams;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// Computes `(a - a_zero) · (b - b_zero)` in exact `i32` (ONNX: `MatMulInteger`).
///
/// `a` is `[m, k]`, `b` is `[k, n]` with one zero point, or one per column. `b` is packed in every call; if it is
/// reused, pack it once as [`PackedRhs`] and call [`gemm`].
///
/// # Errors
/// [`Error::Shape`] unless the columns of `a` match the rows of `b`, and there are 1 or `n` zero points.
/// [`Error::Value`] if an accumulator could overflow.
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
    check_shapes("a, [m, k]", &[a.nrows(), b.nrows()], a.shape())?;
    gemm(a, a_zero_point, &PackedRhs::pack(b, b_zero_points)?, &I32Epilogue::new())
}

/// Multiplies two quantized matrices and quantizes the product (ONNX: `QLinearMatMul`):
/// `clamp(rne(f32((a - a_zero) · (b - b_zero)) * m) + y_zero)` with `m = (a_scale * b_scale) / y_scale`.
///
/// `a` is `[m, k]` and `b` is `[k, n]`. `a` and `to` are per tensor, `b` is per tensor or per column (axis 1). `b` is
/// packed in every call; for weights that are reused prepare a [`Linear`](crate::nn::Linear).
///
/// # Errors
/// [`Error::Shape`] unless the columns of `a` match the rows of `b`. [`Error::Params`] unless `a` and `to` are per
/// tensor, and `b` is per tensor or per axis 1. [`Error::Value`] if an accumulator could overflow.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, Quantize, ops::qlinear_matmul};
/// let a = QParams::<u8>::per_tensor(0.5, 128)?.quantize(&array![[1.0f32, -2.0]])?;
/// let b = QParams::<i8>::per_tensor(0.25, 0)?.quantize(&array![[3.0f32], [4.0]])?;
/// let y = qlinear_matmul(&a, &b, &QParams::<i8>::per_tensor(0.125, 0)?)?;
/// assert_eq!(y.dequantize(), array![[-5.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn qlinear_matmul<A: Int8, B: Int8, Y: Element>(
    a: &QTensor<A, Ix2>,
    b: &QTensor<B, Ix2>,
    to: &QParams<Y>,
) -> Result<QTensor<Y, Ix2>> {
    let (a_scale, a_zero_point) = a.params().of_tensor("a")?;
    to.of_tensor("output")?;
    check_shapes("a, [m, k]", &[a.raw_dim()[0], b.raw_dim()[0]], a.raw_dim().slice())?;
    let b_params = ChannelParams::new("b", b.params(), Axis(1))?;
    let packed = PackedRhs::pack(&b.unpacked_codes(), &b_params.zero_points)?;
    let epilogue = RequantizeEpilogue::new(a_scale, &b_params.scales, None, to, Arithmetic::F32)?;
    QTensor::from_valid_codes(gemm(&a.unpacked_codes(), a_zero_point, &packed, &epilogue)?, to.clone())
}
