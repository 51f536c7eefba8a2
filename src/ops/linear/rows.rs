//! Linear layers of networks that compute in floats, or quantize the rows of their input on the fly.

use ndarray::Ix2;

use super::{Linear, LinearNBits};
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::index::map_index;
use crate::ops::integer_layer::{view, view_mut};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};

/// The rows of a sample.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Their number.
    pub(crate) rows: usize,
    /// The length of a row of the input.
    pub(crate) depth: usize,
    /// The length of a row of the output.
    pub(crate) outputs: usize,
    pub(crate) clamp: Clamp,
}

/// A linear layer by its arithmetic.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each layer")]
pub(crate) enum RowForm {
    /// Quantizes each row by its own range.
    Dynamic(Linear<i8>),
    /// Quantizes each group of a row by its own range.
    DynamicGroups(LinearNBits),
    /// Widens the weights in registers.
    WeightOnly(LinearNBits),
}

/// A linear layer from floats to floats.
#[derive(Debug)]
pub(crate) struct RowKernel {
    pub(crate) rows: Rows,
    pub(crate) form: RowForm,
}

impl Kernel for RowKernel {
    fn size_in_bytes(&self) -> usize {
        match &self.form {
            RowForm::Dynamic(layer) => layer.size_in_bytes(),
            RowForm::DynamicGroups(layer) | RowForm::WeightOnly(layer) => layer.size_in_bytes(),
        }
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let &Rows { rows, depth, outputs, clamp } = &self.rows;
        let rows = images * rows;
        let x = view(inputs[0].as_slice::<f32>(), Ix2(rows, depth));
        let mut y = view_mut(output.into_slice(), Ix2(rows, outputs));
        let workspace = &mut scratch.gemm;
        let done = match &self.form {
            RowForm::Dynamic(layer) => layer.forward_dynamic_clamped_into(&x, clamp.bounds(), &mut y, workspace),
            RowForm::DynamicGroups(layer) => layer.forward_dynamic_into(&x, &mut y, workspace),
            RowForm::WeightOnly(layer) => layer.forward_into(&x, &mut y, workspace),
        };
        done.map_err(|e| map_index(e, |i| alloc::vec![i[0] * depth + i[1]]))?;
        if !matches!(self.form, RowForm::Dynamic(_)) && clamp != Clamp::NONE {
            y.mapv_inplace(|y| clamp.apply(y));
        }
        Ok(())
    }
}
