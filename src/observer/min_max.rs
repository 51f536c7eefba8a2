//! The minimum and the maximum of all batches.

use super::{BlockObserver, Statistic};
use crate::element::Element;
use crate::range::Bounds;
use crate::scheme::Scheme;

/// The range from the minimum to the maximum of all batches. (PyTorch: `MinMaxObserver`, `PerChannelMinMaxObserver`;
/// ONNX Runtime: `MinMaxCalibrater`; TensorRT: `IInt8MinMaxCalibrator`.)
///
/// `min = min(min, min(x))`, `max = max(max, max(x))`. It never clips, so a single outlier costs all other values
/// precision. Merging is exact.
///
/// ```
/// use ndarray::{array, Axis, Ix2};
/// use ndarray_quant::{QParams, Scheme, observer::MinMax};
/// let mut range = MinMax::per_axis(Axis(0));
/// range.observe(&array![[1.0f32, -2.0], [0.5, 4.0]])?;
/// range.observe(&array![[3.0f32], [0.0]])?; // only the number of blocks, here of rows, must stay the same
/// let params: QParams<u8> = Scheme::asymmetric().per_axis(Axis(0)).params(&range)?;
/// assert_eq!(params.scales(), [5.0 / 255.0, 4.0 / 255.0]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub type MinMax = BlockObserver<MinMaxStatistic>;

/// The [`Statistic`] of [`MinMax`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MinMaxStatistic;

impl Statistic for MinMaxStatistic {
    type State = Bounds;
    const NAME: &'static str = "MinMax";

    fn start(&self, batch: Bounds) -> Bounds {
        batch
    }

    fn update(&self, state: &mut Bounds, batch: Bounds) {
        state.join(batch);
    }

    fn merge(&self, state: &mut Bounds, other: &Bounds) {
        state.join(*other);
    }

    fn range<T: Element>(&self, state: &Bounds, _: &Scheme<T>) -> (f32, f32) {
        (state.min, state.max)
    }
}
