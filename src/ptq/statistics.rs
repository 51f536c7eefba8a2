//! Statistics of the input of a linear layer: magnitudes, mean and second moments, as exact sums.
//!
//! Float sums depend on the order of their terms, and integers do not. So rows are rounded to 8-bit codes by a power of
//! two, the least that fits their largest magnitude, and products of codes are summed as integers. Powers of two in the
//! same [`OCTAVES`] share a sum, whose unit is the least of them. Sums of smaller units than the [`UNITS`] largest do not
//! matter and are dropped, whatever the order of the rows.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, ArrayViewMut2, Axis, s};

use crate::element::Compute;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_count, check_shapes};
use crate::gemm::{I32Epilogue, PackedRhs, Workspace, gemm_into};
use crate::ops::kernel::resized;
use crate::range::check_finite;

/// Statistics of the input `[rows, in]` of a linear layer: per channel the largest and the mean magnitude and the mean,
/// and the second moments `E[x · xᵀ]`, up to a factor the Hessian of the layer's squared error.
///
/// Each row is rounded to 8 bits of its largest magnitude for the second moments, and to 23 bits for the means. All sums
/// are sums of integers, so they are equal, bit for bit, whatever the batches, the order of the rows and the shards that
/// were [merged](Self::merge). `in` channels take `4 in²` bytes, for rows of very different magnitudes up to three times
/// that; rows below `2^-16` of the largest magnitude count as zeros. With the feature `serde` they are saved and sent.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::ptq::InputStatistics;
///
/// let mut statistics = InputStatistics::new(2);
/// statistics.observe(&array![[1.0f32, -2.0], [0.5, 2.0]])?;
/// let mut other = InputStatistics::new(2);
/// other.observe(&array![[0.0f32, -4.0]])?;
/// statistics.merge(&other)?;
/// assert_eq!(statistics.rows(), 3);
/// assert_eq!(statistics.abs_max(), array![1.0, 4.0]);
/// assert_eq!(statistics.mean_abs() * 3.0, array![1.5, 8.0]);
/// assert_eq!(statistics.second_moments() * 3.0, array![[1.25, -1.0], [-1.0, 24.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Serialized"))]
pub struct InputStatistics {
    rows: u64,
    abs_max: Vec<f32>,
    /// By unit: the unit of `sums[u]` is `2^(u * OCTAVES)`. At most `UNITS`.
    sums: BTreeMap<i32, Sums>,
}

/// The powers of two whose sums share a unit.
const OCTAVES: i32 = 8;

/// The largest units that are kept: a row of the largest one may be 2^16 times as large as those that are dropped.
const UNITS: i32 = 3;

/// The bits of the unit that sums of values have more than codes.
const FRACTION: i32 = 16;

/// Exact up to 2^35 rows.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Sums {
    /// `Σ x`, in `2^-FRACTION` of the unit.
    values: Vec<i64>,
    /// `Σ abs(x)`, in `2^-FRACTION` of the unit.
    magnitudes: Vec<i64>,
    /// `Σ q`, in units.
    codes: Vec<i64>,
    /// `Σ q · qᵀ`, in squares of the unit: row after row of the upper triangle.
    products: Vec<i64>,
}

/// The serialized fields, before they are validated.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Serialized {
    rows: u64,
    abs_max: Vec<f32>,
    sums: BTreeMap<i32, Sums>,
}

#[cfg(feature = "serde")]
impl TryFrom<Serialized> for InputStatistics {
    type Error = crate::Error;
    fn try_from(Serialized { rows, abs_max, sums }: Serialized) -> Result<Self> {
        let depth = abs_max.len();
        check_finite("largest magnitudes", &ndarray::ArrayView1::from(&abs_max))?;
        if let Some(found) = abs_max.iter().find(|max| **max < 0.0) {
            let (what, expected) = ("largest magnitude", "at least 0");
            return Err(crate::Error::Argument { what, expected, found: alloc::format!("{found}") });
        }
        for (unit, sums) in &sums {
            if !(-32..32).contains(unit) {
                let (what, expected) = ("unit of a sum", "-32 to 31");
                return Err(crate::Error::Argument { what, expected, found: alloc::format!("{unit}") });
            }
            check_count("number of sums of values", depth, sums.values.len())?;
            check_count("number of sums of magnitudes", depth, sums.magnitudes.len())?;
            check_count("number of sums of codes", depth, sums.codes.len())?;
            check_count("number of sums of products", pairs(depth), sums.products.len())?;
        }
        Ok(Self { rows, abs_max, sums })
    }
}

