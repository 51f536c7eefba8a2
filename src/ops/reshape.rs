//! `Reshape` in a graph: attributes, shape inference, kernel.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ndarray::ArrayViewMut;

use super::kernel::{Kernel, Scalar, Scratch, Values, ValuesMut};
use super::nhwc::{nhwc_is_nchw, to_nchw, to_nhwc};
use super::operator::{CodeNode, FloatNode, Inputs, OnCodes, Operator};
use super::shape::{Shape, elements};
use crate::error::{Error, Result};

/// The same elements, in row-major order, in another shape; the batch stays (ONNX: `Reshape`, `Flatten`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reshape {
    /// The shape without the batch.
    pub shape: Vec<usize>,
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let x = inputs.x();
        let mut full = alloc::vec![x.first().copied().unwrap_or(1)];
        full.extend(&self.shape);
        if elements(&full)? != elements(x)? {
            return Err(Error::shape("reshaped tensor", x, &full));
        }
        Ok(full)
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let alias = nhwc_is_nchw(node.x()) && nhwc_is_nchw(node.output);
        (!alias).then(|| Box::new(TransposedReshape::<f32>::new(node.x(), node.output)) as Box<dyn Kernel>)
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        if !node.same_params() {
            return Ok(OnCodes::Float);
        }
        if nhwc_is_nchw(node.x()) && nhwc_is_nchw(node.output) {
            return Ok(OnCodes::Alias);
        }
        OnCodes::kernel(TransposedReshape::<u8>::new(node.x(), node.output))
    }

    fn keeps_range(&self) -> bool {
        true
    }

    /// A reshape keeps the channels where it drops a height and a width of 1.
    fn commutes_with_scaling(&self, inputs: &Inputs<'_>, output: &[usize]) -> bool {
        let x = inputs.x();
        x.len() == 4 && output.len() == 2 && x[1] == output[1]
    }
}

/// Reshapes where NHWC and NCHW differ: transposes to NCHW, reshapes, transposes back.
#[derive(Debug)]
struct TransposedReshape<T> {
    input: Vec<usize>,
    output: Vec<usize>,
    element: PhantomData<T>,
}

impl<T: Scalar> TransposedReshape<T> {
    fn new(input: &[usize], output: &[usize]) -> Self {
        Self { input: input.into(), output: output.into(), element: PhantomData }
    }
}

impl<T: Scalar> Kernel for TransposedReshape<T> {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (mut input, mut shape) = (self.input.clone(), self.output.clone());
        (input[0], shape[0]) = (images, images);
        let x = to_nchw(inputs[0].as_slice::<T>(), &input);
        let x = x.to_shape(&shape[..]).expect("shapes were checked when the graph was made");
        let x = to_nhwc(x.view());
        let mut y = ArrayViewMut::from_shape(x.raw_dim(), output.into_slice::<T>()).expect("lengths were planned");
        y.assign(&x);
        Ok(())
    }
}
