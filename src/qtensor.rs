//! Quantized tensors: codes and their parameters.

use ndarray::{Array, ArrayRef, ArrayViewD, Axis, CowArray, Dimension, IntoDimension, Ix2};

use crate::element::{Code, Element, Float, Storage, check_codes};
use crate::error::{Error, Result};
use crate::qparams::QParams;

/// A quantized tensor: codes and their parameters.
///
/// The tensor is checked when it is made, so [`dequantize`](Self::dequantize) cannot fail. The feature `serde`
/// serializes the stored codes and the parameters, and checks them when they are read.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, QTensor};
///
/// let q = QTensor::<u8, _>::new(array![[0, 128, 255]], QParams::per_tensor(0.5, 128)?)?;
/// assert_eq!(q.dequantize(), array![[-64.0, 0.0, 63.5]]);
/// assert_eq!((q.shape(), q.len(), q.params().scales()), (&[1, 3][..], 3, &[0.5][..]));
/// let (codes, params) = q.into();
/// assert_eq!(QTensor::<u8, _>::try_from((codes, params))?.index_axis(ndarray::Axis(1), 2)?.dequantize(), array![63.5]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        bound(serialize = "T::Storage<D>: serde::Serialize", deserialize = "T::Storage<D>: serde::Deserialize<'de>"),
        try_from = "Serialized<T, D>"
    )
)]
pub struct QTensor<T: Element, D: Dimension> {
    codes: T::Storage<D>,
    params: QParams<T>,
}

/// The serialized form of a tensor, checked when it is read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(bound = "T::Storage<D>: serde::Deserialize<'de>", rename = "QTensor")]
struct Serialized<T: Element, D: Dimension> {
    codes: T::Storage<D>,
    params: QParams<T>,
}

#[cfg(feature = "serde")]
impl<T: Element, D: Dimension> TryFrom<Serialized<T, D>> for QTensor<T, D> {
    type Error = Error;
    fn try_from(tensor: Serialized<T, D>) -> Result<Self> {
        Self::new(tensor.codes, tensor.params)
    }
}

impl<T: Element, D: Dimension> QTensor<T, D> {
    /// Creates a tensor from stored codes and their parameters.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit the shape of the codes.
    pub fn new(codes: T::Storage<D>, params: QParams<T>) -> Result<Self> {
        params.check(codes.raw_dim().slice())?;
        Ok(Self { codes, params })
    }

    /// Joins codes, one per element, and parameters. Codes of fewer than eight bits are packed.
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) for a code outside the element type,
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit the codes.
    pub fn from_codes(codes: Array<T::Code, D>, params: QParams<T>) -> Result<Self> {
        check_codes::<T, D>(&codes)?;
        Self::from_valid_codes(codes, params)
    }

    /// Same as [`from_codes`](Self::from_codes) for codes that are known to be in range.
    pub(crate) fn from_valid_codes(codes: Array<T::Code, D>, params: QParams<T>) -> Result<Self> {
        Self::new(T::Storage::from_codes(codes), params)
    }

    /// Returns the stored codes: an `Array`, or [`Packed`](crate::Packed) for elements of fewer than 8 bits.
    pub fn codes(&self) -> &T::Storage<D> {
        &self.codes
    }

    /// Returns an array with one code per element. Borrows it if the codes are stored unpacked.
    pub fn unpacked_codes(&self) -> CowArray<'_, T::Code, D> {
        self.codes.codes()
    }

    /// Returns the parameters.
    pub fn params(&self) -> &QParams<T> {
        &self.params
    }

    /// Returns the stored codes and the parameters.
    pub fn into_parts(self) -> (T::Storage<D>, QParams<T>) {
        (self.codes, self.params)
    }

    /// Returns the shape in elements, as a dimension of `ndarray`.
    pub fn raw_dim(&self) -> D {
        self.codes.raw_dim()
    }

    /// Returns the shape in elements.
    pub fn shape(&self) -> &[usize] {
        self.codes.shape()
    }

    /// Returns the number of axes.
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of codes and parameters in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.codes.size_in_bytes() + self.params.size_in_bytes()
    }

    /// Iterates over the values `(q - zero_point) * scale` in row-major order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f32> {
        self.dequantize().into_iter()
    }

    /// Dequantizes to `f32`: `(q - zero_point) * scale`.
    pub fn dequantize(&self) -> Array<f32, D> {
        self.dequantize_as()
    }

    /// Dequantizes to `F`: `(q - zero_point) * scale`.
    ///
    /// Computes in `f64` if `F` is `f64`, otherwise in `f32`, and rounds to `F`.
    /// [`Convention::Torch`](crate::Convention::Torch) always computes in `f64` per axis and per group.
    pub fn dequantize_as<F: Float>(&self) -> Array<F, D> {
        let mut out = Array::from_elem(self.raw_dim(), F::default());
        self.dequantize_into(&mut out).expect("codes and parameters were checked when the tensor was built");
        out
    }

    /// Dequantizes into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape.
    pub fn dequantize_into<F: Float>(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        self.params.dequantize_into(&self.unpacked_codes(), out)
    }
}

