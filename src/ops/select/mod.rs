//! Selection of elements by a condition.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;

use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::operator::{FloatNode, Inputs, Operator};
use super::shape::Shape;
use crate::error::{Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The second input where the first one is not 0, else the third one; all of one shape (ONNX: `Where`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Where;

impl Operator for Where {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (3..=3, "3 (condition, and two tensors)")
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        inputs.shapes[1..].iter().try_for_each(|shape| check_shapes("selected tensor", inputs.x(), shape))?;
        Ok(inputs.x().to_vec())
    }

    fn float_kernel(&self, _: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(SelectKernel))
    }

    fn takes_exact_values(&self, input: usize) -> bool {
        input == 0
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(node)
    }
}

#[derive(Debug)]
struct SelectKernel;

impl Kernel for SelectKernel {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [condition, a, b] = [0, 1, 2].map(|i| inputs[i].as_slice::<f32>());
        for (((y, condition), a), b) in output.into_slice::<f32>().iter_mut().zip(condition).zip(a).zip(b) {
            *y = if *condition != 0.0 { *a } else { *b };
        }
        Ok(())
    }
}
