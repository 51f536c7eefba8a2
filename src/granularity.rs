//! Which elements of a tensor share their parameters.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayD, ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, IxDyn, s};

use crate::error::{Error, Result};

/// The elements that share one scale and zero point.
///
/// A weight of shape `[out, in]` has one scale per tensor, `[out]` scales per axis 0, and `[out, ceil(in / size)]`
/// scales in groups of `size` along axis 1. The last group of an axis may be short. The shapes are ONNX's, see
/// [`QParams::new`](crate::QParams::new).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Granularity {
    /// All elements.
    #[default]
    PerTensor,
    /// The elements of equal index along `axis`: one scale per channel.
    PerAxis {
        /// The axis whose every index has parameters of its own.
        axis: usize,
    },
    /// The elements of a run of `size` along `axis` that agree in all other indices.
    PerGroup {
        /// The axis that is cut into runs.
        axis: usize,
        /// The length of a run; the last one of the axis may be shorter.
        size: usize,
    },
}

impl Granularity {
    /// One scale per index of `axis`.
    pub fn per_axis(axis: Axis) -> Self {
        Granularity::PerAxis { axis: axis.index() }
    }

    /// One scale per run of `size` elements along `axis`.
    pub fn per_group(axis: Axis, size: usize) -> Self {
        Granularity::PerGroup { axis: axis.index(), size }
    }

    /// Returns the shape of the parameters of a tensor of this shape.
    ///
    /// # Errors
    /// An axis that the tensor does not have, a group of no elements, or more blocks than fit in memory: a tensor
    /// without elements can have any length on its other axes.
    pub(crate) fn params_shape(self, shape: &[usize]) -> Result<Vec<usize>> {
        let params = match self {
            Granularity::PerTensor => Vec::new(),
            Granularity::PerAxis { axis } => match shape.get(axis) {
                Some(&len) => alloc::vec![len],
                None => return Err(Error::Axis { ndim: shape.len(), found: axis }),
            },
            Granularity::PerGroup { axis, size } => {
                self.check_group(axis, size, shape.len())?;
                let mut params = shape.to_vec();
                params[axis] = params[axis].div_ceil(size);
                params
            }
        };
        const MOST: usize = 1 << 40;
        let count = params.iter().try_fold(1usize, |count, &len| count.checked_mul(len));
        match count.filter(|&count| count <= MOST) {
            Some(_) => Ok(params),
            None => Err(Error::Argument {
                what: "number of scales",
                expected: "at most 2^40",
                found: alloc::format!("those of shape {params:?}"),
            }),
        }
    }

    /// Checks the shape of parameters without knowing the tensor.
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
            return Err(Error::shape("rank of the parameters", &[tensor.len()], &[params.len()]));
        }
        crate::error::check_shapes("parameters", &self.params_shape(tensor)?, params)
    }

    /// Brings one value of any rank to rank 0 if the granularity is per tensor; puts elements in row-major order.
    pub(crate) fn normalized<A: Clone>(self, params: ArrayD<A>) -> ArrayD<A> {
        let params = if params.is_standard_layout() { params } else { params.as_standard_layout().into_owned() };
        match self {
            Granularity::PerTensor if params.len() == 1 => params.into_shape_with_order(IxDyn(&[])).expect("one value"),
            _ => params,
        }
    }

    fn check_group(self, axis: usize, size: usize, ndim: usize) -> Result<()> {
        if size == 0 {
            return Err(Error::GroupSize { found: size });
        }
        if axis < ndim { Ok(()) } else { Err(Error::Axis { ndim, found: axis }) }
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

/// Blocks of this length are lanes of their own, whatever follows them: they repay a call.
const LONG: usize = 512;

/// A block that reaches over its whole axis, however long that is.
const WHOLE: usize = usize::MAX;

/// The normal form of a granularity: the extent of a block along each axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks<D> {
    extent: D,
}

