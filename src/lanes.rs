//! The formulas over lanes of elements, compiled for the instruction set in use.
//!
//! There is one loop per type of code, type of formulas and rule. What is contiguous and already of these types is worked
//! on in place; other float types, other strides, and parameters that change with every element pass through a small
//! buffer, so that they do not multiply the loops. A loop copies a chunk in, computes it and copies it out, so that the
//! compiler need not fear that inputs and outputs overlap, and makes whole registers of it.

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Zip};

use crate::affine::{Affine, ByReciprocal, Codes, Rule, dequantize};
use crate::arch::{self, Streaming, Task};
use crate::element::{Code, Compute, Real};

/// Elements that pass through the buffer at a time, and elements that are computed together.
const PIECE: usize = 128;
const LANES: usize = 64;

/// The parameters of some elements: one pair for all, or one for each `size` of them, the last of which may be fewer.
#[derive(Clone, Copy)]
pub(crate) enum Params<'a, S, Z> {
    Constant(S, Z),
    Each { scales: &'a [S], zero_points: Option<&'a [Z]>, size: usize },
}

/// `codes[i] = clamp(round(x[i] / scale) + zero_point)`.
pub(crate) fn quantize_run<F: Real, S: Real, Z: Code, R: Rule>(
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
    in_pieces(formulas, x, params, codes, F::widen, |code| code);
}

/// `y[i] = (codes[i] - zero_point) * scale`, in `f64` if `double`, rounded once to `F`.
pub(crate) fn dequantize_run<F: Real, S: Real, Z: Code>(
    codes: ArrayView1<'_, Z>,
    params: Params<'_, S, Z>,
    double: bool,
    mut y: ArrayViewMut1<'_, F>,
) {
    if double {
        return in_pieces(Dequantize::<Z, f64>(PhantomData), codes, params, y, |code| code, F::from_f64);
    }
    let formulas = Dequantize::<Z, F::Compute>(PhantomData);
    let in_place = (codes.to_slice(), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Some(x), Some(y)) = in_place
        && blocks(formulas, x, params, y)
    {
        return;
    }
    in_pieces(formulas, codes, params, y, |code| code, |y| y.into_real());
}

/// `y[i] = dequantize(quantize(x[i]))`.
pub(crate) fn fake_quantize_run<F: Real, S: Real, Z: Code, R: Rule>(
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
    in_pieces(formulas, x, params, y, F::widen, |y| y.into_real());
}

/// A formula for one element.
trait Formula: Copy {
    type In: Copy + Default;
    type Out: Copy + Default;
    /// Whether this is on `f32` and codes of at most 16 bits.
    const COMMON: bool;
    fn eval(self, x: Self::In) -> Self::Out;
}

/// A formula whose scale and zero point are still to come.
trait Formulas: Copy {
    type Scale: Compute;
    type Formula: Formula;
    fn with(self, scale: Self::Scale, zero_point: i32) -> Self::Formula;
}

/// Runs a loop compiled for the instruction set in use; those on `f64` and on wide codes are too rare to have several.
fn run<F: Formula>(task: impl Task<Output = ()> + Loop<F>) {
    if F::COMMON { arch::run(task) } else { task.run() }
}

/// Evaluates a formula in place, large results past the caches.
#[inline]
fn same<F: Formula>(formula: F, x: &[F::In], y: &mut [F::Out]) {
    arch::streaming(size_of_val(x) + size_of_val(y), |past_caches| {
        let head = past_caches.map_or(0, |past_caches| past_caches.head(y));
        let ((x_head, x), (y_head, y)) = (x.split_at(head), y.split_at_mut(head));
        if head > 0 {
            run(Same { formula, x: x_head, y: y_head, past_caches: None });
        }
        run(Same { formula, x, y, past_caches });
    });
}

