//! Operators that only copy elements: one kernel for floats and codes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::kernel::{Kernel, Kind, Scalar, Scratch, Values, ValuesMut};
use super::nhwc::{Dims, in_order, logical};
use super::operator::{CodeNode, Constant, FloatNode, Inputs, IntTensor, Layouts, OnCodes, Operator};
use super::shape::{Shape, elements};
use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::micro::{self, StepWriter, Written};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// An operator of one input whose output elements are elements of the input.
///
/// It describes where they come from by moving the indices of elements. The kernels of all element types and the
/// evaluation of constants follow from that.
pub(crate) trait Movement {
    fn name(&self) -> &'static str;

    /// Checks the attributes as far as they do not depend on shapes.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Checks the shape of the input and returns the shape of the output.
    fn infer(&self, x: &[usize]) -> Result<Shape>;

    /// Moves the elements of a logical tensor. Its shape has been checked.
    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32>;

    /// See [`Operator::write_onnx`].
    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String>;

    /// Returns whether the axes change, so that a layout of the input means nothing for the output.
    fn changes_axes(&self) -> bool {
        false
    }

    /// See [`Operator::commutes_with_scaling`].
    fn commutes_with_scaling(&self, _x: &[usize], _y: &[usize]) -> bool {
        false
    }
}

impl<M: Movement> Operator for M {
    fn name(&self) -> &'static str {
        Movement::name(self)
    }

    fn check(&self) -> Result<()> {
        Movement::check(self)
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        Movement::infer(self, inputs.x())
    }

    fn layouts(&self) -> Layouts {
        if self.changes_axes() { Layouts::Any } else { Layouts::Same }
    }

    fn evaluate(&self, inputs: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        Some(evaluate(self, inputs[0].view()))
    }

    fn evaluate_ints(&self, inputs: &[&IntTensor]) -> Option<Result<ArrayD<i64>>> {
        Some(evaluate(self, inputs[0].view()))
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(Move::new(self, node.x(), node.output)?))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        match node.same_params() {
            true => Move::new(self, node.x(), node.output).map_or(Ok(OnCodes::Alias), OnCodes::kernel),
            false => Ok(OnCodes::Float),
        }
    }

    fn keeps_range(&self) -> bool {
        true
    }

    fn commutes_with_scaling(&self, inputs: &Inputs<'_>, output: &[usize]) -> bool {
        Movement::commutes_with_scaling(self, inputs.x(), output)
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        Movement::write_onnx(self, node)
    }
}

/// Moves the elements of a constant of any type.
fn evaluate<T: Copy>(movement: &dyn Movement, x: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
    elements(&movement.infer(x.shape())?)?;
    let values: Vec<T> = x.iter().copied().collect();
    Ok(movement.rearrange(indices(x.shape()).view()).mapv(|i| values[i as usize]))
}

/// The index of each element in row-major order.
fn indices(shape: &[usize]) -> ArrayD<u32> {
    let len = shape.iter().product::<usize>() as u32;
    ArrayD::from_shape_vec(IxDyn(shape), (0..len).collect()).expect("one index for each element")
}

/// Copies runs of elements from anywhere in the input to the output.
#[derive(Debug)]
struct Move {
    /// The length of the input of one sample.
    input: usize,
    /// The position in the input of each run of the output.
    starts: Vec<u32>,
    /// The length of the runs.
    run: usize,
}

impl Move {
    /// `None` if the output is the input.
    fn new(movement: &dyn Movement, x: Dims<'_>, y: Dims<'_>) -> Option<Self> {
        let memory = indices(&x.in_memory());
        let memory = memory.as_slice().expect("indices are in row-major order");
        let moved = movement.rearrange(logical(memory, x.shape, x.layout));
        let moved: Vec<u32> = in_order(moved.view(), y.layout).iter().copied().collect();
        let run = common_run(&moved);
        if run == memory.len() && moved.first() == Some(&0) && moved.len() == run {
            return None;
        }
        let starts = moved.iter().copied().step_by(run.max(1)).collect();
        Some(Self { input: memory.len(), starts, run })
    }

    fn copy<T: Scalar>(&self, x: &[T], y: &mut [T]) {
        let samples = x.chunks_exact(self.input.max(1)).zip(y.chunks_exact_mut((self.starts.len() * self.run).max(1)));
        for (x, y) in samples {
            if self.run == 1 {
                y.iter_mut().zip(&self.starts).for_each(|(y, &start)| *y = x[start as usize]);
                continue;
            }
            for (y, &start) in y.chunks_exact_mut(self.run).zip(&self.starts) {
                y.copy_from_slice(&x[start as usize..][..self.run]);
            }
        }
    }
}

impl Kernel for Move {
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        node.copy(micro::StridedCopy::of_runs(&self.starts, self.run), 0)
    }

    fn size_in_bytes(&self) -> usize {
        size_of_val(&self.starts[..])
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        match output.kind() {
            Kind::F32 => self.copy(inputs[0].as_slice::<f32>(), output.into_slice()),
            Kind::Code => self.copy(inputs[0].as_slice::<u8>(), output.into_slice()),
        }
        Ok(())
    }
}

/// The greatest length that divides all runs of successive indices, from the start of each run.
fn common_run(indices: &[u32]) -> usize {
    let (mut common, mut start) = (0, 0);
    for end in 1..=indices.len() {
        if indices.get(end) != Some(&(indices[end - 1].wrapping_add(1))) {
            common = gcd(common, end - start);
            start = end;
        }
    }
    common
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
