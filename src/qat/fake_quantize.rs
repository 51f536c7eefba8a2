//! Fake quantization with given parameters, forward and backward.

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, Dimension};

use super::loops::{self, Bits, Sums, Table};
use super::mask::SteMask;
use crate::affine::rounding::{Onnx, TfLite, Torch};
use crate::affine::{
    Convention, FloatZeroPoint, Grid, IntegerZeroPoint, Settings, SteClipping, StochasticRounding, split_mix,
    with_rounding,
};
use crate::element::{Code, Element, Float};
use crate::error::{Error, Result, check_shapes};
use crate::qparams::QParams;

/// Quantization as a network in training sees it: the forward pass rounds to the grid, the backward pass does as if it
/// had not (the straight-through estimator: Bengio, Léonard and Courville 2013; Jacob et al. 2018).
///
/// With `v = x / scale` and `q = clamp(round(v) + zero_point)`, by the formulas of the parameters' [`Convention`]:
///
/// | | where `v` passes, see [`SteClipping`] | where it is clipped |
/// |---|---|---|
/// | `y` | `(q - zero_point) * scale` | the same |
/// | `∂y/∂x` | 1 | 0 |
/// | `∂y/∂scale` | `q - zero_point - v` | `q - zero_point` |
/// | `∂y/∂zero_point` | 0 | `-scale` |
///
/// The values of the forward pass are exactly those of [`QParams::quantize`](crate::Quantize::quantize) and
/// dequantize. A NaN is taken for 0, and its gradient passes.
///
/// Codes have 16 bits at most: an `i32` does not compile. For any number of bits from 2 to 16, see
/// [`Scheme::bits`](crate::Scheme::bits).
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::{Scheme, qat::FakeQuantize};
///
/// let w = array![[0.75f32, -0.3, 0.1], [-3.0, 0.75, 1.6]];
/// let params = Scheme::<i8>::symmetric().bits(3)?.narrow_range().per_axis(Axis(0)).params_of(&w)?; // -3..=3
/// let fake = FakeQuantize::new(params);
/// let (y, mask) = fake.forward(&w)?;
/// assert_eq!(y, array![[0.75, -0.25, 0.0], [-3.0, 1.0, 2.0]]);
///
/// // Nothing was clipped, so the gradient passes everywhere.
/// let grad = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
/// assert_eq!(fake.backward(&mask, &grad)?, grad);
/// // If the scales are to be trained too:
/// let gradients = fake.gradients(&w, &grad)?;
/// assert_eq!(gradients.input, grad);
/// let by_scale = 1.0 * (3.0 - 3.0) + 2.0 * (-1.0 + 1.2) + 3.0 * (0.0 - 0.4);
/// assert!((gradients.scale[[0, 0]] - by_scale).abs() < 1e-5);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FakeQuantize<T: Element, D: Dimension> {
    params: QParams<T, D>,
    clipping: SteClipping,
    /// Of each block in row-major order, as a float.
    zero_points: Vec<f32>,
    /// Whether those are of the caller's, and need not be integers.
    real: bool,
}

/// The derivatives of a loss by what went into fake quantization.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients<F, D: Dimension> {
    /// By the values, of their shape.
    pub input: Array<F, D>,
    /// By the scales, one per block.
    pub scale: Array<f32, D>,
    /// By the zero points, one per block.
    pub zero_point: Array<f32, D>,
}

impl<T: Element, D: Dimension> FakeQuantize<T, D> {
    /// With these parameters, and the gradient passing as PyTorch has it: [`SteClipping::Rounded`].
    pub fn new(params: QParams<T, D>) -> Self {
        const { assert!(T::BITS <= 16, "fake quantization is for codes of 16 bits at most") };
        let zero_points = match params.zero_point() {
            Some(zero_points) => zero_points.iter().map(|z| z.to_i32() as f32).collect(),
            None => alloc::vec![0.0; params.scale().len()],
        };
        Self { params, clipping: SteClipping::default(), zero_points, real: false }
    }

    /// With the gradient passing there.
    pub fn with_clipping(mut self, clipping: SteClipping) -> Self {
        self.clipping = clipping;
        self
    }

    /// With zero points that need not be integers, instead of those of the parameters:
    /// `q = clamp(round(v + zero_point))`, `y = (q - zero_point) * scale` in `f64`, rounded once (PyTorch:
    /// `fake_quantize_per_channel_affine` with zero points of type float; LSQ+ with its offset `-zero_point * scale`).
    ///
    /// Float zero has no code of its own then, and integer arithmetic cannot follow.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::{QParams, qat::FakeQuantize};
    /// let params = QParams::<u8, _>::per_tensor(0.5, 0)?;
    /// let fake = FakeQuantize::new(params).with_float_zero_points(&array![0.25])?;
    /// assert_eq!(fake.forward(&array![0.0f32, 0.5])?.0, array![-0.125, 0.375]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one per block, [`Error::NonFinite`] unless all are finite, [`Error::ZeroPoint`]
    /// if one is outside of the codes.
    pub fn with_float_zero_points(mut self, zero_points: &ArrayRef<f32, D>) -> Result<Self> {
        check_shapes("zero points", self.params.scale().shape(), zero_points.shape())?;
        let (min, max) = self.params.code_range();
        for (index, &z) in crate::granularity::positions(zero_points.raw_dim()).zip(zero_points) {
            if !z.is_finite() {
                return Err(Error::NonFinite { found: z.into(), index });
            }
            if z < min as f32 || z > max as f32 {
                return Err(Error::ZeroPoint { min: min.into(), max: max.into(), found: z as i64 });
            }
        }
        self.zero_points = zero_points.iter().copied().collect();
        self.real = true;
        Ok(self)
    }