impl<T: Element<Code = T, Storage<D> = Array<T, D>> + Code, D: Dimension> QTensor<T, D> {
    /// Returns a view of the codes.
    pub fn view(&self) -> ndarray::ArrayView<'_, T, D> {
        self.codes.view()
    }
}

impl<T: Element, D: ndarray::RemoveAxis> QTensor<T, D> {
    /// Returns the subtensor at one index of an axis, with its parameters.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensor does not have the axis,
    /// [`Error::Argument`](crate::Error::Argument) if the axis does not have the index.
    pub fn index_axis(&self, axis: Axis, index: usize) -> Result<QTensor<T, D::Smaller>> {
        let params = self.params.index_axis(axis, index, self.shape())?;
        QTensor::from_valid_codes(self.unpacked_codes().index_axis(axis, index).to_owned(), params)
    }
}

impl<T: Element, D: Dimension> From<QTensor<T, D>> for (Array<T::Code, D>, QParams<T>) {
    /// Returns one code per element, unpacked, and the parameters.
    fn from(tensor: QTensor<T, D>) -> Self {
        let codes = tensor.unpacked_codes().into_owned();
        (codes, tensor.params)
    }
}

impl<T: Element<Code = T, Storage<D> = Array<T, D>> + Code, D: Dimension> TryFrom<(Array<T, D>, QParams<T>)>
    for QTensor<T, D>
{
    type Error = Error;
    fn try_from((codes, params): (Array<T, D>, QParams<T>)) -> Result<Self> {
        Self::new(codes, params)
    }
}

/// Displays the values, then the element type, shape and granularity.
impl<T: Element, D: Dimension> core::fmt::Display for QTensor<T, D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let values = self.dequantize();
        let values: ArrayViewD<'_, f32> = values.view().into_dyn();
        core::fmt::Display::fmt(&values, f)?;
        write!(f, " as {:?}, shape {:?}, {}", T::DTYPE, self.shape(), self.params.granularity())
    }
}

impl<T: Element, D: Dimension> QTensor<T, D> {
    /// Reshapes the tensor, with elements in row-major order (ONNX: `Reshape`; TFLite: `RESHAPE`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shape has another number of elements.
    /// [`Error::Params`](crate::Error::Params) unless the parameters are per tensor.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::QParams;
    /// let x = QParams::<u8>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, 2.0], [3.0, 4.0]])?;
    /// assert_eq!(x.into_shape([4])?.dequantize(), array![1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn into_shape<Sh: IntoDimension>(self, shape: Sh) -> Result<QTensor<T, Sh::Dim>> {
        let shape = shape.into_dimension();
        self.params.of_tensor("the reshaped tensor")?;
        let params = self.params.clone();
        let codes = self.unpacked_codes().into_owned();
        let found = codes.shape().to_vec();
        let codes = codes.to_shape(shape.clone()).map(|codes| codes.into_owned());
        let codes = codes.map_err(|_| Error::shape("reshaped tensor", shape.slice(), &found))?;
        QTensor::from_valid_codes(codes, params)
    }

    /// Reshapes to two axes: the axes before `axis`, and the others (ONNX: `Flatten`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `axis` is greater than the rank.
    /// [`Error::Params`](crate::Error::Params) unless the parameters are per tensor.
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
            return Err(Error::axis(shape.len(), axis));
        }
        let (outer, inner) = shape.split_at(axis);
        let shape = (outer.iter().product(), inner.iter().product());
        self.into_shape(shape)
    }
}
