//! Operators that move codes: concatenation, padding, enlarging, reshaping.

use alloc::vec::Vec;

use ndarray::{Array, Array4, ArrayRef, ArrayView, Axis, Dimension, IntoDimension, Ix4, Slice};

use super::lookup::Lookup;
use super::requantize::check_params;
use crate::element::Code;
use crate::error::{Error, Result, elements};
use crate::gemm::Int8;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// Joins tensors along an axis; those with other parameters than the output are requantized (ONNX Runtime:
/// `QLinearConcat`; TFLite: `CONCATENATION`): `clamp(round((x - x_zero) * x_scale / y_scale) + y_zero)`, by a table.
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::ops::Concat;
/// use ndarray_quant::{QParams, Quantize};
/// let a = QParams::<u8, _>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, 2.0]])?;
/// let b = QParams::<u8, _>::per_tensor(0.25, 4)?.quantize(&array![[3.0f32]])?;
/// let concat = Concat::new(Axis(1), &[a.params(), b.params()], a.params())?;
/// assert_eq!(concat.forward(&[&a, &b])?.codes(), array![[2, 4, 6]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Concat<T: Int8, D: Dimension> {
    axis: Axis,
    inputs: Vec<QParams<T, D>>,
    y: QParams<T, D>,
    /// For each input that is not copied as it is.
    tables: Vec<Option<Lookup<T, T, D>>>,
}

impl<T: Int8, D: Dimension> Concat<T, D> {
    /// For inputs with these parameters, in order, and this output.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all parameters are per tensor.
    pub fn new(axis: Axis, inputs: &[&QParams<T, D>], y: &QParams<T, D>) -> Result<Self> {
        let y_pair = y.pair("parameters of the output")?;
        let table = |x: &&QParams<T, D>| {
            let same = x.pair("parameters of an input")? == y_pair;
            if same { Ok(None) } else { Lookup::requantize(x, y).map(Some) }
        };
        let tables = inputs.iter().map(table).collect::<Result<_>>()?;
        Ok(Self { axis, inputs: inputs.iter().map(|&x| x.clone()).collect(), y: y.clone(), tables })
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<T, D> {
        &self.y
    }

    /// Joins these tensors.
    ///
    /// # Errors
    /// [`Error::Argument`] if one has other parameters, and those of [`Self::forward_into`].
    pub fn forward(&self, inputs: &[&QTensor<T, D>]) -> Result<QTensor<T, D>> {
        self.check_count(inputs.len())?;
        for (x, params) in inputs.iter().zip(&self.inputs) {
            check_params(x.params(), params)?;
        }
        let codes: Vec<_> = inputs.iter().map(|x| x.unpacked_codes()).collect();
        let views: Vec<_> = codes.iter().map(|codes| codes.view()).collect();
        let Some(first) = views.first() else {
            return Err(Error::shape("inputs, at least one", &[1], &[0]));
        };
        self.check_axis(first.ndim())?;
        let mut shape = first.raw_dim();
        shape[self.axis.index()] = views.iter().map(|x| x.shape().get(self.axis.index()).copied().unwrap_or(0)).sum();
        let mut out = Array::from_elem(shape, T::default());
        self.forward_into(&views, &mut out)?;
        QTensor::from_codes(out, self.y.clone())
    }

    /// Joins these codes in memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are as many inputs as parameters and they fill the shape of `out`, [`Error::Axis`]
    /// if `out` has not the axis. Then nothing was written.
    pub fn forward_into(&self, inputs: &[ArrayView<'_, T, D>], out: &mut ArrayRef<T, D>) -> Result<()> {
        self.check_count(inputs.len())?;
        self.check_axis(out.ndim())?;
        let axis = self.axis.index();
        let mut total = 0;
        for x in inputs {
            let mut expected = out.shape().to_vec();
            expected[axis] = x.shape().get(axis).copied().unwrap_or(0);
            if x.shape() != expected {
                return Err(Error::shape("input", &expected, x.shape()));
            }
            total += expected[axis];
        }
        if total != out.shape()[axis] {
            return Err(Error::shape("length of all inputs along the axis", &[out.shape()[axis]], &[total]));
        }
        let inner: usize = out.shape()[axis + 1..].iter().product();
        let mut start = 0;
        for (x, table) in inputs.iter().zip(&self.tables) {
            let end = start + x.shape()[axis];
            let (len, stride) = ((end - start) * inner, total * inner);
            match (table, x.as_slice(), out.as_slice_mut()) {
                _ if x.is_empty() => {}
                (Some(table), Some(x), Some(out)) => table.look_up((x, len), (&mut out[start * inner..], stride)),
                (None, Some(x), Some(out)) => {
                    let rows = x.chunks_exact(len).zip(out[start * inner..].chunks_mut(stride));
                    rows.for_each(|(x, out)| out[..len].copy_from_slice(x));
                }
                (table, ..) => {
                    let mut out = out.slice_axis_mut(self.axis, Slice::from(start..end));
                    match table {
                        Some(table) => table.forward_into(x, &mut out)?,
                        None => out.assign(x),
                    }
                }
            }
            start = end;
        }
        Ok(())
    }

    fn check_count(&self, found: usize) -> Result<()> {
        let expected = self.inputs.len();
        if found == expected { Ok(()) } else { Err(Error::shape("number of inputs", &[expected], &[found])) }
    }

    fn check_axis(&self, ndim: usize) -> Result<()> {
        let found = self.axis.index();
        if found < ndim { Ok(()) } else { Err(Error::Axis { ndim, found }) }
    }
}

/// Surrounds a tensor with real zeros, that is with its zero point: so many before and after along each axis (ONNX:
/// `Pad` with mode "constant"; TFLite: `PAD`).
///
/// # Errors
/// [`Error::Shape`] unless there is a pair for each axis and the parameters are per tensor, [`Error::Argument`] if a
/// length would overflow.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, Quantize, ops::pad};
/// let x = QParams::<u8, _>::per_tensor(0.5, 10)?.quantize(&array![[1.0f32, 2.0]])?;
/// assert_eq!(pad(&x, &[(0, 1), (2, 0)])?.codes(), array![[10, 10, 12, 14], [10, 10, 10, 10]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn pad<T: Int8, D: Dimension>(x: &QTensor<T, D>, pads: &[(usize, usize)]) -> Result<QTensor<T, D>> {
    let (_, zero_point) = x.params().of_tensor("parameters of the input")?;
    let codes = x.unpacked_codes();
    if pads.len() != codes.ndim() {
        return Err(Error::shape("pairs of padding", &[codes.ndim()], &[pads.len()]));
    }
    let mut shape = codes.raw_dim();
    for (len, &(before, after)) in shape.slice_mut().iter_mut().zip(pads) {
        *len = len.saturating_add(before).saturating_add(after);
    }
    elements("padded tensor", shape.slice())?;
    let mut out = Array::from_elem(shape, zero_point);
    inside(&mut out, codes.shape(), pads).assign(&codes);
    QTensor::from_codes(out, x.params().clone())
}

/// [`pad`] of codes with this zero point into memory that exists. Any strides.
///
/// # Errors
/// [`Error::Shape`] unless there is a pair for each axis and `out` has the padded shape. Then nothing was written.
pub fn pad_into<T: Int8, D: Dimension>(
    x: &ArrayRef<T, D>,
    zero_point: T,
    pads: &[(usize, usize)],
    out: &mut ArrayRef<T, D>,
) -> Result<()> {
    if pads.len() != x.ndim() {
        return Err(Error::shape("pairs of padding", &[x.ndim()], &[pads.len()]));
    }
    let padded = |(&len, &(before, after)): (&usize, &(usize, usize))| len.saturating_add(before).saturating_add(after);
    let expected: Vec<usize> = x.shape().iter().zip(pads).map(padded).collect();
    if out.shape() != expected {
        return Err(Error::shape("output", &expected, out.shape()));
    }
    out.fill(zero_point);
    inside(out, x.shape(), pads).assign(x);
    Ok(())
}

/// What is not padding.
fn inside<'a, T, D: Dimension>(
    out: &'a mut ArrayRef<T, D>,
    shape: &[usize],
    pads: &[(usize, usize)],
) -> ndarray::ArrayViewMut<'a, T, D> {
    out.slice_each_axis_mut(|at| {
        let (before, len) = (pads[at.axis.index()].0, shape[at.axis.index()]);
        Slice::from(before..before + len)
    })
}

