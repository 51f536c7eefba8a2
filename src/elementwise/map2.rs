//! Binary elementwise operators on codes with broadcasting: `out = op(a, b)`.
//!
//! Axes that are contiguous in all three tensors are merged into one. The last two of the remaining axes are the rows
//! and columns of a loop over chunks. A chunk is several whole rows, so that short rows fill vector registers too, or
//! part of a long row. An operand that broadcasts within a chunk is expanded into a buffer, which is reused for the
//! next chunk where the codes are the same. Only the evaluation of a chunk is compiled for each operator.

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, Dimension};

use super::map::padded;
use crate::affine::BinaryOp;
use crate::element::Code;
use crate::error::{Error, Result};
use crate::granularity::sort_by_stride;
use crate::simd::{self, Task};
use crate::threads;

/// Codes per chunk.
const CHUNK: usize = 1024;
/// Codes per call of the vectorized loop.
const BLOCK: usize = 64;

/// Evaluates an operator: `out[i] = op(a[i], b[i])`.
type Eval<'a, T> = &'a (dyn Fn(&[T], &[T], &mut [T]) + Sync);

/// Computes `out = op(a, b)` with both operands broadcast to the shape of `out`.
pub(crate) fn map2<T: Code, D: Dimension>(
    operands: [&ArrayRef<T, D>; 2],
    out: &mut ArrayRef<T, D>,
    op: impl BinaryOp,
) -> Result<()> {
    broadcast(operands, out, &|a, b, out| simd::run(Map2 { op, a, b, out }))
}

fn broadcast<T: Code, D: Dimension>(
    [a, b]: [&ArrayRef<T, D>; 2],
    out: &mut ArrayRef<T, D>,
    eval: Eval<'_, T>,
) -> Result<()> {
    if a.shape() == out.shape()
        && b.shape() == out.shape()
        && !out.is_empty()
        && let (Some(a), Some(b), Some(out)) = (a.as_slice(), b.as_slice(), out.as_slice_mut())
    {
        parallel(eval, [a, b], &[Axis { len: out.len(), strides: [1, 1] }], out);
        return Ok(());
    }
    let wide_a =
        a.broadcast(out.raw_dim()).ok_or_else(|| Error::shape("a, broadcast to the output", out.shape(), a.shape()))?;
    let wide_b =
        b.broadcast(out.raw_dim()).ok_or_else(|| Error::shape("b, broadcast to the output", out.shape(), b.shape()))?;
    if out.is_empty() {
        return Ok(());
    }
    let axes = merged(out.shape(), out.strides(), [wide_a.strides(), wide_b.strides()]);
    if let (Some(axes), Some(a), Some(b)) = (axes, a.as_slice_memory_order(), b.as_slice_memory_order())
        && let Some(out) = out.as_slice_memory_order_mut()
    {
        parallel(eval, [a, b], &axes, out);
        return Ok(());
    }
    // Tensors with gaps or negative strides are copied.
    let mut codes = Array::from_elem(out.raw_dim(), T::default());
    broadcast([&a.as_standard_layout(), &b.as_standard_layout()], &mut codes, eval)?;
    out.assign(&codes);
    Ok(())
}

/// An axis of the output, with the strides of both operands: 0 where an operand broadcasts.
#[derive(Debug, Clone, Copy)]
struct Axis {
    len: usize,
    strides: [usize; 2],
}

/// Sorts the axes by the strides of the output and merges contiguous ones. Returns `None` for negative strides.
fn merged(shape: &[usize], out: &[isize], [a, b]: [&[isize]; 2]) -> Option<Vec<Axis>> {
    let mut order = alloc::vec![0; shape.len()];
    sort_by_stride(out, &mut order);
    let mut merged: Vec<Axis> = Vec::with_capacity(shape.len());
    for i in order.into_iter().filter(|&i| shape[i] != 1) {
        let stride = |strides: &[isize]| usize::try_from(strides[i]).ok();
        let (_, axis) = (stride(out)?, Axis { len: shape[i], strides: [stride(a)?, stride(b)?] });
        match merged.last_mut() {
            Some(last) if last.strides == axis.strides.map(|stride| stride * axis.len) => {
                *last = Axis { len: last.len * axis.len, ..axis };
            }
            _ => merged.push(axis),
        }
    }
    Some(merged)
}

