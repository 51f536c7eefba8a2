//! Granularity: per tensor, per axis or per group, and iteration over the blocks of a tensor.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayD, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, IxDyn, s};

use crate::error::{Error, ParamsError, Result, check_count, check_shapes};

/// The granularity of quantization: elements of one block share a scale and a zero point.
///
/// A weight of shape `[out, in]` has one scale per tensor, `[out]` scales per axis 0, and `[out, ceil(in / size)]`
/// scales in groups of `size` along axis 1. The last group of an axis may be shorter. The shapes are ONNX's, see
/// [`QParams::new`](crate::QParams::new).
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{Granularity, Scheme};
/// let scheme = Scheme::<i8>::symmetric().with_granularity(Granularity::per_group(Axis(1), 32));
/// let q = scheme.quantize(&Array2::<f32>::ones((10, 100)))?;
/// assert_eq!(q.params().scale().shape(), [10, 4]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Granularity {
    /// One block: all elements.
    #[default]
    PerTensor,
    /// One block per index of `axis`, such as one per channel.
    PerAxis {
        /// The axis.
        axis: usize,
    },
    /// One block per `size` neighbours along `axis`, with equal indices along all other axes.
    PerGroup {
        /// The axis that is divided into groups.
        axis: usize,
        /// The size of a group. The last group of the axis may be shorter.
        size: usize,
    },
}

impl Granularity {
    /// Creates [`Granularity::PerAxis`]: one scale per index of `axis`.
    pub fn per_axis(axis: Axis) -> Self {
        Granularity::PerAxis { axis: axis.index() }
    }

    /// Creates [`Granularity::PerGroup`]: one scale per group of `size` elements along `axis`.
    pub fn per_group(axis: Axis, size: usize) -> Self {
        Granularity::PerGroup { axis: axis.index(), size }
    }

    /// Returns the shape of the parameters of a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::Params`] if the group size is 0. [`Error::Shape`] if the tensor does not have the axis, or there are too
    /// many blocks: a tensor without elements may have axes of any length.
    pub(crate) fn params_shape(self, shape: &[usize]) -> Result<Vec<usize>> {
        let params = match self {
            Granularity::PerTensor => Vec::new(),
            Granularity::PerAxis { axis } => match shape.get(axis) {
                Some(&len) => alloc::vec![len],
                None => return Err(Error::axis(shape.len(), axis)),
            },
            Granularity::PerGroup { axis, size } => {
                self.check_group(axis, size, shape.len())?;
                let mut params = shape.to_vec();
                params[axis] = params[axis].div_ceil(size);
                params
            }
        };
        const LIMIT: u64 = 1 << 40;
        let count = params.iter().try_fold(1, |count: u64, &len| count.checked_mul(len as u64));
        match count.filter(|&count| count <= LIMIT) {
            Some(_) => Ok(params),
            None => Err(Error::too_large("scales", "at most 2^40", &params)),
        }
    }

    /// Checks that some tensor can have parameters of this shape.
    pub(crate) fn check_shape(self, what: &'static str, params: &[usize]) -> Result<()> {
        match self {
            Granularity::PerTensor if params.is_empty() => Ok(()),
            Granularity::PerTensor => Err(Error::shape(what, &[], params)),
            Granularity::PerAxis { .. } if params.len() == 1 => Ok(()),
            Granularity::PerAxis { .. } => Err(Error::shape(what, &[params.iter().product()], params)),
            Granularity::PerGroup { axis, size } => self.check_group(axis, size, params.len()),
        }
    }

    /// Checks that parameters of this shape fit tensors of shape `tensor`.
    pub(crate) fn check_fit(self, params: &[usize], tensor: &[usize]) -> Result<()> {
        if let (Granularity::PerGroup { .. }, true) = (self, params.len() != tensor.len()) {
            return check_count("rank of the parameters", tensor.len(), params.len());
        }
        check_shapes("parameters", &self.params_shape(tensor)?, params)
    }

    /// Returns parameters in row-major order, and in rank 0 if the granularity is per tensor.
    pub(crate) fn normalized<A: Clone>(self, params: ArrayD<A>) -> ArrayD<A> {
        let params = if params.is_standard_layout() { params } else { params.as_standard_layout().into_owned() };
        match self {
            Granularity::PerTensor if params.len() == 1 && params.ndim() > 0 => {
                params.into_shape_with_order(IxDyn(&[])).expect("one value")
            }
            _ => params,
        }
    }

