//! Input of a run: copies the caller's tensors into the buffers of the plan, or quantizes them on the way.

use core::mem::take;

use ndarray::{ArrayView, ArrayViewD};

use super::plan::{Arena, Plan, Step, grow};
use crate::error::Result;
use crate::ops::index::{from_buffer, from_row_major, map_index};
use crate::ops::kernel::{Kind, Scalar, ValuesMut, resized};
use crate::ops::nhwc::{Dims, copy_in_order, in_order};

impl Plan {
    /// Copies the inputs into their buffers.
    pub(super) fn load<'a, T: Scalar>(
        &self,
        inputs: impl Iterator<Item = ArrayViewD<'a, T>>,
        images: usize,
        arena: &mut Arena,
    ) {
        self.grow(images, arena);
        for (&t, x) in self.inputs.of::<T>().iter().zip(inputs) {
            self.load_one(t, x, images, arena);
        }
    }

    /// Copies the inputs into their buffers and runs the steps that quantize them.
    ///
    /// An input that only such a step reads is quantized from the caller's tensor and copied to its layout as codes, which
    /// moves a quarter of the bytes.
    pub(super) fn enter<'a, T: Scalar>(
        &self,
        inputs: impl Iterator<Item = ArrayViewD<'a, T>>,
        images: usize,
        arena: &mut Arena,
    ) -> Result<()> {
        self.grow(images, arena);
        let entries = if T::KIND == Kind::F32 { &self.entries[..] } else { &[] };
        for (i, (&t, x)) in self.inputs.of::<T>().iter().zip(inputs).enumerate() {
            let entry = entries.get(i).copied().flatten();
            let entered = match entry {
                Some(entry) if entry.only_reader => {
                    self.quantize_contiguous(&self.steps[entry.step], &x, images, arena)?
                }
                _ => false,
            };
            if !entered {
                self.load_one(t, x, images, arena);
                entry.map_or(Ok(()), |entry| self.step(&self.steps[entry.step], images, arena))?;
            }
        }
        Ok(())
    }

    fn grow(&self, images: usize, arena: &mut Arena) {
        grow(&mut arena.floats, &self.float_sizes, images);
        grow(&mut arena.codes, &self.code_sizes, images);
    }

    fn load_one<T: Scalar>(&self, t: usize, x: ArrayViewD<'_, T>, images: usize, arena: &mut Arena) {
        let tensor = &self.tensors[t];
        let values = tensor.buffer_mut(arena).into_slice::<T>();
        copy_in_order(x, tensor.layout, &mut values[..tensor.len() * images]);
    }

    /// Runs an entry step on the caller's tensor if that is contiguous, in the layout of the network or row-major. Returns whether it is.
    fn quantize_contiguous<T: Scalar>(
        &self,
        step: &Step,
        x: &ArrayViewD<'_, T>,
        images: usize,
        arena: &mut Arena,
    ) -> Result<bool> {
        let layout = self.tensors[step.output].layout;
        let ordered = in_order(x.view(), layout);
        let (Some(kernel), Some(values)) = (&step.kernel, ordered.as_slice().or(x.as_slice())) else {
            return Ok(false);
        };
        let buffer = self.tensors[step.output].buffer;
        let (mut codes, mut unordered_buffer) = (take(&mut arena.codes[buffer]), take(&mut arena.scratch.codes));
        let mut run = |to| kernel.run(images, &[T::values(values)], ValuesMut::Code(to), &mut arena.scratch);
        let done = if ordered.is_standard_layout() {
            run(&mut codes[..values.len()])
        } else {
            let unordered = resized(&mut unordered_buffer, values.len());
            let done = run(unordered);
            let unordered = ArrayView::from_shape(x.raw_dim(), unordered).expect("one code per value");
            copy_in_order(unordered, layout, &mut codes[..values.len()]);
            done
        };
        (arena.codes[buffer], arena.scratch.codes) = (codes, unordered_buffer);
        done.map(|()| true).map_err(|e| {
            let located = map_index(e, |i| match ordered.is_standard_layout() {
                true => from_buffer(i[0], Dims::new(x.shape(), layout)),
                false => from_row_major(i[0], x.shape()),
            });
            self.tensors[step.output].shifted(located, arena.first).at(&step.node)
        })
    }
}
