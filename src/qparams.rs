//! Quantization parameters: scales and zero points, checked when they are made.

use ndarray::{Array, Array1, ArrayD, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, IxDyn};

use crate::affine::{Codes, Convention, Quantizer, with_rounding};
use crate::element::{Code, DType, Element, Float};
use crate::elementwise::{self, Params, Scales};
use crate::error::{Error, ParamsError, Result, check_shapes};
use crate::granularity::{Blocks, Granularity, Segment, positions};
use crate::qtensor::QTensor;

/// The parameters of a quantized tensor: `x ≈ (q - zero_point) * scale`.
///
/// Scales and zero points have ONNX's shapes (`QuantizeLinear`): one value per tensor, a vector of one value per index
/// of the axis, or, in groups along an axis, the tensor's shape with that axis divided by the group size, rounded up.
/// Parameters per tensor and per axis serve tensors of any rank. Without zero points, all are 0, and integer products
/// skip the zero-point compensation.
///
/// Scales are `f32`. [`QParams::from_f64`] also keeps the `f64` scales of PyTorch.
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::QParams;
///
/// let params = QParams::<u8>::per_tensor(0.5, 10)?;
/// let q = params.quantize(&array![0.0f32, 0.25, 1.0, 1000.0])?;
/// assert_eq!(q.codes(), array![10, 10, 12, 255]); // 0.25 / 0.5 is a tie: half to even
/// assert_eq!(q.dequantize(), array![0.0, 0.0, 1.0, 122.5]);
/// assert_eq!(params.quantize(&array![[1.0f32], [2.0]])?.codes(), array![[12], [14]]); // any rank
///
/// let params = QParams::<i8>::per_axis(Axis(0), array![0.01, 0.4], None)?;
/// let weights = array![[1.0f32, -1.0], [20.0, 40.0]];
/// assert_eq!(params.quantize(&weights)?.codes(), array![[100, -100], [50, 100]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound = "", into = "Serialized<T>", try_from = "Serialized<T>"))]
pub struct QParams<T: Element> {
    granularity: Granularity,
    scale: ArrayD<f32>,
    /// The `f64` scales, if `f32` cannot hold them.
    scale_f64: Option<ArrayD<f64>>,
    zero_point: Option<ArrayD<T::Code>>,
    codes: Codes,
    convention: Convention,
}

/// The serialized form of parameters, checked when it is read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(bound = "", rename = "QParams")]
struct Serialized<T: Element> {
    granularity: Granularity,
    scale: ArrayD<f32>,
    scale_f64: Option<ArrayD<f64>>,
    zero_point: Option<ArrayD<T::Code>>,
    codes: Codes,
    convention: Convention,
}

#[cfg(feature = "serde")]
impl<T: Element> From<QParams<T>> for Serialized<T> {
    fn from(p: QParams<T>) -> Self {
        let QParams { granularity, scale, scale_f64, zero_point, codes, convention } = p;
        Serialized { granularity, scale, scale_f64, zero_point, codes, convention }
    }
}

#[cfg(feature = "serde")]
impl<T: Element> TryFrom<Serialized<T>> for QParams<T> {
    type Error = Error;
    fn try_from(p: Serialized<T>) -> Result<Self> {
        let params = match p.scale_f64 {
            Some(scale) => QParams::from_f64(p.granularity, scale, p.zero_point)?,
            None => QParams::new(p.granularity, p.scale, p.zero_point)?,
        };
        params.with_convention(p.convention).with_code_range(p.codes.min, p.codes.max)
    }
}

impl<T: Element> QParams<T> {
    /// Creates parameters of one scale and zero point, for tensors of any shape.
    ///
    /// # Errors
    /// [`Error::Params`] unless the scale is finite and positive and the zero point is in `T::MIN..=T::MAX`.
    pub fn per_tensor(scale: f32, zero_point: T::Code) -> Result<Self> {
        let scalar = IxDyn(&[]);
        Self::new(
            Granularity::PerTensor,
            ArrayD::from_elem(scalar.clone(), scale),
            Some(ArrayD::from_elem(scalar, zero_point)),
        )
    }

