//! Linear interpolation of images.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::kernel::{Kernel, Scratch, Values, ValuesMut, resized};
use super::operator::{CodeNode, FloatNode, Inputs, Layouts, OnCodes, Operator};
use super::shape::{NCHW, Shape, check_finite, empty_image, ranked};
use crate::element::Compute;
use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::simd::{self, Task};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The pixel of the image at which a pixel of the output lies (ONNX: `coordinate_transformation_mode`), for a factor
/// `scale` of the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Coordinates {
    /// `(i + 0.5) / scale - 0.5`.
    HalfPixel,
    /// The same, but 0 for an output of one pixel (ONNX: "pytorch_half_pixel").
    HalfPixelOrZero,
    /// `i / scale`.
    Asymmetric,
    /// `i * (input - 1) / (output - 1)`.
    AlignCorners,
}

impl Coordinates {
    /// The place of output `i`, between pixels of the input.
    pub(crate) fn source(self, i: usize, input: usize, output: usize, scale: f32) -> f64 {
        let (at, scale) = (i as f64, f64::from(scale));
        match self {
            Coordinates::HalfPixelOrZero if output == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::HalfPixelOrZero => (at + 0.5) / scale - 0.5,
            Coordinates::Asymmetric => at / scale,
            Coordinates::AlignCorners if output == 1 => 0.0,
            Coordinates::AlignCorners => at * (input - 1) as f64 / (output - 1) as f64,
        }
    }
}

/// Linear interpolation of height and width: bilinear resizing (ONNX: `Resize`, mode `linear`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interpolate {
    /// Height and width of the output.
    pub size: [usize; 2],
    /// Factors of height and width that the coordinates use.
    pub scales: [f32; 2],
    /// Where the pixels of the output lie.
    pub coordinates: Coordinates,
}

impl Operator for Interpolate {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn check(&self) -> Result<()> {
        check_finite("scales", self.scales.map(|scale| 1.0 / scale))
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [n, c, h, w] = ranked("input", NCHW, inputs.x())?;
        if h * w == 0 {
            return Err(empty_image(inputs.x()));
        }
        Ok(alloc::vec![n, c, self.size[0], self.size[1]])
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(Bilinear::new(self, &node.x())))
    }

    /// Codes are interpolated in `f32` and rounded to the nearest code, ties to even.
    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        if node.same_params() { OnCodes::kernel(Bilinear::new(self, &node.x())) } else { Ok(OnCodes::Float) }
    }

    fn keeps_range(&self) -> bool {
        true
    }

    fn commutes_with_scaling(&self, _: &Inputs<'_>, _: &[usize]) -> bool {
        true
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        let coordinates = match self.coordinates {
            Coordinates::HalfPixel => "half_pixel",
            Coordinates::HalfPixelOrZero => "pytorch_half_pixel",
            Coordinates::Asymmetric => "asymmetric",
            Coordinates::AlignCorners => "align_corners",
        };
        // A file has either factors or a size.
        let by_factors = [0, 1].map(|i| (node.shapes[0][i + 2] as f32 * self.scales[i]) as usize) == self.size;
        let size = if by_factors { None } else { Some(self.size) };
        super::resize::onnx::write(self.scales, "linear", coordinates, size, node)
    }
}

/// The two neighbours of an output and the weight of the second one.
#[derive(Debug, Clone, Copy)]
struct Between {
    low: usize,
    high: usize,
    weight: f32,
}

#[derive(Debug)]
struct Bilinear {
    rows: Vec<Between>,
    columns: Vec<Between>,
    /// Height, width and channels of the input.
    input: [usize; 3],
}

impl Bilinear {
    fn new(op: &Interpolate, x: &[usize]) -> Self {
        let between = |axis: usize| {
            let (input, output) = (x[axis + 2], op.size[axis]);
            let place = |i| {
                let at = op.coordinates.source(i, input, output, op.scales[axis]).clamp(0.0, (input - 1) as f64);
                let low = at as usize;
                Between { low, high: (low + 1).min(input - 1), weight: (at - low as f64) as f32 }
            };
            (0..output).map(place).collect()
        };
        Self { rows: between(0), columns: between(1), input: [x[2], x[3], x[1]] }
    }

    /// Interpolates the rows of an image and passes each to `store`.
    fn each_row<T: Copy>(
        &self,
        x: &[T],
        scratch: &mut Vec<f32>,
        load: fn(T) -> f32,
        mut store: impl FnMut(usize, &[f32]),
    ) {
        let [_, width, channels] = self.input;
        let (row, len) = (width * channels, self.columns.len() * channels);
        let (between, y) = resized(scratch, row + len).split_at_mut(row);
        for (i, &Between { low, high, weight }) in self.rows.iter().enumerate() {
            let [a, b] = [low, high].map(|at| &x[at * row..][..row]);
            between.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = lerp(load(a), load(b), weight));
            simd::run(Columns { columns: &self.columns, x: between, y, channels });
            store(i * len, y);
        }
    }
}

#[inline(always)]
fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    a + (b - a) * weight
}

/// Interpolates along a row.
struct Columns<'a> {
    columns: &'a [Between],
    x: &'a [f32],
    y: &'a mut [f32],
    channels: usize,
}

impl Task for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let channels = self.channels;
        for (y, &Between { low, high, weight }) in self.y.chunks_exact_mut(channels.max(1)).zip(self.columns) {
            let [a, b] = [low, high].map(|at| &self.x[at * channels..][..channels]);
            y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = lerp(a, b, weight));
        }
    }
}

impl Kernel for Bilinear {
    fn size_in_bytes(&self) -> usize {
        size_of_val(&self.rows[..]) + size_of_val(&self.columns[..])
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let image = self.input.iter().product::<usize>().max(1);
        let len = (self.rows.len() * self.columns.len() * self.input[2]).max(1);
        match output {
            ValuesMut::F32(y) => {
                for (x, y) in inputs[0].as_slice::<f32>().chunks_exact(image).zip(y.chunks_exact_mut(len)) {
                    self.each_row(x, &mut scratch.widened, |x| x, |at, row| y[at..][..row.len()].copy_from_slice(row));
                }
            }
            ValuesMut::Code(y) => {
                for (x, y) in inputs[0].as_slice::<u8>().chunks_exact(image).zip(y.chunks_exact_mut(len)) {
                    let round = |(y, x): (&mut u8, &f32)| *y = Compute::round_ties_even(*x) as u8;
                    self.each_row(x, &mut scratch.widened, f32::from, |at, row| {
                        y[at..].iter_mut().zip(row).for_each(round)
                    });
                }
            }
        }
        Ok(())
    }
}
