//! Functions of two tensors on floats.

use alloc::vec::Vec;

use super::op::Binary;
use crate::affine::clamp_f32;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::broadcast_shape;
use crate::ops::operator::FloatNode;
use crate::simd::{self, Task};

#[derive(Debug)]
pub(super) struct BinaryOnFloats {
    function: Binary,
    /// The shapes in memory of the operands and the output, which broadcast. The first axis is the batch.
    shapes: [Vec<usize>; 3],
    constants: [Option<Vec<f32>>; 2],
    clamp: Clamp,
}

impl BinaryOnFloats {
    pub(super) fn new(function: Binary, node: &FloatNode<'_>) -> Self {
        let shapes = [node.inputs[0], node.inputs[1], node.output].map(|dims| broadcast_shape(dims.shape, node.output));
        let constant = |i| node.broadcast(i).map(|values| values.iter().copied().collect());
        Self { function, shapes, constants: [constant(0), constant(1)], clamp: node.clamp }
    }

    /// The axes of a batch from the outermost to the innermost: their lengths, and the distances of neighbouring elements
    /// in both operands. Axes along which both operands continue are one axis.
    fn axes(&self, images: usize) -> Vec<Axis> {
        let [a, b, y] = &self.shapes;
        let (mut axes, mut strides) = (Vec::<Axis>::new(), [1, 1]);
        for i in (0..y.len()).rev() {
            let len = if i == 0 { images } else { y[i] };
            let mut axis = Axis { len, strides: [0, 0] };
            for (operand, shape) in [a, b].into_iter().enumerate() {
                // A constant has no batch.
                let own = if i == 0 && self.constants[operand].is_none() { images } else { shape[i] };
                if own > 1 {
                    axis.strides[operand] = strides[operand];
                }
                strides[operand] *= own;
            }
            match axes.last_mut() {
                _ if len == 1 => {}
                Some(inner) if inner.continues_in(&axis) => inner.len *= len,
                _ => axes.push(axis),
            }
        }
        axes.reverse();
        axes
    }
}

#[derive(Debug, Clone, Copy)]
struct Axis {
    len: usize,
    strides: [usize; 2],
}

impl Axis {
    fn continues_in(&self, outer: &Axis) -> bool {
        (0..2).all(|i| outer.strides[i] == self.len * self.strides[i])
    }
}

impl Kernel for BinaryOnFloats {
    fn size_in_bytes(&self) -> usize {
        self.constants.iter().flatten().map(|c| size_of_val(&c[..])).sum()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let y = output.into_slice::<f32>();
        if y.is_empty() {
            return Ok(());
        }
        // Only the operands that are not constant are inputs of the step.
        let mut activations = inputs.iter();
        let [a, b] = self.constants.each_ref().map(|constant| match constant {
            Some(constant) => &constant[..],
            None => activations.next().map_or(&[][..], |values| values.as_slice::<f32>()),
        });
        self.walk(&self.axes(images), a, b, y);
        Ok(())
    }
}

impl BinaryOnFloats {
    /// Computes the elements of all axes.
    fn walk(&self, axes: &[Axis], a: &[f32], b: &[f32], y: &mut [f32]) {
        let (function, clamp) = (self.function, self.clamp);
        match axes {
            [] => simd::run(Run { function, a: &a[..1], b: &b[..1], y, clamp }),
            [Axis { len, strides }] => {
                let [a, b] =
                    [(a, strides[0]), (b, strides[1])].map(|(x, stride)| &x[..if stride == 0 { 1 } else { *len }]);
                simd::run(Run { function, a, b, y, clamp });
            }
            [Axis { len, strides }, inner @ ..] => {
                for (i, y) in y.chunks_exact_mut(y.len() / len).enumerate() {
                    self.walk(inner, &a[i * strides[0]..], &b[i * strides[1]..], y);
                }
            }
        }
    }
}

/// Neighbouring elements. An operand of one element is the same for all of them.
struct Run<'a> {
    function: Binary,
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
    clamp: Clamp,
}

/// Elements per choice of the function.
const CHUNK: usize = 64;

impl Task for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { function, a, b, y, clamp } = self;
        let repeated = [a, b].map(|x| [x[0]; CHUNK]);
        let single = [a.len() < y.len(), b.len() < y.len()];
        for (start, y) in (0..).step_by(CHUNK).zip(y.chunks_mut(CHUNK)) {
            let a = if single[0] { &repeated[0][..y.len()] } else { &a[start..][..y.len()] };
            let b = if single[1] { &repeated[1][..y.len()] } else { &b[start..][..y.len()] };
            // The function is chosen outside of the loops. Each is compiled for each instruction set.
            match function {
                Binary::Add => each(a, b, y, clamp, |a, b| Binary::Add.eval(a, b)),
                Binary::Sub => each(a, b, y, clamp, |a, b| Binary::Sub.eval(a, b)),
                Binary::Mul => each(a, b, y, clamp, |a, b| Binary::Mul.eval(a, b)),
                Binary::Div => each(a, b, y, clamp, |a, b| Binary::Div.eval(a, b)),
                function => any(function, a, b, y, clamp),
            }
        }
    }
}

#[inline(always)]
fn each(a: &[f32], b: &[f32], y: &mut [f32], clamp: Clamp, f: impl Fn(f32, f32) -> f32) {
    let (low, high) = clamp.bounds();
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        *y = clamp_f32(f(a, b), low, high);
    }
}

/// Evaluates a function that is chosen for each element, compiled once.
#[inline(never)]
fn any(function: Binary, a: &[f32], b: &[f32], y: &mut [f32], clamp: Clamp) {
    each(a, b, y, clamp, |a, b| function.eval(a, b));
}
