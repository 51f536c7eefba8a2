//! The loop of poolings: over all places of a kernel, and the codes under it.

use alloc::vec;

use super::statistic::Statistic;
use crate::arch::{self, Task};
use crate::gemm::Byte;
use crate::threads;
use crate::window::Placed;

/// Elements that are pooled together.
const LANES: usize = 64;

/// A statistic of all windows of all images, channel by channel. Both sides are in standard layout.
pub(super) fn pool_windows<T: Byte, S: Statistic<T>>(
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
struct Rows<'a, T, S> {
    x: &'a [T],
    out: &'a mut [T],
    first: usize,
    channels: usize,
    window: &'a Placed,
    statistic: S,
}

impl<T: Byte, S: Statistic<T>> Task for Rows<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, out, first, channels, window, statistic } = self;
        let ([height, width], [rows, columns]) = (window.image, window.output);
        let (row_len, inside) = ((columns * channels).max(1), window.inside(1));
        let line = width * channels;
        for row in 0..out.len() / row_len {
            let (image, y) = ((first + row) / rows, (first + row) % rows);
            let (down, top) = window.first_tap(0, y);
            let mut column = 0;
            while column < columns {
                // Pixels without padding to their sides are pooled together.
                let end = if inside.contains(&column) { inside.end } else { column + 1 };
                let (across, left) = window.first_tap(1, column);
                let padded = window.taps_padded(0, y) * window.taps_padded(1, column);
                let taps = Taps {
                    counts: [down, across],
                    steps: [window.dilations[0].wrapping_mul(line), window.dilations[1].wrapping_mul(channels)],
                };
                // And with a stride of 1 they are as one of many channels.
                let (pixels, len) = match window.strides[1] {
                    1 => (1, (end - column) * channels),
                    _ => (end - column, channels),
                };
                let x = &x[((image * height + top) * line + left * channels).min(x.len())..];
                let out = &mut out[row * row_len + column * channels..];
                let statistic = statistic.over(down * across, padded);
                for pixel in 0..pixels {
                    let x = &x[pixel * window.strides[1] * channels..];
                    pool_lanes(x, &mut out[pixel * channels..], len, taps, statistic);
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
}

impl Taps {
    /// The place of the last one.
    #[inline(always)]
    fn last(self) -> usize {
        let along = |axis: usize| self.counts[axis].saturating_sub(1).wrapping_mul(self.steps[axis]);
        along(0) + along(1)
    }
}

/// A statistic of `len` windows whose codes lie side by side.
///
/// What lies behind their outputs is not made yet: whole chunks may reach into it.
#[inline(always)]
fn pool_lanes<T: Byte, S: Statistic<T>>(x: &[T], out: &mut [T], len: usize, taps: Taps, statistic: S) {
    let room = x.len().saturating_sub(taps.last()).min(out.len());
    let mut at = 0;
    while at < len {
        if at + LANES <= room {
            pool_chunk::<T, S, LANES>(&x[at..], &mut out[at..], taps, statistic);
            at += LANES;
        } else {
            pool_chunk::<T, S, 1>(&x[at..], &mut out[at..], taps, statistic);
            at += 1;
        }
    }
}

#[inline(always)]
fn pool_chunk<T: Byte, S: Statistic<T>, const N: usize>(x: &[T], out: &mut [T], taps: Taps, statistic: S) {
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
