//! Depthwise convolution by 4-way dot products (dot4) of interleaved codes.
//!
//! A 64-byte vector holds 4 codes of each of 16 channels, side by side, as dot-product instructions multiply and add
//! them. `REGS` registers hold a vector, and `XS` outputs are computed together, so that they have four registers of
//! accumulators, which output stages take.

use super::gemm::{Gemm, load_i32};
use super::output::{OutTile, Stage};
use crate::simd::{Task, Vector};

/// Four codes of each of 16 channels: 64 bytes.
pub(crate) type Vector64 = [u8; 64];

/// Channels of a [`Vector64`].
pub(crate) const CHANNELS: usize = 16;

/// Rows of depthwise outputs: `acc[r][x][c] = start[c] + Σ_t Σ_i input[x][t][c][i] * weights[r][t][c][i]` for all
/// outputs `x`, channels `c`, kernel positions `t` and `i < 4`. `input[x][t]` is vector `x * step + offsets[t]`. Sums wrap.
#[derive(Clone, Copy)]
pub(crate) struct Dot4<'a> {
    pub(crate) rows: usize,
    /// Outputs in a row.
    pub(crate) outputs: usize,
    /// Codes of the sign of [`Gemm::SIGNED_LHS`], for neighbouring blocks of 16 channels: block `b` starts at vector `b`.
    pub(crate) vectors: &'a [Vector64],
    /// Distance between the first vectors of neighbouring outputs.
    pub(crate) step: usize,
    /// Distance of each tap's vector from the first vector of an output.
    pub(crate) offsets: &'a [usize],
    /// The bits of signed codes, `[blocks][rows or more][positions]`.
    pub(crate) weights: &'a [Vector64],
    /// Initial accumulators, `[blocks]`.
    pub(crate) start: &'a [[i32; CHANNELS]],
}

/// Computes a [`Dot4`] and stores its outputs by a stage: output `x` of row `r` in row `r * row_pixels + x` of `out`.
pub(crate) struct Dot4Call<'a, G, S: Stage> {
    pub(crate) g: G,
    pub(crate) dot4: Dot4<'a>,
    pub(crate) stage: S,
    pub(crate) out: OutTile<'a, S::Out>,
    pub(crate) row_pixels: usize,
}

impl<G: Gemm, S: Stage> Dot4Call<'_, G, S> {
    pub(crate) fn run(self) {
        match G::V::LANES {
            4 => self.compute::<4, 1>(),
            8 => self.compute::<2, 2>(),
            _ => self.compute::<1, 4>(),
        }
    }

    fn compute<const REGS: usize, const XS: usize>(mut self) {
        let Dot4 { rows, outputs, vectors, step, offsets, weights, start } = self.dot4;
        let blocks = start.len();
        if blocks == 0 || rows == 0 || outputs == 0 {
            return;
        }
        // The bounds of all reads of vectors and weights below.
        let farthest = offsets.iter().copied().max().unwrap_or(0);
        let last = (outputs - 1).checked_mul(step).and_then(|last| last.checked_add(farthest)?.checked_add(blocks - 1));
        assert!(last.is_some_and(|last| last < vectors.len()), "vectors of all kernel positions");
        let positions = rows.checked_mul(offsets.len());
        assert!(
            positions.is_some_and(|positions| positions <= weights.len() / blocks),
            "weights of all kernel positions"
        );
        let columns = TapColumns::detect(&self.dot4).filter(|_| outputs >= XS);
        let mut row = 0;
        while row < rows {
            // A branch on a constant: without it, tiles would be compiled for stages that never use them.
            row += if S::FROM_REGISTERS {
                self.tap_rows::<REGS, XS>(columns, row)
            } else {
                self.g.run(AnyKernel::<G, S, REGS, XS> { call: &mut self, row })
            };
        }
    }

    fn tap_rows<const REGS: usize, const XS: usize>(&mut self, columns: Option<TapColumns>, row: usize) -> usize {
        let (g, rows, call) = (self.g, self.dot4.rows, self);
        match columns {
            Some(columns @ TapColumns { groups: 1, stride: 1, .. }) if row + 1 < rows => {
                g.run(TapRows::<G, S, REGS, XS, 1, 3, 1, 2> { call, columns, row })
            }
            Some(columns @ TapColumns { groups: 1, stride: 1, .. }) => {
                g.run(TapRows::<G, S, REGS, XS, 1, 3, 1, 1> { call, columns, row })
            }
            Some(columns @ TapColumns { groups: 1, .. }) => {
                g.run(TapRows::<G, S, REGS, XS, 1, 3, 2, 1> { call, columns, row })
            }
            Some(columns @ TapColumns { stride: 1, .. }) => {
                g.run(TapRows::<G, S, REGS, XS, 2, 5, 1, 1> { call, columns, row })
            }
            Some(columns) => g.run(TapRows::<G, S, REGS, XS, 2, 5, 2, 1> { call, columns, row }),
            None => g.run(AnyKernel::<G, S, REGS, XS> { call, row }),
        }
    }
}

