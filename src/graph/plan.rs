//! What runs: steps over a few buffers that tensors share, one after the other, as their lifetimes allow.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use super::buffers::share_buffers;
use super::kernel::{Item, Kernel, Kind, Scratch, Values, ValuesMut};
use super::layout::{physical, to_logical, to_physical, to_physical_mut};
use crate::error::{Error, Result};
use crate::threads;

/// The buffers of a network, which runs reuse. Any network can use any; they grow to what is needed. See
/// [`FloatNetwork`](super::FloatNetwork) for an example.
#[derive(Debug, Clone, Default)]
pub struct Arena {
    pub(super) reals: Vec<Vec<f32>>,
    pub(super) codes: Vec<Vec<u8>>,
    pub(super) scratch: Scratch,
}

impl Arena {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A tensor of a plan.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// For one image, logical.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: Kind,
    /// Which buffer of its kind it lies in.
    pub(super) buffer: usize,
}

impl Tensor {
    pub(crate) fn new(name: &str, shape: &[usize], kind: Kind) -> Self {
        Self { name: name.into(), shape: shape.into(), kind, buffer: 0 }
    }

    /// The elements of one image.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One step. Without a kernel the output is its first input under another name.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) node: String,
    pub(crate) role: Role,
    pub(crate) kernel: Option<Box<dyn Kernel>>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) output: usize,
}

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Always.
    Body,
    /// Before all others, unless the caller brings codes: from an input to its codes, element by element.
    Entry,
    /// Unless the caller takes codes.
    Exit,
}

/// The tensors that the caller fills or takes, as floats and, where the network has them so, as codes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports {
    pub(crate) reals: Vec<usize>,
    pub(crate) codes: Vec<usize>,
}

impl Ports {
    pub(super) fn of<T: Item>(&self) -> &[usize] {
        if T::KIND == Kind::Float { &self.reals } else { &self.codes }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        self.reals.iter().chain(&self.codes).copied()
    }
}

/// A network ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Ports,
    pub(crate) outputs: Ports,
    /// The elements per image of each buffer.
    pub(super) real_sizes: Vec<usize>,
    pub(super) code_sizes: Vec<usize>,
    /// Images that run through all steps together.
    chunk: usize,
}

