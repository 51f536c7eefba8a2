//! Where the outputs of a tile belong, and loops that make whole registers of them.

/// Rows of accumulators, and where their outputs belong: row `i` goes from `acc[i * acc_stride..]` to
/// `out[i * out_stride..]`.
#[doc(hidden)]
pub struct TileRows<'a, O> {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) acc: &'a [i32],
    pub(crate) acc_stride: usize,
    pub(crate) out: &'a mut [O],
    pub(crate) out_stride: usize,
}

/// Where the outputs of a tile belong, which starts at row and column `at` of the product: those of row `i` to
/// `out[i * stride..][..width]`.
#[doc(hidden)]
pub struct TileOut<'a, O> {
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

fn padded<M: Copy, const COLS: usize>(some: &[M]) -> [M; COLS] {
    let mut padded = [some[0]; COLS];
    let count = some.len().min(COLS);
    padded[..count].copy_from_slice(&some[..count]);
    padded
}

/// Lanes that are computed together: so many that the compiler keeps the loop over them, and makes registers of it.
pub(super) const LANES: usize = 32;

/// `out[i] = f(acc[i])`, in whole registers as far as they go.
///
/// A chunk is copied in, computed and copied out: so the compiler need not fear that inputs and outputs overlap.
#[inline(always)]
pub(super) fn map_lanes<O: Copy + Default>(acc: &[i32], out: &mut [O], f: impl Fn(i32) -> O) {
    let ((acc, acc_rest), (out, out_rest)) = (acc.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (out, &acc) in out.iter_mut().zip(acc) {
        let mut lanes = [O::default(); LANES];
        for i in 0..LANES {
            lanes[i] = f(acc[i]);
        }
        *out = lanes;
    }
    out_rest.iter_mut().zip(acc_rest).for_each(|(out, &acc)| *out = f(acc));
}

/// `out[i] = f(acc[i], other[i])`, as [`map_lanes`] does it.
#[inline(always)]
pub(super) fn zip_lanes<M: Copy, O: Copy + Default>(acc: &[i32], other: &[M], out: &mut [O], f: impl Fn(i32, M) -> O) {
    let other = &other[..acc.len()];
    let ((acc, acc_rest), (out, out_rest)) = (acc.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    let (other, other_rest) = other.as_chunks::<LANES>();
    for ((out, &acc), &other) in out.iter_mut().zip(acc).zip(other) {
        let mut lanes = [O::default(); LANES];
        for i in 0..LANES {
            lanes[i] = f(acc[i], other[i]);
        }
        *out = lanes;
    }
    for ((out, &acc), &other) in out_rest.iter_mut().zip(acc_rest).zip(other_rest) {
        *out = f(acc, other);
    }
}
