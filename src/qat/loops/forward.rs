//! Fake-quantized values, and the straight-through mask.

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1, Axis};

use super::{BlockParams, ElementQuantizers, SharedQuantizer, run};
use crate::affine::SteQuantizer;
use crate::element::{Compute, Float};
use crate::elementwise::{round, widen};
use crate::granularity::Run;
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
    block: Run,
    x: ArrayView1<'_, F>,
    mut y: ArrayViewMut1<'_, F>,
    bits: &mut Bits<'_>,
) {
    /// Number of elements per buffer, through which elements of another type or stride pass.
    const BUFFER: usize = 4 * WORD;
    let in_place = (x.to_slice().and_then(F::as_compute), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Some(x), Some(y)) = in_place {
        return in_slices::<_, Q>(params, block, x, y, bits);
    }
    let (mut wide, mut values) = ([Compute::ZERO; BUFFER], [Compute::ZERO; BUFFER]);
    let chunks = x.axis_chunks_iter(Axis(0), BUFFER).zip(y.axis_chunks_iter_mut(Axis(0), BUFFER));
    for (k, (x, y)) in chunks.enumerate() {
        let (wide, values) = (&mut wide[..x.len()], &mut values[..x.len()]);
        let block = match block {
            Run::Constant(block) => Run::Constant(block),
            Run::Consecutive(first) => Run::Consecutive(first + k * BUFFER),
        };
        widen(x, wide);
        in_slices::<_, Q>(params, block, wide, values, bits);
        round(values, y);
    }
}

fn in_slices<C: Compute, Q: SteQuantizer<C>>(
    params: BlockParams<'_>,
    block: Run,
    x: &[C],
    y: &mut [C],
    bits: &mut Bits<'_>,
) {
    let quantizer = PhantomData::<Q>;
    match block {
        Run::Constant(block) => {
            let all = SharedQuantizer(params.quantizer::<C, Q>(block));
            run::<C, _>(Forward { quantizers: |_, _| all, x, y, bits, quantizer });
        }
        Run::Consecutive(first) => {
            let quantizers = |start, len| params.per_element::<WORD, C>(first + start, len);
            run::<C, _>(Forward { quantizers, x, y, bits, quantizer });
        }
    }
}

fn low_bits(len: usize) -> u64 {
    if len < WORD { (1 << len) - 1 } else { u64::MAX }
}

/// The forward pass over a slice; `quantizers(start, len)` returns the quantizers of the elements `start..start + len`.
struct Forward<'a, 'b, P, C, Q> {
    quantizers: P,
    x: &'a [C],
    y: &'a mut [C],
    bits: &'a mut Bits<'b>,
    quantizer: PhantomData<Q>,
}

impl<C, Q, P, E> Task for Forward<'_, '_, P, C, Q>
where
    C: Compute,
    Q: SteQuantizer<C>,
    P: Fn(usize, usize) -> E,
    E: ElementQuantizers<WORD, C, Q>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { quantizers, x, y, bits, .. } = self;
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<WORD>(), y.as_chunks_mut::<WORD>());
        let whole = x.len() * WORD;
        for (k, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let chunk = WordInput { quantizers: quantizers(k * WORD, WORD), x, position: bits.position as u64 };
            let (values, word) = chunk.of::<Q>().run();
            *y = values;
            bits.push(word, WORD);
        }
        let rest = x_rest.len();
        if rest > 0 {
            let mut x = [C::ZERO; WORD];
            x[..rest].copy_from_slice(x_rest);
            let chunk = WordInput { quantizers: quantizers(whole, rest), x: &x, position: bits.position as u64 };
            let (values, word) = chunk.of::<Q>().run();
            y_rest.copy_from_slice(&values[..rest]);
            bits.push(word & low_bits(rest), rest);
        }
    }
}

/// The input of one word of the mask: one element per bit.
struct WordInput<'a, P, C> {
    quantizers: P,
    x: &'a [C; WORD],
    position: u64,
}

impl<'a, P, C> WordInput<'a, P, C> {
    #[inline(always)]
    fn of<Q>(self) -> ForwardWord<'a, P, C, Q> {
        ForwardWord { chunk: self, quantizer: PhantomData }
    }
}

/// [`WordInput`] with the type of its quantizers.
struct ForwardWord<'a, P, C, Q> {
    chunk: WordInput<'a, P, C>,
    quantizer: PhantomData<Q>,
}

impl<C: Compute, Q: SteQuantizer<C>, P: ElementQuantizers<WORD, C, Q>> Task for ForwardWord<'_, P, C, Q> {
    type Output = ([C; WORD], u64);

    #[inline(always)]
    fn run(self) -> ([C; WORD], u64) {
        let WordInput { quantizers, x, position } = self.chunk;
        let x = *x;
        let (mut values, mut passes) = ([C::ZERO; WORD], [0u8; WORD]);
        for i in 0..WORD {
            let rounded = quantizers.quantizer(i).fake_quantize(x[i], position + i as u64);
            values[i] = rounded.value;
            passes[i] = rounded.in_range() as u8;
        }
        (values, pack(&passes))
    }
}

/// Packs the lowest bit of each byte into a word.
#[inline(always)]
fn pack(bytes: &[u8; WORD]) -> u64 {
    let mut word = 0;
    for (i, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // PerElement factor moves one of the eight bits to the top byte; none of the sums carries into it.
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
