//! LSQ and LSQ+: scales and zero points that are trained with the weights.

use ndarray::{ArrayD, ArrayRef, Dimension};

use super::fake_quantize::{FakeQuantize, Gradients};
use crate::affine::{Codes, Convention, SteClipping};
use crate::element::{Code, Compute, Element, Float};
use crate::error::{Error, Result, check_shapes};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::range::mean_magnitudes;
use crate::scheme::Scheme;

/// The bounds of learned scales, chosen so that the product of two scales is a normal `f32`.
const SMALLEST: f32 = 1.0 / (1u64 << 60) as f32;
const GREATEST: f32 = (1u64 << 60) as f32;

/// Projects a scale that an optimizer proposes: clamps it to `present / 2..=2 * present` and to `2^-60..=2^60`; a NaN gives
/// the present scale.
pub(super) fn project_scale(present: f32, proposed: f32) -> f32 {
    let present = if present > 0.0 { present.clamp(SMALLEST, GREATEST) } else { SMALLEST };
    let proposed = if proposed.is_nan() { present } else { proposed };
    proposed.clamp(0.5 * present, 2.0 * present).clamp(SMALLEST, GREATEST)
}

/// The gradient scale `g` of LSQ: the factor of the gradients of scales and zero points (Esser et al. 2020, section 2.2).
///
/// With `q_max = code_max - zero_point`, the paper's `Q_P`:
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GradientScale {
    /// `g = 1 / sqrt(n_weights * q_max)`, with `n_weights` the number of elements of a block.
    Weights,
    /// `g = 1 / sqrt(n_features * q_max)`, with this number of features of a layer, independent of the batch size.
    Activations(usize),
    /// A fixed `g`.
    Fixed(f32),
}

/// Fake quantization with trained scales, and optionally trained zero points: LSQ and LSQ+. Use it for 4 bits and fewer.
///
/// | | trained | initial values | source |
/// |---|---|---|---|
/// | [`lsq`](Self::lsq) | scales; zero points are 0 | `2 * mean(abs(x)) / sqrt(q_max)` | Esser et al., "Learned step size quantization", 2020 |
/// | [`lsq_plus`](Self::lsq_plus) | scales and zero points | calibrated parameters | Bhalgat et al., "LSQ+: improving low-bit quantization through learnable offsets and better initialization", 2020 |
/// | [`new`](Self::new) | scales | calibrated parameters | |
///
/// Gradients are the gradients of [`FakeQuantize`] with [`SteClipping::Unrounded`], multiplied by a [`GradientScale`]. LSQ+'s
/// offset `β` is `-zero_point * scale`; the zero point is trained as a float and rounded for the forward pass, so that
/// integer layers reproduce the values. With [`Convention::Torch`] everything equals PyTorch's
/// `_fake_quantize_learnable_*`, which clips by [`SteClipping::Rounded`].
///
/// Any optimizer works: pass its new values to [`set_scale`](Self::set_scale), which keeps scales positive and finite.
/// [`sgd_step`](Self::sgd_step) is plain gradient descent.
///
/// ```
/// use ndarray::Array1;
/// use ndarray_quant::{Scheme, qat::LearnedQuantizer};
///
/// let w = Array1::linspace(-1.0f32, 1.0, 100);
/// let mut q = LearnedQuantizer::lsq(Scheme::<i8>::symmetric().with_bits(2)?, &w)?; // -2..=1
/// assert!((q.params().scales()[0] - 1.01).abs() < 1e-3); // 2 * mean(abs(w)) / sqrt(1)
///
/// // Minimize the error of the rounding itself.
/// let error = |q: &LearnedQuantizer<i8>| Ok::<_, ndarray_quant::Error>(&q.as_fake_quantize().forward(&w)?.0 - &w);
/// let before = error(&q)?.mapv(|e| e * e).sum();
/// for _ in 0..100 {
///     let gradients = q.gradients(&w, &error(&q)?)?;
///     q.sgd_step(&gradients, 0.02)?;
/// }
/// assert!(error(&q)?.mapv(|e| e * e).sum() < 0.8 * before);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedQuantizer<T: Element> {
    fake: FakeQuantize<T>,
    /// The trained zero points before rounding; `None` if they are fixed.
    zero_point: Option<ArrayD<f32>>,
    factor: GradientScale,
}

impl<T: Element> LearnedQuantizer<T> {
    /// Trains the scales, starting from these parameters; zero points stay fixed.
    ///
    /// # Errors
    /// Never for valid parameters; errors come from [`QParams::new`].
    pub fn new(params: QParams<T>) -> Result<Self> {
        let clipping = match params.convention() {
            Convention::Torch => SteClipping::Rounded,
            _ => SteClipping::Unrounded,
        };
        let scale = params.scale().mapv(|scale| project_scale(scale, scale));
        let fake = FakeQuantize::new(with_values(&params, scale, None)?).with_clipping(clipping);
        Ok(Self { fake, zero_point: None, factor: GradientScale::Weights })
    }