/// Images run together as long as the greatest tensor is about this large, so that it stays in the cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// What is called with the number of a tensor, its values and how many images these are.
pub(crate) type Tap<'a> = &'a mut dyn FnMut(&Tensor, Values<'_>, usize) -> Result<()>;

impl Plan {
    pub(crate) fn new(mut tensors: Vec<Tensor>, steps: Vec<Step>, inputs: Ports, outputs: Ports) -> Self {
        let (real_sizes, code_sizes) = share_buffers(&mut tensors, &steps, &inputs, &outputs);
        let bytes = |t: &Tensor| t.len() * if t.kind == Kind::Float { 4 } else { 1 };
        let greatest = tensors.iter().map(bytes).max().unwrap_or(0);
        let chunk = (CHUNK_BYTES / greatest.max(1)).clamp(1, 256);
        Self { tensors, steps, inputs, outputs, real_sizes, code_sizes, chunk }
    }

    /// Runs any number of images: from the caller's tensors to new ones, both logical.
    pub(crate) fn run<T: Item, U: Item>(
        &self,
        inputs: &[ArrayViewD<'_, T>],
        memory: &mut Arena,
    ) -> Result<Vec<ArrayD<U>>> {
        let images = self.check_inputs(inputs)?;
        let zeros = |&t: &usize| {
            let shape = self.tensors[t].shape_of(images);
            let mut strided = Array::from_elem(IxDyn(&physical(&shape)), U::default());
            if shape.len() == 4 {
                strided = strided.permuted_axes(&[0, 3, 1, 2][..]);
            }
            strided
        };
        let mut outputs: Vec<ArrayD<U>> = self.outputs.of::<U>().iter().map(zeros).collect();
        let views = outputs.iter_mut().map(|o| o.view_mut()).collect();
        self.split(inputs.to_vec(), views, images, memory)?;
        Ok(outputs)
    }

    /// Splits the images over the threads of the caller's pool, in whole chunks.
    fn split<T: Item, U: Item>(
        &self,
        inputs: Vec<ArrayViewD<'_, T>>,
        outputs: Vec<ArrayViewMutD<'_, U>>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<()> {
        let parts = threads::available().min(images.div_ceil(self.chunk));
        if parts < 2 {
            return self.part(inputs, outputs, images, memory);
        }
        let first = (images * (parts / 2) / parts).next_multiple_of(self.chunk).min(images - 1);
        let (a, b) = inputs.into_iter().map(|x| x.split_at(Axis(0), first)).unzip();
        let (c, d) = outputs.into_iter().map(|y| y.split_at(Axis(0), first)).unzip();
        let (left, right) =
            threads::join(|| self.split(a, c, first, memory), || self.split(b, d, images - first, &mut Arena::new()));
        left.and(right)
    }

    fn part<T: Item, U: Item>(
        &self,
        inputs: Vec<ArrayViewD<'_, T>>,
        mut outputs: Vec<ArrayViewMutD<'_, U>>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<()> {
        for (range, count) in self.chunks(images) {
            self.enter(inputs.iter().map(|x| x.slice_axis(Axis(0), range)), count, memory)?;
            for step in self.steps.iter().filter(|step| match step.role {
                Role::Body => true,
                Role::Entry => false,
                Role::Exit => U::KIND == Kind::Float,
            }) {
                self.step(step, count, memory)?;
            }
            for (&t, y) in self.outputs.of::<U>().iter().zip(&mut outputs) {
                let values = self.values(t, count, memory).as_slice::<U>();
                self.store(t, values, count, y.slice_axis_mut(Axis(0), range));
            }
        }
        Ok(())
    }

    /// Runs all images together and shows every tensor, the inputs too, as soon as it is there.
    pub(crate) fn run_tapped(&self, inputs: &[ArrayViewD<'_, f32>], memory: &mut Arena, tap: Tap<'_>) -> Result<()> {
        let images = self.check_inputs(inputs)?;
        for (range, count) in self.chunks(images) {
            self.load(inputs.iter().map(|x| x.slice_axis(Axis(0), range)), count, memory);
            for &t in &self.inputs.reals {
                tap(&self.tensors[t], self.values(t, count, memory), count)?;
            }
            for step in &self.steps {
                self.step(step, count, memory)?;
                tap(&self.tensors[step.output], self.values(step.output, count, memory), count)?;
            }
        }
        Ok(())
    }

    /// Which images run together, and how many these are.
    fn chunks(&self, images: usize) -> impl Iterator<Item = (Slice, usize)> {
        let ends = move |start| start..images.min(start + self.chunk);
        (0..images).step_by(self.chunk).map(ends).map(|range| (Slice::from(range.clone()), range.len()))
    }

    /// The number of images; all inputs must have as many.
    fn check_inputs<T: Item>(&self, inputs: &[ArrayViewD<'_, T>]) -> Result<usize> {
        let expected = self.inputs.of::<T>();
        if inputs.len() != expected.len() {
            return Err(Error::shape("number of inputs", &[expected.len()], &[inputs.len()]));
        }
        let images = inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        for (x, &t) in inputs.iter().zip(expected) {
            let expected = self.tensors[t].shape_of(images);
            if x.shape() != expected {
                return Err(Error::shape("input of the network", &expected, x.shape()));
            }
        }
        Ok(images)
    }

    fn store<U: Item>(&self, t: usize, values: &[U], images: usize, y: ArrayViewMutD<'_, U>) {
        let shape = self.tensors[t].shape_of(images);
        let x = to_physical(to_logical(values, &shape));
        to_physical_mut(y).assign(&x);
    }

    /// The values of a tensor that is in its buffer.
    pub(crate) fn values<'m>(&self, t: usize, images: usize, memory: &'m Arena) -> Values<'m> {
        let tensor = &self.tensors[t];
        let len = tensor.len() * images;
        match tensor.kind {
            Kind::Float => Values::Float(&memory.reals[tensor.buffer][..len]),
            Kind::Code => Values::Code(&memory.codes[tensor.buffer][..len]),
        }
    }

    pub(super) fn step(&self, step: &Step, images: usize, memory: &mut Arena) -> Result<()> {
        let Some(kernel) = &step.kernel else { return Ok(()) };
        let output = &self.tensors[step.output];
        let len = output.len() * images;
        let mut scratch = core::mem::take(&mut memory.scratch);
        // The output's buffer leaves the memory while the inputs' are read there: no step writes where it reads.
        let done = match output.kind {
            Kind::Float => {
                let mut buffer = core::mem::take(&mut memory.reals[output.buffer]);
                let done =
                    self.call(&**kernel, step, images, ValuesMut::Float(&mut buffer[..len]), memory, &mut scratch);
                memory.reals[output.buffer] = buffer;
                done
            }
            Kind::Code => {
                let mut buffer = core::mem::take(&mut memory.codes[output.buffer]);
                let done =
                    self.call(&**kernel, step, images, ValuesMut::Code(&mut buffer[..len]), memory, &mut scratch);
                memory.codes[output.buffer] = buffer;
                done
            }
        };
        memory.scratch = scratch;
        done.map_err(|e| e.at(&step.node))
    }

    fn call(
        &self,
        kernel: &dyn Kernel,
        step: &Step,
        images: usize,
        output: ValuesMut<'_>,
        memory: &Arena,
        scratch: &mut Scratch,
    ) -> Result<()> {
        const FEW: usize = 4;
        let mut few = [Values::Float(&[]); FEW];
        if step.inputs.len() <= FEW {
            for (value, &t) in few.iter_mut().zip(&step.inputs) {
                *value = self.values(t, images, memory);
            }
            kernel.run(images, &few[..step.inputs.len()], output, scratch)
        } else {
            let many: Vec<Values<'_>> = step.inputs.iter().map(|&t| self.values(t, images, memory)).collect();
            kernel.run(images, &many, output, scratch)
        }
    }
}

impl Tensor {
    /// The logical shape for so many images.
    fn shape_of(&self, images: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(batch) = shape.first_mut() {
            *batch = images;
        }
        shape
    }

    pub(super) fn buffer_mut<'m>(&self, memory: &'m mut Arena) -> ValuesMut<'m> {
        match self.kind {
            Kind::Float => ValuesMut::Float(&mut memory.reals[self.buffer]),
            Kind::Code => ValuesMut::Code(&mut memory.codes[self.buffer]),
        }
    }
}

pub(super) fn grow<T: Copy + Default>(buffers: &mut Vec<Vec<T>>, sizes: &[usize], images: usize) {
    if buffers.len() < sizes.len() {
        buffers.resize_with(sizes.len(), Vec::new);
    }
    for (buffer, size) in buffers.iter_mut().zip(sizes) {
        if buffer.len() < size * images {
            buffer.resize(size * images, T::default());
        }
    }
}
