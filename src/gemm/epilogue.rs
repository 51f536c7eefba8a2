//! What becomes of a finished row of accumulators: outputs, while it is in the cache.

use alloc::vec::Vec;

use crate::affine::{
    Codes, FixedPoint, FixedPointRounding, Requantization, RequantizeFloat, Rescale, requantize_double,
    requantize_fixed, requantize_float,
};
use crate::arch::{Columns, Kernel, Rows, Sink, TileBytes, as_bytes_mut};
use crate::element::{Code, Element, sealed::Sealed};
use crate::error::{Error, Result};
use crate::qparams::QParams;
use ndarray::Dimension;

/// What is done with each accumulator of a product. Sealed; see [`Accumulator`], [`Dequantize`], [`RequantizeTo`].
pub trait Epilogue: Sealed + Sync {
    /// The type of the outputs.
    type Out: Copy + Default + Send + Sync + 'static;

    /// The bias that accumulators start from, one per column, in units of the accumulator.
    #[doc(hidden)]
    fn bias(&self) -> Option<&[i32]>;

    /// Refuses a product of another shape than the epilogue was made for.
    #[doc(hidden)]
    fn check(&self, rows: usize, cols: usize) -> Result<()>;

    /// Multiplies some rows and makes outputs of their sums without a way round through memory. Returns whether it did: if
    /// not, nothing was written.
    #[doc(hidden)]
    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(
        &self,
        _kernel: K,
        _rows: usize,
        _a: Rows<'_>,
        _b: Columns<'_>,
        _out: TileOut<'_, Self::Out>,
    ) -> bool {
        false
    }

    /// Where outputs are bytes that a formula makes of each accumulator: this formula.
    #[doc(hidden)]
    #[inline(always)]
    fn to_bytes(&self) -> Option<FormulaToBytes<'_>> {
        None
    }

    /// The outputs of one row of a tile, which starts at this row and column of the product.
    #[doc(hidden)]
    fn store(&self, row: usize, col: usize, acc: &[i32], out: &mut [Self::Out]);

    /// The outputs of several rows of a tile, which starts at this row and column of the product.
    #[doc(hidden)]
    #[inline(always)]
    fn store_rows(&self, row: usize, col: usize, tile: TileRows<'_, Self::Out>) {
        let TileRows { rows, width, acc, acc_stride, out, out_stride } = tile;
        for i in 0..rows {
            self.store(row + i, col, &acc[i * acc_stride..][..width], &mut out[i * out_stride..][..width]);
        }
    }
}

/// Rows of accumulators, and where their outputs belong: row `i` goes from `acc[i * acc_stride..]` to
/// `out[i * out_stride..]`.
#[doc(hidden)]
pub struct TileRows<'a, O> {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) acc: &'a [i32],
    pub(crate) acc_stride: usize,
    pub(crate) out: &'a mut [O],
    pub(crate) out_stride: usize,
}

/// Where the outputs of a tile belong, which starts at row and column `at` of the product: those of row `i` to
/// `out[i * stride..][..width]`.
#[doc(hidden)]
pub struct TileOut<'a, O> {
    pub(crate) at: (usize, usize),
    pub(crate) width: usize,
    pub(crate) out: &'a mut [O],
    pub(crate) stride: usize,
}

impl<O: Copy> TileOut<'_, O> {
    /// Puts these at column `col` of row `i`: all, or as many as the tile is wide.
    #[inline(always)]
    fn put<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, lanes: [O; COLS]) {
        let out = &mut self.out[i * self.stride + col..];
        if WHOLE {
            *out.first_chunk_mut().expect("a whole row") = lanes;
        } else {
            put_some(&mut out[..self.width - col], lanes);
        }
    }
}

/// Puts as many of these as there is room for.
#[inline(always)]
fn put_some<O: Copy, const COLS: usize>(out: &mut [O], lanes: [O; COLS]) {
    // By eights, the last of them over others if need be: a copy of a slice would be a call.
    const STEP: usize = 8;
    let count = out.len().min(COLS);
    let mut done = 0;
    while done < count {
        let at = if count < STEP { 0 } else { done.min(count - STEP) };
        match (out[at..].first_chunk_mut::<STEP>(), lanes[at..].first_chunk()) {
            (Some(out), Some(lanes)) => *out = *lanes,
            _ => out.iter_mut().zip(lanes).for_each(|(out, lane)| *out = lane),
        }
        done += STEP;
    }
}

