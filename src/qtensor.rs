//! Codes together with their parameters.

use ndarray::{Array, ArrayRef, CowArray, Dimension, IntoDimension, Ix2};

use crate::element::{Element, Float, Storage};
use crate::error::{Error, Result};
use crate::qparams::QParams;

/// A quantized tensor: codes and the parameters that give them their meaning.
///
/// Shapes are checked when it is built, so [`dequantize`](Self::dequantize) cannot fail. With the feature `serde` it is
/// serialized as its codes, as they are stored, and its parameters, and checked again when it comes back.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, QTensor};
/// let q = QTensor::<u8, _>::new(array![[0, 128, 255]], QParams::per_tensor(0.5, 128)?)?;
/// assert_eq!(q.dequantize(), array![[-64.0, 0.0, 63.5]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        bound(
            serialize = "D: serde::Serialize, T::Storage<D>: serde::Serialize",
            deserialize = "D: serde::Deserialize<'de>, T::Storage<D>: serde::Deserialize<'de>"
        ),
        try_from = "Raw<T, D, S>"
    )
)]
pub struct QTensor<T: Element, D: Dimension, S: Float = f32> {
    codes: T::Storage<D>,
    params: QParams<T, D, S>,
}

/// What a serialized tensor holds before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(bound = "D: serde::Deserialize<'de>, T::Storage<D>: serde::Deserialize<'de>")]
struct Raw<T: Element, D: Dimension, S: Float> {
    codes: T::Storage<D>,
    params: QParams<T, D, S>,
}

#[cfg(feature = "serde")]
impl<T: Element, D: Dimension, S: Float> TryFrom<Raw<T, D, S>> for QTensor<T, D, S> {
    type Error = crate::error::Error;
    fn try_from(raw: Raw<T, D, S>) -> Result<Self> {
        Self::new(raw.codes, raw.params)
    }
}

impl<T: Element, D: Dimension, S: Float> QTensor<T, D, S> {
    /// Joins codes and parameters.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit the codes.
    pub fn new(codes: T::Storage<D>, params: QParams<T, D, S>) -> Result<Self> {
        params.check(&codes.raw_dim())?;
        Ok(Self { codes, params })
    }

    /// Joins unpacked codes, known to be in range, and parameters.
    pub(crate) fn from_codes(codes: Array<T::Code, D>, params: QParams<T, D, S>) -> Result<Self> {
        Self::new(T::Storage::from_codes(codes), params)
    }

    /// The codes as they are stored: an `Array`, or [`Packed`](crate::Packed) below eight bits.
    pub fn codes(&self) -> &T::Storage<D> {
        &self.codes
    }

    /// One code per element, unpacked where they are stored packed.
    pub fn unpacked_codes(&self) -> CowArray<'_, T::Code, D> {
        self.codes.codes()
    }

    /// The parameters.
    pub fn params(&self) -> &QParams<T, D, S> {
        &self.params
    }

    /// The two parts.
    pub fn into_parts(self) -> (T::Storage<D>, QParams<T, D, S>) {
        (self.codes, self.params)
    }

    /// The shape in elements.
    pub fn raw_dim(&self) -> D {
        self.codes.raw_dim()
    }

    /// The bytes that codes and parameters take in memory.
    pub fn size_in_bytes(&self) -> usize {
        self.codes.size_in_bytes() + self.params.size_in_bytes()
    }

    /// `(q - zero_point) * scale`, in `f32`.
    pub fn dequantize(&self) -> Array<f32, D> {
        self.dequantize_as()
    }

    /// `(q - zero_point) * scale` as `F`: computed in `f64` for `f64`, else in `f32`, then rounded to `F`. With
    /// [`Convention::Torch`](crate::Convention::Torch) per axis and per group always in `f64`.
    pub fn dequantize_as<F: Float>(&self) -> Array<F, D> {
        let mut out = Array::from_elem(self.raw_dim(), F::default());
        let fits = self.dequantize_into(&mut out);
        debug_assert_eq!(fits, Ok(()));
        out
    }

    /// `(q - zero_point) * scale` into memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape.
    pub fn dequantize_into<F: Float>(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        self.params.dequantize_into(&self.unpacked_codes(), out)
    }
}

/// Shapes.
impl<T: Element, D: Dimension> QTensor<T, D> {
    /// Returns the same codes in row-major order in another shape (ONNX: `Reshape`; TFLite: `RESHAPE`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shape has another number of elements.
    /// [`Error::Argument`](crate::Error::Argument) unless the parameters are per tensor.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::{QParams, Quantize};
    /// let x = QParams::<u8, _>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, 2.0], [3.0, 4.0]])?;
    /// assert_eq!(x.into_shape([4])?.dequantize(), array![1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn into_shape<Sh: IntoDimension>(self, shape: Sh) -> Result<QTensor<T, Sh::Dim>> {
        let shape = shape.into_dimension();
        let params = crate::ops::of_other_rank(self.params())?;
        let codes = self.unpacked_codes().into_owned();
        let found = codes.shape().to_vec();
        let codes = codes.to_shape(shape.clone()).map(|codes| codes.into_owned());
        let codes = codes.map_err(|_| Error::shape("reshaped tensor", shape.slice(), &found))?;
        QTensor::from_codes(codes, params)
    }

    /// Joins all axes before `axis` into one, and `axis` and all after it into another (ONNX: `Flatten`).
    ///
    /// # Errors
    /// [`Error::Axis`](crate::Error::Axis) if `axis` is greater than the rank. [`Error::Argument`](crate::Error::Argument)
    /// unless the parameters are per tensor.
    ///
    /// ```
    /// use ndarray::{Array4, Ix4};
    /// use ndarray_quant::{QParams, QTensor};
    /// let x = QTensor::<u8, Ix4>::new(Array4::zeros((2, 3, 4, 5)), QParams::per_tensor(0.5, 0)?)?;
    /// assert_eq!(x.flatten(1)?.codes().dim(), (2, 60));
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn flatten(self, axis: usize) -> Result<QTensor<T, Ix2>> {
        let dim = self.raw_dim();
        let shape = dim.slice();
        if axis > shape.len() {
            return Err(Error::Axis { ndim: shape.len(), found: axis });
        }
        let (outer, inner) = shape.split_at(axis);
        let shape = (outer.iter().product(), inner.iter().product());
        self.into_shape(shape)
    }
}
