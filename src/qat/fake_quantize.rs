//! Fake quantization with fixed parameters, forward and backward.

use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayRef, Dimension};

use super::loops::{self, Bits, BlockParams, GradientSums};
use super::mask::SteMask;
use crate::affine::rounding::{Onnx, TfLite, Torch};
use crate::affine::{
    Convention, FloatZeroPoint, IntegerZeroPoint, Settings, SteClipping, SteQuantizer, StochasticRounding, split_mix,
    with_rounding,
};
use crate::element::{Code, Element, Float};
use crate::error::{Error, ParamsError, Result, ValueError, check_shapes};
use crate::granularity::Segment;
use crate::qparams::QParams;

/// Fake quantization: the forward pass quantizes and dequantizes, the backward pass is the straight-through estimator.
/// (Bengio, Léonard and Courville 2013; Jacob et al. 2018, section 3; PyTorch:
/// `fake_quantize_per_tensor_affine`, `fake_quantize_per_channel_affine`.)
///
/// With `v = x / scale` and `q = clamp(round(v) + zero_point)`, by the formulas of the parameters' [`Convention`]:
///
/// | | not clipped, see [`SteClipping`] | clipped |
/// |---|---|---|
/// | `y` | `(q - zero_point) * scale` | the same |
/// | `∂y/∂x` | 1 | 0 |
/// | `∂y/∂scale` | `q - zero_point - v` | `q - zero_point` |
/// | `∂y/∂zero_point` | 0 | `-scale` |
///
/// The gradients by scale and zero point follow LSQ and LSQ+ (Esser et al. 2020, equation 3; Bhalgat et al. 2020,
/// section 3). Forward values equal [`QParams::quantize`](crate::Quantize::quantize) followed by dequantize, bit for bit.
/// A NaN becomes 0, and its gradient passes.
///
/// Codes have at most 16 bits; `FakeQuantize<i32>` does not compile. For 2 to 16 bits, see
/// [`Scheme::with_bits`](crate::Scheme::with_bits).
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::{Scheme, qat::FakeQuantize};
///
/// let w = array![[0.75f32, -0.3, 0.1], [-3.0, 0.75, 1.6]];
/// let params = Scheme::<i8>::symmetric().with_bits(3)?.narrow_range().per_axis(Axis(0)).params_of(&w)?; // -3..=3
/// let fake = FakeQuantize::new(params);
/// let (y, mask) = fake.forward(&w)?;
/// assert_eq!(y, array![[0.75, -0.25, 0.0], [-3.0, 1.0, 2.0]]);
///
/// // No value is clipped, so the gradient passes everywhere.
/// let grad = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
/// assert_eq!(fake.backward(&mask, &grad)?, grad);
/// // To train the scales too:
/// let gradients = fake.gradients(&w, &grad)?;
/// assert_eq!(gradients.input, grad);
/// let by_scale = 1.0 * (3.0 - 3.0) + 2.0 * (-1.0 + 1.2) + 3.0 * (0.0 - 0.4);
/// assert!((gradients.scale[[0]] - by_scale).abs() < 1e-5);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FakeQuantize<T: Element> {
    params: QParams<T>,
    clipping: SteClipping,
    /// The zero point of each block in row-major order.
    zero_points: Vec<f32>,
    /// Set if the zero points are floats of the caller, added before rounding.
    float_zero_point: bool,
}

/// The gradients of a loss by the inputs of [`FakeQuantize`]: `∂L/∂x`, `∂L/∂scale` and `∂L/∂zero_point`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients<F, D: Dimension> {
    /// The gradient by the input, with its shape.
    pub input: Array<F, D>,
    /// The gradient by each scale, one per block.
    pub scale: ArrayD<f32>,
    /// The gradient by each zero point, one per block.
    pub zero_point: ArrayD<f32>,
}

