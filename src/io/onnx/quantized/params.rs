//! Types, scales and zero points of codes.

use alloc::vec::Vec;

use ndarray::Axis;

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

/// The type, scales and zero points of a tensor of codes, per tensor or along an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CodeParams {
    pub(super) ty: CodeType,
    pub(super) axis: Option<usize>,
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

    /// The recipe of weights of 8 bits whose output channels are `out_axis`. `None` if no layer takes such weights.
    pub(super) fn weights(&self, out_axis: Option<usize>) -> Option<TensorRecipe> {
        let fits = self.ty.bits == 8 && (self.axis.is_none() || self.axis == out_axis);
        let granularity = if self.axis.is_none() { Granularity::PerTensor } else { Granularity::per_axis(Axis(0)) };
        let given = self.given(-128, false);
        let ranges = given.ranges(-128, 127);
        let recipe =
            TensorRecipe { precision: Precision::Int8, symmetric: true, granularity, ranges, given: Some(given) };
        fits.then_some(recipe)
    }

    /// The parameters, for codes that start at `min`.
    fn given(&self, min: i64, signed: bool) -> GivenParams {
        let zero_points = self.zero_points.iter().map(|zero| (zero - self.ty.min() + min) as i32).collect();
        GivenParams { scales: self.scales.clone(), zero_points, signed }
    }

    pub(super) fn dequantize(&self, codes: &IntTensor) -> Constant {
        let mut values = codes.mapv(|code| self.value(0, code));
        if let Some(axis) = self.axis {
            let slices = values.axis_iter_mut(Axis(axis)).zip(codes.axis_iter(Axis(axis)));
            for (i, (mut values, codes)) in slices.enumerate() {
                values.zip_mut_with(&codes, |value, &code| *value = self.value(i, code));
            }
        }
        values.into_shared()
    }

    pub(super) fn quantize(&self, values: &Constant) -> IntTensor {
        let mut codes = values.mapv(|value| self.code(0, value));
        if let Some(axis) = self.axis {
            let slices = codes.axis_iter_mut(Axis(axis)).zip(values.axis_iter(Axis(axis)));
            for (i, (mut codes, values)) in slices.enumerate() {
                codes.zip_mut_with(&values, |code, &value| *code = self.code(i, value));
            }
        }
        codes.into_shared()
    }
}

impl Importer {
    /// The type of a constant or an input of the graph, if it may be codes.
    pub(super) fn code_type(&self, name: &str) -> Option<CodeType> {
        self.quantization.types.get(name).or_else(|| self.quantization.types.get(self.resolve(name))).copied()
    }

    /// Reads the scale and the zero point of a tensor of this shape. One scale is per tensor, several are along `axis`.
    pub(super) fn code_params(
        &self,
        node: &OnnxNode<'_>,
        [scale, zero_point]: [usize; 2],
        (shape, axis): (&[usize], i64),
        default: CodeType,
    ) -> Result<CodeParams> {
        let scales: Vec<f32> = self.required_constant(node, scale)?.iter().copied().collect();
        let positive = |scale: &f32| scale.is_finite() && *scale > 0.0;
        if let Some(bad) = scales.iter().find(|scale| !positive(scale)) {
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
        let axis = if scales.len() == 1 { None } else { Some(node.axis(axis, shape.len())?) };
        if let Some(axis) = axis.filter(|&axis| shape[axis] != scales.len()) {
            let expected = alloc::format!("{}, the length of axis {axis}", shape[axis]);
            return Err(node.malformed("scales", expected, scales.len()));
        }
        Ok(CodeParams { ty, axis, scales, zero_points, on_codes: false })
    }
}
