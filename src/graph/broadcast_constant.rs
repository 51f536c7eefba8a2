//! Constants that operators read as activations.

use alloc::vec::Vec;

use ndarray::ArrayViewD;

use crate::error::Result;
use crate::ops::kernel::{Kernel, Scalar, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{Layout, in_order};

/// Copies a constant into each image of the batch, for operators that read it as an activation.
#[derive(Debug)]
pub(crate) struct BroadcastConstant<T> {
    /// The constant in the order of memory.
    values: Vec<T>,
}

impl<T: Scalar> BroadcastConstant<T> {
    pub(crate) fn new(value: ArrayViewD<'_, T>, layout: Layout) -> Self {
        Self { values: in_order(value, layout).iter().copied().collect() }
    }
}

impl<T: Scalar> Kernel for BroadcastConstant<T> {
    fn run(&self, _: usize, _: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        if !self.values.is_empty() {
            let images = output.into_slice::<T>().chunks_exact_mut(self.values.len());
            images.for_each(|image| image.copy_from_slice(&self.values));
        }
        Ok(())
    }

    fn size_in_bytes(&self) -> usize {
        size_of_val(&self.values[..])
    }
}
