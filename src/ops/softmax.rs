//! The softmax of rows of codes.

use alloc::boxed::Box;

use ndarray::{Array, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, Zip};

use super::requantize::check_params;
use crate::error::{Error, Result};
use crate::gemm::Int8;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// `exp(x) / Σ exp(x)` along the last axis (ONNX Runtime: `QLinearSoftmax`; TFLite: `SOFTMAX`).
///
/// `y = clamp(round(e[max - x] / Σ e[max - x] / y_scale) + y_zero)`, with a table of `e[d] = exp(-d * x_scale)` in
/// `f32`. TFLite's output has a scale of 1/256 and its smallest code as zero point; its own kernels round the
/// exponential in fixed point and may differ by a code.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Softmax;
/// use ndarray_quant::{QParams, Quantize};
/// let x = QParams::<u8, _>::per_tensor(0.1, 100)?.quantize(&array![[1.0f32, 1.0], [0.0, 3.0]])?;
/// let softmax = Softmax::new(x.params(), &QParams::<u8, _>::per_tensor(1.0 / 256.0, 0)?)?;
/// assert_eq!(softmax.forward(&x)?.codes(), array![[128, 128], [12, 244]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Softmax<T: Int8, D: Dimension> {
    x: QParams<T, D>,
    y: QParams<T, D>,
    /// By the distance from the greatest code of the row.
    exp: Box<[f32; 256]>,
}

/// Elements of a row that are quantized at a time.
const PIECE: usize = 512;

impl<T: Int8, D: Dimension> Softmax<T, D> {
    /// For inputs and outputs with these parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both are per tensor.
    pub fn new(x: &QParams<T, D>, y: &QParams<T, D>) -> Result<Self> {
        let (scale, _) = x.pair("parameters of the input")?;
        y.pair("parameters of the output")?;
        let mut exp = Box::new([0.0; 256]);
        for (distance, entry) in exp.iter_mut().enumerate() {
            *entry = num_traits::Float::exp(-(distance as f64) * f64::from(scale)) as f32;
        }
        Ok(Self { x: x.clone(), y: y.clone(), exp })
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<T, D> {
        &self.y
    }

    /// The softmax along the last axis.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` has other parameters, and those of [`Self::forward_into`].
    pub fn forward(&self, x: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        check_params(x.params(), &self.x)?;
        let x = x.unpacked_codes();
        let mut out = Array::from_elem(x.raw_dim(), T::default());
        self.forward_into(&x, &mut out)?;
        QTensor::from_codes(out, self.y.clone())
    }

    /// [`Self::forward`] of codes into memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape, [`Error::Axis`] if there is no axis.
    pub fn forward_into(&self, x: &ArrayRef<T, D>, out: &mut ArrayRef<T, D>) -> Result<()> {
        if x.shape() != out.shape() {
            return Err(Error::shape("output", x.shape(), out.shape()));
        }
        let Some(last) = x.ndim().checked_sub(1) else {
            return Err(Error::Axis { ndim: 0, found: 0 });
        };
        let mut reals = [0.0; PIECE];
        for (x, mut out) in x.lanes(Axis(last)).into_iter().zip(out.lanes_mut(Axis(last))) {
            let greatest = x.fold(T::MIN, |greatest, code| greatest.max(code.to_i32()));
            let exp = |code: &T| self.exp[(greatest - code.to_i32()) as u8 as usize];
            let sum = x.fold(0.0, |sum, code| sum + exp(code));
            let pieces = x.axis_chunks_iter(Axis(0), PIECE).zip(out.axis_chunks_iter_mut(Axis(0), PIECE));
            for (x, out) in pieces {
                let reals = &mut reals[..x.len()];
                Zip::from(ArrayViewMut1::from(&mut *reals)).and(x).for_each(|real, code| *real = exp(code) / sum);
                self.y.quantize_run(ArrayView1::from(&*reals), out);
            }
        }
        Ok(())
    }
}
