//! Strides, dilations and padding of a sliding kernel, and the size of its output.

use crate::error::{Error, Result};

/// The padding around an image before a kernel slides over it.
///
/// Padding is the real number 0 in convolutions. Pooling ignores it, except that means with `count_include_pad` count
/// its pixels.
///
/// `Same` and `SameLower` pad each axis by
/// `max((ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)` in all, so that the output has
/// `ceil(size / stride)` elements. A number converts to padding on all four sides, an array to [`Padding::Explicit`].
///
/// ```
/// use ndarray_quant::nn::{Padding, Window};
/// let halved = |padding: Padding| {
///     Window::new().with_strides([2, 2]).with_padding(padding).output_size([3, 3], [8, 8])
/// };
/// assert_eq!((halved(Padding::Valid)?, halved(Padding::Same)?), ([3, 3], [4, 4]));
/// assert_eq!(halved(Padding::Explicit([0, 0, 1, 1]))?, [4, 4]); // equals `Same` here
/// assert_eq!(Padding::from(1), Padding::Explicit([1, 1, 1, 1]));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Padding {
    /// No padding (TFLite, ONNX: `VALID`).
    #[default]
    Valid,
    /// Pads to `ceil(size / stride)` outputs, an odd pixel at the end (TFLite: `SAME`; ONNX: `SAME_UPPER`).
    Same,
    /// Pads to `ceil(size / stride)` outputs, an odd pixel at the start (ONNX: `SAME_LOWER`).
    SameLower,
    /// Pads by these numbers of pixels: top, left, bottom, right (ONNX: `pads`).
    Explicit([usize; 4]),
}

impl From<usize> for Padding {
    /// Pads all four sides by `pad` pixels (PyTorch: `padding`).
    fn from(pad: usize) -> Self {
        Padding::Explicit([pad; 4])
    }
}

impl From<[usize; 4]> for Padding {
    /// Pads the top, left, bottom and right by these numbers of pixels.
    fn from(pads: [usize; 4]) -> Self {
        Padding::Explicit(pads)
    }
}

