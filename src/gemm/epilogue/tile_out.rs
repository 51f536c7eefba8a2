//! The outputs of a tile and the parameters of its columns.

/// A tile of outputs. It starts at row and column `at` of the product; row `i` is `out[i * stride..][..width]`.
pub struct TileOut<'a, O> {
    pub(crate) at: (usize, usize),
    pub(crate) width: usize,
    pub(crate) out: &'a mut [O],
    pub(crate) stride: usize,
}

impl<O: Copy> TileOut<'_, O> {
    /// Stores values at column `col` of row `i`: all if `WHOLE`, otherwise up to the width of the tile.
    #[inline(always)]
    pub(super) fn store<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, values: [O; COLS]) {
        let out = &mut self.out[i * self.stride + col..];
        if WHOLE {
            *out.first_chunk_mut().expect("a whole row") = values;
        } else {
            store_prefix(&mut out[..self.width - col], values);
        }
    }
}

/// Stores the values that fit in `out`.
#[inline(always)]
fn store_prefix<O: Copy, const COLS: usize>(out: &mut [O], values: [O; COLS]) {
    // Chunks of 8, the last one overlapping: a copy of unknown length would be a call to memcpy.
    const STEP: usize = 8;
    let count = out.len().min(COLS);
    let mut done = 0;
    while done < count {
        let at = if count < STEP { 0 } else { done.min(count - STEP) };
        match (out[at..].first_chunk_mut::<STEP>(), values[at..].first_chunk()) {
            (Some(out), Some(values)) => *out = *values,
            _ => out.iter_mut().zip(values).for_each(|(out, value)| *out = value),
        }
        done += STEP;
    }
}

/// Returns the parameters of `COLS` columns from `col` on: the single one for all, or one for each. Columns past the
/// end, if not `WHOLE`, get arbitrary ones.
#[inline(always)]
pub(super) fn columns<M: Copy, const COLS: usize, const WHOLE: bool>(of: &[M], col: usize) -> [M; COLS] {
    match of {
        &[one] => [one; COLS],
        each if WHOLE => *each[col..].first_chunk().expect("one for each column"),
        each => padded(&each[col..]),
    }
}

/// Pads a slice to `COLS` values with its first.
#[inline(always)]
pub(super) fn padded<M: Copy, const COLS: usize>(some: &[M]) -> [M; COLS] {
    let mut padded = [some[0]; COLS];
    let count = some.len().min(COLS);
    padded[..count].copy_from_slice(&some[..count]);
    padded
}
