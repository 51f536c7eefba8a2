//! `Softmax` in a graph: attributes, shape inference, kernels.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::AddAssign;

use ndarray::{ArrayView1, ArrayViewMut1, Axis};

use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{Dims, Layout, batch_of, batch_of_mut, in_order, logical};
use crate::ops::operator::{CodeNode, FloatNode, Inputs, OnCodes, Operator};
use crate::ops::shape::{Shape, broadcast};
use crate::ops::unary::math::{exp, fold};
use crate::simd::{self, Task};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `exp(x) / Σ exp(x)` along an axis (ONNX: `Softmax`). A second input, which broadcasts to the first one, is added to `x`:
/// the mask of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Softmax {
    /// The axis.
    pub axis: usize,
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn saturates(&self) -> bool {
        true
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (1..=2, "1 or 2 (input, mask)")
    }

    fn stores_constants(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let shape = infer(self.axis, inputs.x())?;
        match inputs.shapes.get(1) {
            Some(mask)
                if (mask.len() != shape.len() && !inputs.constant[1])
                    || mask.len() > shape.len()
                    || broadcast(&shape, mask)? != shape =>
            {
                Err(Error::shape("mask", &shape, mask))
            }
            _ => Ok(shape),
        }
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        // The kernel sees the batch as an axis of its own.
        let axis = Axis(node.x().axis(self.axis) + 1);
        let mask = node.inputs.get(1).map(|mask| {
            let missing = node.output.len() - mask.len();
            let dims = [&alloc::vec![1; missing][..], mask.shape].concat();
            let dims = Dims::new(&dims, node.output.layout);
            let constant = node.vector(1).map(|values| {
                in_order(logical(&values, dims.shape, Layout::RowMajor), dims.layout).iter().copied().collect()
            });
            Mask { shape: dims.in_memory(), constant }
        });
        Some(Box::new(FloatSoftmax { shape: node.x().in_memory(), axis, mask, log: false }))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        // The kernel takes the last axis in memory.
        if node.inputs.len() > 1 || node.x().axis(self.axis) + 1 != node.x().len() {
            return Ok(OnCodes::Float);
        }
        let softmax = super::Softmax::new(node.params(), node.to)?;
        OnCodes::kernel(SoftmaxOnCodes { softmax, shape: node.x().in_memory() })
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        // The mask is added before.
        let x = if node.inputs.len() > 1 { node.all("Add", Vec::new())? } else { node.inputs[0].clone() };
        let axis = crate::io::onnx::export::writer::int("axis", self.axis);
        Ok(node.nodes("Softmax", alloc::vec![x], alloc::vec![axis], 1).swap_remove(0))
    }
}

/// `x - ln(Σ exp(x))` along an axis (ONNX: `LogSoftmax`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogSoftmax {
    /// The axis.
    pub axis: usize,
}

impl Operator for LogSoftmax {
    fn name(&self) -> &'static str {
        "LogSoftmax"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        infer(self.axis, inputs.x())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let axis = Axis(node.x().axis(self.axis) + 1);
        Some(Box::new(FloatSoftmax { shape: node.x().in_memory(), axis, mask: None, log: true }))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        node.all("LogSoftmax", alloc::vec![crate::io::onnx::export::writer::int("axis", self.axis)])
    }
}

fn infer(axis: usize, x: &[usize]) -> Result<Shape> {
    if axis >= x.len() { Err(Error::axis(x.len(), axis)) } else { Ok(x.to_vec()) }
}

#[derive(Debug)]
struct SoftmaxOnCodes {
    softmax: super::Softmax<u8>,
    /// The shape in memory for a batch of one.
    shape: Vec<usize>,
}

impl Kernel for SoftmaxOnCodes {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let x = batch_of(inputs[0].as_slice(), &self.shape, images);
        let mut out = batch_of_mut(output.into_slice(), &self.shape, images);
        self.softmax.forward_into(&x, &mut out)
    }
}

#[derive(Debug)]
struct FloatSoftmax {
    /// The shape in memory for a batch of one.
    shape: Vec<usize>,
    axis: Axis,
    mask: Option<Mask>,
    /// Computes the logarithm.
    log: bool,
}

/// A summand that broadcasts to the input.
#[derive(Debug)]
struct Mask {
    /// The shape in memory for a batch of one.
    shape: Vec<usize>,
    /// The value, unless it is an input of the step.
    constant: Option<Vec<f32>>,
}

impl Kernel for FloatSoftmax {
    fn size_in_bytes(&self) -> usize {
        let constant = self.mask.as_ref().and_then(|mask| mask.constant.as_ref());
        constant.map_or(0, |constant| size_of_val(&constant[..]))
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        y.copy_from_slice(x);
        if let Some(mask) = &self.mask {
            let summand = match &mask.constant {
                Some(constant) => batch_of(constant, &mask.shape, 1),
                None => batch_of(inputs[1].as_slice::<f32>(), &mask.shape, images),
            };
            batch_of_mut(&mut *y, &self.shape, images).add_assign(&summand);
        }
        let len = self.shape[self.axis.index() - 1];
        if self.axis.index() == self.shape.len() {
            y.chunks_exact_mut(len.max(1)).for_each(|row| simd::run(SoftmaxRow { row, log: self.log }));
            return Ok(());
        }
        let mut y = batch_of_mut(y, &self.shape, images);
        let mut row = alloc::vec![0.0; len];
        for mut y in y.lanes_mut(self.axis) {
            ArrayViewMut1::from(&mut row[..]).assign(&y);
            simd::run(SoftmaxRow { row: &mut row, log: self.log });
            y.assign(&ArrayView1::from(&row[..]));
        }
        Ok(())
    }
}

/// The softmax of a row, in place.
struct SoftmaxRow<'a> {
    row: &'a mut [f32],
    log: bool,
}

impl Task for SoftmaxRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { row, log } = self;
        // Subtracting the maximum keeps `exp` from overflowing.
        let max = fold(row, f32::NEG_INFINITY, |x| x, |max, x| if x > max || x.is_nan() { x } else { max });
        if log {
            let sum = fold(row, 0.0, |x| exp(x - max), |sum, y| sum + y);
            let log = num_traits::Float::ln(sum);
            row.iter_mut().for_each(|y| *y = *y - max - log);
            return;
        }
        row.iter_mut().for_each(|y| *y = exp(*y - max));
        let factor = 1.0 / fold(row, 0.0, |y| y, |sum, y| sum + y);
        row.iter_mut().for_each(|y| *y *= factor);
    }
}