/// Which pixel of the image an output pixel of [`resize_nearest`] takes, with `ratio = input size / output size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Nearest {
    /// `floor(at * ratio)` (ONNX: "asymmetric" with "floor"; TFLite without options; PyTorch: `nearest`).
    #[default]
    Floor,
    /// `floor((at + 0.5) * ratio)` (TFLite: `half_pixel_centers`; PyTorch: `nearest-exact`).
    HalfPixelFloor,
    /// `ceil((at + 0.5) * ratio - 1)` (ONNX: "half_pixel" with "round_prefer_floor", its defaults).
    HalfPixel,
    /// `floor(at * (input size - 1) / (output size - 1) + 0.5)` (TFLite: `align_corners`).
    AlignCorners,
}

impl Nearest {
    /// The source of output `at`, in exact integers.
    fn source(self, at: usize, input: usize, output: usize) -> usize {
        let (at, input, output) = (at as u128, input as u128, output as u128);
        let source = match self {
            Nearest::Floor => at * input / output,
            Nearest::HalfPixelFloor => (2 * at + 1) * input / (2 * output),
            // The nearest integer to (at + 0.5) * ratio - 0.5, halves down.
            Nearest::HalfPixel => ((2 * at + 1) * input).saturating_sub(2 * output).div_ceil(2 * output),
            Nearest::AlignCorners if output == 1 => 0,
            Nearest::AlignCorners => (2 * at * (input - 1) + output - 1) / (2 * (output - 1)),
        };
        source.min(input - 1) as usize
    }
}

