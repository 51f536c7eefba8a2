//! Batch normalization.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::affine::clamp_f32;
use crate::error::{Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::clamp::Clamp;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::operator::{Constant, FloatNode, Inputs, Operator};
use crate::ops::shape::{Shape, channels, check_finite};
use crate::simd::{self, Task};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `(X - mean) / sqrt(variance + epsilon) * scale + shift` per channel, the second axis of `X`. The inputs after `X`
/// are `scale`, `shift`, `mean` and `variance`, each `[channels]` (ONNX: `BatchNormalization`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BatchNorm {
    /// Added to the variance, so that the root is not 0.
    pub epsilon: f32,
}

impl Operator for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (5..=5, "5 (input, scale, shift, mean, variance)")
    }

    fn check(&self) -> Result<()> {
        check_finite("epsilon", [self.epsilon])
    }

    fn has_parameters(&self) -> bool {
        true
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let channels = channels(inputs.x())?;
        let parameters = &inputs.shapes[1..];
        parameters.iter().try_for_each(|p| check_shapes("parameter of the normalization", &[channels], p))?;
        Ok(inputs.x().to_vec())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let constants = [1, 2, 3, 4].map(|i| node.values(i).expect("checked when the graph was made"));
        let factors = self.factors(&constants).into_iter();
        let (scale, shift) = factors.map(|(scale, shift)| (scale as f32, shift as f32)).unzip();
        let run = node.x().in_memory()[node.x().axis(1) + 1..].iter().product();
        Some(Box::new(ChannelAffine { run, scale, shift, clamp: node.clamp }))
    }

    fn channel_affine(&self, _: &[usize], axis: usize, constants: &[Option<Constant>]) -> Option<Vec<(f64, f64)>> {
        if axis != 1 {
            return None;
        }
        let constants: Option<Vec<Constant>> = constants[1..].iter().cloned().collect();
        Some(self.factors(&constants?.try_into().ok()?))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

impl BatchNorm {
    /// Rewrites the normalization as `x * factor + shift` per channel: `factor = scale / sqrt(variance + epsilon)` and
    /// `shift = shift - mean * factor`.
    fn factors(&self, [scale, shift, mean, variance]: &[Constant; 4]) -> Vec<(f64, f64)> {
        let parameters = scale.iter().zip(shift).zip(mean).zip(variance);
        let factors = parameters.map(|(((&scale, &shift), &mean), &variance)| {
            let factor = scale as f64 / num_traits::Float::sqrt(variance as f64 + self.epsilon as f64);
            (factor, shift as f64 - mean as f64 * factor)
        });
        factors.collect()
    }
}

/// `x * scale + shift` per channel.
#[derive(Debug)]
struct ChannelAffine {
    /// The neighbouring elements of one channel in memory.
    run: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    clamp: Clamp,
}

impl Kernel for ChannelAffine {
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
    layer: &'a ChannelAffine,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Task for ScaleAndShift<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layer: ChannelAffine { run, scale, shift, clamp }, x, y } = self;
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
