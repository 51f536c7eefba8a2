//! Functions of one code, by a table of all 256.

use alloc::boxed::Box;

use ndarray::{Array, ArrayRef, Dimension, Zip};

use super::requantize::check_params;
use crate::affine::dequantize;
use crate::arch;
use crate::error::{Error, Result};
use crate::gemm::Int8;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// A function of each element, as a table of 256 codes: `table[x] = quantize(f((x - x_zero) * x_scale))`.
///
/// The function is evaluated in `f64` for each code once, when the table is built. That is how ONNX Runtime
/// (`QLinearSigmoid`, `QLinearLeakyRelu`) and TFLite (`LOGISTIC`, `TANH`, `HARD_SWISH`, `GELU`) run functions of 8-bit
/// codes.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Lookup;
/// use ndarray_quant::{QParams, Quantize};
/// let x = QParams::<u8, _>::per_tensor(0.05, 128)?;
/// let y = QParams::<u8, _>::per_tensor(1.0 / 256.0, 0)?;
/// let codes = x.quantize(&array![0.0f32, 2.0, -6.0])?;
/// assert_eq!(Lookup::sigmoid(&x, &y)?.forward(&codes)?.codes(), array![128, 225, 1]);
///
/// let square = Lookup::new(&x, &QParams::<u8, _>::per_tensor(0.25, 0)?, |x| x * x)?;
/// assert_eq!(square.forward(&codes)?.codes(), array![0, 16, 144]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Lookup<X: Int8, Y: Int8, D: Dimension> {
    x: QParams<X, D>,
    y: QParams<Y, D>,
    /// By the bits of the code.
    table: Box<[Y; 256]>,
}

impl<X: Int8, Y: Int8, D: Dimension> Lookup<X, Y, D> {
    /// Any function of one real.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both parameters are per tensor.
    pub fn new(x: &QParams<X, D>, y: &QParams<Y, D>, f: impl Fn(f64) -> f64) -> Result<Self> {
        let (scale, zero_point) = x.pair("parameters of the input")?;
        y.pair("parameters of the output")?;
        let mut table = Box::new([Y::default(); 256]);
        for code in X::MIN..=X::MAX {
            let real: f32 = dequantize(X::from_i32(code), zero_point, scale);
            table[code as u8 as usize] = Y::from_i32(y.code_of(f(f64::from(real)) as f32));
        }
        Ok(Self { x: x.clone(), y: y.clone(), table })
    }

    /// The same real in other parameters (TFLite: `QUANTIZE` of codes). Errors as [`Self::new`].
    pub fn requantize(x: &QParams<X, D>, y: &QParams<Y, D>) -> Result<Self> {
        Self::new(x, y, |x| x)
    }

    /// `1 / (1 + exp(-x))` (ONNX Runtime: `QLinearSigmoid`; TFLite: `LOGISTIC`). Errors as [`Self::new`].
    pub fn sigmoid(x: &QParams<X, D>, y: &QParams<Y, D>) -> Result<Self> {
        Self::new(x, y, |x| 1.0 / (1.0 + num_traits::Float::exp(-x)))
    }

    /// `tanh(x)` (TFLite: `TANH`). Errors as [`Self::new`].
    pub fn tanh(x: &QParams<X, D>, y: &QParams<Y, D>) -> Result<Self> {
        Self::new(x, y, num_traits::Float::tanh)
    }

    /// `x / (1 + exp(-x))`, also called swish. Errors as [`Self::new`].
    pub fn silu(x: &QParams<X, D>, y: &QParams<Y, D>) -> Result<Self> {
        Self::new(x, y, |x| x / (1.0 + num_traits::Float::exp(-x)))
    }

    /// `x * clamp(x + 3, 0, 6) / 6` (ONNX: `HardSwish`; TFLite: `HARD_SWISH`). Errors as [`Self::new`].
    pub fn hard_swish(x: &QParams<X, D>, y: &QParams<Y, D>) -> Result<Self> {
        Self::new(x, y, |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0)
    }

    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))` (ONNX: `Gelu` with `approximate` "tanh"; Hendrycks and
    /// Gimpel, "Gaussian Error Linear Units", 2016). Errors as [`Self::new`].
    pub fn gelu_tanh(x: &QParams<X, D>, y: &QParams<Y, D>) -> Result<Self> {
        let factor = num_traits::Float::sqrt(core::f64::consts::FRAC_2_PI);
        Self::new(x, y, |x| 0.5 * x * (1.0 + num_traits::Float::tanh(factor * (x + 0.044715 * x * x * x))))
    }

    /// `x` where it is positive, else `slope * x` (ONNX Runtime: `QLinearLeakyRelu`). Errors as [`Self::new`].
    pub fn leaky_relu(x: &QParams<X, D>, y: &QParams<Y, D>, slope: f64) -> Result<Self> {
        Self::new(x, y, |x| if x < 0.0 { slope * x } else { x })
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<Y, D> {
        &self.y
    }

    /// The function of each element.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` has other parameters than the table was built for.
    pub fn forward(&self, x: &QTensor<X, D>) -> Result<QTensor<Y, D>> {
        check_params(x.params(), &self.x)?;
        let x = x.unpacked_codes();
        let mut out = Array::from_elem(x.raw_dim(), Y::default());
        self.forward_into(&x, &mut out)?;
        QTensor::from_codes(out, self.y.clone())
    }

    /// The function of each code, into memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape.
    pub fn forward_into(&self, x: &ArrayRef<X, D>, out: &mut ArrayRef<Y, D>) -> Result<()> {
        if x.shape() != out.shape() {
            return Err(Error::shape("output", x.shape(), out.shape()));
        }
        if x.strides() == out.strides()
            && let (Some(x), Some(out)) = (x.as_slice_memory_order(), out.as_slice_memory_order_mut())
        {
            let len = x.len();
            self.look_up((x, len), (out, len));
            return Ok(());
        }
        for (x, mut out) in x.rows().into_iter().zip(out.rows_mut()) {
            match (x.to_slice(), out.as_slice_mut()) {
                (Some(x), Some(out)) => self.look_up((x, x.len()), (out, x.len())),
                _ => Zip::from(out).and(x).for_each(|out, &code| *out = self.table[code.to_i32() as u8 as usize]),
            }
        }
        Ok(())
    }

    /// The function of rows of so many codes, whose results are so far apart.
    pub(super) fn look_up(&self, (x, len): (&[X], usize), (out, stride): (&mut [Y], usize)) {
        let (table, _) = Y::as_bytes(&*self.table).as_chunks();
        if let (Some(table), Some(out)) = (table.first(), arch::as_bytes_mut(out)) {
            arch::lookup(table, (X::as_bytes(x), len), (out, stride));
        }
    }
}
