//! Scales and zero points, validated when they are built.

use ndarray::{Array, Array1, ArrayD, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, IxDyn};

use crate::affine::{Codes, Convention, Quantizer, with_rounding};
use crate::element::{Code, DType, Element, Float};
use crate::elementwise::{self, Params};
use crate::error::{Error, Result, check_shapes};
use crate::granularity::{Blocks, Granularity, Segment, positions};
use crate::qtensor::QTensor;

/// The parameters of a quantized tensor: `x ≈ (q - zero_point) * scale`.
///
/// Scales and zero points have ONNX's shapes (`QuantizeLinear`): one value per tensor, a vector of one value per index
/// of the axis, or, in groups along an axis, the tensor's shape with that axis divided by the group size, rounded up.
/// So parameters per tensor and per axis serve tensors of any rank. Without zero points all are 0, and integer products
/// skip the zero-point compensation.
///
/// Scales are `f32`. Parameters that come from PyTorch in double precision keep it, see [`QParams::from_f64`].
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
    /// The scales in double precision, if they were given so.
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
    /// One scale and zero point, for tensors of any shape.
    ///
    /// # Errors
    /// [`Error::Scale`] unless the scale is finite and positive, [`Error::ZeroPoint`] unless the zero point
    /// is in `T::MIN..=T::MAX`.
    pub fn per_tensor(scale: f32, zero_point: T::Code) -> Result<Self> {
        let scalar = IxDyn(&[]);
        Self::new(
            Granularity::PerTensor,
            ArrayD::from_elem(scalar.clone(), scale),
            Some(ArrayD::from_elem(scalar, zero_point)),
        )
    }

    /// One scale, and optionally one zero point, per index of `axis`, for tensors of any rank that have the axis.
    ///
    /// # Errors
    /// Same as [`QParams::new`].
    pub fn per_axis(axis: Axis, scale: Array1<f32>, zero_point: Option<Array1<T::Code>>) -> Result<Self> {
        Self::new(Granularity::per_axis(axis), scale, zero_point)
    }

    /// Takes scales and zero points in the shape that belongs to the granularity:
    ///
    /// | granularity | shape |
    /// |---|---|
    /// | per tensor | one value, of any rank |
    /// | per axis | `[channels]` |
    /// | per group | the tensor's, with the axis divided by the group size, rounded up |
    ///
    /// # Errors
    /// [`Error::Scale`] unless every scale is finite and positive, [`Error::ZeroPoint`] unless every zero
    /// point is in `T::MIN..=T::MAX`, [`Error::Shape`] if the shapes do not belong to the granularity or differ,
    /// [`Error::Axis`] and [`Error::GroupSize`] for groups that the rank cannot have.
    pub fn new<D: Dimension>(
        granularity: Granularity,
        scale: Array<f32, D>,
        zero_point: Option<Array<T::Code, D>>,
    ) -> Result<Self> {
        let scale = checked_scale(granularity, scale)?;
        Self::checked(granularity, scale, None, zero_point)
    }

    /// Takes scales in double precision, as PyTorch keeps them.
    ///
    /// They matter where the arithmetic is in `f64`: for `f64` tensors, and for [`Convention::Torch`] dequantizing per
    /// axis or group. Everywhere else the nearest `f32` is used.
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
                return Err(Error::ZeroPoint { min: T::MIN as i64, max: T::MAX as i64, found: bad.into() });
            }
        }
        let zero_point = zero_point.filter(|z| z.iter().any(|&z| z != T::Code::default()));
        let (codes, convention) = (Codes::all::<T>(), Convention::default());
        Ok(Self { granularity, scale, scale_f64, zero_point, codes, convention })
    }

    /// Uses the formulas of this convention.
    pub fn with_convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// Clamps codes to `min..=max` instead of the range of the element type.
    ///
    /// # Errors
    /// [`Error::CodeRange`](crate::Error::CodeRange) if the range has fewer than two codes or leaves
    /// the element type, [`Error::ZeroPoint`](crate::Error::ZeroPoint) if a zero point is outside.
    pub fn with_code_range(mut self, min: i32, max: i32) -> Result<Self> {
        self.codes = Codes::within::<T>(min, max)?;
        let outside = |z: i32| !(min..=max).contains(&z);
        let bad = match &self.zero_point {
            Some(z) => z.iter().map(|z| z.to_i32()).find(|&z| outside(z)),
            None => Some(0).filter(|&z| outside(z) && !self.scale.is_empty()),
        };
        match bad {
            Some(found) => Err(Error::ZeroPoint { min: min as i64, max: max as i64, found: found as i64 }),
            None => Ok(self),
        }
    }

    /// The elements that share one scale and zero point.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The scales, in the shape that [`QParams::new`] describes.
    pub fn scale(&self) -> &ArrayD<f32> {
        &self.scale
    }

    /// The scales in row-major order: one value per tensor, one per channel, or one per group.
    pub fn scales(&self) -> &[f32] {
        self.scale.as_slice().unwrap_or_default()
    }

    /// The zero points, in the shape of the scales; `None` if all are 0.
    pub fn zero_point(&self) -> Option<&ArrayD<T::Code>> {
        self.zero_point.as_ref()
    }

    /// The convention whose formulas are used.
    pub fn convention(&self) -> Convention {
        self.convention
    }

    /// The smallest and the greatest code in use.
    pub fn code_range(&self) -> (i32, i32) {
        (self.codes.min, self.codes.max)
    }

    /// The bytes of scales and zero points in memory.
    pub fn size_in_bytes(&self) -> usize {
        let doubles = self.scale_f64.as_ref().map_or(0, |s| size_of::<f64>() * s.len());
        let zero_points = self.zero_point.as_ref().map_or(0, |z| size_of::<T::Code>() * z.len());
        size_of::<f32>() * self.scale.len() + doubles + zero_points
    }

    /// Quantizes a tensor (ONNX: `QuantizeLinear`). The [`Convention`] has the formula.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `x`.
    pub fn quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<QTensor<T, D>> {
        let mut codes = Array::from_elem(x.raw_dim(), Default::default());
        self.quantize_into(x, &mut codes)?;
        QTensor::from_codes(codes, self.clone())
    }

    /// Quantizes into a caller-provided array: one code per element, not packed. Any strides on either side.
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
    /// [`Error::Shape`](crate::Error::Shape) if `codes` has another shape than `x`,
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit it.
    pub fn quantize_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        codes: &mut ArrayRef<T::Code, D>,
    ) -> Result<()> {
        check_shapes("codes", x.shape(), codes.shape())?;
        let blocks = self.blocks(&x.raw_dim())?;
        if let Some(scales) = self.doubles::<F>(false) {
            blocks.for_each_segment_pair_in_any_order(x, codes, |segment, x, codes| {
                let params = self.params_of_segment(scales, segment);
                with_rounding!(self.convention, R => elementwise::quantize_run::<F, f64, T::Code, R>(x, params, self.codes, codes));
            });
            return Ok(());
        }
        blocks.for_each_segment_pair_in_any_order(x, codes, |segment, x, codes| {
            let params = self.params_of_segment(self.scales(), segment);
            with_rounding!(self.convention, R => elementwise::quantize_run::<F, f32, T::Code, R>(x, params, self.codes, codes));
        });
        Ok(())
    }

    /// Computes `(q - zero_point) * scale` (ONNX: `DequantizeLinear`) of one code per element.
    ///
    /// A [`QTensor`] has this method without the error: its codes and parameters were checked when it was built.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `codes`.
    pub fn dequantize<D: Dimension>(&self, codes: &ArrayRef<T::Code, D>) -> Result<Array<f32, D>> {
        let mut out = Array::zeros(codes.raw_dim());
        self.dequantize_into(codes, &mut out)?;
        Ok(out)
    }

    /// Computes `(q - zero_point) * scale` into a caller-provided array. Any strides on either side.
    ///
    /// The arithmetic is in `f64` for `f64`, else in `f32`; with [`Convention::Torch`] per axis and per group it is
    /// always in `f64`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape than `codes`,
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit it.
    pub fn dequantize_into<F: Float, D: Dimension>(
        &self,
        codes: &ArrayRef<T::Code, D>,
        out: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        check_shapes("dequantized values", codes.shape(), out.shape())?;
        let blocks = self.blocks(&codes.raw_dim())?;
        // PyTorch multiplies by its double scales except per tensor.
        let double = self.convention == Convention::Torch && self.granularity != Granularity::PerTensor;
        if let Some(scales) = self.doubles::<F>(double) {
            blocks.for_each_segment_pair_in_any_order(codes, out, |segment, codes, out| {
                elementwise::dequantize_run(codes, self.params_of_segment(scales, segment), double, out);
            });
            return Ok(());
        }
        blocks.for_each_segment_pair_in_any_order(codes, out, |segment, codes, out| {
            elementwise::dequantize_run(codes, self.params_of_segment(self.scales(), segment), double, out);
        });
        Ok(())
    }

    /// Computes `dequantize(quantize(x))` without codes in between: the values that a network sees once it is quantized.
    ///
    /// Both steps are in `f64` for `f64`, else in `f32`. With scales that `f32` cannot hold, the result may therefore
    /// differ in the last bit from PyTorch's dequantization per axis, which is in `f64`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `x`.
    pub fn fake_quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut out = Array::from_elem(x.raw_dim(), F::default());
        self.fake_quantize_into(x, &mut out)?;
        Ok(out)
    }

    /// [`QParams::fake_quantize`] into a caller-provided array. Any strides on either side.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape than `x`,
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit it.
    pub fn fake_quantize_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        out: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        check_shapes("fake-quantized values", x.shape(), out.shape())?;
        let blocks = self.blocks(&x.raw_dim())?;
        if let Some(scales) = self.doubles::<F>(false) {
            blocks.for_each_segment_pair_in_any_order(x, out, |segment, x, out| {
                let params = self.params_of_segment(scales, segment);
                with_rounding!(self.convention, R => elementwise::fake_quantize_run::<F, f64, T::Code, R>(x, params, self.codes, out));
            });
            return Ok(());
        }
        blocks.for_each_segment_pair_in_any_order(x, out, |segment, x, out| {
            let params = self.params_of_segment(self.scales(), segment);
            with_rounding!(self.convention, R => elementwise::fake_quantize_run::<F, f32, T::Code, R>(x, params, self.codes, out));
        });
        Ok(())
    }

    /// Quantizes a run of `f32` with parameters per tensor.
    pub(crate) fn quantize_run(&self, x: ArrayView1<'_, f32>, codes: ArrayViewMut1<'_, T::Code>) {
        let params = self.params_of_segment(self.scales(), Segment::Within(0));
        with_rounding!(self.convention, R => elementwise::quantize_run::<f32, f32, T::Code, R>(x, params, self.codes, codes));
    }

    /// Returns the code of an `f32` with parameters per tensor.
    pub(crate) fn code_of(&self, x: f32) -> i32 {
        let scale = self.scale.first().copied().unwrap_or(1.0);
        let zero_point = self.zero_point.as_ref().and_then(|z| z.first()).map_or(0, |z| z.to_i32());
        let code = with_rounding!(self.convention, R => Quantizer::<T::Code, f32, R>::new(scale, zero_point, self.codes).quantize(x));
        code.to_i32()
    }

    /// Returns the values of the smallest and the greatest code with parameters per tensor.
    pub(crate) fn real_range(&self) -> Option<(f32, f32)> {
        let (scale, zero_point) = self.of_tensor("parameters").ok()?;
        let value = |code: i32| (code - zero_point.to_i32()) as f32 * scale;
        Some((value(self.codes.min), value(self.codes.max)))
    }

    /// Returns the one scale and zero point of parameters per tensor, or of one block.
    pub(crate) fn of_tensor(&self, what: &'static str) -> Result<(f32, T::Code)> {
        match self.scales() {
            &[scale] => {
                let zero_point = self.zero_point.as_ref().and_then(|z| z.first()).copied();
                Ok((scale, zero_point.unwrap_or_default()))
            }
            _ => Err(Error::shape(what, &[1], self.scale.shape())),
        }
    }

    /// Returns the one scale and zero point as numbers, of parameters per tensor.
    pub(crate) fn pair(&self, what: &'static str) -> Result<(f32, i32)> {
        let (scale, zero_point) = self.of_tensor(what)?;
        Ok((scale, zero_point.to_i32()))
    }

    /// Returns the parameters of the subtensor at one index of an axis of a tensor of this shape.
    pub(crate) fn index_axis(&self, axis: Axis, index: usize, shape: &[usize]) -> Result<Self> {
        let Some(&len) = shape.get(axis.index()) else {
            return Err(Error::Axis { ndim: shape.len(), found: axis.index() });
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
            // Within a group of the removed axis, every element of the subtensor has parameters of its own.
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
    /// [`Error::Shape`](crate::Error::Shape) with the shape of the parameters that fit,
    /// [`Error::Axis`](crate::Error::Axis) if the tensor does not have their axis.
    pub fn check(&self, shape: &[usize]) -> Result<()> {
        self.granularity.check_fit(self.scale.shape(), shape)
    }

    /// Checks an array with one value per block; one value per tensor may have any rank.
    pub(crate) fn check_per_block(&self, what: &'static str, shape: &[usize]) -> Result<()> {
        if self.granularity == Granularity::PerTensor && shape.iter().all(|&len| len == 1) {
            return Ok(());
        }
        check_shapes(what, self.scale.shape(), shape)
    }

    /// Divides tensors of this shape into blocks.
    pub(crate) fn blocks<D: Dimension>(&self, shape: &D) -> Result<Blocks<D>> {
        self.check(shape.slice())?;
        Blocks::new(self.granularity, shape.ndim())
    }

    /// The codes in use.
    pub(crate) fn codes(&self) -> Codes {
        self.codes
    }

    /// Returns double-precision scales where there are some and the arithmetic uses them.
    fn doubles<F: Float>(&self, double: bool) -> Option<&[f64]> {
        let scales = self.scale_f64.as_ref().filter(|_| double || F::DTYPE == DType::F64)?;
        scales.as_slice()
    }

    fn params_of_segment<'a, S: Float>(&'a self, scales: &'a [S], segment: Segment) -> Params<'a, S, T::Code> {
        let zero_point = self.zero_point.as_ref().and_then(|z| z.as_slice());
        match segment {
            Segment::Within(block) => {
                Params::PerTensor(scales[block], zero_point.map_or(T::Code::default(), |z| z[block]))
            }
            Segment::Across { first, size } => {
                Params::PerBlock { scales: &scales[first..], zero_points: zero_point.map(|z| &z[first..]), size }
            }
        }
    }
}

/// Checks scales and their shape, and brings them into it.
fn checked_scale<S: Float, D: Dimension>(granularity: Granularity, scale: Array<S, D>) -> Result<ArrayD<S>> {
    let scale = granularity.normalized(scale.into_dyn());
    granularity.check_shape("scales", scale.shape())?;
    // Positions are many times slower than values, so they are computed only for an error.
    if !scale.iter().all(|&s| is_usable(s))
        && let Some((index, bad)) = positions(scale.raw_dim()).zip(&scale).find(|(_, s)| !is_usable(**s))
    {
        return Err(Error::Scale { found: bad.to_f64(), index });
    }
    Ok(scale)
}

/// Returns whether a scale is finite and positive, in `f32` too: kernels on `f32` tensors use it in `f32`.
fn is_usable<S: Float>(scale: S) -> bool {
    scale.to_f64() > 0.0 && scale.to_f32() > 0.0 && scale.to_f32().is_finite()
}
