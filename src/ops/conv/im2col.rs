//! im2col: the input of a convolution as the rows of an LHS.

use core::ops::Range;

use crate::gemm::{LINE, LhsSource};
use crate::simd::{self, Task};
use crate::window::Placed;

/// The implicit im2col matrix of an NHWC input. The row of an output pixel holds the codes under the kernel,
/// `[kh][kw][channels]`; rows are ordered by image, output row and output column.
///
/// Only a block of rows is materialized at once, right before it is multiplied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Im2col<'a> {
    /// The bits of the codes, `[images][height][width][pixel]`.
    pub(crate) codes: &'a [u8],
    pub(crate) images: usize,
    /// Channels of a pixel.
    pub(crate) pixel: usize,
    /// First channel of the group that is read.
    pub(crate) first_channel: usize,
    /// Channels of the group that is read.
    pub(crate) channels: usize,
    pub(crate) window: Placed,
    /// Value of the padding: the bits of the zero point.
    pub(crate) fill: u8,
    /// True if the codes are signed.
    pub(crate) signed: bool,
}

impl LhsSource for Im2col<'_> {
    fn nrows(&self) -> usize {
        self.images * self.window.output[0] * self.window.output[1]
    }

    fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.channels
    }

    fn signed(&self) -> bool {
        self.signed
    }

    fn fill(&self, rows: Range<usize>, stride: usize, to: &mut [u8]) {
        simd::run(FillRows { im2col: *self, first: rows.start, stride, to });
    }

    fn overhang(&self) -> usize {
        copy_width(self.window.kernel[1] * self.channels)
    }

    fn is_computed(&self) -> bool {
        true
    }
}

struct FillRows<'a, 'b> {
    im2col: Im2col<'a>,
    first: usize,
    stride: usize,
    to: &'b mut [u8],
}

impl Task for FillRows<'_, '_> {
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
        // Without groups and dilation a kernel row is contiguous in the image.
        let contiguous = channels == pixel && window.dilations[1] == 1;
        let mut rest = self.to;
        while rest.len() >= self.stride {
            let mut done = 1;
            if contiguous && inside_y.contains(&y) && inside_x.contains(&x) {
                let top = (image * height + y * window.strides[0] - window.before[0]) * width;
                let windows = InnerWindows {
                    first: (top + x * window.strides[1] - window.before[1]) * pixel,
                    step: window.strides[1] * pixel,
                    rows: kh,
                    row_step: window.dilations[0] * width * pixel,
                    len: kw * pixel,
                };
                let count = (inside_x.end - x).min(rest.len() / self.stride);
                done = windows.copy(codes, count, self.stride, rest);
            } else {
                copy_window(&self.im2col, [image, y, x], rest);
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

/// Copies the window of one output pixel, with padding where it leaves the image.
#[inline(always)]
fn copy_window(im2col: &Im2col<'_>, [image, y, x]: [usize; 3], to: &mut [u8]) {
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

/// Neighbouring windows that lie within the image: each is `rows` contiguous runs of `len` bytes.
struct InnerWindows {
    first: usize,
    /// Distance between windows.
    step: usize,
    rows: usize,
    /// Distance between the rows of a window.
    row_step: usize,
    len: usize,
}

impl InnerWindows {
    /// Copies 1 to `count` windows to rows `stride` bytes apart. Returns their number.
    #[inline(always)]
    fn copy(&self, codes: &[u8], count: usize, stride: usize, to: &mut [u8]) -> usize {
        match copy_width(self.len) {
            16 => self.copy_registers::<16>(codes, count, stride, to),
            32 => self.copy_registers::<32>(codes, count, stride, to),
            _ => self.copy_registers::<LINE>(codes, count, stride, to),
        }
    }

    /// Copies whole registers, for all windows that can be over-read within the image.
    #[inline(always)]
    fn copy_registers<const WIDTH: usize>(&self, codes: &[u8], count: usize, stride: usize, to: &mut [u8]) -> usize {
        // A constant for short rows, so that each copy is one instruction.
        let len = if WIDTH < LINE { WIDTH } else { self.len.next_multiple_of(WIDTH) };
        let last = self.first + (self.rows - 1) * self.row_step + len;
        let whole = codes.len().checked_sub(last).map_or(0, |spare| count.min(spare / self.step.max(1) + 1));
        for row in 0..self.rows {
            // The next row overwrites what this one writes beyond its end.
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

/// Returns the register width in bytes for runs of `len` bytes.
#[inline(always)]
fn copy_width(len: usize) -> usize {
    match len {
        0..=16 => 16,
        17..=32 => 32,
        _ => LINE,
    }
}

/// Copies `len` bytes and, in whole registers, bytes beyond them, which later copies overwrite.
#[inline(always)]
fn copy(from: &[u8], len: usize, to: &mut [u8]) {
    match copy_width(len) {
        16 => copy_registers::<16>(from, len, to),
        32 => copy_registers::<32>(from, len, to),
        _ => copy_registers::<LINE>(from, len, to),
    }
}

#[inline(always)]
fn copy_registers<const WIDTH: usize>(from: &[u8], len: usize, to: &mut [u8]) {
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
