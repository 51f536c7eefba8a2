//! `Linear` in a graph: shape inference, choice of kernels.

use alloc::boxed::Box;

use super::float;
use crate::error::{Result, check_shapes};
use crate::ops::kernel::Kernel;
use crate::ops::operator::{FloatNode, Inputs, Layer, Operator};
use crate::ops::shape::{Shape, ranked};
use crate::window::Window;

/// `X · Wᵀ + B` for `X: [batch, in]`, weights `W: [out, in]` and an optional bias `B: [out]` (ONNX: `Gemm` with
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

    /// A convolution with a kernel of 1×1 on one pixel.
    fn layer(&self) -> Option<Layer> {
        Some(Layer { window: Window::new(), groups: 1 })
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [n, depth] = ranked("input", "a matrix [batch, in]", inputs.x())?;
        let [out, w_depth] = ranked("weights", "a matrix [out, in]", inputs.shapes[1])?;
        check_shapes("weights", &[out, depth], &[out, w_depth])?;
        inputs.shapes.get(2).map_or(Ok(()), |bias| check_shapes("bias", &[out], bias))?;
        Ok(alloc::vec![n, out])
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let weights = node.weights(1).expect("checked when the graph was made");
        Some(Box::new(float::Linear::new(weights, node.vector(2), node.clamp)))
    }
}