/// The parameters of some columns from `col` on, of which there is one or one for each; anything for columns beyond, if
/// not `WHOLE`.
#[inline(always)]
fn columns<M: Copy, const COLS: usize, const WHOLE: bool>(of: &[M], col: usize) -> [M; COLS] {
    match of {
        &[one] => [one; COLS],
        each if WHOLE => *each[col..].first_chunk().expect("one for each column"),
        each => padded(&each[col..]),
    }
}

fn padded<M: Copy, const COLS: usize>(some: &[M]) -> [M; COLS] {
    let mut padded = [some[0]; COLS];
    let count = some.len().min(COLS);
    padded[..count].copy_from_slice(&some[..count]);
    padded
}

/// `formula(acc, factor) ^ flip` with one factor, or one per column. The formula gives 0 to 255.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct FormulaToBytes<'a> {
    pub(crate) formula: RequantizeFloat,
    pub(crate) factors: &'a [f32],
    pub(crate) flip: u8,
}

/// Lanes that are computed together: so many that the compiler keeps the loop over them, and makes registers of it.
const LANES: usize = 32;

/// `out[i] = f(acc[i])`, in whole registers as far as they go.
///
/// A chunk is copied in, computed and copied out: so the compiler need not fear that inputs and outputs overlap.
#[inline(always)]
fn map_lanes<O: Copy + Default>(acc: &[i32], out: &mut [O], f: impl Fn(i32) -> O) {
    let ((acc, acc_rest), (out, out_rest)) = (acc.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (out, &acc) in out.iter_mut().zip(acc) {
        let mut lanes = [O::default(); LANES];
        for i in 0..LANES {
            lanes[i] = f(acc[i]);
        }
        *out = lanes;
    }
    out_rest.iter_mut().zip(acc_rest).for_each(|(out, &acc)| *out = f(acc));
}

/// `out[i] = f(acc[i], other[i])`, as [`map_lanes`] does it.
#[inline(always)]
fn zip_lanes<M: Copy, O: Copy + Default>(acc: &[i32], other: &[M], out: &mut [O], f: impl Fn(i32, M) -> O) {
    let other = &other[..acc.len()];
    let ((acc, acc_rest), (out, out_rest)) = (acc.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    let (other, other_rest) = other.as_chunks::<LANES>();
    for ((out, &acc), &other) in out.iter_mut().zip(acc).zip(other) {
        let mut lanes = [O::default(); LANES];
        for i in 0..LANES {
            lanes[i] = f(acc[i], other[i]);
        }
        *out = lanes;
    }
    for ((out, &acc), &other) in out_rest.iter_mut().zip(acc_rest).zip(other_rest) {
        *out = f(acc, other);
    }
}

/// Refuses what there is neither one of nor one for each of `len`.
fn check_len(what: &'static str, len: usize, found: usize) -> Result<()> {
    if found == 1 || found == len { Ok(()) } else { Err(Error::shape(what, &[len], &[found])) }
}

fn check_bias<T>(bias: Option<&[T]>, cols: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.len() != cols => Err(Error::shape("bias", &[cols], &[bias.len()])),
        _ => Ok(()),
    }
}

/// The accumulators themselves: `acc + bias`, as `i32`.
#[derive(Debug, Clone, Default)]
pub struct Accumulator {
    bias: Option<Vec<i32>>,
}

impl Accumulator {
    /// Without a bias.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a bias, one per column.
    pub fn with_bias(bias: &[i32]) -> Self {
        Self { bias: Some(bias.to_vec()) }
    }
}

/// Writes sums where they belong.
struct Copying<'a>(TileOut<'a, i32>);

impl Sink for Copying<'_> {
    /// Which they are.
    type Columns<const COLS: usize> = usize;

    #[inline(always)]
    fn width(&self) -> usize {
        self.0.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> usize {
        col
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, sums: [i32; COLS]) {
        self.0.put::<COLS, WHOLE>(i, col, sums);
    }
}

