//! Where the outputs of a tile belong, and the parameters of its columns.

/// Where the outputs of a tile belong, which starts at row and column `at` of the product: those of row `i` to
/// `out[i * stride..][..width]`.
pub(crate) struct TileOut<'a, O> {
    pub(crate) at: (usize, usize),
    pub(crate) width: usize,
    pub(crate) out: &'a mut [O],
    pub(crate) stride: usize,
}

impl<O: Copy> TileOut<'_, O> {
    /// Puts these at column `col` of row `i`: all, or as many as the tile is wide.
    #[inline(always)]
    pub(super) fn put<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, lanes: [O; COLS]) {
        let out = &mut self.out[i * self.stride + col..];
        if WHOLE {
            *out.first_chunk_mut().expect("a whole row") = lanes;
        } else {
            put_some(&mut out[..self.width - col], lanes);
        }
    }
}

/// Puts as many of these as there is room for.
#[inline(always)]
fn put_some<O: Copy, const COLS: usize>(out: &mut [O], lanes: [O; COLS]) {
    // By eights, the last of them over others if need be: a copy of a slice would be a call.
    const STEP: usize = 8;
    let count = out.len().min(COLS);
    let mut done = 0;
    while done < count {
        let at = if count < STEP { 0 } else { done.min(count - STEP) };
        match (out[at..].first_chunk_mut::<STEP>(), lanes[at..].first_chunk()) {
            (Some(out), Some(lanes)) => *out = *lanes,
            _ => out.iter_mut().zip(lanes).for_each(|(out, lane)| *out = lane),
        }
        done += STEP;
    }
}

/// The parameters of some columns from `col` on, of which there is one or one for each; anything for columns beyond, if
/// not `WHOLE`.
#[inline(always)]
pub(super) fn columns<M: Copy, const COLS: usize, const WHOLE: bool>(of: &[M], col: usize) -> [M; COLS] {
    match of {
        &[one] => [one; COLS],
        each if WHOLE => *each[col..].first_chunk().expect("one for each column"),
        each => padded(&each[col..]),
    }
}

/// These, and the first of them for those that are missing.
#[inline(always)]
pub(super) fn padded<M: Copy, const COLS: usize>(some: &[M]) -> [M; COLS] {
    let mut padded = [some[0]; COLS];
    let count = some.len().min(COLS);
    padded[..count].copy_from_slice(&some[..count]);
    padded
}