/// Which blocks the elements of one lane belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// All to this one.
    Within(usize),
    /// The first `size` elements to block `first`, as many to each one after it; fewer may be left for the last.
    Across {
        /// The first block.
        first: usize,
        /// The elements of each.
        size: usize,
    },
}

/// Which blocks the elements of one run belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// All to this one.
    Constant(usize),
    /// Each to the one after its predecessor's, starting here.
    Consecutive(usize),
}

impl<D: Dimension> Blocks<D> {
    /// The blocks of tensors with `ndim` axes.
    pub(crate) fn new(granularity: Granularity, ndim: usize) -> Result<Self> {
        let mut extent = D::zeros(ndim);
        let checked = |axis: usize| {
            if axis < ndim { Ok(axis) } else { Err(Error::Axis { ndim, found: axis }) }
        };
        match granularity {
            Granularity::PerTensor => extent.slice_mut().fill(WHOLE),
            Granularity::PerAxis { axis } => {
                extent.slice_mut().fill(WHOLE);
                extent[checked(axis)?] = 1;
            }
            Granularity::PerGroup { axis, size } => {
                if size == 0 {
                    return Err(Error::GroupSize { found: size });
                }
                extent.slice_mut().fill(1);
                extent[checked(axis)?] = size;
            }
        }
        Ok(Self { extent })
    }

    /// Whether one block holds a tensor of any shape, and so of any rank.
    pub(crate) fn is_per_tensor(&self) -> bool {
        self.extent.slice().iter().all(|&e| e == WHOLE)
    }

    /// How many blocks a tensor of this shape has along each axis.
    pub(crate) fn grid(&self, shape: &D) -> D {
        let mut grid = shape.clone();
        for (g, &e) in grid.slice_mut().iter_mut().zip(self.extent.slice()) {
            *g = if e == WHOLE { 1 } else { g.div_ceil(e) };
        }
        grid
    }