impl Sealed for Accumulator {}
impl Epilogue for Accumulator {
    type Out = i32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_bias(self.bias(), cols)
    }

    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(&self, kernel: K, rows: usize, a: Rows<'_>, b: Columns<'_>, out: TileOut<'_, i32>) -> bool {
        let TileOut { at, width, out, stride } = out;
        if kernel.multiply_to(rows, a, b, Copying(TileOut { at, width, out: &mut *out, stride })) {
            return true;
        }
        if width < b.start.len() {
            return false;
        }
        for i in (0..rows).step_by(K::MR) {
            kernel.multiply(K::MR.min(rows - i), a.from(i), b, &mut out[i * stride..], stride);
        }
        true
    }

    #[inline(always)]
    fn store(&self, _: usize, _: usize, acc: &[i32], out: &mut [i32]) {
        map_lanes(acc, out, |acc| acc);
    }
}

/// Back to reals: `f32(acc) * (row_scale * col_scale) + bias`, in this order, without contraction.
///
/// Row scales are those of the left side: one, or one per row (dynamic quantization per row). Column scales are those
/// of the right side: one, or one per column (weights per output channel).
#[derive(Debug, Clone)]
pub struct Dequantize {
    row_scale: Vec<f32>,
    col_scale: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Dequantize {
    /// With scales of which there is one or one for each, and an optional bias per column.
    ///
    /// # Errors
    /// [`Error::Scale`] unless every scale is finite and positive.
    pub fn new(row_scale: &[f32], col_scale: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        for (index, &scale) in row_scale.iter().chain(col_scale).enumerate() {
            if !(scale > 0.0 && scale.is_finite()) {
                let index = if index < row_scale.len() { index } else { index - row_scale.len() };
                return Err(Error::Scale { found: scale as f64, index: alloc::vec![index] });
            }
        }
        Ok(Self { row_scale: row_scale.to_vec(), col_scale: col_scale.to_vec(), bias: bias.map(<[f32]>::to_vec) })
    }
}

/// Dequantizes sums in registers.
struct Dequantizing<'a> {
    scales: &'a Dequantize,
    out: TileOut<'a, f32>,
}

impl Sink for Dequantizing<'_> {
    type Columns<const COLS: usize> = (usize, [f32; COLS], Option<[f32; COLS]>);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS> {
        let Dequantize { col_scale, bias, .. } = self.scales;
        let first = self.out.at.1 + col;
        let bias = bias.as_ref().map(|bias| columns::<_, COLS, WHOLE>(bias, first));
        (col, columns::<_, COLS, WHOLE>(col_scale, first), bias)
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, col_scale, bias): Self::Columns<COLS>,
        sums: [i32; COLS],
    ) {
        let row_scale = match self.scales.row_scale.as_slice() {
            &[one] => one,
            many => many[self.out.at.0 + i],
        };
        let mut lanes = [0.0; COLS];
        for l in 0..COLS {
            lanes[l] = sums[l] as f32 * (row_scale * col_scale[l]);
        }
        if let Some(bias) = bias {
            for l in 0..COLS {
                lanes[l] += bias[l];
            }
        }
        self.out.put::<COLS, WHOLE>(i, col, lanes);
    }
}

impl Sealed for Dequantize {}
impl Epilogue for Dequantize {
    type Out = f32;

    fn bias(&self) -> Option<&[i32]> {
        None
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        check_len("row scales", rows, self.row_scale.len())?;
        check_len("column scales", cols, self.col_scale.len())?;
        check_bias(self.bias.as_deref(), cols)
    }

    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(&self, kernel: K, rows: usize, a: Rows<'_>, b: Columns<'_>, out: TileOut<'_, f32>) -> bool {
        kernel.multiply_to(rows, a, b, Dequantizing { scales: self, out })
    }

    #[inline(always)]
    fn store(&self, row: usize, col: usize, acc: &[i32], out: &mut [f32]) {
        let row_scale = if self.row_scale.len() == 1 { self.row_scale[0] } else { self.row_scale[row] };
        match self.col_scale.as_slice() {
            [one] => {
                let scale = row_scale * one;
                map_lanes(acc, out, |acc| acc as f32 * scale);
            }
            many => zip_lanes(acc, &many[col..], out, |acc, col_scale| acc as f32 * (row_scale * col_scale)),
        }
        if let Some(bias) = &self.bias {
            out.iter_mut().zip(&bias[col..]).for_each(|(out, bias)| *out += bias);
        }
    }
}

/// To codes: `clamp(round((acc + bias) * multiplier) + zero_point)`.
///
/// The multiplier is `x_scale * w_scale / y_scale`, one or one per column, in the arithmetic of a [`Requantization`].
/// An activation is a narrower clamp.
#[derive(Debug, Clone)]
pub struct RequantizeTo<T: Element> {
    multipliers: Multipliers,
    bias: Option<Vec<i32>>,
    zero_point: i32,
    codes: Codes,
    element: core::marker::PhantomData<T>,
}

