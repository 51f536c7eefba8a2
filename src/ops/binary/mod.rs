//! Binary elementwise operators: sum and product of two quantized tensors.

mod float;
mod micro;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;

use ndarray::{Array, ArrayRef, Dimension};

use crate::affine::{
    Arithmetic, DoubleProduct, FixedSum, FloatProduct, FloatSum, Multiplier, OffsetCodes, ProductOf, RequantizeFixed,
    unsupported,
};
use crate::elementwise::map2;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, ShapeError};
use crate::gemm::Int8;
use crate::ops::output::Output;
use crate::ops::params::check_params;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The sum of two quantized tensors: `y = a + b` (ONNX Runtime: `QLinearAdd`; TFLite: `ADD`).
///
/// It is prepared for the parameters of both operands and of the output. The arithmetic of the output selects the
/// formula:
///
/// | arithmetic | formula | source |
/// |---|---|---|
/// | [`Arithmetic::F32`] | `clamp(rne(a * a_scale / y_scale + b * b_scale / y_scale + offset))` in `f32` | ONNX Runtime |
/// | [`Arithmetic::FixedPoint`] | both operands scaled to a common unit, shifted left by 20 bits, added, scaled | TFLite |
///
/// Operands broadcast as in numpy, to the shape of the output. Both must have its rank: axes of length 1 are repeated.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Add;
/// use ndarray_quant::{QParams, Quantize, nn::Output};
/// let a = QParams::<u8>::per_tensor(0.5, 10)?.quantize(&array![[1.0f32, -2.0]])?;
/// let b = QParams::<u8>::per_tensor(0.25, 0)?.quantize(&array![[0.5f32], [1.0]])?;
/// let y = QParams::<u8>::per_tensor(0.25, 128)?;
/// let add = Add::new(a.params(), b.params(), &Output::to(&y))?;
/// assert_eq!(add.forward(&a, &b)?.dequantize(), array![[1.5, -1.5], [2.0, -1.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Add<T: Int8> {
    operands: Operands<T>,
    op: SumOp,
}

#[derive(Debug, Clone)]
enum SumOp {
    Float(FloatSum),
    FloatOffset(OffsetCodes<FloatSum>),
    Fixed(FixedSum),
    /// The operands are swapped, because the second one has the greater scale.
    FixedSwapped(FixedSum),
}

impl<T: Int8> Add<T> {
    /// Prepares for operands with these parameters and this output.
    ///
    /// # Errors
    /// [`Error::Params`] unless all parameters are per tensor. [`Error::Argument`] for [`Arithmetic::F64`], and if a
    /// ratio of scales is outside the range of fixed-point numbers.
    pub fn new(a: &QParams<T>, b: &QParams<T>, to: &Output<T>) -> Result<Self> {
        let operands = Operands { a: a.clone(), b: b.clone(), y: to.params.clone() };
        let (a_params, b_params, y_params) = operands.scale_zero_points()?;
        let (codes, offset) = (to.codes(), to.code_offset);
        let op = match to.arithmetic {
            Arithmetic::F32 if offset == 0 => SumOp::Float(FloatSum::new(a_params, b_params, y_params, codes)),
            Arithmetic::F32 => {
                let [a, b, y] = [a_params, b_params, y_params].map(|(scale, zero)| (scale, zero - offset));
                SumOp::FloatOffset(OffsetCodes { op: FloatSum::new(a, b, y, codes.minus(offset)), offset })
            }
            Arithmetic::FixedPoint(rounding) if a_params.0 >= b_params.0 => {
                SumOp::Fixed(FixedSum::new(a_params, b_params, y_params, rounding, codes)?)
            }
            Arithmetic::FixedPoint(rounding) => {
                SumOp::FixedSwapped(FixedSum::new(b_params, a_params, y_params, rounding, codes)?)
            }
            other => return Err(unsupported("arithmetic of a sum", other)),
        };
        Ok(Self { operands, op })
    }

