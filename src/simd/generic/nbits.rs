//! Products of rows with weights of few bits in groups along the depth, for one panel of 16 columns.
//!
//! A *line* of a panel is 64 bytes: a unit of four codes for each of the 16 columns, and in the higher bits of each byte the
//! units that follow. So a line of 4-bit codes has two units. Codes are unsigned: signed ones are offset by half their
//! range, and so are their zero points.

use super::gemm::{Gemm, load_i32};
use super::simd_f32::F32s;
use crate::affine::dequantize_sum;
use crate::simd::{Task, Vector};

/// Columns of a panel.
pub(crate) const COLUMNS: usize = 16;

/// A unit of each column, for each of the units that share a byte.
pub(crate) type Line = [u8; 4 * COLUMNS];

/// A panel of weights.
#[derive(Clone, Copy)]
pub(crate) struct NBitsPanel<'a> {
    /// `[groups][lines]`.
    pub(crate) lines: &'a [Line],
    /// Lines of a group, at least one.
    pub(crate) group: usize,
    /// `[groups]`.
    pub(crate) scales: GroupScales<'a>,
    /// `[groups]`, or empty: then all are half the range.
    pub(crate) zero_points: &'a [[u8; COLUMNS]],
}

/// Scales of a panel's groups.
#[derive(Clone, Copy)]
pub(crate) enum GroupScales<'a> {
    F32(&'a [[f32; COLUMNS]]),
    /// The bits of `f16`.
    F16(&'a [[u16; COLUMNS]]),
}

/// A row of the LHS that is quantized by group. `PER` units share a byte of the weights.
#[derive(Clone, Copy)]
pub(crate) struct CodeRow<'a, const PER: usize> {
    /// `[groups][lines]`: signed codes, zeros beyond a group.
    pub(crate) units: &'a [[[u8; 4]; PER]],
    /// `[groups]`.
    pub(crate) scales: &'a [f32],
    /// Sums of the codes, `[groups]`.
    pub(crate) sums: &'a [i32],
}

/// A row of the LHS in floats: `[groups][lines]`, zeros beyond a group.
pub(crate) type FloatRow<'a, const PER: usize> = &'a [[[f32; 4]; PER]];

/// `y[i][j] = Σ_group f32(Σ_k x[i][k] * (w[k][j] - zero_point[group][j])) * (x_scale[i][group] * w_scale[group][j])`: integer
/// sums within a group, floats across groups in their order.
pub(crate) struct CodesByNBits<'a, G, const BITS: i32, const PER: usize> {
    pub(crate) g: G,
    pub(crate) rows: &'a [CodeRow<'a, PER>],
    pub(crate) panel: NBitsPanel<'a>,
    /// One per row.
    pub(crate) out: &'a mut [[f32; COLUMNS]],
}

impl<G: Gemm, const BITS: i32, const PER: usize> Task for CodesByNBits<'_, G, BITS, PER> {
    type Output = ();

    /// Branches on constants, so that only the loops of the instruction set are compiled.
    #[inline(always)]
    fn run(self) {
        if const { G::V::LANES == 16 } {
            self.rows::<8, 1>();
        } else if const { G::V::LANES == 8 } {
            self.rows::<2, 2>();
        } else {
            self.rows::<1, 4>();
        }
    }
}

impl<G: Gemm, const BITS: i32, const PER: usize> CodesByNBits<'_, G, BITS, PER> {
    #[inline(always)]
    fn rows<const ROWS: usize, const REGS: usize>(self) {
        let Self { g, rows, panel, out } = self;
        let ((rows, rest), (out, out_rest)) = (rows.as_chunks::<ROWS>(), out.as_chunks_mut::<ROWS>());
        for (rows, out) in rows.iter().zip(out) {
            *out = codes_by_panel::<G, BITS, PER, ROWS, REGS>(g, rows, panel);
        }
        for (row, out) in rest.iter().zip(out_rest) {
            [*out] = codes_by_panel::<G, BITS, PER, 1, REGS>(g, &[*row], panel);
        }
    }
}

