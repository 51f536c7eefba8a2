//! Types, scales and zero points of codes.

use alloc::vec::Vec;

use ndarray::{ArrayD, Axis};

use super::super::import::Importer;
use super::super::node::OnnxNode;
use super::super::tensor::ConstantTensor;
use crate::element::Compute;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::graph::{GivenParams, Precision, TensorRecipe};
use crate::ops::operator::{Constant, IntTensor};

/// The type of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io::onnx) struct CodeType {
    pub(super) bits: u32,
    pub(super) signed: bool,
}

impl CodeType {
    pub(super) const U8: Self = Self { bits: 8, signed: false };

    /// The type of a `TensorProto.DataType`.
    pub(super) fn of(data_type: i32) -> Option<Self> {
        let (bits, signed) = match data_type {
            2 => (8, false),
            3 => (8, true),
            4 => (16, false),
            5 => (16, true),
            6 => (32, true),
            21 => (4, false),
            22 => (4, true),
            25 => (2, false),
            26 => (2, true),
            _ => return None,
        };
        Some(Self { bits, signed })
    }

    pub(super) fn min(self) -> i64 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    pub(super) fn max(self) -> i64 {
        self.min() + (1 << self.bits) - 1
    }
}

/// The type, scales and zero points of a tensor of codes, per tensor, along an axis, or in blocks along it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CodeParams {
    pub(super) ty: CodeType,
    pub(super) axis: Option<usize>,
    /// The length of blocks along the axis. Their scales are in row-major order of the tensor.
    pub(super) block: Option<usize>,
    pub(super) scales: Vec<f32>,
    pub(super) zero_points: Vec<i64>,
    /// Operators on codes of `i8` add the zero point of `i8` before they round.
    pub(super) on_codes: bool,
}

impl CodeParams {
    /// The value of a code of block `i`.
    pub(super) fn value(&self, i: usize, code: i64) -> f32 {
        ((code - self.zero_points[i]) as f64 * f64::from(self.scales[i])) as f32
    }

    pub(super) fn code(&self, i: usize, value: f32) -> i64 {
        let rounded = Compute::round_ties_even(value / self.scales[i]);
        let code = if rounded.is_nan() { 0 } else { rounded as i64 };
        code.saturating_add(self.zero_points[i]).clamp(self.ty.min(), self.ty.max())
    }

    /// The recipe of an activation of 8 bits, or of a constant operand.
    pub(super) fn activation(&self) -> TensorRecipe {
        let given = self.given(0, self.ty.signed && self.on_codes);
        let ranges = given.ranges(0, 255);
        let granularity = Granularity::PerTensor;
        TensorRecipe { precision: Precision::Int8, symmetric: false, granularity, ranges, given: Some(given) }
    }

    /// The recipe of weights of this shape whose output channels are `out_axis`. `None` if no layer takes such weights.
    pub(super) fn weights(&self, out_axis: Option<usize>, shape: &[usize]) -> Option<TensorRecipe> {
        let precision = match self.ty.bits {
            2 => Precision::Int2,
            4 => Precision::Int4,
            8 => Precision::Int8,
            _ => return None,
        };
        let (params, granularity) = match (self.axis, self.block) {
            (None, _) => (self.clone(), Granularity::PerTensor),
            (axis, None) if axis == out_axis => (self.clone(), Granularity::per_axis(Axis(0))),
            (Some(depth), Some(size)) if shape.len() == 2 && out_axis == Some(1 - depth) => {
                let perm: &[usize] = if depth == 1 { &[0, 1] } else { &[1, 0] };
                (self.transposed(shape, perm)?, Granularity::per_group(Axis(1), size))
            }
            _ => return None,
        };
        let (min, max) = (-(1 << (self.ty.bits - 1)), (1 << (self.ty.bits - 1)) - 1);
        let given = params.given(min.into(), false);
        let ranges = given.ranges(min, max);
        Some(TensorRecipe { precision, symmetric: true, granularity, ranges, given: Some(given) })
    }

    /// The parameters of the tensor of this shape with its axes in another order.
    pub(super) fn transposed(&self, shape: &[usize], perm: &[usize]) -> Option<Self> {
        let Some(axis) = self.axis else { return Some(self.clone()) };
        let axis_moved = Some(perm.iter().position(|&from| from == axis)?);
        let Some(size) = self.block else { return Some(Self { axis: axis_moved, ..self.clone() }) };
        let grid = Granularity::per_group(Axis(axis), size).params_shape(shape).ok()?;
        let is_permutation = perm.len() == grid.len() && (0..perm.len()).all(|axis| perm.contains(&axis));
        let blocks = ArrayD::from_shape_vec(&grid[..], (0..self.scales.len()).collect()).ok()?;
        let blocks = is_permutation.then(|| blocks.permuted_axes(perm))?;
        let scales = blocks.iter().map(|&block| self.scales[block]).collect();
        let zero_points = blocks.iter().map(|&block| self.zero_points[block]).collect();
        Some(Self { axis: axis_moved, scales, zero_points, ..self.clone() })
    }

