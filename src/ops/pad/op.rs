//! `Pad` in a graph: attributes, shape inference, kernel.

use alloc::boxed::Box;

use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::micro::{self, StepWriter, Written};
use crate::ops::kernel::{Kernel, Scalar, Scratch, Values, ValuesMut};
use crate::ops::operator::{CodeNode, FloatNode, Inputs, Layouts, OnCodes, Operator};
use crate::ops::shape::{NCHW, Shape, ranked};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// Zero padding of height and width (ONNX: `Pad`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pad {
    /// Rows or columns added at the top, left, bottom and right.
    pub pads: [usize; 4],
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [n, c, h, w] = ranked("input", NCHW, inputs.x())?;
        let [top, left, bottom, right] = self.pads;
        let longer = |len: usize, a: usize, b: usize| len.saturating_add(a).saturating_add(b);
        Ok(alloc::vec![n, c, longer(h, top, bottom), longer(w, left, right)])
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(PadKernel::new(self.pads, &node.x(), &node.output, 0f32)))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        if !node.same_params() {
            return Ok(OnCodes::Float);
        }
        let (_, zero_point) = node.to.of_tensor("output")?;
        OnCodes::kernel(PadKernel::new(self.pads, &node.x(), &node.output, zero_point))
    }

    fn keeps_range(&self) -> bool {
        true
    }

    fn commutes_with_scaling(&self, _: &Inputs<'_>, _: &[usize]) -> bool {
        true
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write(self, node)
    }
}

#[derive(Debug)]
struct PadKernel<T> {
    /// Rows of the input and elements per row.
    input: [usize; 2],
    /// Rows of the output and elements per row.
    output: [usize; 2],
    /// Rows above the input and elements before each of its rows.
    before: [usize; 2],
    zero: T,
}

impl<T: Scalar> PadKernel<T> {
    /// Pads with `zero`: 0.0 or the zero point. Shapes are logical.
    fn new(pads: [usize; 4], input: &[usize], output: &[usize], zero: T) -> Self {
        let rows = |shape: &[usize]| [shape[2], shape[3] * shape[1]];
        Self { input: rows(input), output: rows(output), before: [pads[0], pads[1] * input[1]], zero }
    }
}

impl<T: Scalar> Kernel for PadKernel<T> {
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        let Values::Code(&[code]) = T::values(&[self.zero]) else { return Err("it computes on floats".into()) };
        let (width, [top, left]) = (self.output[1], self.before);
        let copy = micro::StridedCopy::of_rows(self.input, width, top * width + left);
        node.copy(copy.map(|copy| micro::StridedCopy { fill: code.into(), ..copy }), 0)
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let ([height, width], [top, left]) = (self.input, self.before);
        let output = output.into_slice::<T>();
        output.fill(self.zero);
        if height * width == 0 {
            return Ok(());
        }
        let images = output.chunks_exact_mut(self.output[0] * self.output[1]);
        for (y, x) in images.zip(inputs[0].as_slice::<T>().chunks_exact(height * width)) {
            let rows = y.chunks_exact_mut(self.output[1]).skip(top);
            rows.zip(x.chunks_exact(width)).for_each(|(y, x)| y[left..left + width].copy_from_slice(x));
        }
        Ok(())
    }
}
