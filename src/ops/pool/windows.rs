//! The loops of pooling: output rows, runs of pixels, blocks of elements.

use alloc::vec;

use super::pool_op::PoolOp;
use crate::gemm::Int8;
use crate::simd::{self, Task};
use crate::threads;
use crate::window::Placed;

/// Elements per call of the vectorized loop.
const BLOCK: usize = 64;

/// Elements per call near the end of a row.
const HALF_BLOCK: usize = 32;

/// Elements of the buffer for strided pixels with few channels.
const BUFFER: usize = 2048;

/// Reduces every window of every image, channel by channel. `x` and `out` are contiguous NHWC.
pub(super) fn pool_windows<T: Int8, P: PoolOp<T>>(x: &[T], out: &mut [T], channels: usize, window: &Placed, op: P) {
    let kernel = window.kernel[0].saturating_mul(window.kernel[1]);
    let mut parts = vec![(); threads::worth(out.len().saturating_mul(kernel).saturating_mul(P::COST))];
    threads::each_part(out, window.output[1] * channels, &mut parts, &|first, out, ()| {
        simd::run(Rows { x, out, first, channels, window, op });
    });
}

/// A range of output rows, numbered across all images, that starts at row `first`.
pub(super) struct Rows<'a, T, P> {
    pub(super) x: &'a [T],
    pub(super) out: &'a mut [T],
    pub(super) first: usize,
    pub(super) channels: usize,
    pub(super) window: &'a Placed,
    pub(super) op: P,
}

impl<T: Int8, P: PoolOp<T>> Task for Rows<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, out, first, channels, window, op } = self;
        let ([height, width], [rows, columns]) = (window.image, window.output);
        let (row_len, inside) = ((columns * channels).max(1), window.inside(1));
        let (line, step) = (width * channels, window.strides[1].saturating_mul(channels));
        // Unused dilations may be of any size, so the products wrap.
        let strides = [window.dilations[0].wrapping_mul(line), window.dilations[1].wrapping_mul(channels)];
        let mut all = [T::default(); BUFFER];
        for row in 0..out.len() / row_len {
            let (image, y) = ((first + row) / rows, (first + row) % rows);
            let (down, top) = window.first_pixel(0, y);
            let mut column = 0;
            while column < columns {
                // Windows without horizontal padding form one run.
                let end = if inside.contains(&column) { inside.end } else { column + 1 };
                let (across, left) = window.first_pixel(1, column);
                let padded = window.padded_count(0, y) * window.padded_count(1, column);
                let x = &x[((image * height + top) * line + left * channels).min(x.len())..];
                let out = &mut out[row * row_len + column * channels..];
                let op = op.for_window(down * across, padded);
                if down * across == 0 {
                    out[..(end - column) * channels].fill(op.finish(op.init()));
                } else {
                    let offsets = KernelOffsets::new([down, across], strides);
                    pool_pixels(x, out, [end - column, channels], step, offsets, op, &mut all);
                }
                column = end;
            }
        }
    }
}

/// Offsets of a window's codes from its first one.
#[derive(Clone, Copy)]
struct KernelOffsets {
    /// Rows and columns of the kernel inside the image.
    counts: [usize; 2],
    strides: [usize; 2],
    /// Offset of the last code.
    last: usize,
}

impl KernelOffsets {
    /// Requires at least one row and one column.
    #[inline(always)]
    fn new(counts: [usize; 2], strides: [usize; 2]) -> Self {
        let along = |axis: usize| (counts[axis] - 1).wrapping_mul(strides[axis]);
        Self { counts, strides, last: along(0) + along(1) }
    }
}

/// Reduces the windows of a run of output pixels. Neighbouring windows are `step` elements apart in the image. `all` is
/// a buffer.
#[inline(always)]
fn pool_pixels<T: Int8, P: PoolOp<T>>(
    x: &[T],
    out: &mut [T],
    [pixels, channels]: [usize; 2],
    step: usize,
    offsets: KernelOffsets,
    op: P,
    all: &mut [T; BUFFER],
) {
    // Adjacent windows form one run. With few channels the pixels in between are reduced as well, and dropped.
    let drops = step != channels && step <= BLOCK && pixels > 1;
    let per_run = match step {
        _ if step == channels => pixels,
        _ if drops => BUFFER / step,
        _ => 1,
    };
    for first in (0..pixels).step_by(per_run) {
        let pixels = (pixels - first).min(per_run);
        let (x, out) = (&x[first * step..], &mut out[first * channels..]);
        let len = (pixels - 1) * step + channels;
        pool_run(x, if drops { &mut *all } else { &mut *out }, len, offsets, op);
        if drops {
            for pixel in 0..pixels {
                copy_pixel(&all[pixel * step..], &mut out[pixel * channels..], channels);
            }
        }
    }
}

/// Reduces `len` windows whose codes are contiguous.
///
/// Elements of `out` after `len` are not computed yet, so whole blocks may write into them.
#[inline(always)]
fn pool_run<T: Int8, P: PoolOp<T>>(x: &[T], out: &mut [T], len: usize, offsets: KernelOffsets, op: P) {
    let limit = x.len().saturating_sub(offsets.last).min(out.len());
    let mut at = 0;
    while at < len {
        let left = len - at;
        at = if size_of::<P::State>() == 1 && left > 3 * BLOCK && at + 4 * BLOCK <= limit {
            at + pool_block::<T, P, { 4 * BLOCK }>(&x[at..], &mut out[at..], offsets, op)
        } else if left > HALF_BLOCK && at + BLOCK <= limit {
            at + pool_block::<T, P, BLOCK>(&x[at..], &mut out[at..], offsets, op)
        } else if at + HALF_BLOCK <= limit || len >= HALF_BLOCK {
            // The last block may overlap the one before it.
            let start = at.min(limit - HALF_BLOCK);
            start + pool_block::<T, P, HALF_BLOCK>(&x[start..], &mut out[start..], offsets, op)
        } else {
            at + pool_block::<T, P, 1>(&x[at..], &mut out[at..], offsets, op)
        };
    }
}

/// Reduces `N` windows, and returns `N`.
#[inline(always)]
fn pool_block<T: Int8, P: PoolOp<T>, const N: usize>(x: &[T], out: &mut [T], offsets: KernelOffsets, op: P) -> usize {
    let mut states = [op.init(); N];
    for ky in 0..offsets.counts[0] {
        for kx in 0..offsets.counts[1] {
            let from = &x[ky * offsets.strides[0] + kx * offsets.strides[1]..][..N];
            for i in 0..N {
                states[i] = op.accumulate(states[i], from[i]);
            }
        }
    }
    let mut codes = [T::default(); N];
    for i in 0..N {
        codes[i] = op.finish(states[i]);
    }
    out[..N].copy_from_slice(&codes);
    N
}

/// Copies the channels of a pixel, up to [`HALF_BLOCK`] of them by one instruction that writes past them.
#[inline(always)]
fn copy_pixel<T: Copy>(from: &[T], to: &mut [T], channels: usize) {
    match (from.first_chunk::<HALF_BLOCK>(), to.first_chunk_mut::<HALF_BLOCK>()) {
        (Some(from), Some(to)) if channels <= HALF_BLOCK => *to = *from,
        _ => to[..channels].copy_from_slice(&from[..channels]),
    }
}
