//! The bytes of a model: a header, the steps, their data; all of it in little-endian words of 32 bits.
//!
//! ```text
//! header   magic "NDQM", version, length, checksum, number of steps,
//!          bytes of input, output and arena, scale and zero point of input and output
//! steps    a kind, then the fields of the step
//! data     weights, biases, multipliers, tables; each starts at a multiple of 4
//! ```
//!
//! Each step lists its fields once, for a visitor: one reads them, one writes them, others look for memory.

use super::ModelError;
use crate::affine::Codes;
use crate::window::Placed;

const MAGIC: u32 = u32::from_le_bytes(*b"NDQM");
const VERSION: u32 = 1;
const HEADER_WORDS: usize = 12;
/// The length of the header in bytes.
pub(super) const HEADER: usize = 4 * HEADER_WORDS;
/// The first word that the checksum covers.
const CHECKED_FROM: usize = 4;

/// The numbers of bytes that a model works on.
///
/// ```
/// use ndarray_quant::micro::Sizes;
/// # use ndarray::array;
/// # use ndarray_quant::graph::{CalibrationMethod, GraphBuilder, Precision};
/// # let mut g = GraphBuilder::new();
/// # let x = g.input("x", &[1, 2])?;
/// # let y = g.linear("y", x, &array![[1.0, -0.5], [0.25, 2.0]], None)?;
/// # let graph = g.build(&[y])?;
/// # let mut recipe = graph.calibrate([array![[1.0f32, 0.3]].view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
/// # recipe.tensor_mut("y")?.precision = Precision::Int8;
/// # let model = graph.quantize(&recipe)?.to_micro()?;
/// # let bytes = model.as_bytes();
/// // In firmware: const SIZES: Sizes = match Sizes::of(MODEL) { Ok(sizes) => sizes, Err(_) => panic!("no model") };
/// assert_eq!(Sizes::of(bytes), Ok(Sizes { input: 2, output: 2, arena: 0 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Codes of the input, a byte each.
    pub input: usize,
    /// Codes of the output, a byte each.
    pub output: usize,
    /// Activations between the steps, and scratch.
    pub arena: usize,
}

impl Sizes {
    /// Reads the sizes in the header of a model. It can be evaluated at compile time, for the length of a `static` arena.
    ///
    /// # Errors
    /// [`ModelError::Magic`], [`ModelError::Version`] or [`ModelError::Length`]. Only [`Model::new`](super::Model::new)
    /// checks the rest.
    pub const fn of(model: &[u8]) -> Result<Self, ModelError> {
        match Header::read(model) {
            Ok(header) => Ok(header.sizes),
            Err(error) => Err(error),
        }
    }
}

/// A scale and a zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    pub(super) scale: f32,
    pub(super) zero_point: u8,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    checksum: u32,
    pub(super) steps: usize,
    pub(super) sizes: Sizes,
    pub(super) input: Grid,
    pub(super) output: Grid,
}

impl Header {
    pub(super) const fn read(model: &[u8]) -> Result<Self, ModelError> {
        if model.len() < HEADER {
            return Err(ModelError::Length { expected: HEADER, found: model.len() });
        }
        if word(model, 0) != MAGIC {
            return Err(ModelError::Magic);
        }
        if word(model, 1) != VERSION {
            return Err(ModelError::Version { expected: VERSION, found: word(model, 1) });
        }
        if word(model, 2) as usize != model.len() {
            return Err(ModelError::Length { expected: word(model, 2) as usize, found: model.len() });
        }
        let sizes =
            Sizes { input: word(model, 5) as usize, output: word(model, 6) as usize, arena: word(model, 7) as usize };
        let input = Grid { scale: f32::from_bits(word(model, 8)), zero_point: word(model, 9) as u8 };
        let output = Grid { scale: f32::from_bits(word(model, 10)), zero_point: word(model, 11) as u8 };
        Ok(Self { checksum: word(model, 3), steps: word(model, 4) as usize, sizes, input, output })
    }