/// Enlarges or shrinks images by taking the nearest pixel (ONNX: `Resize` with mode "nearest"; TFLite:
/// `RESIZE_NEAREST_NEIGHBOR`). Images are `[images, height, width, channels]`; codes and parameters stay as they are.
///
/// # Errors
/// [`Error::Shape`] if the images have no pixels but the output has.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::ops::{Nearest, resize_nearest};
/// use ndarray_quant::{QParams, QTensor};
/// let codes = Array4::from_shape_fn((1, 1, 2, 1), |(_, _, x, _)| x as u8);
/// let x = QTensor::<u8, Ix4>::new(codes, QParams::per_tensor(0.1, 0)?)?;
/// let y = resize_nearest(&x, [1, 4], Nearest::Floor)?;
/// assert_eq!(y.codes().iter().copied().collect::<Vec<_>>(), [0, 0, 1, 1]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn resize_nearest<T: Int8>(x: &QTensor<T, Ix4>, size: [usize; 2], nearest: Nearest) -> Result<QTensor<T, Ix4>> {
    let codes = x.unpacked_codes();
    let (images, _, _, channels) = codes.dim();
    let shape = [images, size[0], size[1], channels];
    elements("resized images", &shape)?;
    let mut out = Array4::from_elem(shape, T::default());
    resize_nearest_into(&codes, nearest, &mut out)?;
    QTensor::from_codes(out, x.params().clone())
}

/// [`resize_nearest`] of codes to the size of `out`, which is memory that exists. Any strides.
///
/// # Errors
/// [`Error::Shape`] if images or channels differ, or the images have no pixels but the output has.
pub fn resize_nearest_into<T: Code>(x: &ArrayRef<T, Ix4>, nearest: Nearest, out: &mut ArrayRef<T, Ix4>) -> Result<()> {
    let (images, height, width, channels) = x.dim();
    let (_, rows, columns, _) = out.dim();
    let expected = [images, rows, columns, channels];
    if out.shape() != expected || (!out.is_empty() && x.is_empty()) {
        return Err(Error::shape("output", &expected, out.shape()));
    }
    if out.is_empty() {
        return Ok(());
    }
    for (x, mut out) in x.outer_iter().zip(out.outer_iter_mut()) {
        for (y, mut out) in out.outer_iter_mut().enumerate() {
            let row = x.index_axis(Axis(0), nearest.source(y, height, rows));
            for (at, mut out) in out.outer_iter_mut().enumerate() {
                out.assign(&row.index_axis(Axis(0), nearest.source(at, width, columns)));
            }
        }
    }
    Ok(())
}

/// The same codes in row-major order under another shape (ONNX: `Reshape`; TFLite: `RESHAPE`).
///
/// # Errors
/// [`Error::Shape`] if the shape has another number of elements, or the parameters are not per tensor.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, Quantize, ops::reshape};
/// let x = QParams::<u8, _>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, 2.0], [3.0, 4.0]])?;
/// assert_eq!(reshape(x, [4])?.dequantize(), array![1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn reshape<T: Int8, D: Dimension, Sh: IntoDimension>(x: QTensor<T, D>, shape: Sh) -> Result<QTensor<T, Sh::Dim>> {
    let shape = shape.into_dimension();
    let params = of_other_rank(x.params())?;
    let (codes, _) = x.into_parts();
    let codes = crate::element::Storage::<T, D>::codes(&codes).into_owned();
    let found = codes.shape().to_vec();
    let codes = codes.to_shape(shape.clone()).map(|codes| codes.into_owned());
    let codes = codes.map_err(|_| Error::shape("reshaped tensor", shape.slice(), &found))?;
    QTensor::from_codes(codes, params)
}

/// All axes from `axis` on as one, all before it as one (ONNX: `Flatten`). Errors as [`reshape`].
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::{QParams, QTensor, ops::flatten};
/// let x = QTensor::<u8, Ix4>::new(Array4::zeros((2, 3, 4, 5)), QParams::per_tensor(0.5, 0)?)?;
/// assert_eq!(flatten(x, 1)?.codes().dim(), (2, 60));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn flatten<T: Int8, D: Dimension>(x: QTensor<T, D>, axis: usize) -> Result<QTensor<T, ndarray::Ix2>> {
    let dim = x.raw_dim();
    let shape = dim.slice();
    if axis > shape.len() {
        return Err(Error::Axis { ndim: shape.len(), found: axis });
    }
    let (outer, inner) = shape.split_at(axis);
    let shape = (outer.iter().product(), inner.iter().product());
    reshape(x, shape)
}

/// Parameters per tensor for tensors of another rank.
pub(crate) fn of_other_rank<T: Int8, D: Dimension, E: Dimension>(params: &QParams<T, D>) -> Result<QParams<T, E>> {
    let (scale, zero_point) = params.of_tensor("parameters of the input")?;
    let (min, max) = params.code_range();
    QParams::per_tensor(scale, zero_point)?.with_convention(params.convention()).with_code_range(min, max)
}
