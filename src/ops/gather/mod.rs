//! Elements of an axis by their positions.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD, Axis};

use super::movement::Movement;
use super::shape::Shape;
use crate::error::{Error, Result};

/// The elements of an axis at constant positions, in this order (ONNX: `Gather` with constant indices of rank 1).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Gather {
    /// The axis.
    pub axis: usize,
    /// The positions.
    pub indices: Vec<usize>,
}

impl Movement for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        let Some(&len) = x.get(self.axis) else { return Err(Error::axis(x.len(), self.axis)) };
        if let Some(found) = self.indices.iter().find(|&&at| at >= len) {
            let found = alloc::format!("{found} for an axis of length {len}");
            return Err(Error::Argument { what: "indices", expected: "positions of the axis", found });
        }
        let mut shape = x.to_vec();
        shape[self.axis] = self.indices.len();
        Ok(shape)
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        x.select(Axis(self.axis), &self.indices)
    }
}
