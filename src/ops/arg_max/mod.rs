//! Positions of the greatest or smallest elements.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;

use ndarray::Axis;

use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::nhwc::OwnedDims;
use super::operator::{FloatNode, Inputs, Layouts, Operator};
use super::shape::Shape;
use crate::error::{Error, Result};

/// The position of the greatest element along an axis, which has length 1 afterwards (ONNX: `ArgMax` and `ArgMin` with
/// `keepdims`). A NaN is greater than a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ArgMax {
    /// The axis.
    pub axis: usize,
    /// Takes the smallest element instead.
    pub smallest: bool,
    /// Takes the last of equal elements, not the first one.
    pub last: bool,
}

impl Operator for ArgMax {
    fn name(&self) -> &'static str {
        if self.smallest { "ArgMin" } else { "ArgMax" }
    }

    fn layouts(&self) -> Layouts {
        Layouts::Any
    }

    fn takes_exact_values(&self, _: usize) -> bool {
        true
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let mut shape = inputs.x().to_vec();
        let len = shape.get_mut(self.axis).ok_or_else(|| Error::axis(inputs.x().len(), self.axis))?;
        if *len == 0 {
            return Err(Error::layout("input", "at least one element along the axis", inputs.x()));
        }
        *len = 1;
        Ok(shape)
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(ArgMaxKernel { op: *self, input: node.x().into(), output: node.output.into() }))
    }
}

#[derive(Debug)]
struct ArgMaxKernel {
    op: ArgMax,
    input: OwnedDims,
    output: OwnedDims,
}

impl Kernel for ArgMaxKernel {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [x_len, y_len] = [&self.input, &self.output].map(|dims| dims.len().max(1));
        let samples = inputs[0].as_slice::<f32>().chunks_exact(x_len);
        for (x, y) in samples.zip(output.into_slice::<f32>().chunks_exact_mut(y_len)) {
            let (x, mut y) = (self.input.view(x), self.output.view_mut(y));
            let lanes = x.lanes(Axis(self.op.axis)).into_iter();
            for (x, y) in lanes.zip(y.lanes_mut(Axis(self.op.axis)).into_iter().flatten()) {
                *y = self.op.position(x.iter().copied()) as f32;
            }
        }
        Ok(())
    }
}

impl ArgMax {
    fn position(&self, x: impl Iterator<Item = f32>) -> usize {
        let mut best = (0, f32::NAN);
        for (i, x) in x.enumerate() {
            let better = if self.smallest { x < best.1 } else { x > best.1 };
            if i == 0 || !best.1.is_nan() && (better || x.is_nan() || self.last && x == best.1) {
                best = (i, x);
            }
        }
        best.0
    }
}
