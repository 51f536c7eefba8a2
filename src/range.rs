//! The range of a tensor, per block: minimum and maximum.

use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayRef, ArrayView1, Axis, Dimension};

use crate::affine::check_range;
use crate::element::Float;
use crate::error::{Error, Result, ValueError};
use crate::granularity::{Blocks, Granularity, Segment, positions};
use crate::simd::{self, Task};

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
            let (blocks, size) = match segment {
                Segment::Within(block) => (block..block + 1, usize::MAX),
                Segment::Across { first, size } => (first..count, size),
            };
            finite &= include_all(&mut min[blocks.clone()], &mut max[blocks], values, size);
        });
        if !finite {
            check_finite("x", x)?;
        }
        Ok(min.into_iter().zip(max).map(|(min, max)| Bounds { min, max }).collect())
    }
}

/// Widens bounds `i` by the values `i * size..(i + 1) * size`. Returns whether all values are finite.
fn include_all<F: Float>(min: &mut [f32], max: &mut [f32], values: ArrayView1<'_, F>, size: usize) -> bool {
    match values.to_slice() {
        Some(values) => simd::run(Scan { min, max, values, size }),
        None => {
            let blocks = values.axis_chunks_iter(Axis(0), size.min(values.len().max(1)));
            min.iter_mut().zip(max).zip(blocks).fold(true, |finite, ((min, max), values)| {
                values.fold(finite, |finite, x| finite & include(min, max, x.to_f32()))
            })
        }
    }
}

/// Widens bounds by a value. Returns whether it is finite.
#[inline(always)]
fn include(min: &mut f32, max: &mut f32, x: f32) -> bool {
    *min = if x < *min { x } else { *min };
    *max = if x > *max { x } else { *max };
    x.is_finite()
}

/// [`include_all`] for contiguous values.
struct Scan<'a, F> {
    min: &'a mut [f32],
    max: &'a mut [f32],
    values: &'a [F],
    size: usize,
}

impl<F: Float> Task for Scan<'_, F> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Self { min, max, values, size } = self;
        let mut finite = true;
        if size == 1 {
            for ((min, max), x) in min.iter_mut().zip(max).zip(values) {
                finite &= include(min, max, x.to_f32());
            }
            return finite;
        }
        for ((min, max), values) in min.iter_mut().zip(max).zip(values.chunks(size)) {
            let mut both = |found: Bounds| finite &= include(min, max, found.min) & include(min, max, found.max);
            let Some(values) = F::as_f32(values) else {
                let mut wide = [Default::default(); CHUNK];
                for values in values.chunks(CHUNK) {
                    let wide = &mut wide[..values.len()];
                    F::widen_slice(values, wide);
                    both(bounds_of(wide));
                }
                continue;
            };
            both(bounds_of(values));
        }
        finite
    }
}

/// Values per chunk that is widened to `f32`.
const CHUNK: usize = 512;

/// Computes the bounds of a slice. If a value is not finite, at least one bound is not finite.
///
/// Compares bit patterns as integers: the bits of positive floats grow with the value, the bits of negative floats with
/// the magnitude, and NaN compares beyond the infinities. Integer minima and maxima may be reordered, so the compiler
/// vectorizes the loop.
#[inline(always)]
fn bounds_of<F: Float>(values: &[F]) -> Bounds {
    // The signed maximum is the greatest positive float, if there is one. The unsigned maximum is the least negative
    // float, if there is one. If all signs agree, the unsigned minimum is the float nearest to zero.
    let (mut greatest, mut farthest, mut nearest) = (i32::MIN, u32::MIN, u32::MAX);
    for x in values {
        let bits = x.to_f32().to_bits();
        greatest = greatest.max(bits as i32);
        farthest = farthest.max(bits);
        nearest = nearest.min(bits);
    }
    let max = if greatest >= 0 { greatest as u32 } else { nearest };
    let min = if (farthest as i32) < 0 { farthest } else { nearest };
    // Adding 0 turns -0 into +0.
    Bounds { min: f32::from_bits(min) + 0.0, max: f32::from_bits(max) + 0.0 }
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
