//! Sums and products of two tensors of codes, element by element.

use ndarray::{Array, ArrayRef, Dimension};

use super::broadcast::binary_op;
use super::requantize::{Output, check_params};
use crate::affine::{
    Arithmetic, DoubleProduct, FixedSum, FloatProduct, FloatSum, Multiplier, ProductOf, RequantizeFixed, unsupported,
};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::gemm::Int8;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The sum of two quantized tensors: `y = a + b` (ONNX Runtime: `QLinearAdd`; TFLite: `ADD`).
///
/// The parameters of both sides and of the output are fixed when it is built. The arithmetic decides whose formula
/// it is: [`Arithmetic::F32`] that of ONNX Runtime, [`Arithmetic::FixedPoint`] that of TFLite; no system has
/// one in `f64`. Tensors broadcast as those of `ndarray` and numpy do: an axis of length 1 stands for any length.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Add;
/// use ndarray_quant::{QParams, Quantize, nn::Output};
/// let a = QParams::<u8, _>::per_tensor(0.5, 10)?.quantize(&array![[1.0f32, -2.0]])?;
/// let b = QParams::<u8, _>::per_tensor(0.25, 0)?.quantize(&array![[0.5f32], [1.0]])?;
/// let y = QParams::<u8, _>::per_tensor(0.25, 128)?;
/// let add = Add::new(a.params(), b.params(), &Output::to(&y))?;
/// assert_eq!(add.forward(&a, &b)?.dequantize(), array![[1.5, -1.5], [2.0, -1.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Add<T: Int8, D: Dimension> {
    sides: Sides<T, D>,
    formula: Sum,
}

#[derive(Debug, Clone)]
enum Sum {
    Float(FloatSum),
    Fixed(FixedSum),
    /// The second side comes first, because its scale is greater.
    FixedSwapped(FixedSum),
}

impl<T: Int8, D: Dimension> Add<T, D> {
    /// For sides with these parameters and an output with those of `to`, all per tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all parameters are per tensor, [`Error::Argument`] for an arithmetic in `f64`, or if a
    /// factor between the scales is beyond what fixed-point numbers hold.
    pub fn new(a: &QParams<T, D>, b: &QParams<T, D>, to: &Output<T, D>) -> Result<Self> {
        let sides = Sides { a: a.clone(), b: b.clone(), y: to.params.clone() };
        let (pair_a, pair_b, pair_y) = sides.pairs()?;
        let codes = to.codes();
        let formula = match to.arithmetic {
            Arithmetic::F32 => Sum::Float(FloatSum::new(pair_a, pair_b, pair_y, codes)),
            Arithmetic::FixedPoint(rounding) if pair_a.0 >= pair_b.0 => {
                Sum::Fixed(FixedSum::new(pair_a, pair_b, pair_y, rounding, codes)?)
            }
            Arithmetic::FixedPoint(rounding) => {
                Sum::FixedSwapped(FixedSum::new(pair_b, pair_a, pair_y, rounding, codes)?)
            }
            other => return Err(unsupported("arithmetic of a sum", other)),
        };
        Ok(Self { sides, formula })
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<T, D> {
        &self.sides.y
    }

    /// The sum of two tensors that broadcast to one shape.
    ///
    /// # Errors
    /// [`Error::Argument`] if a side has other parameters, [`Error::Shape`] if the shapes do not broadcast.
    pub fn forward(&self, a: &QTensor<T, D>, b: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        self.sides.forward(a, b, |a, b, out| self.forward_into(a, b, out))
    }

    /// The sum of codes that broadcast to the shape of `out`, which is memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side does not broadcast to the shape of `out`. Then nothing was written.
    pub fn forward_into(&self, a: &ArrayRef<T, D>, b: &ArrayRef<T, D>, out: &mut ArrayRef<T, D>) -> Result<()> {
        match &self.formula {
            Sum::Float(sum) => binary_op([a, b], out, *sum),
            Sum::Fixed(sum) => binary_op([a, b], out, *sum),
            Sum::FixedSwapped(sum) => binary_op([b, a], out, *sum),
        }
    }
}

/// The product of two quantized tensors: `y = a * b` (ONNX Runtime: `QLinearMul`; TFLite: `MUL`).
///
/// The parameters of both sides and of the output are fixed when it is built. The arithmetic decides whose formula
/// it is: [`Arithmetic::F32`] that of ONNX Runtime, [`Arithmetic::FixedPoint`] that of TFLite. Tensors
/// broadcast.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Mul;
/// use ndarray_quant::{QParams, Quantize, nn::Output};
/// let a = QParams::<i8, _>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, -2.0]])?;
/// let b = QParams::<i8, _>::per_tensor(0.25, -8)?.quantize(&array![[3.0f32, 1.5]])?;
/// let mul = Mul::new(a.params(), b.params(), &Output::to(&QParams::per_tensor(0.25, 0)?))?;
/// assert_eq!(mul.forward(&a, &b)?.dequantize(), array![[3.0, -3.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mul<T: Int8, D: Dimension> {
    sides: Sides<T, D>,
    formula: Product,
}

