//! A formula of two codes over two tensors that broadcast to the shape of a third.
//!
//! Axes that follow one another in the memory of all three are one axis. Of what remains, the last two are rows and
//! columns. They are evaluated in pieces of whole rows, or of a part of one, so that short rows fill registers as well;
//! a side that broadcasts there is repeated into a buffer, once for all pieces if that will do.

use alloc::vec::Vec;

use ndarray::{ArrayRef, ArrayView1, ArrayViewMut1, Dimension, Zip};

use crate::affine::BinaryOp;
use crate::arch::{self, Task};
use crate::error::{Error, Result};
use crate::gemm::Int8;
use crate::threads;

/// Codes that pass through a buffer at a time.
const PIECE: usize = 1024;
/// Codes that are computed together.
const LANES: usize = 64;

/// An axis of the output, and how far apart its elements are on either side: 0 where that side broadcasts.
#[derive(Debug, Clone, Copy)]
struct Axis {
    len: usize,
    steps: [usize; 2],
}

/// `out = formula(a, b)`, both sides broadcast to the shape of `out`.
pub(super) fn for_each_pair<T: Int8, D: Dimension>(
    [a, b]: [&ArrayRef<T, D>; 2],
    out: &mut ArrayRef<T, D>,
    formula: impl BinaryOp,
) -> Result<()> {
    if a.shape() == out.shape()
        && b.shape() == out.shape()
        && let (Some(a), Some(b), Some(out)) = (a.as_slice(), b.as_slice(), out.as_slice_mut())
    {
        split(formula, [a, b], &[Axis { len: out.len(), steps: [1, 1] }], out);
        return Ok(());
    }
    let wide_a = a.broadcast(out.raw_dim()).ok_or_else(|| Error::shape("left side", out.shape(), a.shape()))?;
    let wide_b = b.broadcast(out.raw_dim()).ok_or_else(|| Error::shape("right side", out.shape(), b.shape()))?;
    let axes = merged(out.shape(), out.strides(), [wide_a.strides(), wide_b.strides()]);
    if let (Some(axes), Some(a), Some(b)) = (axes, a.as_slice_memory_order(), b.as_slice_memory_order())
        && let Some(out) = out.as_slice_memory_order_mut()
    {
        split(formula, [a, b], &axes, out);
        return Ok(());
    }
    let rows = Zip::from(wide_a.rows()).and(wide_b.rows()).and(out.rows_mut());
    rows.for_each(|a, b, out| row_of_pairs(a, b, out, formula));
    Ok(())
}

/// The axes in the order of the output's memory, as few as they can be. None if one runs backwards.
fn merged(shape: &[usize], out: &[isize], [a, b]: [&[isize]; 2]) -> Option<Vec<Axis>> {
    let mut axes = Vec::with_capacity(shape.len());
    for (i, &len) in shape.iter().enumerate().filter(|(_, len)| **len != 1) {
        let step = |strides: &[isize]| usize::try_from(strides[i]).ok();
        axes.push((step(out)?, Axis { len, steps: [step(a)?, step(b)?] }));
    }
    axes.sort_by_key(|&(step, _)| core::cmp::Reverse(step));
    let mut merged: Vec<Axis> = Vec::with_capacity(axes.len());
    for (_, axis) in axes {
        match merged.last_mut() {
            Some(last) if last.steps == axis.steps.map(|step| step * axis.len) => {
                *last = Axis { len: last.len * axis.len, ..axis };
            }
            _ => merged.push(axis),
        }
    }
    Some(merged)
}

/// In parts for threads if it is worth it.
fn split<T: Int8>(formula: impl BinaryOp, sides: [&[T]; 2], axes: &[Axis], out: &mut [T]) {
    /// One element counts as so many products of codes: by more, 200 000 took longer on two threads than on one.
    const PRODUCTS: usize = 8;
    let parts = threads::worth(out.len().saturating_mul(PRODUCTS));
    let [first, ..] = axes else { return arch::run(Pairs { formula, sides, axes, out }) };
    if parts == 1 {
        return arch::run(Pairs { formula, sides, axes, out });
    }
    let row_len = out.len() / first.len;
    threads::each_part(out, row_len, &mut alloc::vec![(); parts], &|row, out, ()| {
        let mut axes = axes.to_vec();
        axes[0].len = out.len() / row_len;
        let sides = [0, 1].map(|side| &sides[side][row * axes[0].steps[side]..]);
        arch::run(Pairs { formula, sides, axes: &axes, out });
    });
}

/// One row, through buffers where it is not contiguous.
fn row_of_pairs<T: Int8>(
    a: ArrayView1<'_, T>,
    b: ArrayView1<'_, T>,
    mut out: ArrayViewMut1<'_, T>,
    formula: impl BinaryOp,
) {
    const PIECE: usize = 256;
    let run = |a: &[T], b: &[T], out: &mut [T]| {
        arch::run(Pairs { formula, sides: [a, b], axes: &[Axis { len: out.len(), steps: [1, 1] }], out });
    };
    if let (Some(a), Some(b), Some(out)) = (a.as_slice(), b.as_slice(), out.as_slice_mut()) {
        return run(a, b, out);
    }
    let (mut left, mut right, mut codes) = ([T::default(); PIECE], [T::default(); PIECE], [T::default(); PIECE]);
    for first in (0..out.len()).step_by(PIECE) {
        let len = PIECE.min(out.len() - first);
        let piece = ndarray::s![first..first + len];
        left.iter_mut().zip(a.slice(piece)).for_each(|(to, &code)| *to = code);
        right.iter_mut().zip(b.slice(piece)).for_each(|(to, &code)| *to = code);
        run(&left[..len], &right[..len], &mut codes[..len]);
        out.slice_mut(piece).iter_mut().zip(&codes).for_each(|(to, &code)| *to = code);
    }
}

