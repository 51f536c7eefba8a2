//! Weights and their codes, row by row, as the methods of this module work on them.

use alloc::vec::Vec;

use ndarray::{Array2, ArrayD, ArrayRef2, Axis, Ix2};

use crate::affine::{Codes, Convention, Quantizer, dequantize, with_rounding};
use crate::element::{Code, Element};
use crate::error::{ParamsError, Result};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::range::check_finite;
use crate::scheme::Scheme;
use crate::threads;

/// Where the scales and zero points of weights come from: a scheme, which chooses them by the range of each block, or
/// known parameters.
///
/// Methods take either: `gptq.quantize(&weights, &scheme, …)` or `gptq.quantize(&weights, q.params(), …)`. Blocks are
/// per tensor, per output (axis 0) or per group along the inputs (axis 1).
#[derive(Debug)]
pub enum Grid<'a, T: Element> {
    /// By the range of each block.
    Scheme(&'a Scheme<T>),
    /// As given, for example by [`Hqq`](super::Hqq).
    Params(&'a QParams<T>),
}

impl<'a, T: Element> From<&'a Scheme<T>> for Grid<'a, T> {
    fn from(scheme: &'a Scheme<T>) -> Self {
        Grid::Scheme(scheme)
    }
}

impl<'a, T: Element> From<&'a QParams<T>> for Grid<'a, T> {
    fn from(params: &'a QParams<T>) -> Self {
        Grid::Params(params)
    }
}

impl<T: Element> Grid<'_, T> {
    /// Chooses parameters for the range of the weights, unless they are given.
    pub(super) fn params(&self, weights: &ArrayRef2<f32>) -> Result<QParams<T>> {
        match self {
            Grid::Scheme(scheme) => scheme.params_of(weights),
            Grid::Params(params) => Ok((*params).clone()),
        }
    }
}

/// The scale and zero point of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ScaleZeroPoint {
    pub(super) scale: f32,
    pub(super) zero_point: i32,
}

/// The weights of an output, their codes, and the grid of each block of columns.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) weights: Vec<f32>,
    pub(super) codes: Vec<i32>,
    pub(super) blocks: Vec<ScaleZeroPoint>,
}

/// The codes of a tensor and how they are rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounder<T> {
    pub(super) codes: Codes,
    convention: Convention,
    element: core::marker::PhantomData<T>,
}

impl<T: Element> Rounder<T> {
    /// The code of a value.
    #[inline(always)]
    pub(super) fn code(&self, x: f64, ScaleZeroPoint { scale, zero_point }: ScaleZeroPoint) -> i32 {
        let x = x as f32;
        let code = with_rounding!(self.convention, R => Quantizer::<T::Code, f32, R>::new(scale, zero_point, self.codes).quantize(x));
        code.to_i32()
    }

    /// The value of a code.
    #[inline(always)]
    pub(super) fn value(&self, code: i32, ScaleZeroPoint { scale, zero_point }: ScaleZeroPoint) -> f64 {
        f64::from(dequantize::<T::Code, f32>(T::Code::from_i32(code), zero_point, scale))
    }
}

/// A matrix of weights `[out, in]` with its codes.
#[derive(Debug, Clone)]
pub(super) struct Rows<T: Element> {
    pub(super) rows: Vec<Row>,
    /// Columns of a block. The last block of a row may have fewer.
    pub(super) group: usize,
    pub(super) rounder: Rounder<T>,
    params: QParams<T>,
    depth: usize,
}

impl<T: Element> Rows<T> {
    /// Rounds weights to the nearest codes.
    ///
    /// # Errors
    /// For a NaN or an infinity, a granularity that is not along the rows, and parameters of another shape.
    pub(super) fn nearest(weights: &ArrayRef2<f32>, params: QParams<T>) -> Result<Self> {
        check_finite("weights", weights)?;
        let depth = weights.ncols();
        let group = match params.granularity() {
            Granularity::PerTensor | Granularity::PerAxis { axis: 0 } => depth.max(1),
            Granularity::PerGroup { axis: 1, size } => size.min(depth.max(1)),
            found => {
                let expected = Granularity::per_group(Axis(1), 128);
                return Err(ParamsError::Granularity { what: "weights", expected, found }.into());
            }
        };
        let mut codes = Array2::from_elem(weights.raw_dim(), T::Code::default());
        params.quantize_into(weights, &mut codes)?;
        let blocks = depth.div_ceil(group).max(1);
        let zero_points = params.zero_point().and_then(|z| z.as_slice());
        let block = |row: usize, k: usize| {
            let i = if params.granularity() == Granularity::PerTensor { 0 } else { row * blocks + k };
            let zero_point = zero_points.map_or(0, |z| z[i].to_i32());
            ScaleZeroPoint { scale: params.scales()[i], zero_point }
        };
        // A matrix without columns has no groups.
        let blocks = if params.scales().is_empty() { 0 } else { blocks };
        let row =
            |(i, (weights, codes)): (usize, (ndarray::ArrayView1<'_, f32>, ndarray::ArrayView1<'_, T::Code>))| Row {
                weights: weights.to_vec(),
                codes: codes.iter().map(|code| code.to_i32()).collect(),
                blocks: (0..blocks).map(|k| block(i, k)).collect(),
            };
        let rows = weights.rows().into_iter().zip(codes.rows()).enumerate().map(row).collect();
        let rounder =
            Rounder { codes: params.codes(), convention: params.convention(), element: core::marker::PhantomData };
        Ok(Self { rows, group, rounder, params, depth })
    }

    /// Calls `f` with ranges of rows, split over threads if `macs` multiply–accumulates are worth it.
    pub(super) fn each(&mut self, macs: usize, f: impl Fn(&Rounder<T>, usize, &mut [Row]) + Sync) {
        let mut parts = alloc::vec![(); threads::worth(macs.saturating_mul(self.rows.len()))];
        let (rounder, group) = (&self.rounder, self.group);
        threads::each_part(&mut self.rows, 1, &mut parts, &|_, rows, ()| f(rounder, group, rows));
    }

    /// Returns the codes, with the parameters that they were rounded to first.
    pub(super) fn with_same_params(self) -> Result<QTensor<T, Ix2>> {
        let codes = self.codes();
        QTensor::from_valid_codes(codes, self.params)
    }

    /// Returns the codes, with the scales and zero points of the rows.
    pub(super) fn with_row_params(self) -> Result<QTensor<T, Ix2>> {
        let codes = self.codes();
        let shape = self.params.scale().raw_dim();
        let blocks = || self.rows.iter().flat_map(|row| &row.blocks).take(self.params.scale().len());
        let scale = ArrayD::from_shape_vec(shape.clone(), blocks().map(|b| b.scale).collect());
        let zero_point = blocks().map(|b| T::Code::from_i32(b.zero_point)).collect();
        let zero_point = ArrayD::from_shape_vec(shape.clone(), zero_point).expect("a block for each scale");
        let (min, max) = self.params.code_range();
        let scale = scale.expect("a block for each scale");
        let params = QParams::new(self.params.granularity(), scale, Some(zero_point))?;
        let params = params.with_convention(self.params.convention()).with_code_range(min, max)?;
        QTensor::from_valid_codes(codes, params)
    }

    fn codes(&self) -> Array2<T::Code> {
        let codes = self.rows.iter().flat_map(|row| &row.codes).map(|&code| T::Code::from_i32(code));
        Array2::from_shape_vec((self.rows.len(), self.depth), codes.collect()).expect("a code for each weight")
    }
}
