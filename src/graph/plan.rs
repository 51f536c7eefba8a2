//! Execution plan: steps in order, on tensors in shared buffers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use super::buffers::assign_buffers;
use super::network::Constant;
use crate::error::{Error, GraphError, Result, elements};
use crate::gemm::Aligned;
use crate::ops::index::{from_buffer, map_index};
use crate::ops::kernel::{Kernel, Kind, Scalar, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{Dims, Layout, batch_dims, copy_to_row_major};
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
    pub(super) floats: Vec<Aligned<f32>>,
    pub(super) codes: Vec<Aligned<u8>>,
    pub(super) scratch: Scratch,
    /// The position in the caller's batch of the first sample in the buffers.
    pub(super) first: usize,
    max_bytes: usize,
}

impl Arena {
    /// An empty arena for runs of at most 1 GiB.
    pub fn new() -> Self {
        Self { floats: Vec::new(), codes: Vec::new(), scratch: Scratch::default(), first: 0, max_bytes: 1 << 30 }
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
    /// The logical shape for a batch of one.
    pub(crate) shape: Vec<usize>,
    pub(crate) layout: Layout,
    pub(crate) kind: Kind,
    /// The index of its buffer among the buffers of its kind.
    pub(super) buffer: usize,
    /// The value of an output that does not depend on the inputs. It has no buffer and no batch.
    pub(super) constant: Option<Constant>,
}

impl Tensor {
    pub(crate) fn new(name: &str, dims: Dims<'_>, kind: Kind) -> Self {
        Self { name: name.into(), shape: dims.shape.into(), layout: dims.layout, kind, buffer: 0, constant: None }
    }

    /// An output of constant value.
    pub(crate) fn constant(name: &str, value: Constant) -> Self {
        Self { constant: Some(value.clone()), ..Self::new(name, Dims::new(value.shape(), Layout::RowMajor), Kind::F32) }
    }

    /// The shape with the layout.
    pub(crate) fn dims(&self) -> Dims<'_> {
        Dims::new(&self.shape, self.layout)
    }

    /// The number of elements per image.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One step. Without a kernel, the output is an alias of the first input.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) node: String,
    pub(crate) role: Role,
    pub(crate) kernel: Option<Box<dyn Kernel>>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) output: usize,
}

/// The runs that include a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All runs.
    Body,
    /// Runs on f32 inputs, before all other steps: quantizes an input.
    Entry,
    /// Runs with f32 outputs: dequantizes an output.
    Exit,
}

/// The input or output tensors of a plan: as f32, and as codes if all of them are quantized.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports {
    pub(crate) floats: Vec<usize>,
    pub(crate) codes: Vec<usize>,
}

impl Ports {
    pub(super) fn of<T: Scalar>(&self) -> &[usize] {
        if T::KIND == Kind::F32 { &self.floats } else { &self.codes }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        self.floats.iter().chain(&self.codes).copied()
    }
}

/// A network ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Ports,
    pub(crate) outputs: Ports,
    /// The elements per image of each f32 buffer and of each code buffer.
    pub(super) float_sizes: Vec<usize>,
    pub(super) code_sizes: Vec<usize>,
    /// For each f32 input, the step that quantizes it.
    pub(super) entries: Vec<Option<Entry>>,
    /// The images that run through all steps together.
    chunk: usize,
}

/// The step that quantizes an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) step: usize,
    /// No other step reads the input as f32.
    pub(super) only_reader: bool,
}

/// The size of the largest tensor of a chunk of images, so that a chunk stays in L2.
const CHUNK_BYTES: usize = 256 * 1024;

/// A step that has run, with its values in one sample. Its kernel may run again on other inputs.
pub(crate) struct Probe<'a> {
    pub(crate) step: &'a Step,
    pub(crate) kernel: &'a dyn Kernel,
    pub(crate) inputs: &'a [Values<'a>],
    pub(crate) output: Values<'a>,
    pub(crate) scratch: &'a mut Scratch,
}

