//! Functions of one tensor, element by element.

pub(crate) mod function;
mod lookup;
pub(crate) mod math;
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
use crate::micro::{self, StepWriter, Written};
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
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        let (table, len) = (self.0.write_micro(node), node.y.len());
        node.copy(micro::StridedCopy::of_rows([1, len], len, 0).map(|copy| micro::StridedCopy { table, ..copy }), 0)
    }

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
        simd::run(Apply { function: self.activation, x, y });
        Ok(())
    }
}

struct Apply<'a> {
    function: Activation,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Task for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { function, x, y } = self;
        // The function is chosen outside of the loops. Each is compiled for each instruction set.
        match function {
            Activation::Clip(clamp) => {
                let (low, high) = clamp.bounds();
                each(x, y, |x| clamp_f32(x, low, high));
            }
            Activation::Sigmoid => each(x, y, |x| Activation::Sigmoid.eval(x)),
            Activation::Tanh => each(x, y, |x| Activation::Tanh.eval(x)),
            Activation::Silu => each(x, y, |x| Activation::Silu.eval(x)),
            Activation::HardSwish => each(x, y, |x| Activation::HardSwish.eval(x)),
            Activation::Gelu => each(x, y, |x| Activation::Gelu.eval(x)),
            Activation::GeluTanh => each(x, y, |x| Activation::GeluTanh.eval(x)),
            Activation::Exp => each(x, y, |x| Activation::Exp.eval(x)),
            Activation::Sqrt => each(x, y, |x| Activation::Sqrt.eval(x)),
            function => any(function, x, y),
        }
    }
}

#[inline(always)]
fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

/// Evaluates a function that is chosen for each element, compiled once.
#[inline(never)]
fn any(function: Activation, x: &[f32], y: &mut [f32]) {
    each(x, y, |x| function.eval(x));
}
