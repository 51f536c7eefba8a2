//! Scales and zero points, validated when built.

use ndarray::{Array, Array1, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, IntoDimension};

use crate::affine::{Codes, Convention, Quantizer, with_rounding};
use crate::element::{Code, Element, Float};
use crate::elementwise::{self, Params};
use crate::error::{Error, Result, check_shapes};
use crate::granularity::{Blocks, Granularity, Segment, positions};

/// The parameters of a quantized tensor: `x ≈ (q - zero_point) * scale`, block by block.
///
/// Scales and zero points have the tensor's rank and one element per block, see [`Granularity`]. Parameters per tensor
/// fit tensors of any shape. No zero point means 0, which lets integer products skip its correction.
///
/// `S` is the float type that scales are kept in: `f32`, or for instance `f64` where parameters come from PyTorch.
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{QParams, Quantize};
///
/// let params = QParams::<u8, _>::per_tensor(0.5, 10)?;
/// let q = params.quantize(&array![0.0f32, 0.25, 1.0, 1000.0])?;
/// assert_eq!(q.codes(), array![10, 10, 12, 255]); // 0.25 / 0.5 is a tie: half to even
/// assert_eq!(q.dequantize(), array![0.0, 0.0, 1.0, 122.5]);
///
/// let weights = array![[1.0f32, -1.0], [20.0, 40.0]];
/// let params = QParams::<i8, _>::per_axis(Axis(0), array![0.01, 0.4], None)?;
/// assert_eq!(params.quantize(&weights)?.codes(), array![[100, -100], [50, 100]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        bound(serialize = "D: serde::Serialize", deserialize = "D: serde::Deserialize<'de>"),
        into = "Raw<T, D, S>",
        try_from = "Raw<T, D, S>"
    )
)]
pub struct QParams<T: Element, D: Dimension, S: Float = f32> {
    granularity: Granularity,
    blocks: Blocks<D>,
    scale: Array<S, D>,
    zero_point: Option<Array<T::Code, D>>,
    codes: Codes,
    convention: Convention,
}

/// What serialized parameters hold before they are checked.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(bound(serialize = "D: serde::Serialize", deserialize = "D: serde::Deserialize<'de>"))]
struct Raw<T: Element, D: Dimension, S: Float> {
    granularity: Granularity,
    scale: Array<S, D>,
    zero_point: Option<Array<T::Code, D>>,
    codes: Codes,
    convention: Convention,
}

#[cfg(feature = "serde")]
impl<T: Element, D: Dimension, S: Float> From<QParams<T, D, S>> for Raw<T, D, S> {
    fn from(p: QParams<T, D, S>) -> Self {
        let QParams { granularity, scale, zero_point, codes, convention, .. } = p;
        Raw { granularity, scale, zero_point, codes, convention }
    }
}

#[cfg(feature = "serde")]
impl<T: Element, D: Dimension, S: Float> TryFrom<Raw<T, D, S>> for QParams<T, D, S> {
    type Error = Error;
    fn try_from(raw: Raw<T, D, S>) -> Result<Self> {
        let params = QParams::new(raw.granularity, raw.scale, raw.zero_point)?;
        params.with_convention(raw.convention).with_code_range(raw.codes.min, raw.codes.max)
    }
}

impl<T: Element, D: Dimension> QParams<T, D> {
    /// One scale and zero point for tensors of any shape. Errors as [`Self::new`].
    pub fn per_tensor(scale: f32, zero_point: T::Code) -> Result<Self> {
        let ones: D = ones(D::NDIM.unwrap_or(0));
        Self::new(
            Granularity::PerTensor,
            Array::from_elem(ones.clone(), scale),
            Some(Array::from_elem(ones, zero_point)),
        )
    }

    /// One scale, and optionally one zero point, per index of `axis`.
    ///
    /// # Errors
    /// As [`Self::new`]. With a dynamic number of dimensions the rank is not known here: [`Error::Axis`]; use
    /// [`Self::new`] then.
    pub fn per_axis(axis: Axis, scale: Array1<f32>, zero_point: Option<Array1<T::Code>>) -> Result<Self> {
        let ndim = D::NDIM.unwrap_or(0);
        if axis.index() >= ndim {
            return Err(Error::Axis { ndim, found: axis.index() });
        }
        let spread = |len: usize| {
            let mut dim = ones::<D>(ndim);
            dim[axis.index()] = len;
            dim
        };
        let zero_point = zero_point.map(|z| reshape(&z, spread(z.len())));
        Self::new(Granularity::per_axis(axis), reshape(&scale, spread(scale.len())), zero_point)
    }
}

