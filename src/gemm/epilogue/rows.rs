//! Requantization of accumulators in memory: other multipliers than `f32` below 1, and codes of 16 and 32 bits.

use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::affine::{
    Codes, FixedPoint, FixedPointRounding, RequantizeFixed, requantize_double, requantize_fixed, requantize_float,
};
use crate::element::Element;
use crate::simd::{OutTile, Stage, Task, Vector};

/// One multiplier, or one per column. All have one type, so the type is matched once per tile.
#[derive(Debug, Clone)]
pub(super) enum Multipliers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    FixedPoint(Vec<FixedPoint>, FixedPointRounding),
}

impl Multipliers {
    pub(super) fn len(&self) -> usize {
        match self {
            Multipliers::F32(m) => m.len(),
            Multipliers::F64(m) => m.len(),
            Multipliers::FixedPoint(m, _) => m.len(),
        }
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        match self {
            Multipliers::F32(m) => size_of_val(&m[..]),
            Multipliers::F64(m) => size_of_val(&m[..]),
            Multipliers::FixedPoint(m, _) => size_of_val(&m[..]),
        }
    }
}

/// Requantizes by any multipliers to codes of the width of `T`.
#[derive(Debug)]
pub(super) struct RequantizeRows<'a, T> {
    multipliers: &'a Multipliers,
    zero_point: i32,
    codes: Codes,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for RequantizeRows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for RequantizeRows<'_, T> {}

impl<'a, T> RequantizeRows<'a, T> {
    pub(super) fn new(multipliers: &'a Multipliers, zero_point: i32, codes: Codes) -> Self {
        Self { multipliers, zero_point, codes, element: PhantomData }
    }
}

impl<T: Element<Code = T> + crate::element::Code> Stage for RequantizeRows<'_, T> {
    type Out = T;
    const FROM_REGISTERS: bool = false;

    #[inline(always)]
    fn store<V: Vector, const ROWS: usize, const REGS: usize>(
        self,
        v: V,
        acc: &[[V::I32; REGS]; ROWS],
        out: OutTile<'_, T>,
    ) {
        let (mut rows, width) = ([0; 256], REGS * V::LANES);
        let tile = OutTile { row: 0, col: 0, width, out: &mut rows, stride: width };
        crate::simd::StoreI32.store(v, acc, tile);
        // The rest of the output may be wider than the tile.
        self.store_rows(v, ROWS, &rows, width, OutTile { width: out.width.min(width), ..out });
    }

    #[inline(always)]
    fn store_rows<V: Vector>(self, v: V, rows: usize, acc: &[i32], stride: usize, out: OutTile<'_, T>) {
        let (zero_point, codes) = (self.zero_point, self.codes);
        match self.multipliers {
            Multipliers::F32(multipliers) => {
                v.run(Rows { rows, acc, stride, out, multipliers, convert: Float { zero_point, codes } })
            }
            Multipliers::F64(multipliers) => {
                v.run(Rows { rows, acc, stride, out, multipliers, convert: Double { zero_point, codes } })
            }
            Multipliers::FixedPoint(multipliers, FixedPointRounding::Double) => {
                v.run(Rows { rows, acc, stride, out, multipliers, convert: Fixed::<false> { zero_point, codes } });
            }
            Multipliers::FixedPoint(multipliers, FixedPointRounding::Single) => {
                v.run(Rows { rows, acc, stride, out, multipliers, convert: Fixed::<true> { zero_point, codes } });
            }
        }
    }
}

/// A requantization with parameters of columns as arrays, which vectorize. Methods must be `#[inline(always)]`.
trait Convert: Copy {
    type Multiplier: Copy;
    type Columns: Copy;

    fn columns(multipliers: [Self::Multiplier; COLS]) -> Self::Columns;
    fn codes<T: Element>(self, acc: [i32; COLS], columns: &Self::Columns) -> [i32; COLS];
}

/// Columns at a time: wide enough that the compiler keeps loops over them and vectorizes these.
const COLS: usize = 16;

#[derive(Clone, Copy)]
struct Float {
    zero_point: i32,
    codes: Codes,
}