/// The number of elements of the upper triangle of a square matrix.
fn pairs(depth: usize) -> usize {
    depth.saturating_mul(depth + 1) / 2
}

/// Memory that observations reuse.
#[derive(Debug, Default)]
pub(crate) struct SumScratch {
    codes: Vec<i8>,
    products: Vec<i32>,
    gemm: Workspace,
    /// Of depthwise convolutions: the largest magnitude of each channel, codes, and sums.
    max: Vec<f32>,
    wide_codes: Vec<i32>,
    depthwise: Vec<i32>,
}

impl InputStatistics {
    /// Creates statistics of no rows of this many channels.
    pub fn new(channels: usize) -> Self {
        Self { rows: 0, abs_max: alloc::vec![0.0; channels], sums: BTreeMap::new() }
    }

    /// Adds rows `[rows, in]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of channels, [`Error::Value`] for a NaN or an infinity. Nothing is added then.
    pub fn observe(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        check_shapes("x, [rows, in]", &[x.nrows(), self.depth()], x.shape())?;
        check_finite("x", x)?;
        /// Bounds the memory of their codes.
        const AT_ONCE: usize = 1024;
        let mut scratch = SumScratch::default();
        for x in x.axis_chunks_iter(Axis(0), AT_ONCE) {
            // Rows of the same unit are added together.
            let mut by_unit = BTreeMap::<Option<i32>, Vec<f32>>::new();
            for row in x.rows() {
                let max = row.iter().fold(0f32, |max, x| max.max(x.abs()));
                by_unit.entry(Unit::of(max).map(|unit| unit.exponent)).or_default().extend(row);
            }
            // A matrix without columns has rows, too.
            self.rows = self.rows.saturating_add(if self.depth() == 0 { x.nrows() as u64 } else { 0 });
            by_unit.values().try_for_each(|rows| self.add_sample(rows, &mut scratch))?;
        }
        Ok(())
    }

