//! Quantization-aware training with ranges that are observed during training.

use ndarray::{Array, ArrayRef, Dimension};

use super::fake_quantize::FakeQuantize;
use super::mask::SteMask;
use crate::element::{Element, Float};
use crate::error::Result;
use crate::observer::{MovingAverage, Observer};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// Fake quantization of an activation whose range is observed during training. (PyTorch: the module `FakeQuantize`, with
/// `enable_observer`, `enable_fake_quant` and `disable_observer` called at chosen steps.)
///
/// Every [`forward`](Self::forward) is a training step: the observer sees the batch, the [`Scheme`] turns its range into
/// parameters, and [`FakeQuantize`] rounds the batch. Two settings change that:
///
/// | step | observer | fake quantization |
/// |---|---|---|
/// | before [`quant_delay`](Self::with_quant_delay) | enabled | disabled: values pass unchanged |
/// | from then on | enabled | enabled |
/// | from [`freeze_after`](Self::with_freeze_after) on | disabled: the range is frozen | enabled |
///
/// `quant_delay` is TensorFlow's parameter of `create_training_graph`; freezing is PyTorch's `disable_observer`.
/// (Jacob et al. 2018, section 3.1, delay activation quantization; Krishnamoorthi 2018.)
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{Scheme, observer::MovingAverage, qat::ScheduledQuantizer};
///
/// let range = MovingAverage::per_tensor().with_averaging_constant(0.5)?;
/// let mut q = ScheduledQuantizer::new(Scheme::<u8>::asymmetric(), range).with_quant_delay(1).with_freeze_after(2);
/// assert_eq!(q.forward(&array![0.0f32, 255.0])?.0, array![0.0, 255.0]); // step 0 only observes
/// assert_eq!(q.forward(&array![0.0f32, 765.0])?.0, array![0.0, 510.0]); // step 1: the range is the mean of both
/// assert_eq!(q.forward(&array![3.0f32, 9999.0])?.0, array![4.0, 510.0]); // step 2: frozen
/// assert_eq!(q.params().unwrap().scales(), [2.0]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ScheduledQuantizer<T: Element, O: Observer = MovingAverage> {
    scheme: Scheme<T>,
    observer: O,
    quant_delay: u64,
    freeze_after: Option<u64>,
    step: u64,
    fake: Option<FakeQuantize<T>>,
}

impl<T: Element, O: Observer> ScheduledQuantizer<T, O> {
    /// Quantizes by `scheme` to the range that `observer` finds, from the first step on and without freezing. Both must
    /// have the same granularity.
    pub fn new(scheme: Scheme<T>, observer: O) -> Self {
        Self { scheme, observer, quant_delay: 0, freeze_after: None, step: 0, fake: None }
    }

    /// Only observes during the first `steps` steps, because the activations of an untrained network say little about
    /// their final range.
    pub fn with_quant_delay(mut self, steps: u64) -> Self {
        self.quant_delay = steps;
        self
    }

    /// Freezes the range after `steps` steps, counted from the first one. The last steps then train the weights with
    /// exactly the scale and zero point of the integer network. A delay that has not ended then ends.
    pub fn with_freeze_after(mut self, steps: u64) -> Self {
        self.freeze_after = Some(steps);
        self
    }

    /// Runs a training step. Returns the value that the next layer sees, and the mask for [`backward`](Self::backward).
    ///
    /// # Errors
    /// Same as [`Observer::observe`] and [`Scheme::params`]; [`Error::Shape`](crate::Error::Shape) if frozen parameters
    /// do not fit `x`. After an error the step is not counted.
    pub fn forward<F: Float, D: Dimension>(&mut self, x: &ArrayRef<F, D>) -> Result<(Array<F, D>, SteMask<D>)> {
        if self.observer_enabled() && !x.is_empty() {
            self.observer.observe(x)?;
            self.fake = Some(FakeQuantize::new(self.scheme.params(&self.observer)?));
        }
        let out = match &self.fake {
            Some(fake) if self.fake_quant_enabled() => fake.forward(x)?,
            _ => (x.to_owned(), SteMask::unclipped(x.raw_dim())),
        };
        self.step += 1;
        Ok(out)
    }

    /// Fake-quantizes with the current parameters, without observing and without counting a step, as for validation.
    /// Returns `x` unchanged if nothing was observed yet.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `x`.
    pub fn evaluate<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        match &self.fake {
            Some(fake) => fake.params().fake_quantize(x),
            None => Ok(x.to_owned()),
        }
    }

    /// The gradient by the input, `∂L/∂x = ∂L/∂y` where the value was not clipped, otherwise 0.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `mask` and `grad` differ in shape.
    pub fn backward<F: Float, D: Dimension>(&self, mask: &SteMask<D>, grad: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut input = Array::from_elem(grad.raw_dim(), F::default());
        mask.apply(grad, &mut input)?;
        Ok(input)
    }

    /// Returns whether the next step observes the range.
    pub fn observer_enabled(&self) -> bool {
        self.freeze_after.is_none_or(|freeze| self.step < freeze)
    }

    /// Returns whether the next step fake-quantizes.
    pub fn fake_quant_enabled(&self) -> bool {
        self.step >= self.quant_delay || !self.observer_enabled()
    }

    /// Freezes the range from the next step on. (PyTorch: `disable_observer`.)
    pub fn freeze(&mut self) {
        self.freeze_after = Some(self.step);
    }

    /// The current parameters, with which the trained network is quantized. `None` before the first step.
    pub fn params(&self) -> Option<&QParams<T>> {
        self.fake.as_ref().map(FakeQuantize::params)
    }
}