/// All elements of an output without gaps, which has these axes.
struct Pairs<'a, T, F> {
    formula: F,
    sides: [&'a [T]; 2],
    axes: &'a [Axis],
    out: &'a mut [T],
}

impl<T: Int8, F: BinaryOp> Task for Pairs<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { formula, sides: [a, b], axes, out } = self;
        let one = Axis { len: 1, steps: [0, 0] };
        let (outer, rows, cols) = match *axes {
            [] => (&[][..], one, one),
            [cols] => (&[][..], one, cols),
            [ref outer @ .., rows, cols] => (outer, rows, cols),
        };
        if out.is_empty() {
            return;
        }
        let (tall, wide) = piece_size(rows, cols);
        let [mut a, mut b] = [(a, 0), (b, 1)].map(|(codes, side)| {
            let (row_step, step) = (rows.steps[side], cols.steps[side]);
            let in_place = step == 1 && (tall == 1 || row_step == cols.len);
            Side { codes, row_step, step, in_place, held: None, buffer: [T::default(); PIECE + LANES] }
        });
        for (block, out) in out.chunks_mut(rows.len * cols.len).enumerate() {
            let (mut block, mut at) = (block, [0, 0]);
            for axis in outer.iter().rev() {
                let index = block % axis.len;
                block /= axis.len;
                at = [at[0] + index * axis.steps[0], at[1] + index * axis.steps[1]];
            }
            for (i, out) in out.chunks_mut(tall * cols.len).enumerate() {
                for (j, out) in out.chunks_mut(tall * wide).enumerate() {
                    let a = a.piece(at[0] + i * tall * rows.steps[0] + j * wide * cols.steps[0], wide, out.len());
                    let b = b.piece(at[1] + i * tall * rows.steps[1] + j * wide * cols.steps[1], wide, out.len());
                    evaluate(formula, a, b, out);
                }
            }
        }
    }
}

/// The rows and columns of a piece: whole rows, or a part of one.
#[inline(always)]
fn piece_size(rows: Axis, cols: Axis) -> (usize, usize) {
    if cols.len > PIECE {
        return (1, if cols.steps == [1, 1] { cols.len } else { PIECE });
    }
    // Of whole registers, if so many rows fit.
    let registers = LANES >> cols.len.trailing_zeros().min(LANES.trailing_zeros());
    let tall = (PIECE / cols.len).min(rows.len);
    (if tall > registers { tall - tall % registers } else { tall }, cols.len)
}

/// The codes of one side for piece after piece.
struct Side<'a, T> {
    codes: &'a [T],
    row_step: usize,
    step: usize,
    /// Whether the codes of a piece follow one another.
    in_place: bool,
    /// The place of the piece that is in the buffer. Of two pieces at one place the second is no longer.
    held: Option<usize>,
    buffer: [T; PIECE + LANES],
}

impl<T: Int8> Side<'_, T> {
    /// `len` codes from `at` on, in rows of `wide`.
    #[inline(always)]
    fn piece(&mut self, at: usize, wide: usize, len: usize) -> &[T] {
        if self.in_place {
            return &self.codes[at..at + len];
        }
        if self.held != Some(at) {
            self.held = Some(at);
            self.fill(at, wide, len);
        }
        &self.buffer[..len]
    }

    #[inline(always)]
    fn fill(&mut self, at: usize, wide: usize, len: usize) {
        let (codes, buffer) = (&self.codes[at..], &mut self.buffer);
        if self.step == 0 {
            let (mut start, mut from) = (0, 0);
            while start < len {
                let code = codes[from];
                // Beyond the end of a row comes what is filled next, or nothing.
                for first in (start..len.min(start + wide)).step_by(LANES) {
                    buffer[first..first + LANES].copy_from_slice(&[code; LANES]);
                }
                (start, from) = (start + wide, from + self.row_step);
            }
        } else if (self.row_step, self.step) == (0, 1) {
            let mut done = wide.min(len);
            buffer[..done].copy_from_slice(&codes[..done]);
            while done < len {
                let more = done.min(len - done);
                buffer.copy_within(..more, done);
                done += more;
            }
        } else {
            for (row, row_buffer) in buffer[..len].chunks_mut(wide).enumerate() {
                let codes = codes[row * self.row_step..].iter().step_by(self.step);
                row_buffer.iter_mut().zip(codes).for_each(|(to, &code)| *to = code);
            }
        }
    }
}

/// `out = formula(a, b)` for as many codes each.
#[inline(always)]
fn evaluate<T: Int8, F: BinaryOp>(formula: F, a: &[T], b: &[T], out: &mut [T]) {
    let len = out.len();
    let Some(last) = len.checked_sub(LANES) else {
        let (mut left, mut right) = ([T::default(); LANES], [T::default(); LANES]);
        left[..len].copy_from_slice(&a[..len]);
        right[..len].copy_from_slice(&b[..len]);
        out.copy_from_slice(&lanes(formula, &left, &right)[..len]);
        return;
    };
    for first in (0..len).step_by(LANES) {
        // What does not fill registers is computed with what comes before it, again.
        let first = first.min(last);
        let (a, b) = (a[first..].first_chunk(), b[first..].first_chunk());
        if let (Some(a), Some(b), Some(out)) = (a, b, out[first..].first_chunk_mut()) {
            *out = lanes(formula, a, b);
        }
    }
}

#[inline(always)]
fn lanes<T: Int8, F: BinaryOp>(formula: F, &a: &[T; LANES], &b: &[T; LANES]) -> [T; LANES] {
    let mut codes = [T::default(); LANES];
    for i in 0..LANES {
        codes[i] = T::from_i32(formula.code(a[i].to_i32(), b[i].to_i32()));
    }
    codes
}
