//! First and second moments of the inputs of layers: the mean and the covariance (the Hessian of GPTQ), as exact sums.
//!
//! Float sums depend on the order of their terms, and integers do not. So each sample is rounded to 8-bit codes by a
//! power of two, the least that fits its largest magnitude, and products of codes are summed as integers. Powers of two
//! in the same [`OCTAVES`] share a sum, whose unit is the least of them. Sums of smaller units than the two largest do
//! not matter and are dropped, whatever the order of the samples.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};

use crate::element::Compute;
use crate::error::Result;
use crate::gemm::{I32Epilogue, PackedRhs, Workspace, gemm_into};
use crate::graph::network::{Graph, Node};
use crate::graph::recipe::weights_of;
use crate::ops::Geometry;
use crate::ops::kernel::resized;
use crate::ops::operator;

/// The rows that the weights of a layer are multiplied with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows {
    /// The rows of each sample.
    Linear { depth: usize },
    /// The im2col rows of each image, in NHWC order: `[kh, kw, in]`.
    Im2col { geometry: Geometry, depth: usize },
}

/// Bounds of the number of rows taken from each sample, spread evenly, as neighbouring rows of an image are nearly equal.
/// Within them it is the depth.
const ROWS: [usize; 2] = [32, 256];

/// The largest number of rows taken from each sample of a depthwise convolution, whose depth is small.
const DEPTHWISE_ROWS: usize = 32;

impl Rows {
    /// The rows of a layer. `None` for other nodes.
    pub(super) fn new(graph: &Graph, node: &Node) -> Option<Self> {
        let shape = |name: &str| graph.shape(name).unwrap_or_default();
        let weights = shape(weights_of(node)?);
        let depth: usize = weights[1..].iter().product();
        let operator::Layer { window, groups } = node.operator().layer()?;
        Some(match *weights {
            [_, _, height, width] => {
                let (x, y) = (shape(&node.inputs[0]), shape(&node.output));
                Rows::Im2col { geometry: Geometry::new([height, width], &window, groups, x, y), depth }
            }
            _ => Rows::Linear { depth },
        })
    }

    /// The moments of no rows.
    pub(super) fn moments(&self) -> LayerMoments {
        match *self {
            Rows::Linear { depth } => LayerMoments::new(1, depth),
            Rows::Im2col { geometry, depth } => LayerMoments::new(geometry.groups, depth),
        }
    }

    /// Adds the rows of one sample.
    pub(super) fn observe(&self, sample: &[f32], moments: &mut LayerMoments, scratch: &mut Scratch) -> Result<()> {
        let depth = moments.depth();
        let spread = |rows: usize| {
            let step = rows.div_ceil(depth.clamp(ROWS[0], ROWS[1])).max(1);
            (rows.div_ceil(step), step)
        };
        let Scratch { rows, sums } = scratch;
        match self {
            Rows::Linear { depth } => {
                let (count, step) = spread(sample.len() / (*depth).max(1));
                let chosen = sample.chunks_exact((*depth).max(1)).step_by(step);
                let rows = resized(rows, count * depth);
                rows.chunks_exact_mut((*depth).max(1)).zip(chosen).for_each(|(to, row)| to.copy_from_slice(row));
                moments.add_rows(count);
                moments.groups[0].add(rows, sums)
            }
            Rows::Im2col { geometry, .. } if geometry.is_depthwise() => {
                // One group of all channels has rows in which the channels of each tap are contiguous.
                let (geometry, channels) = (Geometry { groups: 1, ..*geometry }, moments.groups());
                let step = geometry.output_pixels().div_ceil(DEPTHWISE_ROWS).max(1);
                let rows = resized(rows, geometry.output_pixels().div_ceil(step) * depth * channels);
                for (i, row) in rows.chunks_exact_mut((depth * channels).max(1)).enumerate() {
                    geometry.im2col(sample, 0, i * step, row, 0.0);
                }
                moments.add_rows(geometry.output_pixels().div_ceil(step));
                add_depthwise(&mut moments.groups, depth, rows, sums);
                Ok(())
            }
            Rows::Im2col { geometry, .. } => {
                let (count, step) = spread(geometry.output_pixels());
                let rows = resized(rows, count * depth);
                moments.add_rows(count);
                for (group, moments) in moments.groups.iter_mut().enumerate() {
                    for (i, row) in rows.chunks_exact_mut(depth.max(1)).enumerate() {
                        geometry.im2col(sample, group, i * step, row, 0.0);
                    }
                    moments.add(rows, sums)?;
                }
                Ok(())
            }
        }
    }
}

/// Memory that observations reuse.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<f32>,
    sums: SumScratch,
}

#[derive(Debug, Default)]
struct SumScratch {
    codes: Vec<i8>,
    products: Vec<i32>,
    gemm: Workspace,
    /// Of depthwise convolutions: the largest magnitude of each channel, codes, and sums.
    max: Vec<f32>,
    wide_codes: Vec<i32>,
    depthwise: Vec<i32>,
}