    /// Creates parameters of one scale, and optionally one zero point, per index of `axis`. They serve tensors of any
    /// rank that have the axis.
    ///
    /// # Errors
    /// Same as [`QParams::new`].
    pub fn per_axis(axis: Axis, scale: Array1<f32>, zero_point: Option<Array1<T::Code>>) -> Result<Self> {
        Self::new(Granularity::per_axis(axis), scale, zero_point)
    }

    /// Creates parameters from scales and zero points in the shape of the granularity:
    ///
    /// | granularity | shape |
    /// |---|---|
    /// | per tensor | one value, of any rank |
    /// | per axis | `[channels]` |
    /// | per group | the shape of the tensor, with the axis divided by the group size, rounded up |
    ///
    /// # Errors
    /// [`Error::Params`] unless every scale is finite and positive, every zero point is in `T::MIN..=T::MAX`, and
    /// groups have at least 1 element. [`Error::Shape`] if the shapes do not belong to the granularity or differ.
    pub fn new<D: Dimension>(
        granularity: Granularity,
        scale: Array<f32, D>,
        zero_point: Option<Array<T::Code, D>>,
    ) -> Result<Self> {
        let scale = checked_scale(granularity, scale)?;
        Self::checked(granularity, scale, None, zero_point)
    }

    /// Creates parameters from `f64` scales, as PyTorch has them.
    ///
    /// The `f64` scales are used for `f64` tensors, and when [`Convention::Torch`] dequantizes per axis or per group.
    /// The nearest `f32` is used everywhere else.
    ///
    /// # Errors
    /// Same as [`QParams::new`].
    pub fn from_f64<D: Dimension>(
        granularity: Granularity,
        scale: Array<f64, D>,
        zero_point: Option<Array<T::Code, D>>,
    ) -> Result<Self> {
        let scale = checked_scale(granularity, scale)?;
        let exact = scale.iter().all(|&s| f64::from(s as f32) == s);
        let nearest = scale.mapv(|s| s as f32);
        Self::checked(granularity, nearest, (!exact).then_some(scale), zero_point)
    }

    fn checked<D: Dimension>(
        granularity: Granularity,
        scale: ArrayD<f32>,
        scale_f64: Option<ArrayD<f64>>,
        zero_point: Option<Array<T::Code, D>>,
    ) -> Result<Self> {
        let zero_point = zero_point.map(|z| granularity.normalized(z.into_dyn()));
        if let Some(zero_point) = &zero_point {
            check_shapes("zero points", scale.shape(), zero_point.shape())?;
            let in_range = |z: &&T::Code| (T::MIN..=T::MAX).contains(&z.to_i32());
            if let Some(&bad) = zero_point.iter().find(|z| !in_range(z)) {
                return Err(ParamsError::ZeroPoint { min: T::MIN as i64, max: T::MAX as i64, found: bad.into() }.into());
            }
        }
        let zero_point = zero_point.filter(|z| z.iter().any(|&z| z != T::Code::default()));
        let (codes, convention) = (Codes::all::<T>(), Convention::default());
        Ok(Self { granularity, scale, scale_f64, zero_point, codes, convention })
    }