    /// Adds what other statistics observed. The result does not depend on the order.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of channels.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        check_count("number of channels of merged statistics", self.depth(), other.depth())?;
        self.add(other);
        Ok(())
    }

    /// Returns the number of rows observed.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns `max(abs(x))` of each channel. 0 if no row was observed.
    pub fn abs_max(&self) -> Array1<f32> {
        self.abs_max.iter().copied().collect()
    }

    /// Returns `E[abs(x)]` of each channel.
    pub fn mean_abs(&self) -> Array1<f64> {
        self.expectation(-FRACTION, |sums| &sums.magnitudes)
    }

    /// Returns `E[x]` of each channel.
    pub fn mean(&self) -> Array1<f64> {
        self.expectation(-FRACTION, |sums| &sums.values)
    }

    /// Returns `E[x · xᵀ]`, `[in, in]`: symmetric and positive semidefinite.
    ///
    /// `e · E[x · xᵀ] · eᵀ` is the mean squared error of an output whose weights have the error `e`.
    pub fn second_moments(&self) -> Array2<f64> {
        let depth = self.depth();
        let rows = self.rows.max(1) as f64;
        let mut moments = Array2::zeros((depth, depth));
        for (&unit, sums) in &self.sums {
            let scale = power_of_two(2 * OCTAVES * unit) / rows;
            let mut products = sums.products.iter();
            for i in 0..depth {
                let row = moments.slice_mut(s![i, i..]);
                row.into_iter().zip(&mut products).for_each(|(c, &p)| *c += p as f64 * scale);
            }
        }
        for i in 0..depth {
            for j in 0..i {
                moments[[i, j]] = moments[[j, i]];
            }
        }
        moments
    }

    /// Returns the covariance `E[x · xᵀ] - E[x] · E[x]ᵀ`, `[in, in]`: the second moments for a layer whose bias takes up
    /// the mean error of its outputs.
    pub fn covariance(&self) -> Array2<f64> {
        // Both terms are of the codes, so that the difference is positive semidefinite.
        let mean = self.expectation(0, |sums| &sums.codes);
        let mut covariance = self.second_moments();
        for (mut row, a) in covariance.rows_mut().into_iter().zip(&mean) {
            row.iter_mut().zip(&mean).for_each(|(c, b)| *c -= a * b);
        }
        covariance
    }

    pub(crate) fn depth(&self) -> usize {
        self.abs_max.len()
    }

    /// [`Self::merge`] of as many channels.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.abs_max.iter_mut().zip(&other.abs_max).for_each(|(max, other)| *max = max.max(*other));
        for (&unit, other) in &other.sums {
            if let Some(sums) = self.at_unit(unit) {
                add(&mut sums.values, &other.values);
                add(&mut sums.magnitudes, &other.magnitudes);
                add(&mut sums.codes, &other.codes);
                add(&mut sums.products, &other.products);
            }
        }
    }

    /// The mean of sums in units times `2^exponent`.
    fn expectation(&self, exponent: i32, of: fn(&Sums) -> &Vec<i64>) -> Array1<f64> {
        let mut mean = Array1::zeros(self.depth());
        for (&unit, sums) in &self.sums {
            let scale = power_of_two(OCTAVES * unit + exponent) / self.rows.max(1) as f64;
            mean.iter_mut().zip(of(sums)).for_each(|(mean, &sum)| *mean += sum as f64 * scale);
        }
        mean
    }

    /// The sums of a unit. `None` if larger units make them irrelevant.
    fn at_unit(&mut self, unit: i32) -> Option<&mut Sums> {
        let largest = self.sums.last_key_value().map_or(unit, |(&largest, _)| largest.max(unit));
        self.sums.retain(|&kept, _| kept + UNITS > largest);
        let depth = self.depth();
        let zeros = |len| alloc::vec![0; len];
        let empty = || Sums {
            values: zeros(depth),
            magnitudes: zeros(depth),
            codes: zeros(depth),
            products: zeros(pairs(depth)),
        };
        (unit + UNITS > largest).then(|| self.sums.entry(unit).or_insert_with(empty))
    }

    /// Adds rows, which are finite, rounded together to 8 bits of their largest magnitude.
    pub(crate) fn add_sample(&mut self, rows: &[f32], scratch: &mut SumScratch) -> Result<()> {
        let depth = self.depth();
        if depth == 0 {
            return Ok(());
        }
        self.rows = self.rows.saturating_add((rows.len() / depth) as u64);
        for row in rows.chunks_exact(depth) {
            self.abs_max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(x.abs()));
        }
        let max = rows.iter().fold(0f32, |max, x| max.max(x.abs()));
        let unit = Unit::of(max);
        let Some(sums) = unit.and_then(|unit| self.at_unit(unit.unit)) else { return Ok(()) };
        let Unit { shift, to_code, to_value, .. } = unit.expect("there are sums of the unit");
        let SumScratch { codes, products, gemm, .. } = scratch;
        let codes = resized(codes, rows.len());
        for (row, codes) in rows.chunks_exact(depth).zip(codes.chunks_exact_mut(depth)) {
            let sums = sums.codes.iter_mut().zip(&mut sums.values).zip(&mut sums.magnitudes);
            for ((&x, code), ((sum, value), magnitude)) in row.iter().zip(codes).zip(sums) {
                *code = round(x, to_code).clamp(-127, 127) as i8;
                *sum = sum.wrapping_add(i64::from(*code) << shift);
                let rounded = i64::from(round(x, to_value)) << shift;
                *value = value.wrapping_add(rounded);
                *magnitude = magnitude.wrapping_add(rounded.abs());
            }
        }
        let codes = ArrayView2::from_shape((codes.len() / depth, depth), &*codes).expect("whole rows");
        for start in (0..depth).step_by(COLUMNS) {
            let end = depth.min(start + COLUMNS);
            let products = resized(products, end * (end - start));
            let mut block =
                ArrayViewMut2::from_shape((end, end - start), &mut *products).expect("the length of a block");
            let rhs = PackedRhs::<i8>::pack(&codes.slice(s![.., start..end]), &[0])?;
            gemm_into(&codes.slice(s![.., ..end]).t(), 0, &rhs, &I32Epilogue::new(), &mut block, gemm)?;
            for (i, row) in products.chunks_exact(end - start).enumerate() {
                let first = i.max(start);
                let at = i * depth - i * i.saturating_sub(1) / 2 + (first - i);
                let sums = sums.products[at..].iter_mut().zip(&row[first - start..]);
                sums.for_each(|(sum, &p)| *sum = sum.wrapping_add(i64::from(p) << (2 * shift)));
            }
        }
        Ok(())
    }

    /// Adds rows `[count, depth, channels]` of one sample to the statistics of each channel.
    pub(crate) fn add_depthwise(groups: &mut [Self], depth: usize, rows: &[f32], scratch: &mut SumScratch) {
        let channels = groups.len();
        let pairs = pairs(depth);
        let SumScratch { max, wide_codes, depthwise, .. } = scratch;
        let max = resized(max, channels);
        max.fill(0.0);
        for row in rows.chunks_exact(channels) {
            max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(x.abs()));
        }
        let units: Vec<Option<Unit>> = max.iter().map(|&max| Unit::of(max)).collect();
        let factor = |of: fn(&Unit) -> f32| units.iter().map(move |unit| unit.as_ref().map_or(0.0, of)).collect();
        let (to_code, to_value): (Vec<f32>, Vec<f32>) = (factor(|unit| unit.to_code), factor(|unit| unit.to_value));
        // `Σ x`, `Σ abs(x)`, `Σ q` and `Σ q · qᵀ`, each with the channels side by side: 32 terms of at most 2^23 each.
        let codes = resized(wide_codes, rows.len());
        let sums = resized(depthwise, (3 * depth + pairs) * channels);
        sums.fill(0);
        let (values, rest) = sums.split_at_mut(depth * channels);
        let (magnitudes, rest) = rest.split_at_mut(depth * channels);
        let (code_sums, products) = rest.split_at_mut(depth * channels);
        for (i, (row, codes)) in rows.chunks_exact(channels).zip(codes.chunks_exact_mut(channels)).enumerate() {
            let tap = i % depth * channels;
            let sums = values[tap..].iter_mut().zip(&mut magnitudes[tap..]).zip(&mut code_sums[tap..]);
            for ((((&x, q), ((value, magnitude), sum)), &to_code), &to_value) in
                row.iter().zip(codes).zip(sums).zip(&to_code).zip(&to_value)
            {
                *q = round(x, to_code).clamp(-127, 127);
                *sum += *q;
                let rounded = round(x, to_value);
                *value += rounded;
                *magnitude += rounded.abs();
            }
        }
        for codes in codes.chunks_exact(depth * channels) {
            let mut products = products.chunks_exact_mut(channels);
            for i in 0..depth {
                let a = &codes[i * channels..][..channels];
                for b in codes[i * channels..].chunks_exact(channels) {
                    let sums = products.next().expect("one for each pair");
                    sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
                }
            }
        }
        let count = rows.len() / (depth * channels).max(1);
        for (c, (group, unit)) in groups.iter_mut().zip(&units).enumerate() {
            group.rows = group.rows.saturating_add(count as u64);
            for (tap, max) in group.abs_max.iter_mut().enumerate() {
                let values = rows.iter().skip(tap * channels + c).step_by(depth * channels);
                *max = values.fold(*max, |max, x| max.max(x.abs()));
            }
            let Some((unit, sums)) = unit.and_then(|unit| Some((unit, group.at_unit(unit.unit)?))) else { continue };
            let add = |sums: &mut [i64], from: &[i32], shift: u32| {
                let from = from[c..].iter().step_by(channels);
                sums.iter_mut().zip(from).for_each(|(sum, &s)| *sum = sum.wrapping_add(i64::from(s) << shift));
            };
            add(&mut sums.values, values, unit.shift);
            add(&mut sums.magnitudes, magnitudes, unit.shift);
            add(&mut sums.codes, code_sums, unit.shift);
            add(&mut sums.products, products, 2 * unit.shift);
        }
    }
}