    fn check_group(self, axis: usize, size: usize, ndim: usize) -> Result<()> {
        if size == 0 {
            return Err(ParamsError::GroupSize { found: size }.into());
        }
        if axis < ndim { Ok(()) } else { Err(Error::axis(ndim, axis)) }
    }
}

impl core::fmt::Display for Granularity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Granularity::PerTensor => f.write_str("per tensor"),
            Granularity::PerAxis { axis } => write!(f, "per axis {axis}"),
            Granularity::PerGroup { axis, size } => write!(f, "per group of {size} along axis {axis}"),
        }
    }
}

/// Blocks of at least this length get a segment each. Shorter blocks are joined to one segment.
const LONG: usize = 512;

/// The extent of a block that spans its axis.
const WHOLE: usize = usize::MAX;

/// The extent of a block along each axis: the normal form of a granularity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks<D> {
    extent: D,
}

/// The blocks of a segment. A segment is a range of elements that one call handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// All elements are in this block.
    Within(usize),
    /// Consecutive blocks have `size` elements each. The last one may have fewer.
    Across {
        /// Index of the first block.
        first: usize,
        /// Number of elements of a block.
        size: usize,
    },
}

/// The blocks of a run. The elements of a run are all in one block, or all in different blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// All elements are in this block.
    Constant(usize),
    /// Element `i` is in block `first + i`, with this `first`.
    Consecutive(usize),
}

impl Run {
    /// Returns the block of element `i` of the run.
    #[inline(always)]
    pub(crate) fn block(self, i: usize) -> usize {
        match self {
            Run::Constant(block) => block,
            Run::Consecutive(first) => first + i,
        }
    }
}

impl<D: Dimension> Blocks<D> {
    /// Returns the blocks of tensors with `ndim` axes.
    pub(crate) fn new(granularity: Granularity, ndim: usize) -> Result<Self> {
        let mut extent = D::zeros(ndim);
        let checked = |axis: usize| {
            if axis < ndim { Ok(axis) } else { Err(Error::axis(ndim, axis)) }
        };
        match granularity {
            Granularity::PerTensor => extent.slice_mut().fill(WHOLE),
            Granularity::PerAxis { axis } => {
                extent.slice_mut().fill(WHOLE);
                extent[checked(axis)?] = 1;
            }
            Granularity::PerGroup { axis, size } => {
                if size == 0 {
                    return Err(ParamsError::GroupSize { found: size }.into());
                }
                extent.slice_mut().fill(1);
                extent[checked(axis)?] = size;
            }
        }
        Ok(Self { extent })
    }

    /// Returns whether the whole tensor is one block.
    pub(crate) fn is_per_tensor(&self) -> bool {
        self.extent.slice().iter().all(|&e| e == WHOLE)
    }

    /// Returns the number of blocks along each axis of a tensor of this shape.
    pub(crate) fn counts(&self, shape: &D) -> D {
        let mut counts = shape.clone();
        for (count, &e) in counts.slice_mut().iter_mut().zip(self.extent.slice()) {
            *count = if e == WHOLE { 1 } else { count.div_ceil(e) };
        }
        counts
    }