/// The moments of the input rows of one layer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct LayerMoments {
    rows: u64,
    groups: Vec<GroupMoments>,
}

/// Sums over the input rows of one channel group.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Serialized"))]
struct GroupMoments {
    depth: usize,
    /// By unit: the unit of `sums[u]` is `2^(u * OCTAVES)`. At most two.
    sums: BTreeMap<i32, Sums>,
}

/// The powers of two whose sums share a unit.
const OCTAVES: i32 = 8;

/// The bits of the unit that sums of values have more than codes.
const FRACTION: i32 = 16;

/// Exact up to 2^27 samples.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Sums {
    /// `Σ x`, in `2^-FRACTION` of the unit.
    values: Vec<i64>,
    /// `Σ q`, in units.
    codes: Vec<i64>,
    /// `Σ q · qᵀ`, in squares of the unit: row after row of the upper triangle.
    products: Vec<i64>,
}

/// The serialized fields, before they are validated.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Serialized {
    depth: usize,
    sums: BTreeMap<i32, Sums>,
}

#[cfg(feature = "serde")]
impl TryFrom<Serialized> for GroupMoments {
    type Error = crate::Error;
    fn try_from(Serialized { depth, sums }: Serialized) -> Result<Self> {
        use crate::error::check_count;
        for (unit, sums) in &sums {
            if !(-32..32).contains(unit) {
                let (what, expected) = ("unit of a sum", "-32 to 31");
                return Err(crate::Error::Argument { what, expected, found: alloc::format!("{unit}") });
            }
            check_count("number of sums of values", depth, sums.values.len())?;
            check_count("number of sums of codes", depth, sums.codes.len())?;
            check_count("number of sums of products", depth.saturating_mul(depth + 1) / 2, sums.products.len())?;
        }
        Ok(Self { depth, sums })
    }
}