    /// The same with other parameters, which have integer zero points.
    pub(super) fn with_params(&self, params: QParams<T, D>) -> Self {
        Self::new(params).with_clipping(self.clipping)
    }

    /// The parameters: what the trained network is quantized with.
    pub fn params(&self) -> &QParams<T, D> {
        &self.params
    }

    /// Where the gradient passes.
    pub fn clipping(&self) -> SteClipping {
        self.clipping
    }

    /// The values on their grid, and which of them were not clipped.
    ///
    /// # Errors
    /// [`Error::Shape`] if the parameters do not fit `x`.
    pub fn forward<F: Float>(&self, x: &ArrayRef<F, D>) -> Result<(Array<F, D>, SteMask<D>)> {
        let (mut y, mut mask) = (Array::from_elem(x.raw_dim(), F::default()), SteMask::default());
        self.forward_into(x, &mut y, &mut mask)?;
        Ok((y, mask))
    }

    /// [`Self::forward`] into memory that exists. Any strides on either side; the mask is given the shape of `x`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `y` has another shape than `x`, or the parameters do not fit it.
    pub fn forward_into<F: Float>(
        &self,
        x: &ArrayRef<F, D>,
        y: &mut ArrayRef<F, D>,
        mask: &mut SteMask<D>,
    ) -> Result<()> {
        with_rounding!(self.params.convention(), R => {
            if self.real {
                self.run::<F, FloatZeroPoint<F::Compute, R>>(x, y, mask, 0)
            } else {
                self.run::<F, IntegerZeroPoint<F::Compute, R>>(x, y, mask, 0)
            }
        })
    }

    /// As [`Self::forward`] with stochastic rounding: up with the probability of the fraction of `v`, else down, so
    /// that the mean of `y` is `x` where nothing is clipped (Gupta et al. 2015). The probability is a multiple of 2⁻²⁴.
    ///
    /// The random number of an element is a function of the seed and of its position in row-major order alone. Take
    /// another seed for every call, such as the number of the step.
    ///
    /// ```
    /// use ndarray::Array1;
    /// use ndarray_quant::{QParams, qat::FakeQuantize};
    /// let fake = FakeQuantize::new(QParams::<i8, _>::per_tensor(1.0, 0)?);
    /// let x = Array1::from_elem(10_000, 0.3f32);
    /// assert_eq!(fake.forward(&x)?.0.sum(), 0.0); // to nearest, what is small is lost
    /// assert!((fake.forward_stochastic(&x, 1)?.0.mean().unwrap() - 0.3).abs() < 0.02);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Self::forward_stochastic_into`].
    pub fn forward_stochastic<F: Float>(&self, x: &ArrayRef<F, D>, seed: u64) -> Result<(Array<F, D>, SteMask<D>)> {
        let (mut y, mut mask) = (Array::from_elem(x.raw_dim(), F::default()), SteMask::default());
        self.forward_stochastic_into(x, seed, &mut y, &mut mask)?;
        Ok((y, mask))
    }

    /// [`Self::forward_stochastic`] into memory that exists.
    ///
    /// # Errors
    /// Those of [`Self::forward_into`], and [`Error::Argument`] with real zero points.
    pub fn forward_stochastic_into<F: Float>(
        &self,
        x: &ArrayRef<F, D>,
        seed: u64,
        y: &mut ArrayRef<F, D>,
        mask: &mut SteMask<D>,
    ) -> Result<()> {
        if self.real {
            return Err(Error::Argument {
                what: "zero points of stochastic rounding",
                expected: "integers",
                found: "real ones".into(),
            });
        }
        let seed = split_mix(seed);
        with_rounding!(self.params.convention(), R => self.run::<F, StochasticRounding<F::Compute, R>>(x, y, mask, seed))
    }

    fn run<F: Float, G: Grid<F::Compute>>(
        &self,
        x: &ArrayRef<F, D>,
        y: &mut ArrayRef<F, D>,
        mask: &mut SteMask<D>,
        seed: u64,
    ) -> Result<()> {
        check_shapes("fake-quantized values", x.shape(), y.shape())?;
        self.params.check(&x.raw_dim())?;
        let (table, mut bits) = (self.table(seed), Bits::new(mask.reset(x.raw_dim())));
        let blocks = self.params.blocks();
        blocks.for_each_run_pair(x, y, |run, x, y| loops::forward::<F, G>(table, run, x, y, &mut bits));
        Ok(())
    }