impl Convert for Float {
    type Multiplier = f32;
    type Columns = [f32; COLS];

    #[inline(always)]
    fn columns(multipliers: [f32; COLS]) -> [f32; COLS] {
        multipliers
    }

    #[inline(always)]
    fn codes<T: Element>(self, acc: [i32; COLS], multipliers: &[f32; COLS]) -> [i32; COLS] {
        let mut codes = [0; COLS];
        for j in 0..COLS {
            codes[j] = requantize_float::<T>(acc[j], multipliers[j], self.zero_point, self.codes);
        }
        codes
    }
}

#[derive(Clone, Copy)]
struct Double {
    zero_point: i32,
    codes: Codes,
}

impl Convert for Double {
    type Multiplier = f64;
    type Columns = [f64; COLS];

    #[inline(always)]
    fn columns(multipliers: [f64; COLS]) -> [f64; COLS] {
        multipliers
    }

    #[inline(always)]
    fn codes<T: Element>(self, acc: [i32; COLS], multipliers: &[f64; COLS]) -> [i32; COLS] {
        let mut codes = [0; COLS];
        for j in 0..COLS {
            codes[j] = requantize_double::<T>(acc[j], multipliers[j], self.zero_point, self.codes);
        }
        codes
    }
}

#[derive(Clone, Copy)]
struct Fixed<const SINGLE: bool> {
    zero_point: i32,
    codes: Codes,
}

impl<const SINGLE: bool> Convert for Fixed<SINGLE> {
    type Multiplier = FixedPoint;
    /// Q31 multipliers and shifts.
    type Columns = ([i32; COLS], [i32; COLS]);

    #[inline(always)]
    fn columns(multipliers: [FixedPoint; COLS]) -> Self::Columns {
        (multipliers.map(FixedPoint::q31), multipliers.map(FixedPoint::shift))
    }

    #[inline(always)]
    fn codes<T: Element>(self, acc: [i32; COLS], (q31, shift): &Self::Columns) -> [i32; COLS] {
        let rounding = if SINGLE { FixedPointRounding::Single } else { FixedPointRounding::Double };
        let mut codes = [0; COLS];
        for j in 0..COLS {
            let multiplier = FixedPoint::of_parts(q31[j], shift[j]);
            codes[j] = if T::BITS > 16 {
                requantize_fixed(acc[j], multiplier, rounding, self.zero_point, self.codes)
            } else {
                RequantizeFixed::new(multiplier, rounding, self.zero_point, self.codes).code(acc[j])
            };
        }
        codes
    }
}

/// Requantizes rows of accumulators, some columns at a time, so that their parameters are loaded once for all rows.
struct Rows<'a, T, C: Convert> {
    rows: usize,
    acc: &'a [i32],
    stride: usize,
    out: OutTile<'a, T>,
    multipliers: &'a [C::Multiplier],
    convert: C,
}

impl<T: Element<Code = T> + crate::element::Code, C: Convert> Task for Rows<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, acc, stride, out, multipliers, convert } = self;
        for col in (0..out.width).step_by(COLS) {
            let width = COLS.min(out.width - col);
            let columns = C::columns(match multipliers {
                &[one] => [one; COLS],
                each => padded(&each[out.col + col..]),
            });
            for i in 0..rows {
                let acc = padded(&acc[i * stride + col..][..width]);
                let codes = convert.codes::<T>(acc, &columns);
                let mut narrow = [T::default(); COLS];
                for j in 0..COLS {
                    narrow[j] = T::from_i32(codes[j]);
                }
                let to = &mut out.out[i * out.stride + col..][..width];
                match to.first_chunk_mut() {
                    Some(to) => *to = narrow,
                    None => to.iter_mut().zip(narrow).for_each(|(to, code)| *to = code),
                }
            }
        }
    }
}

/// Returns the first `COLS` of some values, padded with the first.
#[inline(always)]
fn padded<M: Copy>(some: &[M]) -> [M; COLS] {
    if let Some(&whole) = some.first_chunk() {
        return whole;
    }
    let mut padded = [some[0]; COLS];
    padded[..some.len()].copy_from_slice(some);
    padded
}
