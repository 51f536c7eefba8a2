//! `Conv` in a graph: attributes, shape inference, choice of kernels.

use alloc::boxed::Box;

use super::float::{self, Geometry};
use crate::error::{Error, Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::kernel::Kernel;
use crate::ops::operator::{FloatNode, Inputs, Layer, Layouts, Operator};
use crate::ops::shape::{Shape, place, ranked};
use crate::window::Window;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// Convolution of `X: [batch, in, h, w]` with weights `[out, in / groups, kh, kw]`, plus an optional bias `[out]`
/// (ONNX: `Conv`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Conv {
    /// Strides, dilations and padding of the kernel.
    pub window: Window,
    /// Number of channel groups: each group of outputs reads its own group of inputs.
    pub groups: usize,
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (2..=3, "2 or 3 (input, weights, bias)")
    }

    fn layer(&self) -> Option<Layer> {
        Some(Layer { window: self.window, groups: self.groups })
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let (groups, inputs) = (self.groups, inputs.shapes);
        let [out, depth, kh, kw] = ranked("weights", "4-D [out, in / groups, height, width]", inputs[1])?;
        let ([n, channels, ..], placed) = place(inputs[0], [kh, kw], &self.window)?;
        if groups == 0 || !channels.is_multiple_of(groups) || !out.is_multiple_of(groups) {
            let found = alloc::format!("{groups} groups for {channels} input and {out} output channels");
            return Err(Error::Argument { what: "groups", expected: "a divisor of both numbers of channels", found });
        }
        check_shapes("weights", &[out, channels / groups, kh, kw], &[out, depth, kh, kw])?;
        inputs.get(2).map_or(Ok(()), |bias| check_shapes("bias", &[out], bias))?;
        Ok(alloc::vec![n, out, placed.output[0], placed.output[1]])
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let kernel = [node.inputs[1][2], node.inputs[1][3]];
        let geometry = Geometry::new(kernel, &self.window, self.groups, &node.x(), &node.output);
        let weights = node.weights(1).expect("checked when the graph was made");
        Some(float::kernel(geometry, weights, node.vector(2), node.clamp))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        crate::io::onnx::export::conv(self, node)
    }
}
