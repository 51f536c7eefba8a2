//! One statistic per block of a tensor.

use alloc::{format, vec::Vec};
use core::fmt::Debug;
use core::marker::PhantomData;

use ndarray::{ArrayD, ArrayRef, ArrayView1, Axis, Dimension, IxDyn};

use super::Observer;
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::granularity::{Blocks, Granularity, Run};
use crate::range::{Bounds, Ranges};
use crate::scheme::Scheme;

/// How an observer sums up the values of one block; the value itself holds the settings.
///
/// [`BlockObserver`] makes an observer of it. A batch is announced by its bounds; its values follow if they are needed.
///
/// ```
/// use ndarray::{array, Ix2};
/// use ndarray_quant::observer::Bounds;
/// use ndarray_quant::{Element, QParams, Scheme, observer::{BlockObserver, Observer, Statistic}};
///
/// /// Three times the root mean square, for whatever is centred on zero.
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
///         let reach = 3.0 * (squares / n).sqrt() as f32;
///         (-reach, reach)
///     }
/// }
///
/// let mut range = BlockObserver::of(ThreeSigma);
/// range.observe(&array![[1.0f32, -1.0, 1.0, -1.0]])?;
/// let params: QParams<i8, Ix2> = Scheme::symmetric().params(&range)?;
/// assert_eq!(params.scale(), array![[3.0 / 127.5]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub trait Statistic: Clone + Debug + PartialEq {
    /// What is kept of a block.
    type State: Clone + Debug + PartialEq;

    /// The observer's name in its serialized form. Reading an observer of another name is an error, so names must differ.
    const NAME: &'static str;

    /// Whether [`extend`](Self::extend) is to be called: it costs a second pass over each batch.
    const NEEDS_VALUES: bool = false;

    /// The state at the start of the first batch, whose values have these bounds.
    fn start(&self, batch: Bounds) -> Self::State;

    /// Starts a further batch, whose values have these bounds.
    fn update(&self, state: &mut Self::State, batch: Bounds);

    /// Takes some values of the batch that was started last; they are finite and within its bounds.
    fn extend(&self, _state: &mut Self::State, _values: &[f32]) {}

    /// Takes in the state of an observer with the same settings, as if its batches had come later.
    fn merge(&self, state: &mut Self::State, other: &Self::State);

    /// The lower and the upper bound that suit this scheme.
    fn range<T: Element>(&self, state: &Self::State, scheme: &Scheme<T>) -> (f32, f32);
}

/// The observer that keeps a [`Statistic`] for each block of a tensor.
///
/// Batches may differ in the length of axes that blocks span whole; their blocks must be the same.
///
/// ```
/// use ndarray::{array, Axis};
/// use ndarray_quant::{Scheme, observer::{MinMax, Observer}};
/// // Two shards, observed apart.
/// let (mut a, mut b) = (MinMax::per_axis(Axis(1)), MinMax::per_axis(Axis(1)));
/// a.observe(&array![[1.0f32, -2.0], [0.5, 4.0]])?;
/// b.observe(&array![[3.0f32, 0.0]])?;
/// a.merge(&b)?;
/// assert_eq!(a.ranges(&Scheme::<u8>::asymmetric())?.max(), &array![[3.0, 4.0]].into_dyn());
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
        let expected = if blocks.is_empty() || granularity == Granularity::PerTensor {
            IxDyn(&[])
        } else {
            Blocks::<IxDyn>::new(granularity, shape.len())?.check_grid(&IxDyn(&shape))?;
            IxDyn(&shape)
        };
        let filled = blocks.is_empty() || expected.size_checked() == Some(blocks.len());
        if !filled || expected.slice() != shape {
            return Err(Error::shape("blocks of the observer", expected.slice(), &shape));
        }
        Ok(Self { kind, granularity, statistic, shape, blocks })
    }
}

impl<S: Statistic> BlockObserver<S> {
    /// An observer per tensor that keeps this statistic.
    pub fn of(statistic: S) -> Self {
        let granularity = Granularity::PerTensor;
        BlockObserver { kind: Kind(PhantomData), granularity, statistic, shape: Vec::new(), blocks: Vec::new() }
    }

    /// An observer of the same settings and this granularity that saw nothing yet.
    pub fn with_granularity(self, granularity: Granularity) -> Self {
        BlockObserver { granularity, ..Self::of(self.statistic) }
    }

    /// Which elements share a range.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The settings.
    pub fn statistic(&self) -> &S {
        &self.statistic
    }

    /// What is known of each block, in row-major order; empty until values came.
    pub fn blocks(&self) -> &[S::State] {
        &self.blocks
    }

    fn check_grid(&self, grid: &[usize]) -> Result<()> {
        if self.blocks.is_empty() || self.shape == grid {
            Ok(())
        } else {
            Err(Error::shape("blocks of the observed tensor", &self.shape, grid))
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
    /// One range for all elements, of tensors of any rank.
    pub fn per_tensor() -> Self {
        Self::of(S::default())
    }

    /// One range per index of `axis`.
    pub fn per_axis(axis: Axis) -> Self {
        Self::per_tensor().with_granularity(Granularity::per_axis(axis))
    }

    /// One range per run of `size` elements along `axis`.
    pub fn per_group(axis: Axis, size: usize) -> Self {
        Self::per_tensor().with_granularity(Granularity::per_group(axis, size))
    }
}

impl<S: Statistic> Observer for BlockObserver<S> {
    fn observe<F: Float, D: Dimension>(&mut self, x: &ArrayRef<F, D>) -> Result<()> {
        let blocks = Blocks::new(self.granularity, x.ndim())?;
        if x.is_empty() {
            return Ok(());
        }
        let grid = blocks.grid(&x.raw_dim());
        let grid = if self.granularity == Granularity::PerTensor { &[] } else { grid.slice() };
        self.check_grid(grid)?;
        let bounds = Bounds::of_blocks(x, &blocks)?;
        // Nothing fails from here on, so nothing is half-written.
        if self.blocks.is_empty() {
            self.shape = grid.to_vec();
            self.blocks = bounds.iter().map(|&b| self.statistic.start(b)).collect();
        } else {
            self.blocks.iter_mut().zip(bounds).for_each(|(state, b)| self.statistic.update(state, b));
        }
        if S::NEEDS_VALUES {
            blocks.for_each_run(x, |run, values| self.extend(run, values));
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        if self.granularity != other.granularity {
            return Err(Error::Granularity { expected: self.granularity, found: other.granularity });
        }
        if self.statistic != other.statistic {
            let found = format!("{:?}", other.statistic);
            return Err(Error::Argument { what: "settings of the merged observer", expected: "the same", found });
        }
        if self.blocks.is_empty() || other.blocks.is_empty() {
            if self.blocks.is_empty() {
                self.clone_from(other);
            }
            return Ok(());
        }
        self.check_grid(&other.shape)?;
        self.blocks.iter_mut().zip(&other.blocks).for_each(|(state, o)| self.statistic.merge(state, o));
        Ok(())
    }

    fn ranges<T: Element>(&self, scheme: &Scheme<T>) -> Result<Ranges<IxDyn>> {
        if self.blocks.is_empty() {
            return Err(Error::EmptyCalibration);
        }
        let (min, max) = self.blocks.iter().map(|state| self.statistic.range(state, scheme)).unzip();
        let on_grid = |bounds| ArrayD::from_shape_vec(&self.shape[..], bounds).expect("one range per block");
        Ranges::new(self.granularity, on_grid(min), on_grid(max))
    }
}
