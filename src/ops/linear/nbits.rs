//! Linear layers with weights of few bits in groups.

use alloc::vec::Vec;

use half::f16;
use ndarray::{Array2, ArrayRef1, ArrayRef2, ArrayView1, ArrayViewMut2, Axis, Dimension, Ix2};

use super::output_shape;
use super::quantized_rows::{BLOCK, Groups, QuantizedRows, blocks};
use crate::block::{BlockTensor, GroupScale, IntegerBlocks};
use crate::element::{Code, Element};
use crate::error::{Error, ParamsError, Result, check_shapes};
use crate::gemm::{AlignedBytes, Int8, Workspace, check_depth};
use crate::granularity::Granularity;
use crate::ops::kernel::resized;
use crate::ops::output_stage::check_bias;
use crate::qtensor::QTensor;
use crate::simd::{
    self, COLUMNS, CodeRows, CodesByNBits, FloatRows, FloatsByNBits, GroupScales, Isa, Line, NBitsPanel, Target,
    with_gemm, with_vector,
};
use crate::threads::{self, join};

/// A linear layer with weights of 2, 4 or 8 bits in groups along the depth: `y = x · dequantize(w)ᵀ + bias` (ONNX Runtime:
/// `MatMulNBits`; torchao: `Int4WeightOnlyConfig`, `Int8DynamicActivationInt4WeightConfig`).
///
/// Each group of an output has a scale, and a zero point if one is not 0. Weights are packed once, at their size: a weight
/// of 4 bits in groups of 32 takes 5 bits, or 4.5 if all scales are numbers of `f16`. They are never dequantized as a
/// whole.
///
/// | form | input | arithmetic | error |
/// |---|---|---|---|
/// | [`forward`](Self::forward) | `f32` | `f32`, weights widened in registers | that of the weights only |
/// | [`forward_dynamic`](Self::forward_dynamic) | `f32`, quantized to `i8` per row and group | integers within a group, `f32` across groups | also that of the input: up to half of `max / 127` of its group |
///
/// Results are the same bits on every instruction set.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{I4, Scheme, nn::LinearNBits};
///
/// let weights = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin());
/// let q = Scheme::<I4>::symmetric().per_group(Axis(1), 32).quantize(&weights)?;
/// let layer = LinearNBits::new(&q, None)?;
/// assert_eq!(layer.size_in_bytes(), 16 * 64 / 2 + 16 * 2 * 4); // codes and scales; outputs are padded to 16
///
/// let x = Array2::from_shape_fn((3, 64), |(n, i)| ((n * 64 + i) as f32 * 0.3).cos());
/// let exact = x.dot(&q.dequantize().t());
/// assert!(layer.forward(&x)?.iter().zip(&exact).all(|(y, exact)| (y - exact).abs() < 1e-4));
/// assert!(layer.forward_dynamic(&x)?.iter().zip(&exact).all(|(y, exact)| (y - exact).abs() < 0.1));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LinearNBits {
    bits: u32,
    depth: usize,
    outputs: usize,
    /// Weights of a group. The last one of a row may have fewer.
    group: usize,
    /// `[panels][groups][lines]`.
    lines: AlignedBytes,
    scales: Scales,
    offsets: Option<Scales>,
    /// `[panels][groups]`, or empty: then all are `zero_point`.
    zero_points: Vec<[u8; COLUMNS]>,
    zero_point: u8,
    bias: Option<Vec<f32>>,
}

/// Scales or offsets, `[panels][groups]`, in half precision if that loses nothing.
#[derive(Debug, Clone)]
enum Scales {
    F32(Vec<[f32; COLUMNS]>),
    F16(Vec<[u16; COLUMNS]>),
    Blocks(BlockScales),
}

/// Products of the number of a block and that of a group.
#[derive(Debug, Clone)]
struct BlockScales {
    /// Bits of `f16`, `[panels][blocks]`.
    of_blocks: Vec<[u16; COLUMNS]>,
    of_groups: Vec<[i8; COLUMNS]>,
    /// Groups of a block.
    groups: usize,
}

