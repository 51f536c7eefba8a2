//! Nearest-neighbour resizing.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;

use ndarray::{Array4, ArrayRef4, Axis, Ix4};

use crate::element::Code;
use crate::error::{Error, Result, check_shapes, elements};
use crate::gemm::Int8;
use crate::qtensor::QTensor;

/// The input pixel that an output pixel of [`Resize`] takes: a pair of ONNX's `coordinate_transformation_mode` and
/// `nearest_mode`. In the formulas `ratio = input size / output size`; all are evaluated in exact integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NearestMode {
    /// `floor(i * ratio)` (ONNX: "asymmetric" with "floor"; TFLite without options; PyTorch: `nearest`).
    #[default]
    AsymmetricFloor,
    /// `ceil((i + 0.5) * ratio - 1)` (ONNX: "half_pixel" with "round_prefer_floor", its defaults).
    HalfPixelPreferFloor,
    /// `floor((i + 0.5) * ratio)` (ONNX: "half_pixel" with "round_prefer_ceil"; TFLite: `half_pixel_centers`; PyTorch:
    /// `nearest-exact`).
    HalfPixelPreferCeil,
    /// `floor(i * (input size - 1) / (output size - 1) + 0.5)` (ONNX: "align_corners" with "round_prefer_ceil"; TFLite:
    /// `align_corners`).
    AlignCornersPreferCeil,
}

impl NearestMode {
    /// Returns the input index of output index `i`.
    fn source(self, i: usize, input: usize, output: usize) -> usize {
        let (i, input, output) = (i as u128, input as u128, output as u128);
        let source = match self {
            NearestMode::AsymmetricFloor => i * input / output,
            NearestMode::HalfPixelPreferCeil => (2 * i + 1) * input / (2 * output),
            // The nearest integer to (i + 0.5) * ratio - 0.5, halves down.
            NearestMode::HalfPixelPreferFloor => ((2 * i + 1) * input).saturating_sub(2 * output).div_ceil(2 * output),
            NearestMode::AlignCornersPreferCeil if output == 1 => 0,
            NearestMode::AlignCornersPreferCeil => (2 * i * (input - 1) + output - 1) / (2 * (output - 1)),
        };
        source.min(input - 1) as usize
    }
}

/// Resizes images by nearest neighbour (ONNX: `Resize` with mode "nearest"; TFLite: `RESIZE_NEAREST_NEIGHBOR`; PyTorch:
/// `interpolate`).
///
/// Images are `[images, height, width, channels]` (NHWC). Codes keep their parameters, so it is exact for any input.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::ops::{NearestMode, Resize};
/// use ndarray_quant::{QParams, QTensor};
/// let codes = Array4::from_shape_fn((1, 1, 2, 1), |(_, _, x, _)| x as u8);
/// let x = QTensor::<u8, Ix4>::new(codes, QParams::per_tensor(0.1, 0)?)?;
/// let y = Resize::new([1, 4], NearestMode::AsymmetricFloor).forward(&x)?;
/// assert_eq!(y.codes().iter().copied().collect::<Vec<_>>(), [0, 0, 1, 1]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    size: [usize; 2],
    mode: NearestMode,
}

impl Resize {
    /// Resizes to this height and width.
    pub fn new(size: [usize; 2], mode: NearestMode) -> Self {
        Self { size, mode }
    }

    /// Returns the shape of the output for images of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the images are 4-D, have pixels if the output has some, and the output fits in memory.
    pub fn output_shape(&self, images: &[usize]) -> Result<[usize; 4]> {
        let &[count, height, width, channels] = images else {
            return Err(Error::layout("image", "4-D NHWC", images));
        };
        let shape = [count, self.size[0], self.size[1], channels];
        if elements("resized images", &shape)? > 0 && (height == 0 || width == 0) {
            return Err(Error::layout("image", "at least one pixel", images));
        }
        Ok(shape)
    }

    /// Resizes images.
    ///
    /// # Errors
    /// Same as [`Self::output_shape`].
    pub fn forward<T: Int8>(&self, x: &QTensor<T, Ix4>) -> Result<QTensor<T, Ix4>> {
        let codes = x.unpacked_codes();
        let mut out = Array4::from_elem(self.output_shape(codes.shape())?, T::default());
        self.forward_into(&codes, &mut out)?;
        QTensor::from_valid_codes(out, x.params().clone())
    }

    /// [`Self::forward`] of codes into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::output_shape`]. Nothing is written then.
    pub fn forward_into<T: Code>(&self, x: &ArrayRef4<T>, out: &mut ArrayRef4<T>) -> Result<()> {
        check_shapes("output", &self.output_shape(x.shape())?, out.shape())?;
        if out.is_empty() {
            return Ok(());
        }
        let ((_, height, width, _), [rows, columns]) = (x.dim(), self.size);
        for (x, mut out) in x.outer_iter().zip(out.outer_iter_mut()) {
            for (i, mut out) in out.outer_iter_mut().enumerate() {
                let row = x.index_axis(Axis(0), self.mode.source(i, height, rows));
                for (j, mut out) in out.outer_iter_mut().enumerate() {
                    out.assign(&row.index_axis(Axis(0), self.mode.source(j, width, columns)));
                }
            }
        }
        Ok(())
    }
}
