//! Packed signs of weights, and the driver of their products.

use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{ArrayRef1, ArrayView2, Axis};

use crate::affine::dequantize_sum;
use crate::binary::WORD;
use crate::error::{Result, ValueError};
use crate::gemm::{Aligned, Workspace};
use crate::ops::kernel::resized;
use crate::ops::output_stage::{check_bias, check_channels};
use crate::simd::{COLUMNS, CountDifferent, Isa, with_vector};
use crate::threads;

/// The signs of weights in panels of [`COLUMNS`] outputs, with the scales and biases of the outputs.
#[derive(Debug, Clone)]
pub(crate) struct SignWeights {
    /// `[panels][words][COLUMNS]`.
    lines: Aligned<i32>,
    /// Words of a row.
    words: usize,
    /// Values of a row.
    depth: usize,
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
    thresholds: Vec<Threshold>,
}

/// The outputs of an accumulator below 0: `(dot < first) != flipped`.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    first: i32,
    flipped: bool,
}

impl SignWeights {
    /// Packs rows of words, one for each output.
    pub(crate) fn new(
        rows: ArrayView2<'_, u32>,
        depth: usize,
        scales: &ArrayRef1<f32>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<Self> {
        let (outputs, words) = rows.dim();
        check_depth(depth)?;
        check_channels("scales", scales, outputs)?;
        check_bias(bias, outputs)?;
        let mut lines = Aligned::zeroed(outputs.div_ceil(COLUMNS) * words * COLUMNS);
        for ((output, k), &word) in rows.indexed_iter() {
            lines[(output / COLUMNS * words + k) * COLUMNS + output % COLUMNS] = word as i32;
        }
        let (scales, bias) = (scales.to_vec(), bias.map(|bias| bias.to_vec()));
        let mut weights = Self { lines, words, depth, scales, bias, thresholds: Vec::new() };
        weights.thresholds = (0..outputs).map(|output| weights.threshold(output)).collect();
        Ok(weights)
    }

    pub(crate) fn outputs(&self) -> usize {
        self.scales.len()
    }

    /// Words of a row.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    pub(crate) fn size_in_bytes(&self) -> usize {
        let floats = self.scales.len() + self.bias.as_ref().map_or(0, Vec::len);
        size_of_val(&*self.lines) + size_of::<f32>() * floats + size_of_val(self.thresholds.as_slice())
    }

    /// Returns the output for a sum of products of signs.
    #[inline(always)]
    fn output(&self, output: usize, dot: i32) -> f32 {
        let bias = self.bias.as_ref().map(|bias| bias[output]);
        dequantize_sum(dot, self.scales[output], bias, None)
    }

    /// Finds where an output changes its sign. Conversion, product and sum round monotonically, so there is one place at most.
    fn threshold(&self, output: usize) -> Threshold {
        let depth = self.depth as i32;
        let flipped = self.scales[output] < 0.0;
        let (mut first, mut end) = (-depth, depth + 1);
        while first < end {
            let middle = first + (end - first) / 2;
            if (self.output(output, middle) < 0.0) == flipped { end = middle } else { first = middle + 1 }
        }
        Threshold { first, flipped }
    }

    /// Multiplies all rows, split over threads, and writes outputs row by row.
    pub(crate) fn multiply<O: Output>(&self, isa: Isa, x: &impl SignRows, out: &mut [O], workspace: &mut Workspace) {
        let row_len = O::row_len(self.outputs());
        let rows = out.len() / row_len.max(1);
        // Eight products of signs take no longer than one of bytes.
        let macs = rows.saturating_mul(self.outputs()).saturating_mul(self.depth);
        let threads = threads::worth(macs / 8).min(rows.max(1));
        let mut scratch = workspace.input.take::<Vec<Scratch>>();
        scratch.resize_with(threads, Scratch::default);
        threads::each_part(out, row_len, &mut scratch, &|first, out, scratch: &mut Scratch| {
            let (blocks, len) = (out.chunks_mut(BLOCK * row_len.max(1)), BLOCK);
            for (i, out) in blocks.enumerate() {
                self.multiply_block(isa, x, first + i * len, out, row_len, scratch);
            }
        });
        workspace.input.put(scratch);
    }