    /// Calls `f` with each run of `x` in row-major order. Runs are as long as possible.
    pub(crate) fn for_each_run<A>(&self, x: &ArrayRef<A, D>, mut f: impl FnMut(Run, ArrayView1<'_, A>)) {
        self.for_each_segment(x, |segment, x| match x.to_slice() {
            // Slicing a slice is much faster than slicing a view.
            Some(x) => segment.for_each_run(x.len(), |run, range| f(run, ArrayView1::from(&x[range]))),
            None => segment.for_each_run(x.len(), |run, range| f(run, x.slice(s![range]))),
        });
    }

    /// Calls `f` with each segment of `x` in row-major order.
    fn for_each_segment<A>(&self, x: &ArrayRef<A, D>, mut f: impl FnMut(Segment, ArrayView1<'_, A>)) {
        if let Some(flat) = x.as_slice() {
            let mut walk = Walk::new(self, x.raw_dim(), true);
            flat.chunks(walk.segment_len()).for_each(|x| f(walk.next_segment(), ArrayView1::from(x)));
        } else {
            let mut walk = Walk::new(self, x.raw_dim(), false);
            x.rows().into_iter().for_each(|x| f(walk.next_segment(), x));
        }
    }

    /// Returns the segments of a contiguous tensor of this shape and their ranges, in row-major order.
    pub(crate) fn segments(&self, shape: &D) -> impl Iterator<Item = (Segment, Range<usize>)> {
        let (mut walk, len) = (Walk::new(self, shape.clone(), true), shape.size());
        let segment_len = walk.segment_len();
        let starts = (0..len).step_by(segment_len);
        starts.map(move |start| (walk.next_segment(), start..len.min(start + segment_len)))
    }

    /// Calls `f` with each segment of `x`, in memory order if block indices do not depend on the order of axes.
    pub(crate) fn for_each_segment_in_any_order<A>(
        &self,
        x: &ArrayRef<A, D>,
        f: impl FnMut(Segment, ArrayView1<'_, A>),
    ) {
        match self.in_memory_order(x) {
            Some((blocks, order)) => blocks.for_each_segment(&x.view().permuted_axes(order), f),
            None => self.for_each_segment(x, f),
        }
    }

    /// [`Self::for_each_segment_in_any_order`] over two tensors of one shape.
    pub(crate) fn for_each_segment_pair_in_any_order<A, B>(
        &self,
        x: &ArrayRef<A, D>,
        y: &mut ArrayRef<B, D>,
        f: impl FnMut(Segment, ArrayView1<'_, A>, ArrayViewMut1<'_, B>),
    ) {
        match self.in_memory_order(x) {
            Some((blocks, order)) => {
                let (x, mut y) = (x.view().permuted_axes(order.clone()), y.view_mut().permuted_axes(order));
                blocks.for_each_segment_pair(&x, &mut y, f);
            }
            None => self.for_each_segment_pair(x, y, f),
        }
    }

    /// Returns the order of axes by descending stride, and the blocks with their axes in this order. Returns `None` if
    /// `x` is in that order already, or if more than one axis has several blocks: their indices would change.
    fn in_memory_order<A>(&self, x: &ArrayRef<A, D>) -> Option<(Self, D)> {
        let several = |&axis: &usize| self.extent[axis] < x.shape()[axis];
        if x.is_standard_layout() || !self.is_per_tensor() && (0..x.ndim()).filter(several).count() > 1 {
            return None;
        }
        let mut order = x.raw_dim();
        sort_by_stride(x.strides(), order.slice_mut());
        let mut blocks = self.clone();
        if !self.is_per_tensor() {
            (0..x.ndim()).for_each(|place| blocks.extent[place] = self.extent[order[place]]);
        }
        Some((blocks, order))
    }

    /// [`Self::for_each_segment`] over two tensors of one shape.
    pub(crate) fn for_each_segment_pair<A, B>(
        &self,
        x: &ArrayRef<A, D>,
        y: &mut ArrayRef<B, D>,
        mut f: impl FnMut(Segment, ArrayView1<'_, A>, ArrayViewMut1<'_, B>),
    ) {
        debug_assert_eq!(x.shape(), y.shape());
        let shape = x.raw_dim();
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            let mut walk = Walk::new(self, shape, true);
            for (x, y) in x.chunks(walk.segment_len()).zip(y.chunks_mut(walk.segment_len())) {
                f(walk.next_segment(), ArrayView1::from(x), ArrayViewMut1::from(y));
            }
        } else {
            let mut walk = Walk::new(self, shape, false);
            for (x, y) in x.rows().into_iter().zip(y.rows_mut()) {
                f(walk.next_segment(), x, y);
            }
        }
    }
}

/// Writes the order of axes by descending stride. An insertion sort, because there are few axes.
pub(crate) fn sort_by_stride(strides: &[isize], order: &mut [usize]) {
    for axis in 0..strides.len() {
        let stride = |axis: usize| strides[axis].unsigned_abs();
        let place = order[..axis].iter().position(|&other| stride(other) < stride(axis)).unwrap_or(axis);
        order.copy_within(place..axis, place + 1);
        order[place] = axis;
    }
}

impl Segment {
    /// Returns the index of the first block.
    pub(crate) fn first(self) -> usize {
        match self {
            Segment::Within(first) | Segment::Across { first, .. } => first,
        }
    }

    /// Returns the number of elements of a block, or more if there is one block.
    pub(crate) fn block_size(self) -> usize {
        match self {
            Segment::Within(_) => usize::MAX,
            Segment::Across { size, .. } => size,
        }
    }

    /// Calls `f` with each run of a segment of this length and its range in the segment.
    fn for_each_run(self, len: usize, mut f: impl FnMut(Run, Range<usize>)) {
        match self {
            Segment::Within(block) => f(Run::Constant(block), 0..len),
            Segment::Across { first, size: 1 } => f(Run::Consecutive(first), 0..len),
            Segment::Across { first, size } => {
                for (block, start) in (0..len).step_by(size).enumerate() {
                    f(Run::Constant(first + block), start..len.min(start + size));
                }
            }
        }
    }
}

/// Iterates over the segments of a tensor in row-major order.
///
/// A segment is the last axis. In contiguous memory it is all trailing axes within one block, and also the axes before
/// them if their blocks are short and consecutive.
struct Walk<'b, D> {
    extent: &'b [usize],
    shape: D,
    /// Distance in row-major order between neighbouring blocks along each axis.
    block_stride: D,
    /// Axes from this one on make up a segment. The iteration is over the axes before it.
    outer: usize,
    segment_len: usize,
    /// The extent of a block along the segment, if the segment has several blocks.
    cut: Option<usize>,
    index: D,
}

impl<'b, D: Dimension> Walk<'b, D> {
    fn new(blocks: &'b Blocks<D>, shape: D, contiguous: bool) -> Self {
        let ndim = shape.ndim();
        let per_tensor = blocks.is_per_tensor();
        let extent = blocks.extent.slice();
        let covered = |axis: usize| per_tensor || extent[axis] >= shape[axis];
        let inside = ndim - (0..ndim).rev().take_while(|&axis| covered(axis)).count();
        let (outer, cut) = if contiguous {
            // Starts with the axes within one block, or with the last axis. Then adds axes before them whose blocks are
            // short and consecutive.
            let (start, size, whole) = match inside.checked_sub(1) {
                Some(last) if inside == ndim => (last, extent[last], shape[last].is_multiple_of(extent[last])),
                _ => (inside, shape.slice()[inside..].iter().product(), true),
            };
            let follow = |&axis: &usize| whole && size < LONG && (extent[axis] == 1 || shape[axis] == 1);
            let outer = start - (0..start).rev().take_while(follow).count();
            (outer, (outer < inside).then_some(size))
        } else {
            let last = ndim.saturating_sub(1);
            (last, (inside == ndim && ndim > 0).then(|| extent[last]))
        };
        let segment_len = shape.slice()[outer..].iter().product();
        let mut block_stride = D::zeros(ndim);
        if !per_tensor {
            let counts = blocks.counts(&shape);
            let mut stride = 1;
            for axis in (0..ndim).rev() {
                block_stride[axis] = stride;
                stride *= counts[axis];
            }
        }
        Self { extent, block_stride, outer, segment_len, cut, index: D::zeros(ndim), shape }
    }

    /// Returns the length of a segment, at least 1, so that it can be a chunk size.
    fn segment_len(&self) -> usize {
        self.segment_len.max(1)
    }

    fn next_segment(&mut self) -> Segment {
        let blocks = self.index.slice()[..self.outer].iter().zip(self.extent).zip(self.block_stride.slice());
        let first: usize = blocks.map(|((&i, &extent), &stride)| i / extent * stride).sum();
        for axis in (0..self.outer).rev() {
            self.index[axis] += 1;
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.index[axis] = 0;
        }
        self.cut.map_or(Segment::Within(first), |size| Segment::Across { first, size })
    }
}

/// Iterates over the indices of a tensor of this shape, in row-major order.
pub(crate) fn positions<D: Dimension>(shape: D) -> impl Iterator<Item = Vec<usize>> {
    (0..shape.size()).map(move |flat| position(&shape, flat))
}

/// Returns the index of an element by its place in row-major order.
pub(crate) fn position<D: Dimension>(shape: &D, mut flat: usize) -> Vec<usize> {
    let mut index = alloc::vec![0; shape.ndim()];
    for (i, &len) in index.iter_mut().zip(shape.slice()).rev() {
        *i = flat % len;
        flat /= len;
    }
    index
}
