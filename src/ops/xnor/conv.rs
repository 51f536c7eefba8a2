//! Convolutions of signs.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{Array4, ArrayRef1, ArrayRef4, ArrayView2, Ix4};

use super::linear::Words;
use super::weights::{Output, SignRows, SignWeights, mean_magnitudes};
use crate::binary::{BinaryTensor, WORD};
use crate::error::{Error, Result, check_shapes};
use crate::gemm::Workspace;
use crate::simd::Isa;
use crate::window::{Placed, Window};

/// A 2-D convolution whose weights and activations are −1 and 1 (XNOR-Net: Rastegari et al. 2016; Larq: `QuantConv2D` with
/// binary inputs; Larq Compute Engine: `LceBConv2d`).
///
/// Images are `[images, height, width, channels]` (NHWC), weights `[out, kh, kw, channels]` (OHWI); there are no groups. The
/// channels of a pixel start at a word of 32 bits, so numbers of channels that are multiples of 32 waste nothing.
///
/// Outputs and forms are those of [`BinaryLinear`](super::BinaryLinear), with the sum over a window in place of the row.
/// **Padding** is zero, which no bit stands for: sums at the border are corrected by the sums of the weights that meet padding.
/// [`with_one_padding`](Self::with_one_padding) pads with ones instead, without a correction.
///
/// ```
/// use ndarray::{Array4, array};
/// use ndarray_quant::{BinaryTensor, nn::{BinaryConv2d, Padding, Window}};
///
/// let w = Array4::from_elem((1, 3, 3, 32), -0.5f32);
/// let window = Window::new().with_padding(Padding::Same);
/// let x = BinaryTensor::sign(&Array4::from_elem((1, 2, 2, 32), 1.0f32))?;
/// let conv = BinaryConv2d::new(&w, None, &window)?;
/// assert_eq!(conv.forward(&x)?[[0, 0, 0, 0]], -0.5 * 4.0 * 32.0); // four of nine pixels are inside the image
/// assert_eq!(conv.with_one_padding().forward(&x)?[[0, 0, 0, 0]], -0.5 * 9.0 * 32.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BinaryConv2d {
    weights: SignWeights,
    window: Window,
    kernel: [usize; 2],
    channels: usize,
    /// Sums of the signs at each kernel position, `[kh * kw][out]`, or empty for padding with ones.
    position_sums: Vec<i32>,
}

impl BinaryConv2d {
    /// Takes the signs of weights `[out, kh, kw, channels]`, with the mean magnitude of each output channel as its scale (XNOR-Net),
    /// and a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bias does not have one element per output channel. [`Error::Argument`] if a stride, a dilation or the
    /// kernel is 0. [`Error::Value`] if weights or bias hold a NaN or an infinity, or a window has more than 2²⁹ values.
    pub fn new(weights: &ArrayRef4<f32>, bias: Option<&ArrayRef1<f32>>, window: &Window) -> Result<Self> {
        Self::from_signs(&BinaryTensor::sign(weights)?, &mean_magnitudes(weights)?, bias, window)
    }

    /// Packs weights `[out, kh, kw, channels]` that are signs, with a scale and a bias for each output channel.
    ///
    /// # Errors
    /// [`Error::Shape`] if scales or bias do not have one element per output channel. [`Error::Value`] if they hold a NaN or an
    /// infinity. Otherwise the same as [`new`](Self::new).
    pub fn from_signs(
        weights: &BinaryTensor<Ix4>,
        scales: &ArrayRef1<f32>,
        bias: Option<&ArrayRef1<f32>>,
        window: &Window,
    ) -> Result<Self> {
        let [outputs, kh, kw, channels] = <[usize; 4]>::try_from(weights.shape()).expect("four axes");
        // Fails for windows that fit no image.
        window.place([kh, kw], [i32::MAX as usize / 2; 2])?;
        let (positions, row) = (kh * kw, weights.row_words());
        let rows = ArrayView2::from_shape((outputs, positions * row), weights.as_words());
        let rows = rows.expect("the words of a tensor have its shape");
        // Without channels there is nothing to correct, whatever the other axes are.
        let mut position_sums = vec![0; if channels == 0 { 0 } else { positions * outputs }];
        for (output, words) in rows.rows().into_iter().enumerate() {
            for (position, words) in words.as_slice().unwrap_or_default().chunks(row.max(1)).enumerate() {
                let negative: u32 = words.iter().map(|word| word.count_ones()).sum();
                position_sums[position * outputs + output] = channels as i32 - 2 * negative as i32;
            }
        }
        let weights = SignWeights::new(rows, positions * channels, scales, bias)?;
        Ok(Self { weights, window: *window, kernel: [kh, kw], channels, position_sums })
    }

    /// Pads with ones instead of zeros (Larq: `pad_values = 1`; Larq Compute Engine: `SAME_ONE`).
    pub fn with_one_padding(mut self) -> Self {
        self.position_sums = Vec::new();
        self
    }

