//! Rows that are quantized on the fly, each group by its own range, and interleaved in blocks for products with weights of
//! few bits.

use alloc::vec::Vec;

use ndarray::ArrayView2;

use crate::affine::Quantizer;
use crate::affine::rounding::Onnx;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::range::Ranges;
use crate::scheme::Scheme;
use crate::simd::{self, Task};
use crate::threads::{self, join};

/// Rows that are multiplied together. A block has as many, and rows that are left are blocks of one.
pub(super) const BLOCK: usize = 4;

/// The scheme of each group: the scale is `max |x| / 127`.
pub(crate) fn input_scheme() -> Scheme<i8> {
    Scheme::symmetric().narrow_range()
}

/// Returns the first row and the number of rows of each block.
pub(super) fn blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let whole = rows / BLOCK * BLOCK;
    (0..whole).step_by(BLOCK).map(|first| (first, BLOCK)).chain((whole..rows).map(|row| (row, 1)))
}

/// The groups of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    /// Values of a group. The last one of a row may have fewer.
    pub(super) len: usize,
    /// The same, padded to whole lines of weights.
    pub(super) padded: usize,
    /// Groups of a row.
    pub(super) count: usize,
}

/// Codes, scales and sums of codes of one block after the other: see [`CodeRows`](crate::simd::CodeRows).
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f32>,
    pub(super) sums: Vec<i32>,
}

/// The part of [`QuantizedRows`] that belongs to some rows.
struct Part<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl QuantizedRows {
    /// Quantizes all rows. A NaN or an infinity is an error.
    pub(super) fn quantize(&mut self, x: ArrayView2<'_, f32>, groups: Groups) -> Result<()> {
        let (rows, len) = (x.nrows(), groups.count * groups.padded);
        self.codes.clear();
        self.codes.resize(rows * len, 0);
        self.scales.resize(rows * groups.count, 0.0);
        self.sums.resize(rows * groups.count, 0);
        let part = Part {
            codes: &mut self.codes,
            scales: &mut self.scales[..rows * groups.count],
            sums: &mut self.sums[..rows * groups.count],
        };
        match quantize_part(x, groups, part, threads::worth(x.len().saturating_mul(MACS_PER_VALUE))) {
            true => Ok(()),
            false => Ranges::of(&x, Granularity::PerTensor).map(drop),
        }
    }
}

/// The cost of quantizing a value in multiply-accumulates of codes.
const MACS_PER_VALUE: usize = 16;

/// Quantizes rows on several threads. Returns whether all values are finite.
fn quantize_part(x: ArrayView2<'_, f32>, groups: Groups, part: Part<'_>, threads: usize) -> bool {
    let blocks_before = x.nrows() / BLOCK * (threads / 2) / threads.max(1);
    if blocks_before > 0 {
        let rows = blocks_before * BLOCK;
        let (first, second) = x.split_at(ndarray::Axis(0), rows);
        let (codes, rest_codes) = part.codes.split_at_mut(rows * groups.count * groups.padded);
        let (scales, rest_scales) = part.scales.split_at_mut(rows * groups.count);
        let (sums, rest_sums) = part.sums.split_at_mut(rows * groups.count);
        let rest = Part { codes: rest_codes, scales: rest_scales, sums: rest_sums };
        let finite = join(
            || quantize_part(first, groups, Part { codes, scales, sums }, threads / 2),
            || quantize_part(second, groups, rest, threads - threads / 2),
        );
        return finite.0 && finite.1;
    }
    let (mut finite, len) = (true, groups.count * groups.padded);
    let mut copy = Vec::new();
    for (first, count) in blocks(x.nrows()) {
        let codes = &mut part.codes[first * len..][..count * len];
        let scales = &mut part.scales[first * groups.count..][..count * groups.count];
        let sums = &mut part.sums[first * groups.count..][..count * groups.count];
        for i in 0..count {
            let row = x.row(first + i);
            let row = match row.to_slice() {
                Some(row) => row,
                None => {
                    copy.clear();
                    copy.extend(&row);
                    &copy
                }
            };
            finite &= match count {
                1 => simd::run(QuantizeRow::<1>::new(row, groups, i, codes, scales, sums)),
                _ => simd::run(QuantizeRow::<BLOCK>::new(row, groups, i, codes, scales, sums)),
            };
        }
    }
    finite
}

/// Quantizes row `i` of a block of `ROWS` rows. Returns whether all values are finite.
struct QuantizeRow<'a, const ROWS: usize> {
    row: &'a [f32],
    groups: Groups,
    i: usize,
    /// Units of four codes.
    units: &'a mut [[[i8; 4]; ROWS]],
    scales: &'a mut [[f32; ROWS]],
    sums: &'a mut [[i32; ROWS]],
}

/// Values that are quantized together.
const CHUNK: usize = 32;

impl<'a, const ROWS: usize> QuantizeRow<'a, ROWS> {
    fn new(
        row: &'a [f32],
        groups: Groups,
        i: usize,
        codes: &'a mut [i8],
        scales: &'a mut [f32],
        sums: &'a mut [i32],
    ) -> Self {
        let units = codes.as_chunks_mut::<4>().0.as_chunks_mut().0;
        Self { row, groups, i, units, scales: scales.as_chunks_mut().0, sums: sums.as_chunks_mut().0 }
    }
}

impl<const ROWS: usize> Task for QuantizeRow<'_, ROWS> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Self { row, groups, i, units, scales, sums } = self;
        let (scheme, mut finite) = (input_scheme(), true);
        let units = units.chunks_exact_mut(groups.padded / 4);
        let parameters = scales.iter_mut().zip(sums);
        for ((x, units), (scale, sum)) in row.chunks(groups.len).zip(units).zip(parameters) {
            // Magnitudes as integers, because the greatest of floats is not that of any order.
            let greatest = x.iter().fold(0, |greatest: u32, x| greatest.max(x.to_bits() & 0x7fff_ffff));
            let magnitude = f32::from_bits(greatest);
            let Ok((chosen, zero_point)) = scheme.choose(-magnitude, magnitude) else {
                finite = false;
                continue;
            };
            let quantizer = Quantizer::<i8, f32, Onnx>::new(chosen, zero_point.into(), scheme.codes());
            let (chunks, rest) = x.as_chunks::<CHUNK>();
            let mut total = 0;
            for (x, units) in chunks.iter().zip(units.chunks_mut(CHUNK / 4)) {
                total += quantize_chunk(&quantizer, x, units, i);
            }
            if !rest.is_empty() {
                let mut padded = [0.0; CHUNK];
                padded[..rest.len()].copy_from_slice(rest);
                total += quantize_chunk(&quantizer, &padded, &mut units[chunks.len() * (CHUNK / 4)..], i);
            }
            (scale[i], sum[i]) = (chosen, total);
        }
        finite
    }
}

/// Quantizes a chunk to the units of row `i`, as many as there are. Returns the sum of the codes.
#[inline(always)]
fn quantize_chunk<const ROWS: usize>(
    quantizer: &Quantizer<i8, f32, Onnx>,
    x: &[f32; CHUNK],
    units: &mut [[[i8; 4]; ROWS]],
    i: usize,
) -> i32 {
    let mut codes = [0; CHUNK];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = quantizer.quantize(x);
    }
    for (units, unit) in units.iter_mut().zip(codes.as_chunks::<4>().0) {
        units[i] = *unit;
    }
    codes.iter().map(|&code| i32::from(code)).sum()
}