/// `ROWS` rows, which share input vectors, with weights in registers. Each input column is loaded once for all outputs
/// that see it. Returns the number of rows.
///
/// Made by [`Dot4Call::compute`], which checked the bounds: the vectors and weights of all kernel positions, outputs and rows exist,
/// `columns` describes the positions, and a row has at least `XS` outputs.
struct TapRows<
    'a,
    'b,
    G,
    S: Stage,
    const REGS: usize,
    const XS: usize,
    const GROUPS: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const ROWS: usize,
> {
    call: &'a mut Dot4Call<'b, G, S>,
    columns: TapColumns,
    row: usize,
}

impl<
    G: Gemm,
    S: Stage,
    const REGS: usize,
    const XS: usize,
    const GROUPS: usize,
    const WIDTH: usize,
    const STRIDE: usize,
    const ROWS: usize,
> Task for TapRows<'_, '_, G, S, REGS, XS, GROUPS, WIDTH, STRIDE, ROWS>
{
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        let Self { call, columns, row } = self;
        let (g, v, stage) = (call.g, call.g.vector(), call.stage);
        let Dot4 { outputs, vectors, weights, start, .. } = call.dot4;
        let per_block = weights.len() / start.len();
        for (block, start) in start.iter().enumerate() {
            let weights = &weights[block * per_block + row * GROUPS * WIDTH..][..ROWS * GROUPS * WIDTH];
            let mut kernel = [[[[g.weights(v.splat(0)); REGS]; WIDTH]; GROUPS]; ROWS];
            for (to, from) in kernel.as_flattened_mut().as_flattened_mut().iter_mut().zip(weights) {
                let bytes = load_vector64::<_, REGS>(v, from);
                *to = array!(g.weights(bytes[0]), i => g.weights(bytes[i]));
                // The hardware prefetcher does not find the next block.
                v.prefetch(from.as_ptr().wrapping_add(per_block * size_of::<Vector64>()));
            }
            let start: [_; REGS] = array!(v.splat(0), i => load_i32(v, &start[i * G::V::LANES..]));
            for first in (0..outputs).step_by(XS) {
                // A remainder is computed as the last outputs, overlapping.
                let first = first.min(outputs - XS);
                let vectors = vectors[block..].as_ptr().wrapping_add(first * STRIDE * columns.column);
                let mut acc = [[start; XS]; ROWS];
                #[allow(clippy::needless_range_loop, reason = "an index of two arrays")]
                for q in 0..GROUPS {
                    for c in 0..(XS - 1) * STRIDE + WIDTH {
                        // SAFETY: the last of these outputs sees column `c` or a later one, and its vectors exist.
                        let codes = unsafe { &*vectors.add(q * columns.plane + c * columns.column) };
                        let codes: [_; REGS] = load_vector64(v, codes);
                        for (r, acc) in acc.iter_mut().enumerate() {
                            for (x, acc) in acc.iter_mut().enumerate() {
                                if c >= x * STRIDE && c - x * STRIDE < WIDTH {
                                    for i in 0..REGS {
                                        acc[i] = g.dot4(acc[i], codes[i], kernel[r][q][c - x * STRIDE][i]);
                                    }
                                }
                            }
                        }
                    }
                }
                for (r, acc) in acc.iter().enumerate() {
                    let pixel = (row + r) * call.row_pixels + first;
                    stage.store::<_, XS, REGS>(v, acc, call.out.from(pixel, block * CHANNELS));
                }
            }
        }
        ROWS
    }
}

