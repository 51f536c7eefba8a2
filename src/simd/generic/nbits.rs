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
    /// `[groups]`: the same numbers for all weights of a group, beside their product with the scale.
    pub(crate) offsets: Option<GroupScales<'a>>,
    /// `[groups]`, or empty: then all are `zero_point`.
    pub(crate) zero_points: &'a [[u8; COLUMNS]],
    pub(crate) zero_point: u8,
}

/// Scales or offsets of a panel's groups.
#[derive(Clone, Copy)]
pub(crate) enum GroupScales<'a> {
    F32(&'a [[f32; COLUMNS]]),
    /// The bits of `f16`.
    F16(&'a [[u16; COLUMNS]]),
    /// Products, rounded to `f32`, of a number of `f16` for each `groups` groups and an integer of each group.
    Blocks {
        of_blocks: &'a [[u16; COLUMNS]],
        of_groups: &'a [[i8; COLUMNS]],
        groups: usize,
    },
}

/// `ROWS` rows of the LHS that are quantized by group. `PER` units share a byte of the weights.
#[derive(Clone, Copy)]
pub(crate) struct CodeRows<'a, const PER: usize, const ROWS: usize> {
    /// `[groups][lines]`: signed codes, zeros beyond a group.
    pub(crate) units: &'a [[[[u8; 4]; ROWS]; PER]],
    /// `[groups]`.
    pub(crate) scales: &'a [[f32; ROWS]],
    /// Sums of the codes, `[groups]`.
    pub(crate) sums: &'a [[i32; ROWS]],
}

/// `ROWS` rows of the LHS in floats.
#[derive(Clone, Copy)]
pub(crate) struct FloatRows<'a, const PER: usize, const ROWS: usize> {
    /// `[groups][lines]`: zeros beyond a group.
    pub(crate) units: &'a [[[[f32; ROWS]; 4]; PER]],
    /// Sums of the values, `[groups]`. Read if the panel has offsets.
    pub(crate) sums: &'a [[f32; ROWS]],
}

/// `y[i][j] = Σ_group f32(Σ_k x[i][k] * (w[k][j] - zero_point[group][j])) * (x_scale[i][group] * w_scale[group][j])`: integer
/// sums within a group, floats across groups in their order. If there are offsets, each group adds `(x_scale[i][group] * Σ_k
/// x[i][k]) * offset[group][j]` too.
pub(crate) struct CodesByNBits<'a, G, const BITS: i32, const PER: usize, const ROWS: usize> {
    pub(crate) g: G,
    pub(crate) rows: CodeRows<'a, PER, ROWS>,
    pub(crate) panel: NBitsPanel<'a>,
    pub(crate) out: &'a mut [[f32; COLUMNS]; ROWS],
}

impl<G: Gemm, const BITS: i32, const PER: usize, const ROWS: usize> Task for CodesByNBits<'_, G, BITS, PER, ROWS> {
    type Output = ();

    /// Branches on constants, so that only the loop of the instruction set is compiled.
    #[inline(always)]
    fn run(self) {
        let Self { g, rows, panel, out } = self;
        if const { G::V::LANES == 16 } {
            *out = codes_by_panel::<G, BITS, PER, ROWS, 1>(g, rows, panel);
        } else if const { G::V::LANES == 8 } {
            *out = codes_by_panel::<G, BITS, PER, ROWS, 2>(g, rows, panel);
        } else {
            *out = codes_by_panel::<G, BITS, PER, ROWS, 4>(g, rows, panel);
        }
    }
}

