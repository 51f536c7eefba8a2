//! `Softmax` in a graph: attributes, shape inference, kernels.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{Axis, Zip};

use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{batch_of, batch_of_mut, nhwc_axis, nhwc_shape};
use crate::ops::operator::{CodeNode, FloatNode, Inputs, OnCodes, Operator};
use crate::ops::shape::Shape;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `exp(x) / Σ exp(x)` along an axis (ONNX: `Softmax`).
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

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        if self.axis >= inputs.x().len() {
            return Err(Error::axis(inputs.x().len(), self.axis));
        }
        Ok(inputs.x().to_vec())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        // The kernel sees the batch as an axis of its own.
        let axis = Axis(nhwc_axis(self.axis, node.x().len()) + 1);
        Some(Box::new(FloatSoftmax { shape: nhwc_shape(node.x()), axis }))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        // The kernel takes the last axis in memory.
        if nhwc_axis(self.axis, node.x().len()) + 1 != node.x().len() {
            return Ok(OnCodes::Float);
        }
        let softmax = super::Softmax::new(node.params(), node.to)?;
        OnCodes::kernel(SoftmaxOnCodes { softmax, shape: nhwc_shape(node.x()) })
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        node.all("Softmax", alloc::vec![crate::io::onnx::export::writer::int("axis", self.axis)])
    }
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
}

impl Kernel for FloatSoftmax {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let x = batch_of(inputs[0].as_slice::<f32>(), &self.shape, images);
        let mut y = batch_of_mut(output.into_slice::<f32>(), &self.shape, images);
        for (x, mut y) in x.lanes(self.axis).into_iter().zip(y.lanes_mut(self.axis)) {
            // Subtracting the maximum keeps `exp` from overflowing.
            let max = x.fold(f32::NEG_INFINITY, |max, &x| max.max(x));
            Zip::from(&mut y).and(&x).for_each(|y, &x| *y = num_traits::Float::exp(x - max));
            let sum: f32 = y.sum();
            y.mapv_inplace(|y| y / sum);
        }
        Ok(())
    }
}
