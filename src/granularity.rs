//! Which elements of a tensor share their parameters.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayRef, ArrayView1, ArrayViewMut1, Axis, Dimension, s};

use crate::error::{Error, Result};

/// Which elements share one scale and zero point.
///
/// Parameters keep the tensor's rank: along axis `i` there are `ceil(shape[i] / block[i])` of them, so a weight
/// of shape `[out, in]` has scales of shape `[1, 1]` per tensor, `[out, 1]` per axis 0, and
/// `[out, ceil(in / size)]` in groups of `size` along axis 1. The last group of an axis may be short.
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
}

/// A block that reaches over its whole axis, however long that is.
const WHOLE: usize = usize::MAX;

/// The normal form of a granularity: the extent of a block along each axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks<D> {
    extent: D,
}

/// Which blocks the elements of one lane belong to.
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

    /// Refuses a shape that no tensor's parameters have: an axis that a block spans has one.
    pub(crate) fn check_grid(&self, grid: &D) -> Result<()> {
        let mut expected = grid.clone();
        for (e, &extent) in expected.slice_mut().iter_mut().zip(self.extent.slice()) {
            *e = if extent == WHOLE { 1 } else { *e };
        }
        if expected == *grid { Ok(()) } else { Err(Error::shape("parameters", expected.slice(), grid.slice())) }
    }

    /// Refuses parameters of shape `grid` for tensors of this shape.
    pub(crate) fn check(&self, grid: &D, shape: &D) -> Result<()> {
        if self.is_per_tensor() && grid.size() == 1 {
            return Ok(());
        }
        if grid.ndim() != shape.ndim() {
            return Err(Error::shape("rank of the parameters", &[shape.ndim()], &[grid.ndim()]));
        }
        let expected = self.grid(shape);
        if expected == *grid { Ok(()) } else { Err(Error::shape("parameters", expected.slice(), grid.slice())) }
    }

    /// Calls `f` with every run of `x` in row-major order: the longest stretches over which parameters are constant
    /// or change with every element.
    pub(crate) fn for_each_run<A>(&self, x: &ArrayRef<A, D>, mut f: impl FnMut(Run, ArrayView1<'_, A>)) {
        if let Some(flat) = x.as_slice() {
            let mut walk = Walk::new(self, x.raw_dim(), true);
            for lane in flat.chunks(walk.lane_len()) {
                walk.next_lane(|run, range| f(run, ArrayView1::from(&lane[range])));
            }
        } else {
            let mut walk = Walk::new(self, x.raw_dim(), false);
            for lane in x.rows() {
                walk.next_lane(|run, range| f(run, lane.slice(s![range])));
            }
        }
    }

    /// Calls `f` with every run of a tensor of this shape, and where it lies in row-major order.
    pub(crate) fn for_each_range(&self, shape: &D, mut f: impl FnMut(Run, Range<usize>)) {
        let mut walk = Walk::new(self, shape.clone(), true);
        for start in (0..shape.size()).step_by(walk.lane_len()) {
            walk.next_lane(|run, range| f(run, start + range.start..start + range.end));
        }
    }

    /// As [`Self::for_each_run`], over two tensors of one shape.
    pub(crate) fn for_each_run_pair<A, B>(
        &self,
        x: &ArrayRef<A, D>,
        y: &mut ArrayRef<B, D>,
        mut f: impl FnMut(Run, ArrayView1<'_, A>, ArrayViewMut1<'_, B>),
    ) {
        debug_assert_eq!(x.shape(), y.shape());
        let shape = x.raw_dim();
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            let mut walk = Walk::new(self, shape, true);
            for (x, y) in x.chunks(walk.lane_len()).zip(y.chunks_mut(walk.lane_len())) {
                walk.next_lane(|run, range| {
                    f(run, ArrayView1::from(&x[range.clone()]), ArrayViewMut1::from(&mut y[range]));
                });
            }
        } else {
            let mut walk = Walk::new(self, shape, false);
            for (x, mut y) in x.rows().into_iter().zip(y.rows_mut()) {
                walk.next_lane(|run, range| f(run, x.slice(s![range.clone()]), y.slice_mut(s![range])));
            }
        }
    }
}

/// Walks the lanes of a tensor in row-major order and knows which blocks each one crosses.
///
/// A lane is the last axis, or, in memory without gaps, all trailing axes that no block boundary crosses.
struct Walk<'b, D> {
    extent: &'b [usize],
    shape: D,
    /// Distance in the grid, in row-major order, between neighbours along each axis.
    grid_stride: D,
    /// The axes before this one are walked; those from here on make up a lane.
    outer: usize,
    lane_len: usize,
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
        let trailing = (0..ndim).rev().take_while(|&axis| covered(axis)).count();
        let (outer, cut) = match trailing {
            0 if ndim > 0 => (ndim - 1, Some(extent[ndim - 1])),
            _ if contiguous => (ndim - trailing, None),
            _ => (ndim.saturating_sub(1), None),
        };
        let lane_len = shape.slice()[outer..].iter().product();
        let mut grid_stride = D::zeros(ndim);
        if !per_tensor {
            let grid = blocks.grid(&shape);
            let mut stride = 1;
            for axis in (0..ndim).rev() {
                grid_stride[axis] = stride;
                stride *= grid[axis];
            }
        }
        Self { extent, grid_stride, outer, lane_len, cut, index: D::zeros(ndim), shape }
    }

    /// At least 1, so that it can cut a slice.
    fn lane_len(&self) -> usize {
        self.lane_len.max(1)
    }

    fn next_lane(&mut self, mut f: impl FnMut(Run, Range<usize>)) {
        let blocks = self.index.slice()[..self.outer].iter().zip(self.extent).zip(self.grid_stride.slice());
        let first: usize = blocks.map(|((&i, &extent), &stride)| i / extent * stride).sum();
        match self.cut {
            None => f(Run::Constant(first), 0..self.lane_len),
            Some(1) => f(Run::Consecutive(first), 0..self.lane_len),
            Some(extent) => {
                for (block, start) in (0..self.lane_len).step_by(extent).enumerate() {
                    f(Run::Constant(first + block), start..self.lane_len.min(start + extent));
                }
            }
        }
        for axis in (0..self.outer).rev() {
            self.index[axis] += 1;
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.index[axis] = 0;
        }
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
