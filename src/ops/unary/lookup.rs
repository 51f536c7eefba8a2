//! Unary elementwise functions by a lookup table.

use alloc::boxed::Box;

use ndarray::{Array, ArrayRef, Dimension, Zip};

use crate::affine::dequantize;
use crate::error::{Error, Result};
use crate::gemm::Int8;
use crate::micro::{Region, StepWriter};
use crate::ops::params::check_params;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::simd;

/// A unary function by a lookup table (LUT) of 256 codes: `table[x] = quantize(f((x - x_zero) * x_scale))`.
///
/// The function is evaluated in `f64` once per code when the table is built, so applying it costs one byte lookup per
/// element for any function. ONNX Runtime (`QLinearSigmoid`, `QLinearLeakyRelu`) and TFLite (`LOGISTIC`, `TANH`,
/// `HARD_SWISH`, `GELU`) compute functions of 8-bit codes the same way. ReLU and ReLU6 need no table: fuse them into
/// the operator before, see [`Output::relu`](crate::nn::Output::relu).
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Lookup;
/// use ndarray_quant::{QParams, Quantize};
/// let x = QParams::<u8>::per_tensor(0.05, 128)?;
/// let y = QParams::<u8>::per_tensor(1.0 / 256.0, 0)?;
/// let codes = x.quantize(&array![0.0f32, 2.0, -6.0])?;
/// assert_eq!(Lookup::sigmoid(&x, &y)?.forward(&codes)?.codes(), array![128, 225, 1]);
///
/// let square = Lookup::new(&x, &QParams::<u8>::per_tensor(0.25, 0)?, |x| x * x)?;
/// assert_eq!(square.forward(&codes)?.codes(), array![0, 16, 144]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Lookup<X: Int8, Y: Int8> {
    x: QParams<X>,
    y: QParams<Y>,
    /// Indexed by the bits of the input code.
    table: Box<[Y; 256]>,
}

impl<X: Int8, Y: Int8> Lookup<X, Y> {
    /// Builds the table of any function.
    ///
    /// # Errors
    /// [`Error::Params`] unless both parameters are per tensor.
    pub fn new(x: &QParams<X>, y: &QParams<Y>, f: impl Fn(f64) -> f64) -> Result<Self> {
        let (scale, zero_point) = x.scale_zero_point("input")?;
        y.scale_zero_point("output")?;
        let mut table = Box::new([Y::default(); 256]);
        for code in X::MIN..=X::MAX {
            let value: f32 = dequantize(X::from_i32(code), zero_point, scale);
            table[code as u8 as usize] = Y::from_i32(y.code_of(f(f64::from(value)) as f32));
        }
        Ok(Self { x: x.clone(), y: y.clone(), table })
    }

    /// Requantizes: the same values with other parameters (TFLite: `QUANTIZE` of codes). Same errors as [`Self::new`].
    pub fn requantize(x: &QParams<X>, y: &QParams<Y>) -> Result<Self> {
        Self::new(x, y, |x| x)
    }

    /// `1 / (1 + exp(-x))` (ONNX Runtime: `QLinearSigmoid`; TFLite: `LOGISTIC`). Same errors as [`Self::new`].
    pub fn sigmoid(x: &QParams<X>, y: &QParams<Y>) -> Result<Self> {
        Self::new(x, y, |x| 1.0 / (1.0 + num_traits::Float::exp(-x)))
    }

    /// `tanh(x)` (TFLite: `TANH`). Same errors as [`Self::new`].
    pub fn tanh(x: &QParams<X>, y: &QParams<Y>) -> Result<Self> {
        Self::new(x, y, num_traits::Float::tanh)
    }

    /// `x / (1 + exp(-x))`, also called swish. Same errors as [`Self::new`].
    pub fn silu(x: &QParams<X>, y: &QParams<Y>) -> Result<Self> {
        Self::new(x, y, |x| x / (1.0 + num_traits::Float::exp(-x)))
    }

    /// `x * clamp(x + 3, 0, 6) / 6` (ONNX: `HardSwish`; TFLite: `HARD_SWISH`). Same errors as [`Self::new`].
    pub fn hard_swish(x: &QParams<X>, y: &QParams<Y>) -> Result<Self> {
        Self::new(x, y, |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0)
    }

    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))` (ONNX: `Gelu` with `approximate` "tanh"; Hendrycks and
    /// Gimpel, "Gaussian Error Linear Units", 2016). Same errors as [`Self::new`].
    pub fn gelu_tanh(x: &QParams<X>, y: &QParams<Y>) -> Result<Self> {
        let factor = num_traits::Float::sqrt(core::f64::consts::FRAC_2_PI);
        Self::new(x, y, |x| 0.5 * x * (1.0 + num_traits::Float::tanh(factor * (x + 0.044715 * x * x * x))))
    }

    /// `x` where it is positive, else `slope * x` (ONNX Runtime: `QLinearLeakyRelu`). Same errors as [`Self::new`].
    pub fn leaky_relu(x: &QParams<X>, y: &QParams<Y>, slope: f64) -> Result<Self> {
        Self::new(x, y, |x| if x < 0.0 { slope * x } else { x })
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<Y> {
        &self.y
    }

    /// Applies the function to each element.
    ///
    /// # Errors
    /// [`Error::Params`] if `x` has another scale or zero point than the table was built for.
    pub fn forward<D: Dimension>(&self, x: &QTensor<X, D>) -> Result<QTensor<Y, D>> {
        check_params("input", x.params(), &self.x)?;
        let x = x.unpacked_codes();
        let mut out = Array::from_elem(x.raw_dim(), Y::default());
        self.forward_into(&x, &mut out)?;
        QTensor::from_valid_codes(out, self.y.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than `x`. Nothing is written then.
    pub fn forward_into<D: Dimension>(&self, x: &ArrayRef<X, D>, out: &mut ArrayRef<Y, D>) -> Result<()> {
        if x.shape() != out.shape() {
            return Err(Error::shape("output", x.shape(), out.shape()));
        }
        if x.strides() == out.strides()
            && let (Some(x), Some(out)) = (x.as_slice_memory_order(), out.as_slice_memory_order_mut())
        {
            let len = x.len();
            self.apply_rows((x, len), (out, len));
            return Ok(());
        }
        for (x, mut out) in x.rows().into_iter().zip(out.rows_mut()) {
            match (x.to_slice(), out.as_slice_mut()) {
                (Some(x), Some(out)) => self.apply_rows((x, x.len()), (out, x.len())),
                _ => Zip::from(out).and(x).for_each(|out, &code| *out = self.table[code.to_i32() as u8 as usize]),
            }
        }
        Ok(())
    }

    /// Adds the table to a model.
    pub(crate) fn write_micro(&self, node: &mut StepWriter<'_>) -> Region {
        node.data(Y::as_bytes(&*self.table).iter().copied())
    }

    /// Applies the table to contiguous rows of `len` codes. Output rows are `stride` apart.
    pub(crate) fn apply_rows(&self, (x, len): (&[X], usize), (out, stride): (&mut [Y], usize)) {
        let (table, _) = Y::as_bytes(&*self.table).as_chunks();
        if let (Some(table), Some(out)) = (table.first(), simd::as_bytes_mut(out)) {
            simd::lookup(table, (X::as_bytes(x), len), (out, stride));
        }
    }
}
