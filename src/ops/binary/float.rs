//! Functions of two tensors on floats.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;

use ndarray::{ArrayD, Zip};

use crate::affine::clamp_f32;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{broadcast_batch, broadcast_batch_mut, broadcast_shape};
use crate::ops::operator::FloatNode;
use crate::simd::{self, Task};

/// A binary elementwise operator.
pub(super) trait BinaryOp: Debug + Copy + Send + Sync + 'static {
    fn of(self, a: f32, b: f32) -> f32;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Add;

impl BinaryOp for Add {
    #[inline(always)]
    fn of(self, a: f32, b: f32) -> f32 {
        a + b
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Mul;

impl BinaryOp for Mul {
    #[inline(always)]
    fn of(self, a: f32, b: f32) -> f32 {
        a * b
    }
}

/// The kernel of a binary operator, with broadcasting.
pub(super) fn kernel<P: BinaryOp>(op: P, node: &FloatNode<'_>) -> Box<dyn Kernel> {
    Box::new(Binary {
        op,
        shapes: [node.inputs[0], node.inputs[1], node.output].map(|shape| broadcast_shape(shape, node.output)),
        constants: [node.broadcast(0), node.broadcast(1)],
        clamp: node.clamp,
    })
}

#[derive(Debug)]
struct Binary<P> {
    op: P,
    /// The shapes in memory of the operands and the output, which broadcast.
    shapes: [Vec<usize>; 3],
    constants: [Option<ArrayD<f32>>; 2],
    clamp: Clamp,
}

/// Two operands of one shape.
struct SameShape<'a, P> {
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
    clamp: Clamp,
    op: P,
}

impl<P: BinaryOp> Task for SameShape<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (low, high) = self.clamp.bounds();
        for ((y, &a), &b) in self.y.iter_mut().zip(self.a).zip(self.b) {
            *y = clamp_f32(self.op.of(a, b), low, high);
        }
    }
}

impl<P: BinaryOp> Kernel for Binary<P> {
    fn size_in_bytes(&self) -> usize {
        self.constants.iter().flatten().map(|c| size_of::<f32>() * c.len()).sum()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let y = output.into_slice::<f32>();
        let variable = self.constants.each_ref().map(Option::is_none);
        if variable == [true, true] && self.shapes[0] == self.shapes[1] {
            let (a, b) = (inputs[0].as_slice(), inputs[1].as_slice());
            simd::run(SameShape { a, b, y, clamp: self.clamp, op: self.op });
            return Ok(());
        }
        // Only the operands that are not constant are inputs of the step.
        let mut activations = inputs.iter();
        let operands = [0, 1].map(|i| match &self.constants[i] {
            Some(constant) => constant.view(),
            None => {
                let values = activations.next().map_or(&[][..], |values| values.as_slice::<f32>());
                broadcast_batch(values, &self.shapes[i], images)
            }
        });
        let mut y = broadcast_batch_mut(y, &self.shapes[2], images);
        let [a, b] = operands.each_ref().map(|o| o.broadcast(y.raw_dim()).expect("shapes were checked"));
        Zip::from(&mut y).and(&a).and(&b).for_each(|y, &a, &b| *y = self.clamp.apply(self.op.of(a, b)));
        Ok(())
    }
}
