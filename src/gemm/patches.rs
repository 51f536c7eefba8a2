//! The patches of an image under a sliding kernel, as rows of a left side.

use core::ops::Range;

use crate::arch::{self, Task};
use crate::window::Placed;

/// The left side of a convolution. The row of an output pixel holds the codes under the kernel, `[kh][kw][channels]`;
/// rows are in the order of images, rows and columns of outputs. Only a block of rows exists at a time.
#[derive(Clone, Copy)]
pub(crate) struct Patches<'a> {
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

impl Patches<'_> {
    /// Kernels of all instruction sets read whole numbers of units of this many codes at once.
    pub(super) const UNIT: usize = 4;

    pub(super) fn nrows(&self) -> usize {
        self.images * self.window.output[0] * self.window.output[1]
    }

    pub(super) fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.channels
    }

    /// Writes these rows to `to`, `stride` bytes apart, at least a line beyond the depth; what fills the rest of each row
    /// is not defined.
    pub(super) fn gather(self, rows: Range<usize>, stride: usize, to: &mut [u8]) {
        arch::run(Gather { patches: self, first: rows.start, stride, to });
    }
}

struct Gather<'a, 'b> {
    patches: Patches<'a>,
    first: usize,
    stride: usize,
    to: &'b mut [u8],
}

impl Task for Gather<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Patches { codes, pixel, first_channel, channels, window, fill, .. } = self.patches;
        let [height, width] = window.image;
        let [kh, kw] = window.kernel;
        let [rows, columns] = window.output;
        let (mut image, mut y) = (self.first / (rows * columns), self.first / columns % rows);
        let mut x = self.first % columns;
        let inside = window.inside(1);
        // Neighbours under the kernel are neighbours in memory.
        let in_one = channels == pixel && window.dilations[1] == 1;
        for to in self.to.chunks_exact_mut(self.stride) {
            for ky in 0..kh {
                let to = &mut to[ky * kw * channels..];
                let Some(row) = window.source(0, y, ky) else {
                    to[..kw * channels].fill(fill);
                    continue;
                };
                let row = &codes[(image * height + row) * width * pixel..];
                if in_one && inside.contains(&x) {
                    copy(&row[(x * window.strides[1] - window.before[1]) * pixel..], kw * pixel, to);
                    continue;
                }
                for kx in 0..kw {
                    let to = &mut to[kx * channels..];
                    match window.source(1, x, kx) {
                        Some(column) => copy(&row[column * pixel + first_channel..], channels, to),
                        None => to[..channels].fill(fill),
                    }
                }
            }
            x += 1;
            if x == columns {
                (x, y) = (0, y + 1);
                if y == rows {
                    (y, image) = (0, image + 1);
                }
            }
        }
    }
}

/// Copies `len` bytes, and what comes after them as far as whole registers go: later copies write over that.
#[inline(always)]
fn copy(from: &[u8], len: usize, to: &mut [u8]) {
    if len <= 16 { copy_whole::<16>(from, len, to) } else { copy_whole::<64>(from, len, to) }
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
