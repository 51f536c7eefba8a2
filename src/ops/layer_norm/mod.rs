//! Layer normalization.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayView1, ArrayViewMut1, Axis};

use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::nhwc::{batch_of, batch_of_mut};
use super::operator::{FloatNode, Inputs, Operator};
use super::shape::{Shape, check_finite};
use super::unary::math::fold;
use crate::error::{Error, Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::simd::{self, Task};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `(X - mean) / sqrt(variance + epsilon) * scale + bias` along the last axis, with the mean and the variance of each row.
/// `scale` and `bias` are `[length of the axis]` (ONNX: `LayerNormalization`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerNorm {
    /// Added to the variance, so that the root is not 0.
    pub epsilon: f32,
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (1..=3, "1 to 3 (input, scale, bias)")
    }

    fn check(&self) -> Result<()> {
        check_finite("epsilon", [self.epsilon])
    }

    fn has_parameters(&self) -> bool {
        true
    }

    fn has_channel_parameters(&self) -> bool {
        true
    }

    fn supports_clamp(&self) -> bool {
        false
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let x = inputs.x();
        let len = *x.last().ok_or_else(|| Error::axis(0, 0))?;
        inputs.shapes[1..].iter().try_for_each(|p| check_shapes("parameter of the normalization", &[len], p))?;
        Ok(x.to_vec())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let x = node.x();
        let (len, axis) = (x[x.len() - 1], x.axis(x.len() - 1));
        let scale = node.vector(1).unwrap_or_else(|| alloc::vec![1.0; len]);
        let bias = node.vector(2).unwrap_or_else(|| alloc::vec![0.0; len]);
        Some(Box::new(Normalize { shape: x.in_memory(), axis, epsilon: self.epsilon, scale, bias }))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

#[derive(Debug)]
struct Normalize {
    /// The shape in memory for a batch of one.
    shape: Vec<usize>,
    axis: usize,
    epsilon: f32,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Kernel for Normalize {
    fn size_in_bytes(&self) -> usize {
        size_of_val(&self.scale[..]) + size_of_val(&self.bias[..])
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        if self.axis + 1 == self.shape.len() {
            let len = self.scale.len().max(1);
            for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
                y.copy_from_slice(x);
                simd::run(NormalizeRow { layer: self, y });
            }
            return Ok(());
        }
        let axis = Axis(self.axis + 1);
        let (x, mut y) = (batch_of(x, &self.shape, images), batch_of_mut(y, &self.shape, images));
        let mut row = alloc::vec![0.0; self.scale.len()];
        for (x, mut y) in x.lanes(axis).into_iter().zip(y.lanes_mut(axis)) {
            ArrayViewMut1::from(&mut row[..]).assign(&x);
            simd::run(NormalizeRow { layer: self, y: &mut row });
            y.assign(&ArrayView1::from(&row[..]));
        }
        Ok(())
    }
}

/// Normalizes a row in place.
struct NormalizeRow<'a> {
    layer: &'a Normalize,
    y: &'a mut [f32],
}

impl Task for NormalizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layer: Normalize { epsilon, scale, bias, .. }, y } = self;
        let len = y.len().max(1) as f32;
        let mean = fold(y, 0.0, |y| y, |sum, y| sum + y) / len;
        y.iter_mut().for_each(|y| *y -= mean);
        let variance = fold(y, 0.0, |y| y * y, |sum, y| sum + y) / len;
        let factor = 1.0 / num_traits::Float::sqrt(variance + epsilon);
        for ((y, scale), bias) in y.iter_mut().zip(scale).zip(bias) {
            *y = *y * factor * scale + bias;
        }
    }
}