    /// LSQ: trains scales with a zero point of 0, and the codes, granularity and convention of `scheme`. The initial scale of
    /// a block is `2 * mean(abs(x)) / sqrt(q_max)` with `q_max = code_max` (Esser et al. 2020, section 2.1), or 1 if all its
    /// elements are zero.
    ///
    /// # Errors
    /// [`Error::Value`] with the index of the first NaN or infinity, [`Error::Params`] if the scheme's codes exclude 0
    /// or its groups have 0 elements, [`Error::Shape`] if `x` does not have the scheme's axis.
    pub fn lsq<F: Float, D: Dimension>(scheme: Scheme<T>, x: &ArrayRef<F, D>) -> Result<Self> {
        let mean = mean_magnitudes(x, scheme.granularity(), |_| None)?;
        let Codes { min, max } = scheme.codes();
        let q_max = num_traits::Float::sqrt(max.max(1) as f64);
        let scale = mean.mapv(|mean| if mean > 0.0 { (2.0 * mean / q_max) as f32 } else { 1.0 });
        let scale = scale.mapv(|scale| project_scale(scale, scale));
        let params = QParams::new(scheme.granularity(), scale, None)?.with_convention(scheme.convention());
        Self::new(params.with_code_range(min, max)?)
    }

    /// LSQ+: trains scales and zero points, starting from these parameters. For activations, start from the parameters that an
    /// observer found.
    ///
    /// # Errors
    /// Never for valid parameters; errors come from [`QParams::new`].
    pub fn lsq_plus(params: QParams<T>) -> Result<Self> {
        let zero_point = match params.zero_point() {
            Some(zero_point) => zero_point.mapv(|z| z.to_i32() as f32),
            None => ArrayD::zeros(params.scale().raw_dim()),
        };
        Ok(Self { zero_point: Some(zero_point), ..Self::new(params)? })
    }

    /// Sets the gradient scale. The default is [`GradientScale::Weights`].
    pub fn with_gradient_scale(mut self, factor: GradientScale) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the clipping condition of the straight-through estimator.
    pub fn with_clipping(mut self, clipping: SteClipping) -> Self {
        self.fake = self.fake.with_clipping(clipping);
        self
    }

    /// The forward and backward pass with the current parameters and rounded zero points.
    pub fn as_fake_quantize(&self) -> &FakeQuantize<T> {
        &self.fake
    }

    /// The current parameters with rounded zero points, with which the trained network is quantized.
    pub fn params(&self) -> &QParams<T> {
        self.fake.params()
    }

    /// The current scales.
    pub fn scale(&self) -> &ArrayD<f32> {
        self.params().scale()
    }

    /// The current zero points before rounding; `None` if they are not trained.
    pub fn zero_point(&self) -> Option<&ArrayD<f32>> {
        self.zero_point.as_ref()
    }

