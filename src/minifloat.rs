//! Float codes: 8-bit, 6-bit and 4-bit floats, and tensors of them with scales.
//!
//! A *minifloat* is a float of at most 8 bits. A tensor of them is quantized as one of integers is, `x ≈ q * scale`, but the
//! codes are floats themselves: they are dense near zero and sparse at the ends of the range, so one scale serves values of
//! very different magnitude. There are no zero points.
//!
//! ```
//! use ndarray::array;
//! use ndarray_quant::Granularity;
//! use ndarray_quant::minifloat::{F8E4M3FN, MinifloatParams};
//!
//! let x = array![0.001f32, -0.5, 3.0, 896.0];
//! let params = MinifloatParams::<F8E4M3FN>::of(&x, Granularity::PerTensor)?;
//! assert_eq!(params.scales(), [2.0]); // 896 / 448, the greatest code
//! let q = params.quantize(&x)?;
//! assert_eq!(q.dequantize(), array![0.0, -0.5, 3.0, 896.0]);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

use core::marker::PhantomData;

use ndarray::{Array, Array1, ArrayD, ArrayRef, Axis, Dimension, IxDyn};

use crate::element::Float;
pub use crate::element::e8m0::{E8M0, E8M0Rounding};
use crate::element::minifloat::encode_compute;
pub use crate::element::minifloat::{
    F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, Minifloat,
};
use crate::elementwise::{Params, Scales, decode_run, encode_run};
use crate::error::{Result, ValueError, check_shapes};
use crate::granularity::{Blocks, Granularity, Run, Segment, position};
use crate::half::Overflow;
use crate::observer::Ranges;
use crate::qparams::checked_scale;
use crate::quantize::{Dequantize, Quantize};

/// The scales of a tensor of float codes: `x ≈ q * scale`.
///
/// Scales have the shapes of [`QParams`](crate::QParams). A value is quantized as ONNX's `QuantizeLinear` does for float8:
/// `round(x / scale)` to the nearest code, ties to even; the division is in `f64` if the tensor is, otherwise in `f32`.
/// The [`Overflow`] policy says what becomes of a quotient that rounds beyond the greatest code, [`Overflow::Saturate`]
/// unless set otherwise:
///
/// | policy | a finite quotient overflows | infinity | NaN |
/// |---|---|---|---|
/// | `Error` | an error | an error, unless the type has infinities | an error, unless the type has NaN |
/// | `Saturate` | the greatest code of the same sign | the same | NaN; a zero where the type has no NaN |
/// | `Infinity` | infinity; NaN where the type has no infinity, the greatest code where it has neither | the same | the same |
///
/// A scale of 1 is a cast (ONNX: `Cast`; PyTorch: `Tensor.to`).
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::half::Overflow;
/// use ndarray_quant::minifloat::{F4E2M1FN, F8E5M2, MinifloatParams};
///
/// let cast = MinifloatParams::<F8E5M2>::per_tensor(1.0)?.with_overflow(Overflow::Infinity);
/// assert_eq!(cast.quantize(&array![1.1f32, 1e6])?.dequantize(), array![1.0, f32::INFINITY]);
///
/// let rows = MinifloatParams::<F4E2M1FN>::per_axis(Axis(0), array![0.5, 10.0])?;
/// let q = rows.quantize(&array![[3.0f32, 1.0], [-60.0, 11.0]])?;
/// assert_eq!(q.codes().mapv(f32::from), array![[6.0, 2.0], [-6.0, 1.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// Ranges of observers become scales, too:
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::Scheme;
/// use ndarray_quant::minifloat::{F8E4M3FN, MinifloatParams};
/// use ndarray_quant::observer::MinMax;
///
/// let mut range = MinMax::per_tensor();
/// range.observe(&array![-224.0f32, 1.0])?;
/// let ranges = range.ranges(&Scheme::<i8>::symmetric())?;
/// assert_eq!(MinifloatParams::<F8E4M3FN>::from_ranges(&ranges)?.scales(), [0.5]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound = "", into = "Serialized", try_from = "Serialized"))]
pub struct MinifloatParams<T: Minifloat> {
    granularity: Granularity,
    scale: ArrayD<f32>,
    overflow: Overflow,
    code: PhantomData<T>,
}

