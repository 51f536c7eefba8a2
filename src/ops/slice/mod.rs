//! Slices of a tensor.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD, Axis};

use super::movement::Movement;
use super::shape::Shape;
use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The elements `start`, `start + step`, … of an axis, `count` of them (ONNX: `Slice`, and each output of `Split`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Slice {
    /// The axis.
    pub axis: usize,
    /// The first element.
    pub start: usize,
    /// The number of elements.
    pub count: usize,
    /// The distance of neighbouring elements, negative to reverse them.
    pub step: isize,
}

impl Slice {
    /// The position of element `i` in the axis.
    fn position(&self, i: usize) -> Option<usize> {
        let offset = isize::try_from(i).ok()?.checked_mul(self.step)?;
        self.start.checked_add_signed(offset)
    }
}

impl Movement for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        let Some(&len) = x.get(self.axis) else { return Err(Error::axis(x.len(), self.axis)) };
        // The elements are in order, so the first and the last one decide.
        let ends = [0, self.count.saturating_sub(1)].map(|i| self.position(i));
        if self.count > 0 && ends.iter().any(|at| at.is_none_or(|at| at >= len)) {
            let Self { start, count, step, .. } = *self;
            let found = alloc::format!("{count} elements from {start} on, {step} apart, of {len}");
            return Err(Error::Argument { what: "slice", expected: "elements of the axis", found });
        }
        let mut shape = x.to_vec();
        shape[self.axis] = self.count;
        Ok(shape)
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        let at: Vec<usize> = (0..self.count).filter_map(|i| self.position(i)).collect();
        x.select(Axis(self.axis), &at)
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}
