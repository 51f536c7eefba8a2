//! The formulas over lanes of elements, compiled for the instruction set in use.
//!
//! There is one loop per type of code, type of formulas and rule. What is contiguous and already of these types is worked
//! on in place; other float types, other strides, and parameters that change with every element pass through a small
//! buffer, so that they do not multiply the loops.

mod formulas;
mod loops;

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Zip};

use crate::affine::{ByReciprocal, Codes, Rounding};
use crate::arch;
use crate::element::{Code, Compute, Float};
use formulas::{Dequantize, FakeQuantize, Formula, Formulas, Quantize};
use loops::{Blocks, Each, Same, run};

/// Elements that pass through the buffer at a time.
const PIECE: usize = 128;

/// The parameters of some elements: one pair for all, or one for each `size` of them, the last of which may be fewer.
#[derive(Clone, Copy)]
pub(crate) enum Params<'a, S, Z> {
    Constant(S, Z),
    Each { scales: &'a [S], zero_points: Option<&'a [Z]>, size: usize },
}

/// `codes[i] = clamp(round(x[i] / scale) + zero_point)`.
pub(crate) fn quantize_run<F: Float, S: Float, Z: Code, R: Rounding>(
    x: ArrayView1<'_, F>,
    params: Params<'_, S, Z>,
    range: Codes,
    mut codes: ArrayViewMut1<'_, Z>,
) {
    /// Shorter runs do not repay the preparation.
    const LONG: usize = 512;
    if let (Params::Constant(scale, zero_point), true) = (params, x.len() >= LONG)
        && let (Some(x), Some(y)) = (x.to_slice().and_then(F::as_f32), codes.as_slice_mut())
        && let Some(formula) = ByReciprocal::<Z, R>::new(scale.to_f32(), zero_point.to_i32(), range)
    {
        return same(formula, x, y);
    }
    let formulas = Quantize::<Z, F::Compute, R> { range, types: PhantomData };
    let in_place = (x.to_slice().and_then(F::as_compute), codes.as_slice_mut());
    if let (Some(x), Some(y)) = in_place
        && blocks(formulas, x, params, y)
    {
        return;
    }
    in_pieces(formulas, x, params, codes, widened, stored);
}

/// `y[i] = (codes[i] - zero_point) * scale`, in `f64` if `double`, rounded once to `F`.
pub(crate) fn dequantize_run<F: Float, S: Float, Z: Code>(
    codes: ArrayView1<'_, Z>,
    params: Params<'_, S, Z>,
    double: bool,
    mut y: ArrayViewMut1<'_, F>,
) {
    if double {
        return in_pieces(Dequantize::<Z, f64>(PhantomData), codes, params, y, loaded, |reals, y| {
            each(reals, y, F::from_f64)
        });
    }
    let formulas = Dequantize::<Z, F::Compute>(PhantomData);
    let in_place = (codes.to_slice(), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Some(x), Some(y)) = in_place
        && blocks(formulas, x, params, y)
    {
        return;
    }
    in_pieces(formulas, codes, params, y, loaded, rounded);
}

/// `y[i] = dequantize(quantize(x[i]))`.
pub(crate) fn fake_quantize_run<F: Float, S: Float, Z: Code, R: Rounding>(
    x: ArrayView1<'_, F>,
    params: Params<'_, S, Z>,
    range: Codes,
    mut y: ArrayViewMut1<'_, F>,
) {
    let formulas = FakeQuantize::<Z, F::Compute, R> { range, types: PhantomData };
    let in_place = (x.to_slice().and_then(F::as_compute), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Some(x), Some(y)) = in_place
        && blocks(formulas, x, params, y)
    {
        return;
    }
    in_pieces(formulas, x, params, y, widened, rounded);
}

/// Evaluates a formula in place, large results past the caches.
#[inline]
fn same<F: Formula>(formula: F, x: &[F::In], y: &mut [F::Out]) {
    arch::with_non_temporal(size_of_val(x) + size_of_val(y), |non_temporal| {
        let head = non_temporal.map_or(0, |non_temporal| non_temporal.head(y));
        let ((x_head, x), (y_head, y)) = (x.split_at(head), y.split_at_mut(head));
        if head > 0 {
            run(Same { formula, x: x_head, y: y_head, non_temporal: None });
        }
        run(Same { formula, x, y, non_temporal });
    });
}

/// Evaluates formulas in place, block by block. Returns whether it did: blocks of one element go another way.
fn blocks<S: Float, Z: Code, F: Formulas>(
    formulas: F,
    x: &[<F::Formula as Formula>::In],
    params: Params<'_, S, Z>,
    y: &mut [<F::Formula as Formula>::Out],
) -> bool {
    match params {
        Params::Constant(scale, zero_point) => {
            same(formulas.with(Compute::from_real(scale), zero_point.to_i32()), x, y);
        }
        Params::Each { size: 1, .. } => return false,
        Params::Each { scales, zero_points, size } => {
            let mut table = Table::new();
            let pieces = x.chunks(PIECE * size).zip(y.chunks_mut(PIECE * size));
            for (k, (x, y)) in pieces.enumerate() {
                let (scale, zero_point) = table.fill(scales, zero_points, k * PIECE, x.len().div_ceil(size));
                run(Blocks { formulas, x, y, scale, zero_point, size });
            }
        }
    }
    true
}