    fn multiply_block<O: Output>(
        &self,
        isa: Isa,
        x: &impl SignRows,
        first: usize,
        out: &mut [O],
        row_len: usize,
        scratch: &mut Scratch,
    ) {
        let rows = out.len() / row_len;
        let bits = x.rows(first..first + rows, &mut scratch.rows);
        let counts = &mut resized(&mut scratch.counts, rows)[..rows];
        let lines = self.lines.as_chunks::<COLUMNS>().0;
        for panel in 0..self.outputs().div_ceil(COLUMNS) {
            let lines = &lines[panel * self.words..][..self.words];
            with_vector!(isa, v => crate::simd::Target::run(v, CountDifferent { v, rows: bits, panel: lines, out: &mut *counts }));
            let first_col = panel * COLUMNS;
            let width = COLUMNS.min(self.outputs() - first_col);
            for (i, (counts, out)) in counts.iter_mut().zip(out.chunks_exact_mut(row_len)).enumerate() {
                for count in counts.iter_mut() {
                    *count = self.depth as i32 - 2 * *count;
                }
                x.correct(first + i, first_col, &mut counts[..width]);
                O::store(self, first_col, &counts[..width], out);
            }
        }
    }
}

/// Rows of a block, whose counts stay in L1.
const BLOCK: usize = 32;

#[derive(Debug, Default)]
struct Scratch {
    rows: Vec<u32>,
    counts: Vec<[i32; COLUMNS]>,
}

/// The rows of a product.
pub(crate) trait SignRows: Sync {
    /// Returns the words of rows, in memory or in the scratch.
    fn rows<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<u32>) -> &'a [u32];

    /// Corrects the sums of a row from a column on.
    fn correct(&self, _row: usize, _first_col: usize, _dots: &mut [i32]) {}
}

/// An element of outputs: an `f32`, or a word of signs.
pub(crate) trait Output: Copy + Default + Send {
    /// Elements of a row of outputs.
    fn row_len(outputs: usize) -> usize;

    /// Writes the outputs of a row from a column on.
    fn store(weights: &SignWeights, first_col: usize, dots: &[i32], row: &mut [Self]);
}

impl Output for f32 {
    fn row_len(outputs: usize) -> usize {
        outputs
    }

    #[inline]
    fn store(weights: &SignWeights, first_col: usize, dots: &[i32], row: &mut [f32]) {
        for (j, (y, &dot)) in row[first_col..].iter_mut().zip(dots).enumerate() {
            *y = weights.output(first_col + j, dot);
        }
    }
}

impl Output for u32 {
    fn row_len(outputs: usize) -> usize {
        outputs.div_ceil(WORD)
    }

    #[inline]
    fn store(weights: &SignWeights, first_col: usize, dots: &[i32], row: &mut [u32]) {
        let mut word = 0;
        for (j, (&dot, threshold)) in dots.iter().zip(&weights.thresholds[first_col..]).enumerate() {
            word |= u32::from((dot < threshold.first) != threshold.flipped) << j;
        }
        let (word_of_row, shift) = (first_col / WORD, first_col % WORD);
        // The first panel of a word overwrites what is in memory.
        row[word_of_row] = if shift == 0 { word } else { row[word_of_row] | word << shift };
    }
}

/// Returns an error for a depth at which twice a count could leave `i32`.
pub(crate) fn check_depth(depth: usize) -> Result<()> {
    let max = i32::MAX as usize / 4;
    if depth > max { Err(ValueError::Depth { max, found: depth }.into()) } else { Ok(()) }
}

/// Returns the mean magnitude of each output, the scale of XNOR-Net.
pub(crate) fn mean_magnitudes<D: ndarray::Dimension>(
    weights: &ndarray::ArrayRef<f32, D>,
) -> Result<ndarray::Array1<f32>> {
    let means = crate::range::mean_magnitudes(weights, crate::granularity::Granularity::per_axis(Axis(0)), |_| None)?;
    Ok(means.iter().map(|&mean| mean as f32).collect())
}
