//! The loops of fake quantization, compiled for the instruction set in use, as in [`crate::lanes`].

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1, Axis};

use super::mask::WORD;
use crate::affine::{Grid, Rounded, Settings};
use crate::arch::{self, Task};
use crate::element::{Compute, Real};
use crate::granularity::Run;

/// Elements of the sums of gradients that are computed together.
const LANES: usize = 32;

/// Chunks whose sums are formed in the type of the tensor before they are added in `f64`.
const CHUNKS: usize = 64;

/// Scales and zero points of all blocks, in row-major order.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) scale: &'a [f32],
    pub(super) zero_point: &'a [f32],
    pub(super) settings: Settings,
}

impl Table<'_> {
    fn grid<C: Compute, G: Grid<C>>(&self, block: usize) -> G {
        let (scale, zero_point) = (C::from_real(self.scale[block]), C::from_real(self.zero_point[block]));
        G::new(scale, zero_point, &self.settings)
    }

    /// The parameters of up to `N` blocks from this one on.
    fn each<const N: usize, C: Compute>(&self, first: usize, len: usize) -> Each<N, C> {
        let mut each = Each { scale: [C::ONE; N], zero_point: [C::ZERO; N], settings: self.settings };
        for i in 0..len {
            each.scale[i] = C::from_real(self.scale[first + i]);
            each.zero_point[i] = C::from_real(self.zero_point[first + i]);
        }
        each
    }
}

/// The grids of elements that are computed together.
trait Grids<const N: usize, C: Compute, G: Grid<C>> {
    fn grid(&self, i: usize) -> G;
}

/// One grid for all.
#[derive(Clone, Copy)]
struct Same<G>(G);

impl<const N: usize, C: Compute, G: Grid<C>> Grids<N, C, G> for Same<G> {
    #[inline(always)]
    fn grid(&self, _: usize) -> G {
        self.0
    }
}

/// One for each.
struct Each<const N: usize, C> {
    scale: [C; N],
    zero_point: [C; N],
    settings: Settings,
}

impl<const N: usize, C: Compute, G: Grid<C>> Grids<N, C, G> for Each<N, C> {
    #[inline(always)]
    fn grid(&self, i: usize) -> G {
        G::new(self.scale[i], self.zero_point[i], &self.settings)
    }
}

/// Runs a loop compiled for the instruction set in use; those on `f64` are too rare to have several.
fn run<C: Compute, T: Task>(task: T) -> T::Output {
    if size_of::<C>() == 4 { arch::run(task) } else { task.run() }
}

/// Writes bits one after the other.
pub(super) struct Bits<'a> {
    words: &'a mut [u64],
    position: usize,
}

impl<'a> Bits<'a> {
    /// Into words that are 0.
    pub(super) fn new(words: &'a mut [u64]) -> Self {
        Self { words, position: 0 }
    }

    /// Appends the lowest `len` bits of a word whose others are 0.
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

/// Fake-quantizes a run and appends its bits.
pub(super) fn forward<F: Real, G: Grid<F::Compute>>(
    table: Table<'_>,
    block: Run,
    x: ArrayView1<'_, F>,
    mut y: ArrayViewMut1<'_, F>,
    bits: &mut Bits<'_>,
) {
    let in_place = (x.to_slice().and_then(F::as_compute), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Run::Constant(block), (Some(x), Some(y))) = (block, in_place) {
        return run::<F::Compute, _>(Forward { grid: table.grid::<_, G>(block), x, y, bits });
    }
    let pieces = x.axis_chunks_iter(Axis(0), WORD).zip(y.axis_chunks_iter_mut(Axis(0), WORD));
    for (k, (x, mut y)) in pieces.enumerate() {
        let len = x.len();
        let mut wide = [Compute::ZERO; WORD];
        wide.iter_mut().zip(x).for_each(|(wide, &x)| *wide = x.widen());
        let position = bits.position as u64;
        let (values, word) = match block {
            Run::Constant(block) => {
                run::<F::Compute, _>(Chunk { grids: Same(table.grid::<_, G>(block)), x: &wide, position }.of::<G>())
            }
            Run::Consecutive(first) => {
                let grids = table.each::<WORD, F::Compute>(first + k * WORD, len);
                run::<F::Compute, _>(Chunk { grids, x: &wide, position }.of::<G>())
            }
        };
        y.iter_mut().zip(values).for_each(|(y, value)| *y = value.into_real());
        bits.push(word & low_bits(len), len);
    }
}

fn low_bits(len: usize) -> u64 {
    if len < WORD { (1 << len) - 1 } else { u64::MAX }
}

/// One grid for a whole slice.
struct Forward<'a, 'b, G, C> {
    grid: G,
    x: &'a [C],
    y: &'a mut [C],
    bits: &'a mut Bits<'b>,
}

impl<C: Compute, G: Grid<C>> Task for Forward<'_, '_, G, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (x, x_rest) = self.x.as_chunks::<WORD>();
        let (y, y_rest) = self.y.as_chunks_mut::<WORD>();
        for (y, x) in y.iter_mut().zip(x) {
            let position = self.bits.position as u64;
            let (values, word) = Chunk { grids: Same(self.grid), x, position }.of::<G>().run();
            *y = values;
            self.bits.push(word, WORD);
        }
        if !x_rest.is_empty() {
            let mut x = [C::ZERO; WORD];
            x[..x_rest.len()].copy_from_slice(x_rest);
            let position = self.bits.position as u64;
            let (values, word) = Chunk { grids: Same(self.grid), x: &x, position }.of::<G>().run();
            y_rest.copy_from_slice(&values[..y_rest.len()]);
            self.bits.push(word & low_bits(x_rest.len()), x_rest.len());
        }
    }
}

