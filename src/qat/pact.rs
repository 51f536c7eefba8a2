//! PACT: activations with a trained upper bound.

use ndarray::{Array, ArrayRef, Dimension};

use super::fake_quantize::FakeQuantize;
use super::learned::project_scale;
use super::mask::SteMask;
use crate::affine::SteClipping;
use crate::element::{Element, Float};
use crate::error::Result;
use crate::qparams::QParams;

/// PACT: a ReLU with a trained upper bound `α`, quantized (Choi et al., "PACT: parameterized clipping activation for
/// quantized neural networks", 2018, section 3).
///
/// | | |
/// |---|---|
/// | `y` | `round(clip(x, 0, α) * (2^bits - 1) / α) * α / (2^bits - 1)` |
/// | `∂y/∂x` | 1 where `0 < x < α`, otherwise 0 |
/// | `∂y/∂α` | 1 where `x >= α`, otherwise 0 |
///
/// The paper regularizes the loss by `λ α²`: add `2 λ α` to the gradient of `α`.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::qat::Pact;
/// let mut pact = Pact::<u8>::new(3.0, 2)?; // the values 0, 1, 2 and 3
/// let x = array![-1.0f32, 0.4, 1.6, 5.0];
/// let (y, _) = pact.forward(&x)?;
/// assert_eq!(y, array![0.0, 0.0, 2.0, 3.0]);
/// let (input, alpha) = pact.gradients(&x, &array![1.0f32, 1.0, 1.0, 0.5])?;
/// assert_eq!((input, alpha), (array![0.0, 1.0, 1.0, 0.0], 0.5));
/// pact.set_alpha(pact.alpha() - 0.1 * alpha)?;
/// assert_eq!(pact.alpha(), 2.95);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pact<T: Element> {
    alpha: f32,
    fake: FakeQuantize<T>,
}

impl<T: Element> Pact<T> {
    /// Clips to `0..=alpha` and quantizes to the codes `0..=2^bits - 1`.
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) unless `alpha` is positive and finite and the element type holds the
    /// codes.
    pub fn new(alpha: f32, bits: u32) -> Result<Self> {
        let steps = 1i32.checked_shl(bits).map_or(i32::MAX, |codes| codes - 1);
        let params = QParams::per_tensor(alpha / steps as f32, T::Code::default())?.with_code_range(0, steps)?;
        Ok(Self { alpha, fake: FakeQuantize::new(params).with_clipping(SteClipping::Unrounded) })
    }

    /// The current upper bound.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// The current parameters, with which the trained network is quantized.
    pub fn params(&self) -> &QParams<T> {
        self.fake.params()
    }

    /// Returns the clipped and fake-quantized values, and the straight-through mask.
    ///
    /// # Errors
    /// Never for parameters per tensor; errors come from [`FakeQuantize::forward`].
    pub fn forward<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<(Array<F, D>, SteMask<D>)> {
        self.fake.forward(x)
    }

    /// The gradients by the input and by `α`, given the input of the forward pass and the gradient of its output.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `grad` has another shape than `x`.
    pub fn gradients<F: Float, D: Dimension>(
        &self,
        x: &ArrayRef<F, D>,
        grad: &ArrayRef<F, D>,
    ) -> Result<(Array<F, D>, f32)> {
        let mut input = Array::from_elem(x.raw_dim(), F::default());
        let sums = self.fake.block_sums(x, grad, &mut input)?;
        Ok((input, sums.iter().map(|sums| sums.above).sum::<f64>() as f32))
    }

    /// Sets `α` to the value that an optimizer proposes, projected as in
    /// [`LearnedQuantizer::set_scale`](super::LearnedQuantizer::set_scale).
    ///
    /// # Errors
    /// Never for a projected value; errors come from [`Self::new`].
    pub fn set_alpha(&mut self, proposed: f32) -> Result<()> {
        let alpha = project_scale(self.alpha, proposed);
        let (min, max) = self.params().code_range();
        let params = QParams::per_tensor(alpha / max as f32, T::Code::default())?.with_code_range(min, max)?;
        *self = Self { alpha, fake: self.fake.with_params(params) };
        Ok(())
    }
}
