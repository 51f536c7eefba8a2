//! `Softmax` in a graph: attributes, shape inference, kernels.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayView, ArrayViewMut, ArrayViewMutD, Axis, Zip};

use crate::error::Result;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{memory_batch, nhwc_axis, nhwc_shape};
use crate::ops::operator::{CodeNode, FloatNode, Inputs, OnCodes, Operator};
use crate::ops::shape::{Shape, inner_axis};

/// `exp(x) / Σ exp(x)` along an axis other than the batch (ONNX: `Softmax`).
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

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        inner_axis(self.axis, inputs.x().len())?;
        Ok(inputs.x().to_vec())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let axis = Axis(nhwc_axis(self.axis, node.x().len()));
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
}

#[derive(Debug)]
struct SoftmaxOnCodes {
    softmax: super::Softmax<u8>,
    /// The shape in memory for a batch of one.
    shape: Vec<usize>,
}

impl Kernel for SoftmaxOnCodes {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let x = memory_batch(inputs[0].as_slice(), &self.shape, images);
        let mut out = ArrayViewMutD::from_shape(x.raw_dim(), output.into_slice()).expect("lengths were planned");
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
        let mut dims = self.shape.clone();
        dims[0] = images;
        let x = ArrayView::from_shape(&dims[..], inputs[0].as_slice::<f32>()).expect("lengths were planned");
        let mut y = ArrayViewMut::from_shape(&dims[..], output.into_slice::<f32>()).expect("lengths were planned");
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