    /// Compares the checksum with the bytes behind it.
    pub(super) fn check(&self, model: &[u8]) -> Result<(), ModelError> {
        let (expected, found) = (self.checksum, crc32(&model[4 * CHECKED_FROM..]));
        if found == expected { Ok(()) } else { Err(ModelError::Checksum { expected, found }) }
    }
}

/// Completes the header of a model whose steps and data are in place.
pub(super) fn write_header(model: &mut [u8], steps: usize, sizes: Sizes, grids: [Grid; 2]) {
    let [input, output] = grids;
    let words = [
        steps as u32,
        sizes.input as u32,
        sizes.output as u32,
        sizes.arena as u32,
        input.scale.to_bits(),
        input.zero_point.into(),
        output.scale.to_bits(),
        output.zero_point.into(),
    ];
    let length = model.len() as u32;
    let mut set = |i: usize, value: u32| model[4 * i..4 * i + 4].copy_from_slice(&value.to_le_bytes());
    words.into_iter().enumerate().for_each(|(i, value)| set(CHECKED_FROM + i, value));
    [MAGIC, VERSION, length].into_iter().enumerate().for_each(|(i, value)| set(i, value));
    sign(model);
}

/// Writes the checksum of a model.
pub(super) fn sign(model: &mut [u8]) {
    let checksum = crc32(&model[4 * CHECKED_FROM..]);
    model[12..16].copy_from_slice(&checksum.to_le_bytes());
}

const fn word(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

/// CRC-32 (IEEE 802.3), half a byte at a time: its table takes 64 bytes.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut rest = i as u32;
            let mut bit = 0;
            while bit < 4 {
                rest = rest >> 1 ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            table[i] = rest;
            i += 1;
        }
        table
    };
    let half = |crc: u32| crc >> 4 ^ TABLE[crc as usize & 15];
    !bytes.iter().fold(!0, |crc, &byte| half(half(crc ^ u32::from(byte))))
}

/// Bytes that a step reads or writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// An offset into the arena, one into the model, or one of the constants. While a model is written: a tensor.
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Region {
    pub(super) const INPUT: u32 = u32::MAX;
    pub(super) const OUTPUT: u32 = u32::MAX - 1;
    /// The flag of offsets into the model.
    pub(super) const MODEL: u32 = 1 << 31;

    pub(crate) fn len(self) -> usize {
        self.len as usize
    }

    pub(super) fn is_in_arena(self) -> bool {
        self.at < Self::MODEL
    }

    /// The range in the arena or in the model.
    pub(super) fn range(self) -> core::ops::Range<usize> {
        let at = (self.at & !Self::MODEL) as usize;
        at..at.saturating_add(self.len())
    }

    /// Whether two regions share bytes.
    fn overlaps(self, other: Self) -> bool {
        let (a, b) = (self.range(), other.range());
        match self.is_in_arena() && other.is_in_arena() {
            true => a.start < b.end && b.start < a.end,
            false => self.at == other.at,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A visitor of the fields of a step.
pub(crate) trait Fields {
    fn word(&mut self, value: &mut u32);

    fn region(&mut self, region: &mut Region, _: Access) {
        self.word(&mut region.at);
        self.word(&mut region.len);
    }

    fn size(&mut self, value: &mut usize) {
        let mut word = *value as u32;
        self.word(&mut word);
        *value = word as usize;
    }

    fn int(&mut self, value: &mut i32) {
        let mut word = *value as u32;
        self.word(&mut word);
        *value = word as i32;
    }

    fn float(&mut self, value: &mut f32) {
        let mut word = value.to_bits();
        self.word(&mut word);
        *value = f32::from_bits(word);
    }

    fn codes(&mut self, codes: &mut Codes) {
        self.int(&mut codes.min);
        self.int(&mut codes.max);
    }

    fn window(&mut self, window: &mut Placed) {
        let Placed { kernel, strides, dilations, before, image, padded, output } = window;
        for pair in [kernel, strides, dilations, before, image, padded, output] {
            pair.iter_mut().for_each(|value| self.size(value));
        }
    }
}

/// Reads fields. Past the end all words are 0.
pub(super) struct Decoder<'a> {
    pub(super) words: &'a [[u8; 4]],
    pub(super) at: usize,
}

impl Fields for Decoder<'_> {
    fn word(&mut self, value: &mut u32) {
        *value = self.words.get(self.at).map_or(0, |word| u32::from_le_bytes(*word));
        self.at = self.at.saturating_add(1);
    }
}

/// The regions of a convolution, which has the most.
const MOST_REGIONS: usize = 6;

/// Checks the regions of a step.
pub(super) struct RegionCheck<'a> {
    pub(super) sizes: &'a Sizes,
    pub(super) model: usize,
    seen: [(Region, Access); MOST_REGIONS],
    count: usize,
    /// The end of the last region in the arena.
    pub(super) end: usize,
    pub(super) fault: Option<&'static str>,
}

