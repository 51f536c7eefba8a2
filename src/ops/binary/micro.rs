//! Sums and products as steps of models for microcontrollers.

use super::{Add, Mul, ProductOp, SumOp};
use crate::affine::{Codes, FloatProduct, FloatSum, OffsetCodes, ProductOf};
use crate::micro::{self, Operand, Operands, Region, Step};

/// The operators of networks compute in `f32`.
const F32: &str = "the sums and products of networks are computed in f32";

fn operands(inputs: [Operand; 2], y: Region, codes: Codes, offset: i32) -> Operands {
    Operands { inputs, y, codes: codes.minus(-offset), offset }
}

impl Add<u8> {
    pub(super) fn micro_step(&self, inputs: [Operand; 2], y: Region) -> Step {
        let (sum, offset): (&FloatSum, _) = match &self.op {
            SumOp::Float(sum) => (sum, 0),
            SumOp::FloatOffset(OffsetCodes { op, offset }) => (op, *offset),
            SumOp::Fixed(_) | SumOp::FixedSwapped(_) => unreachable!("{F32}"),
        };
        let (ratios, constant, codes) = sum.parts();
        Step::Add(micro::Add { operands: operands(inputs, y, codes, offset), ratios, constant })
    }
}

impl Mul<u8> {
    pub(super) fn micro_step(&self, inputs: [Operand; 2], y: Region) -> Step {
        let (ProductOf { a_zero, b_zero, to: FloatProduct { factor, zero_point, codes } }, offset) = match self.op {
            ProductOp::Float(product) => (product, 0),
            ProductOp::FloatOffset(OffsetCodes { op, offset }) => (op, offset),
            ProductOp::Double(_) | ProductOp::Fixed(_) => unreachable!("{F32}"),
        };
        let zeros = [a_zero, b_zero, zero_point].map(|zero| zero + offset);
        Step::Mul(micro::Mul { operands: operands(inputs, y, codes, offset), factor, zeros })
    }
}