/// The serialized form of parameters, checked when it is read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "MinifloatParams")]
struct Serialized {
    granularity: Granularity,
    scale: ArrayD<f32>,
    overflow: Overflow,
}

#[cfg(feature = "serde")]
impl<T: Minifloat> From<MinifloatParams<T>> for Serialized {
    fn from(p: MinifloatParams<T>) -> Self {
        Serialized { granularity: p.granularity, scale: p.scale, overflow: p.overflow }
    }
}

#[cfg(feature = "serde")]
impl<T: Minifloat> TryFrom<Serialized> for MinifloatParams<T> {
    type Error = crate::error::Error;
    fn try_from(p: Serialized) -> Result<Self> {
        Ok(Self::new(p.granularity, p.scale)?.with_overflow(p.overflow))
    }
}

impl<T: Minifloat> MinifloatParams<T> {
    /// Creates parameters from scales in the shape of the granularity, see [`QParams::new`](crate::QParams::new).
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) unless every scale is finite and positive and groups have at least 1
    /// element, [`Error::Shape`](crate::Error::Shape) if the shape does not belong to the granularity.
    pub fn new<D: Dimension>(granularity: Granularity, scale: Array<f32, D>) -> Result<Self> {
        let scale = checked_scale(granularity, scale)?;
        Ok(Self { granularity, scale, overflow: Overflow::Saturate, code: PhantomData })
    }

    /// Creates parameters of one scale, for tensors of any shape.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    pub fn per_tensor(scale: f32) -> Result<Self> {
        Self::new(Granularity::PerTensor, ArrayD::from_elem(IxDyn(&[]), scale))
    }

    /// Creates parameters of one scale per index of `axis`.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    pub fn per_axis(axis: Axis, scale: Array1<f32>) -> Result<Self> {
        Self::new(Granularity::per_axis(axis), scale)
    }

    /// Chooses the scale of each range: `max(abs(min), abs(max)) / T::MAX`, and 1 for the range `0..=0`. The greatest
    /// magnitude of the range becomes the greatest code.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    pub fn from_ranges(ranges: &Ranges) -> Result<Self> {
        let mut scale = ranges.max().clone();
        scale.zip_mut_with(ranges.min(), |scale, &min| {
            let magnitude = scale.abs().max(min.abs());
            let quotient = (magnitude / T::MAX.to_f32()).max(f32::MIN_POSITIVE);
            *scale = if magnitude == 0.0 { 1.0 } else { quotient };
        });
        Self::new(ranges.granularity(), scale)
    }

    /// Chooses the scale of each block of a tensor by its own range, see [`from_ranges`](Self::from_ranges).
    ///
    /// # Errors
    /// Same as [`Ranges::of`].
    pub fn of<F: Float, D: Dimension>(x: &ArrayRef<F, D>, granularity: Granularity) -> Result<Self> {
        Self::from_ranges(&Ranges::of(x, granularity)?)
    }

    /// Sets the overflow policy.
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Returns the granularity.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Returns the scales.
    pub fn scale(&self) -> &ArrayD<f32> {
        &self.scale
    }

    /// Returns the scales in row-major order: one per tensor, per channel or per group.
    pub fn scales(&self) -> &[f32] {
        self.scale.as_slice().unwrap_or_default()
    }

    /// Returns the overflow policy.
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Returns the size of the scales in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        size_of::<f32>() * self.scale.len()
    }

    /// Quantizes a tensor: `round(x / scale)` (ONNX: `QuantizeLinear`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the scales do not fit `x`. With [`Overflow::Error`],
    /// [`Error::Value`](crate::Error::Value) with the position of the first value that overflows or that is a NaN without
    /// a code.
    pub fn quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<MinifloatTensor<T, D>> {
        let mut codes = Array::from_elem(x.raw_dim(), T::default());
        self.quantize_into(x, &mut codes)?;
        Ok(MinifloatTensor { codes, params: self.clone() })
    }

    /// Quantizes into a caller-provided array. Both arrays may have any strides.
    ///
    /// # Errors
    /// Same as [`quantize`](Self::quantize), and [`Error::Shape`](crate::Error::Shape) if `codes` has another shape than
    /// `x`. Nothing is written then.
    pub fn quantize_into<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>, codes: &mut ArrayRef<T, D>) -> Result<()> {
        check_shapes("codes", x.shape(), codes.shape())?;
        let blocks = self.blocks(&x.raw_dim())?;
        if self.overflow == Overflow::Error {
            self.check_overflow(x, &blocks)?;
        }
        let saturate = self.overflow == Overflow::Saturate;
        blocks.for_each_segment_pair_in_any_order(x, codes, |segment, x, codes| {
            encode_run(x, self.params_of_segment(segment), saturate, codes);
        });
        Ok(())
    }

    /// Dequantizes into a caller-provided array: `q * scale`. Both arrays may have any strides. Computes in `f64` if `F`
    /// is `f64`, otherwise in `f32`, and rounds to `F` (ONNX: `DequantizeLinear`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape than `codes`, or the scales do not fit it.
    pub fn dequantize_into<F: Float, D: Dimension>(
        &self,
        codes: &ArrayRef<T, D>,
        out: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        check_shapes("dequantized values", codes.shape(), out.shape())?;
        let blocks = self.blocks(&codes.raw_dim())?;
        blocks.for_each_segment_pair_in_any_order(codes, out, |segment, codes, out| {
            decode_run(codes, self.params_of_segment(segment), out);
        });
        Ok(())
    }

    fn blocks<D: Dimension>(&self, shape: &D) -> Result<Blocks<D>> {
        self.granularity.check_fit(self.scale.shape(), shape.slice())?;
        Blocks::new(self.granularity, shape.ndim())
    }

    fn params_of_segment(&self, segment: Segment) -> Params<'_, i8> {
        let params = Params { scales: Scales::F32(self.scales()), zero_points: None, size: segment.block_size() };
        params.starting_at(segment.first())
    }

    /// Returns an error for the first value whose code is not finite though the value is, or that has no code.
    fn check_overflow<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>, blocks: &Blocks<D>) -> Result<()> {
        let (mut found, mut start) = (None, 0);
        blocks.for_each_run(x, |run, x| {
            let scale = |i: usize| match run {
                Run::Constant(block) => self.scales()[block],
                Run::Consecutive(first) => self.scales()[first + i],
            };
            let has_code = |i: usize, x: F| {
                let quotient = x.widen() / F::Compute::from_f32(scale(i));
                let (rounded, saturated) =
                    (encode_compute::<T, _>(quotient, false), encode_compute::<T, _>(quotient, true));
                let value = x.to_f64();
                match (value.is_nan(), value.is_infinite()) {
                    (true, _) => T::NAN.is_some(),
                    (_, true) => T::INFINITY.is_some(),
                    // Saturation changes a code exactly if it overflows. Types without other codes compare values.
                    _ if T::NAN.is_some() => rounded == saturated,
                    _ => encode_fits::<T>(quotient.to_f64()),
                }
            };
            if found.is_none() {
                found = x.iter().enumerate().find(|&(i, &x)| !has_code(i, x)).map(|(i, &x)| (start + i, x, scale(i)));
            }
            start += x.len();
        });
        let Some((place, value, scale)) = found else { return Ok(()) };
        let (found, index) = (value.to_f64(), position(&x.raw_dim(), place));
        let limit = f64::from(T::MAX.to_f32()) * f64::from(scale);
        Err(match found.is_nan() {
            true => ValueError::NonFinite { what: "x", found, index },
            false => ValueError::Overflow { limit, found, index },
        }
        .into())
    }
}