impl<T: Element, D: Dimension, S: Float> QParams<T, D, S> {
    /// Takes scales and zero points of the tensor's rank, one per block.
    ///
    /// # Errors
    /// [`Error::Scale`] unless every scale is finite and positive, [`Error::ZeroPoint`] unless every zero point is in
    /// `T::MIN..=T::MAX`, [`Error::Shape`] if the zero points' shape is another, or the shape cannot belong to the
    /// granularity, [`Error::Axis`] and [`Error::GroupSize`] for a granularity that the rank cannot have.
    pub fn new(granularity: Granularity, scale: Array<S, D>, zero_point: Option<Array<T::Code, D>>) -> Result<Self> {
        let blocks = Blocks::new(granularity, scale.ndim())?;
        blocks.check_grid(&scale.raw_dim())?;
        // Where one lies is asked only if there is one: positions are many times slower than values.
        if !scale.iter().all(|&s| is_usable(s))
            && let Some((index, bad)) = positions(scale.raw_dim()).zip(&scale).find(|(_, s)| !is_usable(**s))
        {
            return Err(Error::Scale { found: bad.to_f64(), index });
        }
        if let Some(zero_point) = &zero_point {
            if zero_point.shape() != scale.shape() {
                return Err(Error::shape("zero points", scale.shape(), zero_point.shape()));
            }
            let in_range = |z: &&T::Code| (T::MIN..=T::MAX).contains(&z.to_i32());
            if let Some(&bad) = zero_point.iter().find(|z| !in_range(z)) {
                return Err(Error::ZeroPoint { min: T::MIN as i64, max: T::MAX as i64, found: bad.into() });
            }
        }
        let zero_point = zero_point.filter(|z| z.iter().any(|&z| z != T::Code::default()));
        Ok(Self {
            granularity,
            blocks,
            scale: scale.as_standard_layout().into_owned(),
            zero_point: zero_point.map(|z| z.as_standard_layout().into_owned()),
            codes: Codes::all::<T>(),
            convention: Convention::default(),
        })
    }

    /// With the formulas of this convention.
    pub fn with_convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// With codes clamped to `min..=max` instead of all of the element type.
    ///
    /// # Errors
    /// [`Error::CodeRange`] if the range has fewer than two codes or leaves the element type, [`Error::ZeroPoint`] if a
    /// zero point is outside of it.
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

    /// Which elements share a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The scales, one per block.
    pub fn scale(&self) -> &Array<S, D> {
        &self.scale
    }

    /// The zero points, one per block; `None` if all are 0.
    pub fn zero_point(&self) -> Option<&Array<T::Code, D>> {
        self.zero_point.as_ref()
    }

    /// Whose formulas are used.
    pub fn convention(&self) -> Convention {
        self.convention
    }

    /// The smallest and the greatest code that is used.
    pub fn code_range(&self) -> (i32, i32) {
        (self.codes.min, self.codes.max)
    }

    /// The bytes that scales and zero points take in memory.
    pub fn size_in_bytes(&self) -> usize {
        size_of::<S>() * self.scale.len() + self.zero_point.as_ref().map_or(0, |z| size_of::<T::Code>() * z.len())
    }

    /// Quantizes into memory that exists: one code per element, not packed. Any strides on either side. The formula is
    /// that of the [`Convention`].
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::QParams;
    /// let params = QParams::<i8, _>::per_tensor(0.5, 0)?;
    /// let mut codes = Array2::zeros((1, 2));
    /// params.quantize_into(&array![[1.0f32, -2.0]], &mut codes)?;
    /// assert_eq!(codes, array![[2, -4]]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if `codes` has another shape than `x`, or the parameters do not fit it.
    pub fn quantize_into<F: Float>(&self, x: &ArrayRef<F, D>, codes: &mut ArrayRef<T::Code, D>) -> Result<()> {
        check_shapes("codes", x.shape(), codes.shape())?;
        self.check(&x.raw_dim())?;
        self.blocks.for_each_segment_pair_in_any_order(x, codes, |lane, x, codes| {
            let params = self.params_of_segment(lane);
            with_rounding!(self.convention, R => elementwise::quantize_run::<F, S, T::Code, R>(x, params, self.codes, codes));
        });
        Ok(())
    }

    /// `(q - zero_point) * scale` into memory that exists. Any strides on either side.
    ///
    /// Computed in `f64` for `f64`, else in `f32`; with [`Convention::Torch`] per axis and per group always in `f64`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than `codes`, or the parameters do not fit it.
    pub fn dequantize_into<F: Float>(&self, codes: &ArrayRef<T::Code, D>, out: &mut ArrayRef<F, D>) -> Result<()> {
        check_shapes("dequantized values", codes.shape(), out.shape())?;
        self.check(&codes.raw_dim())?;
        // PyTorch multiplies by its double scales except per tensor.
        let double = self.convention == Convention::Torch && self.granularity != Granularity::PerTensor;
        self.blocks.for_each_segment_pair_in_any_order(codes, out, |lane, codes, out| {
            elementwise::dequantize_run(codes, self.params_of_segment(lane), double, out);
        });
        Ok(())
    }