    /// Prepares the difference `a - b` by the formula of [`Arithmetic::F32`]: a sum with a negative scale.
    pub(crate) fn difference(a: &QParams<T>, b: &QParams<T>, to: &Output<T>) -> Result<Self> {
        let operands = Operands { a: a.clone(), b: b.clone(), y: to.params.clone() };
        let (a_params, (b_scale, b_zero), y_params) = operands.scale_zero_points()?;
        let op = SumOp::Float(FloatSum::new(a_params, (-b_scale, b_zero), y_params, to.codes()));
        Ok(Self { operands, op })
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<T> {
        &self.operands.y
    }

    /// Computes the sum of two tensors.
    ///
    /// # Errors
    /// [`Error::Params`] if an operand has another scale or zero point. [`Error::Shape`] if the shapes do not
    /// broadcast.
    pub fn forward<D: Dimension>(&self, a: &QTensor<T, D>, b: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        self.operands.forward(a, b, |a, b, out| self.forward_into(a, b, out))
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. All arrays may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if an operand does not broadcast to the shape of `out`. Nothing is written then.
    pub fn forward_into<D: Dimension>(
        &self,
        a: &ArrayRef<T, D>,
        b: &ArrayRef<T, D>,
        out: &mut ArrayRef<T, D>,
    ) -> Result<()> {
        match &self.op {
            SumOp::Float(sum) => map2([a, b], out, *sum),
            SumOp::FloatOffset(sum) => map2([a, b], out, *sum),
            SumOp::Fixed(sum) => map2([a, b], out, *sum),
            SumOp::FixedSwapped(sum) => map2([b, a], out, *sum),
        }
    }
}

/// The product of two quantized tensors: `y = a * b` (ONNX Runtime: `QLinearMul`; TFLite: `MUL`):
/// `clamp(round((a - a_zero) * (b - b_zero) * (a_scale * b_scale / y_scale)) + y_zero)`.
///
/// It is prepared for the parameters of both operands and of the output. [`Arithmetic::F32`] is ONNX Runtime's formula,
/// [`Arithmetic::FixedPoint`] TFLite's. Operands broadcast as in [`Add`].
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Mul;
/// use ndarray_quant::{QParams, Quantize, nn::Output};
/// let a = QParams::<i8>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, -2.0]])?;
/// let b = QParams::<i8>::per_tensor(0.25, -8)?.quantize(&array![[3.0f32, 1.5]])?;
/// let mul = Mul::new(a.params(), b.params(), &Output::to(&QParams::per_tensor(0.25, 0)?))?;
/// assert_eq!(mul.forward(&a, &b)?.dequantize(), array![[3.0, -3.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mul<T: Int8> {
    operands: Operands<T>,
    op: ProductOp,
}

#[derive(Debug, Clone)]
enum ProductOp {
    Float(ProductOf<FloatProduct>),
    FloatOffset(OffsetCodes<ProductOf<FloatProduct>>),
    Double(ProductOf<DoubleProduct>),
    Fixed(ProductOf<RequantizeFixed>),
}

impl<T: Int8> Mul<T> {
    /// Prepares for operands with these parameters and this output.
    ///
    /// # Errors
    /// [`Error::Params`] unless all parameters are per tensor and the multiplier is finite in `f32`.
    /// [`Error::Argument`] if it is outside the range of fixed-point numbers.
    pub fn new(a: &QParams<T>, b: &QParams<T>, to: &Output<T>) -> Result<Self> {
        let operands = Operands { a: a.clone(), b: b.clone(), y: to.params.clone() };
        let ((a_scale, a_zero), (b_scale, b_zero), (y_scale, zero_point)) = operands.scale_zero_points()?;
        let (codes, offset) = (to.codes(), to.code_offset);
        let op = match Multiplier::new(a_scale, b_scale, y_scale, to.arithmetic)? {
            Multiplier::F32(factor) if offset != 0 => {
                let to = FloatProduct { factor, zero_point: zero_point - offset, codes: codes.minus(offset) };
                let op = ProductOf { a_zero: a_zero - offset, b_zero: b_zero - offset, to };
                ProductOp::FloatOffset(OffsetCodes { op, offset })
            }
            Multiplier::F32(factor) => {
                ProductOp::Float(ProductOf { a_zero, b_zero, to: FloatProduct { factor, zero_point, codes } })
            }
            Multiplier::F64(factor) => {
                ProductOp::Double(ProductOf { a_zero, b_zero, to: DoubleProduct { factor, zero_point, codes } })
            }
            Multiplier::FixedPoint(factor, rounding) => {
                let to = RequantizeFixed::new(factor, rounding, zero_point, codes);
                ProductOp::Fixed(ProductOf { a_zero, b_zero, to })
            }
        };
        Ok(Self { operands, op })
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<T> {
        &self.operands.y
    }

    /// Computes the product of two tensors.
    ///
    /// # Errors
    /// [`Error::Params`] if an operand has another scale or zero point. [`Error::Shape`] if the shapes do not
    /// broadcast.
    pub fn forward<D: Dimension>(&self, a: &QTensor<T, D>, b: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        self.operands.forward(a, b, |a, b, out| self.forward_into(a, b, out))
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. All arrays may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if an operand does not broadcast to the shape of `out`. Nothing is written then.
    pub fn forward_into<D: Dimension>(
        &self,
        a: &ArrayRef<T, D>,
        b: &ArrayRef<T, D>,
        out: &mut ArrayRef<T, D>,
    ) -> Result<()> {
        match self.op {
            ProductOp::Float(product) => map2([a, b], out, product),
            ProductOp::FloatOffset(product) => map2([a, b], out, product),
            ProductOp::Double(product) => map2([a, b], out, product),
            ProductOp::Fixed(product) => map2([a, b], out, product),
        }
    }
}

/// The parameters of both operands and of the output.
#[derive(Debug, Clone)]
struct Operands<T: Int8> {
    a: QParams<T>,
    b: QParams<T>,
    y: QParams<T>,
}

type ScaleZeroPoint = (f32, i32);

impl<T: Int8> Operands<T> {
    /// Returns scales and zero points. Returns an error unless all are per tensor.
    fn scale_zero_points(&self) -> Result<(ScaleZeroPoint, ScaleZeroPoint, ScaleZeroPoint)> {
        Ok((self.a.scale_zero_point("a")?, self.b.scale_zero_point("b")?, self.y.scale_zero_point("output")?))
    }

    fn forward<D: Dimension>(
        &self,
        a: &QTensor<T, D>,
        b: &QTensor<T, D>,
        run: impl Fn(&ArrayRef<T, D>, &ArrayRef<T, D>, &mut ArrayRef<T, D>) -> Result<()>,
    ) -> Result<QTensor<T, D>> {
        check_params("a", a.params(), &self.a)?;
        check_params("b", b.params(), &self.b)?;
        let (a, b) = (a.unpacked_codes(), b.unpacked_codes());
        let mut shape = a.raw_dim();
        if a.ndim() == b.ndim() {
            for (axis, &len) in b.shape().iter().enumerate().filter(|(_, len)| **len != 1) {
                shape[axis] = len;
            }
        }
        if a.broadcast(shape.clone()).is_none() || b.broadcast(shape.clone()).is_none() {
            return Err(ShapeError::Broadcast { a: a.shape().to_vec(), b: b.shape().to_vec() }.into());
        }
        let mut out = Array::from_elem(shape, T::default());
        run(&a, &b, &mut out)?;
        QTensor::from_valid_codes(out, self.y.clone())
    }
}