/// One multiplier, or one per column. All of one kind, so that the kind is looked at once a row.
#[derive(Debug, Clone)]
enum Multipliers {
    Float(Vec<f32>),
    Double(Vec<f64>),
    FixedPoint(Vec<FixedPoint>, FixedPointRounding),
}

impl Multipliers {
    fn len(&self) -> usize {
        match self {
            Multipliers::Float(m) => m.len(),
            Multipliers::Double(m) => m.len(),
            Multipliers::FixedPoint(m, _) => m.len(),
        }
    }
}

impl<T: Element> RequantizeTo<T> {
    /// Requantizes to parameters per tensor, from the scale of the left side and one or more of the right.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `to` is per tensor, and those of [`Rescale::new`].
    pub fn new<D: Dimension>(
        row_scale: f32,
        col_scale: &[f32],
        bias: Option<&[i32]>,
        to: &QParams<T, D>,
        requantization: Requantization,
    ) -> Result<Self> {
        let (scale, zero_point) = to.of_tensor("output parameters")?;
        let (min, max) = to.code_range();
        let mut multipliers = match requantization {
            Requantization::Float => Multipliers::Float(Vec::new()),
            Requantization::Double => Multipliers::Double(Vec::new()),
            Requantization::FixedPoint(rounding) => Multipliers::FixedPoint(Vec::new(), rounding),
        };
        for &col_scale in col_scale {
            match (&mut multipliers, Rescale::new(row_scale, col_scale, scale, requantization)?) {
                (Multipliers::Float(all), Rescale::Float(one)) => all.push(one),
                (Multipliers::Double(all), Rescale::Double(one)) => all.push(one),
                (Multipliers::FixedPoint(all, _), Rescale::FixedPoint(one, _)) => all.push(one),
                _ => unreachable!("a requantization has one kind of multiplier"),
            }
        }
        Ok(Self {
            multipliers,
            bias: bias.map(<[i32]>::to_vec),
            zero_point: zero_point.to_i32(),
            codes: Codes { min, max },
            element: core::marker::PhantomData,
        })
    }

    /// With codes clamped to `min..=max` as well: a fused activation.
    ///
    /// # Errors
    /// [`Error::CodeRange`] if `min > max` or a bound leaves the element type.
    pub fn with_clamp(mut self, min: i32, max: i32) -> Result<Self> {
        if min > max || min < T::MIN || max > T::MAX {
            return Err(Error::CodeRange { min: T::MIN, max: T::MAX, found_min: min, found_max: max });
        }
        let (low, high) = (self.codes.min, self.codes.max);
        self.codes = Codes { min: min.clamp(low, high), max: max.clamp(low, high) };
        Ok(self)
    }

    /// The codes of one row of a tile, `code` being the formula.
    #[inline(always)]
    fn each<M: Copy>(
        &self,
        multipliers: &[M],
        col: usize,
        acc: &[i32],
        out: &mut [T::Code],
        code: impl Fn(i32, M, i32, Codes) -> i32,
    ) {
        let (zero_point, codes) = (self.zero_point, self.codes);
        let code = |acc, m| T::Code::from_i32(code(acc, m, zero_point, codes));
        match multipliers {
            &[one] => map_lanes(acc, out, |acc| code(acc, one)),
            many => zip_lanes(acc, &many[col..], out, code),
        }
    }
}

impl<T: Element> RequantizeTo<T> {
    /// The codes of several rows of a tile. With multipliers for each column, those of some columns serve all rows before
    /// the next ones are read.
    #[inline(always)]
    fn each_row<M: Copy>(
        &self,
        multipliers: &[M],
        col: usize,
        tile: TileRows<'_, T::Code>,
        code: impl Fn(i32, M, i32, Codes) -> i32 + Copy,
    ) {
        let (zero_point, codes) = (self.zero_point, self.codes);
        let TileRows { rows, width, acc, acc_stride, out, out_stride } = tile;
        let whole = if multipliers.len() == 1 { 0 } else { width / LANES * LANES };
        for j in (0..whole).step_by(LANES) {
            let multipliers: &[M; LANES] = multipliers[col + j..].first_chunk().expect("a multiplier for each column");
            for i in 0..rows {
                let acc: &[i32; LANES] = acc[i * acc_stride + j..].first_chunk().expect("whole rows");
                let mut lanes = [T::Code::default(); LANES];
                for l in 0..LANES {
                    lanes[l] = T::Code::from_i32(code(acc[l], multipliers[l], zero_point, codes));
                }
                *out[i * out_stride + j..].first_chunk_mut().expect("whole rows") = lanes;
            }
        }
        if whole < width {
            for i in 0..rows {
                let (acc, out) = (&acc[i * acc_stride..][whole..width], &mut out[i * out_stride..][whole..width]);
                self.each(multipliers, col + whole, acc, out, code);
            }
        }
    }
}

