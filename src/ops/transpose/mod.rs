//! Transposition.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD};

use super::movement::Movement;
use super::shape::Shape;
use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The axes in another order: axis `i` of the output is axis `perm[i]` of the input (ONNX: `Transpose`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Transpose {
    /// The axes of the input, each once.
    pub perm: Vec<usize>,
}

impl Movement for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.len()) {
            let found = alloc::format!("{:?} for a tensor of {} axes", self.perm, x.len());
            return Err(Error::Argument { what: "perm", expected: "each axis of the tensor once", found });
        }
        Ok(self.perm.iter().map(|&axis| x[axis]).collect())
    }

    fn changes_axes(&self) -> bool {
        true
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        x.permuted_axes(&self.perm[..]).to_owned()
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        node.all("Transpose", alloc::vec![crate::io::onnx::export::writer::ints("perm", &self.perm)])
    }
}
