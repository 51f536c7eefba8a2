//! Data movement: operators that copy elements, the same for f32 and codes.

use alloc::vec::Vec;

use ndarray::{ArrayViewD, ArrayViewMut};

use super::kernel::{Kernel, Scalar, Scratch, Values, ValuesMut};
use super::layout::{nhwc_axis, nhwc_shape, to_nchw, to_nhwc};
use crate::error::Result;

/// [`Op::Concat`](super::Op::Concat).
#[derive(Debug)]
pub(crate) struct Concat<T> {
    /// For each input, the length of its contiguous runs: the product of the axes from the concatenated one on.
    runs: Vec<usize>,
    element: core::marker::PhantomData<T>,
}

impl<T: Scalar> Concat<T> {
    pub(crate) fn new(axis: usize, inputs: &[&[usize]]) -> Self {
        let run = |shape: &&[usize]| nhwc_shape(shape)[nhwc_axis(axis, shape.len())..].iter().product();
        Self { runs: inputs.iter().map(run).collect(), element: core::marker::PhantomData }
    }
}

impl<T: Scalar> Kernel for Concat<T> {
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
    /// Rows of the input and elements per row.
    input: [usize; 2],
    /// Rows of the output and elements per row.
    output: [usize; 2],
    /// Rows above the input and elements before each of its rows.
    before: [usize; 2],
    zero: T,
}

impl<T: Scalar> Pad<T> {
    /// Pads with `zero`: 0.0 or the zero point. Shapes are logical.
    pub(crate) fn new(pads: [usize; 4], input: &[usize], output: &[usize], zero: T) -> Self {
        let rows = |shape: &[usize]| [shape[2], shape[3] * shape[1]];
        Self { input: rows(input), output: rows(output), before: [pads[0], pads[1] * input[1]], zero }
    }
}

impl<T: Scalar> Kernel for Pad<T> {
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

/// [`Op::Resize`](super::Op::Resize): nearest-neighbour upsampling by integer factors.
#[derive(Debug)]
pub(crate) struct Upsample<T> {
    scales: [usize; 2],
    width: usize,
    channels: usize,
    element: core::marker::PhantomData<T>,
}

impl<T: Scalar> Upsample<T> {
    pub(crate) fn new(scales: [usize; 2], input: &[usize]) -> Self {
        Self { scales, width: input[3], channels: input[1], element: core::marker::PhantomData }
    }
}

impl<T: Scalar> Kernel for Upsample<T> {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [rows, columns] = self.scales;
        let (row, output) = (self.width * self.channels, output.into_slice::<T>());
        if output.is_empty() {
            return Ok(());
        }
        let output = output.chunks_exact_mut(row * columns * rows);
        for (x, y) in inputs[0].as_slice::<T>().chunks_exact(row).zip(output) {
            let (first, copies) = y.split_at_mut(row * columns);
            for (x, y) in x.chunks_exact(self.channels).zip(first.chunks_exact_mut(self.channels * columns)) {
                y.chunks_exact_mut(self.channels).for_each(|y| y.copy_from_slice(x));
            }
            copies.chunks_exact_mut(row * columns).for_each(|y| y.copy_from_slice(first));
        }
        Ok(())
    }
}

/// [`Op::Reshape`](super::Op::Reshape) where NHWC and NCHW differ: transposes to NCHW, reshapes, transposes back.
#[derive(Debug)]
pub(crate) struct TransposedReshape<T> {
    input: Vec<usize>,
    output: Vec<usize>,
    element: core::marker::PhantomData<T>,
}

impl<T: Scalar> TransposedReshape<T> {
    pub(crate) fn new(input: &[usize], output: &[usize]) -> Self {
        Self { input: input.into(), output: output.into(), element: core::marker::PhantomData }
    }
}

impl<T: Scalar> Kernel for TransposedReshape<T> {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (mut input, mut shape) = (self.input.clone(), self.output.clone());
        (input[0], shape[0]) = (images, images);
        let x = to_nchw(inputs[0].as_slice::<T>(), &input);
        let x = x.to_shape(&shape[..]).expect("shapes were checked when the graph was made");
        let x = to_nhwc(x.view());
        let mut y = ArrayViewMut::from_shape(x.raw_dim(), output.into_slice::<T>()).expect("lengths were planned");
        y.assign(&x);
        Ok(())
    }
}

/// Copies a constant into each image of the batch, for operators that read it as an activation.
#[derive(Debug)]
pub(crate) struct BroadcastConstant<T> {
    /// The constant in NHWC.
    values: Vec<T>,
}

impl<T: Scalar> BroadcastConstant<T> {
    pub(crate) fn new(value: ArrayViewD<'_, T>) -> Self {
        let value = to_nhwc(value);
        let values = value.iter().copied().collect();
        Self { values }
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
