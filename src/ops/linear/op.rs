//! `Linear` in a graph: shape inference, choice of kernels.

use alloc::boxed::Box;

use super::float;
use crate::error::{Error, Result, check_shapes};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::kernel::Kernel;
use crate::ops::operator::{FloatNode, Inputs, Layer, Operator};
use crate::ops::shape::{Shape, ranked};
use crate::window::Window;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `X · Wᵀ + B` for `X: [batch, .., in]`, weights `W: [out, in]` and an optional bias `B: [out]` (ONNX: `Gemm` with
/// `transB = 1`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Linear;

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (2..=3, "2 or 3 (input, weights, bias)")
    }

    /// A convolution with a kernel of 1×1 on an image of one row.
    fn layer(&self) -> Option<Layer> {
        Some(Layer { window: Window::new(), groups: 1 })
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let x = inputs.x();
        let Some((&depth, outer)) = x.split_last().filter(|_| x.len() >= 2 && x.len() != 4) else {
            return Err(Error::layout("input", "[batch, in], or [batch, .., in] of another rank than 4", x));
        };
        let [out, w_depth] = ranked("weights", "a matrix [out, in]", inputs.shapes[1])?;
        check_shapes("weights", &[out, depth], &[out, w_depth])?;
        inputs.shapes.get(2).map_or(Ok(()), |bias| check_shapes("bias", &[out], bias))?;
        Ok([outer, &[out]].concat())
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let weights = node.weights(1).expect("checked when the graph was made");
        Some(Box::new(float::Linear::new(weights, node.vector(2), node.clamp)))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write(node)
    }
}