/// The strides, dilations and padding of a sliding kernel, along height and width (the attributes of the same names of
/// ONNX `Conv`, `MaxPool` and `AveragePool`).
///
/// The kernel size is not part of a window: convolutions take it from the weights, and pooling takes it as an argument.
///
/// ```
/// use ndarray_quant::nn::{Padding, Window};
/// let window = Window::new().with_strides([2, 2]).with_padding(Padding::Same);
/// assert_eq!(window.output_size([3, 3], [224, 225])?, [112, 113]);
/// assert_eq!(Window::new().output_size([3, 3], [224, 225])?, [222, 223]);
/// assert_eq!(Window::new().with_padding(1).output_size([3, 3], [224, 225])?, [224, 225]);
/// assert_eq!(Window::new().with_strides([2, 2]).output_size([3, 3], [6, 6])?, [2, 2]);
/// assert_eq!(Window::new().with_strides([2, 2]).with_ceil_mode(true).output_size([3, 3], [6, 6])?, [3, 3]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Window {
    /// Distance between neighbouring outputs, in pixels of the image: down and to the right.
    pub strides: [usize; 2],
    /// Distance between neighbouring elements of the kernel, in pixels of the image: down and to the right.
    pub dilations: [usize; 2],
    /// Padding around the image.
    pub padding: Padding,
    /// Rounds the output size up instead of down, see [`Window::with_ceil_mode`].
    pub ceil_mode: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// Creates a window with strides and dilations of 1 and without padding.
    pub fn new() -> Self {
        Self { strides: [1, 1], dilations: [1, 1], padding: Padding::Valid, ceil_mode: false }
    }

    /// Sets the strides along height and width.
    pub fn with_strides(mut self, strides: [usize; 2]) -> Self {
        self.strides = strides;
        self
    }

    /// Sets the dilations along height and width.
    pub fn with_dilations(mut self, dilations: [usize; 2]) -> Self {
        self.dilations = dilations;
        self
    }

    /// Sets the padding. A number pads all four sides: `with_padding(1)`.
    pub fn with_padding(mut self, padding: impl Into<Padding>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Rounds the output size up, so that the last output may reach beyond the padding, as long as it starts within the
    /// image or the padding before it (ONNX, PyTorch: `ceil_mode`).
    ///
    /// Pixels beyond the padding are ignored by pooling, and are 0 in convolutions.
    pub fn with_ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    /// Returns the height and width of the output for a kernel and an image:
    /// `floor((size + padding - (kernel - 1) * dilation - 1) / stride) + 1`.
    ///
    /// With [`ceil_mode`](Self::with_ceil_mode) the quotient is rounded up, and one less if the last output would start
    /// in the padding after the image.
    ///
    /// # Errors
    /// [`Error::Argument`] if a stride, a dilation or the kernel is 0. [`Error::Shape`] if the padded image is smaller
    /// than the kernel, or has more than 2³¹ - 1 rows or columns.
    pub fn output_size(&self, kernel: [usize; 2], image: [usize; 2]) -> Result<[usize; 2]> {
        Ok(self.place(kernel, image)?.output)
    }

    /// Returns the stride along the height, and whether the kernel covers neighbouring rows.
    pub(crate) fn vertical(&self) -> (usize, bool) {
        (self.strides[0], self.dilations[0] == 1)
    }

    /// Checks the window for a kernel and an image. Same errors as [`Self::output_size`].
    pub(crate) fn place(&self, kernel: [usize; 2], image: [usize; 2]) -> Result<Placed> {
        let &Window { strides, dilations, .. } = self;
        let mut placed = Placed { kernel, strides, dilations, before: [0; 2], image, padded: [0; 2], output: [0; 2] };
        let dilated = [self.dilated_kernel(kernel, 0)?, self.dilated_kernel(kernel, 1)?];
        for axis in 0..2 {
            let (before, after) = self.pads(dilated[axis], image[axis], axis);
            placed.before[axis] = before;
            placed.padded[axis] = before.saturating_add(image[axis]).saturating_add(after);
        }
        if placed.padded.iter().any(|&len| len > i32::MAX as usize) {
            return Err(Error::too_large("padded image", "at most 2^31 - 1 rows and columns", &placed.padded));
        }
        for axis in 0..2 {
            let (slack, stride) = (placed.padded[axis].saturating_sub(dilated[axis]), strides[axis]);
            let mut steps = if self.ceil_mode { slack.div_ceil(stride) } else { slack / stride };
            if self.ceil_mode && steps * stride >= placed.before[axis] + image[axis] {
                steps = steps.saturating_sub(1);
            }
            placed.output[axis] = steps + 1;
            // Unused strides and dilations become 1, so that products with them cannot overflow.
            if steps == 0 {
                placed.strides[axis] = 1;
            }
            if kernel[axis] == 1 {
                placed.dilations[axis] = 1;
            }
        }
        if placed.padded[0] < dilated[0] || placed.padded[1] < dilated[1] {
            return Err(Error::layout(
                "padded image",
                alloc::format!("at least the kernel's size, {dilated:?}"),
                &placed.padded,
            ));
        }
        Ok(placed)
    }

    /// Returns the extent of the dilated kernel along an axis.
    fn dilated_kernel(&self, kernel: [usize; 2], axis: usize) -> Result<usize> {
        let check = |what, value: [usize; 2]| match value[axis] {
            0 => Err(argument(what, "at least 1 along each axis", value)),
            _ => Ok(()),
        };
        check("strides", self.strides)?;
        check("dilations", self.dilations)?;
        check("kernel", kernel)?;
        (kernel[axis] - 1)
            .checked_mul(self.dilations[axis])
            .filter(|&last| last < i32::MAX as usize)
            .map(|last| last + 1)
            .ok_or_else(|| {
                argument("dilations", "a dilated kernel of at most 2^31 - 1 rows and columns", self.dilations)
            })
    }

    /// Returns the padding before and after the image along an axis.
    fn pads(&self, dilated: usize, size: usize, axis: usize) -> (usize, usize) {
        let stride = self.strides[axis];
        let same = || (size.div_ceil(stride).saturating_sub(1) * stride).saturating_add(dilated).saturating_sub(size);
        match self.padding {
            Padding::Valid => (0, 0),
            Padding::Same => (same() / 2, same().div_ceil(2)),
            Padding::SameLower => (same().div_ceil(2), same() / 2),
            Padding::Explicit(pads) => (pads[axis], pads[axis + 2]),
        }
    }
}

fn argument(what: &'static str, expected: &'static str, found: [usize; 2]) -> Error {
    Error::Argument { what, expected, found: alloc::format!("{found:?}") }
}

/// A kernel placed on an image: checked sizes, each as height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Placed {
    pub(crate) kernel: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) dilations: [usize; 2],
    /// Padding at the top and at the left.
    pub(crate) before: [usize; 2],
    pub(crate) image: [usize; 2],
    /// The image including the padding.
    pub(crate) padded: [usize; 2],
    pub(crate) output: [usize; 2],
}

