//! Writing of models, on the host.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::arena::{Lifetime, offsets};
use super::copy::StridedCopy;
use super::format::{Access, Fields, Grid, HEADER, Region, Sizes, write_header};
use super::model::{Model, Step};
use crate::error::Error;
#[cfg(doc)]
use crate::graph::QuantizedNetwork;

/// A model in memory of its own, with the memory that each node takes on a device.
///
/// [`QuantizedNetwork::to_micro`] makes it. [`as_bytes`](Self::as_bytes) go into a file that firmware includes. Printed, it
/// is a table of flash and arena.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelBuf {
    bytes: Vec<u8>,
    nodes: Vec<NodeMemory>,
    shapes: [Vec<usize>; 2],
}

/// The memory that a node takes in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeMemory {
    /// The name of the node.
    pub node: String,
    /// The operator's name.
    pub op: &'static str,
    /// Bytes of the model: weights and other constants, and the steps themselves.
    pub flash: usize,
    /// Bytes of the arena that are in use while the node runs: its tensors, its scratch, and tensors that later nodes read.
    pub arena: usize,
}

impl ModelBuf {
    /// The bytes, which [`Model::new`] reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The model.
    pub fn model(&self) -> Model<'_> {
        Model::new(&self.bytes).expect("what is written here is valid")
    }

    /// The numbers of bytes of input, output and arena.
    pub fn sizes(&self) -> Sizes {
        self.model().sizes()
    }

    /// The memory of each node, in the order that they run. A node that only renames its input, such as a reshape, takes
    /// none and is not listed.
    pub fn nodes(&self) -> &[NodeMemory] {
        &self.nodes
    }

    /// The shape of the input, in the order of its codes: 4-D tensors have their channels last.
    pub fn input_shape(&self) -> &[usize] {
        &self.shapes[0]
    }

    /// The shape of the output, in the order of its codes.
    pub fn output_shape(&self) -> &[usize] {
        &self.shapes[1]
    }
}

impl fmt::Display for ModelBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.nodes.iter().map(|memory| memory.node.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "{:width$}  {:17}  {:>8}  {:>8}", "node", "operator", "flash", "arena")?;
        for NodeMemory { node, op, flash, arena } in &self.nodes {
            writeln!(f, "{node:width$}  {op:17}  {flash:>8}  {arena:>8}")?;
        }
        write!(f, "{:width$}  {:17}  {:>8}  {:>8}", "model", "", self.bytes.len(), self.sizes().arena)
    }
}

/// A node that has no form in a model, with the reason.
pub(crate) struct Unsupported(pub(crate) String);

impl From<&str> for Unsupported {
    fn from(why: &str) -> Self {
        Unsupported(why.into())
    }
}

impl From<Error> for Unsupported {
    fn from(error: Error) -> Self {
        Unsupported(alloc::format!("{error}"))
    }
}

pub(crate) type Written = Result<(), Unsupported>;

/// The steps and the data of a model, before its tensors have places.
#[derive(Debug, Default)]
pub(crate) struct ModelWriter {
    /// The lengths of all tensors.
    tensors: Vec<usize>,
    steps: Vec<Step>,
    data: Vec<u8>,
    /// For each node, the ends of its steps and of its data.
    nodes: Vec<(NodeMemory, usize, usize)>,
}

/// Adds the steps of one node.
pub(crate) struct StepWriter<'w> {
    pub(crate) model: &'w mut ModelWriter,
    pub(crate) x: &'w [Region],
    pub(crate) y: Region,
}

impl ModelWriter {
    /// Adds a tensor. `None` if it has no elements, or more than a model can have.
    pub(crate) fn tensor(&mut self, len: usize) -> Option<Region> {
        let fits = (1..i32::MAX as usize).contains(&len);
        self.tensors.push(len);
        fits.then_some(Region { at: self.tensors.len() as u32 - 1, len: len as u32 })
    }

    /// Ends the steps of a node.
    pub(crate) fn end_node(&mut self, node: &str, op: &'static str) {
        let memory = NodeMemory { node: node.into(), op, flash: 0, arena: 0 };
        self.nodes.push((memory, self.steps.len(), self.data.len()));
    }

