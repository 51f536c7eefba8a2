//! `Resize` in a graph: attributes, shape inference, kernel.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::micro::{self, StepWriter, Written};
use crate::ops::kernel::{Kernel, Scalar, Scratch, Values, ValuesMut};
use crate::ops::operator::{CodeNode, FloatNode, Inputs, Layouts, OnCodes, Operator};
use crate::ops::shape::{NCHW, Shape, ranked};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// Nearest-neighbour upsampling of height and width by integer factors (ONNX: `Resize`, mode `nearest`, coordinates
/// `asymmetric`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Resize {
    /// Factors of height and width.
    pub scales: [usize; 2],
}

impl Operator for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [n, c, h, w] = ranked("input", NCHW, inputs.x())?;
        Ok(alloc::vec![n, c, h.saturating_mul(self.scales[0]), w.saturating_mul(self.scales[1])])
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(Upsample::<f32>::new(self.scales, &node.x())))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        if node.same_params() {
            OnCodes::kernel(Upsample::<u8>::new(self.scales, &node.x()))
        } else {
            Ok(OnCodes::Float)
        }
    }

    fn keeps_range(&self) -> bool {
        true
    }

    fn commutes_with_scaling(&self, _: &Inputs<'_>, _: &[usize]) -> bool {
        true
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write(self.scales.map(|scale| scale as f32), "nearest", "asymmetric", None, node)
    }
}

/// Nearest-neighbour upsampling by integer factors.
#[derive(Debug)]
struct Upsample<T> {
    scales: [usize; 2],
    width: usize,
    channels: usize,
    element: PhantomData<T>,
}

impl<T: Scalar> Upsample<T> {
    fn new(scales: [usize; 2], input: &[usize]) -> Self {
        Self { scales, width: input[3], channels: input[1], element: PhantomData }
    }
}

impl<T: Scalar> Kernel for Upsample<T> {
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        let [down, across] = self.scales;
        let height = node.x[0].len() / (self.width * self.channels);
        let start = |y: usize, x: usize| ((y / down * self.width + x / across) * self.channels) as u32;
        let starts: Vec<u32> =
            (0..height * down).flat_map(|y| (0..self.width * across).map(move |x| start(y, x))).collect();
        node.copy(micro::StridedCopy::of_runs(&starts, self.channels), 0)
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [rows, columns] = self.scales;
        let (row, output) = (self.width * self.channels, output.into_slice::<T>());
        if output.is_empty() {
            return Ok(());
        }
        let output = output.chunks_exact_mut(row * columns * rows);
        for (x, y) in inputs[0].as_slice::<T>().chunks_exact(row).zip(output) {
            let (first, copies) = y.split_at_mut(row * columns);
            for (x, y) in x.chunks_exact(self.channels).zip(first.chunks_exact_mut(self.channels * columns)) {
                y.chunks_exact_mut(self.channels).for_each(|y| y.copy_from_slice(x));
            }
            copies.chunks_exact_mut(row * columns).for_each(|y| y.copy_from_slice(first));
        }
        Ok(())
    }
}
