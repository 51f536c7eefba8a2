//! Concatenation.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, ArrayView, Axis, Dimension, Slice};

use crate::error::{Error, Result, check_count};
use crate::gemm::Int8;
use crate::ops::params::check_params;
use crate::ops::unary::Lookup;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// Concatenates tensors along an axis (ONNX Runtime: `QLinearConcat`; TFLite: `CONCATENATION`; PyTorch: `cat`).
///
/// Inputs with the scale and zero point of the output are copied. Others are requantized by a lookup table:
/// `clamp(round((x - x_zero) * x_scale / y_scale) + y_zero)`.
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::ops::Concat;
/// use ndarray_quant::{QParams, Quantize};
/// let a = QParams::<u8>::per_tensor(0.5, 0)?.quantize(&array![[1.0f32, 2.0]])?;
/// let b = QParams::<u8>::per_tensor(0.25, 4)?.quantize(&array![[3.0f32]])?;
/// let concat = Concat::new(Axis(1), &[a.params(), b.params()], a.params())?;
/// assert_eq!(concat.forward(&[&a, &b])?.codes(), array![[2, 4, 6]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Concat<T: Int8> {
    axis: Axis,
    inputs: Vec<QParams<T>>,
    y: QParams<T>,
    /// The table that requantizes each input, `None` for inputs that are copied.
    tables: Vec<Option<Lookup<T, T>>>,
}

impl<T: Int8> Concat<T> {
    /// Prepares for inputs with these parameters, in order, and these output parameters.
    ///
    /// # Errors
    /// [`Error::Params`] unless all parameters are per tensor.
    pub fn new(axis: Axis, inputs: &[&QParams<T>], y: &QParams<T>) -> Result<Self> {
        let y_params = y.scale_zero_point("output")?;
        let table = |x: &&QParams<T>| {
            let same = x.scale_zero_point("input")? == y_params;
            if same { Ok(None) } else { Lookup::requantize(x, y).map(Some) }
        };
        let tables = inputs.iter().map(table).collect::<Result<_>>()?;
        Ok(Self { axis, inputs: inputs.iter().map(|&x| x.clone()).collect(), y: y.clone(), tables })
    }

    pub(super) fn axis(&self) -> Axis {
        self.axis
    }

    /// The table that requantizes each input, `None` for inputs that are copied.
    pub(super) fn tables(&self) -> &[Option<Lookup<T, T>>] {
        &self.tables
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<T> {
        &self.y
    }

    /// Concatenates tensors.
    ///
    /// # Errors
    /// [`Error::Params`] if an input has another scale or zero point. [`Error::Argument`] without inputs.
    /// [`Error::Shape`] unless the inputs match the parameters in number, have the axis, and agree on the other axes.
    pub fn forward<D: Dimension>(&self, inputs: &[&QTensor<T, D>]) -> Result<QTensor<T, D>> {
        self.check_count(inputs.len())?;
        for (x, params) in inputs.iter().zip(&self.inputs) {
            check_params("input", x.params(), params)?;
        }
        let codes: Vec<_> = inputs.iter().map(|x| x.unpacked_codes()).collect();
        let views: Vec<_> = codes.iter().map(|codes| codes.view()).collect();
        let Some(first) = views.first() else {
            return Err(Error::Argument { what: "inputs", expected: "at least one input", found: "none".into() });
        };
        self.check_axis(first.ndim())?;
        let mut shape = first.raw_dim();
        shape[self.axis.index()] = views.iter().map(|x| x.shape().get(self.axis.index()).copied().unwrap_or(0)).sum();
        let mut out = Array::from_elem(shape, T::default());
        self.forward_into(&views, &mut out)?;
        QTensor::from_valid_codes(out, self.y.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. All arrays may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the inputs match the parameters in number and together have the shape of `out`, which
    /// has the axis. Nothing is written then.
    pub fn forward_into<D: Dimension>(&self, inputs: &[ArrayView<'_, T, D>], out: &mut ArrayRef<T, D>) -> Result<()> {
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
        check_count("length of all inputs along the axis", out.shape()[axis], total)?;
        let inner: usize = out.shape()[axis + 1..].iter().product();
        let mut start = 0;
        for (x, table) in inputs.iter().zip(&self.tables) {
            let end = start + x.shape()[axis];
            let (len, stride) = ((end - start) * inner, total * inner);
            match (table, x.as_slice(), out.as_slice_mut()) {
                _ if x.is_empty() => {}
                (Some(table), Some(x), Some(out)) => table.apply_rows((x, len), (&mut out[start * inner..], stride)),
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
        check_count("number of inputs", self.inputs.len(), found)
    }

    fn check_axis(&self, ndim: usize) -> Result<()> {
        let found = self.axis.index();
        if found < ndim { Ok(()) } else { Err(Error::axis(ndim, found)) }
    }
}
