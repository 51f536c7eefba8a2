//! Schemes: choose scales and zero points from ranges.

use alloc::vec::Vec;
use core::marker::PhantomData;

use ndarray::{ArrayD, ArrayRef, Axis, Dimension};

use crate::affine::{Codes, Convention, asymmetric, check_range, symmetric};
use crate::element::{Code, Element, Float};
use crate::error::Result;
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::range::{Bounds, Ranges};

/// A quantization scheme: chooses the scale and zero point for a range.
///
/// A scheme is symmetric or asymmetric, and has a code range, a [`Granularity`] and a [`Convention`]:
///
/// | | asymmetric | symmetric |
/// |---|---|---|
/// | range | `[min(min, 0), max(max, 0)]` | `[-a, a]`, `a = max(abs(min), abs(max))` |
/// | scale | `(max - min) / (code_max - code_min)` | `a / ((code_max - code_min) / 2)` |
/// | zero point | `code_min - round(min / scale)` | the middle code: 0 for signed types |
///
/// The real number 0 always has an exact code. The convention determines details that differ between systems.
///
/// [`Scheme::quantize`] takes the range from the tensor itself (dynamic quantization). [`Scheme::params`] takes it from
/// an observer (static quantization), and [`Scheme::params_from_range`] from the caller.
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{I4, Scheme};
///
/// let x = array![[0.0f32, 0.5, 1.0], [-3.0, 0.0, 3.0]];
/// let q = Scheme::<u8>::asymmetric().quantize(&x)?;
/// assert_eq!(q.codes(), array![[128, 149, 170], [0, 128, 255]]);
///
/// let q = Scheme::<i8>::symmetric().narrow_range().per_axis(Axis(0)).quantize(&x)?;
/// assert_eq!(q.codes(), array![[0, 64, 127], [-127, 0, 127]]);
///
/// let q = Scheme::<I4>::symmetric().per_group(Axis(1), 2).quantize(&x)?;
/// assert_eq!(q.params().scale().shape(), [2, 2]); // groups of two and of one
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound = "", try_from = "Serialized"))]
pub struct Scheme<T: Element> {
    symmetric: bool,
    codes: Codes,
    granularity: Granularity,
    convention: Convention,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

/// The serialized form of a scheme, checked when it is read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Scheme")]
struct Serialized {
    symmetric: bool,
    codes: Codes,
    granularity: Granularity,
    convention: Convention,
}

#[cfg(feature = "serde")]
impl<T: Element> TryFrom<Serialized> for Scheme<T> {
    type Error = crate::error::Error;
    fn try_from(scheme: Serialized) -> Result<Self> {
        let Serialized { symmetric, codes, granularity, convention } = scheme;
        let scheme = Scheme { granularity, convention, ..Self::new(symmetric) };
        scheme.with_code_range(codes.min, codes.max)
    }
}

impl<T: Element> Scheme<T> {
    fn new(symmetric: bool) -> Self {
        Scheme {
            symmetric,
            codes: Codes::all::<T>(),
            granularity: Granularity::default(),
            convention: Convention::default(),
            element: PhantomData,
        }
    }

    /// Creates a scheme whose range is symmetric around zero, per tensor, in ONNX's convention. Use it for weights and
    /// for activations of both signs.
    pub fn symmetric() -> Self {
        Self::new(true)
    }

    /// Creates a scheme whose range is the range of the data, per tensor, in ONNX's convention. Use it for activations,
    /// such as the output of a ReLU.
    pub fn asymmetric() -> Self {
        Self::new(false)
    }

    /// Drops the smallest code, which makes the codes of a signed type symmetric: `-127..=127`. A range of two codes
    /// does not change.
    pub fn narrow_range(mut self) -> Self {
        if self.codes.steps() > 1 {
            self.codes.min += 1;
        }
        self
    }

    /// Restricts codes to `bits` bits: `-2^(bits - 1)..=2^(bits - 1) - 1` if the element type is signed, otherwise
    /// `0..=2^bits - 1`.
    ///
    /// ```
    /// use ndarray_quant::Scheme;
    /// assert_eq!(Scheme::<i8>::symmetric().with_bits(3)?.levels(), 8); // -4..=3
    /// assert_eq!(Scheme::<i8>::symmetric().with_bits(3)?.narrow_range().levels(), 7); // -3..=3
    /// assert!(Scheme::<i8>::symmetric().with_bits(9).is_err());
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless `2 <= bits <= T::BITS`.
    pub fn with_bits(self, bits: u32) -> Result<Self> {
        if !(2..=T::BITS).contains(&bits) {
            return Err(crate::Error::Argument {
                what: "bits of a code",
                expected: "from 2 to as many as the element type has",
                found: alloc::format!("{bits}"),
            });
        }
        let dropped = T::BITS - bits;
        self.with_code_range(T::MIN >> dropped, T::MAX >> dropped)
    }