    /// Gives each tensor its place and writes the model. `None` if it is longer than 2 GiB.
    pub(crate) fn finish(
        mut self,
        [input, output]: [Region; 2],
        shapes: [Vec<usize>; 2],
        grids: [(f32, u8); 2],
    ) -> Option<ModelBuf> {
        let mut lives: Vec<Option<Lifetime>> = alloc::vec![None; self.tensors.len()];
        for (i, step) in self.steps.iter_mut().enumerate() {
            step.fields(&mut Lifetimes { lives: &mut lives, step: i });
        }
        for outer in [input, output] {
            lives[outer.at as usize] = None;
        }
        let in_arena: Vec<usize> = (0..lives.len()).filter(|&t| lives[t].is_some()).collect();
        let lifetimes: Vec<Lifetime> = lives.into_iter().flatten().collect();
        let offsets = offsets(&lifetimes);
        let end_of = |step: usize| {
            let lives =
                lifetimes.iter().zip(&offsets).filter(move |(life, _)| (life.first..=life.last).contains(&step));
            lives.map(|(life, at)| life.len + at).max().unwrap_or(0)
        };
        let sizes = Sizes {
            input: input.len(),
            output: output.len(),
            arena: (0..self.steps.len()).map(end_of).max().unwrap_or(0),
        };
        let mut places = alloc::vec![0; self.tensors.len()];
        in_arena.iter().zip(&offsets).for_each(|(&t, &at)| places[t] = at as u32);
        places[input.at as usize] = Region::INPUT;
        places[output.at as usize] = Region::OUTPUT;

        let mut bytes = alloc::vec![0; HEADER];
        let mut ends = Vec::new();
        // The data come behind the steps, whose length does not depend on where that is.
        for data in [0, 1] {
            let start = bytes.len() * data;
            bytes.truncate(HEADER);
            ends.clear();
            for step in &mut self.steps {
                let mut step = *step;
                let mut encoder = Encoder { bytes: &mut bytes, places: &places, data: start as u32 };
                encoder.word(&mut step.kind());
                step.fields(&mut encoder);
                ends.push(bytes.len());
            }
        }
        let (mut from, mut nodes) = ((0, 0, HEADER), Vec::new());
        for (mut memory, steps, data) in self.nodes {
            let end = if steps == 0 { HEADER } else { ends[steps - 1] };
            if steps > from.0 {
                memory.flash = end - from.2 + data - from.1;
                memory.arena = (from.0..steps).map(end_of).max().unwrap_or(0);
                nodes.push(memory);
            }
            from = (steps, data, end);
        }
        bytes.append(&mut self.data);
        if bytes.len().max(sizes.arena) >= Region::MODEL as usize {
            return None;
        }
        write_header(&mut bytes, self.steps.len(), sizes, grids.map(|(scale, zero_point)| Grid { scale, zero_point }));
        Some(ModelBuf { bytes, nodes, shapes })
    }
}

impl StepWriter<'_> {
    pub(crate) fn step(&mut self, step: Step) {
        self.model.steps.push(step);
    }

    /// Adds a copy of input `i`. `None` is one of too many loops.
    pub(crate) fn copy(&mut self, copy: Option<StridedCopy>, i: usize) -> Written {
        let copy = copy.ok_or("it moves elements in too irregular an order")?;
        self.step(Step::StridedCopy(StridedCopy { x: self.x[i], y: self.y, ..copy }));
        Ok(())
    }

    /// Adds constant bytes.
    pub(crate) fn data(&mut self, bytes: impl IntoIterator<Item = u8>) -> Region {
        let data = &mut self.model.data;
        data.resize(data.len().next_multiple_of(4), 0);
        let at = data.len();
        data.extend(bytes);
        Region { at: Region::MODEL | at as u32, len: (data.len() - at) as u32 }
    }

    /// Adds constant words.
    pub(crate) fn words<W>(&mut self, words: &[W], bits: impl Fn(&W) -> u32) -> Region {
        self.data(words.iter().flat_map(|word| bits(word).to_le_bytes()))
    }

    /// Adds scratch that the node alone uses. It may be empty.
    pub(crate) fn scratch(&mut self, len: usize) -> Result<Region, Unsupported> {
        let too_large = "its scratch is too large";
        if len == 0 { Ok(Region::default()) } else { self.model.tensor(len).ok_or(too_large.into()) }
    }
}

/// Finds the first and the last step that uses each tensor.
struct Lifetimes<'a> {
    lives: &'a mut [Option<Lifetime>],
    step: usize,
}

impl Fields for Lifetimes<'_> {
    fn word(&mut self, _: &mut u32) {}

    fn region(&mut self, region: &mut Region, _: Access) {
        if region.is_in_arena() && region.len > 0 {
            let step = self.step;
            let life = &mut self.lives[region.at as usize];
            life.get_or_insert(Lifetime { len: region.len(), first: step, last: step }).last = step;
        }
    }
}

/// Writes fields, with the place of each tensor instead of its number.
struct Encoder<'a> {
    bytes: &'a mut Vec<u8>,
    places: &'a [u32],
    /// Where the data of the model start.
    data: u32,
}

impl Fields for Encoder<'_> {
    fn word(&mut self, value: &mut u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn region(&mut self, region: &mut Region, _: Access) {
        let mut at = match region.is_in_arena() {
            true if region.len == 0 => 0,
            true => self.places[region.at as usize],
            false => region.at.wrapping_add(self.data),
        };
        self.word(&mut at);
        self.word(&mut region.len);
    }
}
