//! The caller's tensors, of any strides, on their way into the buffers of a plan.

use core::mem::take;

use ndarray::{ArrayView, ArrayViewD};

use super::index::{from_buffer, from_row_major, map_index};
use super::kernel::{Item, Kind, ValuesMut, scratch};
use super::layout::{copy_to_physical, to_physical};
use super::plan::{Arena, Plan, Step, grow};
use crate::error::Result;

impl Plan {
    /// Copies the inputs into their buffers.
    pub(super) fn load<'a, T: Item>(
        &self,
        inputs: impl Iterator<Item = ArrayViewD<'a, T>>,
        images: usize,
        memory: &mut Arena,
    ) {
        self.grow(images, memory);
        for (&t, x) in self.inputs.of::<T>().iter().zip(inputs) {
            self.load_one(t, x, images, memory);
        }
    }

    /// Copies the inputs into their buffers and runs the steps that make codes of them.
    ///
    /// Floats that nothing else reads become codes where they are. If these are to be brought into order, bytes move
    /// faster.
    pub(super) fn enter<'a, T: Item>(
        &self,
        inputs: impl Iterator<Item = ArrayViewD<'a, T>>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<()> {
        self.grow(images, memory);
        let entries = if T::KIND == Kind::Float { &self.entries[..] } else { &[] };
        for (i, (&t, x)) in self.inputs.of::<T>().iter().zip(inputs).enumerate() {
            let entry = entries.get(i).copied().flatten();
            let entered = match entry {
                Some(entry) if entry.only_reader => self.enter_one(&self.steps[entry.step], &x, images, memory)?,
                _ => false,
            };
            if !entered {
                self.load_one(t, x, images, memory);
                entry.map_or(Ok(()), |entry| self.step(&self.steps[entry.step], images, memory))?;
            }
        }
        Ok(())
    }

    fn grow(&self, images: usize, memory: &mut Arena) {
        grow(&mut memory.reals, &self.real_sizes, images);
        grow(&mut memory.codes, &self.code_sizes, images);
    }

    fn load_one<T: Item>(&self, t: usize, x: ArrayViewD<'_, T>, images: usize, memory: &mut Arena) {
        let tensor = &self.tensors[t];
        let values = tensor.buffer_mut(memory).into_slice::<T>();
        copy_to_physical(x, &mut values[..tensor.len() * images]);
    }

    /// Runs an entry step on the caller's tensor, if that lies without gaps in its own order or that of buffers.
    /// Returns whether it does.
    fn enter_one<T: Item>(
        &self,
        step: &Step,
        x: &ArrayViewD<'_, T>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<bool> {
        let ordered = to_physical(x.view());
        let (Some(kernel), Some(values)) = (&step.kernel, ordered.as_slice().or(x.as_slice())) else {
            return Ok(false);
        };
        let buffer = self.tensors[step.output].buffer;
        let (mut codes, mut room) = (take(&mut memory.codes[buffer]), take(&mut memory.scratch.codes));
        let mut run = |to| kernel.run(images, &[T::values(values)], ValuesMut::Code(to), &mut memory.scratch);
        let done = if ordered.is_standard_layout() {
            run(&mut codes[..values.len()])
        } else {
            let unordered = scratch(&mut room, values.len());
            let done = run(unordered);
            let unordered = ArrayView::from_shape(x.raw_dim(), unordered).expect("as many codes as values");
            copy_to_physical(unordered, &mut codes[..values.len()]);
            done
        };
        (memory.codes[buffer], memory.scratch.codes) = (codes, room);
        done.map(|()| true).map_err(|e| {
            let located = map_index(e, |i| match ordered.is_standard_layout() {
                true => from_buffer(i[0], x.shape()),
                false => from_row_major(i[0], x.shape()),
            });
            located.at(&step.node)
        })
    }
}