/// Evaluates formulas in place, block by block. Returns whether it did: blocks of one element go another way.
fn blocks<S: Real, Z: Code, F: Formulas>(
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
    fn fill<S: Real, Z: Code>(
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

/// The formula that a loop evaluates.
trait Loop<F: Formula> {}
impl<F: Formula> Loop<F> for Same<'_, F> {}
impl<F: Formulas> Loop<F::Formula> for Blocks<'_, F> {}
impl<F: Formulas> Loop<F::Formula> for Each<'_, F> {}

const fn is_common<Z: Code, C>() -> bool {
    size_of::<C>() == 4 && !Z::WIDE
}

impl<Z: Code, R: Rule> Formula for ByReciprocal<Z, R> {
    type In = f32;
    type Out = Z;
    const COMMON: bool = true;
    #[inline(always)]
    fn eval(self, x: f32) -> Z {
        self.quantize(x)
    }
}

#[derive(Clone, Copy)]
struct Quantize<Z, C, R> {
    range: Codes,
    types: PhantomData<(Z, C, R)>,
}

impl<Z: Code, C: Compute, R: Rule> Formulas for Quantize<Z, C, R> {
    type Scale = C;
    type Formula = Affine<Z, C, R>;
    #[inline(always)]
    fn with(self, scale: C, zero_point: i32) -> Affine<Z, C, R> {
        Affine::new(scale, zero_point, self.range)
    }
}

impl<Z: Code, C: Compute, R: Rule> Formula for Affine<Z, C, R> {
    type In = C;
    type Out = Z;
    const COMMON: bool = is_common::<Z, C>();
    #[inline(always)]
    fn eval(self, x: C) -> Z {
        self.quantize(x)
    }
}

#[derive(Clone, Copy)]
struct Dequantize<Z, C>(PhantomData<(Z, C)>);

#[derive(Clone, Copy)]
struct DequantizeWith<Z, C> {
    scale: C,
    zero_point: i32,
    code: PhantomData<Z>,
}

impl<Z: Code, C: Compute> Formulas for Dequantize<Z, C> {
    type Scale = C;
    type Formula = DequantizeWith<Z, C>;
    #[inline(always)]
    fn with(self, scale: C, zero_point: i32) -> DequantizeWith<Z, C> {
        DequantizeWith { scale, zero_point, code: PhantomData }
    }
}

impl<Z: Code, C: Compute> Formula for DequantizeWith<Z, C> {
    type In = Z;
    type Out = C;
    const COMMON: bool = is_common::<Z, C>();
    #[inline(always)]
    fn eval(self, code: Z) -> C {
        dequantize(code, self.zero_point, self.scale)
    }
}

#[derive(Clone, Copy)]
struct FakeQuantize<Z, C, R> {
    range: Codes,
    types: PhantomData<(Z, C, R)>,
}

#[derive(Clone, Copy)]
struct FakeQuantizeWith<Z, C, R> {
    quantize: Affine<Z, C, R>,
    dequantize: DequantizeWith<Z, C>,
}

impl<Z: Code, C: Compute, R: Rule> Formulas for FakeQuantize<Z, C, R> {
    type Scale = C;
    type Formula = FakeQuantizeWith<Z, C, R>;
    #[inline(always)]
    fn with(self, scale: C, zero_point: i32) -> FakeQuantizeWith<Z, C, R> {
        FakeQuantizeWith {
            quantize: Affine::new(scale, zero_point, self.range),
            dequantize: Dequantize(PhantomData).with(scale, zero_point),
        }
    }
}

impl<Z: Code, C: Compute, R: Rule> Formula for FakeQuantizeWith<Z, C, R> {
    type In = C;
    type Out = C;
    const COMMON: bool = is_common::<Z, C>();
    #[inline(always)]
    fn eval(self, x: C) -> C {
        self.dequantize.eval(self.quantize.quantize(x))
    }
}

/// One pair of parameters for all elements.
struct Same<'a, F: Formula> {
    formula: F,
    x: &'a [F::In],
    y: &'a mut [F::Out],
    past_caches: Option<Streaming<'a>>,
}

impl<F: Formula> Task for Same<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { formula, x, y, past_caches } = self;
        same_lanes::<LANES, F>(formula, x, y, past_caches);
    }
}