    /// Restricts codes to `min..=max`.
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) unless
    /// `T::MIN <= min < max <= T::MAX`.
    pub fn with_code_range(mut self, min: i32, max: i32) -> Result<Self> {
        self.codes = Codes::within::<T>(min, max)?;
        Ok(self)
    }

    /// Sets the granularity to one scale per index of `axis`.
    pub fn per_axis(self, axis: Axis) -> Self {
        self.with_granularity(Granularity::per_axis(axis))
    }

    /// Sets the granularity to one scale per group of `size` elements along `axis`.
    pub fn per_group(self, axis: Axis, size: usize) -> Self {
        self.with_granularity(Granularity::per_group(axis, size))
    }

    /// Sets the granularity.
    pub fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Sets the convention.
    pub fn with_convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// Returns the granularity.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Returns the convention.
    pub fn convention(&self) -> Convention {
        self.convention
    }

    /// Returns whether the scheme is symmetric.
    pub fn is_symmetric(&self) -> bool {
        self.symmetric
    }

    /// Returns the smallest and the greatest code.
    pub fn code_range(&self) -> (i32, i32) {
        (self.codes.min, self.codes.max)
    }

    /// Returns the number of codes: `max - min + 1`.
    pub fn levels(&self) -> u64 {
        self.codes.steps() as u64 + 1
    }

    /// Chooses per-tensor parameters for the range `min..=max`, whatever the granularity of the scheme.
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) if a bound is not finite or `min > max`; same as [`QParams::new`]
    /// otherwise.
    ///
    /// ```
    /// use ndarray_quant::Scheme;
    /// let params = Scheme::<u8>::asymmetric().params_from_range(0.0, 5.1)?;
    /// assert!((params.scales()[0] - 0.02).abs() < 1e-8); // 5.1 / 255
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn params_from_range(&self, min: f32, max: f32) -> Result<QParams<T>> {
        let (scale, zero_point) = self.choose(min, max)?;
        let params = QParams::per_tensor(scale, zero_point)?.with_convention(self.convention);
        params.with_code_range(self.codes.min, self.codes.max)
    }

    /// Chooses parameters for each block's range. The granularity is the ranges' granularity.
    ///
    /// # Errors
    /// Same as [`QParams::new`].
    pub fn params_from_ranges(&self, ranges: &Ranges) -> Result<QParams<T>> {
        let bounds = ranges.min().iter().zip(ranges.max()).map(|(&min, &max)| (min, max));
        self.params_from_bounds(ranges.granularity(), ranges.min().shape(), bounds)
    }

    /// Chooses parameters of this shape for the bounds of each block, in row-major order.
    fn params_from_bounds(
        &self,
        granularity: Granularity,
        shape: &[usize],
        bounds: impl Iterator<Item = (f32, f32)>,
    ) -> Result<QParams<T>> {
        let blocks = shape.iter().product();
        let (mut scale, mut zero_point) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
        for (min, max) in bounds {
            let (s, z) = self.choose(min, max)?;
            scale.push(s);
            zero_point.push(z);
        }
        let scale = ArrayD::from_shape_vec(shape, scale).expect("one scale per block");
        let zero_point = ArrayD::from_shape_vec(shape, zero_point).expect("one zero point per block");
        let params = QParams::new(granularity, scale, Some(zero_point))?.with_convention(self.convention);
        params.with_code_range(self.codes.min, self.codes.max)
    }

    /// Chooses parameters for the minimum and maximum of each block of `x`.
    ///
    /// # Errors
    /// Same as [`Ranges::of`].
    pub fn params_of<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<QParams<T>> {
        let shape = self.granularity.params_shape(x.shape())?;
        let bounds = Bounds::of_blocks(x, self.granularity, &shape)?;
        self.params_from_bounds(self.granularity, &shape, bounds.into_iter().map(|b| b.or_zero().into()))
    }

    /// Quantizes a tensor with the parameters of its own range (ONNX: `DynamicQuantizeLinear`).
    ///
    /// # Errors
    /// Same as [`Scheme::params_of`].
    pub fn quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D>> {
        self.params_of(x)?.quantize(x)
    }

    /// [`Scheme::quantize`] into a caller-provided array, one code per element, not packed. Returns the parameters.
    ///
    /// # Errors
    /// Same as [`Scheme::params_of`], and [`Error::Shape`](crate::Error::Shape) if `codes` has
    /// another shape than `x`.
    pub fn quantize_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        codes: &mut ArrayRef<T::Code, D>,
    ) -> Result<QParams<T>> {
        let params = self.params_of(x)?;
        params.quantize_into(x, codes)?;
        Ok(params)
    }

    pub(crate) fn codes(&self) -> Codes {
        self.codes
    }

    pub(crate) fn choose(&self, min: f32, max: f32) -> Result<(f32, T::Code)> {
        check_range(min, max)?;
        let choose = if self.symmetric { symmetric } else { asymmetric };
        let (scale, zero_point) = choose(min, max, self.codes, self.convention);
        Ok((scale, T::Code::from_i32(zero_point)))
    }
}
