//! Depthwise convolution by 4-way dot products (dot4) of VNNI-interleaved codes.
//!
//! A 64-byte vector holds 4 codes of each of 16 channels, side by side, as `vpdpbusd` multiplies and adds them.

use super::{ByteStage, RequantizeOp, Task};

/// Four codes of each of 16 channels: 64 bytes, one AVX-512 register.
pub(crate) type Vector64 = [u8; 64];

/// Channels of a [`Vector64`].
pub(crate) const CHANNELS: usize = 16;

/// The VNNI-interleaved input of a row of outputs.
#[derive(Clone, Copy)]
pub(crate) struct Dot4Input<'a> {
    pub(crate) outputs: usize,
    pub(crate) vectors: &'a [Vector64],
    /// Distance between the first vectors of neighbouring outputs.
    pub(crate) step: usize,
    /// Distance of each tap's vector from the first vector of an output.
    pub(crate) offsets: &'a [usize],
}

impl Dot4Input<'_> {
    /// Panics unless the vectors of all taps, outputs and `blocks` neighbouring blocks of channels exist.
    #[inline(always)]
    pub(super) fn check(&self, blocks: usize) {
        let mut farthest = 0;
        for &offset in self.offsets {
            farthest = if offset > farthest { offset } else { farthest };
        }
        let last = self.outputs.saturating_sub(1) * self.step + blocks.saturating_sub(1);
        let all = last < self.vectors.len() && farthest < self.vectors.len() - last;
        assert!(self.outputs == 0 || all, "vectors of all taps");
    }
}

/// Accumulators of 16 channels per output; output `x` of row `r` starts at `r * row_stride + x * stride`.
pub(crate) struct Dot4Accumulators<'a> {
    pub(crate) acc: &'a mut [i32],
    pub(crate) stride: usize,
    pub(crate) row_stride: usize,
}

/// Output codes; output `x` of row `r` starts at `r * row_stride + x * stride`.
pub(crate) struct Dot4Output<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) rows: usize,
    /// Number of channels to write.
    pub(crate) channels: usize,
    pub(crate) stride: usize,
    pub(crate) row_stride: usize,
}

impl Dot4Output<'_> {
    /// Panics unless `bytes` holds this number of outputs in each row.
    #[inline(always)]
    pub(super) fn check(&self, outputs: usize) {
        let last = self.rows.saturating_sub(1) * self.row_stride + outputs.saturating_sub(1) * self.stride;
        let all = last < self.bytes.len() && self.channels <= self.bytes.len() - last;
        assert!(self.rows == 0 || outputs == 0 || all, "memory for all outputs");
    }
}

/// Interleaves four rows of pixels for dot4: `vectors[x][4 * c + r] = rows[r][x * pixel + c] ^ sign_xor` for
/// `c < channels`. Channels past the last one of a pixel's last vector are unspecified.
pub(crate) struct Interleave4<'a> {
    pub(crate) rows: [&'a [u8]; 4],
    /// 0x80 adds the sign offset to signed codes.
    pub(crate) sign_xor: u8,
    pub(crate) pixels: usize,
    /// Distance between pixels in bytes.
    pub(crate) pixel: usize,
    /// Channels to read of each pixel.
    pub(crate) channels: usize,
    /// `channels.div_ceil(CHANNELS)` vectors per pixel.
    pub(crate) vectors: &'a mut [Vector64],
}

impl Interleave4<'_> {
    /// Panics unless the rows hold all pixels and there is the right number of vectors.
    #[inline(always)]
    pub(super) fn check(&self) {
        let read = if self.pixels == 0 { 0 } else { (self.pixels - 1) * self.pixel + self.channels };
        for row in self.rows {
            assert!(read <= row.len(), "rows hold all pixels");
        }
        assert!(self.vectors.len() == self.pixels * self.channels.div_ceil(CHANNELS), "vectors for all pixels");
    }
}

