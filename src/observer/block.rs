//! The observer over blocks: validation, merging and serialization for every statistic.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::marker::PhantomData;

use ndarray::{ArrayD, ArrayRef, ArrayView1, Axis, Dimension};

use super::Observer;
use crate::element::{Element, Float};
use crate::error::{Error, ParamsError, Result, ValueError};
#[cfg(feature = "serde")]
use crate::error::{check_count, check_shapes, elements};
use crate::granularity::{Blocks, Granularity, Run};
use crate::range::{Bounds, Ranges};
use crate::scheme::Scheme;

/// Summarizes the values of one block and derives a range from the summary. The implementing type holds the settings.
///
/// [`BlockObserver`] makes an observer of it. Each batch is announced by its bounds, in [`start`](Self::start) or
/// [`update`](Self::update); its values follow in [`extend`](Self::extend) if [`NEEDS_VALUES`](Self::NEEDS_VALUES).
///
/// ```
/// use ndarray::{array, Ix2};
/// use ndarray_quant::observer::Bounds;
/// use ndarray_quant::{Element, QParams, Scheme, observer::{BlockObserver, Statistic}};
///
/// /// `-3σ..=3σ` of values whose mean is zero, with `σ` the root mean square.
/// #[derive(Debug, Clone, PartialEq)]
/// struct ThreeSigma;
///
/// impl Statistic for ThreeSigma {
///     type State = (f64, f64); // the sum of squares and the number of values
///     const NAME: &'static str = "ThreeSigma";
///     const NEEDS_VALUES: bool = true;
///     fn start(&self, _: Bounds) -> (f64, f64) { (0.0, 0.0) }
///     fn update(&self, _: &mut (f64, f64), _: Bounds) {}
///     fn extend(&self, (squares, n): &mut (f64, f64), values: &[f32]) {
///         *squares += values.iter().map(|&x| (x as f64).powi(2)).sum::<f64>();
///         *n += values.len() as f64;
///     }
///     fn merge(&self, (squares, n): &mut (f64, f64), other: &(f64, f64)) {
///         *squares += other.0;
///         *n += other.1;
///     }
///     fn range<T: Element>(&self, (squares, n): &(f64, f64), _: &Scheme<T>) -> (f32, f32) {
///         let max = 3.0 * (squares / n).sqrt() as f32;
///         (-max, max)
///     }
/// }
///
/// let mut range = BlockObserver::from_statistic(ThreeSigma);
/// range.observe(&array![[1.0f32, -1.0, 1.0, -1.0]])?;
/// let params: QParams<i8> = Scheme::symmetric().params(&range)?;
/// assert_eq!(params.scales(), [3.0 / 127.5]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Statistic: Clone + Debug + PartialEq {
    /// The summary of a block.
    type State: Clone + Debug + PartialEq;

    /// The observer's name in its serialized form. Reading an observer of another name is an error, so names must differ.
    const NAME: &'static str;

    /// Set to `true` to receive the values by [`extend`](Self::extend), at the cost of a second pass over each batch.
    const NEEDS_VALUES: bool = false;

    /// The state at the start of the first batch, whose values have the bounds `batch`.
    fn start(&self, batch: Bounds) -> Self::State;

    /// Starts a further batch, whose values have the bounds `batch`.
    fn update(&self, state: &mut Self::State, batch: Bounds);

    /// Adds values of the current batch. They are finite and within its bounds; a batch may come in several calls.
    fn extend(&self, _state: &mut Self::State, _values: &[f32]) {}

    /// Merges the state of an observer with the same settings, as if its batches had come later.
    fn merge(&self, state: &mut Self::State, other: &Self::State);

    /// The lower and the upper bound for a scheme.
    fn range<T: Element>(&self, state: &Self::State, scheme: &Scheme<T>) -> (f32, f32);
}

