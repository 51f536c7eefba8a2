//! One tile: from interleaved rows to outputs.

use alloc::vec::Vec;

use super::DepthwiseWeights;
use super::job::{Job, Tile};
use crate::gemm::{Epilogue, StoredAccumulators, TileOut};
use crate::simd::{ByteStage, CHANNELS, Dot4Accumulators, Dot4Input, Dot4Output, Kernel, Task, Vector64, as_bytes_mut};

/// Accumulators of the buffer between dot products and epilogue.
const ACCUMULATORS: usize = 4096;

/// Computes the outputs of a tile.
pub(super) struct TileTask<'a, 'j, E: Epilogue, K> {
    pub(super) job: &'a Job<'j, E>,
    pub(super) kernel: K,
    pub(super) tile: Tile,
    pub(super) interleaved: &'a [Vector64],
    pub(super) offsets: &'a [usize],
    pub(super) acc: &'a mut Vec<i32>,
    /// The output rows of the row block.
    pub(super) out: &'a mut [E::Out],
}

impl<E: Epilogue, K: Kernel> Task for TileTask<'_, '_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { job, kernel, tile, interleaved, offsets, acc, out } = self;
        let DepthwiseWeights { outputs, block_rows, .. } = *job.weights;
        let [height, width] = job.window.output;
        let (vectors, count) = (tile.vectors(), tile.xs.len());
        let (step, steps) = (job.window.strides[1] * vectors, offsets.len());
        let per_block = block_rows * steps;
        let first = tile.channels.start;
        let weights = &job.weights.vectors[first / CHANNELS * per_block..][..vectors * per_block];
        let start = &job.start[first..].as_chunks::<CHANNELS>().0[..vectors];
        let out = &mut out[tile.xs.start * outputs..];
        if K::FUSES_DOT4_REQUANTIZE
            && let (Some(to), Some(bytes)) = (job.to_bytes, as_bytes_mut(out))
        {
            let to = ByteStage { multipliers: &job.factors[first..][..vectors * CHANNELS], ..to };
            let interleaved = Dot4Input { outputs: count, vectors: interleaved, step, offsets };
            let out = Dot4Output {
                bytes: &mut bytes[first..],
                rows: tile.rows,
                channels: tile.channels.len(),
                stride: outputs,
                row_stride: width * outputs,
            };
            return kernel.dot4_requantize(interleaved, weights, start, to, out);
        }
        let stride = vectors * CHANNELS;
        let columns = (ACCUMULATORS / (stride * tile.rows)).max(1);
        let row_stride = columns * stride;
        acc.resize(tile.rows * row_stride, 0);
        for x in (0..count).step_by(columns) {
            let count = columns.min(count - x);
            for (block, start) in start.iter().enumerate() {
                let weights = &weights[block * per_block..][..tile.rows * steps];
                let interleaved =
                    Dot4Input { outputs: count, vectors: &interleaved[x * step + block..], step, offsets };
                let sums = Dot4Accumulators { acc: &mut acc[block * CHANNELS..], stride, row_stride };
                kernel.dot4(interleaved, weights, start, sums);
            }
            for row in 0..tile.rows {
                let pixel = (tile.image * height + tile.row + row) * width + tile.xs.start + x;
                let out = &mut out[(row * width + x) * outputs + first..];
                let sums = StoredAccumulators { kernel, rows: count, acc: &acc[row * row_stride..], stride };
                let width = tile.channels.len();
                job.epilogue.finish(sums, TileOut { at: (pixel, first), width, out, stride: outputs });
            }
        }
    }
}