/// Returns whether a number rounds to a finite code of a type that has no others: the next code would have the greatest
/// mantissa plus one, so half a unit beyond `MAX` no longer does.
fn encode_fits<T: Minifloat>(x: f64) -> bool {
    let max = T::MAX.to_bits();
    let (last, before) = (T::MAX.to_f32() as f64, T::from_bits(max - 1).to_f32() as f64);
    // The mantissa of `MAX` is odd, so the tie rounds up.
    x.abs() < last + (last - before) / 2.0
}

/// A tensor of float codes and their scales.
///
/// It holds one code per byte.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        bound(serialize = "D: serde::Serialize", deserialize = "D: serde::Deserialize<'de>"),
        try_from = "SerializedTensor<T, D>"
    )
)]
pub struct MinifloatTensor<T: Minifloat, D: Dimension> {
    codes: Array<T, D>,
    params: MinifloatParams<T>,
}

/// The serialized form of a tensor, checked when it is read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(bound = "D: serde::Deserialize<'de>", rename = "MinifloatTensor")]
struct SerializedTensor<T: Minifloat, D: Dimension> {
    codes: Array<T, D>,
    params: MinifloatParams<T>,
}

#[cfg(feature = "serde")]
impl<T: Minifloat, D: Dimension> TryFrom<SerializedTensor<T, D>> for MinifloatTensor<T, D> {
    type Error = crate::error::Error;
    fn try_from(tensor: SerializedTensor<T, D>) -> Result<Self> {
        Self::new(tensor.codes, tensor.params)
    }
}

