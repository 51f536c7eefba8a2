//! The im2col of an image under a sliding kernel, as rows of a left side.

use core::ops::Range;

use super::aligned::AlignedBytes;
use crate::arch::{self, Task};
use crate::window::Placed;

const LINE: usize = AlignedBytes::LINE;

/// The left side of a convolution. The row of an output pixel holds the codes under the kernel, `[kh][kw][channels]`;
/// rows are in the order of images, rows and columns of outputs. Only a block of rows exists at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Im2col<'a> {
    /// The bits of the codes, `[images][height][width][pixel]`.
    pub(crate) codes: &'a [u8],
    pub(crate) images: usize,
    /// Channels of the image, and those of them that are read: the ones of a group.
    pub(crate) pixel: usize,
    pub(crate) first_channel: usize,
    pub(crate) channels: usize,
    pub(crate) window: Placed,
    /// What the padding holds: the bits of the zero point.
    pub(crate) fill: u8,
}

impl Im2col<'_> {
    /// Kernels of all instruction sets read whole numbers of units of this many codes at once.
    pub(super) const UNIT: usize = 4;

    pub(super) fn nrows(&self) -> usize {
        self.images * self.window.output[0] * self.window.output[1]
    }

    pub(super) fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.channels
    }

    /// What copies of whole registers may write beyond the end of a row.
    pub(super) fn room(&self) -> usize {
        copy_width(self.window.kernel[1] * self.channels)
    }

    /// Writes these rows to `to`, `stride` bytes apart, with [`Self::room`] behind the depth at least; what fills the rest
    /// of each row is not defined.
    pub(super) fn gather(self, rows: Range<usize>, stride: usize, to: &mut [u8]) {
        arch::run(Gather { im2col: self, first: rows.start, stride, to });
    }
}

struct Gather<'a, 'b> {
    im2col: Im2col<'a>,
    first: usize,
    stride: usize,
    to: &'b mut [u8],
}

impl Task for Gather<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Im2col { codes, pixel, channels, window, .. } = self.im2col;
        let [height, width] = window.image;
        let [kh, kw] = window.kernel;
        let [rows, columns] = window.output;
        let (mut image, mut y) = (self.first / (rows * columns), self.first / columns % rows);
        let mut x = self.first % columns;
        let (inside_y, inside_x) = (window.inside(0), window.inside(1));
        // Neighbours under the kernel are neighbours in memory.
        let in_one = channels == pixel && window.dilations[1] == 1;
        let mut rest = self.to;
        while rest.len() >= self.stride {
            let mut done = 1;
            if in_one && inside_y.contains(&y) && inside_x.contains(&x) {
                let top = (image * height + y * window.strides[0] - window.before[0]) * width;
                let strip = Strip {
                    first: (top + x * window.strides[1] - window.before[1]) * pixel,
                    step: window.strides[1] * pixel,
                    rows: kh,
                    row_step: window.dilations[0] * width * pixel,
                    len: kw * pixel,
                };
                let count = (inside_x.end - x).min(rest.len() / self.stride);
                done = strip.copy(codes, count, self.stride, rest);
            } else {
                patch(&self.im2col, [image, y, x], rest);
            }
            rest = &mut rest[done * self.stride..];
            x += done;
            if x == columns {
                (x, y) = (0, y + 1);
                if y == rows {
                    (y, image) = (0, image + 1);
                }
            }
        }
    }
}

/// One patch, wherever it lies.
#[inline(always)]
fn patch(im2col: &Im2col<'_>, [image, y, x]: [usize; 3], to: &mut [u8]) {
    let Im2col { codes, pixel, first_channel, channels, window, fill, .. } = *im2col;
    let [height, width] = window.image;
    let [kh, kw] = window.kernel;
    for ky in 0..kh {
        let to = &mut to[ky * kw * channels..];
        let Some(row) = window.source(0, y, ky) else {
            to[..kw * channels].fill(fill);
            continue;
        };
        let row = &codes[(image * height + row) * width * pixel..];
        for kx in 0..kw {
            let to = &mut to[kx * channels..];
            match window.source(1, x, kx) {
                Some(column) => copy(&row[column * pixel + first_channel..], channels, to),
                None => to[..channels].fill(fill),
            }
        }
    }
}

/// Neighbouring im2col that lie within the image: each some rows of so many neighbours in memory.
struct Strip {
    first: usize,
    /// The distance of im2col, and of the rows of a patch.
    step: usize,
    rows: usize,
    row_step: usize,
    len: usize,
}

impl Strip {
    /// Copies im2col, at least one and at most `count`, `stride` bytes apart. Returns how many.
    #[inline(always)]
    fn copy(&self, codes: &[u8], count: usize, stride: usize, to: &mut [u8]) -> usize {
        match copy_width(self.len) {
            16 => self.copy_whole::<16>(codes, count, stride, to),
            32 => self.copy_whole::<32>(codes, count, stride, to),
            _ => self.copy_whole::<LINE>(codes, count, stride, to),
        }
    }

    /// Whole registers, as long as there is something to read beyond the last row.
    #[inline(always)]
    fn copy_whole<const WIDTH: usize>(&self, codes: &[u8], count: usize, stride: usize, to: &mut [u8]) -> usize {
        // A constant for short rows: their copies are one instruction each.
        let len = if WIDTH < LINE { WIDTH } else { self.len.next_multiple_of(WIDTH) };
        let last = self.first + (self.rows - 1) * self.row_step + len;
        let whole = codes.len().checked_sub(last).map_or(0, |room| count.min(room / self.step.max(1) + 1));
        for row in 0..self.rows {
            // What a row writes beyond its end, the next one writes over.
            let (from, to) = (&codes[self.first + row * self.row_step..], &mut to[row * self.len..]);
            for i in 0..whole {
                let (from, to) = (&from[i * self.step..][..len], &mut to[i * stride..][..len]);
                for (to, from) in to.as_chunks_mut::<WIDTH>().0.iter_mut().zip(from.as_chunks::<WIDTH>().0) {
                    *to = *from;
                }
            }
        }
        if whole == 0 {
            for row in 0..self.rows {
                let from = &codes[self.first + row * self.row_step..][..self.len];
                to[row * self.len..][..self.len].copy_from_slice(from);
            }
        }
        whole.max(1)
    }
}

/// The bytes of the registers that so many bytes in a row are copied with.
#[inline(always)]
fn copy_width(len: usize) -> usize {
    match len {
        0..=16 => 16,
        17..=32 => 32,
        _ => LINE,
    }
}

/// Copies `len` bytes, and what comes after them as far as whole registers go: later copies write over that.
#[inline(always)]
fn copy(from: &[u8], len: usize, to: &mut [u8]) {
    match copy_width(len) {
        16 => copy_whole::<16>(from, len, to),
        32 => copy_whole::<32>(from, len, to),
        _ => copy_whole::<LINE>(from, len, to),
    }
}

#[inline(always)]
fn copy_whole<const WIDTH: usize>(from: &[u8], len: usize, to: &mut [u8]) {
    let whole = len.next_multiple_of(WIDTH);
    if from.len() < whole || to.len() < whole {
        to[..len].copy_from_slice(&from[..len]);
        return;
    }
    let (from, to) = (from[..whole].as_chunks::<WIDTH>().0, to[..whole].as_chunks_mut::<WIDTH>().0);
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
