//! Quantization-aware training with ranges that are observed during training.

use ndarray::{Array, ArrayRef, Dimension};

use super::fake_quantize::FakeQuantize;
use super::mask::SteMask;
use crate::element::{Element, Float};
use crate::error::Result;
use crate::observer::{MovingAverage, Observer};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// The training steps at which fake quantization starts and ranges freeze.
///
/// | step | observer | fake quantization |
/// |---|---|---|
/// | before `quant_delay` | enabled | disabled: values pass unchanged |
/// | from `quant_delay` on | enabled | enabled |
/// | from `freeze_after` on | disabled: ranges are frozen | enabled |
///
/// `quant_delay` is TensorFlow's parameter of `create_training_graph`; freezing is PyTorch's `disable_observer`.
/// (Jacob et al. 2018, section 3.1, delay activation quantization; Krishnamoorthi 2018.)
///
/// ```
/// use ndarray_quant::qat::Schedule;
/// let schedule = Schedule::new().quant_delay(100).freeze_after(1000);
/// assert_eq!([0, 99, 100, 999, 1000].map(|step| schedule.fake_quant_enabled(step)), [false, false, true, true, true]);
/// assert_eq!([0, 99, 100, 999, 1000].map(|step| schedule.observer_enabled(step)), [true, true, true, true, false]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Schedule {
    quant_delay: u64,
    freeze_after: Option<u64>,
}

impl Schedule {
    /// Quantizes from the first step on and never freezes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only observes during the first `steps` steps, because the activations of an untrained network say little about
    /// their final range.
    pub fn quant_delay(mut self, steps: u64) -> Self {
        self.quant_delay = steps;
        self
    }

    /// Freezes the range after `steps` steps, counted from the first one. The last steps then train the weights with
    /// exactly the scale and zero point of the integer network.
    pub fn freeze_after(mut self, steps: u64) -> Self {
        self.freeze_after = Some(steps);
        self
    }

    /// Returns whether the range is observed at a step, counted from 0.
    pub fn observer_enabled(&self, step: u64) -> bool {
        self.freeze_after.is_none_or(|freeze| step < freeze)
    }

    /// Returns whether values are fake-quantized at a step, counted from 0. Always true once the range is frozen.
    pub fn fake_quant_enabled(&self, step: u64) -> bool {
        step >= self.quant_delay || !self.observer_enabled(step)
    }
}

/// Fake quantization of an activation whose range is observed during training. (PyTorch: the module `FakeQuantize`, with
/// `enable_observer`, `enable_fake_quant` and `disable_observer` called by the [`Schedule`].)
///
/// Every [`forward`](Self::forward) is a training step: the observer sees the batch, the [`Scheme`] turns its range into
/// parameters, and [`FakeQuantize`] rounds the batch.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{Scheme, observer::MovingAverage, qat::{Schedule, ScheduledQuantizer}};
///
/// let schedule = Schedule::new().quant_delay(1).freeze_after(2);
/// let range = MovingAverage::per_tensor().with_averaging_constant(0.5)?;
/// let mut q = ScheduledQuantizer::new(Scheme::<u8>::asymmetric(), range, schedule);
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
    schedule: Schedule,
    step: u64,
    fake: Option<FakeQuantize<T>>,
}

impl<T: Element, O: Observer> ScheduledQuantizer<T, O> {
    /// Quantizes by `scheme` to the range that `observer` finds. Both must have the same granularity.
    pub fn new(scheme: Scheme<T>, observer: O, schedule: Schedule) -> Self {
        Self { scheme, observer, schedule, step: 0, fake: None }
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
        self.schedule.observer_enabled(self.step)
    }

    /// Returns whether the next step fake-quantizes.
    pub fn fake_quant_enabled(&self) -> bool {
        self.schedule.fake_quant_enabled(self.step)
    }

    /// Freezes the range from the next step on. (PyTorch: `disable_observer`.)
    pub fn freeze(&mut self) {
        self.schedule = self.schedule.freeze_after(self.step);
    }

    /// The current parameters, with which the trained network is quantized. `None` before the first step.
    pub fn params(&self) -> Option<&QParams<T>> {
        self.fake.as_ref().map(FakeQuantize::params)
    }
}
