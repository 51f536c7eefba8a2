//! The range of a tensor, per block: minimum and maximum.

use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayRef, Dimension};

use crate::affine::check_range;
use crate::element::Float;
use crate::elementwise;
use crate::error::{Error, Result, ValueError};
use crate::granularity::{Blocks, Granularity, positions};

/// The range of each block of a tensor: its smallest and its greatest value.
///
/// [`Scheme::params_from_ranges`](crate::Scheme::params_from_ranges) chooses scales and zero points for them. The
/// bounds have one element per block, in the shapes of [`QParams::new`](crate::QParams::new).
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{Granularity, observer::Ranges};
/// let x = array![[1.0f32, -2.0], [0.5, 4.0]];
/// let ranges = Ranges::of(&x, Granularity::per_axis(Axis(0)))?;
/// assert_eq!(ranges.min(), array![-2.0, 0.5].into_dyn());
/// assert_eq!(ranges.max(), array![1.0, 4.0].into_dyn());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    granularity: Granularity,
    min: ArrayD<f32>,
    max: ArrayD<f32>,
}

impl Ranges {
    /// Creates ranges from known bounds, in the shapes of [`QParams::new`](crate::QParams::new).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shapes differ or do not belong to the
    /// granularity, [`Error::Params`](crate::Error::Params) if bounds are not finite or `min > max`.
    pub fn new<D: Dimension>(granularity: Granularity, min: Array<f32, D>, max: Array<f32, D>) -> Result<Self> {
        let (min, max) = (granularity.normalized(min.into_dyn()), granularity.normalized(max.into_dyn()));
        crate::error::check_shapes("upper bounds", min.shape(), max.shape())?;
        granularity.check_shape("bounds", min.shape())?;
        min.iter().zip(&max).try_for_each(|(&min, &max)| check_range(min, max))?;
        Ok(Self { granularity, min, max })
    }

    /// Computes the range of each block of `x`. A block without elements has the range `0..=0`.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) with the position of the first NaN or infinity (also of an `f64` beyond
    /// `f32`), [`Error::Shape`](crate::Error::Shape) if `x` does not have the axis of the granularity,
    /// [`Error::Params`](crate::Error::Params) for groups of 0 elements.
    pub fn of<F: Float, D: Dimension>(x: &ArrayRef<F, D>, granularity: Granularity) -> Result<Self> {
        let shape = granularity.params_shape(x.shape())?;
        let bounds = Bounds::of_blocks(x, granularity, &shape)?;
        let bound = |f: fn(Bounds) -> f32| {
            let values = bounds.iter().map(|b| f(b.or_zero())).collect();
            ArrayD::from_shape_vec(&shape[..], values).expect("one bound per block")
        };
        Ok(Self { granularity, min: bound(|b| b.min), max: bound(|b| b.max) })
    }

    /// Returns the granularity: the elements of a block share a range.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Returns the lower bounds.
    pub fn min(&self) -> &ArrayD<f32> {
        &self.min
    }

    /// Returns the upper bounds.
    pub fn max(&self) -> &ArrayD<f32> {
        &self.max
    }
}

/// A range of finite values, `min <= max`.
///
/// [`Statistic`](crate::observer::Statistic) and [`Clip`](crate::observer::Clip) receive the bounds of a block.
///
/// ```
/// use ndarray_quant::observer::Bounds;
/// let bounds = Bounds::new(-1.0, 2.0)?;
/// assert_eq!((bounds.min(), bounds.max()), (-1.0, 2.0));
/// assert!(Bounds::new(1.0, f32::NAN).is_err());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "(f32, f32)", try_from = "(f32, f32)"))]
pub struct Bounds {
    pub(crate) min: f32,
    pub(crate) max: f32,
}

impl From<Bounds> for (f32, f32) {
    fn from(b: Bounds) -> (f32, f32) {
        (b.min, b.max)
    }
}

impl TryFrom<(f32, f32)> for Bounds {
    type Error = Error;
    fn try_from((min, max): (f32, f32)) -> Result<Self> {
        Self::new(min, max)
    }
}