/// Requantizes sums in registers.
struct Requantizing<'a, T: Element> {
    multipliers: &'a [f32],
    zero_point: i32,
    codes: Codes,
    out: TileOut<'a, T::Code>,
}

impl<T: Element> Sink for Requantizing<'_, T> {
    type Columns<const COLS: usize> = (usize, [f32; COLS]);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS> {
        (col, columns::<_, COLS, WHOLE>(self.multipliers, self.out.at.1 + col))
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, multipliers): Self::Columns<COLS>,
        sums: [i32; COLS],
    ) {
        let mut lanes = [T::Code::default(); COLS];
        for l in 0..COLS {
            lanes[l] = T::Code::from_i32(requantize_float::<T>(sums[l], multipliers[l], self.zero_point, self.codes));
        }
        self.out.put::<COLS, WHOLE>(i, col, lanes);
    }
}

impl<T: Element> Sealed for RequantizeTo<T> {}
impl<T: Element> Epilogue for RequantizeTo<T> {
    type Out = T::Code;

    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_len("column scales", cols, self.multipliers.len())?;
        check_bias(self.bias(), cols)
    }

    fn to_bytes(&self) -> Option<FormulaToBytes<'_>> {
        let Multipliers::Float(factors) = &self.multipliers else { return None };
        if size_of::<T::Code>() != 1 {
            return None;
        }
        // Signed codes are unsigned ones whose top bit is flipped.
        let (up, flip) = if T::MIN < 0 { (128, 0x80) } else { (0, 0) };
        let codes = Codes { min: self.codes.min + up, max: self.codes.max + up };
        Some(FormulaToBytes { formula: RequantizeFloat::new(self.zero_point + up, codes), factors, flip })
    }

    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(
        &self,
        kernel: K,
        rows: usize,
        a: Rows<'_>,
        b: Columns<'_>,
        out: TileOut<'_, T::Code>,
    ) -> bool {
        let Multipliers::Float(multipliers) = &self.multipliers else { return false };
        let TileOut { at, width, out, stride } = out;
        if let (Some(FormulaToBytes { formula, factors, flip }), Some(bytes)) = (self.to_bytes(), as_bytes_mut(out)) {
            let factors = if factors.len() == 1 { factors } else { &factors[at.1..] };
            if kernel.multiply_to_bytes(rows, a, b, TileBytes { formula, factors, flip, bytes, width, stride }) {
                return true;
            }
        }
        let out = TileOut { at, width, out, stride };
        kernel.multiply_to(
            rows,
            a,
            b,
            Requantizing::<T> { multipliers, zero_point: self.zero_point, codes: self.codes, out },
        )
    }

    #[inline(always)]
    fn store(&self, _: usize, col: usize, acc: &[i32], out: &mut [T::Code]) {
        match &self.multipliers {
            Multipliers::Float(all) => self.each(all, col, acc, out, requantize_float::<T>),
            Multipliers::Double(all) => self.each(all, col, acc, out, requantize_double),
            Multipliers::FixedPoint(all, rounding) => self.each(all, col, acc, out, |acc, m, zero_point, codes| {
                requantize_fixed(acc, m, *rounding, zero_point, codes)
            }),
        }
    }

    #[inline(always)]
    fn store_rows(&self, _: usize, col: usize, tile: TileRows<'_, T::Code>) {
        match &self.multipliers {
            Multipliers::Float(all) => self.each_row(all, col, tile, requantize_float::<T>),
            Multipliers::Double(all) => self.each_row(all, col, tile, requantize_double),
            Multipliers::FixedPoint(all, rounding) => self.each_row(all, col, tile, |acc, m, zero_point, codes| {
                requantize_fixed(acc, m, *rounding, zero_point, codes)
            }),
        }
    }
}