#[inline(always)]
fn codes_by_panel<G: Gemm, const BITS: i32, const PER: usize, const ROWS: usize, const REGS: usize>(
    g: G,
    rows: CodeRows<'_, PER, ROWS>,
    panel: NBitsPanel<'_>,
) -> [[f32; COLUMNS]; ROWS] {
    let v = g.vector();
    // Only codes of 8 bits need the sign that the product wants: XOR 0x80 subtracts 128.
    let signed = const { BITS == 8 && G::SIGNED_LHS };
    let (sign_xor, offset) = if signed { (v.splat(0x8080_8080u32 as i32), 128) } else { (v.splat(0), 0) };
    let groups = panel.lines.chunks_exact(panel.group).zip(rows.units.chunks_exact(panel.group));
    let groups = groups.zip(rows.scales.iter().zip(rows.sums));
    let mut y = [[v.splat_f32(0.0); REGS]; ROWS];
    for (k, ((lines, units), (row_scales, sums))) in groups.enumerate() {
        let mut acc = [[v.splat(0); REGS]; ROWS];
        match panel.zero_points.get(k) {
            None => {
                for i in 0..ROWS {
                    acc[i] = [v.splat(-(i32::from(panel.zero_point) - offset) * sums[i]); REGS];
                }
            }
            Some(zero_points) => {
                let zero_points: [_; REGS] = widened(v, zero_points, offset);
                for i in 0..ROWS {
                    acc[i] = array!(acc[0][0], r => v.sub(v.splat(0), v.mul(zero_points[r], v.splat(sums[i]))));
                }
            }
        }
        // Lines whose sums fit the accumulators of small codes.
        let fit =
            const { if BITS == 8 { usize::MAX } else { G::SMALL_MAX as usize / (2 * 128 * ((1 << BITS) - 1)) / PER } };
        for (lines, units) in lines.chunks(fit).zip(units.chunks(fit)) {
            let mut sums = [[v.splat(0); REGS]; ROWS];
            for (line, units) in lines.iter().zip(units) {
                if ROWS == 1 {
                    v.prefetch(line.as_ptr().wrapping_add(AHEAD));
                }
                let weights: [_; REGS] = array!(v.splat(0), r => load_line(v, line, r));
                for (k, units) in units.iter().enumerate() {
                    let codes: [_; REGS] = array!(v.splat(0), r => {
                        let codes = unit_codes::<_, BITS>(v, weights[r], k);
                        if signed { v.xor(codes, sign_xor) } else { codes }
                    });
                    for (sums, &unit) in sums.iter_mut().zip(units) {
                        let unit = v.splat(i32::from_le_bytes(unit));
                        for r in 0..REGS {
                            sums[r] = if BITS == 8 {
                                g.dot4(sums[r], codes[r], g.weights(unit))
                            } else {
                                g.dot4_small(sums[r], codes[r], unit)
                            };
                        }
                    }
                }
            }
            for (acc, sums) in acc.iter_mut().zip(sums) {
                for r in 0..REGS {
                    acc[r] = if BITS == 8 { v.add(acc[r], sums[r]) } else { g.add_small(acc[r], sums[r]) };
                }
            }
        }
        let scales: [_; REGS] = panel.scales.group(v, k);
        for i in 0..ROWS {
            let row_scale = v.splat_f32(row_scales[i]);
            for r in 0..REGS {
                let scale = F32s(v, v.mul_f32(row_scale, scales[r]));
                y[i][r] = dequantize_sum(acc[i][r], scale, Some(F32s(v, y[i][r])), None).1;
            }
        }
        if let Some(offsets) = panel.offsets {
            let sums: [f32; ROWS] = array!(0.0, i => row_scales[i] * sums[i] as f32);
            add_offsets(v, &mut y, &sums, offsets.group(v, k));
        }
    }
    stored(v, &y)
}

/// Adds the products of the sums of a group of each row with the offsets of the group.
#[inline(always)]
fn add_offsets<V: Vector, const ROWS: usize, const REGS: usize>(
    v: V,
    y: &mut [[V::F32; REGS]; ROWS],
    sums: &[f32; ROWS],
    offsets: [V::F32; REGS],
) {
    for (y, &sum) in y.iter_mut().zip(sums) {
        for r in 0..REGS {
            y[r] = v.add_f32(v.mul_f32(v.splat_f32(sum), offsets[r]), y[r]);
        }
    }
}

/// Returns unit `k` of a register of a line.
#[inline(always)]
fn unit_codes<V: Vector, const BITS: i32>(v: V, line: V::I32, k: usize) -> V::I32 {
    let mask = v.splat(i32::from_ne_bytes([((1u32 << BITS) - 1) as u8; 4]));
    v.and(v.shift_right(line, k as i32 * BITS), mask)
}

/// Bytes that one row prefetches ahead: the hardware prefetcher stops at each page.
const AHEAD: usize = 4096;

/// `y[i][j] = Σ_group (Σ_k x[i][k] * (w[k][j] - zero_point[group][j])) * w_scale[group][j]` in floats, in the order of the depth.
/// If there are offsets, each group adds `(Σ_k x[i][k]) * offset[group][j]` too.
pub(crate) struct FloatsByNBits<'a, V, const BITS: i32, const PER: usize, const ROWS: usize> {
    pub(crate) v: V,
    pub(crate) rows: FloatRows<'a, PER, ROWS>,
    pub(crate) panel: NBitsPanel<'a>,
    pub(crate) out: &'a mut [[f32; COLUMNS]; ROWS],
}