#[derive(Debug, Clone)]
enum Product {
    Float(ProductOf<FloatProduct>),
    Double(ProductOf<DoubleProduct>),
    Fixed(ProductOf<RequantizeFixed>),
}

impl<T: Int8, D: Dimension> Mul<T, D> {
    /// For sides with these parameters and an output with those of `to`, all per tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all parameters are per tensor, and those of [`Multiplier::new`].
    pub fn new(a: &QParams<T, D>, b: &QParams<T, D>, to: &Output<T, D>) -> Result<Self> {
        let sides = Sides { a: a.clone(), b: b.clone(), y: to.params.clone() };
        let ((a_scale, a_zero), (b_scale, b_zero), (y_scale, zero_point)) = sides.pairs()?;
        let codes = to.codes();
        let formula = match Multiplier::new(a_scale, b_scale, y_scale, to.arithmetic)? {
            Multiplier::F32(factor) => {
                Product::Float(ProductOf { a_zero, b_zero, to: FloatProduct { factor, zero_point, codes } })
            }
            Multiplier::F64(factor) => {
                Product::Double(ProductOf { a_zero, b_zero, to: DoubleProduct { factor, zero_point, codes } })
            }
            Multiplier::FixedPoint(factor, rounding) => {
                let to = RequantizeFixed::new(factor, rounding, zero_point, codes);
                Product::Fixed(ProductOf { a_zero, b_zero, to })
            }
        };
        Ok(Self { sides, formula })
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<T, D> {
        &self.sides.y
    }

    /// The product of two tensors that broadcast to one shape.
    ///
    /// # Errors
    /// [`Error::Argument`] if a side has other parameters, [`Error::Shape`] if the shapes do not broadcast.
    pub fn forward(&self, a: &QTensor<T, D>, b: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        self.sides.forward(a, b, |a, b, out| self.forward_into(a, b, out))
    }

    /// The product of codes that broadcast to the shape of `out`, which is memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side does not broadcast to the shape of `out`. Then nothing was written.
    pub fn forward_into(&self, a: &ArrayRef<T, D>, b: &ArrayRef<T, D>, out: &mut ArrayRef<T, D>) -> Result<()> {
        match self.formula {
            Product::Float(product) => binary_op([a, b], out, product),
            Product::Double(product) => binary_op([a, b], out, product),
            Product::Fixed(product) => binary_op([a, b], out, product),
        }
    }
}

/// The parameters of both sides and of the output.
#[derive(Debug, Clone)]
struct Sides<T: Int8, D: Dimension> {
    a: QParams<T, D>,
    b: QParams<T, D>,
    y: QParams<T, D>,
}

type ScaleZeroPoint = (f32, i32);

impl<T: Int8, D: Dimension> Sides<T, D> {
    /// Scales and zero points, which must be per tensor.
    fn pairs(&self) -> Result<(ScaleZeroPoint, ScaleZeroPoint, ScaleZeroPoint)> {
        Ok((self.a.pair("left parameters")?, self.b.pair("right parameters")?, self.y.pair("output parameters")?))
    }

    fn forward(
        &self,
        a: &QTensor<T, D>,
        b: &QTensor<T, D>,
        run: impl Fn(&ArrayRef<T, D>, &ArrayRef<T, D>, &mut ArrayRef<T, D>) -> Result<()>,
    ) -> Result<QTensor<T, D>> {
        check_params(a.params(), &self.a)?;
        check_params(b.params(), &self.b)?;
        let (a, b) = (a.unpacked_codes(), b.unpacked_codes());
        let mut shape = a.raw_dim();
        if a.ndim() == b.ndim() {
            for (axis, &len) in b.shape().iter().enumerate().filter(|(_, len)| **len != 1) {
                shape[axis] = len;
            }
        }
        let mut out = Array::from_elem(shape, T::default());
        run(&a, &b, &mut out)?;
        QTensor::from_codes(out, self.y.clone())
    }
}
