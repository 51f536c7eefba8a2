//! Functions of one tensor, element by element.

pub(crate) mod function;
mod lookup;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;

use ndarray::{ArrayD, ArrayView1, ArrayViewMut1};

use super::clamp::Clamp;
use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::operator::{CodeNode, Constant, FloatNode, Inputs, OnCodes, Operator};
use super::shape::Shape;
use crate::affine::clamp_f32;
use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::simd::{self, Task};
#[cfg(feature = "onnx")]
use alloc::string::String;
use function::Activation;
pub use lookup::Lookup;

impl Operator for Activation {
    fn name(&self) -> &'static str {
        Activation::name(*self)
    }

    fn check(&self) -> Result<()> {
        Activation::check(*self)
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        Ok(inputs.x().to_vec())
    }

    fn evaluate(&self, inputs: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        Some(Ok(inputs[0].mapv(|x| self.eval(x))))
    }

    fn float_kernel(&self, _: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(Activate { activation: *self }))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        OnCodes::kernel(LookupKernel(Lookup::new(node.params(), node.to, |x| self.eval(x as f32).into())?))
    }

    fn saturates(&self) -> bool {
        matches!(self, Activation::Sigmoid | Activation::HardSigmoid { .. } | Activation::Tanh)
    }

    fn as_clamp(&self) -> Option<Clamp> {
        if let Activation::Clip(clamp) = *self { Some(clamp) } else { None }
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(*self, node)
    }
}

#[derive(Debug)]
struct LookupKernel(Lookup<u8, u8>);

impl Kernel for LookupKernel {
    fn size_in_bytes(&self) -> usize {
        256
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        self.0.forward_into(&ArrayView1::from(inputs[0].as_slice()), &mut ArrayViewMut1::from(output.into_slice()))
    }
}

#[derive(Debug)]
struct Activate {
    activation: Activation,
}

impl Kernel for Activate {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        if let Activation::Clip(clamp) = self.activation {
            simd::run(Clip { x, y, clamp });
        } else {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = self.activation.eval(x));
        }
        Ok(())
    }
}

struct Clip<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    clamp: Clamp,
}

impl Task for Clip<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (low, high) = self.clamp.bounds();
        self.y.iter_mut().zip(self.x).for_each(|(y, &x)| *y = clamp_f32(x, low, high));
    }
}
