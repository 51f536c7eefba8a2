//! What runs: steps over a few buffers that tensors share, one after the other, as their lifetimes allow.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use super::buffers::share_buffers;
use super::index::{from_buffer, map_index, shift_batch};
use super::kernel::{Item, Kernel, Kind, Scratch, Values, ValuesMut};
use super::layout::{physical, to_logical, to_physical, to_physical_mut};
use super::network::Constant;
use crate::error::{Error, Result, elements};
use crate::threads;

/// The activation buffers of a network and the scratch of its operators, reused from run to run.
///
/// An arena starts empty and grows to what a run needs. It serves any number of networks, one run after the other.
/// See [`FloatNetwork`](super::FloatNetwork) for an example.
///
/// A run that needs more than [`with_max_bytes`](Self::with_max_bytes) for activations and outputs fails before it
/// allocates, so a network from an untrusted file cannot exhaust the memory. Calibration and reports have no limit.
#[derive(Debug, Clone)]
pub struct Arena {
    pub(super) reals: Vec<Vec<f32>>,
    pub(super) codes: Vec<Vec<u8>>,
    pub(super) scratch: Scratch,
    max_bytes: usize,
}

impl Arena {
    /// An empty arena for runs of at most 1 GiB.
    pub fn new() -> Self {
        Self { reals: Vec::new(), codes: Vec::new(), scratch: Scratch::default(), max_bytes: 1 << 30 }
    }

    /// Limits what a run may need: the bytes of the activation buffers of all threads and of the outputs. The default
    /// is 2^30.
    ///
    /// Images run in chunks, so activations take a few hundred kilobytes per thread unless one image needs more. The
    /// outputs grow with the batch. Packed operands and im2col blocks come on top; they are smaller than the
    /// activations.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
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
    /// The value of an output that does not depend on the inputs. It has no buffer and no batch.
    pub(super) constant: Option<Constant>,
}

impl Tensor {
    pub(crate) fn new(name: &str, shape: &[usize], kind: Kind) -> Self {
        Self { name: name.into(), shape: shape.into(), kind, buffer: 0, constant: None }
    }

