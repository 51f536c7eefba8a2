//! A model in read-only memory: checked once, then run step by step.

use core::fmt;

use super::ModelError;
use super::binary::{Add, Mul};
use super::conv::Conv;
use super::copy::StridedCopy;
use super::format::{Decoder, Fields, HEADER, Header, RegionCheck, Sizes};
use super::memory::Memory;
use super::pool::{AveragePool, GlobalAveragePool, Windows};

/// Defines [`Step`] from the kinds of steps: the number that stands for each in a model, its name, its fields.
macro_rules! steps {
    ($($kind:literal $name:ident($type:ty, $run:ident),)*) => {
        /// A step of a model.
        #[derive(Debug, Clone, Copy)]
        #[allow(clippy::large_enum_variant, reason = "one at a time")]
        pub(crate) enum Step {
            $($name($type),)*
        }

        impl Step {
            /// The fields of a kind, to be read.
            fn of_kind(kind: u32) -> Option<Self> {
                match kind {
                    $($kind => Some(Step::$name(<$type>::default())),)*
                    _ => None,
                }
            }

            pub(super) fn kind(&self) -> u32 {
                match self {
                    $(Step::$name(_) => $kind,)*
                }
            }

            pub(super) fn fields(&mut self, f: &mut impl Fields) {
                match self {
                    $(Step::$name(step) => step.fields(f),)*
                }
            }

            fn is_valid(&self) -> bool {
                match self {
                    $(Step::$name(step) => step.is_valid(),)*
                }
            }

            fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
                match self {
                    $(Step::$name(step) => step.$run(memory),)*
                }
            }
        }
    };
}
steps! {
    1 Conv(Conv, run),
    2 MaxPool(Windows, run_max),
    3 AveragePool(AveragePool, run),
    4 GlobalAveragePool(GlobalAveragePool, run),
    5 Add(Add, run),
    6 Mul(Mul, run),
    7 StridedCopy(StridedCopy, run),
}

impl Step {
    fn decode(words: &mut Decoder<'_>) -> Option<Self> {
        let mut kind = 0;
        words.word(&mut kind);
        let mut step = Self::of_kind(kind)?;
        step.fields(words);
        (words.at <= words.words.len()).then_some(step)
    }
}

/// A full-integer network in a slice of bytes, which is read in place. Needs no heap.
///
/// [`ModelBuf`](super::ModelBuf) makes the bytes. Tensors of four axes have their channels last, `[height, width,
/// channels]`; others are in row-major order.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{Arena, CalibrationMethod, GraphBuilder, Precision};
/// use ndarray_quant::micro::Model;
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let x = g.linear("a", x, &array![[1.0, -0.5], [0.25, 2.0]], None)?;
/// let y = g.linear("b", x, &array![[1.0, 1.0]], None)?;
/// let graph = g.build(&[y])?;
/// let samples = array![[1.0f32, 0.3], [0.2, -0.4], [-1.0, 1.0]];
/// let mut recipe = graph.calibrate([samples.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
/// recipe.tensor_mut("b")?.precision = Precision::Int8; // codes from end to end
/// let network = graph.quantize(&recipe)?;
/// let file = network.to_micro()?; // on the host
///
/// let model = Model::new(file.as_bytes())?; // on the device
/// let (mut codes, mut arena) = ([0], [0; 2]);
/// model.run(&[200, 30], &mut codes, &mut arena)?;
/// assert_eq!(network.run_codes(&array![[200u8, 30]], &mut Arena::new())?[[0, 0]], codes[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Model<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> Model<'a> {
    /// Checks the bytes of a model: the header, the checksum, and each step.
    ///
    /// It takes time in proportion to the bytes, so do it once. Bytes of any origin are safe: what passes runs within the
    /// buffers, and each step takes time of at most the square of the bytes of model and buffers.
    ///
    /// # Errors
    /// The [`ModelError`] of the first fault.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ModelError> {
        let header = Header::read(bytes)?;
        header.check(bytes)?;
        if [header.sizes.input, header.sizes.output].contains(&0) {
            return Err(ModelError::Header { what: "expected an input and an output with elements" });
        }
        let model = Self { bytes, header };
        let (mut words, mut end) = (model.words(), 0);
        for step in 0..header.steps {
            let error = |what| ModelError::Step { step, what };
            let mut decoded = Step::decode(&mut words).ok_or(error("expected a known kind and all of its fields"))?;
            let mut regions = RegionCheck::new(&header.sizes, bytes.len());
            decoded.fields(&mut regions);
            if let Some(fault) = regions.fault {
                return Err(error(fault));
            }
            if !decoded.is_valid() {
                return Err(error("its fields contradict each other"));
            }
            end = end.max(regions.end);
        }
        if end != header.sizes.arena {
            return Err(ModelError::Header { what: "expected the arena that the steps need" });
        }
        Ok(model)
    }

    /// The numbers of bytes of input, output and arena.
    pub fn sizes(&self) -> Sizes {
        self.header.sizes
    }

    /// The scale and the zero point of the input: `value ≈ (code - zero_point) * scale`.
    pub fn input_scale_zero_point(&self) -> (f32, u8) {
        (self.header.input.scale, self.header.input.zero_point)
    }

    /// The scale and the zero point of the output.
    pub fn output_scale_zero_point(&self) -> (f32, u8) {
        (self.header.output.scale, self.header.output.zero_point)
    }

    /// Computes the codes of the output from those of the input: the codes of
    /// [`QuantizedNetwork::run_codes`](crate::graph::QuantizedNetwork::run_codes).
    ///
    /// The arena may be longer than needed, and may hold anything.
    ///
    /// # Errors
    /// [`ModelError::Buffer`] unless input and output have the [`sizes`](Self::sizes) of the model and the arena has at
    /// least that size. Nothing is written then.
    pub fn run(&self, input: &[u8], output: &mut [u8], arena: &mut [u8]) -> Result<(), ModelError> {
        let Sizes { input: x, output: y, arena: needed } = self.header.sizes;
        let check = |what, expected, found, fits| match fits {
            true => Ok(()),
            false => Err(ModelError::Buffer { what, expected, found }),
        };
        check("input of the model", x, input.len(), input.len() == x)?;
        check("output of the model", y, output.len(), output.len() == y)?;
        check("arena of the model", needed, arena.len(), arena.len() >= needed)?;
        let mut memory = Memory { model: self.bytes, input, output, arena };
        let mut words = self.words();
        for step in 0..self.header.steps {
            let done = Step::decode(&mut words).and_then(|step| step.run(&mut memory));
            done.ok_or(ModelError::Step { step, what: "it leaves its memory" })?;
        }
        Ok(())
    }

    /// The words of the steps.
    fn words(&self) -> Decoder<'a> {
        Decoder { words: self.bytes.get(HEADER..).unwrap_or_default().as_chunks().0, at: 0 }
    }
}

impl fmt::Debug for Model<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("bytes", &self.bytes.len()).field("sizes", &self.sizes()).finish()
    }
}
