//! `MatMul` of two activations in a graph: shape inference, kernel.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Ix2};

use crate::error::{Error, Result, check_shapes};
use crate::ops::float_matmul;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{to_nchw, to_nchw_mut};
use crate::ops::operator::{FloatNode, Inputs, Operator};
use crate::ops::shape::{Shape, broadcast};

/// `A · B` of matrices, the last two axes; the axes before them broadcast (ONNX: `MatMul`). Either may be constant. See
/// [`Linear`](crate::graph::op::Linear) for a product with weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MatMul;

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (2..=2, "2")
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [a, b] = [inputs.shapes[0], inputs.shapes[1]];
        let ([a_batch @ .., m, k], [b_batch @ .., rows, n]) = (a, b) else {
            let found = alloc::format!("shapes {a:?} and {b:?}");
            return Err(Error::Argument { what: "factors", expected: "tensors of rank 2 or more", found });
        };
        if a.len() != b.len() {
            let found = alloc::format!("shapes {a:?} and {b:?}");
            return Err(Error::Argument { what: "factors", expected: "tensors of equal rank", found });
        }
        check_shapes("B", &[*k, *n], &[*rows, *n])?;
        let mut shape = broadcast(a_batch, b_batch)?;
        shape.extend([m, n]);
        Ok(shape)
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(Products { shapes: [node.inputs[0], node.inputs[1], node.output].map(<[usize]>::to_vec) }))
    }
}

#[derive(Debug)]
struct Products {
    /// The logical shapes of both factors and of the output.
    shapes: [Vec<usize>; 3],
}

impl Kernel for Products {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let lens = self.shapes.each_ref().map(|shape| shape.iter().product::<usize>().max(1));
        let a = inputs[0].as_slice::<f32>().chunks_exact(lens[0]);
        let b = inputs[1].as_slice::<f32>().chunks_exact(lens[1]);
        for ((a, b), y) in a.zip(b).zip(output.into_slice::<f32>().chunks_exact_mut(lens[2])) {
            let [a_shape, b_shape, y_shape] = &self.shapes;
            let batch = &y_shape[..y_shape.len() - 2];
            let wide = |x: ArrayViewD<'_, f32>| {
                let matrix = &x.shape()[x.ndim() - 2..];
                [batch, matrix].concat()
            };
            let (a, b) = (to_nchw(a, a_shape), to_nchw(b, b_shape));
            let a = a.broadcast(wide(a.view())).expect("shapes were checked");
            let b = b.broadcast(wide(b.view())).expect("shapes were checked");
            multiply(a, b, to_nchw_mut(y, y_shape));
        }
        Ok(())
    }
}

/// Multiplies all matrices of tensors with the same axes before the last two.
fn multiply(a: ArrayViewD<'_, f32>, b: ArrayViewD<'_, f32>, mut y: ArrayViewMutD<'_, f32>) {
    if y.ndim() > 2 {
        for ((a, b), y) in a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0))).zip(y.axis_iter_mut(Axis(0))) {
            multiply(a, b, y);
        }
        return;
    }
    if let (Ok(a), Ok(b), Ok(y)) =
        (a.into_dimensionality::<Ix2>(), b.into_dimensionality::<Ix2>(), y.view_mut().into_dimensionality::<Ix2>())
    {
        float_matmul(a, b, y);
    }
}