/// Splits the first axis over threads if the work is large enough.
fn parallel<T: Code>(eval: Eval<'_, T>, operands: [&[T]; 2], axes: &[Axis], out: &mut [T]) {
    /// Cost of an element in multiply-accumulates. With more, 200,000 elements took longer on two threads than on one.
    const COST: usize = 8;
    let parts = threads::worth(out.len().saturating_mul(COST));
    let [first, ..] = axes else { return each_chunk(eval, operands, axes, out) };
    if parts == 1 {
        return each_chunk(eval, operands, axes, out);
    }
    let row_len = out.len() / first.len;
    threads::each_part(out, row_len, &mut alloc::vec![(); parts], &|row, out, ()| {
        let mut axes = axes.to_vec();
        axes[0].len = out.len() / row_len;
        let operands = [0, 1].map(|i| &operands[i][row * axes[0].strides[i]..]);
        each_chunk(eval, operands, &axes, out);
    });
}

/// Evaluates the operator chunk by chunk, for a contiguous output with these axes.
fn each_chunk<T: Code>(eval: Eval<'_, T>, [a, b]: [&[T]; 2], axes: &[Axis], out: &mut [T]) {
    let one = Axis { len: 1, strides: [0, 0] };
    let (outer, rows, cols) = match *axes {
        [] => (&[][..], one, one),
        [cols] => (&[][..], one, cols),
        [ref outer @ .., rows, cols] => (outer, rows, cols),
    };
    let (tall, wide) = chunk_size(rows, cols);
    let [mut a, mut b] = [(a, 0), (b, 1)].map(|(codes, i)| {
        let (row_stride, stride) = (rows.strides[i], cols.strides[i]);
        let contiguous = stride == 1 && (tall == 1 || row_stride == cols.len);
        Operand { codes, row_stride, stride, contiguous, buffered: None, buffer: [T::default(); CHUNK + BLOCK] }
    });
    for (block, out) in out.chunks_mut(rows.len * cols.len).enumerate() {
        let (mut block, mut at) = (block, [0, 0]);
        for axis in outer.iter().rev() {
            let index = block % axis.len;
            block /= axis.len;
            at = [at[0] + index * axis.strides[0], at[1] + index * axis.strides[1]];
        }
        for (i, out) in out.chunks_mut(tall * cols.len).enumerate() {
            for (j, out) in out.chunks_mut(tall * wide).enumerate() {
                let a = a.chunk(at[0] + i * tall * rows.strides[0] + j * wide * cols.strides[0], wide, out.len());
                let b = b.chunk(at[1] + i * tall * rows.strides[1] + j * wide * cols.strides[1], wide, out.len());
                eval(a, b, out);
            }
        }
    }
}

/// Returns the rows and columns of a chunk: several whole rows, or part of one.
fn chunk_size(rows: Axis, cols: Axis) -> (usize, usize) {
    if cols.len > CHUNK {
        return (1, if cols.strides == [1, 1] { cols.len } else { CHUNK });
    }
    // Rows that together are a multiple of the block, where that many fit.
    let registers = BLOCK >> cols.len.trailing_zeros().min(BLOCK.trailing_zeros());
    let tall = (CHUNK / cols.len).min(rows.len);
    (if tall > registers { tall - tall % registers } else { tall }, cols.len)
}