/// One row of a kernel of any number of positions, with weights from memory. Made by [`Dot4Call::compute`], which checked the
/// bounds.
struct AnyKernel<'a, 'b, G, S: Stage, const REGS: usize, const XS: usize> {
    call: &'a mut Dot4Call<'b, G, S>,
    row: usize,
}

impl<G: Gemm, S: Stage, const REGS: usize, const XS: usize> Task for AnyKernel<'_, '_, G, S, REGS, XS> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        let Self { call, row } = self;
        let (g, v, stage) = (call.g, call.g.vector(), call.stage);
        let Dot4 { outputs, vectors, step, offsets, weights, start, .. } = call.dot4;
        let per_block = weights.len() / start.len();
        for (block, start) in start.iter().enumerate() {
            let weights = &weights[block * per_block + row * offsets.len()..][..offsets.len()];
            let start: [_; REGS] = array!(v.splat(0), i => load_i32(v, &start[i * G::V::LANES..]));
            for first in (0..outputs).step_by(XS) {
                // A remainder is computed as the last outputs, overlapping. Fewer outputs repeat the last one.
                let first = first.min(outputs.saturating_sub(XS));
                let vectors = vectors[block..].as_ptr();
                let at: [_; XS] = array!(vectors, x => vectors.wrapping_add((first + x).min(outputs - 1) * step));
                let mut acc = [start; XS];
                for (&offset, weights) in offsets.iter().zip(weights) {
                    let bytes = load_vector64::<_, REGS>(v, weights);
                    let weights: [_; REGS] = array!(g.weights(bytes[0]), i => g.weights(bytes[i]));
                    for (acc, at) in acc.iter_mut().zip(at) {
                        // SAFETY: `compute` saw a vector for each tap of each output.
                        let codes: [_; REGS] = load_vector64(v, unsafe { &*at.add(offset) });
                        for i in 0..REGS {
                            acc[i] = g.dot4(acc[i], codes[i], weights[i]);
                        }
                    }
                }
                let pixel = row * call.row_pixels + first;
                if outputs >= XS {
                    stage.store::<_, XS, REGS>(v, &acc, call.out.from(pixel, block * CHANNELS));
                    continue;
                }
                for (x, acc) in acc.iter().enumerate().take(outputs) {
                    stage.store::<_, 1, REGS>(v, &[*acc], call.out.from(pixel + x, block * CHANNELS));
                }
            }
        }
        1
    }
}

/// Kernel positions that form a 3 × 3 kernel in one group of four kernel rows, or a 5 × 5 kernel in two groups.
#[derive(Clone, Copy)]
struct TapColumns {
    groups: usize,
    /// Columns between neighbouring outputs: 1 or 2.
    stride: usize,
    /// Vectors from a column to the next.
    column: usize,
    /// Vectors from a group of rows to the next.
    plane: usize,
}

impl TapColumns {
    #[inline(always)]
    fn detect(input: &Dot4<'_>) -> Option<Self> {
        let (width, groups) = match input.offsets.len() {
            3 => (3, 1),
            10 => (5, 2),
            _ => return None,
        };
        let (column, plane) = (input.offsets[1] - input.offsets[0], input.offsets[input.offsets.len() - width]);
        let mut all = input.step == column || input.step == 2 * column;
        for (i, &offset) in input.offsets.iter().enumerate() {
            all &= offset == i / width * plane + i % width * column;
        }
        let stride = if input.step == column { 1 } else { 2 };
        all.then_some(Self { groups, stride, column, plane })
    }
}

