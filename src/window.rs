//! How a kernel slides over an image: strides, dilations, padding, and the size of what comes out.

use crate::error::{Error, Result};

/// What surrounds an image before a kernel slides over it. The reals out there are 0; maxima and means leave them out.
///
/// The `Same` ones make it as large as `ceil(size / stride)` outputs need:
/// `max((ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)` in all.
///
/// ```
/// use ndarray_quant::nn::{Padding, Window};
/// let even = |padding| Window::new().strides([2, 2]).padding(padding).output_size([3, 3], [8, 8]);
/// assert_eq!((even(Padding::Valid)?, even(Padding::Same)?), ([3, 3], [4, 4]));
/// assert_eq!(even(Padding::Explicit([0, 0, 1, 1]))?, [4, 4]); // what `Same` is here
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Padding {
    /// Nothing (`VALID`).
    #[default]
    Valid,
    /// As much as makes `ceil(size / stride)` outputs, an odd one at the end (TFLite: `SAME`; ONNX: `SAME_UPPER`).
    Same,
    /// As much as makes `ceil(size / stride)` outputs, an odd one at the start (ONNX: `SAME_LOWER`).
    SameLower,
    /// This much at the top, at the left, at the bottom and at the right (ONNX: `pads`).
    Explicit([usize; 4]),
}

/// How a kernel slides over an image: strides, dilations and padding, each along the height and along the width (the
/// attributes of the same names of ONNX `Conv`, `MaxPool` and `AveragePool`).
///
/// The kernel is not part of it: that of a convolution is the shape of its weights.
///
/// ```
/// use ndarray_quant::nn::{Padding, Window};
/// let window = Window::new().strides([2, 2]).padding(Padding::Same);
/// assert_eq!(window.output_size([3, 3], [224, 225])?, [112, 113]);
/// assert_eq!(Window::new().output_size([3, 3], [224, 225])?, [222, 223]);
/// assert_eq!(Window::new().strides([2, 2]).output_size([3, 3], [6, 6])?, [2, 2]);
/// assert_eq!(Window::new().strides([2, 2]).ceil(true).output_size([3, 3], [6, 6])?, [3, 3]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Window {
    /// The distance of neighbouring outputs in the image, down and to the right.
    pub strides: [usize; 2],
    /// The distance of neighbouring elements of the kernel in the image, down and to the right.
    pub dilations: [usize; 2],
    /// What surrounds the image.
    pub padding: Padding,
    /// Whether a last output that reaches beyond the padding counts too.
    pub ceil: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// One step at a time, over neighbours, without padding.
    pub fn new() -> Self {
        Self { strides: [1, 1], dilations: [1, 1], padding: Padding::Valid, ceil: false }
    }

    /// With this many steps at a time.
    pub fn strides(mut self, strides: [usize; 2]) -> Self {
        self.strides = strides;
        self
    }

    /// Over every so many-th neighbour.
    pub fn dilations(mut self, dilations: [usize; 2]) -> Self {
        self.dilations = dilations;
        self
    }

    /// With this padding.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// With padding of this much on all four sides.
    pub fn pad(self, pad: usize) -> Self {
        self.padding(Padding::Explicit([pad; 4]))
    }

    /// Whether a last output counts that reaches beyond the padding, if it starts before the end of the image (ONNX:
    /// `ceil_mode`). What lies out there counts for nothing in poolings, and is 0 in convolutions.
    pub fn ceil(mut self, ceil: bool) -> Self {
        self.ceil = ceil;
        self
    }

    /// The height and width of the output for a kernel and an image of these sizes:
    /// `floor((size + padding - (kernel - 1) * dilation - 1) / stride) + 1`. With [`ceil`](Self::ceil) the quotient is
    /// rounded up, and one less if the last output would start in the padding after the image.
    ///
    /// # Errors
    /// [`Error::Argument`] if a stride, a dilation or the kernel is 0 or the padded image has more than 2³¹ - 1 rows or
    /// columns, [`Error::Shape`] if it is smaller than the kernel.
    pub fn output_size(&self, kernel: [usize; 2], image: [usize; 2]) -> Result<[usize; 2]> {
        Ok(self.place(kernel, image)?.output)
    }

    /// The stride along the height, and whether the kernel covers neighbouring rows.
    pub(crate) fn vertical(&self) -> (usize, bool) {
        (self.strides[0], self.dilations[0] == 1)
    }

    /// The kernel laid on an image of this height and width. Errors as [`Self::output_size`].
    pub(crate) fn place(&self, kernel: [usize; 2], image: [usize; 2]) -> Result<Placed> {
        let &Window { strides, dilations, .. } = self;
        let mut placed = Placed { kernel, strides, dilations, before: [0; 2], image, padded: [0; 2], output: [0; 2] };
        let mut dilated = [0; 2];
        for axis in 0..2 {
            dilated[axis] = self.dilated_kernel(kernel, axis)?;
            let (before, after) = self.pads(dilated[axis], image[axis], axis);
            let padded = before
                .checked_add(image[axis])
                .and_then(|sum| sum.checked_add(after))
                .filter(|&sum| sum <= i32::MAX as usize)
                .ok_or_else(|| argument("padded image", "at most 2^31 - 1 rows and columns", [before, after]))?;
            let (room, stride) = (padded.saturating_sub(dilated[axis]), strides[axis]);
            let mut steps = if self.ceil { room.div_ceil(stride) } else { room / stride };
            if self.ceil && steps * stride >= before + image[axis] {
                steps = steps.saturating_sub(1);
            }
            (placed.before[axis], placed.padded[axis], placed.output[axis]) = (before, padded, steps + 1);
            // Steps that are never made are 1: any others could be too far for the numbers of places.
            if steps == 0 {
                placed.strides[axis] = 1;
            }
            if kernel[axis] == 1 {
                placed.dilations[axis] = 1;
            }
        }
        if placed.padded[0] < dilated[0] || placed.padded[1] < dilated[1] {
            return Err(Error::shape("padded image, at least as large as the kernel", &dilated, &placed.padded));
        }
        Ok(placed)
    }

    /// The length that a kernel covers, its gaps included.
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
            .filter(|&reach| reach < i32::MAX as usize)
            .map(|reach| reach + 1)
            .ok_or_else(|| argument("dilations", "a kernel that dilated over less than 2^31", self.dilations))
    }

    /// The padding before and after along one axis.
    fn pads(&self, reach: usize, size: usize, axis: usize) -> (usize, usize) {
        let stride = self.strides[axis];
        let same = || (size.div_ceil(stride).saturating_sub(1) * stride).saturating_add(reach).saturating_sub(size);
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

/// A kernel laid on an image: everything about it, checked. Pairs are height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) kernel: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) dilations: [usize; 2],
    /// The padding at the top and at the left.
    pub(crate) before: [usize; 2],
    pub(crate) image: [usize; 2],
    /// The image with the padding on both sides.
    pub(crate) padded: [usize; 2],
    pub(crate) output: [usize; 2],
}

