//! Reductions of axes.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD, Axis};

use super::binary::op::Binary;
use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::nhwc::OwnedDims;
use super::operator::{CodeNode, Constant, FloatNode, Inputs, IntTensor, Layouts, OnCodes, Operator};
use super::shape::{Shape, elements};
use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// A reduction of elements to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reduction {
    /// The mean.
    Mean,
    /// The sum.
    Sum,
    /// The product.
    Prod,
    /// The greatest element.
    Max,
    /// The smallest element.
    Min,
}

/// A reduction along axes, which have length 1 afterwards (ONNX: `ReduceMean`, `ReduceSum`, `ReduceProd`, `ReduceMax`,
/// `ReduceMin` with `keepdims`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reduce {
    /// What is computed.
    pub reduction: Reduction,
    /// The axes.
    pub axes: Vec<usize>,
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        match self.reduction {
            Reduction::Mean => "ReduceMean",
            Reduction::Sum => "ReduceSum",
            Reduction::Prod => "ReduceProd",
            Reduction::Max => "ReduceMax",
            Reduction::Min => "ReduceMin",
        }
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let mut shape = inputs.x().to_vec();
        for &axis in &self.axes {
            let ndim = shape.len();
            let len = shape.get_mut(axis).ok_or_else(|| Error::axis(ndim, axis))?;
            if *len == 0 {
                return Err(Error::layout("input", "at least one element along the axes", inputs.x()));
            }
            *len = 1;
        }
        elements(&shape)?;
        Ok(shape)
    }

    fn evaluate(&self, inputs: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        Some(Ok(self.reduce(inputs[0].view())))
    }

    fn evaluate_ints(&self, inputs: &[&IntTensor]) -> Option<Result<ArrayD<i64>>> {
        let reduce: fn(i64, i64) -> i64 = match self.reduction {
            Reduction::Mean => return None,
            Reduction::Sum => i64::wrapping_add,
            Reduction::Prod => i64::wrapping_mul,
            Reduction::Max => i64::max,
            Reduction::Min => i64::min,
        };
        Some(Ok(self.fold(inputs[0].view(), reduce)))
    }

    fn layouts(&self) -> Layouts {
        Layouts::Any
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(ReduceKernel { op: self.clone(), input: node.x().into(), output: node.output.into() }))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        if !self.keeps_range() || !node.same_params() {
            return Ok(OnCodes::Float);
        }
        OnCodes::kernel(ReduceKernel { op: self.clone(), input: node.x().into(), output: node.output.into() })
    }

    /// The greatest and the smallest element are elements.
    fn keeps_range(&self) -> bool {
        matches!(self.reduction, Reduction::Max | Reduction::Min)
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

impl Reduce {
    /// Combines the elements along the axes. Shape inference has checked that there are any.
    fn fold<T: Copy>(&self, x: ArrayViewD<'_, T>, f: fn(T, T) -> T) -> ArrayD<T> {
        let mut y = x.to_owned();
        for &axis in &self.axes {
            let mut folded = y.index_axis(Axis(axis), 0).to_owned();
            for x in y.axis_iter(Axis(axis)).skip(1) {
                folded.zip_mut_with(&x, |y, &x| *y = f(*y, x));
            }
            y = folded.insert_axis(Axis(axis));
        }
        y
    }

    fn reduce(&self, x: ArrayViewD<'_, f32>) -> ArrayD<f32> {
        let count: usize = self.axes.iter().map(|&axis| x.shape()[axis]).product();
        match self.reduction {
            Reduction::Mean => self.fold(x, |a, b| a + b).mapv_into(|sum| sum / count as f32),
            Reduction::Sum => self.fold(x, |a, b| a + b),
            Reduction::Prod => self.fold(x, |a, b| a * b),
            Reduction::Max => self.fold(x, |a, b| Binary::Max.eval(a, b)),
            Reduction::Min => self.fold(x, |a, b| Binary::Min.eval(a, b)),
        }
    }
}

#[derive(Debug)]
struct ReduceKernel {
    op: Reduce,
    input: OwnedDims,
    output: OwnedDims,
}

impl Kernel for ReduceKernel {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [x_len, y_len] = [&self.input, &self.output].map(|dims| dims.len().max(1));
        match output {
            ValuesMut::F32(y) => {
                for (x, y) in inputs[0].as_slice::<f32>().chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)) {
                    self.output.view_mut(y).assign(&self.op.reduce(self.input.view(x)));
                }
            }
            ValuesMut::Code(y) => {
                let f = if self.op.reduction == Reduction::Max { u8::max } else { u8::min };
                for (x, y) in inputs[0].as_slice::<u8>().chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)) {
                    self.output.view_mut(y).assign(&self.op.fold(self.input.view(x), f));
                }
            }
        }
        Ok(())
    }
}
