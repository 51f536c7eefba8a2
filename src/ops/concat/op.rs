//! `Concat` in a graph: attributes, shape inference, kernels.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArcArray, ArrayD, Axis, IxDyn};

use crate::error::{Error, Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::micro::{self, Region, StepWriter, Written};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{Dims, batch_of, batch_of_mut};
use crate::ops::operator::{CodeNode, Constant, FloatNode, Inputs, IntTensor, OnCodes, Operator};
use crate::ops::shape::Shape;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// Concatenation of all inputs along an axis (ONNX: `Concat`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (1..=usize::MAX, "at least 1")
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let mut shape = inputs.x().to_vec();
        if self.axis >= shape.len() {
            return Err(Error::axis(shape.len(), self.axis));
        }
        for input in &inputs.shapes[1..] {
            let mut expected = inputs.x().to_vec();
            if input.len() == expected.len() {
                expected[self.axis] = input[self.axis];
            }
            check_shapes("concatenated tensor", &expected, input)?;
            shape[self.axis] = shape[self.axis].saturating_add(input[self.axis]);
        }
        Ok(shape)
    }

    fn evaluate(&self, inputs: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        Some(self.concatenate(inputs))
    }

    fn evaluate_ints(&self, inputs: &[&IntTensor]) -> Option<Result<ArrayD<i64>>> {
        Some(self.concatenate(inputs))
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let run = |x: &Dims<'_>| x.in_memory()[x.axis(self.axis)..].iter().product();
        Some(Box::new(FloatConcat { runs: node.inputs.iter().map(run).collect() }))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        // The kernel sees the batch as an axis of its own.
        let axis = Axis(node.output.axis(self.axis) + 1);
        let params: Vec<_> = node.operands.iter().map(|operand| &operand.params).collect();
        let concat = super::Concat::new(axis, &params, node.to)?;
        OnCodes::kernel(ConcatOnCodes {
            concat,
            inputs: node.inputs.iter().map(Dims::in_memory).collect(),
            output: node.output.in_memory(),
        })
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write(self, node)
    }
}

impl Concat {
    fn concatenate<T: Clone>(&self, inputs: &[&ArcArray<T, IxDyn>]) -> Result<ArrayD<T>> {
        let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
        let shapes: Vec<_> = inputs.iter().map(|x| x.shape()).collect();
        self.infer(&Inputs { shapes: &shapes, constant: &alloc::vec![true; shapes.len()] })?;
        Ok(ndarray::concatenate(Axis(self.axis), &views).expect("shapes were checked"))
    }
}

#[derive(Debug)]
struct FloatConcat {
    /// For each input, the length of its contiguous runs: the product of the axes from the concatenated one on.
    runs: Vec<usize>,
}

impl Kernel for FloatConcat {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let total: usize = self.runs.iter().sum();
        let mut at = 0;
        let output = output.into_slice::<f32>();
        for (&run, input) in self.runs.iter().zip(inputs) {
            if run > 0 {
                let to = output.chunks_exact_mut(total);
                to.zip(input.as_slice::<f32>().chunks_exact(run)).for_each(|(y, x)| y[at..at + run].copy_from_slice(x));
            }
            at += run;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ConcatOnCodes {
    concat: super::Concat<u8>,
    /// Shapes in memory for a batch of one.
    inputs: Vec<Vec<usize>>,
    output: Vec<usize>,
}

impl Kernel for ConcatOnCodes {
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        // The axis counts the batch.
        let run = |shape: &Vec<usize>| shape[self.concat.axis().index() - 1..].iter().product::<usize>();
        let (stride, mut first) = (run(&self.output), 0);
        for (i, (shape, table)) in self.inputs.iter().zip(self.concat.tables()).enumerate() {
            let run = run(shape);
            let copy = micro::StridedCopy::of_rows([node.x[i].len() / run, run], stride, first);
            let table = table.as_ref().map_or(Region::default(), |table| table.write_micro(node));
            node.copy(copy.map(|copy| micro::StridedCopy { table, ..copy }), i)?;
            first += run;
        }
        Ok(())
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let views = inputs.iter().zip(&self.inputs).map(|(x, shape)| batch_of(x.as_slice(), shape, images));
        let mut out = batch_of_mut(output.into_slice(), &self.output, images);
        self.concat.forward_into(&views.collect::<Vec<_>>(), &mut out)
    }
}