impl Placed {
    /// Returns the image row (axis 0) or column (axis 1) under kernel index `k` of output `at`, `None` in the padding.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, at: usize, k: usize) -> Option<usize> {
        let pixel = (at * self.strides[axis] + k * self.dilations[axis]).wrapping_sub(self.before[axis]);
        if pixel < self.image[axis] { Some(pixel) } else { None }
    }

    /// Returns the kernel indices of output `at` along an axis that fall inside the image.
    #[inline(always)]
    pub(crate) fn kernel_range(&self, axis: usize, at: usize) -> core::ops::Range<usize> {
        let (kernel, dilation, before) = (self.kernel[axis], self.dilations[axis], self.before[axis]);
        let start = at * self.strides[axis];
        let first = before.saturating_sub(start).div_ceil(dilation).min(kernel);
        let end = (self.image[axis] + before).saturating_sub(start).div_ceil(dilation).clamp(first, kernel);
        first..end
    }

    /// Returns the number of kernel indices of output `at` that fall inside the image, and the pixel of the first one.
    #[inline(always)]
    pub(crate) fn first_pixel(&self, axis: usize, at: usize) -> (usize, usize) {
        let range = self.kernel_range(axis, at);
        (range.len(), self.source(axis, at, range.start).unwrap_or(0))
    }

    /// Returns the number of kernel indices of output `at` along an axis that fall inside the image or its padding.
    #[inline(always)]
    pub(crate) fn padded_count(&self, axis: usize, at: usize) -> usize {
        let rest = self.padded[axis].saturating_sub(at * self.strides[axis]);
        rest.div_ceil(self.dilations[axis]).min(self.kernel[axis])
    }

    /// Returns the outputs along an axis whose whole kernel falls inside the image.
    pub(crate) fn inside(&self, axis: usize) -> core::ops::Range<usize> {
        let (stride, before) = (self.strides[axis], self.before[axis]);
        let last = (self.kernel[axis] - 1) * self.dilations[axis];
        let end = (self.image[axis] + before).saturating_sub(last).div_ceil(stride).min(self.output[axis]);
        before.div_ceil(stride).min(end)..end
    }

    /// Returns whether output pixel `i` reads image pixel `i` only: a 1 x 1 kernel without strides and padding.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.before == [0, 0] && self.output == self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_ranges_agree_with_sources() {
        let (size, after) = (7, 3);
        for (kernel, stride, dilation, pads, ceil) in (1..6).flat_map(|k| {
            (1..4).flat_map(move |s| (1..4).flat_map(move |d| (0..18).map(move |p| (k, s, d, p / 2, p % 2 == 0))))
        }) {
            let window = Window::new()
                .with_strides([stride, stride])
                .with_dilations([dilation, dilation])
                .with_padding([pads, pads, after, after])
                .with_ceil_mode(ceil);
            let Ok(placed) = window.place([kernel, kernel], [size, size]) else { continue };
            for at in 0..placed.output[0] {
                let padded = (0..kernel).filter(|k| at * stride + k * dilation < pads + size + after).count();
                assert_eq!(placed.padded_count(0, at), padded, "{placed:?} {at}");
                if !ceil {
                    assert_eq!(padded, kernel);
                }
                let all = (0..kernel).all(|k| placed.source(0, at, k).is_some());
                assert_eq!(placed.inside(0).contains(&at), all, "{placed:?} {at}");
                let range = placed.kernel_range(0, at);
                for k in 0..kernel {
                    assert_eq!(placed.source(0, at, k).is_some(), range.contains(&k), "{placed:?} {at} {k}");
                }
            }
        }
    }

    #[test]
    fn invalid_windows_fail() {
        let fails = |window: Window, kernel, image| window.output_size(kernel, image).is_err();
        assert!(fails(Window::new().with_strides([0, 1]), [1, 1], [4, 4]));
        assert!(fails(Window::new().with_dilations([1, 0]), [1, 1], [4, 4]));
        assert!(fails(Window::new(), [0, 1], [4, 4]));
        assert!(fails(Window::new(), [5, 1], [4, 4]));
        assert!(fails(Window::new().with_dilations([usize::MAX, 1]), [3, 1], [4, 4]));
        assert!(fails(Window::new().with_padding(Padding::Explicit([usize::MAX, 0, 1, 0])), [1, 1], [4, 4]));
    }
}