impl<T: Minifloat, D: Dimension> MinifloatTensor<T, D> {
    /// Creates a tensor from codes and their scales.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the scales do not fit the shape of the codes.
    pub fn new(codes: Array<T, D>, params: MinifloatParams<T>) -> Result<Self> {
        params.granularity.check_fit(params.scale.shape(), codes.shape())?;
        Ok(Self { codes, params })
    }

    /// Returns the codes.
    pub fn codes(&self) -> &Array<T, D> {
        &self.codes
    }

    /// Returns the scales.
    pub fn params(&self) -> &MinifloatParams<T> {
        &self.params
    }

    /// Returns the codes and the scales.
    pub fn into_parts(self) -> (Array<T, D>, MinifloatParams<T>) {
        (self.codes, self.params)
    }

    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        self.codes.shape()
    }

    /// Dequantizes to `f32`: `q * scale`.
    pub fn dequantize(&self) -> Array<f32, D> {
        self.dequantize_as()
    }

    /// Dequantizes to `F`, see [`MinifloatParams::dequantize_into`].
    pub fn dequantize_as<F: Float>(&self) -> Array<F, D> {
        let mut out = Array::from_elem(self.codes.raw_dim(), F::default());
        let shapes_agree = "codes and scales were checked when the tensor was built";
        self.params.dequantize_into(&self.codes, &mut out).expect(shapes_agree);
        out
    }
}

impl<F: Float, D: Dimension, T: Minifloat> Quantize<F, D> for MinifloatParams<T> {
    type Output = MinifloatTensor<T, D>;

    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<MinifloatTensor<T, D>> {
        self.quantize(x)
    }
}

impl<F: Float, D: Dimension, T: Minifloat> Dequantize<F, D> for MinifloatTensor<T, D> {
    fn raw_dim(&self) -> D {
        self.codes.raw_dim()
    }
    fn size_in_bytes(&self) -> usize {
        self.codes.len() + self.params.size_in_bytes()
    }
    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        self.params.dequantize_into(&self.codes, out)
    }
}