impl<'a> RegionCheck<'a> {
    pub(super) fn new(sizes: &'a Sizes, model: usize) -> Self {
        let seen = [(Region::default(), Access::Read); MOST_REGIONS];
        Self { sizes, model, seen, count: 0, end: 0, fault: None }
    }
}

impl Fields for RegionCheck<'_> {
    fn word(&mut self, _: &mut u32) {}

    fn region(&mut self, region: &mut Region, access: Access) {
        let (end, writes) = (region.range().end, access == Access::Write);
        let fits = match region.at {
            Region::INPUT => !writes && region.len() == self.sizes.input,
            Region::OUTPUT => region.len() == self.sizes.output,
            at if at >= Region::MODEL => !writes && end <= self.model,
            _ => end <= self.sizes.arena,
        };
        let conflict = |&(other, access): &(Region, Access)| {
            (writes || access == Access::Write) && region.len > 0 && other.len > 0 && region.overlaps(other)
        };
        if !fits {
            self.fault = Some("a tensor is outside of the memory that holds it");
        } else if self.seen.iter().take(self.count).any(conflict) {
            self.fault = Some("it writes into the memory that it reads");
        }
        if region.is_in_arena() {
            self.end = self.end.max(end);
        }
        match self.seen.get_mut(self.count) {
            Some(seen) => *seen = (*region, access),
            None => self.fault = Some("it has more tensors than any step"),
        }
        self.count += 1;
    }
}

/// The product of extents. `None` if one is 0, or if it overflows.
pub(super) fn product(extents: &[usize]) -> Option<usize> {
    extents.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)).filter(|&product| product > 0)
}

/// Returns whether codes and a zero point are of `u8`.
pub(super) fn are_codes(zero_points: &[i32], codes: Codes) -> bool {
    zero_points.iter().chain([&codes.min, &codes.max]).all(|code| (0..=255).contains(code)) && codes.min <= codes.max
}

/// Checks that no position of a window overflows. Its kernels may lie in the padding.
pub(super) fn is_window(window: &Placed) -> bool {
    const MOST: usize = i32::MAX as usize / 2;
    let Placed { kernel, strides, dilations, before, image, padded, output } = *window;
    (0..2).all(|axis| {
        let extents = [kernel[axis], strides[axis], dilations[axis], image[axis], output[axis]];
        let last = |steps: usize, each: usize| (steps - 1).checked_mul(each).filter(|&last| last <= MOST);
        extents.iter().all(|extent| (1..=MOST).contains(extent))
            && before[axis] <= MOST
            && padded[axis] <= i32::MAX as usize
            && last(output[axis], strides[axis]).is_some()
            && last(kernel[axis], dilations[axis]).is_some()
    })
}