/// The portable implementation.
impl Task for Interleave4<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.check();
        let Self { rows, sign_xor, pixel, channels, vectors, .. } = self;
        if channels == 0 {
            return;
        }
        for (x, vectors) in vectors.chunks_exact_mut(channels.div_ceil(CHANNELS)).enumerate() {
            let [a, b, c, d] = rows.map(|row| &row[x * pixel..][..channels]);
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<CHANNELS>(), b.as_chunks::<CHANNELS>());
            let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<CHANNELS>(), d.as_chunks::<CHANNELS>());
            let (whole, rest) = vectors.split_at_mut(a.len());
            for ((((vector, a), b), c), d) in whole.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let mut codes = [0; 4 * CHANNELS];
                for i in 0..CHANNELS {
                    codes[4 * i] = a[i] ^ sign_xor;
                    codes[4 * i + 1] = b[i] ^ sign_xor;
                    codes[4 * i + 2] = c[i] ^ sign_xor;
                    codes[4 * i + 3] = d[i] ^ sign_xor;
                }
                *vector = codes;
            }
            let (rest, _) = rest.as_flattened_mut().as_chunks_mut();
            for ((((to, a), b), c), d) in rest.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest).zip(d_rest) {
                *to = [*a ^ sign_xor, *b ^ sign_xor, *c ^ sign_xor, *d ^ sign_xor];
            }
        }
    }
}

/// The portable implementation of [`Kernel::dot4`](super::Kernel::dot4).
#[inline(always)]
pub(super) fn dot4(input: Dot4Input<'_>, weights: &[Vector64], start: &[i32; CHANNELS], out: Dot4Accumulators<'_>) {
    for (r, weights) in weights.chunks_exact(input.offsets.len()).enumerate() {
        for x in 0..input.outputs {
            let acc = accumulate(input, x, weights, *start);
            out.acc[r * out.row_stride + x * out.stride..][..CHANNELS].copy_from_slice(&acc);
        }
    }
}

/// The portable implementation of [`Kernel::dot4_requantize`](super::Kernel::dot4_requantize).
#[inline(always)]
pub(super) fn dot4_requantize<F: RequantizeOp>(
    input: Dot4Input<'_>,
    weights: &[Vector64],
    start: &[[i32; CHANNELS]],
    stage: ByteStage<'_, F>,
    out: Dot4Output<'_>,
) {
    let taps = input.offsets.len();
    let per_block = weights.len() / start.len().max(1);
    for (block, (start, multipliers)) in start.iter().zip(stage.multipliers.chunks(CHANNELS)).enumerate() {
        let input = Dot4Input { vectors: &input.vectors[block..], ..input };
        for (r, weights) in weights[block * per_block..].chunks_exact(taps).take(out.rows).enumerate() {
            for x in 0..input.outputs {
                let bytes = &mut out.bytes[r * out.row_stride + x * out.stride..][..out.channels][block * CHANNELS..];
                let acc = accumulate(input, x, weights, *start);
                for ((byte, acc), &multiplier) in bytes.iter_mut().zip(acc).zip(multipliers) {
                    *byte = stage.op.codes(acc, multiplier) as u8 ^ stage.sign_xor;
                }
            }
        }
    }
}

/// Accumulates all taps of 16 channels of output `x`.
#[inline(always)]
fn accumulate(input: Dot4Input<'_>, x: usize, weights: &[Vector64], mut acc: [i32; CHANNELS]) -> [i32; CHANNELS] {
    for (&offset, weights) in input.offsets.iter().zip(weights) {
        let (codes, _) = input.vectors[x * input.step + offset].as_chunks::<4>();
        let (weights, _) = weights.as_chunks::<4>();
        for c in 0..CHANNELS {
            for i in 0..4 {
                acc[c] = acc[c].wrapping_add(codes[c][i] as i32 * weights[c][i] as i8 as i32);
            }
        }
    }
    acc
}