impl Bounds {
    /// Creates a range.
    ///
    /// # Errors
    /// [`Error::Params`] if a bound is not finite or `min > max`.
    pub fn new(min: f32, max: f32) -> Result<Self> {
        check_range(min, max)?;
        Ok(Self { min, max })
    }

    /// Returns the smallest value.
    pub fn min(&self) -> f32 {
        self.min
    }

    /// Returns the greatest value.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// Returns the greatest magnitude.
    pub(crate) fn magnitude(&self) -> f32 {
        self.max.abs().max(self.min.abs())
    }

    pub(crate) const EMPTY: Bounds = Bounds { min: f32::INFINITY, max: f32::NEG_INFINITY };

    pub(crate) fn is_empty(&self) -> bool {
        self.min > self.max
    }

    /// Returns the bounds, or `0..=0` if they are empty.
    pub(crate) fn or_zero(self) -> Self {
        if self.is_empty() { Bounds { min: 0.0, max: 0.0 } } else { self }
    }

    pub(crate) fn join(&mut self, other: Bounds) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Computes the bounds of each block, in row-major order. `shape` is [`Granularity::params_shape`] of `x`. Returns an
    /// error for the first value that is not finite.
    pub(crate) fn of_blocks<F: Float, D: Dimension>(
        x: &ArrayRef<F, D>,
        granularity: Granularity,
        shape: &[usize],
    ) -> Result<Vec<Bounds>> {
        let count = shape.iter().product();
        let blocks = Blocks::<D>::new(granularity, x.ndim())?;
        let (mut min, mut max) = (alloc::vec![Bounds::EMPTY.min; count], alloc::vec![Bounds::EMPTY.max; count]);
        let mut finite = true;
        blocks.for_each_segment_in_any_order(x, |segment, values| {
            let first = segment.first();
            finite &= elementwise::include_all(&mut min[first..], &mut max[first..], values, segment.block_size());
        });
        if !finite {
            check_finite("x", x)?;
        }
        Ok(min.into_iter().zip(max).map(|(min, max)| Bounds { min, max }).collect())
    }
}

/// Returns the mean of `abs(x)` in each block, over the elements of a magnitude above that of `above`, or 0 if there are none.
///
/// # Errors
/// [`Error::Value`] with the index of the first NaN or infinity.
pub(crate) fn mean_magnitudes<F: Float, D: Dimension>(
    x: &ArrayRef<F, D>,
    granularity: Granularity,
    above: impl Fn(usize) -> Option<f64>,
) -> Result<ArrayD<f64>> {
    let blocks = Blocks::new(granularity, x.ndim())?;
    let mut sums = ArrayD::from_elem(granularity.params_shape(x.shape())?, (0.0f64, 0.0f64));
    let flat = sums.as_slice_mut().expect("a new array is contiguous");
    blocks.for_each_run(x, |run, values| {
        for (i, x) in values.iter().enumerate() {
            let (block, magnitude) = (run.block(i), x.to_f64().abs());
            if above(block).is_none_or(|above| magnitude > above) {
                flat[block].0 += magnitude;
                flat[block].1 += 1.0;
            }
        }
    });
    if sums.iter().any(|sum| !sum.0.is_finite()) {
        check_finite("x", x)?;
    }
    Ok(sums.mapv(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 }))
}

/// Returns an error for the first value that is not finite as an `f32`.
pub(crate) fn check_finite<F: Float, D: Dimension>(what: &'static str, x: &ArrayRef<F, D>) -> Result<()> {
    let is_finite = |x: &F| x.to_f32().is_finite();
    if x.iter().all(is_finite) {
        return Ok(());
    }
    // Iterating with positions is slow, so it is left to the error.
    let found = positions(x.raw_dim()).zip(x).find(|(_, x)| !is_finite(x));
    found.map_or(Ok(()), |(index, found)| Err(ValueError::NonFinite { what, found: found.to_f64(), index }.into()))
}