/// One operand, expanded chunk by chunk.
struct Operand<'a, T> {
    codes: &'a [T],
    row_stride: usize,
    stride: usize,
    /// The codes of a chunk are contiguous, so no buffer is needed.
    contiguous: bool,
    /// Start of the chunk in the buffer. A later chunk with the same start is not longer.
    buffered: Option<usize>,
    buffer: [T; CHUNK + BLOCK],
}

impl<T: Code> Operand<'_, T> {
    /// Returns `len` codes that start at index `at`, in rows of `wide`.
    fn chunk(&mut self, at: usize, wide: usize, len: usize) -> &[T] {
        if self.contiguous {
            return &self.codes[at..at + len];
        }
        if self.buffered != Some(at) {
            self.buffered = Some(at);
            let (codes, row_stride, stride) = (&self.codes[at..], self.row_stride, self.stride);
            simd::run(Expand { codes, row_stride, stride, buffer: &mut self.buffer, wide, len });
        }
        &self.buffer[..len]
    }
}

/// Expands a chunk of an operand into a buffer.
struct Expand<'a, T> {
    codes: &'a [T],
    row_stride: usize,
    stride: usize,
    buffer: &'a mut [T; CHUNK + BLOCK],
    wide: usize,
    len: usize,
}

impl<T: Code> Task for Expand<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { codes, row_stride, stride, buffer, wide, len } = self;
        if stride == 0 {
            let (mut start, mut from) = (0, 0);
            while start < len {
                let code = codes[from];
                // Writes past the end of a row are overwritten by the next row, or fall into the spare block.
                for first in (start..len.min(start + wide)).step_by(BLOCK) {
                    buffer[first..first + BLOCK].copy_from_slice(&[code; BLOCK]);
                }
                (start, from) = (start + wide, from + row_stride);
            }
        } else if (row_stride, stride) == (0, 1) {
            let mut done = wide.min(len);
            buffer[..done].copy_from_slice(&codes[..done]);
            while done < len {
                let more = done.min(len - done);
                buffer.copy_within(..more, done);
                done += more;
            }
        } else {
            for (row, row_buffer) in buffer[..len].chunks_mut(wide).enumerate() {
                let codes = codes[row * row_stride..].iter().step_by(stride);
                row_buffer.iter_mut().zip(codes).for_each(|(to, &code)| *to = code);
            }
        }
    }
}

/// The loop over contiguous codes, in blocks of [`BLOCK`].
struct Map2<'a, T, F> {
    op: F,
    a: &'a [T],
    b: &'a [T],
    out: &'a mut [T],
}

impl<T: Code, F: BinaryOp> Task for Map2<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { op, a, b, out } = self;
        let len = out.len();
        let short = len < BLOCK;
        let rest = if short { len } else { 0 };
        let (a_short, b_short, mut out_short) =
            (padded::<T, BLOCK>(&a[..rest]), padded::<T, BLOCK>(&b[..rest]), [T::default(); BLOCK]);
        let (a, b, to) = if short { (&a_short[..], &b_short[..], &mut out_short[..]) } else { (a, b, &mut *out) };
        let last = to.len() - BLOCK;
        for first in (0..to.len()).step_by(BLOCK) {
            // The last block overlaps the one before it: some outputs are computed twice.
            let first = first.min(last);
            let (a, b) = (a[first..].first_chunk(), b[first..].first_chunk());
            if let (Some(&a), Some(&b), Some(to)) = (a, b, to[first..].first_chunk_mut()) {
                *to = eval_block(op, a, b);
            }
        }
        if short {
            out.copy_from_slice(&out_short[..len]);
        }
    }
}

#[inline(always)]
fn eval_block<T: Code, F: BinaryOp>(op: F, a: [T; BLOCK], b: [T; BLOCK]) -> [T; BLOCK] {
    let mut codes = [T::default(); BLOCK];
    for i in 0..BLOCK {
        codes[i] = T::from_i32(op.code(a[i].to_i32(), b[i].to_i32()));
    }
    codes
}