    /// An output of constant value.
    pub(crate) fn constant(name: &str, value: Constant) -> Self {
        Self { constant: Some(value.clone()), ..Self::new(name, value.shape(), Kind::Float) }
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
    /// For each float input, how it becomes codes.
    pub(super) entries: Vec<Option<Entry>>,
    /// Images that run through all steps together.
    chunk: usize,
}

/// The step that quantizes an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) step: usize,
    /// Nothing else reads the floats, so they need no buffer.
    pub(super) only_reader: bool,
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
        let mut readers = alloc::vec![0; tensors.len()];
        let mut entry_of = alloc::vec![None; tensors.len()];
        steps.iter().flat_map(|step| &step.inputs).copied().chain(outputs.all()).for_each(|t| readers[t] += 1);
        for (i, step) in steps.iter().enumerate().filter(|(_, step)| step.role == Role::Entry) {
            entry_of[step.inputs[0]] = Some(Entry { step: i, only_reader: readers[step.inputs[0]] == 1 });
        }
        let entries = inputs.reals.iter().map(|&t| entry_of[t]).collect();
        Self { tensors, steps, inputs, outputs, real_sizes, code_sizes, entries, chunk }
    }

    /// Chooses for every step that quantizes floats whether NaN becomes the code of zero or is an error.
    pub(crate) fn set_nan_as_zero(&mut self, nan_as_zero: bool) {
        self.steps.iter_mut().filter_map(|s| s.kernel.as_mut()).for_each(|k| k.set_nan_as_zero(nan_as_zero));
    }

    /// Runs any number of images: from the caller's tensors to new ones, both logical.
    pub(crate) fn run<T: Item, U: Item>(
        &self,
        inputs: &[ArrayViewD<'_, T>],
        memory: &mut Arena,
    ) -> Result<Vec<ArrayD<U>>> {
        let images = self.check_inputs(inputs)?;
        self.check_bytes::<U>(images, memory.max_bytes)?;
        let output = |&t: &usize| {
            let shape = self.tensors[t].shape_of(images);
            if let Some(constant) = &self.tensors[t].constant {
                let values = constant.iter().copied().collect::<Vec<f32>>();
                let values = U::of(Values::Float(&values)).to_vec();
                return Ok(Array::from_shape_vec(constant.raw_dim(), values).expect("as many values"));
            }
            elements("output of the network", &shape)?;
            let mut strided = Array::from_elem(IxDyn(&physical(&shape)), U::default());
            if shape.len() == 4 {
                strided = strided.permuted_axes(&[0, 3, 1, 2][..]);
            }
            Ok(strided)
        };
        let mut outputs = self.outputs.of::<U>().iter().map(output).collect::<Result<Vec<ArrayD<U>>>>()?;
        let computed = self.outputs.of::<U>().iter().zip(&mut outputs).filter(|(t, _)| self.is_computed(**t));
        let views: Vec<_> = computed.map(|(_, output)| output.view_mut()).collect();
        if views.iter().any(|output| !output.is_empty()) {
            self.split(inputs.to_vec(), views, images, memory)?;
        }
        Ok(outputs)
    }

    /// Returns an error if a run needs more than `max_bytes` for buffers and outputs.
    fn check_bytes<U>(&self, images: usize, max_bytes: usize) -> Result<()> {
        let sum = |sizes: &[usize]| sizes.iter().fold(0usize, |sum, &size| sum.saturating_add(size));
        let buffers = sum(&self.real_sizes).saturating_mul(size_of::<f32>()).saturating_add(sum(&self.code_sizes));
        let buffers = buffers.saturating_mul(images.min(self.chunk)).saturating_mul(self.threads(images));
        let outputs = self.outputs.reals.iter().filter(|&&t| self.is_computed(t));
        let outputs = sum(&outputs.map(|&t| self.tensors[t].len()).collect::<Vec<_>>());
        let bytes = outputs.saturating_mul(size_of::<U>()).saturating_mul(images).saturating_add(buffers);
        if bytes <= max_bytes {
            return Ok(());
        }
        let found = alloc::format!("{bytes} bytes for a batch of {images}");
        let found = alloc::format!("{found}, over the limit of {max_bytes} (see Arena::with_max_bytes)");
        Err(Error::Argument { what: "memory of a run", expected: "at most the limit of the arena", found })
    }

    /// The number of threads that share the chunks of a batch.
    fn threads(&self, images: usize) -> usize {
        threads::available().min(images.div_ceil(self.chunk)).max(1)
    }

    /// Returns whether a tensor depends on the inputs.
    fn is_computed(&self, t: usize) -> bool {
        self.tensors[t].constant.is_none()
    }

    /// Splits the images over the threads of the caller's pool, in whole chunks.
    fn split<T: Item, U: Item>(
        &self,
        inputs: Vec<ArrayViewD<'_, T>>,
        outputs: Vec<ArrayViewMutD<'_, U>>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<()> {
        let parts = self.threads(images);
        if parts < 2 {
            return self.part(inputs, outputs, images, memory);
        }
        let first = (images * (parts / 2) / parts).next_multiple_of(self.chunk).min(images - 1);
        let (a, b) = inputs.into_iter().map(|x| x.split_at(Axis(0), first)).unzip();
        let (c, d) = outputs.into_iter().map(|y| y.split_at(Axis(0), first)).unzip();
        let (front, back) =
            threads::join(|| self.split(a, c, first, memory), || self.split(b, d, images - first, &mut Arena::new()));
        front.and(back.map_err(|e| shift_batch(e, first)))
    }

    fn part<T: Item, U: Item>(
        &self,
        inputs: Vec<ArrayViewD<'_, T>>,
        mut outputs: Vec<ArrayViewMutD<'_, U>>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<()> {
        for (range, count) in self.chunks(images) {
            let chunk = inputs.iter().map(|x| x.slice_axis(Axis(0), range));
            self.compute::<T, U>(chunk, count, memory).map_err(|e| shift_batch(e, range.start as usize))?;
            let computed = self.outputs.of::<U>().iter().filter(|&&t| self.is_computed(t));
            for (&t, y) in computed.zip(&mut outputs) {
                let values = self.values(t, count, memory).as_slice::<U>();
                self.store(t, values, count, y.slice_axis_mut(Axis(0), range));
            }
        }
        Ok(())
    }

    /// Runs all steps on one chunk of images.
    fn compute<'a, T: Item, U: Item>(
        &self,
        chunk: impl Iterator<Item = ArrayViewD<'a, T>>,
        images: usize,
        memory: &mut Arena,
    ) -> Result<()> {
        self.enter(chunk, images, memory)?;
        let mut steps = self.steps.iter().filter(|step| match step.role {
            Role::Body => true,
            Role::Entry => false,
            Role::Exit => U::KIND == Kind::Float,
        });
        steps.try_for_each(|step| self.step(step, images, memory))
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
                self.step(step, count, memory).map_err(|e| shift_batch(e, range.start as usize))?;
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
        done.map_err(|e| {
            let located = map_index(e, |i| match step.inputs.first() {
                Some(&t) => from_buffer(i[0], &self.tensors[t].shape),
                None => i,
            });
            located.at(&step.node)
        })
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