impl Scales {
    fn panel(&self, panel: usize, groups: usize) -> GroupScales<'_> {
        let range = panel * groups..(panel + 1) * groups;
        match self {
            Scales::F32(scales) => GroupScales::F32(&scales[range]),
            Scales::F16(scales) => GroupScales::F16(&scales[range]),
            Scales::Blocks(scales) => {
                let blocks = groups.div_ceil(scales.groups);
                let of_blocks = &scales.of_blocks[panel * blocks..(panel + 1) * blocks];
                GroupScales::Blocks { of_blocks, of_groups: &scales.of_groups[range], groups: scales.groups }
            }
        }
    }

    fn size_in_bytes(&self) -> usize {
        match self {
            Scales::F32(scales) => size_of_val(scales.as_slice()),
            Scales::F16(scales) => size_of_val(scales.as_slice()),
            Scales::Blocks(scales) => {
                size_of_val(scales.of_blocks.as_slice()) + size_of_val(scales.of_groups.as_slice())
            }
        }
    }

    fn new(scales: Vec<[f32; COLUMNS]>) -> Self {
        let exact = |scale: &f32| f16::from_f32(*scale).to_f32() == *scale;
        match scales.iter().flatten().all(exact) {
            true => Scales::F16(scales.iter().map(|s| s.map(|scale| f16::from_f32(scale).to_bits())).collect()),
            false => Scales::F32(scales),
        }
    }
}

impl BlockScales {
    /// Zeros, for panels of `groups` groups each.
    fn new(panels: usize, groups: usize, groups_of_block: usize) -> Self {
        let blocks = groups.div_ceil(groups_of_block);
        Self {
            of_blocks: alloc::vec![[0; COLUMNS]; panels * blocks],
            of_groups: alloc::vec![[0; COLUMNS]; panels * groups],
            groups: groups_of_block,
        }
    }

    /// Sets the numbers of a block of an output, whose panel has `groups` groups.
    fn set(&mut self, output: usize, block: usize, groups: usize, of: impl Fn(usize) -> GroupScale) {
        let (panel, column, first) = (output / COLUMNS, output % COLUMNS, block * self.groups);
        for group in first..groups.min(first + self.groups) {
            let GroupScale { of_block, of_group } = of(group - first);
            self.of_blocks[panel * groups.div_ceil(self.groups) + block][column] = of_block.to_bits();
            self.of_groups[panel * groups + group][column] = of_group;
        }
    }

    /// The products with a scale of the whole tensor.
    fn scaled(self, scale: f32, groups: usize) -> Scales {
        if scale != 1.0 {
            let blocks = groups.div_ceil(self.groups);
            let product = |(i, of_groups): (usize, &[i8; COLUMNS])| {
                let of_blocks = self.of_blocks[i / groups * blocks + i % groups / self.groups];
                core::array::from_fn(|j| {
                    GroupScale { of_block: f16::from_bits(of_blocks[j]), of_group: of_groups[j] }.value() * scale
                })
            };
            return Scales::F32(self.of_groups.iter().enumerate().map(product).collect());
        }
        match self.groups {
            1 => Scales::F16(self.of_blocks),
            _ => Scales::Blocks(self),
        }
    }
}

/// Evaluates `$body` with the constants `$bits` and `$per`, the codes of a byte.
macro_rules! with_bits {
    ($found:expr, ($bits:ident, $per:ident) => $body:expr) => {
        match $found {
            2 => {
                const $bits: i32 = 2;
                const $per: usize = 4;
                $body
            }
            4 => {
                const $bits: i32 = 4;
                const $per: usize = 2;
                $body
            }
            _ => {
                const $bits: i32 = 8;
                const $per: usize = 1;
                $body
            }
        }
    };
}

impl LinearNBits {
    /// Packs weights `[out, in]` and keeps a bias `[out]`. Weights are per group of axis 1; one scale per output (axis 0)
    /// or per tensor is a single group.
    ///
    /// # Errors
    /// [`Error::Params`] for groups along axis 0. [`Error::Shape`] if the bias does not have one element per output.
    /// [`Error::Value`] if the bias holds a NaN or an infinity, or if the sum of a group could leave `i32`.
    pub fn new<T: Element>(weights: &QTensor<T, Ix2>, bias: Option<&ArrayRef1<f32>>) -> Result<Self>
    where
        T::Code: Int8,
    {
        Self::of_rank_2(weights, bias)
    }