    /// `dequantize(quantize(x))` without codes in between: what a network sees of its own quantization.
    ///
    /// Both steps are computed in `f64` for `f64`, else in `f32`; so with scales that `f32` cannot hold the result may
    /// differ in the last bit from PyTorch's dequantization per axis, which is in `f64`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the parameters do not fit `x`.
    pub fn fake_quantize<F: Float>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut out = Array::from_elem(x.raw_dim(), F::default());
        self.fake_quantize_into(x, &mut out)?;
        Ok(out)
    }

    /// [`Self::fake_quantize`] into memory that exists. Any strides on either side.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than `x`, or the parameters do not fit it.
    pub fn fake_quantize_into<F: Float>(&self, x: &ArrayRef<F, D>, out: &mut ArrayRef<F, D>) -> Result<()> {
        check_shapes("fake-quantized values", x.shape(), out.shape())?;
        self.check(&x.raw_dim())?;
        self.blocks.for_each_segment_pair_in_any_order(x, out, |lane, x, out| {
            let params = self.params_of_segment(lane);
            with_rounding!(self.convention, R => elementwise::fake_quantize_run::<F, S, T::Code, R>(x, params, self.codes, out));
        });
        Ok(())
    }

    /// The codes of some reals, with parameters per tensor.
    pub(crate) fn quantize_run(&self, x: ArrayView1<'_, f32>, codes: ArrayViewMut1<'_, T::Code>) {
        let params = self.params_of_segment(Segment::Within(0));
        with_rounding!(self.convention, R => elementwise::quantize_run::<f32, S, T::Code, R>(x, params, self.codes, codes));
    }

    /// The code of a real, with parameters per tensor.
    pub(crate) fn code_of(&self, x: f32) -> i32 {
        let scale = self.scale.first().map_or(1.0, |s| s.to_f32());
        let zero_point = self.zero_point.as_ref().and_then(|z| z.first()).map_or(0, |z| z.to_i32());
        let code = with_rounding!(self.convention, R => Quantizer::<T::Code, f32, R>::new(scale, zero_point, self.codes).quantize(x));
        code.to_i32()
    }

    /// The reals of the smallest and the greatest code, with parameters per tensor.
    pub(crate) fn real_range(&self) -> Option<(f32, f32)> {
        let (scale, zero_point) = self.of_tensor("parameters").ok()?;
        let real = |code: i32| (code - zero_point.to_i32()) as f32 * scale.to_f32();
        Some((real(self.codes.min), real(self.codes.max)))
    }

    /// The one scale and zero point of parameters per tensor.
    pub(crate) fn of_tensor(&self, what: &'static str) -> Result<(S, T::Code)> {
        match self.scale.as_slice() {
            Some(&[scale]) => {
                let zero_point = self.zero_point.as_ref().and_then(|z| z.first()).copied();
                Ok((scale, zero_point.unwrap_or_default()))
            }
            _ => Err(Error::shape(what, &[1], self.scale.shape())),
        }
    }

    /// The one scale and zero point as numbers, of parameters per tensor.
    pub(crate) fn pair(&self, what: &'static str) -> Result<(f32, i32)> {
        let (scale, zero_point) = self.of_tensor(what)?;
        Ok((scale.to_f32(), zero_point.to_i32()))
    }

    /// Refuses tensors of a shape that these parameters do not fit.
    ///
    /// # Errors
    /// [`Error::Shape`] with the parameters that such a tensor has.
    pub fn check(&self, shape: &D) -> Result<()> {
        self.blocks.check(&self.scale.raw_dim(), shape)
    }

    /// How tensors are cut into blocks.
    pub(crate) fn blocks(&self) -> &Blocks<D> {
        &self.blocks
    }

    /// The codes that are used.
    pub(crate) fn codes(&self) -> Codes {
        self.codes
    }

    fn params_of_segment(&self, lane: Segment) -> Params<'_, S, T::Code> {
        let scale = self.scale.as_slice().unwrap_or_default();
        let zero_point = self.zero_point.as_ref().and_then(|z| z.as_slice());
        match lane {
            Segment::Within(block) => {
                Params::PerTensor(scale[block], zero_point.map_or(T::Code::default(), |z| z[block]))
            }
            Segment::Across { first, size } => {
                Params::PerBlock { scales: &scale[first..], zero_points: zero_point.map(|z| &z[first..]), size }
            }
        }
    }
}

fn is_usable<S: Float>(scale: S) -> bool {
    // The kernels work in f32 where the tensor is f32: a scale must have a meaning there too.
    scale.to_f64() > 0.0 && scale.to_f32() > 0.0 && scale.to_f32().is_finite()
}

fn ones<D: Dimension>(ndim: usize) -> D {
    let mut dim = D::zeros(ndim);
    dim.slice_mut().fill(1);
    dim
}

fn reshape<A: Copy, D: Dimension>(values: &Array1<A>, dim: impl IntoDimension<Dim = D>) -> Array<A, D> {
    let values = values.iter().copied().collect();
    Array::from_shape_vec(dim.into_dimension(), values).expect("all axes but one have length 1")
}