impl LayerMoments {
    fn new(groups: usize, depth: usize) -> Self {
        Self { rows: 0, groups: alloc::vec![GroupMoments { depth, sums: BTreeMap::new() }; groups] }
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn depth(&self) -> usize {
        self.groups.first().map_or(0, |group| group.depth)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Counts rows; every group gets them.
    fn add_rows(&mut self, rows: usize) {
        self.rows = self.rows.saturating_add(rows as u64);
    }

    /// Adds the sums of a layer with the same groups and depth.
    pub(super) fn merge(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        for (group, other) in self.groups.iter_mut().zip(&other.groups) {
            for (&unit, other) in &other.sums {
                if let Some(sums) = group.at_unit(unit) {
                    add(&mut sums.values, &other.values);
                    add(&mut sums.codes, &other.codes);
                    add(&mut sums.products, &other.products);
                }
            }
        }
    }

    /// `E[x]` of a group.
    pub(crate) fn mean(&self, group: usize) -> Array1<f64> {
        self.expectation(group, -FRACTION, |sums| &sums.values)
    }

    /// The covariance of the codes of a group, `E[q · qᵀ] - E[q] · E[q]ᵀ`. Both terms are of the codes, so that it is
    /// positive semidefinite.
    pub(crate) fn covariance(&self, group: usize) -> Array2<f64> {
        let mean = self.expectation(group, 0, |sums| &sums.codes);
        let rows = self.rows.max(1) as f64;
        let mut covariance = Array2::zeros((mean.len(), mean.len()));
        for (&unit, sums) in &self.groups[group].sums {
            let scale = power_of_two(2 * OCTAVES * unit) / rows;
            let mut products = sums.products.iter();
            for i in 0..mean.len() {
                let row = covariance.slice_mut(s![i, i..]);
                row.into_iter().zip(&mut products).for_each(|(c, &p)| *c += p as f64 * scale);
            }
        }
        for i in 0..mean.len() {
            for j in i..mean.len() {
                covariance[[i, j]] -= mean[i] * mean[j];
                covariance[[j, i]] = covariance[[i, j]];
            }
        }
        covariance
    }

    /// The mean of sums in units times `2^exponent`.
    fn expectation(&self, group: usize, exponent: i32, of: fn(&Sums) -> &Vec<i64>) -> Array1<f64> {
        let group = &self.groups[group];
        let mut mean = Array1::zeros(group.depth);
        for (&unit, sums) in &group.sums {
            let scale = power_of_two(OCTAVES * unit + exponent) / self.rows.max(1) as f64;
            mean.iter_mut().zip(of(sums)).for_each(|(mean, &sum)| *mean += sum as f64 * scale);
        }
        mean
    }
}

fn add(sums: &mut [i64], other: &[i64]) {
    sums.iter_mut().zip(other).for_each(|(sum, &other)| *sum = sum.wrapping_add(other));
}

/// `2^exponent`, for exponents of normal `f64`.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

impl GroupMoments {
    /// The sums of a unit. `None` if larger units make them irrelevant.
    fn at_unit(&mut self, unit: i32) -> Option<&mut Sums> {
        let largest = self.sums.last_key_value().map_or(unit, |(&largest, _)| largest.max(unit));
        self.sums.retain(|&kept, _| kept + 1 >= largest);
        let depth = self.depth;
        let zeros = |len| alloc::vec![0; len];
        let empty = || Sums { values: zeros(depth), codes: zeros(depth), products: zeros(depth * (depth + 1) / 2) };
        (unit + 1 >= largest).then(|| self.sums.entry(unit).or_insert_with(empty))
    }

    /// Adds the rows of one sample, which are finite.
    fn add(&mut self, rows: &[f32], scratch: &mut SumScratch) -> Result<()> {
        let depth = self.depth;
        let max = rows.iter().fold(0f32, |max, x| max.max(x.abs()));
        let unit = Unit::of(max);
        let Some(sums) = unit.and_then(|unit| self.at_unit(unit.unit)) else { return Ok(()) };
        let Unit { shift, to_code, to_value, .. } = unit.expect("there are sums of the unit");
        let SumScratch { codes, products, gemm, .. } = scratch;
        let codes = resized(codes, rows.len());
        for (row, codes) in rows.chunks_exact(depth).zip(codes.chunks_exact_mut(depth)) {
            for (((&x, code), sum), value) in row.iter().zip(codes).zip(&mut sums.codes).zip(&mut sums.values) {
                *code = round(x, to_code).clamp(-127, 127) as i8;
                *sum = sum.wrapping_add(i64::from(*code) << shift);
                *value = value.wrapping_add(i64::from(round(x, to_value)) << shift);
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
}

/// The rounding of values up to a largest magnitude to codes of 8 bits.
#[derive(Debug, Clone, Copy)]
struct Unit {
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
        Some(Self { unit, shift, to_code: power(-exponent), to_value: power(FRACTION - exponent) })
    }
}

/// Rounds a product below `2^23` in magnitude to the nearest integer.
#[inline(always)]
fn round(x: f32, factor: f32) -> i32 {
    Compute::round_ties_even(x * factor) as i32
}

/// Adds rows `[count, depth, channels]` of one sample to the moments of each channel.
fn add_depthwise(groups: &mut [GroupMoments], depth: usize, rows: &[f32], scratch: &mut SumScratch) {
    let channels = groups.len();
    let pairs = depth * (depth + 1) / 2;
    let SumScratch { max, wide_codes, depthwise, .. } = scratch;
    let max = resized(max, channels);
    max.fill(0.0);
    for row in rows.chunks_exact(channels) {
        max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(x.abs()));
    }
    let units: Vec<Option<Unit>> = max.iter().map(|&max| Unit::of(max)).collect();
    let factor = |of: fn(&Unit) -> f32| units.iter().map(move |unit| unit.as_ref().map_or(0.0, of)).collect();
    let (to_code, to_value): (Vec<f32>, Vec<f32>) = (factor(|unit| unit.to_code), factor(|unit| unit.to_value));
    // `Σ x`, `Σ q` and `Σ q · qᵀ`, each with the channels side by side: 32 terms of at most 2^23 each.
    let codes = resized(wide_codes, rows.len());
    let sums = resized(depthwise, (2 * depth + pairs) * channels);
    sums.fill(0);
    let (values, rest) = sums.split_at_mut(depth * channels);
    let (code_sums, products) = rest.split_at_mut(depth * channels);
    for (i, (row, codes)) in rows.chunks_exact(channels).zip(codes.chunks_exact_mut(channels)).enumerate() {
        let tap = i % depth * channels;
        let sums = values[tap..].iter_mut().zip(&mut code_sums[tap..]);
        for ((((&x, q), (value, sum)), &to_code), &to_value) in
            row.iter().zip(codes).zip(sums).zip(&to_code).zip(&to_value)
        {
            *q = round(x, to_code).clamp(-127, 127);
            *sum += *q;
            *value += round(x, to_value);
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
    for (c, (group, unit)) in groups.iter_mut().zip(&units).enumerate() {
        let Some((unit, sums)) = unit.and_then(|unit| Some((unit, group.at_unit(unit.unit)?))) else { continue };
        let add = |sums: &mut [i64], from: &[i32], shift: u32| {
            let from = from[c..].iter().step_by(channels);
            sums.iter_mut().zip(from).for_each(|(sum, &s)| *sum = sum.wrapping_add(i64::from(s) << shift));
        };
        add(&mut sums.values, values, unit.shift);
        add(&mut sums.codes, code_sums, unit.shift);
        add(&mut sums.products, products, 2 * unit.shift);
    }
}

/// Columns of the matrix of products that are computed together, down to the diagonal.
const COLUMNS: usize = 256;