impl Placed {
    /// The row (axis 0) or column (axis 1) of the image under tap `tap` of output `at`, if it is not in the padding.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let place = (at * self.strides[axis] + tap * self.dilations[axis]).wrapping_sub(self.before[axis]);
        if place < self.image[axis] { Some(place) } else { None }
    }

    /// The taps of output `at` along an axis that lie within the image, for a dilation of 1 or whole taps at least.
    #[inline(always)]
    pub(crate) fn taps_within(&self, axis: usize, at: usize) -> core::ops::Range<usize> {
        let (kernel, dilation, before) = (self.kernel[axis], self.dilations[axis], self.before[axis]);
        let start = at * self.strides[axis];
        let first = before.saturating_sub(start).div_ceil(dilation).min(kernel);
        let end = (self.image[axis] + before).saturating_sub(start).div_ceil(dilation).clamp(first, kernel);
        first..end
    }

    /// How many taps of output `at` along an axis lie within the image, and where the first of them does.
    #[inline(always)]
    pub(crate) fn first_tap(&self, axis: usize, at: usize) -> (usize, usize) {
        let taps = self.taps_within(axis, at);
        (taps.len(), self.source(axis, at, taps.start).unwrap_or(0))
    }

    /// How many taps of output `at` along an axis lie within the image or its padding.
    #[inline(always)]
    pub(crate) fn taps_padded(&self, axis: usize, at: usize) -> usize {
        let room = self.padded[axis].saturating_sub(at * self.strides[axis]);
        room.div_ceil(self.dilations[axis]).min(self.kernel[axis])
    }

    /// The outputs along an axis for which the whole kernel lies within the image.
    pub(crate) fn inside(&self, axis: usize) -> core::ops::Range<usize> {
        let (stride, before) = (self.strides[axis], self.before[axis]);
        let last = (self.kernel[axis] - 1) * self.dilations[axis];
        let end = (self.image[axis] + before).saturating_sub(last).div_ceil(stride).min(self.output[axis]);
        before.div_ceil(stride).min(end)..end
    }

    /// Whether every output is one pixel, each of the image once and in order.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.before == [0, 0] && self.output == self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_within_the_image_are_those_with_a_source() {
        let (size, after) = (7, 3);
        for (kernel, stride, dilation, pads, ceil) in (1..6).flat_map(|k| {
            (1..4).flat_map(move |s| (1..4).flat_map(move |d| (0..18).map(move |p| (k, s, d, p / 2, p % 2 == 0))))
        }) {
            let window = Window::new()
                .strides([stride, stride])
                .dilations([dilation, dilation])
                .padding(Padding::Explicit([pads, pads, after, after]))
                .ceil(ceil);
            let Ok(placed) = window.place([kernel, kernel], [size, size]) else { continue };
            for at in 0..placed.output[0] {
                let padded = (0..kernel).filter(|tap| at * stride + tap * dilation < pads + size + after).count();
                assert_eq!(placed.taps_padded(0, at), padded, "{placed:?} {at}");
                if !ceil {
                    assert_eq!(padded, kernel);
                }
                let all = (0..kernel).all(|tap| placed.source(0, at, tap).is_some());
                assert_eq!(placed.inside(0).contains(&at), all, "{placed:?} {at}");
                let within = placed.taps_within(0, at);
                for tap in 0..kernel {
                    assert_eq!(placed.source(0, at, tap).is_some(), within.contains(&tap), "{placed:?} {at} {tap}");
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |window: Window, kernel, image| window.output_size(kernel, image).is_err();
        assert!(refused(Window::new().strides([0, 1]), [1, 1], [4, 4]));
        assert!(refused(Window::new().dilations([1, 0]), [1, 1], [4, 4]));
        assert!(refused(Window::new(), [0, 1], [4, 4]));
        assert!(refused(Window::new(), [5, 1], [4, 4]));
        assert!(refused(Window::new().dilations([usize::MAX, 1]), [3, 1], [4, 4]));
        assert!(refused(Window::new().padding(Padding::Explicit([usize::MAX, 0, 1, 0])), [1, 1], [4, 4]));
    }
}