/// An observer with one [`Statistic`] per block of a tensor: per tensor, per axis or per group.
///
/// Batches may differ in the length of axes that a block spans entirely, such as the batch axis; the number of blocks
/// must stay the same.
///
/// With the feature `serde` an observer is serialized with its [kind](Statistic::NAME), and reading it as another kind is
/// an error.
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{Scheme, observer::MinMax};
/// // Two shards, observed independently.
/// let (mut a, mut b) = (MinMax::per_axis(Axis(1)), MinMax::per_axis(Axis(1)));
/// a.observe(&array![[1.0f32, -2.0], [0.5, 4.0]])?;
/// b.observe(&array![[3.0f32, 0.0]])?;
/// a.merge(&b)?;
/// assert_eq!(a.ranges(&Scheme::<u8>::asymmetric())?.max(), &array![3.0, 4.0].into_dyn());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        bound(
            serialize = "S: serde::Serialize, S::State: serde::Serialize",
            deserialize = "S: serde::Deserialize<'de>, S::State: serde::Deserialize<'de>"
        ),
        try_from = "Serialized<S>"
    )
)]
pub struct BlockObserver<S: Statistic> {
    /// The name of the statistic, first in the serialized form so that a reader checks it before anything else.
    kind: Kind<S>,
    granularity: Granularity,
    #[cfg_attr(feature = "serde", serde(rename = "settings"))]
    statistic: S,
    /// The number of blocks along each axis; rank 0 for a range per tensor, because batches may then have any rank.
    shape: Vec<usize>,
    /// The state of each block in row-major order; empty until values are observed.
    blocks: Vec<S::State>,
}

/// The name of a statistic, [`Statistic::NAME`], as part of the serialized observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind<S>(PhantomData<S>);

#[cfg(feature = "serde")]
impl<S: Statistic> serde::Serialize for Kind<S> {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.serialize_str(S::NAME)
    }
}

#[cfg(feature = "serde")]
impl<'de, S: Statistic> serde::Deserialize<'de> for Kind<S> {
    fn deserialize<Z: serde::Deserializer<'de>>(deserializer: Z) -> Result<Self, Z::Error> {
        let found = alloc::string::String::deserialize(deserializer)?;
        if found == S::NAME {
            return Ok(Kind(PhantomData));
        }
        Err(serde::de::Error::custom(Error::Argument {
            what: "kind of the serialized observer",
            expected: S::NAME,
            found,
        }))
    }
}

/// The serialized fields, before they are validated.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(bound = "S: serde::Deserialize<'de>, S::State: serde::Deserialize<'de>")]
struct Serialized<S: Statistic> {
    kind: Kind<S>,
    granularity: Granularity,
    settings: S,
    shape: Vec<usize>,
    blocks: Vec<S::State>,
}

#[cfg(feature = "serde")]
impl<S: Statistic> TryFrom<Serialized<S>> for BlockObserver<S> {
    type Error = Error;
    fn try_from(serialized: Serialized<S>) -> Result<Self> {
        let Serialized { kind, granularity, settings: statistic, shape, blocks } = serialized;
        if blocks.is_empty() {
            check_shapes("blocks of the observer", &[], &shape)?;
        } else {
            granularity.check_shape("blocks of the observer", &shape)?;
            check_count("number of blocks of the observer", elements("blocks of the observer", &shape)?, blocks.len())?;
        }
        Ok(Self { kind, granularity, statistic, shape, blocks })
    }
}

impl<S: Statistic> BlockObserver<S> {
    /// An observer per tensor with this statistic.
    pub fn from_statistic(statistic: S) -> Self {
        let granularity = Granularity::PerTensor;
        BlockObserver { kind: Kind(PhantomData), granularity, statistic, shape: Vec::new(), blocks: Vec::new() }
    }

    /// An observer with the same settings and this granularity. It starts without observations.
    pub fn with_granularity(self, granularity: Granularity) -> Self {
        BlockObserver { granularity, ..Self::from_statistic(self.statistic) }
    }

    /// The elements that share a range.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The statistic, which holds the settings.
    pub fn statistic(&self) -> &S {
        &self.statistic
    }

    /// The state of each block in row-major order; empty until values are observed.
    pub fn blocks(&self) -> &[S::State] {
        &self.blocks
    }

