//! The gradient by the input, and the sums for the gradients by scales and zero points.

use core::marker::PhantomData;

use super::{BlockParams, ElementQuantizers, run};
use crate::affine::SteQuantizer;
use crate::element::{Compute, Float};
use crate::elementwise::padded;
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

impl GradientSums {
    #[inline(always)]
    fn add(&mut self, [by_scale, below, above]: [f64; 3]) {
        self.by_scale += by_scale;
        self.below += below;
        self.above += above;
    }
}

/// Computes the gradient by the input over a run of row-major data, and adds to the sums of its blocks.
///
/// The order of summation depends only on the positions of the elements, not on the instruction set.
pub(in crate::qat) fn gradients<F: Float, Q: SteQuantizer<F::Compute>>(
    params: BlockParams<'_>,
    x: &[F],
    grad: &[F],
    out: &mut [F],
    sums: &mut [GradientSums],
) {
    let quantizer = PhantomData::<Q>;
    let in_place = (F::as_compute(x), F::as_compute(grad), F::as_compute_mut(out));
    if let (Some(x), Some(grad), Some(out)) = in_place {
        return run::<F::Compute, _>(Backward { params, x, grad, out, sums, quantizer });
    }
    let [mut wide_x, mut wide_grad, mut wide_out] = [[Compute::ZERO; BUFFER]; 3];
    let blocks = (BUFFER / params.size).max(1);
    let len = blocks.saturating_mul(params.size);
    for (k, ((x, grad), out)) in x.chunks(len).zip(grad.chunks(len)).zip(out.chunks_mut(len)).enumerate() {
        for ((x, grad), out) in x.chunks(BUFFER).zip(grad.chunks(BUFFER)).zip(out.chunks_mut(BUFFER)) {
            F::widen_slice(x, &mut wide_x);
            F::widen_slice(grad, &mut wide_grad);
            let (x, grad, wide_out) = (&wide_x[..x.len()], &wide_grad[..x.len()], &mut wide_out[..x.len()]);
            let (params, sums) = (params.starting_at(k * blocks), &mut sums[k * blocks..]);
            run::<F::Compute, _>(Backward { params, x, grad, out: &mut *wide_out, sums, quantizer });
            F::round_slice(wide_out, out);
        }
    }
}

/// Elements whose terms are summed in the type of the tensor before the sums are added in `f64`.
const BUFFER: usize = CHUNK * CHUNKS;

/// The backward pass over a slice.
struct Backward<'a, C, Q> {
    params: BlockParams<'a>,
    x: &'a [C],
    grad: &'a [C],
    out: &'a mut [C],
    sums: &'a mut [GradientSums],
    quantizer: PhantomData<Q>,
}

impl<C: Compute, Q: SteQuantizer<C>> Task for Backward<'_, C, Q> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { params, x, grad, out, sums, .. } = self;
        if params.size == 1 {
            let chunks = x.chunks(CHUNK).zip(grad.chunks(CHUNK)).zip(out.chunks_mut(CHUNK));
            for (k, (((x, grad), out), sums)) in chunks.zip(sums.chunks_mut(CHUNK)).enumerate() {
                let quantizers = params.per_element::<CHUNK, C, Q>(k * CHUNK, x.len());
                let terms = terms(&quantizers, &padded(x), &padded(grad));
                out.copy_from_slice(&terms.input[..x.len()]);
                for (i, sums) in sums[..x.len()].iter_mut().enumerate() {
                    sums.add(terms.sums.map(|terms| terms[i].to_f64()));
                }
            }
        } else {
            let blocks = x.chunks(params.size).zip(grad.chunks(params.size)).zip(out.chunks_mut(params.size));
            for (k, (((x, grad), out), sums)) in blocks.zip(sums).enumerate() {
                sums.add(block(params.quantizer::<C, Q>(k), x, grad, out));
            }
        }
    }
}

/// Computes the gradients by the elements of a block, and returns the sums.
#[inline(always)]
fn block<C: Compute>(quantizer: impl ElementQuantizers<C>, x: &[C], grad: &[C], out: &mut [C]) -> [f64; 3] {
    let mut total = [[0f64; CHUNK]; 3];
    for ((x, grad), out) in x.chunks(BUFFER).zip(grad.chunks(BUFFER)).zip(out.chunks_mut(BUFFER)) {
        let (x, x_last) = x.as_chunks::<CHUNK>();
        let (grad, grad_last) = grad.as_chunks::<CHUNK>();
        let (out, out_last) = out.as_chunks_mut::<CHUNK>();
        let rest = x_last.len();
        // Padding with zeros adds nothing to the sums.
        let (x_rest, grad_rest, mut out_rest) = (padded(x_last), padded(grad_last), [C::ZERO; CHUNK]);
        let mut partial = [[C::ZERO; CHUNK]; 3];
        for i in 0..x.len() + usize::from(rest > 0) {
            let terms = terms(&quantizer, x.get(i).unwrap_or(&x_rest), grad.get(i).unwrap_or(&grad_rest));
            for (partial, terms) in partial.iter_mut().zip(&terms.sums) {
                for i in 0..CHUNK {
                    partial[i] = partial[i] + terms[i];
                }
            }
            *out.get_mut(i).unwrap_or(&mut out_rest) = terms.input;
        }
        out_last.copy_from_slice(&out_rest[..rest]);
        for (total, partial) in total.iter_mut().zip(&partial) {
            for i in 0..CHUNK {
                total[i] += partial[i].to_f64();
            }
        }
    }
    total.map(|total| total.iter().sum())
}

/// The derivatives of a chunk of elements, times their gradients.
struct Terms<C> {
    input: [C; CHUNK],
    /// By the scale, and where a value was clipped below or above: the terms of [`GradientSums`].
    sums: [[C; CHUNK]; 3],
}

#[inline(always)]
fn terms<C: Compute>(quantizers: &impl ElementQuantizers<C>, &x: &[C; CHUNK], &grad: &[C; CHUNK]) -> Terms<C> {
    let mut terms = Terms { input: [C::ZERO; CHUNK], sums: [[C::ZERO; CHUNK]; 3] };
    for i in 0..CHUNK {
        let (grad, rounded) = (grad[i], quantizers.quantizer(i).fake_quantize(x[i], 0));
        terms.input[i] = if rounded.in_range() { grad } else { C::ZERO };
        terms.sums[0][i] = grad * rounded.by_scale();
        terms.sums[1][i] = if rounded.below { grad } else { C::ZERO };
        terms.sums[2][i] = if rounded.above { grad } else { C::ZERO };
    }
    terms
}
