//! The loop of poolings: over all places of a kernel, and the codes under it.

use alloc::vec;

use super::statistic::Statistic;
use crate::arch::{self, Task};
use crate::gemm::Int8;
use crate::threads;
use crate::window::Placed;

/// Elements that are pooled together.
const LANES: usize = 64;

/// Fewer of them, where no more are left.
const FEW: usize = 32;

/// Elements of a row that pass through a buffer.
const PIECE: usize = 2048;

/// A statistic of all windows of all images, channel by channel. Both sides are in standard layout.
pub(super) fn pool_windows<T: Int8, S: Statistic<T>>(
    x: &[T],
    out: &mut [T],
    channels: usize,
    window: &Placed,
    statistic: S,
) {
    let taps = window.kernel[0].saturating_mul(window.kernel[1]);
    let mut parts = vec![(); threads::worth(out.len().saturating_mul(taps).saturating_mul(S::PRODUCTS))];
    threads::each_part(out, window.output[1] * channels, &mut parts, &|first, out, ()| {
        arch::run(Rows { x, out, first, channels, window, statistic });
    });
}

/// Rows of the output from row `first` on, those of all images being numbered on.
pub(super) struct Rows<'a, T, S> {
    pub(super) x: &'a [T],
    pub(super) out: &'a mut [T],
    pub(super) first: usize,
    pub(super) channels: usize,
    pub(super) window: &'a Placed,
    pub(super) statistic: S,
}

impl<T: Int8, S: Statistic<T>> Task for Rows<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, out, first, channels, window, statistic } = self;
        let ([height, width], [rows, columns]) = (window.image, window.output);
        let (row_len, inside) = ((columns * channels).max(1), window.inside(1));
        let (line, step) = (width * channels, window.strides[1].saturating_mul(channels));
        // Steps that are never made may be of any length.
        let tap_steps = [window.dilations[0].wrapping_mul(line), window.dilations[1].wrapping_mul(channels)];
        for row in 0..out.len() / row_len {
            let (image, y) = ((first + row) / rows, (first + row) % rows);
            let (down, top) = window.first_pixel(0, y);
            let mut column = 0;
            while column < columns {
                // Pixels without padding to their sides are pooled together.
                let end = if inside.contains(&column) { inside.end } else { column + 1 };
                let (across, left) = window.first_pixel(1, column);
                let padded = window.padded_count(0, y) * window.padded_count(1, column);
                let x = &x[((image * height + top) * line + left * channels).min(x.len())..];
                let out = &mut out[row * row_len + column * channels..];
                let statistic = statistic.over(down * across, padded);
                if down * across == 0 {
                    out[..(end - column) * channels].fill(statistic.finish(statistic.start()));
                } else {
                    let taps = Taps::new([down, across], tap_steps);
                    pool_pixels(x, out, [end - column, channels], step, taps, statistic);
                }
                column = end;
            }
        }
    }
}

/// Where the codes of a window are, from its first on.
#[derive(Clone, Copy)]
struct Taps {
    /// How many there are down and across.
    counts: [usize; 2],
    steps: [usize; 2],
    /// The place of the last one.
    last: usize,
}

impl Taps {
    /// At least one in each direction.
    #[inline(always)]
    fn new(counts: [usize; 2], steps: [usize; 2]) -> Self {
        let along = |axis: usize| (counts[axis] - 1).wrapping_mul(steps[axis]);
        Self { counts, steps, last: along(0) + along(1) }
    }
}

/// A statistic of the windows of some pixels of some channels, a step apart in the image.
#[inline(always)]
fn pool_pixels<T: Int8, S: Statistic<T>>(
    x: &[T],
    out: &mut [T],
    [pixels, channels]: [usize; 2],
    step: usize,
    taps: Taps,
    statistic: S,
) {
    if step == channels {
        return pool_lanes(x, out, pixels * channels, taps, statistic);
    }
    if step > LANES || pixels == 1 {
        for pixel in 0..pixels {
            pool_lanes(&x[pixel * step..], &mut out[pixel * channels..], channels, taps, statistic);
        }
        return;
    }
    // Few channels: pixels between are pooled as well, and left out.
    let mut all = [T::default(); PIECE];
    for first in (0..pixels).step_by(PIECE / step) {
        let pixels = (pixels - first).min(PIECE / step);
        pool_lanes(&x[first * step..], &mut all, (pixels - 1) * step + channels, taps, statistic);
        for pixel in 0..pixels {
            copy_pixel(&all[pixel * step..], &mut out[(first + pixel) * channels..], channels);
        }
    }
}

/// A statistic of `len` windows whose codes lie side by side.
///
/// What lies behind their outputs is not made yet: whole chunks may reach into it.
#[inline(always)]
fn pool_lanes<T: Int8, S: Statistic<T>>(x: &[T], out: &mut [T], len: usize, taps: Taps, statistic: S) {
    let room = x.len().saturating_sub(taps.last).min(out.len());
    let mut at = 0;
    while at < len {
        let left = len - at;
        if size_of::<S::State>() == 1 && left > 3 * LANES && at + 4 * LANES <= room {
            pool_chunk::<T, S, { 4 * LANES }>(&x[at..], &mut out[at..], taps, statistic);
            at += 4 * LANES;
        } else if left > FEW && at + LANES <= room {
            pool_chunk::<T, S, LANES>(&x[at..], &mut out[at..], taps, statistic);
            at += LANES;
        } else if at + FEW <= room {
            pool_chunk::<T, S, FEW>(&x[at..], &mut out[at..], taps, statistic);
            at += FEW;
        } else if len >= FEW {
            // At the end of memory some are pooled twice.
            at = len - FEW;
            pool_chunk::<T, S, FEW>(&x[at..], &mut out[at..], taps, statistic);
            at = len;
        } else {
            pool_chunk::<T, S, 1>(&x[at..], &mut out[at..], taps, statistic);
            at += 1;
        }
    }
}

#[inline(always)]
fn pool_chunk<T: Int8, S: Statistic<T>, const N: usize>(x: &[T], out: &mut [T], taps: Taps, statistic: S) {
    let mut states = [statistic.start(); N];
    for i in 0..taps.counts[0] {
        for j in 0..taps.counts[1] {
            let from = &x[i * taps.steps[0] + j * taps.steps[1]..][..N];
            for lane in 0..N {
                states[lane] = statistic.add(states[lane], from[lane]);
            }
        }
    }
    let mut codes = [T::default(); N];
    for lane in 0..N {
        codes[lane] = statistic.finish(states[lane]);
    }
    out[..N].copy_from_slice(&codes);
}

/// Copies the few channels of a pixel, and as much behind them as makes it one instruction.
#[inline(always)]
fn copy_pixel<T: Copy>(from: &[T], to: &mut [T], channels: usize) {
    match (from.first_chunk::<FEW>(), to.first_chunk_mut::<FEW>()) {
        (Some(from), Some(to)) if channels <= FEW => *to = *from,
        _ => to[..channels].copy_from_slice(&from[..channels]),
    }
}
