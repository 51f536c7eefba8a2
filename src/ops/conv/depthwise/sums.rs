//! Sums of quads and what becomes of them.

use alloc::vec::Vec;

use super::DepthwiseWeights;
use super::job::{Job, Part};
use crate::arch::{ByteStage, CHANNELS, Dot4Accumulators, Dot4Input, Dot4Output, Kernel, Task, Vector64, as_bytes_mut};
use crate::gemm::{Epilogue, StoredAccumulators, TileOut};

/// The accumulators that are summed at a time where they pass through memory.
const TILE: usize = 4096;

/// The outputs of a part, a few at a time.
pub(super) struct Sums<'a, 'j, E: Epilogue, K> {
    pub(super) job: &'a Job<'j, E>,
    pub(super) kernel: K,
    pub(super) part: Part,
    pub(super) quads: &'a [Vector64],
    pub(super) offsets: &'a [usize],
    pub(super) tile: &'a mut Vec<i32>,
    /// The rows of the band.
    pub(super) out: &'a mut [E::Out],
}

impl<E: Epilogue, K: Kernel> Task for Sums<'_, '_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { job, kernel, part, quads, offsets, tile, out } = self;
        let DepthwiseWeights { outputs, band, .. } = *job.weights;
        let [height, width] = job.window.output;
        let (lines, count) = (part.lines(), part.xs.len());
        let (step, taps) = (job.window.strides[1] * lines, offsets.len());
        let per_block = band * taps;
        let first = part.channels.start;
        let weights = &job.weights.lines[first / CHANNELS * per_block..][..lines * per_block];
        let start = &job.start[first..].as_chunks::<CHANNELS>().0[..lines];
        let out = &mut out[part.xs.start * outputs..];
        if K::FUSES_DOT4_REQUANTIZE
            && let (Some(to), Some(bytes)) = (job.to_bytes, as_bytes_mut(out))
        {
            let to = ByteStage { multipliers: &job.factors[first..][..lines * CHANNELS], ..to };
            let quads = Dot4Input { outputs: count, vectors: quads, step, offsets };
            let out = Dot4Output {
                bytes: &mut bytes[first..],
                rows: part.rows,
                channels: part.channels.len(),
                stride: outputs,
                row_stride: width * outputs,
            };
            return kernel.dot4_requantize(quads, weights, start, to, out);
        }
        let stride = lines * CHANNELS;
        let at_once = (TILE / (stride * part.rows)).max(1);
        let row_stride = at_once * stride;
        tile.resize(part.rows * row_stride, 0);
        for x in (0..count).step_by(at_once) {
            let count = at_once.min(count - x);
            for (block, start) in start.iter().enumerate() {
                let weights = &weights[block * per_block..][..part.rows * taps];
                let quads = Dot4Input { outputs: count, vectors: &quads[x * step + block..], step, offsets };
                let sums = Dot4Accumulators { acc: &mut tile[block * CHANNELS..], stride, row_stride };
                kernel.dot4(quads, weights, start, sums);
            }
            for row in 0..part.rows {
                let pixel = (part.image * height + part.row + row) * width + part.xs.start + x;
                let out = &mut out[(row * width + x) * outputs + first..];
                let sums = StoredAccumulators { kernel, rows: count, acc: &tile[row * row_stride..], stride };
                let width = part.channels.len();
                job.epilogue.finish(sums, TileOut { at: (pixel, first), width, out, stride: outputs });
            }
        }
    }
}
