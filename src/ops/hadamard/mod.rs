//! Hadamard rotation of the last axis.

#[cfg(feature = "onnx")]
mod onnx;

use alloc::boxed::Box;

use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::operator::{FloatNode, Inputs, Operator};
use super::shape::Shape;
use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ptq;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `X · R` along the last axis, for the orthogonal `R` of [`ptq::Hadamard::new`] with the length of the axis and the seed.
/// Any rank but 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hadamard {
    /// The seed of the signs.
    pub seed: u64,
}

impl Operator for Hadamard {
    fn name(&self) -> &'static str {
        "Hadamard"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let x = inputs.x();
        if x.is_empty() || x.len() == 4 {
            return Err(Error::layout("input", "[batch, .., channels] of another rank than 4", x));
        }
        Ok(x.to_vec())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let x = node.x();
        Some(Box::new(Rotate(ptq::Hadamard::new(x[x.len() - 1], self.seed))))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

#[derive(Debug)]
struct Rotate(ptq::Hadamard);

impl Kernel for Rotate {
    fn size_in_bytes(&self) -> usize {
        self.0.size_in_bytes()
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let y = output.into_slice::<f32>();
        y.copy_from_slice(inputs[0].as_slice::<f32>());
        self.0.rotate_rows(y);
        Ok(())
    }
}
