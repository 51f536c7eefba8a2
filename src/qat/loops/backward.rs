//! The gradient by the input, and the sums for the gradients by scales and zero points.

use core::marker::PhantomData;

use super::{BlockParams, ElementQuantizers, SharedQuantizer, run};
use crate::affine::{FakeQuantized, SteQuantizer};
use crate::element::{Compute, Float};
use crate::granularity::Run;
use crate::simd::Task;

/// Number of elements that are computed together.
const CHUNK: usize = 32;

/// Number of chunks that are summed in the type of the tensor before the sums are added in `f64`.
const CHUNKS: usize = 64;

/// Sums over one block, from which the gradients of its parameters are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::qat) struct GradientSums {
    /// Sum of `grad * ∂y/∂scale`.
    pub(in crate::qat) by_scale: f64,
    /// Sum of `grad` where the value was clipped to the smallest code.
    pub(in crate::qat) below: f64,
    /// Sum of `grad` where the value was clipped to the greatest code.
    pub(in crate::qat) above: f64,
}

/// Computes the gradient by the input over a run of row-major data, and adds to the sums of the run's blocks.
///
/// The order of summation depends only on the positions of the elements, not on the instruction set.
pub(in crate::qat) fn gradients<F: Float, Q: SteQuantizer<F::Compute>>(
    params: BlockParams<'_>,
    block: Run,
    x: &[F],
    grad: &[F],
    out: &mut [F],
    sums: &mut [GradientSums],
) {
    match block {
        Run::Constant(block) => {
            let quantizer = params.quantizer::<_, Q>(block);
            let in_place = (F::as_compute(x), F::as_compute(grad), F::as_compute_mut(out));
            if let (Some(x), Some(grad), Some(out)) = in_place {
                run::<F::Compute, _>(Backward { quantizer, x, grad, out, sums: &mut sums[block] });
                return;
            }
            const BUFFER: usize = CHUNK * CHUNKS;
            let (mut wide, mut wide_grad, mut wide_out) =
                ([Compute::ZERO; BUFFER], [Compute::ZERO; BUFFER], [Compute::ZERO; BUFFER]);
            for ((x, grad), out) in x.chunks(BUFFER).zip(grad.chunks(BUFFER)).zip(out.chunks_mut(BUFFER)) {
                let len = x.len();
                wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
                wide_grad.iter_mut().zip(grad).for_each(|(wide, grad)| *wide = grad.widen());
                let (x, grad) = (&wide[..len], &wide_grad[..len]);
                run::<F::Compute, _>(Backward {
                    quantizer,
                    x,
                    grad,
                    out: &mut wide_out[..len],
                    sums: &mut sums[block],
                });
                out.iter_mut().zip(&wide_out).for_each(|(out, wide)| *out = wide.to_float());
            }
        }
        Run::Consecutive(first) => {
            let chunks = x.chunks(CHUNK).zip(grad.chunks(CHUNK)).zip(out.chunks_mut(CHUNK));
            for (k, ((x, grad), out)) in chunks.enumerate() {
                let first = first + k * CHUNK;
                let quantizers = params.per_element::<CHUNK, F::Compute>(first, x.len());
                let (mut wide, mut wide_grad) = ([Compute::ZERO; CHUNK], [Compute::ZERO; CHUNK]);
                wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
                wide_grad.iter_mut().zip(grad).for_each(|(wide, grad)| *wide = grad.widen());
                let terms = run::<F::Compute, _>(Terms::<_, _, Q> {
                    quantizers,
                    x: wide,
                    grad: wide_grad,
                    quantizer: PhantomData,
                });
                for (i, (out, sums)) in out.iter_mut().zip(&mut sums[first..]).enumerate() {
                    *out = terms.input[i].to_float();
                    sums.by_scale += terms.by_scale[i].to_f64();
                    sums.below += terms.below[i].to_f64();
                    sums.above += terms.above[i].to_f64();
                }
            }
        }
    }
}