/// Receives a tensor and its values in one sample.
pub(crate) type Observe<'a> = &'a mut dyn FnMut(&Tensor, Values<'_>) -> Result<()>;

impl Plan {
    pub(crate) fn new(mut tensors: Vec<Tensor>, steps: Vec<Step>, inputs: Ports, outputs: Ports) -> Self {
        let (float_sizes, code_sizes) = assign_buffers(&mut tensors, &steps, &inputs, &outputs);
        let bytes = |t: &Tensor| t.len() * if t.kind == Kind::F32 { 4 } else { 1 };
        let largest = tensors.iter().map(bytes).max().unwrap_or(0);
        let chunk = (CHUNK_BYTES / largest.max(1)).clamp(1, 256);
        let mut readers = alloc::vec![0; tensors.len()];
        let mut entry_of = alloc::vec![None; tensors.len()];
        steps.iter().flat_map(|step| &step.inputs).copied().chain(outputs.all()).for_each(|t| readers[t] += 1);
        for (i, step) in steps.iter().enumerate().filter(|(_, step)| step.role == Role::Entry) {
            entry_of[step.inputs[0]] = Some(Entry { step: i, only_reader: readers[step.inputs[0]] == 1 });
        }
        let entries = inputs.floats.iter().map(|&t| entry_of[t]).collect();
        Self { tensors, steps, inputs, outputs, float_sizes, code_sizes, entries, chunk }
    }

    /// Chooses for every step that quantizes floats whether NaN becomes the code of zero or is an error.
    pub(crate) fn set_nan_as_zero(&mut self, nan_as_zero: bool) {
        self.steps.iter_mut().filter_map(|s| s.kernel.as_mut()).for_each(|k| k.set_nan_as_zero(nan_as_zero));
    }

    /// The memory that the kernels take for weights and other constants, in bytes.
    pub(crate) fn size_in_bytes(&self) -> usize {
        self.steps.iter().filter_map(|step| step.kernel.as_ref()).map(|kernel| kernel.size_in_bytes()).sum()
    }

    /// Runs a batch. Inputs and outputs are logical.
    pub(crate) fn run<T: Scalar, U: Scalar>(
        &self,
        inputs: &[ArrayViewD<'_, T>],
        arena: &mut Arena,
    ) -> Result<Vec<ArrayD<U>>> {
        let images = self.check_inputs(inputs)?;
        self.check_bytes::<U>(images, arena.max_bytes)?;
        let output = |&t: &usize| {
            if let Some(constant) = &self.tensors[t].constant {
                let values = constant.iter().copied().collect::<Vec<f32>>();
                let values = U::of(Values::F32(&values)).to_vec();
                return Ok(Array::from_shape_vec(constant.raw_dim(), values).expect("the values of the constant"));
            }
            let shape = batch_dims(&self.tensors[t].shape, images);
            elements("output of the network", &shape)?;
            Ok(Array::from_elem(IxDyn(&shape), U::default()))
        };
        // The batch is an axis of its own while the outputs are filled.
        let mut outputs = self.outputs.of::<U>().iter().map(output).collect::<Result<Vec<ArrayD<U>>>>()?;
        let computed = self.outputs.of::<U>().iter().zip(&mut outputs).filter(|(t, _)| self.is_computed(**t));
        let views: Vec<_> = computed.map(|(_, output)| output.view_mut()).collect();
        if views.iter().any(|output| !output.is_empty()) {
            arena.first = 0;
            self.split(inputs.to_vec(), views, images, arena)?;
        }
        for (&t, output) in self.outputs.of::<U>().iter().zip(&mut outputs).filter(|(t, _)| self.is_computed(**t)) {
            let batch = core::mem::take(output).into_shape_with_order(self.tensors[t].shape_of(images));
            *output = batch.expect("the batch is merged into the first axis");
        }
        Ok(outputs)
    }

    /// Returns an error if a run needs more than `max_bytes` for buffers and outputs.
    fn check_bytes<U>(&self, images: usize, max_bytes: usize) -> Result<()> {
        let sum = |sizes: &[usize]| sizes.iter().fold(0usize, |sum, &size| sum.saturating_add(size));
        let buffers = sum(&self.float_sizes).saturating_mul(size_of::<f32>()).saturating_add(sum(&self.code_sizes));
        let buffers = buffers.saturating_mul(images.min(self.chunk)).saturating_mul(self.threads(images));
        let outputs = self.outputs.floats.iter().filter(|&&t| self.is_computed(t));
        let outputs = sum(&outputs.map(|&t| self.tensors[t].len()).collect::<Vec<_>>());
        let bytes = outputs.saturating_mul(size_of::<U>()).saturating_mul(images).saturating_add(buffers);
        if bytes <= max_bytes {
            return Ok(());
        }
        Err(GraphError::Memory { limit: max_bytes, found: bytes, batch: images }.into())
    }

    /// The number of threads that share the chunks of a batch.
    fn threads(&self, images: usize) -> usize {
        threads::available().min(images.div_ceil(self.chunk)).max(1)
    }

    /// Returns whether a tensor depends on the inputs.
    fn is_computed(&self, t: usize) -> bool {
        self.tensors[t].constant.is_none()
    }

    /// Splits the batch over the threads of the caller's pool, in whole chunks.
    fn split<T: Scalar, U: Scalar>(
        &self,
        inputs: Vec<ArrayViewD<'_, T>>,
        outputs: Vec<ArrayViewMutD<'_, U>>,
        images: usize,
        arena: &mut Arena,
    ) -> Result<()> {
        let threads = self.threads(images);
        if threads < 2 {
            return self.run_chunks(inputs, outputs, images, arena);
        }
        let first = (images * (threads / 2) / threads).next_multiple_of(self.chunk).min(images - 1);
        let rows = self.inputs.of::<T>().iter().map(|&t| self.tensors[t].first_axis());
        let (x_front, x_back) = inputs.into_iter().zip(rows).map(|(x, rows)| x.split_at(Axis(0), first * rows)).unzip();
        let (y_front, y_back) = outputs.into_iter().map(|y| y.split_at(Axis(0), first)).unzip();
        let mut back_arena = Arena { first: arena.first + first, ..Arena::new() };
        let (front, back) = threads::join(
            || self.split(x_front, y_front, first, arena),
            || self.split(x_back, y_back, images - first, &mut back_arena),
        );
        front.and(back)
    }

    fn run_chunks<T: Scalar, U: Scalar>(
        &self,
        inputs: Vec<ArrayViewD<'_, T>>,
        mut outputs: Vec<ArrayViewMutD<'_, U>>,
        images: usize,
        arena: &mut Arena,
    ) -> Result<()> {
        for (range, count) in self.chunks(images) {
            self.compute::<T, U>(self.samples(&inputs, range), count, arena)?;
            arena.first += count;
            let computed = self.outputs.of::<U>().iter().filter(|&&t| self.is_computed(t));
            for (&t, y) in computed.zip(&mut outputs) {
                let values = self.values(t, count, arena).as_slice::<U>();
                self.store(t, values, y.slice_axis_mut(Axis(0), range));
            }
        }
        Ok(())
    }

    /// Runs all steps on one chunk of images.
    fn compute<'a, T: Scalar, U: Scalar>(
        &self,
        chunk: impl Iterator<Item = ArrayViewD<'a, T>>,
        images: usize,
        arena: &mut Arena,
    ) -> Result<()> {
        self.enter(chunk, images, arena)?;
        let mut steps = self.steps.iter().filter(|step| match step.role {
            Role::Body => true,
            Role::Entry => false,
            Role::Exit => U::KIND == Kind::F32,
        });
        steps.try_for_each(|step| self.step(step, images, arena))
    }

    /// Runs the samples of a batch one by one, on one thread, and calls `observe` with each input and with the output of
    /// each step. Returns the number of samples.
    ///
    /// The order of sums in a product may depend on the number of its rows, so that a sample would depend on its batch.
    pub(crate) fn run_observed(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        arena: &mut Arena,
        observe: Observe<'_>,
    ) -> Result<usize> {
        let samples = self.check_inputs(inputs)?;
        for i in 0..samples {
            arena.first = i;
            self.load(self.samples(inputs, Slice::from(i..i + 1)), 1, arena);
            let mut observe = |t: usize, arena: &Arena| {
                let tensor = &self.tensors[t];
                observe(tensor, self.values(t, 1, arena)).map_err(|e| tensor.shifted(e, i))
            };
            self.inputs.floats.iter().try_for_each(|&t| observe(t, arena))?;
            for step in &self.steps {
                self.step(step, 1, arena)?;
                observe(step.output, arena)?;
            }
        }
        Ok(samples)
    }

    /// Runs one sample on one thread and calls `probe` after each step with a kernel.
    pub(crate) fn run_probed(
        &self,
        sample: &[ArrayViewD<'_, f32>],
        arena: &mut Arena,
        probe: &mut dyn FnMut(&mut Probe<'_>) -> Result<()>,
    ) -> Result<()> {
        arena.first = 0;
        self.load(sample.iter().map(|x| x.view()), 1, arena);
        for step in &self.steps {
            self.step(step, 1, arena)?;
            if let Some(kernel) = &step.kernel {
                let mut scratch = core::mem::take(&mut arena.scratch);
                let inputs: Vec<Values<'_>> = step.inputs.iter().map(|&t| self.values(t, 1, arena)).collect();
                let output = self.values(step.output, 1, arena);
                probe(&mut Probe { step, kernel: &**kernel, inputs: &inputs, output, scratch: &mut scratch })?;
                arena.scratch = scratch;
            }
        }
        Ok(())
    }

    /// Splits a batch into samples.
    pub(crate) fn split_batch<'a>(&self, inputs: &'a [ArrayViewD<'_, f32>]) -> Result<Vec<Vec<ArrayViewD<'a, f32>>>> {
        let samples = self.check_inputs(inputs)?;
        let rows = self.inputs.floats.iter().map(|&t| self.tensors[t].first_axis());
        let of = |i: usize| {
            let range = |rows: usize| Slice::from(i * rows..(i + 1) * rows);
            inputs.iter().zip(rows.clone()).map(|(x, rows)| x.slice_axis(Axis(0), range(rows))).collect()
        };
        Ok((0..samples).map(of).collect())
    }

    /// Splits a batch into chunks: a slice and its length each.
    fn chunks(&self, images: usize) -> impl Iterator<Item = (Slice, usize)> {
        let ends = move |start| start..images.min(start + self.chunk);
        (0..images).step_by(self.chunk).map(ends).map(|range| (Slice::from(range.clone()), range.len()))
    }

    /// The inputs of a range of samples.
    fn samples<'a, T: Scalar>(
        &'a self,
        inputs: &'a [ArrayViewD<'_, T>],
        range: Slice,
    ) -> impl Iterator<Item = ArrayViewD<'a, T>> {
        inputs.iter().zip(self.inputs.of::<T>()).map(move |(x, &t)| {
            let rows = self.tensors[t].first_axis() as isize;
            let range = Slice::new(range.start * rows, range.end.map(|end| end * rows), 1);
            x.slice_axis(Axis(0), range)
        })
    }

    /// Checks the number and shapes of the inputs. Returns the batch size.
    fn check_inputs<T: Scalar>(&self, inputs: &[ArrayViewD<'_, T>]) -> Result<usize> {
        let expected = self.inputs.of::<T>();
        if inputs.len() != expected.len() {
            let (expected, found) = (alloc::format!("{}", expected.len()), inputs.len());
            return Err(GraphError::Inputs { expected, found: alloc::format!("{found} (see run_many)") }.into());
        }
        let rows = inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        let images = expected.first().map_or(0, |&t| rows / self.tensors[t].first_axis());
        for (x, &t) in inputs.iter().zip(expected) {
            let expected = self.tensors[t].shape_of(images);
            if x.shape() != expected {
                return Err(Error::shape("input of the network", &expected, x.shape()));
            }
        }
        Ok(images)
    }

    /// Copies a tensor to a part of an output, which is in standard layout.
    fn store<U: Scalar>(&self, t: usize, values: &[U], mut y: ArrayViewMutD<'_, U>) {
        copy_to_row_major(values, self.tensors[t].dims(), y.as_slice_mut().expect("whole samples in standard layout"));
    }

    /// The values of a tensor.
    pub(crate) fn values<'m>(&self, t: usize, images: usize, arena: &'m Arena) -> Values<'m> {
        let tensor = &self.tensors[t];
        let len = tensor.len() * images;
        match tensor.kind {
            Kind::F32 => Values::F32(&arena.floats[tensor.buffer][..len]),
            Kind::Code => Values::Code(&arena.codes[tensor.buffer][..len]),
        }
    }

    pub(super) fn step(&self, step: &Step, images: usize, arena: &mut Arena) -> Result<()> {
        let Some(kernel) = &step.kernel else { return Ok(()) };
        let output = &self.tensors[step.output];
        let len = output.len() * images;
        let mut scratch = core::mem::take(&mut arena.scratch);
        // The output's buffer leaves the arena while the inputs' are read there: no step writes where it reads.
        let done = match output.kind {
            Kind::F32 => {
                let mut buffer = core::mem::take(&mut arena.floats[output.buffer]);
                let done =
                    self.run_kernel(&**kernel, step, images, ValuesMut::F32(&mut buffer[..len]), arena, &mut scratch);
                arena.floats[output.buffer] = buffer;
                done
            }
            Kind::Code => {
                let mut buffer = core::mem::take(&mut arena.codes[output.buffer]);
                let done =
                    self.run_kernel(&**kernel, step, images, ValuesMut::Code(&mut buffer[..len]), arena, &mut scratch);
                arena.codes[output.buffer] = buffer;
                done
            }
        };
        arena.scratch = scratch;
        done.map_err(|e| {
            let Some(&t) = step.inputs.first() else { return e.at(&step.node) };
            let located = map_index(e, |i| from_buffer(i[0], self.tensors[t].dims()));
            self.tensors[t].shifted(located, arena.first).at(&step.node)
        })
    }

    fn run_kernel(
        &self,
        kernel: &dyn Kernel,
        step: &Step,
        images: usize,
        output: ValuesMut<'_>,
        arena: &Arena,
        scratch: &mut Scratch,
    ) -> Result<()> {
        // Most steps have few inputs and allocate nothing.
        const INLINE: usize = 4;
        let mut inline = [Values::F32(&[]); INLINE];
        if step.inputs.len() <= INLINE {
            for (value, &t) in inline.iter_mut().zip(&step.inputs) {
                *value = self.values(t, images, arena);
            }
            kernel.run(images, &inline[..step.inputs.len()], output, scratch)
        } else {
            let values: Vec<Values<'_>> = step.inputs.iter().map(|&t| self.values(t, images, arena)).collect();
            kernel.run(images, &values, output, scratch)
        }
    }
}

