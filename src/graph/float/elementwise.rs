//! Elementwise float operators, batch normalization and softmax.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;

use ndarray::{ArrayD, ArrayView, ArrayViewMut, Axis, Zip};

use super::Weights;
use crate::affine::clamp_f32;
use crate::error::Result;
use crate::graph::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::graph::layout::{broadcast_constant, broadcast_shape, nhwc_axis, nhwc_batch, nhwc_shape};
use crate::graph::network::Constant;
use crate::graph::op::{Activation, Clamp};
use crate::simd::{self, Task};

/// [`Op::Activation`](crate::graph::Op::Activation).
#[derive(Debug)]
pub(super) struct Activate {
    activation: Activation,
}

impl Activate {
    pub(super) fn new(activation: Activation) -> Self {
        Self { activation }
    }
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

/// [`Op::BatchNorm`](crate::graph::Op::BatchNorm): `x * scale + shift` per channel.
#[derive(Debug)]
pub(super) struct BatchNorm {
    /// The neighbouring elements of one channel in memory.
    run: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    clamp: Clamp,
}

impl BatchNorm {
    pub(super) fn new(
        x: &[usize],
        scale: &Constant,
        shift: &Constant,
        mean: &Constant,
        variance: &Constant,
        epsilon: f32,
        clamp: Clamp,
    ) -> Self {
        let factors = crate::graph::fold::batch_norm_factors(scale, shift, mean, variance, epsilon);
        let (scale, shift) = factors.into_iter().map(|(scale, shift)| (scale as f32, shift as f32)).unzip();
        let run = nhwc_shape(x)[nhwc_axis(1, x.len()) + 1..].iter().product();
        Self { run, scale, shift, clamp }
    }
}

impl Kernel for BatchNorm {
    fn size_in_bytes(&self) -> usize {
        size_of_val(&self.scale[..]) + size_of_val(&self.shift[..])
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        simd::run(ScaleAndShift { layer: self, x, y });
        Ok(())
    }
}

struct ScaleAndShift<'a> {
    layer: &'a BatchNorm,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Task for ScaleAndShift<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layer: BatchNorm { run, scale, shift, clamp }, x, y } = self;
        let (low, high) = clamp.bounds();
        let block = (run * scale.len()).max(1);
        for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
            if *run == 1 {
                for (((y, x), scale), shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                    *y = clamp_f32(x * scale + shift, low, high);
                }
                continue;
            }
            let runs = x.chunks_exact(*run).zip(y.chunks_exact_mut(*run));
            for ((x, y), (scale, shift)) in runs.zip(scale.iter().zip(shift)) {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = clamp_f32(x * scale + shift, low, high);
                }
            }
        }
    }
}

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

/// The kernel of [`Op::Add`](crate::graph::Op::Add) or [`Op::Mul`](crate::graph::Op::Mul), with broadcasting.
pub(super) fn binary<P: BinaryOp>(
    op: P,
    inputs: &[&[usize]],
    output: &[usize],
    constants: &[Option<Weights>],
    clamp: Clamp,
) -> Box<dyn Kernel> {
    let weights = |i: usize| constants.get(i).and_then(Option::as_ref);
    let constant = |i: usize| weights(i).map(|w| broadcast_constant(w.to_f32().into_owned(), output.len()));
    Box::new(Binary {
        op,
        shapes: [0, 1].map(|i| broadcast_shape(inputs[i], output.len())),
        output: output.into(),
        constants: [constant(0), constant(1)],
        clamp,
    })
}

#[derive(Debug)]
struct Binary<P> {
    op: P,
    /// The logical shapes of the operands, with the rank of the output.
    shapes: [Vec<usize>; 2],
    output: Vec<usize>,
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
                nhwc_batch(values, &self.shapes[i], images)
            }
        });
        let mut dims = nhwc_shape(&self.output);
        dims[0] = images;
        let mut y = ArrayViewMut::from_shape(&dims[..], y).expect("lengths were planned");
        let [a, b] = operands.each_ref().map(|o| o.broadcast(&dims[..]).expect("shapes were checked"));
        Zip::from(&mut y).and(&a).and(&b).for_each(|y, &a, &b| *y = self.clamp.apply(self.op.of(a, b)));
        Ok(())
    }
}

/// [`Op::Softmax`](crate::graph::Op::Softmax).
#[derive(Debug)]
pub(super) struct Softmax {
    shape: Vec<usize>,
    axis: Axis,
}

impl Softmax {
    pub(super) fn new(axis: usize, x: &[usize]) -> Self {
        Self { shape: x.into(), axis: Axis(nhwc_axis(axis, x.len())) }
    }
}

impl Kernel for Softmax {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let mut dims = nhwc_shape(&self.shape);
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