    /// Returns the shape of the output, `[images, out_height, out_width, out]`, for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the images are 4-D NHWC with the channels of the weights and, padded, at least as large as the
    /// kernel.
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        Ok(self.place(images)?.0)
    }

    fn place(&self, images: &[usize]) -> Result<([usize; 4], Placed)> {
        match *images {
            [count, height, width, channels] if channels == self.channels => {
                let placed = self.window.place(self.kernel, [height, width])?;
                let shape = [count, placed.output[0], placed.output[1], self.weights.outputs()];
                crate::error::elements("output", &shape)?;
                Ok((shape, placed))
            }
            _ => Err(Error::layout("images", alloc::format!("4-D NHWC with {} channels", self.channels), images)),
        }
    }

    /// Computes `f32`: `[images, height, width, channels]` to `[images, out_height, out_width, out]`.
    ///
    /// # Errors
    /// Same as [`output_shape`](Self::output_shape).
    pub fn forward(&self, x: &BinaryTensor<Ix4>) -> Result<Array4<f32>> {
        let mut out = Array4::zeros(self.output_shape(x.shape())?);
        self.forward_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward`] into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`output_shape`](Self::output_shape). Nothing is written then.
    pub fn forward_into(
        &self,
        x: &BinaryTensor<Ix4>,
        out: &mut ArrayRef4<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (shape, placed) = self.place(x.shape())?;
        check_shapes("output", &shape, out.shape())?;
        if let Some(out) = out.as_slice_mut() {
            self.multiply(Isa::current(), x, placed, out, workspace);
            return Ok(());
        }
        let mut y = Array4::zeros(shape);
        self.multiply(Isa::current(), x, placed, y.as_slice_mut().unwrap_or_default(), workspace);
        out.assign(&y);
        Ok(())
    }

    /// Computes the signs of [`Self::forward`].
    ///
    /// # Errors
    /// Same as [`output_shape`](Self::output_shape).
    pub fn forward_sign(&self, x: &BinaryTensor<Ix4>) -> Result<BinaryTensor<Ix4>> {
        let ([images, height, width, outputs], placed) = self.place(x.shape())?;
        let mut words = vec![0; images * height * width * u32::row_len(outputs)];
        self.multiply(Isa::current(), x, placed, &mut words, &mut Workspace::new());
        Ok(BinaryTensor::from_valid_words(Ix4(images, height, width, outputs), words))
    }

    pub(super) fn multiply<O: Output>(
        &self,
        isa: Isa,
        x: &BinaryTensor<Ix4>,
        window: Placed,
        out: &mut [O],
        workspace: &mut Workspace,
    ) {
        let (words, row) = (x.as_words(), self.weights.words());
        if window.is_pointwise() {
            return self.weights.multiply(isa, &Words { words, row }, out, workspace);
        }
        let windows = Windows {
            words,
            pixel: self.channels.div_ceil(WORD),
            window,
            position_sums: &self.position_sums,
            outputs: self.weights.outputs(),
        };
        self.weights.multiply(isa, &windows, out, workspace);
    }

    /// Returns the size of packed weights, scales, thresholds, bias and sums for padding in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes() + size_of_val(self.position_sums.as_slice())
    }
}

/// im2col: the windows of images, `[images][height][width][pixel]`, with zeros in place of padding: ones.
struct Windows<'a> {
    words: &'a [u32],
    /// Words of a pixel.
    pixel: usize,
    window: Placed,
    /// `[positions][outputs]`, or empty.
    position_sums: &'a [i32],
    outputs: usize,
}

impl Windows<'_> {
    /// Returns the image, row and column of an output.
    fn output(&self, row: usize) -> [usize; 3] {
        let [height, width] = self.window.output;
        [row / (height * width), row / width % height, row % width]
    }
}

impl SignRows for Windows<'_> {
    fn rows<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<u32>) -> &'a [u32] {
        let ([kh, kw], [height, width], pixel) = (self.window.kernel, self.window.image, self.pixel);
        scratch.clear();
        for row in rows {
            let [image, y, x] = self.output(row);
            for ky in 0..kh {
                for kx in 0..kw {
                    match (self.window.source(0, y, ky), self.window.source(1, x, kx)) {
                        (Some(y), Some(x)) => {
                            let at = ((image * height + y) * width + x) * pixel;
                            scratch.extend_from_slice(&self.words[at..at + pixel]);
                        }
                        _ => scratch.resize(scratch.len() + pixel, 0),
                    }
                }
            }
        }
        scratch
    }

    /// Ones in the padding added the signs of the weights there.
    fn correct(&self, row: usize, first_col: usize, dots: &mut [i32]) {
        let ([_, y, x], [kh, kw]) = (self.output(row), self.window.kernel);
        let (rows, columns) = (self.window.kernel_range(0, y), self.window.kernel_range(1, x));
        if self.position_sums.is_empty() || (rows.len() == kh && columns.len() == kw) {
            return;
        }
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            if !rows.contains(&ky) || !columns.contains(&kx) {
                let sums = &self.position_sums[(ky * kw + kx) * self.outputs + first_col..];
                dots.iter_mut().zip(sums).for_each(|(dot, sum)| *dot -= sum);
            }
        }
    }
}
