//! Buffer assignment: tensors with disjoint lifetimes share a buffer.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::plan::{Ports, Step, Tensor};
use crate::ops::kernel::Kind;

/// Assigns a buffer to each tensor: the smallest free buffer that is large enough, else the largest free buffer, which
/// grows. Returns the sizes of the f32 buffers and of the code buffers.
pub(super) fn assign_buffers(
    tensors: &mut [Tensor],
    steps: &[Step],
    inputs: &Ports,
    outputs: &Ports,
) -> (Vec<usize>, Vec<usize>) {
    // An alias extends the lifetime of the tensor whose buffer it names.
    let mut origin: Vec<usize> = (0..tensors.len()).collect();
    for step in steps.iter().filter(|step| step.kernel.is_none()) {
        origin[step.output] = origin[step.inputs[0]];
    }
    let mut last_use = alloc::vec![0; tensors.len()];
    for (i, step) in steps.iter().enumerate() {
        step.inputs.iter().chain([&step.output]).for_each(|&t| last_use[origin[t]] = i);
    }
    outputs.all().for_each(|t| last_use[origin[t]] = usize::MAX);

    let mut floats = Pool::default();
    let mut codes = Pool::default();
    let mut place = |tensors: &mut [Tensor], t: usize, free: bool| {
        let pool = if tensors[t].kind == Kind::F32 { &mut floats } else { &mut codes };
        if free {
            pool.free.insert((pool.sizes[tensors[t].buffer], tensors[t].buffer));
        } else {
            tensors[t].buffer = pool.take(tensors[t].len());
        }
    };
    inputs.floats.iter().for_each(|&t| place(tensors, t, false));
    for (i, step) in steps.iter().enumerate() {
        if step.kernel.is_some() {
            place(tensors, step.output, false);
        } else {
            tensors[step.output].buffer = tensors[step.inputs[0]].buffer;
        }
        let mut done: Vec<usize> = step.inputs.iter().chain([&step.output]).map(|&t| origin[t]).collect();
        done.sort_unstable();
        done.dedup();
        done.into_iter().filter(|&t| last_use[t] == i).for_each(|t| place(tensors, t, true));
    }
    (floats.sizes, codes.sizes)
}

/// The buffers of one element type.
#[derive(Default)]
struct Pool {
    sizes: Vec<usize>,
    /// Sizes and indices of the free buffers.
    free: BTreeSet<(usize, usize)>,
}

impl Pool {
    fn take(&mut self, len: usize) -> usize {
        let chosen = self.free.range((len, 0)..).next().or_else(|| self.free.last()).copied();
        match chosen {
            Some((size, buffer)) => {
                self.free.remove(&(size, buffer));
                self.sizes[buffer] = self.sizes[buffer].max(len);
                buffer
            }
            None => {
                self.sizes.push(len);
                self.sizes.len() - 1
            }
        }
    }
}
