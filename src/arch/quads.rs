//! Products of quads: four neighbours of each of 16 channels, the unit of depthwise convolutions.

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
    /// Panics unless all lines exist.
    #[inline(always)]
    pub(super) fn check(&self) {
        let mut farthest = 0;
        for &offset in self.offsets {
            farthest = if offset > farthest { offset } else { farthest };
        }
        let last = self.outputs.saturating_sub(1) * self.step;
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

/// The definition, see [`Kernel::multiply_quads`](super::Kernel::multiply_quads).
#[inline(always)]
pub(super) fn multiply(quads: Quads<'_>, weights: &[Line], start: &[i32; CHANNELS], acc: QuadSums<'_>) {
    for (r, weights) in weights.chunks_exact(quads.offsets.len()).enumerate() {
        for x in 0..quads.outputs {
            let mut sums = *start;
            for (&offset, weights) in quads.offsets.iter().zip(weights) {
                let (codes, _) = quads.lines[x * quads.step + offset].as_chunks::<4>();
                let (weights, _) = weights.as_chunks::<4>();
                for c in 0..CHANNELS {
                    for i in 0..4 {
                        sums[c] = sums[c].wrapping_add(codes[c][i] as i32 * weights[c][i] as i8 as i32);
                    }
                }
            }
            acc.sums[r * acc.row_stride + x * acc.stride..][..CHANNELS].copy_from_slice(&sums);
        }
    }
}