    /// [`Self::new`] for weights whose type does not tell their rank.
    pub(crate) fn of_rank_2<T: Element, D: Dimension>(
        weights: &QTensor<T, D>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<Self>
    where
        T::Code: Int8,
    {
        let codes = weights.unpacked_codes();
        let codes = codes.view().into_dimensionality::<Ix2>().expect("weights are a matrix");
        let (outputs, depth) = codes.dim();
        let params = weights.params();
        let group = match params.granularity() {
            Granularity::PerTensor | Granularity::PerAxis { axis: 0 } => depth.max(1),
            Granularity::PerGroup { axis: 1, size } => size.min(depth.max(1)),
            found => {
                let expected = Granularity::per_group(Axis(1), 32);
                return Err(ParamsError::Granularity { what: "weights", expected, found }.into());
            }
        };
        let zero_points = params.zero_point().and_then(|z| z.as_slice());
        let zero_point = |i: usize| (zero_points.map_or(0, |z| z[i].to_i32()) - T::MIN) as u8;
        let first = if params.scales().is_empty() { 0 } else { zero_point(0) };
        let mut packing = Packing::new(T::BITS, first, [outputs, depth], group, bias)?;
        let groups = packing.layer.groups();
        let mut scales = alloc::vec![[1.0; COLUMNS]; outputs.div_ceil(COLUMNS) * groups];
        for (output, k) in (0..outputs).flat_map(|output| (0..groups).map(move |k| (output, k))) {
            let i = match params.granularity() {
                Granularity::PerTensor => 0,
                Granularity::PerAxis { .. } => output,
                _ => output * groups + k,
            };
            scales[output / COLUMNS * groups + k][output % COLUMNS] = params.scales()[i];
            packing.set_zero_point(output, k, zero_point(i));
        }
        for ((output, k), code) in codes.indexed_iter() {
            packing.set(output, k, (code.to_i32() - T::MIN) as u8);
        }
        Ok(packing.finish(Scales::new(scales), None))
    }

    /// Packs weights `[out, in]` in blocks of another system, such as a tensor of a GGUF file, and keeps a bias `[out]`. The
    /// codes, scales and offsets are multiplied as they are.
    ///
    /// | format | bits of a weight here | in the file |
    /// |---|---|---|
    /// | `TQ1_0`, `TQ2_0` | 2.06 | 1.69, 2.06 |
    /// | `Q2_K` | 3.13 | 2.63 |
    /// | `Q3_K` | 4.56 | 3.44 |
    /// | `Q4_0`, `Q4_1` | 4.5, 5 | the same |
    /// | `Q4_K` | 4.63 | 4.5 |
    /// | `Q5_0`, `Q5_1`, `Q5_K` | 8.5, 9, 8.63 | 5.5, 6, 5.5 |
    /// | `Q6_K`, `Q8_0` | 8.56, 8.5 | 6.56, 8.5 |
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights are not a matrix or the bias does not have one element per output. [`Error::Value`] if the bias holds a NaN or an
    /// infinity.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use ndarray_quant::block::{BlockTensor, ggml::Q4_0};
    /// use ndarray_quant::nn::LinearNBits;
    ///
    /// let weights = Array2::from_shape_fn((16, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin());
    /// let q = BlockTensor::<Q4_0, _>::quantize(&weights)?;
    /// let layer = LinearNBits::from_blocks(&q, None)?;
    /// assert_eq!(layer.size_in_bytes(), q.size_in_bytes());
    ///
    /// let x = Array2::from_shape_fn((3, 64), |(n, i)| ((n * 64 + i) as f32 * 0.3).cos());
    /// let exact = x.dot(&q.dequantize().t());
    /// assert!(layer.forward(&x)?.iter().zip(&exact).all(|(y, exact)| (y - exact).abs() < 1e-4));
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn from_blocks<B: IntegerBlocks, D: Dimension, S: AsRef<[u8]>>(
        weights: &BlockTensor<B, D, S>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<Self> {
        let &[outputs, depth] = weights.shape() else {
            return Err(Error::layout("weights", "a matrix [out, in]", weights.shape()));
        };
        let mut packing = Packing::new(B::BITS, B::ZERO_POINT, [outputs, depth], B::GROUP, bias)?;
        let (groups, blocks, mut codes) =
            (packing.layer.groups(), depth.div_ceil(B::VALUES), alloc::vec![0; B::VALUES]);
        let numbers = || BlockScales::new(outputs.div_ceil(COLUMNS), groups, B::VALUES / B::GROUP);
        let (mut scales, mut offsets) = (numbers(), B::HAS_OFFSET.then(numbers));
        for (i, bytes) in weights.as_bytes().chunks_exact(B::BYTES).enumerate() {
            let (output, block) = (i / blocks, i % blocks);
            scales.set(output, block, groups, |group| B::scale(bytes, group));
            if let Some(offsets) = &mut offsets {
                offsets.set(output, block, groups, |group| B::offset(bytes, group));
            }
            B::codes(bytes, &mut codes);
            let first = block * B::VALUES;
            codes.iter().zip(first..depth).for_each(|(&code, k)| packing.set(output, k, code));
        }
        let scale = weights.tensor_scale();
        Ok(packing.finish(scales.scaled(scale, groups), offsets.map(|offsets| offsets.scaled(scale, groups))))
    }

    /// Computes `x · dequantize(w)ᵀ + bias` in `f32`: `[batch, in]` to `[batch, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn forward(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros(self.output_shape(x.shape())?);
        self.forward_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward`] into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. Nothing is written then.
    pub fn forward_into(&self, x: &ArrayRef2<f32>, out: &mut ArrayRef2<f32>, workspace: &mut Workspace) -> Result<()> {
        self.forward_on(Isa::current(), x, out, workspace)
    }

    fn forward_on(
        &self,
        isa: Isa,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        check_shapes("out, [batch, out]", &self.output_shape(x.shape())?, out.shape())?;
        let mut scratch = workspace.input.take::<Vec<f32>>();
        let (len, groups) = (self.padded_depth(), self.groups());
        let (values, sums) = resized(&mut scratch, x.nrows() * (len + groups)).split_at_mut(x.nrows() * len);
        values.fill(0.0);
        for (first, count) in blocks(x.nrows()) {
            let block = &mut values[first * len..][..count * len];
            for i in 0..count {
                // There are none at a depth of 0.
                let mut sums = sums.get_mut(first * groups + i..).unwrap_or_default().iter_mut().step_by(count);
                self.for_each_group(x.row(first + i), |start, x| {
                    let to = block[start * count + i..].iter_mut().step_by(count);
                    to.zip(x).for_each(|(to, &x)| *to = x);
                    if let Some(sum) = sums.next().filter(|_| self.offsets.is_some()) {
                        *sum = x.iter().sum();
                    }
                });
            }
        }
        self.multiply(out.view_mut(), &FloatBlocks { isa, bits: self.bits, values, sums, len, groups });
        workspace.input.put(scratch);
        Ok(())
    }

    /// Computes `x · dequantize(w)ᵀ + bias` with `x` quantized symmetrically to `i8` on the fly, each group of a row by its
    /// own range (ONNX Runtime: `accuracy_level` 4).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`. [`Error::Value`] if `x` holds a NaN or an infinity.
    pub fn forward_dynamic(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros(self.output_shape(x.shape())?);
        self.forward_dynamic_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward_dynamic`] into a caller-provided array. `x` and `out` may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. [`Error::Value`] if `x` holds a NaN or
    /// an infinity. Nothing is written then.
    pub fn forward_dynamic_into(
        &self,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.forward_dynamic_on(Isa::current(), x, out, workspace)
    }

    fn forward_dynamic_on(
        &self,
        isa: Isa,
        x: &ArrayRef2<f32>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        check_shapes("out, [batch, out]", &self.output_shape(x.shape())?, out.shape())?;
        let mut rows = workspace.input.take::<QuantizedRows>();
        let (padded, groups) = (self.padded_group(), self.groups());
        rows.quantize(x.view(), Groups { len: self.group.max(1), padded, count: groups })?;
        let len = self.padded_depth();
        self.multiply(out.view_mut(), &CodeBlocks { isa, bits: self.bits, rows: &rows, len, groups });
        workspace.input.put(rows);
        Ok(())
    }

    /// Returns the shape of the output, `[batch, out]`, for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn output_shape(&self, x: &[usize]) -> Result<[usize; 2]> {
        output_shape([self.depth, self.outputs], x)
    }

    /// Returns the size of packed weights, scales, zero points and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        let scales = self.scales.size_in_bytes() + self.offsets.as_ref().map_or(0, Scales::size_in_bytes);
        let bias = size_of::<f32>() * self.bias.as_ref().map_or(0, Vec::len);
        self.lines.len() + scales + size_of_val(self.zero_points.as_slice()) + bias
    }

    fn groups(&self) -> usize {
        self.depth.div_ceil(self.group)
    }

    fn lines_of_group(&self) -> usize {
        self.group.div_ceil(4 * (8 / self.bits as usize))
    }

    /// Values of a group, padded to whole lines.
    fn padded_group(&self) -> usize {
        self.lines_of_group() * 4 * (8 / self.bits as usize)
    }

    /// Returns the byte of a weight, and the position of its bits.
    fn position(&self, output: usize, k: usize) -> (usize, u32) {
        let (panel, column) = (output / COLUMNS, output % COLUMNS);
        let (group, k) = (k / self.group, k % self.group);
        let (unit, per_byte) = (k / 4, 8 / self.bits as usize);
        let line = (panel * self.groups() + group) * self.lines_of_group() + unit / per_byte;
        (line * size_of::<Line>() + column * 4 + k % 4, (unit % per_byte) as u32 * self.bits)
    }

    /// Values of a row with padded groups.
    fn padded_depth(&self) -> usize {
        self.groups() * self.padded_group()
    }

    /// Calls `f` with each group of a row, and where it starts in a row with padded groups.
    fn for_each_group<T>(&self, row: ArrayView1<'_, T>, mut f: impl FnMut(usize, ArrayView1<'_, T>)) {
        let groups = row.axis_chunks_iter(Axis(0), self.group);
        groups.enumerate().for_each(|(k, group)| f(k * self.padded_group(), group));
    }

    fn panel(&self, panel: usize) -> NBitsPanel<'_> {
        let (groups, group) = (self.groups(), self.lines_of_group());
        let (first, all) = (panel * groups, self.lines.as_chunks().0);
        NBitsPanel {
            lines: &all[first * group..][..groups * group],
            group,
            scales: self.scales.panel(panel, groups),
            offsets: self.offsets.as_ref().map(|offsets| offsets.panel(panel, groups)),
            zero_points: self.zero_points.get(first..first + groups).unwrap_or_default(),
            zero_point: self.zero_point,
        }
    }

    /// Computes all panels, split over threads.
    fn multiply(&self, out: ArrayViewMut2<'_, f32>, rows: &impl BlockRows) {
        let threads = threads::worth(out.len().saturating_mul(self.depth));
        self.fork(0, out, threads, rows);
    }

    /// Computes the outputs from a panel on.
    fn fork(&self, first: usize, mut out: ArrayViewMut2<'_, f32>, threads: usize, rows: &impl BlockRows) {
        let panels = out.ncols().div_ceil(COLUMNS);
        let at = panels * (threads / 2) / threads.max(1);
        if at > 0 {
            let (left, right) = out.split_at(Axis(1), at * COLUMNS);
            join(
                || self.fork(first, left, threads / 2, rows),
                || self.fork(first + at, right, threads - threads / 2, rows),
            );
            return;
        }
        let mut sums = [[0.0; COLUMNS]; MC];
        for (i, mut out) in out.axis_chunks_iter_mut(Axis(0), MC).enumerate() {
            for (panel, out) in out.axis_chunks_iter_mut(Axis(1), COLUMNS).enumerate() {
                let sums = &mut sums[..out.nrows()];
                self.multiply_panel(i * MC, first + panel, sums, rows);
                self.store(first + panel, sums, out);
            }
        }
    }

    /// Multiplies the rows from `row` on, as many as there are sums, with a panel.
    fn multiply_panel(&self, row: usize, panel: usize, sums: &mut [[f32; COLUMNS]], rows: &impl BlockRows) {
        let (blocks, rest) = sums.as_chunks_mut::<BLOCK>();
        let (panel, whole) = (self.panel(panel), row + blocks.len() * BLOCK);
        for (i, sums) in blocks.iter_mut().enumerate() {
            rows.multiply(row + i * BLOCK, panel, sums);
        }
        for (i, sums) in rest.iter_mut().enumerate() {
            rows.multiply(whole + i, panel, core::array::from_mut(sums));
        }
    }

    /// Adds the bias of a panel to its sums.
    fn store(&self, panel: usize, sums: &[[f32; COLUMNS]], mut out: ArrayViewMut2<'_, f32>) {
        let width = out.ncols();
        let mut bias = [0.0; COLUMNS];
        if let Some(all) = &self.bias {
            bias[..width].copy_from_slice(&all[panel * COLUMNS..][..width]);
        }
        for (mut row, sums) in out.rows_mut().into_iter().zip(sums) {
            let values = core::array::from_fn::<f32, COLUMNS, _>(|j| sums[j] + bias[j]);
            // A copy of a whole panel is not a call.
            match row.as_slice_mut().and_then(|row| <&mut [f32; COLUMNS]>::try_from(row).ok()) {
                Some(row) => *row = values,
                None => row.iter_mut().zip(values).for_each(|(y, value)| *y = value),
            }
        }
    }
}

/// Rows whose sums stay in L1 until they are stored: a multiple of [`BLOCK`].
const MC: usize = 128;

/// The input, in blocks of [`BLOCK`] rows and of one.
trait BlockRows: Sync {
    /// Multiplies the block of rows from a row on with a panel.
    fn multiply<const ROWS: usize>(&self, row: usize, panel: NBitsPanel<'_>, out: &mut [[f32; COLUMNS]; ROWS]);
}

struct FloatBlocks<'a> {
    isa: Isa,
    bits: u32,
    values: &'a [f32],
    /// Sums of the groups.
    sums: &'a [f32],
    /// Values of a row.
    len: usize,
    groups: usize,
}

impl BlockRows for FloatBlocks<'_> {
    fn multiply<const ROWS: usize>(&self, row: usize, panel: NBitsPanel<'_>, out: &mut [[f32; COLUMNS]; ROWS]) {
        let (units, _) = self.values[row * self.len..][..ROWS * self.len].as_chunks::<ROWS>().0.as_chunks::<4>();
        let (sums, _) = self.sums[row * self.groups..][..ROWS * self.groups].as_chunks();
        with_bits!(self.bits, (BITS, PER) => {
            let rows = FloatRows { units: units.as_chunks::<PER>().0, sums };
            with_vector!(self.isa, v => v.run(FloatsByNBits::<_, BITS, PER, ROWS> { v, rows, panel, out }))
        });
    }
}

struct CodeBlocks<'a> {
    isa: Isa,
    bits: u32,
    rows: &'a QuantizedRows,
    /// Codes of a row.
    len: usize,
    groups: usize,
}

impl BlockRows for CodeBlocks<'_> {
    fn multiply<const ROWS: usize>(&self, row: usize, panel: NBitsPanel<'_>, out: &mut [[f32; COLUMNS]; ROWS]) {
        let &Self { rows: QuantizedRows { codes, scales, sums }, len, groups, .. } = self;
        let bytes = simd::as_bytes(&codes[row * len..][..ROWS * len]).unwrap_or_default();
        let (units, _) = bytes.as_chunks::<4>().0.as_chunks::<ROWS>();
        let (scales, _) = scales[row * groups..][..ROWS * groups].as_chunks();
        let (sums, _) = sums[row * groups..][..ROWS * groups].as_chunks();
        with_bits!(self.bits, (BITS, PER) => {
            let rows = CodeRows { units: units.as_chunks::<PER>().0, scales, sums };
            with_gemm!(self.isa, g => g.run(CodesByNBits::<_, BITS, PER, ROWS> { g, rows, panel, out }), amx => {
                let g = amx.vnni();
                g.run(CodesByNBits::<_, BITS, PER, ROWS> { g, rows, panel, out })
            })
        });
    }
}

/// A layer that is being packed. Its codes are 0.
struct Packing {
    layer: LinearNBits,
    zero_points: Vec<[u8; COLUMNS]>,
}

impl Packing {
    /// `zero_point` is that of a group, unless it is set.
    fn new(
        bits: u32,
        zero_point: u8,
        [outputs, depth]: [usize; 2],
        group: usize,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<Self> {
        check_depth(128, 255, group, None)?;
        check_bias(bias, outputs)?;
        let mut layer = LinearNBits {
            bits,
            depth,
            outputs,
            group,
            lines: AlignedBytes::default(),
            scales: Scales::F32(Vec::new()),
            offsets: None,
            zero_points: Vec::new(),
            zero_point,
            bias: bias.map(|bias| bias.iter().copied().collect()),
        };
        let groups = outputs.div_ceil(COLUMNS) * layer.groups();
        layer.lines = AlignedBytes::zeroed(groups * layer.lines_of_group() * size_of::<Line>());
        Ok(Self { layer, zero_points: alloc::vec![[zero_point; COLUMNS]; groups] })
    }

    /// Sets the zero point of a group of an output.
    fn set_zero_point(&mut self, output: usize, group: usize, zero_point: u8) {
        self.zero_points[output / COLUMNS * self.layer.groups() + group][output % COLUMNS] = zero_point;
    }

    /// Sets an unsigned code, once.
    fn set(&mut self, output: usize, k: usize, code: u8) {
        let (byte, shift) = self.layer.position(output, k);
        self.layer.lines[byte] |= code << shift;
    }

    fn finish(self, scales: Scales, offsets: Option<Scales>) -> LinearNBits {
        let Self { mut layer, zero_points } = self;
        (layer.scales, layer.offsets) = (scales, offsets);
        if zero_points.iter().flatten().any(|&zero_point| zero_point != layer.zero_point) {
            layer.zero_points = zero_points;
        }
        layer
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, ArrayView2};
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::block::ggml::{Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, TQ1_0, TQ2_0};
    use crate::ops::linear::quantized_rows::input_scheme;
    use crate::{I2, I4, QParams, Scheme, U2, U4};

    fn uniform([rows, cols]: [usize; 2], seed: u64) -> Array2<f32> {
        let mut rng = Pcg64::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0..1.0))
    }

    fn near(found: ArrayView2<'_, f32>, expected: &Array2<f32>) -> bool {
        found.iter().zip(expected).all(|(y, expected)| (y - expected).abs() < 1e-3)
    }

    /// Sums in the order of the layer: integers within a group, floats across groups.
    fn expected_dynamic<T: Element>(
        x: &Array2<f32>,
        w: &QTensor<T, Ix2>,
        group: usize,
        bias: &Array1<f32>,
    ) -> Array2<f32> {
        let q = input_scheme().per_group(Axis(1), group).quantize(x).unwrap();
        let (codes, weights, params) = (q.codes(), w.unpacked_codes(), w.params());
        Array2::from_shape_fn((x.nrows(), weights.nrows()), |(i, j)| {
            let mut y = 0f32;
            for (g, first) in (0..x.ncols()).step_by(group).enumerate() {
                let zero = params.zero_point().map_or(0, |z| z[[j, g]].to_i32());
                let sum: i32 = (first..x.ncols().min(first + group))
                    .map(|k| i32::from(codes[[i, k]]) * (weights[[j, k]].to_i32() - zero))
                    .sum();
                y += sum as f32 * (q.params().scale()[[i, g]] * params.scale()[[j, g]]);
            }
            y + bias[j]
        })
    }

    fn check<T: Element>(
        scheme: Scheme<T>,
        [rows, depth, outputs, group]: [usize; 4],
        seed: u64,
    ) -> Result<(), TestCaseError>
    where
        T::Code: Int8,
    {
        let (x, w) = (uniform([rows, depth], seed), uniform([outputs, depth], seed + 1));
        let bias = uniform([1, outputs], seed + 2).row(0).to_owned();
        let w = scheme.per_group(Axis(1), group).quantize(&w).unwrap();
        let layer = LinearNBits::new(&w, Some(&bias)).unwrap();
        let exact = x.dot(&w.dequantize().t()) + &bias;
        let dynamic = expected_dynamic(&x, &w, group, &bias);
        let mut first: Option<Array2<f32>> = None;
        for isa in Isa::available() {
            let mut y = Array2::from_elem((rows, outputs), f32::NAN);
            layer.forward_dynamic_on(isa, &x, &mut y, &mut Workspace::new()).unwrap();
            prop_assert_eq!(&y, &dynamic, "{:?}", isa);
            layer.forward_on(isa, &x, &mut y, &mut Workspace::new()).unwrap();
            prop_assert!(near(y.view(), &exact), "{:?}: {} instead of {}", isa, y, exact);
            prop_assert_eq!(&y, first.get_or_insert_with(|| y.clone()), "{:?}", isa);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn products_of_every_set(
            rows in prop_oneof![5 => 0..12usize, 1 => 120..140usize], depth in 0..200usize, outputs in 0..40usize, group in prop_oneof![Just(16), Just(32), Just(128), 1..64usize],
            seed: u32,
        ) {
            let shape = [rows, depth, outputs, group];
            check(Scheme::<I4>::symmetric(), shape, seed.into())?;
            check(Scheme::<U4>::asymmetric(), shape, seed.into())?;
            check(Scheme::<I2>::symmetric(), shape, seed.into())?;
            check(Scheme::<U2>::asymmetric(), shape, seed.into())?;
            check(Scheme::<i8>::symmetric(), shape, seed.into())?;
            check(Scheme::<u8>::asymmetric(), shape, seed.into())?;
        }
    }

    #[test]
    fn blocks_of_ggml() {
        let (x, w) = (uniform([5, 600], 1), uniform([20, 600], 2));
        fn check<B: IntegerBlocks>(x: &Array2<f32>, w: &Array2<f32>) {
            for scale in [1.0, 0.37] {
                let q = BlockTensor::<B, _>::quantize(w).unwrap().with_tensor_scale(scale);
                let layer = LinearNBits::from_blocks(&q, None).unwrap();
                let exact = x.dot(&q.dequantize().t());
                assert!(near(layer.forward(x).unwrap().view(), &exact), "{}", B::NAME);
                let rounded = input_scheme()
                    .per_group(Axis(1), B::GROUP)
                    .quantize(x)
                    .unwrap()
                    .dequantize()
                    .dot(&q.dequantize().t());
                let mut first: Option<Array2<f32>> = None;
                for isa in Isa::available() {
                    let mut y = Array2::zeros((5, 20));
                    layer.forward_dynamic_on(isa, x, &mut y, &mut Workspace::new()).unwrap();
                    assert!(near(y.view(), &rounded), "{} on {isa:?}", B::NAME);
                    assert_eq!(&y, first.get_or_insert_with(|| y.clone()), "{} on {isa:?}", B::NAME);
                }
            }
        }
        check::<Q4_1>(&x, &w);
        check::<Q5_0>(&x, &w);
        check::<Q5_1>(&x, &w);
        check::<Q2_K>(&x, &w);
        check::<Q3_K>(&x, &w);
        check::<Q4_K>(&x, &w);
        check::<Q5_K>(&x, &w);
        check::<Q6_K>(&x, &w);
        check::<Q4_0>(&x, &w);
        check::<Q8_0>(&x, &w);
        check::<TQ1_0>(&x, &w);
        check::<TQ2_0>(&x, &w);
        // Every code, also the one that quantization does not write.
        let bytes: Vec<u8> = (0..20 * 66).map(|i| if i % 66 < 64 { i as u8 } else { [0, 0x3c][i % 2] }).collect();
        let q = BlockTensor::<TQ2_0, _>::from_bytes((20, 256), bytes).unwrap();
        let (layer, x) = (LinearNBits::from_blocks(&q, None).unwrap(), uniform([5, 256], 3));
        assert!(near(layer.forward(&x).unwrap().view(), &x.dot(&q.dequantize().t())));
        assert!(layer.zero_points.is_empty());
    }

    /// The greatest sums in each accumulator: codes of ±127 by the greatest codes of weights, in one group.
    #[test]
    fn extreme_codes() {
        fn check<T: Element<Code: Int8>>(code: i32) {
            let depth = 3000;
            let params = QParams::<T>::per_tensor(1.0, T::Code::from_i32(0)).unwrap();
            let w = QTensor::from_codes(Array2::from_elem((17, depth), T::Code::from_i32(code)), params).unwrap();
            let layer = LinearNBits::new(&w, None).unwrap();
            for isa in Isa::available() {
                for x in [-127f32, 127.0] {
                    let (x, mut y) = (Array2::from_elem((5, depth), x), Array2::zeros((5, 17)));
                    layer.forward_dynamic_on(isa, &x, &mut y, &mut Workspace::new()).unwrap();
                    let expected = depth as f32 * x[[0, 0]] * code as f32;
                    assert!(y.iter().all(|&y| y == expected), "{isa:?}: {y} instead of {expected}");
                }
            }
        }
        check::<U2>(3);
        check::<I2>(-2);
        check::<U4>(15);
        check::<I4>(-8);
        check::<u8>(255);
        check::<i8>(-128);
    }

    /// Rows, outputs or a depth of 0.
    #[test]
    fn empty_layers() {
        for shape in [[5, 0, 3, 16], [0, 20, 3, 16], [5, 20, 0, 16], [5, 0, 0, 16]] {
            check(Scheme::<I4>::symmetric(), shape, 1).unwrap();
            check(Scheme::<U2>::asymmetric(), shape, 2).unwrap();
        }
        let q = BlockTensor::<Q4_K, _>::quantize(&Array2::<f32>::zeros((3, 0))).unwrap();
        let layer = LinearNBits::from_blocks(&q, None).unwrap();
        assert_eq!(layer.forward(&Array2::zeros((5, 0))).unwrap(), Array2::<f32>::zeros((5, 3)));
        assert_eq!(layer.forward_dynamic(&Array2::zeros((5, 0))).unwrap(), Array2::<f32>::zeros((5, 3)));
    }

    /// One scale per output or per tensor, strided arrays, and errors that write nothing.
    #[test]
    fn other_granularities_and_errors() {
        let (x, w) = (uniform([3, 50], 1), uniform([20, 50], 2));
        for scheme in [Scheme::<I4>::symmetric(), Scheme::<I4>::symmetric().per_axis(Axis(0))] {
            let q = scheme.quantize(&w).unwrap();
            let layer = LinearNBits::new(&q, None).unwrap();
            let exact = x.dot(&q.dequantize().t());
            let mut y = Array2::zeros((20, 3));
            layer.forward_into(&x, &mut y.view_mut().reversed_axes(), &mut Workspace::new()).unwrap();
            assert!(near(y.t(), &exact));
        }
        let q = Scheme::<I4>::symmetric().per_group(Axis(0), 4).quantize(&w).unwrap();
        assert!(matches!(LinearNBits::new(&q, None), Err(Error::Params(_))));
        let layer =
            LinearNBits::new(&Scheme::<I4>::symmetric().per_group(Axis(1), 16).quantize(&w).unwrap(), None).unwrap();
        let mut y = Array2::from_elem((3, 20), 7.0);
        assert!(matches!(
            layer.forward_into(&uniform([3, 49], 1), &mut y, &mut Workspace::new()),
            Err(Error::Shape(_))
        ));
        let mut bad = x.clone();
        bad[[1, 2]] = f32::NAN;
        assert!(matches!(layer.forward_dynamic_into(&bad, &mut y, &mut Workspace::new()), Err(Error::Value(_))));
        assert!(y.iter().all(|&y| y == 7.0));
    }
}
