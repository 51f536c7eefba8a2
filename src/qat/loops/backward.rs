//! Gradients by the input, and the sums that those of scales and zero points are made of.

use core::marker::PhantomData;

use super::{Grids, Same, Table, run};
use crate::affine::{Grid, Rounded};
use crate::arch::Task;
use crate::element::{Compute, Float};
use crate::granularity::Run;

/// Elements of the sums of gradients that are computed together.
const LANES: usize = 32;

/// Chunks whose sums are formed in the type of the tensor before they are added in `f64`.
const CHUNKS: usize = 64;

/// The sums over one block that the gradients of its parameters are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::qat) struct Sums {
    /// Of the gradient times the derivative by the scale.
    pub(in crate::qat) by_scale: f64,
    /// Of the gradients of what was clipped at the lower end.
    pub(in crate::qat) below: f64,
    /// Of the gradients of what was clipped at the upper end.
    pub(in crate::qat) above: f64,
}

/// The gradient by the input over a run of row-major data, and the sums for the blocks it crosses.
///
/// The order of the sums is that of the elements, whatever the instruction set.
pub(in crate::qat) fn gradients<F: Float, G: Grid<F::Compute>>(
    table: Table<'_>,
    block: Run,
    x: &[F],
    grad: &[F],
    out: &mut [F],
    sums: &mut [Sums],
) {
    match block {
        Run::Constant(block) => {
            let grid = table.grid::<_, G>(block);
            let in_place = (F::as_compute(x), F::as_compute(grad), F::as_compute_mut(out));
            if let (Some(x), Some(grad), Some(out)) = in_place {
                run::<F::Compute, _>(Backward { grid, x, grad, out, sums: &mut sums[block] });
                return;
            }
            const PIECE: usize = LANES * CHUNKS;
            let (mut wide, mut wide_grad, mut wide_out) =
                ([Compute::ZERO; PIECE], [Compute::ZERO; PIECE], [Compute::ZERO; PIECE]);
            for ((x, grad), out) in x.chunks(PIECE).zip(grad.chunks(PIECE)).zip(out.chunks_mut(PIECE)) {
                let len = x.len();
                wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
                wide_grad.iter_mut().zip(grad).for_each(|(wide, grad)| *wide = grad.widen());
                let (x, grad) = (&wide[..len], &wide_grad[..len]);
                run::<F::Compute, _>(Backward { grid, x, grad, out: &mut wide_out[..len], sums: &mut sums[block] });
                out.iter_mut().zip(&wide_out).for_each(|(out, wide)| *out = wide.into_real());
            }
        }
        Run::Consecutive(first) => {
            let pieces = x.chunks(LANES).zip(grad.chunks(LANES)).zip(out.chunks_mut(LANES));
            for (k, ((x, grad), out)) in pieces.enumerate() {
                let first = first + k * LANES;
                let grids = table.each::<LANES, F::Compute>(first, x.len());
                let (mut wide, mut wide_grad) = ([Compute::ZERO; LANES], [Compute::ZERO; LANES]);
                wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
                wide_grad.iter_mut().zip(grad).for_each(|(wide, grad)| *wide = grad.widen());
                let terms =
                    run::<F::Compute, _>(Terms::<_, _, G> { grids, x: wide, grad: wide_grad, grid: PhantomData });
                for (i, (out, sums)) in out.iter_mut().zip(&mut sums[first..]).enumerate() {
                    *out = terms.input[i].into_real();
                    sums.by_scale += terms.by_scale[i].to_f64();
                    sums.below += terms.below[i].to_f64();
                    sums.above += terms.above[i].to_f64();
                }
            }
        }
    }
}

/// The derivatives of some elements, each times its gradient.
struct Derivatives<C> {
    input: [C; LANES],
    by_scale: [C; LANES],
    below: [C; LANES],
    above: [C; LANES],
}

struct Terms<P, C, G> {
    grids: P,
    x: [C; LANES],
    grad: [C; LANES],
    grid: PhantomData<G>,
}

impl<C: Compute, G: Grid<C>, P: Grids<LANES, C, G>> Task for Terms<P, C, G> {
    type Output = Derivatives<C>;

    #[inline(always)]
    fn run(self) -> Derivatives<C> {
        let zeros = [C::ZERO; LANES];
        let mut all = Derivatives { input: zeros, by_scale: zeros, below: zeros, above: zeros };
        for i in 0..LANES {
            let (grad, rounded): (C, Rounded<C>) = (self.grad[i], self.grids.grid(i).round(self.x[i], 0));
            all.input[i] = if rounded.in_range() { grad } else { C::ZERO };
            all.by_scale[i] = grad * rounded.by_scale();
            all.below[i] = if rounded.below { grad } else { C::ZERO };
            all.above[i] = if rounded.above { grad } else { C::ZERO };
        }
        all
    }
}

/// One grid for a whole slice.
struct Backward<'a, G, C> {
    grid: G,
    x: &'a [C],
    grad: &'a [C],
    out: &'a mut [C],
    sums: &'a mut Sums,
}

impl<C: Compute, G: Grid<C>> Backward<'_, G, C> {
    /// The gradients by some elements of the input; their terms are added to `part`.
    #[inline(always)]
    fn step(&self, x: [C; LANES], grad: [C; LANES], part: &mut [[C; LANES]; 3]) -> [C; LANES] {
        let terms = Terms { grids: Same(self.grid), x, grad, grid: PhantomData::<G> }.run();
        let [by_scale, below, above] = part;
        for i in 0..LANES {
            by_scale[i] = by_scale[i] + terms.by_scale[i];
            below[i] = below[i] + terms.below[i];
            above[i] = above[i] + terms.above[i];
        }
        terms.input
    }
}

impl<C: Compute, G: Grid<C>> Task for Backward<'_, G, C> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        const PIECE: usize = LANES * CHUNKS;
        let out = core::mem::take(&mut self.out);
        let mut total = [[0f64; LANES]; 3];
        for ((x, grad), out) in self.x.chunks(PIECE).zip(self.grad.chunks(PIECE)).zip(out.chunks_mut(PIECE)) {
            let (x, x_rest) = x.as_chunks::<LANES>();
            let (grad, grad_rest) = grad.as_chunks::<LANES>();
            let (out, out_rest) = out.as_chunks_mut::<LANES>();
            let mut part = [[C::ZERO; LANES]; 3];
            for ((out, &x), &grad) in out.iter_mut().zip(x).zip(grad) {
                *out = self.step(x, grad, &mut part);
            }
            if !x_rest.is_empty() {
                // Zeros add nothing to the sums.
                let (mut x, mut grad) = ([C::ZERO; LANES], [C::ZERO; LANES]);
                x[..x_rest.len()].copy_from_slice(x_rest);
                grad[..grad_rest.len()].copy_from_slice(grad_rest);
                let all = self.step(x, grad, &mut part);
                out_rest.copy_from_slice(&all[..out_rest.len()]);
            }
            for k in 0..3 {
                for i in 0..LANES {
                    total[k][i] += part[k][i].to_f64();
                }
            }
        }
        self.sums.by_scale += total[0].iter().sum::<f64>();
        self.sums.below += total[1].iter().sum::<f64>();
        self.sums.above += total[2].iter().sum::<f64>();
    }
}
