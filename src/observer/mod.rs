//! Calibration: find the range of a tensor from batches of it (static quantization).
//!
//! Observe batches, then derive parameters with [`Scheme::params`]. Memory is bounded by the number of blocks,
//! independent of the amount of data. [`BlockObserver::merge`] makes calibration a map-reduce: every shard, thread or
//! machine observes its part.
//!
//! | observer | range | PyTorch | ONNX Runtime, TensorRT |
//! |---|---|---|---|
//! | [`MinMax`] | minimum and maximum of all batches | `MinMaxObserver`, `PerChannelMinMaxObserver` | `MinMaxCalibrater`, `IInt8MinMaxCalibrator` |
//! | [`MovingAverage`] | moving average of the minima and maxima of the batches | `MovingAverageMinMaxObserver`, `MovingAveragePerChannelMinMaxObserver` | `MinMaxCalibrater(moving_average=True)` |
//! | [`Percentile`] | central percentage of the values | | `PercentileCalibrater` |
//! | [`Entropy`] | least KL divergence | | `EntropyCalibrater`, `IInt8EntropyCalibrator` |
//! | [`Mse`] | least mean squared error | | |
//! | [`HistogramObserver`] | PyTorch's approximate least squared error | `HistogramObserver` | |
//!
//! Every observer is made by `per_tensor()`, `per_axis(axis)` or `per_group(axis, size)`; an observer with a setting has
//! a `with_…` method for it, such as [`Percentile::with_percentile`]. The defaults are the defaults of the systems named
//! above.
//!
//! ```
//! use ndarray::Axis;
//! use ndarray_quant::observer::{Entropy, MovingAverage, Mse, Percentile};
//! let activations = Percentile::per_tensor().with_percentile(99.9)?;
//! let slow = MovingAverage::per_tensor().with_averaging_constant(0.001)?;
//! let (weights, groups) = (Mse::per_axis(Axis(0)), Entropy::per_group(Axis(1), 32));
//! # Ok::<(), ndarray_quant::Error>(())
//! ```
// | file | content |
// |---|---|
// | `block` | one statistic per block: validation, merging, serialization |
// | `min_max`, `moving_average` | statistics of the bounds of each batch |
// | `power_of_two_histogram` | a histogram that merges exactly |
// | `clip`, `percentile`, `entropy`, `mse` | choose the range from that histogram |
// | `histogram` | PyTorch's histogram and search |
// | `squared_error` | the integral of the squared rounding error, which both searches minimize |

mod block;
mod clip;
mod entropy;
mod histogram;
mod min_max;
mod moving_average;
mod mse;
mod percentile;
mod power_of_two_histogram;
mod squared_error;

pub use crate::range::{Bounds, Ranges};
pub use block::{BlockObserver, Statistic};
pub use clip::Clip;
pub use entropy::Entropy;
pub(crate) use entropy::EntropyStatistic;
pub use histogram::HistogramObserver;
pub use min_max::MinMax;
pub use moving_average::MovingAverage;
pub use mse::Mse;
pub(crate) use mse::MseStatistic;
pub use percentile::Percentile;
pub(crate) use percentile::PercentileStatistic;
pub use power_of_two_histogram::PowerOfTwoHistogram;

use ndarray::{ArrayRef, Dimension};

use crate::element::{Element, Float};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// Finds the range of a tensor from batches of it.
///
/// Generic code is bounded by this trait. The observers of this module have its methods without importing it.
/// For an observer of your own, implement [`Statistic`], or [`Clip`] if it chooses the range from a histogram:
/// [`BlockObserver`] then does the blocks, the validation, the merging and the serialization.
///
/// ```
/// use ndarray::{array, Ix2};
/// use ndarray_quant::{QParams, Quantize, Scheme, observer::MinMax};
///
/// let batches = [array![[0.0f32, 1.0]], array![[-1.0, 0.5], [0.0, 1.55]]];
/// let mut range = MinMax::per_tensor();
/// for batch in &batches {
///     range.observe(batch)?;
/// }
/// let params: QParams<u8> = Scheme::asymmetric().params(&range)?;
/// assert_eq!(params.quantize(&batches[1])?.codes(), array![[0, 150], [100, 255]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Observer {
    /// Observes a batch. A batch without elements changes nothing.
    ///
    /// # Errors
    /// [`Error::Value`] with the index of the first NaN or infinity, [`Error::Shape`] if the number of blocks differs
    /// from earlier batches or `x` does not have the axis of the observer. [`Error::Params`] for groups of 0 elements.
    /// After an error the observer is unchanged.
    fn observe<F: Float, D: Dimension>(&mut self, x: &ArrayRef<F, D>) -> Result<()>;

    /// Merges the observations of `other`, as if its batches had followed the batches of `self`.
    ///
    /// # Errors
    /// [`Error::Params`] if granularities differ, [`Error::Argument`] if settings differ, [`Error::Shape`] if the
    /// numbers of blocks differ. After an error the observer is unchanged.
    fn merge(&mut self, other: &Self) -> Result<()>;

    /// The range of each block for a scheme. Some observers depend on whether the scheme is symmetric and on its codes.
    ///
    /// Bounds have rank 0 per tensor, otherwise the rank of the batches.
    ///
    /// # Errors
    /// [`Error::Value`] if no value was observed.
    fn ranges<T: Element>(&self, scheme: &Scheme<T>) -> Result<Ranges>;
}

impl<T: Element> Scheme<T> {
    /// The parameters for the range that an observer found (static quantization), see [`Observer`].
    ///
    /// # Errors
    /// [`Error::Value`] if no value was observed, [`Error::Params`] if the observer's granularity is not
    /// the scheme's, [`Error::Shape`] if the batches had another rank than `D`; parameters per tensor fit every rank.
    pub fn params(&self, observer: &impl Observer) -> Result<QParams<T>> {
        let ranges = observer.ranges(self)?;
        if ranges.granularity() != self.granularity() {
            return Err(ParamsError::Granularity {
                what: "the observer",
                expected: self.granularity(),
                found: ranges.granularity(),
            }
            .into());
        }
        self.params_from_ranges(&ranges)
    }
}