impl<T: Element> FakeQuantize<T> {
    /// Quantizes with these parameters. The clipping condition is PyTorch's, [`SteClipping::Rounded`].
    pub fn new(params: QParams<T>) -> Self {
        const { assert!(T::BITS <= 16, "fake quantization is for codes of 16 bits at most") };
        let zero_points = match params.zero_point() {
            Some(zero_points) => zero_points.iter().map(|z| z.to_i32() as f32).collect(),
            None => alloc::vec![0.0; params.scale().len()],
        };
        Self { params, clipping: SteClipping::default(), zero_points, float_zero_point: false }
    }

    /// Sets the clipping condition of the straight-through estimator.
    pub fn with_clipping(mut self, clipping: SteClipping) -> Self {
        self.clipping = clipping;
        self
    }

    /// Replaces the integer zero points by floats, which are added before rounding: `q = clamp(round(v + zero_point))`,
    /// `y = (q - zero_point) * scale` in `f64`, rounded once. (PyTorch: `fake_quantize_per_channel_affine` with zero points
    /// of type float; LSQ+: the offset `-zero_point * scale`.)
    ///
    /// Float zero then has no exact code, and integer layers cannot reproduce the values.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::{QParams, qat::FakeQuantize};
    /// let params = QParams::<u8>::per_tensor(0.5, 0)?;
    /// let fake = FakeQuantize::new(params).with_float_zero_points(&array![0.25])?;
    /// assert_eq!(fake.forward(&array![0.0f32, 0.5])?.0, array![-0.125, 0.375]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one zero point per block, [`Error::Value`] if one is NaN or infinite,
    /// [`Error::Params`] if one is outside the code range.
    pub fn with_float_zero_points<D: Dimension>(mut self, zero_points: &ArrayRef<f32, D>) -> Result<Self> {
        self.params.check_per_block("zero points", zero_points.shape())?;
        let (min, max) = self.params.code_range();
        for (index, &z) in crate::granularity::positions(zero_points.raw_dim()).zip(zero_points) {
            if !z.is_finite() {
                return Err(ValueError::NonFinite { what: "zero points", found: z.into(), index }.into());
            }
            if z < min as f32 || z > max as f32 {
                return Err(ParamsError::ZeroPoint { min: min.into(), max: max.into(), found: z as i64 }.into());
            }
        }
        self.zero_points = zero_points.iter().copied().collect();
        self.float_zero_point = true;
        Ok(self)
    }

    /// The same clipping condition with other parameters and their integer zero points.
    pub(super) fn with_params(&self, params: QParams<T>) -> Self {
        Self::new(params).with_clipping(self.clipping)
    }

    /// The parameters, with which the trained network is quantized.
    pub fn params(&self) -> &QParams<T> {
        &self.params
    }

    /// The clipping condition of the straight-through estimator.
    pub fn clipping(&self) -> SteClipping {
        self.clipping
    }

    /// Returns the fake-quantized values, and the straight-through mask for [`backward`](Self::backward).
    ///
    /// # Errors
    /// [`Error::Shape`] if the parameters do not fit `x`.
    pub fn forward<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<(Array<F, D>, SteMask<D>)> {
        let (mut y, mut mask) = (Array::from_elem(x.raw_dim(), F::default()), SteMask::default());
        self.forward_into(x, &mut y, &mut mask)?;
        Ok((y, mask))
    }

