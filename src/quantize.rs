//! The traits `Quantize` and `Dequantize`, for generic code.

use ndarray::{Array, ArrayRef, Dimension};

use crate::element::{Element, Float};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::scheme::Scheme;

/// Quantizes a float tensor.
///
/// [`Scheme`] quantizes by the tensor's own range, [`QParams`] by fixed parameters, and
/// [`HalfCast`](crate::half::HalfCast) to half precision. These types also have an inherent `quantize`, so only generic
/// code needs the trait. Implement it for a quantizer of your own:
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
///     let y = q.quantize(x)?.dequantize()?;
///     Ok(x.iter().zip(&y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max))
/// }
///
/// let x = array![1.0f32, -1.0, 0.5, -1.5];
/// assert_eq!(worst_error(&Sign, &x)?, 0.5);
/// assert!(worst_error(&Scheme::<u8>::asymmetric(), &x)? < 0.01);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Quantize<F: Float, D: Dimension> {
    /// The stored form of the tensor.
    type Output: Dequantize<F, D>;

    /// Quantizes `x`.
    ///
    /// # Errors
    /// The implementation defines them.
    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<Self::Output>;
}

/// A quantized tensor that can be dequantized.
pub trait Dequantize<F: Float, D: Dimension> {
    /// Returns the shape in elements, as a dimension of `ndarray`.
    fn raw_dim(&self) -> D;

    /// Returns the size of the tensor in memory, in bytes, including its parameters.
    fn size_in_bytes(&self) -> usize;

    /// Dequantizes into a caller-provided array.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape.
    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()>;

    /// Dequantizes the tensor.
    ///
    /// # Errors
    /// Same as [`dequantize_into`](Self::dequantize_into). The implementations of this crate do not fail, because the
    /// shape is right.
    fn dequantize(&self) -> Result<Array<F, D>> {
        let mut out = Array::from_elem(self.raw_dim(), F::default());
        self.dequantize_into(&mut out)?;
        Ok(out)
    }
}

impl<F: Float, D: Dimension, T: Element> Quantize<F, D> for Scheme<T> {
    type Output = QTensor<T, D>;

    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D>> {
        self.quantize(x)
    }
}

impl<F: Float, D: Dimension, T: Element> Quantize<F, D> for QParams<T> {
    type Output = QTensor<T, D>;

    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D>> {
        self.quantize(x)
    }
}

impl<F: Float, D: Dimension, T: Element> Dequantize<F, D> for QTensor<T, D> {
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