    /// The gradients by the input, by the scales and by the zero points, the last two multiplied by
    /// [`gradient_scales`](Self::gradient_scales). The gradient by the zero points is 0 if they are not trained.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` and `grad` differ in shape, or the parameters do not fit it.
    pub fn gradients<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
    ) -> Result<Gradients<F, D>> {
        let mut gradients = match self.zero_points_of_torch() {
            Some(zero_points) => self.fake.clone().with_float_zero_points(&zero_points)?.gradients(x, grad)?,
            None => self.fake.gradients(x, grad)?,
        };
        let factors = self.gradient_scales(x.len());
        gradients.scale *= &factors;
        gradients.zero_point *= &factors;
        if self.zero_point.is_none() {
            gradients.zero_point.fill(0.0);
        }
        Ok(gradients)
    }

    /// The gradient scale of each block, for a tensor of `len` elements.
    pub fn gradient_scales(&self, len: usize) -> ArrayD<f32> {
        let params = self.params();
        let elements = match self.factor {
            GradientScale::Fixed(factor) => return ArrayD::from_elem(params.scale().raw_dim(), factor),
            GradientScale::Activations(n) => n,
            GradientScale::Weights => len.div_ceil(params.scale().len().max(1)),
        };
        let (_, code_max) = params.code_range();
        let factor = |zero_point: i32| {
            let q_max = (code_max - zero_point).max(1);
            (1.0 / num_traits::Float::sqrt(elements.max(1) as f64 * q_max as f64)) as f32
        };
        match params.zero_point() {
            Some(zero_point) => zero_point.mapv(|z| factor(z.to_i32())),
            None => ArrayD::from_elem(params.scale().raw_dim(), factor(0)),
        }
    }

    /// Sets the scales to the values that an optimizer proposes, after projection: each is clamped to between half and twice
    /// the current scale and to `2^-60..=2^60`; a NaN changes nothing.
    ///
    /// A scale therefore stays positive and finite at any learning rate, and one bad step cannot destroy it.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one scale per block.
    pub fn set_scale<D: Dimension>(&mut self, proposed: &ArrayRef<f32, D>) -> Result<()> {
        self.params().check_per_block("scales", proposed.shape())?;
        let mut scale = self.scale().clone();
        scale.iter_mut().zip(proposed).for_each(|(scale, &proposed)| *scale = project_scale(*scale, proposed));
        self.fake = self.fake.with_params(with_values(self.params(), scale, None)?);
        Ok(())
    }

    /// Sets the zero points to the values that an optimizer proposes, clamped to the code range; a NaN changes nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one zero point per block, [`Error::Argument`] if zero points are not trained.
    pub fn set_zero_point<D: Dimension>(&mut self, proposed: &ArrayRef<f32, D>) -> Result<()> {
        self.params().check_per_block("zero points", proposed.shape())?;
        let Some(zero_point) = &mut self.zero_point else {
            return Err(Error::Argument {
                what: "zero points",
                expected: "a quantizer that trains them",
                found: "one that trains scales only".into(),
            });
        };
        let (min, max) = self.fake.params().code_range();
        zero_point.iter_mut().zip(proposed).for_each(|(z, &proposed)| {
            if !proposed.is_nan() {
                *z = proposed.clamp(min as f32, max as f32);
            }
        });
        let rounded = zero_point.mapv(|z| T::Code::from_i32(Compute::round_ties_even(z) as i32));
        let params = self.fake.params();
        self.fake = self.fake.with_params(with_values(params, params.scale().clone(), Some(rounded))?);
        Ok(())
    }

    /// One step of gradient descent: [`set_scale`](Self::set_scale) to `scale - learning_rate * gradient`, and the same for
    /// trained zero points.
    ///
    /// # Errors
    /// [`Error::Shape`] if the gradients have not one element per block.
    pub fn sgd_step<F, D: Dimension>(&mut self, gradients: &Gradients<F, D>, learning_rate: f32) -> Result<()> {
        check_shapes("gradient of the scales", self.scale().shape(), gradients.scale.shape())?;
        let scale = self.scale() - &(&gradients.scale * learning_rate);
        if let Some(zero_point) = &self.zero_point {
            check_shapes("gradient of the zero points", zero_point.shape(), gradients.zero_point.shape())?;
            let zero_point = zero_point - &(&gradients.zero_point * learning_rate);
            self.set_zero_point(&zero_point)?;
        }
        self.set_scale(&scale)
    }

    /// The zero points of PyTorch's backward pass per tensor, which rounds by adding one half and truncating, also for negative
    /// zero points: -3.7 becomes -3 there, but -4 in the forward pass.
    fn zero_points_of_torch(&self) -> Option<ArrayD<f32>> {
        let params = self.params();
        if params.convention() != Convention::Torch || params.granularity() != Granularity::PerTensor {
            return None;
        }
        let (min, max) = params.code_range();
        let zero_point = self.zero_point.as_ref()?;
        Some(zero_point.mapv(|z| (z + 0.5).clamp(min as f32, max as f32) as i32 as f32))
    }
}

/// `params` with other scales, and other zero points if given.
fn with_values<T: Element>(
    params: &QParams<T>,
    scale: ArrayD<f32>,
    zero_point: Option<ArrayD<T::Code>>,
) -> Result<QParams<T>> {
    let zero_point = zero_point.or_else(|| params.zero_point().cloned());
    let (min, max) = params.code_range();
    let params = QParams::new(params.granularity(), scale, zero_point)?.with_convention(params.convention());
    params.with_code_range(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_projected_scale_is_near_the_present_one() {
        assert_eq!(project_scale(0.1, 0.11), 0.11);
        assert_eq!(project_scale(0.1, -3.0), 0.05);
        assert_eq!(project_scale(0.1, f32::INFINITY), 0.2);
        assert_eq!(project_scale(0.1, f32::NAN), 0.1);
    }

    proptest! {
        /// Projected scales are positive, finite and can be multiplied, for any proposal of an optimizer.
        #[test]
        fn projected_scales_are_usable(present: f32, proposed: f32) {
            let scale = project_scale(present, proposed);
            prop_assert!(scale > 0.0 && scale.is_finite() && (scale * scale).is_normal(), "{scale}");
        }
    }
}