impl<V: Vector, const BITS: i32, const PER: usize, const ROWS: usize> Task for FloatsByNBits<'_, V, BITS, PER, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { v, rows, panel, out } = self;
        if const { V::LANES == 16 } {
            *out = floats_by_panel::<V, BITS, PER, ROWS, 1>(v, rows, panel);
        } else if const { V::LANES == 8 } {
            *out = floats_by_panel::<V, BITS, PER, ROWS, 2>(v, rows, panel);
        } else {
            *out = floats_by_panel::<V, BITS, PER, ROWS, 4>(v, rows, panel);
        }
    }
}

#[inline(always)]
fn floats_by_panel<V: Vector, const BITS: i32, const PER: usize, const ROWS: usize, const REGS: usize>(
    v: V,
    rows: FloatRows<'_, PER, ROWS>,
    panel: NBitsPanel<'_>,
) -> [[f32; COLUMNS]; ROWS] {
    let mask = v.splat((1 << BITS) - 1);
    let groups = panel.lines.chunks_exact(panel.group).zip(rows.units.chunks_exact(panel.group));
    let mut y = [[v.splat_f32(0.0); REGS]; ROWS];
    for (k, (lines, units)) in groups.enumerate() {
        let zero_points: [_; REGS] = match panel.zero_points.get(k) {
            None => [v.splat(panel.zero_point.into()); REGS],
            Some(zero_points) => widened(v, zero_points, 0),
        };
        let mut sums = [[v.splat_f32(0.0); REGS]; ROWS];
        for (line, units) in lines.iter().zip(units) {
            if ROWS == 1 {
                v.prefetch(line.as_ptr().wrapping_add(AHEAD));
            }
            let mut weights: [_; REGS] = array!(v.splat(0), r => load_line(v, line, r));
            for units in units {
                let mut bytes = weights;
                for x in units {
                    for r in 0..REGS {
                        let centred = v.to_f32(v.sub(v.and(bytes[r], mask), zero_points[r]));
                        bytes[r] = v.shift_right(bytes[r], 8);
                        for (sums, &x) in sums.iter_mut().zip(x) {
                            sums[r] = v.add_f32(sums[r], v.mul_f32(v.splat_f32(x), centred));
                        }
                    }
                }
                for weights in &mut weights {
                    *weights = v.shift_right(*weights, BITS);
                }
            }
        }
        let scales: [_; REGS] = panel.scales.group(v, k);
        for (y, sums) in y.iter_mut().zip(sums) {
            for r in 0..REGS {
                y[r] = v.add_f32(v.mul_f32(sums[r], scales[r]), y[r]);
            }
        }
        if let Some(offsets) = panel.offsets {
            add_offsets(v, &mut y, &rows.sums[k], offsets.group(v, k));
        }
    }
    stored(v, &y)
}

/// Returns numbers less `offset`.
#[inline(always)]
fn widened<V: Vector, T: Copy + Into<i32>, const REGS: usize>(
    v: V,
    numbers: &[T; COLUMNS],
    offset: i32,
) -> [V::I32; REGS] {
    let wide: [i32; COLUMNS] = array!(0, j => numbers[j].into() - offset);
    array!(v.splat(0), r => load_i32(v, &wide[r * V::LANES..]))
}

impl GroupScales<'_> {
    /// Returns the numbers of a group.
    #[inline(always)]
    fn group<V: Vector, const REGS: usize>(self, v: V, group: usize) -> [V::F32; REGS] {
        match self {
            GroupScales::F32(scales) => {
                assert!(REGS * V::LANES == COLUMNS, "registers of a panel");
                let scales = scales[group].as_ptr();
                // SAFETY: the assertion bounds the reads.
                array!(v.splat_f32(0.0), r => unsafe { v.load_f32(scales.add(r * V::LANES)) })
            }
            GroupScales::F16(scales) => load_halves(v, &scales[group]),
            GroupScales::Blocks { of_blocks, of_groups, groups } => {
                let of_block: [_; REGS] = load_halves(v, &of_blocks[group / groups]);
                let of_group: [_; REGS] = widened(v, &of_groups[group], 0);
                array!(v.splat_f32(0.0), r => v.mul_f32(of_block[r], v.to_f32(of_group[r])))
            }
        }
    }
}

#[inline(always)]
fn load_halves<V: Vector, const REGS: usize>(v: V, halves: &[u16; COLUMNS]) -> [V::F32; REGS] {
    assert!(REGS * V::LANES == COLUMNS, "registers of a panel");
    // SAFETY: the assertion bounds the reads.
    array!(v.splat_f32(0.0), r => unsafe { v.load_f16(halves.as_ptr().add(r * V::LANES)) })
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
