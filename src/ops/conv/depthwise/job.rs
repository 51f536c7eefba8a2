//! The loops of a depthwise convolution: blocks of output rows, and tiles whose interleaved rows fit the L1 cache.

use core::ops::Range;

use super::{DepthwiseWeights, ThreadScratch};
use crate::simd::{CHANNELS, Dot4, Dot4Call, Gemm, Interleave4, OutTile, Stage, Vector, Vector64, with_gemm};
use crate::threads::join;
use crate::window::Placed;

/// Bytes of interleaved rows per tile, so that they stay in the L1 cache.
const TILE_BYTES: usize = 16 * 1024;

/// Up to this many channels a tile takes all of them, so that rows are read contiguously.
const MAX_JOINT_CHANNELS: usize = 192;

/// With more channels a tile takes a multiple of a cache line of them.
const CHANNEL_BLOCK: usize = 64;

/// The arguments of one convolution.
pub(super) struct Job<'a> {
    pub(super) weights: &'a DepthwiseWeights,
    pub(super) codes: &'a [u8],
    /// The sign offset: XOR with it makes codes signed or unsigned, as the instruction set multiplies them.
    pub(super) sign_offset: u8,
    /// The bits of the zero point with the sign offset.
    pub(super) zero: u8,
    /// A row of zero points, in codes of the image: the padding.
    pub(super) padding_row: &'a [u8],
    pub(super) start: &'a [i32],
    pub(super) window: Placed,
    /// Row blocks per image.
    pub(super) blocks: usize,
}

/// One work item: output rows of a row block × a range of output columns × a range of channels.
struct Tile {
    image: usize,
    row: usize,
    rows: usize,
    xs: Range<usize>,
    channels: Range<usize>,
}

impl Tile {
    /// Returns the number of vectors per pixel.
    fn vectors(&self) -> usize {
        self.channels.len().div_ceil(CHANNELS)
    }
}