    /// The parameters of the same values with positive scales. A negative scale reflects the codes, and one of 0 makes them
    /// all the zero point.
    pub(super) fn with_positive_scales(mut self) -> Self {
        let ends = self.ty.min() + self.ty.max();
        for (scale, zero) in self.scales.iter_mut().zip(&mut self.zero_points) {
            if *scale < 0.0 {
                (*scale, *zero) = (-*scale, ends - *zero);
            } else if *scale == 0.0 {
                *scale = 1.0;
            }
        }
        self
    }

    /// The block of each element of a tensor of this shape, in row-major order.
    fn blocks(&self, shape: &[usize]) -> impl Iterator<Item = usize> {
        let len = self.axis.map_or(1, |axis| shape[axis]).max(1);
        let inner = self.axis.map_or(1, |axis| shape[axis + 1..].iter().product::<usize>()).max(1);
        let (one_block, size) = (self.axis.is_none(), self.block);
        (0..shape.iter().product()).map(move |i: usize| match size {
            _ if one_block => 0,
            None => i / inner % len,
            Some(size) => (i / (inner * len) * len.div_ceil(size) + i / inner % len / size) * inner + i % inner,
        })
    }

    /// The parameters, for codes that start at `min`.
    fn given(&self, min: i64, signed: bool) -> GivenParams {
        let zero_points = self.zero_points.iter().map(|zero| (zero - self.ty.min() + min) as i32).collect();
        GivenParams { scales: self.scales.clone(), zero_points, signed }
    }

    pub(super) fn dequantize(&self, codes: &IntTensor) -> Constant {
        let values = codes.iter().zip(self.blocks(codes.shape())).map(|(&code, block)| self.value(block, code));
        ArrayD::from_shape_vec(codes.raw_dim(), values.collect()).expect("one value for each code").into_shared()
    }

    pub(super) fn quantize(&self, values: &Constant) -> IntTensor {
        let codes = values.iter().zip(self.blocks(values.shape())).map(|(&value, block)| self.code(block, value));
        ArrayD::from_shape_vec(values.raw_dim(), codes.collect()).expect("one code for each value").into_shared()
    }
}

impl Importer {
    /// The type of a constant or an input of the graph, if it may be codes.
    pub(super) fn code_type(&self, name: &str) -> Option<CodeType> {
        self.quantization.types.get(name).or_else(|| self.quantization.types.get(self.resolve(name))).copied()
    }

    /// Reads the scale and the zero point of a tensor of this shape. One scale is per tensor, several are along `axis`, in
    /// blocks if the node has a `block_size`.
    pub(super) fn code_params(
        &self,
        node: &OnnxNode<'_>,
        [scale, zero_point]: [usize; 2],
        (shape, axis): (&[usize], i64),
        default: CodeType,
    ) -> Result<CodeParams> {
        let scales: Vec<f32> = self.required_constant(node, scale)?.iter().copied().collect();
        let size = usize::try_from(node.int("block_size", 0)).ok().filter(|&size| size > 0);
        // ONNX Runtime gives blocks of symmetric weights the sign of their greatest value.
        let valid = |scale: &f32| scale.is_finite() && (*scale > 0.0 || size.is_some());
        if let Some(bad) = scales.iter().find(|scale| !valid(scale)) {
            return Err(node.malformed("scale", "a positive number", bad));
        }
        let (mut ty, mut zero_points) = (default, alloc::vec![0]);
        if let Some(name) = node.input(zero_point) {
            let Some(ConstantTensor::Int(values)) = self.constant(name) else {
                return Err(node.unsupported(alloc::format!("input {zero_point}, a zero point, is not a constant")));
            };
            let found = || node.malformed("zero point", "a tensor of codes", alloc::format!("{name:?}"));
            (ty, zero_points) = (self.code_type(name).ok_or_else(found)?, values.iter().copied().collect());
        }
        if zero_points.len() == 1 {
            zero_points.resize(scales.len(), zero_points[0]);
        }
        if scales.is_empty() || zero_points.len() != scales.len() {
            let expected = alloc::format!("one for each of {} scales", scales.len());
            return Err(node.malformed("zero points", expected, zero_points.len()));
        }
        if let Some(size) = size {
            let axis = node.axis(axis, shape.len())?;
            let grid = Granularity::per_group(Axis(axis), size).params_shape(shape)?;
            if grid.iter().product::<usize>() != scales.len() {
                return Err(node.malformed("scales", alloc::format!("shape {grid:?}"), scales.len()));
            }
            return Ok(CodeParams { ty, axis: Some(axis), block: Some(size), scales, zero_points, on_codes: false });
        }
        let axis = if scales.len() == 1 { None } else { Some(node.axis(axis, shape.len())?) };
        if let Some(axis) = axis.filter(|&axis| shape[axis] != scales.len()) {
            let expected = alloc::format!("{}, the length of axis {axis}", shape[axis]);
            return Err(node.malformed("scales", expected, scales.len()));
        }
        Ok(CodeParams { ty, axis, block: None, scales, zero_points, on_codes: false })
    }
}
