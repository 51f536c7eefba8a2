//! Operators that move elements and compute nothing: the same for floats and codes.

use alloc::vec::Vec;

use ndarray::ArrayView;

use super::kernel::{Item, Kernel, Scratch, Values, ValuesMut};
use super::layout::{physical, physical_axis, to_logical};
use crate::error::Result;

/// [`Op::Concat`](super::Op::Concat).
#[derive(Debug)]
pub(crate) struct Concat<T> {
    /// For each input, the elements that lie together.
    runs: Vec<usize>,
    item: core::marker::PhantomData<T>,
}

impl<T: Item> Concat<T> {
    pub(crate) fn new(axis: usize, inputs: &[&[usize]]) -> Self {
        let run = |shape: &&[usize]| physical(shape)[physical_axis(axis, shape.len())..].iter().product();
        Self { runs: inputs.iter().map(run).collect(), item: core::marker::PhantomData }
    }
}

impl<T: Item> Kernel for Concat<T> {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let total: usize = self.runs.iter().sum();
        let mut at = 0;
        let output = output.into_slice::<T>();
        for (&run, input) in self.runs.iter().zip(inputs) {
            if run > 0 {
                let to = output.chunks_exact_mut(total);
                to.zip(input.as_slice::<T>().chunks_exact(run)).for_each(|(y, x)| y[at..at + run].copy_from_slice(x));
            }
            at += run;
        }
        Ok(())
    }
}

/// [`Op::Pad`](super::Op::Pad).
#[derive(Debug)]
pub(crate) struct Pad<T> {
    /// Height, and width times channels, of the input.
    input: [usize; 2],
    /// Of the output.
    output: [usize; 2],
    /// Above, and to the left in elements.
    before: [usize; 2],
    zero: T,
}

impl<T: Item> Pad<T> {
    /// With this element for zero.
    pub(crate) fn new(pads: [usize; 4], input: &[usize], output: &[usize], zero: T) -> Self {
        let rows = |shape: &[usize]| [shape[2], shape[3] * shape[1]];
        Self { input: rows(input), output: rows(output), before: [pads[0], pads[1] * input[1]], zero }
    }
}

impl<T: Item> Kernel for Pad<T> {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let ([height, width], [top, left]) = (self.input, self.before);
        let output = output.into_slice::<T>();
        output.fill(self.zero);
        if height * width == 0 {
            return Ok(());
        }
        let images = output.chunks_exact_mut(self.output[0] * self.output[1]);
        for (y, x) in images.zip(inputs[0].as_slice::<T>().chunks_exact(height * width)) {
            let rows = y.chunks_exact_mut(self.output[1]).skip(top);
            rows.zip(x.chunks_exact(width)).for_each(|(y, x)| y[left..left + width].copy_from_slice(x));
        }
        Ok(())
    }
}

/// [`Op::Repeat`](super::Op::Repeat).
#[derive(Debug)]
pub(crate) struct Repeat<T> {
    factors: [usize; 2],
    width: usize,
    channels: usize,
    item: core::marker::PhantomData<T>,
}

impl<T: Item> Repeat<T> {
    pub(crate) fn new(factors: [usize; 2], input: &[usize]) -> Self {
        Self { factors, width: input[3], channels: input[1], item: core::marker::PhantomData }
    }
}

impl<T: Item> Kernel for Repeat<T> {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [down, right] = self.factors;
        let (row, output) = (self.width * self.channels, output.into_slice::<T>());
        if output.is_empty() {
            return Ok(());
        }
        let output = output.chunks_exact_mut(row * right * down);
        for (x, y) in inputs[0].as_slice::<T>().chunks_exact(row).zip(output) {
            let (first, others) = y.split_at_mut(row * right);
            for (x, y) in x.chunks_exact(self.channels).zip(first.chunks_exact_mut(self.channels * right)) {
                y.chunks_exact_mut(self.channels).for_each(|y| y.copy_from_slice(x));
            }
            others.chunks_exact_mut(row * right).for_each(|y| y.copy_from_slice(first));
        }
        Ok(())
    }
}

/// [`Op::Reshape`](super::Op::Reshape) where the order in memory is not the logical one.
#[derive(Debug)]
pub(crate) struct Reorder<T> {
    input: Vec<usize>,
    output: Vec<usize>,
    item: core::marker::PhantomData<T>,
}

impl<T: Item> Reorder<T> {
    pub(crate) fn new(input: &[usize], output: &[usize]) -> Self {
        Self { input: input.into(), output: output.into(), item: core::marker::PhantomData }
    }
}

impl<T: Item> Kernel for Reorder<T> {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (mut input, mut shape) = (self.input.clone(), self.output.clone());
        (input[0], shape[0]) = (images, images);
        // The logical order of the input is that of a row-major output, which lies in memory in its physical order.
        let x = to_logical(inputs[0].as_slice::<T>(), &input);
        let x = x.to_shape(&shape[..]).expect("shapes were checked when the graph was made");
        let x = super::layout::to_physical(x.view());
        let mut y = ndarray::ArrayViewMut::from_shape(x.raw_dim(), output.into_slice::<T>()).expect("of equal length");
        y.assign(&x);
        Ok(())
    }
}

/// Constants that stand where an activation is expected: a tensor for any batch.
#[derive(Debug)]
pub(crate) struct Fill<T> {
    /// One image.
    values: Vec<T>,
}

impl<T: Item> Fill<T> {
    pub(crate) fn new(value: ndarray::ArrayViewD<'_, T>) -> Self {
        let value = super::layout::to_physical(value);
        let values = value.iter().copied().collect();
        Self { values }
    }
}

impl<T: Item> Kernel for Fill<T> {
    fn run(&self, _: usize, _: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        if !self.values.is_empty() {
            let images = output.into_slice::<T>().chunks_exact_mut(self.values.len());
            images.for_each(|image| image.copy_from_slice(&self.values));
        }
        Ok(())
    }
}

/// A physical view of a batch.
pub(crate) fn view<'a, T>(values: &'a [T], shape: &[usize], images: usize) -> ndarray::ArrayViewD<'a, T> {
    let mut dims = physical(shape);
    dims[0] = images;
    ArrayView::from_shape(dims, values).expect("the memory of a tensor has its length")
}
