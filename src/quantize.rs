//! Traits for code that is generic over the way tensors are quantized.

use ndarray::{Array, ArrayRef, Dimension};

use crate::element::{Element, Float};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;

/// Whatever stores a float tensor in fewer bits.
///
/// Implemented by [`Scheme`] (parameters from the very tensor), [`QParams`] (fixed parameters) and [`HalfCast`].
/// Implement it for a quantizer of your own, and code that is generic over quantizers takes it too:
///
/// ```
/// use ndarray::{array, Array, ArrayRef, Dimension};
/// use ndarray_quant::{Dequantize, Quantize, Result, Scheme};
///
/// /// Keeps the sign of each value and the mean magnitude of all: one bit per value (BinaryConnect).
/// struct Sign;
/// struct Signs<D: Dimension> { positive: Array<bool, D>, magnitude: f32 }
///
/// impl<D: Dimension> Quantize<f32, D> for Sign {
///     type Output = Signs<D>;
///     fn quantize(&self, x: &ArrayRef<f32, D>) -> Result<Signs<D>> {
///         let magnitude = x.iter().map(|x| x.abs()).sum::<f32>() / x.len().max(1) as f32;
///         Ok(Signs { positive: x.mapv(|x| x >= 0.0), magnitude })
///     }
/// }
///
/// impl<D: Dimension> Dequantize<f32, D> for Signs<D> {
///     fn raw_dim(&self) -> D { self.positive.raw_dim() }
///     fn size_in_bytes(&self) -> usize { self.positive.len().div_ceil(8) + 4 }
///     fn dequantize_into(&self, out: &mut ArrayRef<f32, D>) -> Result<()> {
///         out.zip_mut_with(&self.positive, |y, &p| *y = if p { self.magnitude } else { -self.magnitude });
///         Ok(())
///     }
/// }
///
/// fn worst_error<D: Dimension>(q: &impl Quantize<f32, D>, x: &ArrayRef<f32, D>) -> Result<f32> {
///     let y = q.quantize(x)?.dequantize();
///     Ok(x.iter().zip(&y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max))
/// }
///
/// let x = array![1.0f32, -1.0, 0.5, -1.5];
/// assert_eq!(worst_error(&Sign, &x)?, 0.5);
/// assert!(worst_error(&Scheme::<u8>::asymmetric(), &x)? < 0.01);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Quantize<F: Float, D: Dimension> {
    /// The tensor in its stored form.
    type Output: Dequantize<F, D>;

    /// Stores `x`.
    ///
    /// # Errors
    /// Each quantizer says which of its own.
    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<Self::Output>;
}

/// A tensor in stored form that can be read back as floats.
pub trait Dequantize<F: Float, D: Dimension> {
    /// The shape in elements.
    fn raw_dim(&self) -> D;

    /// The bytes that the stored form takes in memory, parameters included.
    fn size_in_bytes(&self) -> usize;

    /// Reads it back into memory that exists.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape.
    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()>;

    /// Reads it back.
    fn dequantize(&self) -> Array<F, D> {
        let mut out = Array::from_elem(self.raw_dim(), F::default());
        let fits = self.dequantize_into(&mut out);
        debug_assert_eq!(fits, Ok(()));
        out
    }
}

impl<F: Float, D: Dimension, T: Element> Quantize<F, D> for Scheme<T> {
    type Output = QTensor<T, D>;

    /// With the parameters of this very tensor (ONNX: `DynamicQuantizeLinear`). Errors as [`Scheme::params_of`].
    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D>> {
        self.params_of(x)?.quantize(x)
    }
}

impl<F: Float, D: Dimension, T: Element, S: Float> Quantize<F, D> for QParams<T, D, S> {
    type Output = QTensor<T, D, S>;

    /// With these parameters (ONNX: `QuantizeLinear`). [`Error::Shape`] if they do not fit `x`.
    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D, S>> {
        let mut codes = Array::from_elem(x.raw_dim(), Default::default());
        self.quantize_into(x, &mut codes)?;
        QTensor::from_codes(codes, self.clone())
    }
}

impl<F: Float, D: Dimension, T: Element, S: Float> Dequantize<F, D> for QTensor<T, D, S> {
    fn raw_dim(&self) -> D {
        self.raw_dim()
    }
    fn size_in_bytes(&self) -> usize {
        self.size_in_bytes()
    }
    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        self.dequantize_into(out)
    }
}
