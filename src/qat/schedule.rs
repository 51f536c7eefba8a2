//! When to observe, when to quantize, when to stop moving.

use ndarray::{Array, ArrayRef, Dimension};

use super::fake_quantize::FakeQuantize;
use super::mask::Mask;
use crate::element::{Element, Float};
use crate::error::Result;
use crate::observer::{MovingAverage, Observer};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// The steps of training at which quantization begins and ranges freeze.
///
/// ```
/// use ndarray_quant::qat::{Phase, Schedule};
/// let schedule = Schedule::new().delay(100).freeze_after(1000);
/// assert_eq!([0, 99, 100, 999, 1000].map(|step| schedule.phase(step)), {
///     use Phase::*;
///     [Observe, Observe, Quantize, Quantize, Frozen]
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Schedule {
    delay: u64,
    freeze: Option<u64>,
}

/// What happens to an activation at a step of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Phase {
    /// Its range is observed; the value passes as it is.
    Observe,
    /// Its range is observed and it is quantized to that range.
    Quantize,
    /// It is quantized to the range as it was.
    Frozen,
}

impl Schedule {
    /// Quantizes from the first step on and never freezes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only observes for this many steps: activations of an untrained network say little about their range.
    pub fn delay(mut self, steps: u64) -> Self {
        self.delay = steps;
        self
    }

    /// Freezes the range after this many steps, counted from the first one, so that the last steps train the weights
    /// for the very grid that the integer network has.
    pub fn freeze_after(mut self, steps: u64) -> Self {
        self.freeze = Some(steps);
        self
    }

    /// What happens at a step, counted from 0.
    pub fn phase(&self, step: u64) -> Phase {
        if self.freeze.is_some_and(|freeze| step >= freeze) {
            Phase::Frozen
        } else if step < self.delay {
            Phase::Observe
        } else {
            Phase::Quantize
        }
    }
}

/// Fake quantization of an activation whose range is observed while the network trains: observe, quantize, freeze.
/// (PyTorch: `FakeQuantize` with `enable_observer` and `enable_fake_quant`.)
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{Scheme, observer::MovingAverage, qat::{Schedule, ScheduledQuantizer}};
///
/// let schedule = Schedule::new().delay(1).freeze_after(2);
/// let range = MovingAverage::per_tensor().with_averaging_constant(0.5)?;
/// let mut q = ScheduledQuantizer::new(Scheme::<u8>::asymmetric(), range, schedule);
/// assert_eq!(q.forward(&array![0.0f32, 255.0])?.0, array![0.0, 255.0]); // step 0 observes
/// assert_eq!(q.forward(&array![0.0f32, 765.0])?.0, array![0.0, 510.0]); // step 1: the range is the mean of both
/// assert_eq!(q.forward(&array![3.0f32, 9999.0])?.0, array![4.0, 510.0]); // step 2: frozen
/// assert_eq!(q.params().unwrap().scale(), array![2.0]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ScheduledQuantizer<T: Element, D: Dimension, O: Observer = MovingAverage> {
    scheme: Scheme<T>,
    observer: O,
    schedule: Schedule,
    step: u64,
    fake: Option<FakeQuantize<T, D>>,
}

impl<T: Element, D: Dimension, O: Observer> ScheduledQuantizer<T, D, O> {
    /// Ranges of this observer become parameters by this scheme. Their granularities must agree.
    pub fn new(scheme: Scheme<T>, observer: O, schedule: Schedule) -> Self {
        Self { scheme, observer, schedule, step: 0, fake: None }
    }

    /// A step of training: what the next layer sees, and which values were not clipped.
    ///
    /// # Errors
    /// Those of [`Observer::observe`] and [`Scheme::params`], and [`Error::Shape`](crate::Error::Shape) if frozen
    /// parameters do not fit `x`. After an error the step was not taken.
    pub fn forward<F: Float>(&mut self, x: &ArrayRef<F, D>) -> Result<(Array<F, D>, Mask<D>)> {
        let phase = self.phase();
        if phase != Phase::Frozen && !x.is_empty() {
            self.observer.observe(x)?;
            self.fake = Some(FakeQuantize::new(self.scheme.params(&self.observer)?));
        }
        let out = match &self.fake {
            Some(fake) if phase != Phase::Observe => fake.forward(x)?,
            _ => (x.to_owned(), Mask::nothing_clipped(x.raw_dim())),
        };
        self.step += 1;
        Ok(out)
    }

    /// What the next layer sees with the parameters as they are; nothing is observed and no step is counted. Before
    /// anything was observed the value passes as it is.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the parameters do not fit `x`.
    pub fn evaluate<F: Float>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        match &self.fake {
            Some(fake) => fake.params().fake_quantize(x),
            None => Ok(x.to_owned()),
        }
    }

    /// The gradient by the input: that of the output where nothing was clipped, else 0.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the mask is of another shape than `grad`.
    pub fn backward<F: Float>(&self, mask: &Mask<D>, grad: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        let mut input = Array::from_elem(grad.raw_dim(), F::default());
        mask.apply(grad, &mut input)?;
        Ok(input)
    }

    /// What happens at the next step.
    pub fn phase(&self) -> Phase {
        self.schedule.phase(self.step)
    }

    /// Freezes the range now.
    pub fn freeze(&mut self) {
        self.schedule = self.schedule.freeze_after(self.step);
    }

    /// The parameters of what was observed: what the trained network is quantized with. `None` before the first step.
    pub fn params(&self) -> Option<&QParams<T, D>> {
        self.fake.as_ref().map(FakeQuantize::params)
    }
}