impl Job<'_> {
    /// Returns the image and the first output row of a row block.
    fn place(&self, block: usize) -> (usize, usize) {
        (block / self.blocks, block % self.blocks * self.weights.block_rows)
    }

    /// Returns the number of output elements before a row block.
    fn offset(&self, block: usize) -> usize {
        let (image, row) = self.place(block);
        (image * self.window.output[0] + row) * self.window.output[1] * self.weights.outputs
    }

    /// Splits the row blocks over threads, one for each element of `scratch`.
    pub(super) fn fork<S: Stage>(
        &self,
        stage: S,
        blocks: Range<usize>,
        out: &mut [S::Out],
        scratches: &mut [ThreadScratch],
    ) {
        let threads = scratches.len();
        let at = blocks.start + blocks.len() * (threads / 2) / threads;
        if threads < 2 || at == blocks.start {
            let scratch = &mut scratches[0];
            return with_gemm!(self.weights.isa, g => self.run_blocks(g, stage, blocks, out, scratch), amx => {
                self.run_blocks(amx.vnni(), stage, blocks, out, scratch)
            });
        }
        let (first, second) = out.split_at_mut(self.offset(at) - self.offset(blocks.start));
        let (first_scratches, second_scratches) = scratches.split_at_mut(threads / 2);
        join(
            || self.fork(stage, blocks.start..at, first, first_scratches),
            || self.fork(stage, at..blocks.end, second, second_scratches),
        );
    }

    /// Returns the number of image columns that a number of adjacent outputs read.
    fn columns(&self, outputs: usize) -> usize {
        let Placed { kernel, strides, dilations, .. } = self.window;
        (outputs - 1) * strides[1] + (kernel[1] - 1) * dilations[1] + 1
    }

    /// Returns the output columns and the channels of a tile.
    fn tile_size(&self) -> (usize, usize) {
        let (width, channels) = (self.window.output[1], self.weights.outputs);
        let chunk = if channels <= MAX_JOINT_CHANNELS { channels.next_multiple_of(CHANNELS) } else { CHANNEL_BLOCK };
        let fit = TILE_BYTES / (4 * self.weights.row_groups * chunk);
        if self.columns(width) > fit {
            // A multiple of four, because micro-kernels compute four outputs together.
            let outputs = fit.saturating_sub(self.columns(1)) / self.window.strides[1] + 1;
            return (outputs.next_multiple_of(4).min(width), chunk);
        }
        (width, fit / self.columns(width) * chunk)
    }

    fn run_blocks<G: Gemm, S: Stage>(
        &self,
        g: G,
        stage: S,
        blocks: Range<usize>,
        out: &mut [S::Out],
        scratch: &mut ThreadScratch,
    ) {
        let DepthwiseWeights { outputs, block_rows, .. } = *self.weights;
        let [height, width] = self.window.output;
        let first = self.offset(blocks.start);
        let (tile_columns, tile_channels) = self.tile_size();
        for at in blocks {
            let (image, row) = self.place(at);
            let rows = block_rows.min(height - row);
            let from = self.offset(at) - first;
            let out = &mut out[from..from + rows * width * outputs];
            for x in (0..width).step_by(tile_columns) {
                for channel in (0..outputs).step_by(tile_channels) {
                    let xs = x..width.min(x + tile_columns);
                    let channels = channel..outputs.min(channel + tile_channels);
                    self.tile(g, stage, Tile { image, row, rows, xs, channels }, out, scratch);
                }
            }
        }
    }

    /// Interleaves the rows of a tile and computes its outputs, into the output rows of its row block.
    fn tile<G: Gemm, S: Stage>(&self, g: G, stage: S, tile: Tile, out: &mut [S::Out], scratch: &mut ThreadScratch) {
        let ThreadScratch { interleaved, offsets } = scratch;
        let DepthwiseWeights { outputs: stride, block_rows, row_groups, ref steps, .. } = *self.weights;
        let (columns, blocks) = (self.columns(tile.xs.len()), tile.vectors());
        let len = row_groups * columns * blocks;
        interleaved.resize(len.max(interleaved.len()), [0; 64]);
        let vectors = &mut interleaved[..len];
        self.interleave_rows(g.vector(), &tile, columns, vectors);
        offsets.clear();
        let dilation = self.window.dilations[1];
        offsets.extend(steps.iter().map(|&(group, kx)| (group * columns + kx * dilation) * blocks));
        let (first, per_block) = (tile.channels.start, block_rows * offsets.len());
        let dot4 = Dot4 {
            rows: tile.rows,
            outputs: tile.xs.len(),
            vectors,
            step: self.window.strides[1] * blocks,
            offsets,
            weights: &self.weights.vectors[first / CHANNELS * per_block..][..blocks * per_block],
            start: &self.start[first..].as_chunks().0[..blocks],
        };
        let [height, row_pixels] = self.window.output;
        let row = (tile.image * height + tile.row) * row_pixels + tile.xs.start;
        let out = &mut out[tile.xs.start * stride + first..];
        let out = OutTile { row, col: first, width: tile.channels.len(), out, stride };
        Dot4Call { g, dot4, stage, out, row_pixels }.run();
    }

    /// Interleaves the image rows of a tile in groups of four.
    fn interleave_rows<V: Vector>(&self, v: V, tile: &Tile, columns: usize, interleaved: &mut [Vector64]) {
        let Placed { strides, dilations, before, image: [height, width], .. } = self.window;
        let (multiplier, vectors_per_pixel) = (self.weights.multiplier, tile.vectors());
        let pixel = self.weights.outputs / multiplier;
        // The columns of the tile that fall inside the image, and the first image column.
        let left = tile.xs.start * strides[1];
        let inner = before[1].saturating_sub(left).min(columns)..(before[1] + width).saturating_sub(left).min(columns);
        let from = (left + inner.start).saturating_sub(before[1]).min(width);
        for (group, vectors) in interleaved.chunks_exact_mut(columns * vectors_per_pixel).enumerate() {
            let rows: [&[u8]; 4] = core::array::from_fn(|i| {
                let y = (tile.row * strides[0] + (4 * group + i) * dilations[0]).wrapping_sub(before[0]);
                let start = (tile.image * height + y.min(height)) * width * pixel;
                let row = if y < height { &self.codes[start..start + width * pixel] } else { self.padding_row };
                &row[from * pixel..]
            });
            vectors[..inner.start * vectors_per_pixel].fill([self.zero; 64]);
            vectors[inner.end * vectors_per_pixel..].fill([self.zero; 64]);
            let sign_offset = self.sign_offset;
            let vectors = &mut vectors[inner.start * vectors_per_pixel..inner.end * vectors_per_pixel];
            if multiplier == 1 && !inner.is_empty() {
                let rows = rows.map(|row| &row[tile.channels.start..]);
                let channels = tile.channels.len();
                // Contiguous pixels are interleaved as one pixel.
                let joined = channels == pixel && pixel.is_multiple_of(CHANNELS);
                let channels = if joined { channels * inner.len() } else { channels };
                v.run(Interleave4 { v, rows, sign_xor: sign_offset, pixel, channels, vectors });
                continue;
            }
            for (x, vectors) in vectors.chunks_exact_mut(vectors_per_pixel).enumerate() {
                for (group, output) in
                    vectors.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(tile.channels.clone())
                {
                    *group = rows.map(|row| row[x * pixel + output / multiplier] ^ sign_offset);
                }
            }
        }
    }
}
