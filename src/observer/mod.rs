//! NonTemporal calibration: batches → a statistic per block → ranges → parameters.
//!
//! Arena is bounded by the number of blocks, however much data passes. [`Observer::merge`] makes calibration a
//! map-reduce: every shard, thread or machine observes its part.
//!
//! | file | idea |
//! |---|---|
//! | `block` | one statistic per block: the finite check, the shapes, merging and serialization |
//! | `min_max`, `moving_average` | statistics of each batch's bounds |
//! | `dyadic` | a histogram whose bins merge exactly |
//! | `clip`, `percentile`, `entropy`, `mse` | what to clip, given such a histogram |
//! | `torch_histogram` | PyTorch's own histogram and its search |
//! | `squared_error` | the integral that both searches minimize |

mod block;
mod clip;
mod dyadic;
mod entropy;
mod min_max;
mod moving_average;
mod mse;
mod percentile;
mod squared_error;
mod torch_histogram;

pub use crate::range::{Bounds, Ranges};
pub use block::{BlockObserver, Statistic};
pub use entropy::Entropy;
pub use min_max::MinMax;
pub use moving_average::MovingAverage;
pub use mse::Mse;
pub use percentile::Percentile;
pub use torch_histogram::HistogramObserver;

/// The statistics behind the observers, and what each of them keeps per block.
pub mod statistic {
    pub use super::block::Statistic;
    pub use super::clip::Clip;
    pub use super::dyadic::DyadicHistogram;
    pub use super::entropy::LeastDivergence;
    pub use super::min_max::Extremes;
    pub use super::moving_average::{Average, Smoothed};
    pub use super::mse::LeastError;
    pub use super::percentile::CentralMass;
    pub use super::torch_histogram::{GreedyQuantiles, TorchHistogram};
}

use ndarray::{ArrayRef, Dimension, IxDyn};

use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// What sees batches of a tensor pass by and then tells the range to quantize it with.
///
/// Implemented by [`MinMax`], [`MovingAverage`], [`Percentile`], [`Entropy`], [`Mse`] and [`HistogramObserver`], all of them
/// a [`BlockObserver`]. For one of your own, implementing [`Statistic`] is less work.
///
/// ```
/// use ndarray::{array, Ix2};
/// use ndarray_quant::{QParams, Quantize, Scheme, observer::{MinMax, Observer}};
///
/// let batches = [array![[0.0f32, 1.0]], array![[-1.0, 0.5], [0.0, 1.55]]];
/// let mut range = MinMax::per_tensor();
/// for batch in &batches {
///     range.observe(batch)?;
/// }
/// let params: QParams<u8, Ix2> = Scheme::asymmetric().params(&range)?;
/// assert_eq!(params.quantize(&batches[1])?.codes(), array![[0, 150], [100, 255]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Observer {
    /// Takes a batch in. One without elements changes nothing.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the position of the first NaN or infinity, [`Error::Shape`] if the blocks are not
    /// those of earlier batches, [`Error::Axis`] or [`Error::GroupSize`] for a granularity that `x` cannot have.
    /// After an error the observer is as it was before.
    fn observe<F: Float, D: Dimension>(&mut self, x: &ArrayRef<F, D>) -> Result<()>;

    /// Takes in what another observer saw, as if its batches had come after this one's.
    ///
    /// # Errors
    /// [`Error::Granularity`], [`Error::Argument`] or [`Error::Shape`] if the two differ in granularity, settings or
    /// blocks. After an error the observer is as it was before.
    fn merge(&mut self, other: &Self) -> Result<()>;

    /// The range of each block that suits this scheme: whether it is symmetric, and its codes.
    ///
    /// Bounds per tensor have rank 0, others the rank of the batches.
    ///
    /// # Errors
    /// [`Error::EmptyCalibration`] if no value was observed.
    fn ranges<T: Element>(&self, scheme: &Scheme<T>) -> Result<Ranges<IxDyn>>;
}

impl<T: Element> Scheme<T> {
    /// The parameters for what an observer saw (static quantization), see [`Observer`].
    ///
    /// # Errors
    /// [`Error::EmptyCalibration`] if it saw nothing, [`Error::Granularity`] if its granularity is not the scheme's,
    /// [`Error::Shape`] if the batches had another rank than `D`; parameters per tensor fit every rank.
    pub fn params<D: Dimension>(&self, observer: &impl Observer) -> Result<QParams<T, D>> {
        let ranges = observer.ranges(self)?;
        if ranges.granularity() != self.granularity() {
            return Err(Error::Granularity { expected: self.granularity(), found: ranges.granularity() });
        }
        self.params_from_ranges(&ranges.into_dimensionality()?)
    }
}