/// The derivatives of a chunk of elements, times their gradients.
struct Derivatives<C> {
    input: [C; CHUNK],
    by_scale: [C; CHUNK],
    below: [C; CHUNK],
    above: [C; CHUNK],
}

struct Terms<P, C, Q> {
    quantizers: P,
    x: [C; CHUNK],
    grad: [C; CHUNK],
    quantizer: PhantomData<Q>,
}

impl<C: Compute, Q: SteQuantizer<C>, P: ElementQuantizers<CHUNK, C, Q>> Task for Terms<P, C, Q> {
    type Output = Derivatives<C>;

    #[inline(always)]
    fn run(self) -> Derivatives<C> {
        let zeros = [C::ZERO; CHUNK];
        let mut all = Derivatives { input: zeros, by_scale: zeros, below: zeros, above: zeros };
        for i in 0..CHUNK {
            let (grad, rounded): (C, FakeQuantized<C>) =
                (self.grad[i], self.quantizers.quantizer(i).fake_quantize(self.x[i], 0));
            all.input[i] = if rounded.in_range() { grad } else { C::ZERO };
            all.by_scale[i] = grad * rounded.by_scale();
            all.below[i] = if rounded.below { grad } else { C::ZERO };
            all.above[i] = if rounded.above { grad } else { C::ZERO };
        }
        all
    }
}

/// The backward pass over a slice in one block.
struct Backward<'a, Q, C> {
    quantizer: Q,
    x: &'a [C],
    grad: &'a [C],
    out: &'a mut [C],
    sums: &'a mut GradientSums,
}

impl<C: Compute, Q: SteQuantizer<C>> Backward<'_, Q, C> {
    /// Returns the gradients by a chunk of the input and adds its terms to `partial`.
    #[inline(always)]
    fn step(&self, x: [C; CHUNK], grad: [C; CHUNK], partial: &mut [[C; CHUNK]; 3]) -> [C; CHUNK] {
        let terms = Terms { quantizers: SharedQuantizer(self.quantizer), x, grad, quantizer: PhantomData::<Q> }.run();
        let [by_scale, below, above] = partial;
        for i in 0..CHUNK {
            by_scale[i] = by_scale[i] + terms.by_scale[i];
            below[i] = below[i] + terms.below[i];
            above[i] = above[i] + terms.above[i];
        }
        terms.input
    }
}

impl<C: Compute, Q: SteQuantizer<C>> Task for Backward<'_, Q, C> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        const BUFFER: usize = CHUNK * CHUNKS;
        let out = core::mem::take(&mut self.out);
        let mut total = [[0f64; CHUNK]; 3];
        for ((x, grad), out) in self.x.chunks(BUFFER).zip(self.grad.chunks(BUFFER)).zip(out.chunks_mut(BUFFER)) {
            let (x, x_rest) = x.as_chunks::<CHUNK>();
            let (grad, grad_rest) = grad.as_chunks::<CHUNK>();
            let (out, out_rest) = out.as_chunks_mut::<CHUNK>();
            let mut partial = [[C::ZERO; CHUNK]; 3];
            for ((out, &x), &grad) in out.iter_mut().zip(x).zip(grad) {
                *out = self.step(x, grad, &mut partial);
            }
            if !x_rest.is_empty() {
                // The chunk is padded with zeros, which add nothing to the sums.
                let (mut x, mut grad) = ([C::ZERO; CHUNK], [C::ZERO; CHUNK]);
                x[..x_rest.len()].copy_from_slice(x_rest);
                grad[..grad_rest.len()].copy_from_slice(grad_rest);
                let all = self.step(x, grad, &mut partial);
                out_rest.copy_from_slice(&all[..out_rest.len()]);
            }
            for k in 0..3 {
                for i in 0..CHUNK {
                    total[k][i] += partial[k][i].to_f64();
                }
            }
        }
        self.sums.by_scale += total[0].iter().sum::<f64>();
        self.sums.below += total[1].iter().sum::<f64>();
        self.sums.above += total[2].iter().sum::<f64>();
    }
}
