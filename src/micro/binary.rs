//! Sums and products of two tensors.

use super::format::{Access, Fields, Region, are_codes, product};
use super::memory::{Memory, Reads};
use crate::affine::{BinaryOp, Codes, FloatProduct, FloatSum, OffsetCodes, ProductOf};

/// An operand that broadcasts to the output: each element stands for a run of it, and the whole is repeated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operand {
    pub(crate) region: Region,
    /// The length of the runs.
    pub(crate) run: usize,
}

impl Operand {
    fn fields(&mut self, f: &mut impl Fields) {
        f.region(&mut self.region, Access::Read);
        f.size(&mut self.run);
    }

    fn broadcasts_to(&self, len: usize) -> bool {
        product(&[self.region.len(), self.run]).is_some_and(|own| len.checked_rem(own) == Some(0))
    }

    /// The elements, as often as they are repeated.
    fn elements<'m>(&self, reads: &Reads<'m>) -> Option<impl Iterator<Item = i32> + use<'m>> {
        let (codes, run) = (reads.get(self.region)?, self.run);
        let (mut at, mut left) = (0, run);
        Some(core::iter::from_fn(move || {
            let code = codes.get(at)?;
            left -= 1;
            if left == 0 {
                left = run;
                at = if at + 1 == codes.len() { 0 } else { at + 1 };
            }
            Some(i32::from(*code))
        }))
    }
}

/// The operands of a binary operator, and its output.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operands {
    pub(crate) inputs: [Operand; 2],
    pub(crate) y: Region,
    pub(crate) codes: Codes,
    /// The offset of stored codes from those of the formula: 0 or 128.
    pub(crate) offset: i32,
}

impl Operands {
    fn fields(&mut self, f: &mut impl Fields) {
        self.inputs.iter_mut().for_each(|input| input.fields(f));
        f.region(&mut self.y, Access::Write);
        f.codes(&mut self.codes);
        f.int(&mut self.offset);
    }

    fn is_valid(&self) -> bool {
        self.inputs.iter().all(|input| input.broadcasts_to(self.y.len())) && are_codes(&[self.offset], self.codes)
    }

    /// The codes of the formula.
    fn codes_of_formula(&self) -> Codes {
        self.codes.minus(self.offset)
    }

    fn run(&self, memory: &mut Memory<'_>, op: impl BinaryOp) -> Option<()> {
        let op = OffsetCodes { op, offset: self.offset };
        let (reads, y, _) = memory.borrow(self.y, Region::default())?;
        let [a, b] = self.inputs;
        for ((y, a), b) in y.iter_mut().zip(a.elements(&reads)?).zip(b.elements(&reads)?) {
            *y = op.code(a, b) as u8;
        }
        Some(())
    }
}

/// `a * a_ratio + b * b_ratio + constant`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Add {
    pub(crate) operands: Operands,
    pub(crate) ratios: [f32; 2],
    pub(crate) constant: f32,
}

impl Add {
    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        self.operands.fields(f);
        self.ratios.iter_mut().for_each(|ratio| f.float(ratio));
        f.float(&mut self.constant);
    }

    pub(super) fn is_valid(&self) -> bool {
        self.operands.is_valid()
    }

    pub(super) fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
        let op = FloatSum::of_parts(self.ratios, self.constant, self.operands.codes_of_formula());
        self.operands.run(memory, op)
    }
}

/// `(a - a_zero) * (b - b_zero) * factor + y_zero`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mul {
    pub(crate) operands: Operands,
    pub(crate) factor: f32,
    /// Zero points of both operands and of the output, as codes are stored.
    pub(crate) zeros: [i32; 3],
}

impl Mul {
    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        self.operands.fields(f);
        f.float(&mut self.factor);
        self.zeros.iter_mut().for_each(|zero| f.int(zero));
    }

    pub(super) fn is_valid(&self) -> bool {
        self.operands.is_valid() && are_codes(&self.zeros, self.operands.codes)
    }

    pub(super) fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
        let [a_zero, b_zero, zero_point] = self.zeros.map(|zero| zero - self.operands.offset);
        let to = FloatProduct { factor: self.factor, zero_point, codes: self.operands.codes_of_formula() };
        self.operands.run(memory, ProductOf { a_zero, b_zero, to })
    }
}