#[inline(always)]
fn same_lanes<const LANES: usize, F: Formula>(
    formula: F,
    x: &[F::In],
    y: &mut [F::Out],
    past_caches: Option<Streaming<'_>>,
) {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    for (y, &x) in y.iter_mut().zip(x) {
        let mut lanes = [F::Out::default(); LANES];
        for i in 0..LANES {
            lanes[i] = formula.eval(x[i]);
        }
        match past_caches {
            Some(past_caches) => past_caches.store(y, lanes),
            None => *y = lanes,
        }
    }
    for (y, &x) in y_rest.iter_mut().zip(x_rest) {
        *y = formula.eval(x);
    }
}

/// A pair of parameters for each block of elements.
struct Blocks<'a, F: Formulas> {
    formulas: F,
    x: &'a [<F::Formula as Formula>::In],
    y: &'a mut [<F::Formula as Formula>::Out],
    scale: &'a [F::Scale],
    zero_point: &'a [i32],
    size: usize,
}

impl<F: Formulas> Task for Blocks<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Groups are often as short as this.
        const LANES: usize = 32;
        let Self { formulas, x, y, scale, zero_point, size } = self;
        let params = scale.iter().zip(zero_point);
        for ((x, y), (&scale, &zero_point)) in x.chunks(size).zip(y.chunks_mut(size)).zip(params) {
            same_lanes::<LANES, _>(formulas.with(scale, zero_point), x, y, None);
        }
    }
}

/// A pair of parameters for each element.
struct Each<'a, F: Formulas> {
    formulas: F,
    x: &'a [<F::Formula as Formula>::In],
    y: &'a mut [<F::Formula as Formula>::Out],
    scale: &'a [F::Scale],
    zero_point: &'a [i32],
}

impl<F: Formulas> Task for Each<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const LANES: usize = 16;
        let ((x, x_rest), (y, y_rest)) = (self.x.as_chunks::<LANES>(), self.y.as_chunks_mut::<LANES>());
        let (scale, scale_rest) = self.scale.as_chunks::<LANES>();
        let (zero_point, zero_point_rest) = self.zero_point.as_chunks::<LANES>();
        for (((y, &x), &scale), &zero_point) in y.iter_mut().zip(x).zip(scale).zip(zero_point) {
            let mut lanes = [Default::default(); LANES];
            for i in 0..LANES {
                lanes[i] = self.formulas.with(scale[i], zero_point[i]).eval(x[i]);
            }
            *y = lanes;
        }
        for (((y, &x), &scale), &zero_point) in y_rest.iter_mut().zip(x_rest).zip(scale_rest).zip(zero_point_rest) {
            *y = self.formulas.with(scale, zero_point).eval(x);
        }
    }
}

/// Runs formulas through buffers of their own types.
fn in_pieces<A: Copy, B, S: Real, Z: Code, F: Formulas>(
    formulas: F,
    x: ArrayView1<'_, A>,
    params: Params<'_, S, Z>,
    mut y: ArrayViewMut1<'_, B>,
    load: impl Fn(A) -> <F::Formula as Formula>::In + Copy,
    store: impl Fn(<F::Formula as Formula>::Out) -> B + Copy,
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
        Zip::from(ArrayViewMut1::from(&mut *ins)).and(x).for_each(|to, &x| *to = load(x));
        match params {
            Params::Constant(scale, zero_point) => {
                let formula = formulas.with(Compute::from_real(scale), zero_point.to_i32());
                run(Same { formula, x: ins, y: outs, past_caches: None });
            }
            Params::Each { scales, zero_points, .. } => {
                let (scale, zero_point) = table.fill(scales, zero_points, k * PIECE, ins.len());
                run(Each { formulas, x: ins, y: outs, scale, zero_point });
            }
        }
        Zip::from(y).and(ArrayView1::from(&*outs)).for_each(|y, &out| *y = store(out));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::affine::rules::Onnx;

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
            arch::streaming(usize::MAX, |past_caches| run(Same { formula, x: &x, y, past_caches }));
            assert_eq!(&codes[offset..][..x.len()], expected);
        }
    }
}
