//! Other shapes of a tensor.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD};

use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::movement::Movement;
use crate::ops::shape::{Shape, elements};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The same elements, in row-major order, in another shape (ONNX: `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reshape {
    /// The shape, for a batch of one.
    pub shape: Vec<usize>,
}

impl Movement for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        if elements(&self.shape)? != elements(x)? {
            return Err(Error::shape("reshaped tensor", x, &self.shape));
        }
        Ok(self.shape.clone())
    }

    fn changes_axes(&self) -> bool {
        true
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        x.to_shape(&self.shape[..]).expect("checked by shape inference").into_owned()
    }

    /// A reshape keeps the channels where it drops a height and a width of 1.
    fn commutes_with_scaling(&self, x: &[usize], y: &[usize]) -> bool {
        x.len() == 4 && y.len() == 2 && x[1] == y[1]
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        let (x, shape) = (node.inputs[0].clone(), &self.shape);
        Ok(node.reshape(x, shape))
    }
}