#[inline(always)]
fn codes_by_panel<G: Gemm, const BITS: i32, const PER: usize, const ROWS: usize, const REGS: usize>(
    g: G,
    rows: &[CodeRow<'_, PER>; ROWS],
    panel: NBitsPanel<'_>,
) -> [[f32; COLUMNS]; ROWS] {
    let v = g.vector();
    let mask = v.splat(i32::from_ne_bytes([((1u32 << BITS) - 1) as u8; 4]));
    // Only codes of 8 bits need the sign that the product wants: XOR 0x80 subtracts 128.
    let signed = const { BITS == 8 && G::SIGNED_LHS };
    let (sign_xor, offset) = if signed { (v.splat(0x8080_8080u32 as i32), 128) } else { (v.splat(0), 0) };
    let mut y = [[v.splat_f32(0.0); REGS]; ROWS];
    for (k, lines) in panel.lines.chunks_exact(panel.group).enumerate() {
        let units: [&[_]; ROWS] = array!(&rows[0].units[..0], i => &rows[i].units[k * panel.group..][..lines.len()]);
        let zero_points: [_; REGS] = panel.zero_points::<G::V, REGS>(v, k, BITS, offset);
        let mut acc = [[v.splat(0); REGS]; ROWS];
        for i in 0..ROWS {
            let sum = v.splat(rows[i].sums[k]);
            acc[i] = array!(sum, r => v.sub(v.splat(0), v.mul(zero_points[r], sum)));
        }
        for (l, line) in lines.iter().enumerate() {
            if ROWS == 1 {
                v.prefetch(line.as_ptr().wrapping_add(AHEAD));
            }
            let mut weights: [_; REGS] = array!(v.splat(0), r => load_line(v, line, r));
            for p in 0..PER {
                let codes: [_; REGS] = array!(mask, r => {
                    let codes = v.and(weights[r], mask);
                    if signed { v.xor(codes, sign_xor) } else { codes }
                });
                for i in 0..ROWS {
                    let unit = g.weights(v.splat(i32::from_le_bytes(units[i][l][p])));
                    for r in 0..REGS {
                        acc[i][r] = g.dot4(acc[i][r], codes[r], unit);
                    }
                }
                for weights in &mut weights {
                    *weights = v.shift_right(*weights, BITS);
                }
            }
        }
        let scales: [_; REGS] = panel.scales(v, k);
        for i in 0..ROWS {
            let row_scale = v.splat_f32(rows[i].scales[k]);
            for r in 0..REGS {
                let scale = F32s(v, v.mul_f32(row_scale, scales[r]));
                y[i][r] = dequantize_sum(acc[i][r], scale, Some(F32s(v, y[i][r])), None).1;
            }
        }
    }
    stored(v, &y)
}

/// Bytes that one row prefetches ahead: the hardware prefetcher stops at each page.
const AHEAD: usize = 4096;

/// `y[i][j] = Σ_group (Σ_k x[i][k] * (w[k][j] - zero_point[group][j])) * w_scale[group][j]` in floats. Within a group, four
/// sums of every fourth value are added in pairs.
pub(crate) struct FloatsByNBits<'a, V, const BITS: i32, const PER: usize> {
    pub(crate) v: V,
    pub(crate) rows: &'a [FloatRow<'a, PER>],
    pub(crate) panel: NBitsPanel<'a>,
    /// One per row.
    pub(crate) out: &'a mut [[f32; COLUMNS]],
}

impl<V: Vector, const BITS: i32, const PER: usize> Task for FloatsByNBits<'_, V, BITS, PER> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if const { V::LANES == 16 } {
            self.rows::<4, 1>();
        } else if const { V::LANES == 8 } {
            self.rows::<1, 2>();
        } else {
            self.rows::<1, 4>();
        }
    }
}

impl<V: Vector, const BITS: i32, const PER: usize> FloatsByNBits<'_, V, BITS, PER> {
    #[inline(always)]
    fn rows<const ROWS: usize, const REGS: usize>(self) {
        let Self { v, rows, panel, out } = self;
        let ((rows, rest), (out, out_rest)) = (rows.as_chunks::<ROWS>(), out.as_chunks_mut::<ROWS>());
        for (rows, out) in rows.iter().zip(out) {
            *out = floats_by_panel::<V, BITS, PER, ROWS, REGS>(v, rows, panel);
        }
        for (row, out) in rest.iter().zip(out_rest) {
            [*out] = floats_by_panel::<V, BITS, PER, 1, REGS>(v, &[*row], panel);
        }
    }
}