#[inline(always)]
fn load_vector64<V: Vector, const REGS: usize>(v: V, from: &Vector64) -> [V::I32; REGS] {
    assert!(4 * REGS * V::LANES == size_of::<Vector64>(), "registers of a vector");
    // SAFETY: the assertion says that the registers have the size of the vector.
    array!(v.splat(0), i => unsafe { v.load(from.as_ptr().add(4 * i * V::LANES)) })
}

/// Interleaves four rows of pixels for [`Dot4`]: `vectors[x][4 * c + r] = rows[r][x * pixel + c] ^ sign_xor` for
/// `c < channels`. Channels past the last one of a pixel's last vector are unspecified.
pub(crate) struct Interleave4<'a, V> {
    pub(crate) v: V,
    pub(crate) rows: [&'a [u8]; 4],
    /// 0x80 adds the sign offset.
    pub(crate) sign_xor: u8,
    /// Distance between pixels in bytes.
    pub(crate) pixel: usize,
    /// Channels to read of each pixel.
    pub(crate) channels: usize,
    /// `channels.div_ceil(CHANNELS)` vectors per pixel.
    pub(crate) vectors: &'a mut [Vector64],
}

impl<V: Vector> Task for Interleave4<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { v, rows, sign_xor, pixel, channels, vectors } = self;
        let sign_xor = v.splat(i32::from_ne_bytes([sign_xor; 4]));
        if channels == 0 {
            return;
        }
        for (x, vectors) in vectors.chunks_exact_mut(channels.div_ceil(CHANNELS)).enumerate() {
            let rows: [_; 4] = array!(&[][..], r => &rows[r][x * pixel..][..channels]);
            let vectors = vectors.as_flattened_mut();
            // Four registers of codes become four registers of vectors.
            for first in (0..channels).step_by(4 * V::LANES) {
                let to = &mut vectors[4 * first..];
                if channels - first >= 4 * V::LANES {
                    assert!(to.len() >= 16 * V::LANES, "vectors of all channels");
                    // SAFETY: the condition and the assertion bound the reads and writes of four registers.
                    unsafe {
                        interleave(
                            v,
                            array!(rows[0].as_ptr(), r => rows[r].as_ptr().add(first)),
                            sign_xor,
                            to.as_mut_ptr(),
                        )
                    }
                    continue;
                }
                let (mut from, mut buffer) = ([[0u8; 64]; 4], [0u8; 256]);
                for (from, row) in from.iter_mut().zip(rows) {
                    from.iter_mut().zip(&row[first..]).for_each(|(to, code)| *to = *code);
                }
                // SAFETY: the buffers hold four registers of any set.
                unsafe { interleave(v, array!(from[0].as_ptr(), r => from[r].as_ptr()), sign_xor, buffer.as_mut_ptr()) }
                to.iter_mut().zip(buffer).for_each(|(to, code)| *to = code);
            }
        }
    }
}

/// Interleaves a register of each of four rows.
///
/// # Safety
/// - `from` are valid for reads of a register, `to` for writes of four.
#[inline(always)]
unsafe fn interleave<V: Vector>(v: V, from: [*const u8; 4], sign_xor: V::I32, to: *mut u8) {
    // SAFETY: the caller promises the memory.
    unsafe {
        // Unpacking works within groups; this permutation makes it give channels in order.
        let [a, b, c, d] = array!(sign_xor, r => v.transpose_to_groups(v.xor(v.load(from[r]), sign_xor)));
        let (ab, cd) = (v.unpack_low_i8(a, b), v.unpack_low_i8(c, d));
        let (ab_high, cd_high) = (v.unpack_high_i8(a, b), v.unpack_high_i8(c, d));
        v.store(to, v.unpack_low_i16(ab, cd));
        v.store(to.add(4 * V::LANES), v.unpack_high_i16(ab, cd));
        v.store(to.add(8 * V::LANES), v.unpack_low_i16(ab_high, cd_high));
        v.store(to.add(12 * V::LANES), v.unpack_high_i16(ab_high, cd_high));
    }
}