    /// Calls `f` with every run of `x` in row-major order: the longest stretches over which parameters are constant
    /// or change with every element.
    pub(crate) fn for_each_run<A>(&self, x: &ArrayRef<A, D>, mut f: impl FnMut(Run, ArrayView1<'_, A>)) {
        self.for_each_segment(x, |lane, x| match x.to_slice() {
            // Slicing slices is many times faster than slicing views.
            Some(x) => lane.for_each_run(x.len(), |run, range| f(run, ArrayView1::from(&x[range]))),
            None => lane.for_each_run(x.len(), |run, range| f(run, x.slice(s![range]))),
        });
    }

    /// Calls `f` with every lane of `x` in row-major order: runs, and stretches of blocks that follow one another.
    fn for_each_segment<A>(&self, x: &ArrayRef<A, D>, mut f: impl FnMut(Segment, ArrayView1<'_, A>)) {
        if let Some(flat) = x.as_slice() {
            let mut walk = Walk::new(self, x.raw_dim(), true);
            flat.chunks(walk.segment_len()).for_each(|x| f(walk.next_segment(), ArrayView1::from(x)));
        } else {
            let mut walk = Walk::new(self, x.raw_dim(), false);
            x.rows().into_iter().for_each(|x| f(walk.next_segment(), x));
        }
    }

    /// Calls `f` with every run of a tensor of this shape, and where it lies in row-major order.
    pub(crate) fn for_each_range(&self, shape: &D, mut f: impl FnMut(Run, Range<usize>)) {
        let mut walk = Walk::new(self, shape.clone(), true);
        let len = walk.segment_len();
        for start in (0..shape.size()).step_by(len) {
            walk.next_segment().for_each_run(len, |run, range| f(run, start + range.start..start + range.end));
        }
    }

    /// As [`Self::for_each_run`], over two tensors of one shape.
    pub(crate) fn for_each_run_pair<A, B>(
        &self,
        x: &ArrayRef<A, D>,
        y: &mut ArrayRef<B, D>,
        mut f: impl FnMut(Run, ArrayView1<'_, A>, ArrayViewMut1<'_, B>),
    ) {
        self.for_each_segment_pair(x, y, |lane, x, mut y| match (x.to_slice(), y.as_slice_mut()) {
            (Some(x), Some(y)) => lane.for_each_run(x.len(), |run, range| {
                f(run, ArrayView1::from(&x[range.clone()]), ArrayViewMut1::from(&mut y[range]));
            }),
            _ => lane.for_each_run(x.len(), |run, range| f(run, x.slice(s![range.clone()]), y.slice_mut(s![range]))),
        });
    }

    /// Calls `f` with every lane of `x`, in the order that memory has them in, where blocks keep their numbers in it.
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

    /// As [`Self::for_each_segment_in_any_order`], over two tensors of one shape.
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

    /// The order of axes in which neighbours of `x` are neighbours in memory, and the blocks of a tensor whose axes are in this
    /// order, if it is not that of `x`, and blocks keep their numbers: there is one axis at most that has several.
    fn in_memory_order<A>(&self, x: &ArrayRef<A, D>) -> Option<(Self, D)> {
        let several = |&axis: &usize| self.extent[axis] < x.shape()[axis];
        if x.is_standard_layout() || !self.is_per_tensor() && (0..x.ndim()).filter(several).count() > 1 {
            return None;
        }
        let mut order = x.raw_dim();
        order.slice_mut().iter_mut().enumerate().for_each(|(axis, place)| *place = axis);
        order.slice_mut().sort_by_key(|&axis| core::cmp::Reverse(x.strides()[axis].unsigned_abs()));
        let mut blocks = self.clone();
        if !self.is_per_tensor() {
            (0..x.ndim()).for_each(|place| blocks.extent[place] = self.extent[order[place]]);
        }
        Some((blocks, order))
    }

    /// As [`Self::for_each_segment`], over two tensors of one shape.
    fn for_each_segment_pair<A, B>(
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

impl Segment {
    /// Calls `f` with every run of a lane of this length, and where it lies there.
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

/// Walks the lanes of a tensor in row-major order and knows which blocks each one crosses.
///
/// A lane is the last axis, or, in memory without gaps, all trailing axes that no block boundary crosses, and those
/// before them, if they are short and follow one another.
struct Walk<'b, D> {
    extent: &'b [usize],
    shape: D,
    /// Distance in the grid, in row-major order, between neighbours along each axis.
    grid_stride: D,
    /// The axes before this one are walked; those from here on make up a lane.
    outer: usize,
    segment_len: usize,
    /// The extent of a block along the lane, if more than one block meets it.
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
            // What lies within one block, or else the last axis; and the axes before, if their blocks follow one
            // another.
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
        let mut grid_stride = D::zeros(ndim);
        if !per_tensor {
            let grid = blocks.grid(&shape);
            let mut stride = 1;
            for axis in (0..ndim).rev() {
                grid_stride[axis] = stride;
                stride *= grid[axis];
            }
        }
        Self { extent, grid_stride, outer, segment_len, cut, index: D::zeros(ndim), shape }
    }

    /// At least 1, so that it can cut a slice.
    fn segment_len(&self) -> usize {
        self.segment_len.max(1)
    }

    fn next_segment(&mut self) -> Segment {
        let blocks = self.index.slice()[..self.outer].iter().zip(self.extent).zip(self.grid_stride.slice());
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

/// The indices of a tensor of this shape, in row-major order.
pub(crate) fn positions<D: Dimension>(shape: D) -> impl Iterator<Item = Vec<usize>> {
    (0..shape.size()).map(move |mut flat| {
        let mut index = alloc::vec![0; shape.ndim()];
        for (i, &len) in index.iter_mut().zip(shape.slice()).rev() {
            *i = flat % len;
            flat /= len;
        }
        index
    })
}
