//! Products of quads: four neighbours of each of 16 channels, the unit of depthwise convolutions.

use super::{Formula, Task, ToBytes};

/// Four codes, unsigned, of each of 16 channels side by side: what a register of 512 bits holds.
pub(crate) type Line = [u8; 64];

/// Channels of a line.
pub(crate) const CHANNELS: usize = 16;

/// Where the lines lie that outputs are summed from.
#[derive(Clone, Copy)]
pub(crate) struct Quads<'a> {
    pub(crate) outputs: usize,
    pub(crate) lines: &'a [Line],
    /// The lines between those of neighbouring outputs.
    pub(crate) step: usize,
    /// For each tap its line's distance from the first line of an output.
    pub(crate) offsets: &'a [usize],
}

impl Quads<'_> {
    /// Panics unless all lines exist, for so many blocks of channels side by side.
    #[inline(always)]
    pub(super) fn check(&self, blocks: usize) {
        let mut farthest = 0;
        for &offset in self.offsets {
            farthest = if offset > farthest { offset } else { farthest };
        }
        let last = self.outputs.saturating_sub(1) * self.step + blocks.saturating_sub(1);
        let all = last < self.lines.len() && farthest < self.lines.len() - last;
        assert!(self.outputs == 0 || all, "lines of all taps");
    }
}

/// Where sums belong: those of output `x` in row `r` from `r * row_stride + x * stride` on.
pub(crate) struct QuadSums<'a> {
    pub(crate) sums: &'a mut [i32],
    pub(crate) stride: usize,
    pub(crate) row_stride: usize,
}

/// Where bytes belong: those of output `x` in row `r` from `r * row_stride + x * stride` on.
pub(crate) struct QuadBytes<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// How many rows there are.
    pub(crate) rows: usize,
    /// How many channels are written.
    pub(crate) channels: usize,
    pub(crate) stride: usize,
    pub(crate) row_stride: usize,
}

impl QuadBytes<'_> {
    /// Panics unless there is room for so many outputs in each row.
    #[inline(always)]
    pub(super) fn check(&self, outputs: usize) {
        let last = self.rows.saturating_sub(1) * self.row_stride + outputs.saturating_sub(1) * self.stride;
        let all = last < self.bytes.len() && self.channels <= self.bytes.len() - last;
        assert!(self.rows == 0 || outputs == 0 || all, "room for all outputs");
    }
}

/// Four rows of pixels, and the lines that they are interleaved to: `lines[x][4 * c + r] = rows[r][x * pixel + c] ^ flip` for
/// channels `c < channels`. What is left of the last line of a pixel may become anything.
pub(crate) struct Interleave<'a> {
    pub(crate) rows: [&'a [u8]; 4],
    pub(crate) flip: u8,
    /// How many pixels there are, the distance between them, and how much of each is meant.
    pub(crate) pixels: usize,
    pub(crate) pixel: usize,
    pub(crate) channels: usize,
    /// As many for each pixel as its channels need.
    pub(crate) lines: &'a mut [Line],
}

impl Interleave<'_> {
    /// Panics unless the lines are as many as needed and the rows as long.
    #[inline(always)]
    pub(super) fn check(&self) {
        let read = if self.pixels == 0 { 0 } else { (self.pixels - 1) * self.pixel + self.channels };
        for row in self.rows {
            assert!(read <= row.len(), "as many pixels as lines");
        }
        assert!(self.lines.len() == self.pixels * self.channels.div_ceil(CHANNELS), "lines for all pixels");
    }
}

/// In plain Rust.
impl Task for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.check();
        let Self { rows, flip, pixel, channels, lines, .. } = self;
        if channels == 0 {
            return;
        }
        for (x, lines) in lines.chunks_exact_mut(channels.div_ceil(CHANNELS)).enumerate() {
            let [a, b, c, d] = rows.map(|row| &row[x * pixel..][..channels]);
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<CHANNELS>(), b.as_chunks::<CHANNELS>());
            let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<CHANNELS>(), d.as_chunks::<CHANNELS>());
            let (whole, rest) = lines.split_at_mut(a.len());
            for ((((line, a), b), c), d) in whole.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let mut lanes = [0; 4 * CHANNELS];
                for i in 0..CHANNELS {
                    lanes[4 * i] = a[i] ^ flip;
                    lanes[4 * i + 1] = b[i] ^ flip;
                    lanes[4 * i + 2] = c[i] ^ flip;
                    lanes[4 * i + 3] = d[i] ^ flip;
                }
                *line = lanes;
            }
            let (quads, _) = rest.as_flattened_mut().as_chunks_mut();
            for ((((quad, a), b), c), d) in quads.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest).zip(d_rest) {
                *quad = [*a ^ flip, *b ^ flip, *c ^ flip, *d ^ flip];
            }
        }
    }
}

/// The definition, see [`Kernel::multiply_quads`](super::Kernel::multiply_quads).
#[inline(always)]
pub(super) fn multiply(quads: Quads<'_>, weights: &[Line], start: &[i32; CHANNELS], acc: QuadSums<'_>) {
    for (r, weights) in weights.chunks_exact(quads.offsets.len()).enumerate() {
        for x in 0..quads.outputs {
            let sums = sum(quads, x, weights, *start);
            acc.sums[r * acc.row_stride + x * acc.stride..][..CHANNELS].copy_from_slice(&sums);
        }
    }
}

/// The definition, see [`Kernel::requantize_quads`](super::Kernel::requantize_quads).
#[inline(always)]
pub(super) fn requantize<F: Formula>(
    quads: Quads<'_>,
    weights: &[Line],
    start: &[[i32; CHANNELS]],
    to: ToBytes<'_, F>,
    out: QuadBytes<'_>,
) {
    let taps = quads.offsets.len();
    let per_block = weights.len() / start.len().max(1);
    for (block, (start, factors)) in start.iter().zip(to.factors.chunks(CHANNELS)).enumerate() {
        let quads = Quads { lines: &quads.lines[block..], ..quads };
        for (r, weights) in weights[block * per_block..].chunks_exact(taps).take(out.rows).enumerate() {
            for x in 0..quads.outputs {
                let bytes = &mut out.bytes[r * out.row_stride + x * out.stride..][..out.channels][block * CHANNELS..];
                let sums = sum(quads, x, weights, *start);
                for ((byte, sum), &factor) in bytes.iter_mut().zip(sums).zip(factors) {
                    *byte = to.formula.codes(sum, factor) as u8 ^ to.flip;
                }
            }
        }
    }
}

/// The sums of 16 channels of output `x`.
#[inline(always)]
fn sum(quads: Quads<'_>, x: usize, weights: &[Line], mut sums: [i32; CHANNELS]) -> [i32; CHANNELS] {
    for (&offset, weights) in quads.offsets.iter().zip(weights) {
        let (codes, _) = quads.lines[x * quads.step + offset].as_chunks::<4>();
        let (weights, _) = weights.as_chunks::<4>();
        for c in 0..CHANNELS {
            for i in 0..4 {
                sums[c] = sums[c].wrapping_add(codes[c][i] as i32 * weights[c][i] as i8 as i32);
            }
        }
    }
    sums
}