    /// Same as [`Observer::observe`], without importing the trait.
    pub fn observe<F: Float, D: Dimension>(&mut self, x: &ArrayRef<F, D>) -> Result<()> {
        let shape = self.granularity.params_shape(x.shape())?;
        if x.is_empty() {
            return Ok(());
        }
        self.check_shape(&shape)?;
        let blocks = Blocks::new(self.granularity, x.ndim())?;
        let bounds = Bounds::of_blocks(x, self.granularity, &shape)?;
        // Nothing fails from here on, so an error never leaves a partial update.
        if self.blocks.is_empty() {
            self.shape = shape;
            self.blocks = bounds.iter().map(|&b| self.statistic.start(b)).collect();
        } else {
            self.blocks.iter_mut().zip(bounds).for_each(|(state, b)| self.statistic.update(state, b));
        }
        if S::NEEDS_VALUES {
            blocks.for_each_run(x, |run, values| self.extend(run, values));
        }
        Ok(())
    }

    /// Same as [`Observer::merge`], without importing the trait.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.granularity != other.granularity {
            return Err(ParamsError::Granularity {
                what: "the merged observer",
                expected: self.granularity,
                found: other.granularity,
            }
            .into());
        }
        if self.statistic != other.statistic {
            let (expected, found) = ("the settings of this observer", "other settings".into());
            return Err(Error::Argument { what: "merged observer", expected, found });
        }
        if self.blocks.is_empty() || other.blocks.is_empty() {
            if self.blocks.is_empty() {
                self.clone_from(other);
            }
            return Ok(());
        }
        self.check_shape(&other.shape)?;
        self.blocks.iter_mut().zip(&other.blocks).for_each(|(state, o)| self.statistic.merge(state, o));
        Ok(())
    }

    /// Same as [`Observer::ranges`], without importing the trait.
    pub fn ranges<T: Element>(&self, scheme: &Scheme<T>) -> Result<Ranges> {
        if self.blocks.is_empty() {
            return Err(ValueError::EmptyCalibration.into());
        }
        let (min, max) = self.blocks.iter().map(|state| self.statistic.range(state, scheme)).unzip();
        let shaped = |bounds| ArrayD::from_shape_vec(&self.shape[..], bounds).expect("one range per block");
        Ranges::new(self.granularity, shaped(min), shaped(max))
    }

    /// The same observations with other settings.
    pub(super) fn replace_statistic(self, statistic: S) -> Self {
        Self { statistic, ..self }
    }

    fn check_shape(&self, shape: &[usize]) -> Result<()> {
        if self.blocks.is_empty() || self.shape == shape {
            Ok(())
        } else {
            Err(Error::shape("blocks of the observed tensor", &self.shape, shape))
        }
    }

    fn extend<F: Float>(&mut self, run: Run, values: ArrayView1<'_, F>) {
        const BUFFER: usize = 128;
        let mut buffer = [0.0f32; BUFFER];
        match run {
            Run::Constant(block) => {
                for chunk in values.axis_chunks_iter(Axis(0), BUFFER) {
                    buffer.iter_mut().zip(&chunk).for_each(|(b, x)| *b = x.to_f32());
                    self.statistic.extend(&mut self.blocks[block], &buffer[..chunk.len()]);
                }
            }
            Run::Consecutive(first) => {
                for (state, x) in self.blocks[first..].iter_mut().zip(values) {
                    self.statistic.extend(state, &[x.to_f32()]);
                }
            }
        }
    }
}

impl<S: Statistic + Default> BlockObserver<S> {
    /// One range for the whole tensor; batches may have any rank.
    pub fn per_tensor() -> Self {
        Self::from_statistic(S::default())
    }

    /// One range per index of `axis`: per channel.
    pub fn per_axis(axis: Axis) -> Self {
        Self::per_tensor().with_granularity(Granularity::per_axis(axis))
    }

    /// One range per group of `size` consecutive elements along `axis`.
    pub fn per_group(axis: Axis, size: usize) -> Self {
        Self::per_tensor().with_granularity(Granularity::per_group(axis, size))
    }
}

impl<S: Statistic> Observer for BlockObserver<S> {
    fn observe<F: Float, D: Dimension>(&mut self, x: &ArrayRef<F, D>) -> Result<()> {
        Self::observe(self, x)
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        Self::merge(self, other)
    }

    fn ranges<T: Element>(&self, scheme: &Scheme<T>) -> Result<Ranges> {
        Self::ranges(self, scheme)
    }
}
