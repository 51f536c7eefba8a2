//! Softmax.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;

use alloc::boxed::Box;

use ndarray::{Array, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, Zip};

use crate::error::{Error, Result};
use crate::gemm::Int8;
use crate::ops::params::check_params;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// Softmax along the last axis: `exp(x) / Σ exp(x)` (ONNX Runtime: `QLinearSoftmax`; TFLite: `SOFTMAX`).
///
/// Computes `y = clamp(round(e[max - x] / Σ e[max - x] / y_scale) + y_zero)` with a table `e[d] = exp(-d * x_scale)` in
/// `f32`. TFLite's output has a scale of 1/256 and the smallest code as zero point. Its kernels round the exponential
/// in fixed point, so their codes may differ by one.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ops::Softmax;
/// use ndarray_quant::{QParams, Quantize};
/// let x = QParams::<u8>::per_tensor(0.1, 100)?.quantize(&array![[1.0f32, 1.0], [0.0, 3.0]])?;
/// let softmax = Softmax::new(x.params(), &QParams::<u8>::per_tensor(1.0 / 256.0, 0)?)?;
/// assert_eq!(softmax.forward(&x)?.codes(), array![[128, 128], [12, 244]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Softmax<T: Int8> {
    x: QParams<T>,
    y: QParams<T>,
    /// Indexed by the difference from the greatest code of the row.
    exp: Box<[f32; 256]>,
}

/// Elements of a row per chunk of the buffer.
const CHUNK: usize = 512;

impl<T: Int8> Softmax<T> {
    /// Prepares for input and output parameters.
    ///
    /// # Errors
    /// [`Error::Params`] unless both are per tensor.
    pub fn new(x: &QParams<T>, y: &QParams<T>) -> Result<Self> {
        let (scale, _) = x.scale_zero_point("input")?;
        y.scale_zero_point("output")?;
        let mut exp = Box::new([0.0; 256]);
        for (difference, entry) in exp.iter_mut().enumerate() {
            *entry = num_traits::Float::exp(-(difference as f64) * f64::from(scale)) as f32;
        }
        Ok(Self { x: x.clone(), y: y.clone(), exp })
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<T> {
        &self.y
    }

    /// Computes the softmax along the last axis.
    ///
    /// # Errors
    /// [`Error::Params`] if `x` has another scale or zero point. [`Error::Shape`] if it has no axes.
    pub fn forward<D: Dimension>(&self, x: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        check_params("input", x.params(), &self.x)?;
        let x = x.unpacked_codes();
        let mut out = Array::from_elem(x.raw_dim(), T::default());
        self.forward_into(&x, &mut out)?;
        QTensor::from_valid_codes(out, self.y.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than `x`, or there are no axes. Nothing is written then.
    pub fn forward_into<D: Dimension>(&self, x: &ArrayRef<T, D>, out: &mut ArrayRef<T, D>) -> Result<()> {
        if x.shape() != out.shape() {
            return Err(Error::shape("output", x.shape(), out.shape()));
        }
        let Some(last) = x.ndim().checked_sub(1) else {
            return Err(Error::axis(0, 0));
        };
        let mut values = [0.0; CHUNK];
        for (x, mut out) in x.lanes(Axis(last)).into_iter().zip(out.lanes_mut(Axis(last))) {
            let max = x.fold(T::MIN, |max, code| max.max(code.to_i32()));
            let exp = |code: &T| self.exp[(max - code.to_i32()) as u8 as usize];
            let sum = x.fold(0.0, |sum, code| sum + exp(code));
            let chunks = x.axis_chunks_iter(Axis(0), CHUNK).zip(out.axis_chunks_iter_mut(Axis(0), CHUNK));
            for (x, out) in chunks {
                let values = &mut values[..x.len()];
                Zip::from(ArrayViewMut1::from(&mut *values)).and(x).for_each(|value, code| *value = exp(code) / sum);
                self.y.quantize_run(ArrayView1::from(&*values), out);
            }
        }
        Ok(())
    }
}