impl Tensor {
    /// Moves the index in an error by samples before the chunk.
    pub(super) fn shifted(&self, error: Error, samples: usize) -> Error {
        map_index(error, |mut index| {
            index.iter_mut().take(1).for_each(|at| *at += samples * self.first_axis());
            index
        })
    }

    /// The length of the first axis for a batch of one.
    fn first_axis(&self) -> usize {
        self.shape.first().copied().unwrap_or(1).max(1)
    }

    /// The logical shape for a batch of `images`.
    fn shape_of(&self, images: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        match shape.first_mut() {
            Some(batch) => *batch *= images,
            None if images == 1 => {}
            None => shape.push(images),
        }
        shape
    }

    pub(super) fn buffer_mut<'m>(&self, arena: &'m mut Arena) -> ValuesMut<'m> {
        match self.kind {
            Kind::F32 => ValuesMut::F32(&mut arena.floats[self.buffer]),
            Kind::Code => ValuesMut::Code(&mut arena.codes[self.buffer]),
        }
    }
}

pub(super) fn grow<T: Copy + Default>(buffers: &mut Vec<Aligned<T>>, sizes: &[usize], images: usize) {
    if buffers.len() < sizes.len() {
        buffers.resize_with(sizes.len(), Aligned::default);
    }
    for (buffer, size) in buffers.iter_mut().zip(sizes) {
        if buffer.len() < size * images {
            buffer.resize(size * images);
        }
    }
}