    /// The gradient by the input: that of the output where nothing was clipped, else 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the mask is of another shape than `grad`.
    pub fn backward<F: Float>(&self, mask: &SteMask<D>, grad: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut input = Array::from_elem(grad.raw_dim(), F::default());
        self.backward_into(mask, grad, &mut input)?;
        Ok(input)
    }

    /// [`Self::backward`] into memory that exists. Any strides on either side.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all three have one shape.
    pub fn backward_into<F: Float>(
        &self,
        mask: &SteMask<D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
    ) -> Result<()> {
        mask.apply(grad, input)
    }

    /// The gradients by the input, the scales and the zero points, from the input of the forward pass and the gradient
    /// of its output.
    ///
    /// With [`Convention::Torch`] they are those of `_fake_quantize_learnable_per_tensor_affine` and its per-channel
    /// form, which add the zero point before they round: `q = clamp(rne(v + zero_point))`. At ties that may be another
    /// code than the one of the forward pass.
    ///
    /// Sums are in the order of the elements, in `f64` over every 64th partial sum, and are rounded to `f32` last.
    ///
    /// # Errors
    /// [`Error::Shape`] if `grad` has another shape than `x`, or the parameters do not fit it.
    pub fn gradients<F: Float>(&self, x: &ArrayRef<F, D>, grad: &ArrayRef<F, D>) -> Result<Gradients<F, D>> {
        let mut input = Array::from_elem(x.raw_dim(), F::default());
        let mut scale = Array::zeros(self.params.scale().raw_dim());
        let mut zero_point = Array::zeros(self.params.scale().raw_dim());
        self.gradients_into(x, grad, &mut input, &mut scale, &mut zero_point)?;
        Ok(Gradients { input, scale, zero_point })
    }

    /// [`Self::gradients`] into memory that exists. What is not contiguous is copied first.
    ///
    /// # Errors
    /// Those of [`Self::gradients`], and [`Error::Shape`] if memory has another shape.
    pub fn gradients_into<F: Float>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
        scale: &mut ArrayRef<f32, D>,
        zero_point: &mut ArrayRef<f32, D>,
    ) -> Result<()> {
        let scales = self.params.scale();
        check_shapes("gradient of the scales", scales.shape(), scale.shape())?;
        check_shapes("gradient of the zero points", scales.shape(), zero_point.shape())?;
        let sums = self.sums(x, grad, input)?;
        let places = scale.iter_mut().zip(zero_point.iter_mut()).zip(scales).zip(&sums);
        for (((by_scale, by_zero_point), &scale), sums) in places {
            *by_scale = sums.by_scale as f32;
            *by_zero_point = (-(scale as f64) * (sums.below + sums.above)) as f32;
        }
        Ok(())
    }

    /// The gradient by the input, and the sums of every block.
    pub(super) fn sums<F: Float>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
    ) -> Result<Vec<Sums>> {
        check_shapes("gradient", x.shape(), grad.shape())?;
        check_shapes("gradient of the input", x.shape(), input.shape())?;
        self.params.check(&x.raw_dim())?;
        Ok(match self.params.convention() {
            Convention::Torch => self.run_backward::<F, FloatZeroPoint<F::Compute, Torch>>(x, grad, input),
            Convention::Onnx if self.real => self.run_backward::<F, FloatZeroPoint<F::Compute, Onnx>>(x, grad, input),
            Convention::TfLite if self.real => {
                self.run_backward::<F, FloatZeroPoint<F::Compute, TfLite>>(x, grad, input)
            }
            Convention::Onnx => self.run_backward::<F, IntegerZeroPoint<F::Compute, Onnx>>(x, grad, input),
            Convention::TfLite => self.run_backward::<F, IntegerZeroPoint<F::Compute, TfLite>>(x, grad, input),
        })
    }

    fn run_backward<F: Float, G: Grid<F::Compute>>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
        input: &mut ArrayRef<F, D>,
    ) -> Vec<Sums> {
        let mut sums = alloc::vec![Sums::default(); self.zero_points.len()];
        let (x, grad) = (x.as_standard_layout(), grad.as_standard_layout());
        let (Some(x), Some(grad)) = (x.as_slice(), grad.as_slice()) else { return sums };
        let shape = input.raw_dim();
        let mut walk = |out: &mut [F]| {
            self.params.blocks().for_each_range(&shape, |run, range| {
                loops::gradients::<F, G>(
                    self.table(0),
                    run,
                    &x[range.clone()],
                    &grad[range.clone()],
                    &mut out[range],
                    &mut sums,
                );
            });
        };
        if let Some(out) = input.as_slice_mut() {
            walk(out);
        } else {
            let mut out = alloc::vec![F::default(); x.len()];
            walk(&mut out);
            input.iter_mut().zip(out).for_each(|(to, from)| *to = from);
        }
        sums
    }

    fn table(&self, seed: u64) -> Table<'_> {
        Table {
            scale: self.params.scale().as_slice().unwrap_or_default(),
            zero_point: &self.zero_points,
            settings: Settings { codes: self.params.codes(), clipping: self.clipping, seed },
        }
    }
}