    /// Same as [`forward`](Self::forward), into a caller-provided array and mask. `x` and `y` may have any strides; the mask is
    /// resized to the shape of `x`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` and `y` differ in shape, or the parameters do not fit it.
    pub fn forward_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        y: &mut ArrayRef<F, D>,
        mask: &mut SteMask<D>,
    ) -> Result<()> {
        with_rounding!(self.params.convention(), R => {
            if self.float_zero_point {
                self.run::<F, FloatZeroPoint<F::Compute, R>, D>(x, y, mask, 0)
            } else {
                self.run::<F, IntegerZeroPoint<F::Compute, R>, D>(x, y, mask, 0)
            }
        })
    }

    /// Same as [`forward`](Self::forward), with stochastic rounding: `v` is rounded up with probability `v - floor(v)`, a
    /// multiple of 2⁻²⁴, otherwise down, so that the mean of `y` is `x` unless clipped. (Gupta et al., "Deep learning with
    /// limited numerical precision", 2015, section 3.)
    ///
    /// The random number of an element depends only on the seed and its position in row-major order. Use a different seed
    /// for every call, such as the number of the training step.
    ///
    /// ```
    /// use ndarray::Array1;
    /// use ndarray_quant::{QParams, qat::FakeQuantize};
    /// let fake = FakeQuantize::new(QParams::<i8>::per_tensor(1.0, 0)?);
    /// let x = Array1::from_elem(10_000, 0.3f32);
    /// assert_eq!(fake.forward(&x)?.0.sum(), 0.0); // rounding to nearest loses small values
    /// assert!((fake.forward_stochastic(&x, 1)?.0.mean().unwrap() - 0.3).abs() < 0.02);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`forward_stochastic_into`](Self::forward_stochastic_into).
    pub fn forward_stochastic<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        seed: u64,
    ) -> Result<(Array<F, D>, SteMask<D>)> {
        let (mut y, mut mask) = (Array::from_elem(x.raw_dim(), F::default()), SteMask::default());
        self.forward_stochastic_into(x, seed, &mut y, &mut mask)?;
        Ok((y, mask))
    }

    /// Same as [`forward_stochastic`](Self::forward_stochastic), into a caller-provided array and mask.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` and `y` differ in shape, or the parameters do not fit it; [`Error::Argument`] with float zero
    /// points.
    pub fn forward_stochastic_into<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        seed: u64,
        y: &mut ArrayRef<F, D>,
        mask: &mut SteMask<D>,
    ) -> Result<()> {
        if self.float_zero_point {
            return Err(Error::Argument {
                what: "zero points of stochastic rounding",
                expected: "integers",
                found: "floats".into(),
            });
        }
        let seed = split_mix(seed);
        with_rounding!(self.params.convention(), R => self.run::<F, StochasticRounding<F::Compute, R>, D>(x, y, mask, seed))
    }

    fn run<F: Float, Q: SteQuantizer<F::Compute>, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        y: &mut ArrayRef<F, D>,
        mask: &mut SteMask<D>,
        seed: u64,
    ) -> Result<()> {
        check_shapes("fake-quantized values", x.shape(), y.shape())?;
        let blocks = self.params.blocks(&x.raw_dim())?;
        let mut bits = Bits::new(mask.reset(x.raw_dim()));
        blocks.for_each_segment_pair(x, y, |segment, x, y| {
            loops::forward::<F, Q>(self.block_params(segment, seed), x, y, &mut bits);
        });
        Ok(())
    }

    /// The gradient by the input, `∂L/∂x = ∂L/∂y` where the value was not clipped, otherwise 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if `mask` and `grad` differ in shape.
    pub fn backward<F: Float, D: Dimension>(&self, mask: &SteMask<D>, grad: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut input = Array::from_elem(grad.raw_dim(), F::default());
        self.backward_into(mask, grad, &mut input)?;
        Ok(input)
    }

    /// Same as [`backward`](Self::backward), into a caller-provided array. Any strides work.
    ///
    /// # Errors
    /// [`Error::Shape`] if `mask`, `grad` and `input` differ in shape.
    pub fn backward_into<F: Float, D: Dimension>(
        &self,
        mask: &SteMask<D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        mask.apply(grad, input)
    }

    /// The gradients by the input, the scales and the zero points, given the input `x` of the forward pass and the gradient
    /// `grad` of its output.
    ///
    /// `∂L/∂scale` and `∂L/∂zero_point` are sums over the elements of a block, in a fixed order: partial sums in the type of
    /// the tensor, added in `f64`, rounded to `f32` at the end.
    ///
    /// With [`Convention::Torch`] the gradients equal `_fake_quantize_learnable_per_tensor_affine` and its per-channel form,
    /// which add the zero point before rounding: `q = clamp(rne(v + zero_point))`. At ties, `q` may differ from the code of
    /// the forward pass.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` and `grad` differ in shape, or the parameters do not fit it.
    pub fn gradients<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
    ) -> Result<Gradients<F, D>> {
        let mut input = Array::from_elem(x.raw_dim(), F::default());
        let mut scale = ArrayD::zeros(self.params.scale().raw_dim());
        let mut zero_point = ArrayD::zeros(self.params.scale().raw_dim());
        self.gradients_into(x, grad, &mut input, &mut scale, &mut zero_point)?;
        Ok(Gradients { input, scale, zero_point })
    }

    /// Same as [`gradients`](Self::gradients), into caller-provided arrays. Arrays that are not contiguous are copied first.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x`, `grad` and `input` differ in shape, the parameters do not fit it, or `scale` or `zero_point` has
    /// not one element per block.
    pub fn gradients_into<F: Float, D: Dimension, E: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
        scale: &mut ArrayRef<f32, E>,
        zero_point: &mut ArrayRef<f32, E>,
    ) -> Result<()> {
        let scales = self.params.scale();
        self.params.check_per_block("gradient of the scales", scale.shape())?;
        self.params.check_per_block("gradient of the zero points", zero_point.shape())?;
        let sums = self.block_sums(x, grad, input)?;
        let places = scale.iter_mut().zip(zero_point.iter_mut()).zip(scales).zip(&sums);
        for (((by_scale, by_zero_point), &scale), sums) in places {
            *by_scale = sums.by_scale as f32;
            *by_zero_point = (-(scale as f64) * (sums.below + sums.above)) as f32;
        }
        Ok(())
    }

    /// Writes the gradient by the input, and returns the sums of each block.
    pub(super) fn block_sums<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
    ) -> Result<Vec<GradientSums>> {
        check_shapes("gradient", x.shape(), grad.shape())?;
        check_shapes("gradient of the input", x.shape(), input.shape())?;
        self.params.check(x.shape())?;
        match self.params.convention() {
            Convention::Torch => self.run_backward::<F, FloatZeroPoint<F::Compute, Torch>, D>(x, grad, input),
            Convention::Onnx if self.float_zero_point => {
                self.run_backward::<F, FloatZeroPoint<F::Compute, Onnx>, D>(x, grad, input)
            }
            Convention::TfLite if self.float_zero_point => {
                self.run_backward::<F, FloatZeroPoint<F::Compute, TfLite>, D>(x, grad, input)
            }
            Convention::Onnx => self.run_backward::<F, IntegerZeroPoint<F::Compute, Onnx>, D>(x, grad, input),
            Convention::TfLite => self.run_backward::<F, IntegerZeroPoint<F::Compute, TfLite>, D>(x, grad, input),
        }
    }

    fn run_backward<F: Float, Q: SteQuantizer<F::Compute>, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
    ) -> Result<Vec<GradientSums>> {
        let mut sums = alloc::vec![GradientSums::default(); self.zero_points.len()];
        let (x, grad) = (x.as_standard_layout(), grad.as_standard_layout());
        let (Some(x), Some(grad)) = (x.as_slice(), grad.as_slice()) else { return Ok(sums) };
        let shape = input.raw_dim();
        let blocks = self.params.blocks(&shape)?;
        let mut walk = |out: &mut [F]| {
            for (segment, range) in blocks.segments(&shape) {
                let (params, sums) = (self.block_params(segment, 0), &mut sums[segment.first()..]);
                let (x, grad) = (&x[range.clone()], &grad[range.clone()]);
                loops::gradients::<F, Q>(params, x, grad, &mut out[range], sums);
            }
        };
        if let Some(out) = input.as_slice_mut() {
            walk(out);
        } else {
            let mut out = alloc::vec![F::default(); x.len()];
            walk(&mut out);
            input.iter_mut().zip(out).for_each(|(to, from)| *to = from);
        }
        Ok(sums)
    }

    fn block_params(&self, segment: Segment, seed: u64) -> BlockParams<'_> {
        BlockParams {
            scale: &self.params.scale().as_slice().unwrap_or_default()[segment.first()..],
            zero_point: &self.zero_points[segment.first()..],
            size: segment.block_size(),
            settings: Settings { codes: self.params.codes(), clipping: self.clipping, seed },
        }
    }
}