#[inline(always)]
fn floats_by_panel<V: Vector, const BITS: i32, const PER: usize, const ROWS: usize, const REGS: usize>(
    v: V,
    rows: &[FloatRow<'_, PER>; ROWS],
    panel: NBitsPanel<'_>,
) -> [[f32; COLUMNS]; ROWS] {
    let mask = v.splat((1 << BITS) - 1);
    let mut y = [[v.splat_f32(0.0); REGS]; ROWS];
    for (k, lines) in panel.lines.chunks_exact(panel.group).enumerate() {
        let units: [&[_]; ROWS] = array!(&rows[0][..0], i => &rows[i][k * panel.group..][..lines.len()]);
        let zero_points: [_; REGS] = panel.zero_points::<V, REGS>(v, k, BITS, 0);
        let mut sums = [[[v.splat_f32(0.0); REGS]; 4]; ROWS];
        for (l, line) in lines.iter().enumerate() {
            if ROWS == 1 {
                v.prefetch(line.as_ptr().wrapping_add(AHEAD));
            }
            let mut weights: [_; REGS] = array!(v.splat(0), r => load_line(v, line, r));
            for p in 0..PER {
                let mut bytes = weights;
                for d in 0..4 {
                    for r in 0..REGS {
                        let centred = v.to_f32(v.sub(v.and(bytes[r], mask), zero_points[r]));
                        bytes[r] = v.shift_right(bytes[r], 8);
                        for i in 0..ROWS {
                            let product = v.mul_f32(v.splat_f32(units[i][l][p][d]), centred);
                            sums[i][d][r] = v.add_f32(sums[i][d][r], product);
                        }
                    }
                }
                for weights in &mut weights {
                    *weights = v.shift_right(*weights, BITS);
                }
            }
        }
        let scales: [_; REGS] = panel.scales(v, k);
        for i in 0..ROWS {
            let [a, b, c, d] = sums[i];
            for r in 0..REGS {
                let sum = v.add_f32(v.add_f32(a[r], b[r]), v.add_f32(c[r], d[r]));
                y[i][r] = v.add_f32(v.mul_f32(sum, scales[r]), y[i][r]);
            }
        }
    }
    stored(v, &y)
}

impl NBitsPanel<'_> {
    /// Returns the zero points of a group, less `offset`.
    #[inline(always)]
    fn zero_points<V: Vector, const REGS: usize>(self, v: V, group: usize, bits: i32, offset: i32) -> [V::I32; REGS] {
        match self.zero_points.get(group) {
            Some(zero_points) => {
                let wide: [i32; COLUMNS] = array!(0, j => i32::from(zero_points[j]) - offset);
                array!(v.splat(0), r => load_i32(v, &wide[r * V::LANES..]))
            }
            None => [v.splat((1 << (bits - 1)) - offset); REGS],
        }
    }

    #[inline(always)]
    fn scales<V: Vector, const REGS: usize>(self, v: V, group: usize) -> [V::F32; REGS] {
        assert!(REGS * V::LANES == COLUMNS, "registers of a panel");
        // SAFETY: the assertion bounds the reads.
        unsafe {
            match self.scales {
                GroupScales::F32(scales) => {
                    let scales = scales[group].as_ptr();
                    array!(v.splat_f32(0.0), r => v.load_f32(scales.add(r * V::LANES)))
                }
                GroupScales::F16(scales) => {
                    let scales = scales[group].as_ptr();
                    array!(v.splat_f32(0.0), r => v.load_f16(scales.add(r * V::LANES)))
                }
            }
        }
    }
}

/// Loads register `r` of a line.
#[inline(always)]
fn load_line<V: Vector>(v: V, line: &Line, r: usize) -> V::I32 {
    let register = &line[4 * V::LANES * r..][..4 * V::LANES];
    // SAFETY: the slice is a register long.
    unsafe { v.load(register.as_ptr()) }
}

#[inline(always)]
fn stored<V: Vector, const ROWS: usize, const REGS: usize>(v: V, y: &[[V::F32; REGS]; ROWS]) -> [[f32; COLUMNS]; ROWS] {
    assert!(REGS * V::LANES == COLUMNS, "registers of a panel");
    let mut out = [[0.0; COLUMNS]; ROWS];
    for (out, y) in out.iter_mut().zip(y) {
        for (r, &y) in y.iter().enumerate() {
            // SAFETY: the assertion bounds the write.
            unsafe { v.store_f32(out.as_mut_ptr().add(r * V::LANES), y) }
        }
    }
    out
}
