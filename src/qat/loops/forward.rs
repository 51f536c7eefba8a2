//! Fake-quantized values, and the straight-through mask.

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1};

use super::{BlockParams, ElementQuantizers, run};
use crate::affine::SteQuantizer;
use crate::element::{Compute, Float};
use crate::elementwise::{Stored, buffered, padded};
use crate::qat::mask::WORD;
use crate::simd::{self, Task};

/// Appends bits to the words of a mask.
pub(in crate::qat) struct Bits<'a> {
    words: &'a mut [u64],
    position: usize,
}

impl<'a> Bits<'a> {
    /// Starts at the first bit of `words`, which must be 0.
    pub(in crate::qat) fn new(words: &'a mut [u64]) -> Self {
        Self { words, position: 0 }
    }

    /// Appends the lowest `len` bits of `word`; its other bits must be 0.
    #[inline(always)]
    fn push(&mut self, word: u64, len: usize) {
        let (at, shift) = (self.position / WORD, self.position % WORD);
        self.words[at] |= word << shift;
        if shift + len > WORD {
            self.words[at + 1] |= word >> (WORD - shift);
        }
        self.position += len;
    }
}

/// Fake-quantizes a run and appends its mask.
pub(in crate::qat) fn forward<F: Float, Q: SteQuantizer<F::Compute>>(
    params: BlockParams<'_>,
    x: ArrayView1<'_, F>,
    y: ArrayViewMut1<'_, F>,
    bits: &mut Bits<'_>,
) {
    buffered(Stored::floats(), x, Stored::floats(), y, params.size, &mut |first, x, y| {
        let (params, quantizer) = (params.starting_at(first), PhantomData::<Q>);
        run::<F::Compute, _>(Forward { params, x, y, bits, quantizer });
    });
}

/// The forward pass over a slice.
struct Forward<'a, 'b, C, Q> {
    params: BlockParams<'a>,
    x: &'a [C],
    y: &'a mut [C],
    bits: &'a mut Bits<'b>,
    quantizer: PhantomData<Q>,
}

impl<C: Compute, Q: SteQuantizer<C>> Task for Forward<'_, '_, C, Q> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { params, x, y, bits, .. } = self;
        if params.size == 1 {
            for (k, (x, y)) in x.chunks(WORD).zip(y.chunks_mut(WORD)).enumerate() {
                let quantizers = params.per_element::<WORD, C, Q>(k * WORD, x.len());
                forward_words(quantizers, x, y, bits);
            }
        } else {
            for (k, (x, y)) in x.chunks(params.size).zip(y.chunks_mut(params.size)).enumerate() {
                forward_words(params.quantizer::<C, Q>(k), x, y, bits);
            }
        }
    }
}

/// Computes one word of the mask after the other: one element per bit.
#[inline(always)]
fn forward_words<C: Compute>(quantizers: impl ElementQuantizers<C>, x: &[C], y: &mut [C], bits: &mut Bits<'_>) {
    let ((x, x_last), (y, y_last)) = (x.as_chunks::<WORD>(), y.as_chunks_mut::<WORD>());
    let rest = x_last.len();
    let (x_rest, mut y_rest) = (padded(x_last), [C::ZERO; WORD]);
    for i in 0..x.len() + usize::from(rest > 0) {
        let len = if i < x.len() { WORD } else { rest };
        let &x = x.get(i).unwrap_or(&x_rest);
        let (mut values, mut passes) = ([C::ZERO; WORD], [0u8; WORD]);
        let position = bits.position as u64;
        for i in 0..WORD {
            let rounded = quantizers.quantizer(i).fake_quantize(x[i], position + i as u64);
            values[i] = rounded.value;
            passes[i] = rounded.in_range() as u8;
        }
        *y.get_mut(i).unwrap_or(&mut y_rest) = values;
        bits.push(pack(&passes) & (u64::MAX >> (WORD - len)), len);
    }
    y_last.copy_from_slice(&y_rest[..rest]);
}

/// Packs the lowest bit of each byte into a word.
#[inline(always)]
fn pack(bytes: &[u8; WORD]) -> u64 {
    let mut word = 0;
    for (i, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // This factor moves one of the eight bits to the top byte; none of the sums carries into it.
        let top = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= top << (8 * i);
    }
    word
}

/// `out[i] = grad[i]` where the bit is set, otherwise 0.
pub(in crate::qat) fn select<F: Float>(words: &[u64], grad: &[F], out: &mut [F]) {
    simd::run(Select { words, grad, out });
}

struct Select<'a, F> {
    words: &'a [u64],
    grad: &'a [F],
    out: &'a mut [F],
}

impl<F: Float> Task for Select<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const HALF: usize = WORD / 2;
        let (grad, grad_rest) = self.grad.as_chunks::<WORD>();
        let (out, out_rest) = self.out.as_chunks_mut::<WORD>();
        for ((out, grad), &word) in out.iter_mut().zip(grad).zip(self.words) {
            let (grad, mut selected) = (*grad, [F::default(); WORD]);
            for half in 0..2 {
                let bits = (word >> (HALF * half)) as u32;
                for i in 0..HALF {
                    selected[HALF * half + i] = grad[HALF * half + i].only_if(bits & (1 << i) != 0);
                }
            }
            *out = selected;
        }
        let last = self.words.last().copied().unwrap_or(0);
        for (i, (out, &grad)) in out_rest.iter_mut().zip(grad_rest).enumerate() {
            *out = grad.only_if(last >> i & 1 == 1);
        }
    }
}
