//! Linear layers of networks that quantize each row by its own range.

use ndarray::Ix2;

use super::Linear;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::index::map_index;
use crate::ops::integer_layer::{view, view_mut};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};

/// Floats to floats: quantizes each row on the fly, by its own range.
#[derive(Debug)]
pub(crate) struct RowRanges {
    pub(crate) layer: Linear<i8>,
    /// The number of rows of a sample, and the lengths of a row of the input and of the output.
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) outputs: usize,
    pub(crate) clamp: Clamp,
}

impl Kernel for RowRanges {
    fn size_in_bytes(&self) -> usize {
        self.layer.size_in_bytes()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let rows = images * self.rows;
        let x = view(inputs[0].as_slice::<f32>(), Ix2(rows, self.depth));
        let mut y = view_mut(output.into_slice(), Ix2(rows, self.outputs));
        let done = self.layer.forward_dynamic_clamped_into(&x, self.clamp.bounds(), &mut y, &mut scratch.gemm);
        done.map_err(|e| map_index(e, |i| alloc::vec![i[0] * self.depth + i[1]]))
    }
}
