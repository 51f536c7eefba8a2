//! The loops: one pair of parameters for all elements, for each block, or for each element.
//!
//! A loop copies a chunk in, computes it and copies it out, so that the compiler need not fear that inputs and outputs
//! overlap, and makes whole registers of it.

use super::formulas::{Formula, Formulas};
use crate::arch::{self, NonTemporal, Task};

/// Elements that are computed together.
const LANES: usize = 64;

/// Runs a loop compiled for the instruction set in use; those on `f64` and on wide codes are too rare to have several.
pub(super) fn run<F: Formula>(task: impl Task<Output = ()> + Loop<F>) {
    if F::COMMON { arch::run(task) } else { task.run() }
}

/// The formula that a loop evaluates.
pub(super) trait Loop<F: Formula> {}
impl<F: Formula> Loop<F> for Same<'_, F> {}
impl<F: Formulas> Loop<F::Formula> for Blocks<'_, F> {}
impl<F: Formulas> Loop<F::Formula> for Each<'_, F> {}

/// One pair of parameters for all elements.
pub(super) struct Same<'a, F: Formula> {
    pub(super) formula: F,
    pub(super) x: &'a [F::In],
    pub(super) y: &'a mut [F::Out],
    pub(super) non_temporal: Option<NonTemporal<'a>>,
}

impl<F: Formula> Task for Same<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { formula, x, y, non_temporal } = self;
        same_lanes::<LANES, F>(formula, x, y, non_temporal);
    }
}

#[inline(always)]
fn same_lanes<const LANES: usize, F: Formula>(
    formula: F,
    x: &[F::In],
    y: &mut [F::Out],
    non_temporal: Option<NonTemporal<'_>>,
) {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    for (y, &x) in y.iter_mut().zip(x) {
        let mut lanes = [F::Out::default(); LANES];
        for i in 0..LANES {
            lanes[i] = formula.eval(x[i]);
        }
        match non_temporal {
            Some(non_temporal) => non_temporal.store(y, lanes),
            None => *y = lanes,
        }
    }
    for (y, &x) in y_rest.iter_mut().zip(x_rest) {
        *y = formula.eval(x);
    }
}

/// A pair of parameters for each block of elements.
pub(super) struct Blocks<'a, F: Formulas> {
    pub(super) formulas: F,
    pub(super) x: &'a [<F::Formula as Formula>::In],
    pub(super) y: &'a mut [<F::Formula as Formula>::Out],
    pub(super) scale: &'a [F::Scale],
    pub(super) zero_point: &'a [i32],
    pub(super) size: usize,
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
pub(super) struct Each<'a, F: Formulas> {
    pub(super) formulas: F,
    pub(super) x: &'a [<F::Formula as Formula>::In],
    pub(super) y: &'a mut [<F::Formula as Formula>::Out],
    pub(super) scale: &'a [F::Scale],
    pub(super) zero_point: &'a [i32],
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