/// Parameters of some blocks in the types of formulas.
struct Table<C> {
    scale: [C; PIECE],
    zero_point: [i32; PIECE],
}

impl<C: Compute> Table<C> {
    fn new() -> Self {
        Self { scale: [C::ONE; PIECE], zero_point: [0; PIECE] }
    }

    /// Those of `len` blocks from this one on.
    fn fill<S: Float, Z: Code>(
        &mut self,
        scales: &[S],
        zero_points: Option<&[Z]>,
        first: usize,
        len: usize,
    ) -> (&[C], &[i32]) {
        let (scale, zero_point) = (&mut self.scale[..len], &mut self.zero_point[..len]);
        scale.iter_mut().zip(&scales[first..]).for_each(|(to, &scale)| *to = Compute::from_real(scale));
        if let Some(zero_points) = zero_points {
            zero_point.iter_mut().zip(&zero_points[first..]).for_each(|(to, zero)| *to = zero.to_i32());
        }
        (scale, zero_point)
    }
}

/// Runs formulas through buffers of their own types, which `load` fills and `store` empties.
fn in_pieces<A: Copy, B, S: Float, Z: Code, F: Formulas>(
    formulas: F,
    x: ArrayView1<'_, A>,
    params: Params<'_, S, Z>,
    mut y: ArrayViewMut1<'_, B>,
    load: impl Fn(ArrayView1<'_, A>, &mut [<F::Formula as Formula>::In]) + Copy,
    store: impl Fn(&[<F::Formula as Formula>::Out], ArrayViewMut1<'_, B>) + Copy,
) {
    if let Params::Each { scales, zero_points, size } = params
        && size > 1
    {
        let blocks = x.axis_chunks_iter(Axis(0), size).zip(y.axis_chunks_iter_mut(Axis(0), size));
        for (i, (x, y)) in blocks.enumerate() {
            let params = Params::Constant(scales[i], zero_points.map_or(Z::default(), |z| z[i]));
            in_pieces(formulas, x, params, y, load, store);
        }
        return;
    }
    let (mut ins, mut outs) = ([Default::default(); PIECE], [Default::default(); PIECE]);
    let mut table = Table::new();
    let pieces = x.axis_chunks_iter(Axis(0), PIECE).zip(y.axis_chunks_iter_mut(Axis(0), PIECE));
    for (k, (x, y)) in pieces.enumerate() {
        let (ins, outs) = (&mut ins[..x.len()], &mut outs[..x.len()]);
        load(x, ins);
        match params {
            Params::Constant(scale, zero_point) => {
                let formula = formulas.with(Compute::from_real(scale), zero_point.to_i32());
                run(Same { formula, x: ins, y: outs, non_temporal: None });
            }
            Params::Each { scales, zero_points, .. } => {
                let (scale, zero_point) = table.fill(scales, zero_points, k * PIECE, ins.len());
                run(Each { formulas, x: ins, y: outs, scale, zero_point });
            }
        }
        store(outs, y);
    }
}

/// What a buffer is filled with: codes as they are.
fn loaded<A: Copy>(from: ArrayView1<'_, A>, to: &mut [A]) {
    Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, &from| *to = from);
}

/// Reals become of the type of formulas.
pub(crate) fn widened<F: Float>(from: ArrayView1<'_, F>, to: &mut [F::Compute]) {
    match from.to_slice() {
        Some(from) => F::widen_slice(from, to),
        None => Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, &from| *to = from.widen()),
    }
}

/// Where the content of a buffer goes: codes as they are.
fn stored<B: Copy>(from: &[B], to: ArrayViewMut1<'_, B>) {
    each(from, to, |from| from);
}

/// Reals become of the type of the caller.
pub(crate) fn rounded<F: Float>(from: &[F::Compute], mut to: ArrayViewMut1<'_, F>) {
    match to.as_slice_mut() {
        Some(to) => F::round_slice(from, to),
        None => each(from, to, |from| from.into_real()),
    }
}

fn each<A: Copy, B>(from: &[A], to: ArrayViewMut1<'_, B>, f: impl Fn(A) -> B) {
    Zip::from(to).and(ArrayView1::from(from)).for_each(|to, &from| *to = f(from));
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::affine::{Affine, rules::Onnx};

    /// Wherever the results lie in their lines.
    #[test]
    fn past_the_caches_are_the_same_codes() {
        let x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.1 - 50.0).collect();
        let formula = Affine::<i8, f32, Onnx>::new(0.3, 5, Codes::all::<i8>());
        let expected: Vec<i8> = x.iter().map(|&x| formula.quantize(x)).collect();
        let mut codes = alloc::vec![0; x.len() + 64];
        for offset in 0..64 {
            let y = &mut codes[offset..][..x.len()];
            y.fill(0);
            arch::with_non_temporal(usize::MAX, |non_temporal| run(Same { formula, x: &x, y, non_temporal }));
            assert_eq!(&codes[offset..][..x.len()], expected);
        }
    }
}