    /// Sets the convention, whose formulas quantize and dequantize.
    pub fn with_convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// Sets the code range: quantization clamps to `min..=max` instead of `T::MIN..=T::MAX`.
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) if the range has fewer than two codes or leaves the element type, or a
    /// zero point is outside it.
    pub fn with_code_range(mut self, min: i32, max: i32) -> Result<Self> {
        self.codes = Codes::within::<T>(min, max)?;
        let outside = |z: i32| !(min..=max).contains(&z);
        let bad = match &self.zero_point {
            Some(z) => z.iter().map(|z| z.to_i32()).find(|&z| outside(z)),
            None => Some(0).filter(|&z| outside(z) && !self.scale.is_empty()),
        };
        match bad {
            Some(found) => Err(ParamsError::ZeroPoint { min: min as i64, max: max as i64, found: found as i64 }.into()),
            None => Ok(self),
        }
    }

    /// Returns the granularity.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Returns the scales, in the shape that [`QParams::new`] describes.
    pub fn scale(&self) -> &ArrayD<f32> {
        &self.scale
    }

    /// Returns the scales in row-major order: one per tensor, per channel or per group.
    pub fn scales(&self) -> &[f32] {
        self.scale.as_slice().unwrap_or_default()
    }

    /// Returns the zero points in the shape of the scales, or `None` if all are 0.
    pub fn zero_point(&self) -> Option<&ArrayD<T::Code>> {
        self.zero_point.as_ref()
    }

    /// Returns the convention.
    pub fn convention(&self) -> Convention {
        self.convention
    }

    /// Returns the smallest and the greatest code.
    pub fn code_range(&self) -> (i32, i32) {
        (self.codes.min, self.codes.max)
    }

    /// Returns the size of scales and zero points in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        let doubles = self.scale_f64.as_ref().map_or(0, |s| size_of::<f64>() * s.len());
        let zero_points = self.zero_point.as_ref().map_or(0, |z| size_of::<T::Code>() * z.len());
        size_of::<f32>() * self.scale.len() + doubles + zero_points
    }

    /// Quantizes a tensor: `clamp(round(x / scale) + zero_point)` (ONNX: `QuantizeLinear`).
    ///
    /// The [`Convention`] determines the rounding. A NaN becomes the zero point, infinities saturate.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `x`.
    pub fn quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D>> {
        let mut codes = Array::from_elem(x.raw_dim(), Default::default());
        self.quantize_into(x, &mut codes)?;
        QTensor::from_valid_codes(codes, self.clone())
    }

    /// Quantizes into a caller-provided array: one code per element, not packed. Both arrays may have any strides.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::QParams;
    /// let params = QParams::<i8>::per_tensor(0.5, 0)?;
    /// let mut codes = Array2::zeros((1, 2));
    /// params.quantize_into(&array![[1.0f32, -2.0]], &mut codes)?;
    /// assert_eq!(codes, array![[2, -4]]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `codes` has another shape than `x`, or the parameters do not fit it.
    pub fn quantize_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        codes: &mut ArrayRef<T::Code, D>,
    ) -> Result<()> {
        check_shapes("codes", x.shape(), codes.shape())?;
        let blocks = self.blocks(&x.raw_dim())?;
        let scales = self.scales_for::<F>(false);
        blocks.for_each_segment_pair_in_any_order(x, codes, |segment, x, codes| {
            elementwise::quantize_run(x, self.params_of_segment(scales, segment), self.codes, self.convention, codes);
        });
        Ok(())
    }

    /// Dequantizes an array of one code per element: `(q - zero_point) * scale` (ONNX: `DequantizeLinear`).
    ///
    /// [`QTensor::dequantize`] does the same and cannot fail, because a `QTensor` is checked when it is made.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `codes`.
    pub fn dequantize<D: Dimension>(&self, codes: &ArrayRef<T::Code, D>) -> Result<Array<f32, D>> {
        let mut out = Array::zeros(codes.raw_dim());
        self.dequantize_into(codes, &mut out)?;
        Ok(out)
    }

    /// Dequantizes into a caller-provided array: `(q - zero_point) * scale`. Both arrays may have any strides.
    ///
    /// Computes in `f64` if `F` is `f64`, otherwise in `f32`. [`Convention::Torch`] always computes in `f64` per axis
    /// and per group.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape than `codes`, or the parameters do not fit it.
    pub fn dequantize_into<F: Float, D: Dimension>(
        &self,
        codes: &ArrayRef<T::Code, D>,
        out: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        check_shapes("dequantized values", codes.shape(), out.shape())?;
        let blocks = self.blocks(&codes.raw_dim())?;
        // PyTorch multiplies by its double scales except per tensor.
        let double = self.convention == Convention::Torch && self.granularity != Granularity::PerTensor;
        let scales = self.scales_for::<F>(double);
        blocks.for_each_segment_pair_in_any_order(codes, out, |segment, codes, out| {
            elementwise::dequantize_run(codes, self.params_of_segment(scales, segment), double, out);
        });
        Ok(())
    }

    /// Computes `dequantize(quantize(x))` without storing codes. It simulates the error of quantization in a float
    /// network.
    ///
    /// Computes both steps in `f64` if `F` is `f64`, otherwise in `f32`. If `f32` cannot hold the scales, the result
    /// may differ in the last bit from PyTorch's dequantization per axis, which is in `f64`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `x`.
    pub fn fake_quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut out = Array::from_elem(x.raw_dim(), F::default());
        self.fake_quantize_into(x, &mut out)?;
        Ok(out)
    }

    /// [`QParams::fake_quantize`] into a caller-provided array. Both arrays may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape than `x`, or the parameters do not fit it.
    pub fn fake_quantize_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        out: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        check_shapes("fake-quantized values", x.shape(), out.shape())?;
        let blocks = self.blocks(&x.raw_dim())?;
        let scales = self.scales_for::<F>(false);
        blocks.for_each_segment_pair_in_any_order(x, out, |segment, x, out| {
            elementwise::fake_quantize_run(
                x,
                self.params_of_segment(scales, segment),
                self.codes,
                self.convention,
                out,
            );
        });
        Ok(())
    }

    /// Quantizes `f32` values by per-tensor parameters.
    pub(crate) fn quantize_run(&self, x: ArrayView1<'_, f32>, codes: ArrayViewMut1<'_, T::Code>) {
        let params = self.params_of_segment(Scales::F32(self.scales()), Segment::Within(0));
        elementwise::quantize_run(x, params, self.codes, self.convention, codes);
    }

    /// Returns the code of one `f32` by per-tensor parameters.
    pub(crate) fn code_of(&self, x: f32) -> i32 {
        let scale = self.scale.first().copied().unwrap_or(1.0);
        let zero_point = self.zero_point.as_ref().and_then(|z| z.first()).map_or(0, |z| z.to_i32());
        let code = with_rounding!(self.convention, R => Quantizer::<T::Code, f32, R>::new(scale, zero_point, self.codes).quantize(x));
        code.to_i32()
    }

    /// Returns the values of the smallest and the greatest code, or `None` unless the parameters are per tensor.
    pub(crate) fn value_range(&self) -> Option<(f32, f32)> {
        let (scale, zero_point) = self.of_tensor("x").ok()?;
        let value = |code: i32| (code - zero_point.to_i32()) as f32 * scale;
        Some((value(self.codes.min), value(self.codes.max)))
    }

    /// Returns the scale and zero point of parameters with one block.
    pub(crate) fn of_tensor(&self, what: &'static str) -> Result<(f32, T::Code)> {
        match self.scales() {
            &[scale] => {
                let zero_point = self.zero_point.as_ref().and_then(|z| z.first()).copied();
                Ok((scale, zero_point.unwrap_or_default()))
            }
            _ => {
                let expected = Granularity::PerTensor;
                Err(ParamsError::Granularity { what, expected, found: self.granularity }.into())
            }
        }
    }

    /// [`Self::of_tensor`] with the zero point as an `i32`.
    pub(crate) fn scale_zero_point(&self, what: &'static str) -> Result<(f32, i32)> {
        let (scale, zero_point) = self.of_tensor(what)?;
        Ok((scale, zero_point.to_i32()))
    }

    /// Returns the parameters of the subtensor at `index` of `axis`, for a tensor of shape `shape`.
    pub(crate) fn index_axis(&self, axis: Axis, index: usize, shape: &[usize]) -> Result<Self> {
        let Some(&len) = shape.get(axis.index()) else {
            return Err(Error::axis(shape.len(), axis.index()));
        };
        if index >= len {
            let found = alloc::format!("{index} of an axis of length {len}");
            return Err(Error::Argument { what: "index", expected: "an index within the axis", found });
        }
        let (granularity, place) = match self.granularity {
            Granularity::PerTensor => return Ok(self.clone()),
            Granularity::PerAxis { axis: a } if a == axis.index() => (Granularity::PerTensor, Some((0, index))),
            Granularity::PerAxis { axis: a } => {
                (Granularity::PerAxis { axis: a - usize::from(a > axis.index()) }, None)
            }
            // Groups along the removed axis leave parameters for each element of the subtensor.
            Granularity::PerGroup { axis: a, size } if a == axis.index() => {
                let last = shape.len().saturating_sub(2);
                let granularity = if shape.len() == 1 {
                    Granularity::PerTensor
                } else {
                    Granularity::PerGroup { axis: last, size: 1 }
                };
                (granularity, Some((a, index / size)))
            }
            Granularity::PerGroup { axis: a, size } => {
                (Granularity::PerGroup { axis: a - usize::from(a > axis.index()), size }, Some((axis.index(), index)))
            }
        };
        fn at<A: Clone>(values: &ArrayD<A>, place: Option<(usize, usize)>, g: Granularity) -> ArrayD<A> {
            let values = match place {
                Some((axis, index)) => values.index_axis(Axis(axis), index).to_owned(),
                None => values.clone(),
            };
            g.normalized(values)
        }
        Ok(Self {
            granularity,
            scale: at(&self.scale, place, granularity),
            scale_f64: self.scale_f64.as_ref().map(|s| at(s, place, granularity)),
            zero_point: self.zero_point.as_ref().map(|z| at(z, place, granularity)),
            codes: self.codes,
            convention: self.convention,
        })
    }

    /// Checks that the parameters fit tensors of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) with the parameter shape that fits, or if the tensor does not have the
    /// axis of the granularity.
    pub fn check(&self, shape: &[usize]) -> Result<()> {
        self.granularity.check_fit(self.scale.shape(), shape)
    }

    /// Checks the shape of an array with one value per block. A value per tensor may have any rank.
    pub(crate) fn check_per_block(&self, what: &'static str, shape: &[usize]) -> Result<()> {
        if self.granularity == Granularity::PerTensor && shape.iter().all(|&len| len == 1) {
            return Ok(());
        }
        check_shapes(what, self.scale.shape(), shape)
    }

    /// Returns the blocks of tensors of this shape.
    pub(crate) fn blocks<D: Dimension>(&self, shape: &D) -> Result<Blocks<D>> {
        self.check(shape.slice())?;
        Blocks::new(self.granularity, shape.ndim())
    }

    /// Returns the code range.
    pub(crate) fn codes(&self) -> Codes {
        self.codes
    }

    /// Returns the `f64` scales if there are any and the computation uses them.
    fn scales_for<F: Float>(&self, double: bool) -> Scales<'_> {
        let doubles = self.scale_f64.as_ref().filter(|_| double || F::DTYPE == DType::F64);
        match doubles.and_then(|scales| scales.as_slice()) {
            Some(scales) => Scales::F64(scales),
            None => Scales::F32(self.scales()),
        }
    }

    fn params_of_segment<'a>(&'a self, scales: Scales<'a>, segment: Segment) -> Params<'a, T::Code> {
        let zero_points = self.zero_point.as_ref().and_then(|zero_points| zero_points.as_slice());
        Params { scales, zero_points, size: segment.block_size() }.starting_at(segment.first())
    }
}

/// Checks scales and brings them into the shape of the granularity.
pub(crate) fn checked_scale<S: Float, D: Dimension>(granularity: Granularity, scale: Array<S, D>) -> Result<ArrayD<S>> {
    let scale = granularity.normalized(scale.into_dyn());
    granularity.check_shape("scales", scale.shape())?;
    // Iterating with positions is slow, so it is left to the error.
    if !scale.iter().all(|&s| is_usable(s))
        && let Some((index, bad)) = positions(scale.raw_dim()).zip(&scale).find(|(_, s)| !is_usable(**s))
    {
        return Err(ParamsError::Scale { what: "scale", found: bad.to_f64(), index }.into());
    }
    Ok(scale)
}

/// Returns whether a scale is finite and positive, also when it is rounded to `f32`.
fn is_usable<S: Float>(scale: S) -> bool {
    scale.to_f64() > 0.0 && scale.to_f32() > 0.0 && scale.to_f32().is_finite()
}