fn add(sums: &mut [i64], other: &[i64]) {
    sums.iter_mut().zip(other).for_each(|(sum, &other)| *sum = sum.wrapping_add(other));
}

/// `2^exponent`, for exponents of normal `f64`.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// The rounding of values up to a largest magnitude to codes of 8 bits.
#[derive(Debug, Clone, Copy)]
struct Unit {
    /// The power of two of the codes.
    exponent: i32,
    unit: i32,
    /// The power of two of the codes, in units.
    shift: u32,
    to_code: f32,
    to_value: f32,
}

impl Unit {
    /// `None` for 0.
    fn of(max: f32) -> Option<Self> {
        if max == 0.0 {
            return None;
        }
        // The codes of magnitudes below `2^(exponent + 7)` fit into 8 bits. Factors stay finite for the smallest numbers.
        let exponent = (((max.to_bits() >> 23) as i32) - 127 - 6).max(FRACTION - 127);
        let (unit, shift) = (exponent.div_euclid(OCTAVES), exponent.rem_euclid(OCTAVES) as u32);
        let power = |exponent| power_of_two(exponent) as f32;
        Some(Self { exponent, unit, shift, to_code: power(-exponent), to_value: power(FRACTION - exponent) })
    }
}

/// Rounds a product below `2^23` in magnitude to the nearest integer.
#[inline(always)]
fn round(x: f32, factor: f32) -> i32 {
    Compute::round_ties_even(x * factor) as i32
}

/// Columns of the matrix of products that are computed together, down to the diagonal.
const COLUMNS: usize = 256;
