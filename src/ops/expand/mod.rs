//! Repetition of axes of length 1.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD};

use super::movement::Movement;
use super::shape::{Shape, broadcast};
use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The tensor broadcast to a shape: axes of length 1 are repeated, axes before the first one are added (ONNX: `Expand`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Expand {
    /// The shape to broadcast with.
    pub shape: Vec<usize>,
}

impl Movement for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        broadcast(x, &self.shape)
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        let shape = broadcast(x.shape(), &self.shape).expect("checked by shape inference");
        x.broadcast(&shape[..]).expect("checked by shape inference").to_owned()
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        let shape = node.ints(&self.shape);
        node.inputs.push(shape);
        node.all("Expand", Vec::new())
    }
}