/// As many elements as a word of the mask has bits.
struct Chunk<'a, P, C> {
    grids: P,
    x: &'a [C; WORD],
    position: u64,
}

impl<'a, P, C> Chunk<'a, P, C> {
    #[inline(always)]
    fn of<G>(self) -> ChunkOf<'a, P, C, G> {
        ChunkOf { chunk: self, grid: PhantomData }
    }
}

/// A chunk and the type of its grids.
struct ChunkOf<'a, P, C, G> {
    chunk: Chunk<'a, P, C>,
    grid: PhantomData<G>,
}

impl<C: Compute, G: Grid<C>, P: Grids<WORD, C, G>> Task for ChunkOf<'_, P, C, G> {
    type Output = ([C; WORD], u64);

    #[inline(always)]
    fn run(self) -> ([C; WORD], u64) {
        let Chunk { grids, x, position } = self.chunk;
        let x = *x;
        let (mut values, mut passes) = ([C::ZERO; WORD], [0u8; WORD]);
        for i in 0..WORD {
            let rounded = grids.grid(i).round(x[i], position + i as u64);
            values[i] = rounded.value;
            passes[i] = rounded.passes() as u8;
        }
        (values, pack(&passes))
    }
}

/// The lowest bits of bytes, side by side.
#[inline(always)]
fn pack(bytes: &[u8; WORD]) -> u64 {
    let mut word = 0;
    for (i, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // Each factor moves one of the eight bits to the top byte; none of the sums carries into it.
        let top = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= top << (8 * i);
    }
    word
}

/// `out[i] = grad[i]` where the bit is set, else 0.
pub(super) fn select<F: Real>(words: &[u64], grad: &[F], out: &mut [F]) {
    arch::run(Select { words, grad, out });
}

struct Select<'a, F> {
    words: &'a [u64],
    grad: &'a [F],
    out: &'a mut [F],
}

impl<F: Real> Task for Select<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const HALF: usize = WORD / 2;
        let (grad, grad_rest) = self.grad.as_chunks::<WORD>();
        let (out, out_rest) = self.out.as_chunks_mut::<WORD>();
        for ((out, grad), &word) in out.iter_mut().zip(grad).zip(self.words) {
            let (grad, mut lanes) = (*grad, [F::default(); WORD]);
            for half in 0..2 {
                let bits = (word >> (HALF * half)) as u32;
                for i in 0..HALF {
                    lanes[HALF * half + i] = grad[HALF * half + i].only_if(bits & (1 << i) != 0);
                }
            }
            *out = lanes;
        }
        let last = self.words.last().copied().unwrap_or(0);
        for (i, (out, &grad)) in out_rest.iter_mut().zip(grad_rest).enumerate() {
            *out = grad.only_if(last >> i & 1 == 1);
        }
    }
}

/// The sums over one block that the gradients of its parameters are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    /// Of the gradient times the derivative by the scale.
    pub(super) by_scale: f64,
    /// Of the gradients of what was clipped at the lower end.
    pub(super) below: f64,
    /// Of the gradients of what was clipped at the upper end.
    pub(super) above: f64,
}

/// The gradient by the input over a run of row-major data, and the sums for the blocks it crosses.
///
/// The order of the sums is that of the elements, whatever the instruction set.
pub(super) fn gradients<F: Real, G: Grid<F::Compute>>(
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
            all.input[i] = if rounded.passes() { grad } else { C::ZERO };
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
