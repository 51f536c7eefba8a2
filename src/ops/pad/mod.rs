//! Padding with zeros.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;
pub(crate) mod op;

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, ArrayViewMut, Dimension, Slice};

#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_count, check_shapes, elements};
use crate::gemm::Int8;
use crate::ops::params::check_params;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// Pads a tensor with zeros (ONNX: `Pad` with mode "constant"; TFLite: `PAD`; PyTorch: `pad`).
///
/// The padding holds the code of 0, which is the zero point. Codes keep their parameters.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, Quantize, ops::Pad};
/// let x = QParams::<u8>::per_tensor(0.5, 10)?.quantize(&array![[1.0f32, 2.0]])?;
/// let pad = Pad::new(x.params(), &[(0, 1), (2, 0)])?;
/// assert_eq!(pad.forward(&x)?.codes(), array![[10, 10, 12, 14], [10, 10, 10, 10]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pad<T: Int8> {
    x: QParams<T>,
    zero_point: T,
    pads: Vec<(usize, usize)>,
}

impl<T: Int8> Pad<T> {
    /// Prepares for inputs with these parameters. `pads` holds the padding before and after, for each axis.
    ///
    /// # Errors
    /// [`Error::Params`] unless the parameters are per tensor.
    pub fn new(x: &QParams<T>, pads: &[(usize, usize)]) -> Result<Self> {
        let (_, zero_point) = x.of_tensor("input")?;
        Ok(Self { x: x.clone(), zero_point, pads: pads.to_vec() })
    }

    /// The parameters of input and output.
    pub fn output(&self) -> &QParams<T> {
        &self.x
    }

    /// Returns the shape of the output for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one pair of pads per axis and the output fits in memory.
    pub fn output_shape(&self, x: &[usize]) -> Result<Vec<usize>> {
        check_count("pads, one pair per axis", x.len(), self.pads.len())?;
        let padded =
            |(&len, &(before, after)): (&usize, &(usize, usize))| len.saturating_add(before).saturating_add(after);
        let shape: Vec<usize> = x.iter().zip(&self.pads).map(padded).collect();
        elements("padded tensor", &shape)?;
        Ok(shape)
    }

    /// Pads a tensor.
    ///
    /// # Errors
    /// [`Error::Params`] if `x` has another scale or zero point. Otherwise the same as [`Self::output_shape`].
    pub fn forward<D: Dimension>(&self, x: &QTensor<T, D>) -> Result<QTensor<T, D>> {
        check_params("input", x.params(), &self.x)?;
        let codes = x.unpacked_codes();
        let mut shape = codes.raw_dim();
        shape.slice_mut().copy_from_slice(&self.output_shape(codes.shape())?);
        let mut out = Array::from_elem(shape, self.zero_point);
        self.interior(&mut out, codes.shape()).assign(&codes);
        QTensor::from_valid_codes(out, x.params().clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape than [`Self::output_shape`]. Otherwise the same as
    /// [`Self::output_shape`]. Nothing is written then.
    pub fn forward_into<D: Dimension>(&self, x: &ArrayRef<T, D>, out: &mut ArrayRef<T, D>) -> Result<()> {
        check_shapes("output", &self.output_shape(x.shape())?, out.shape())?;
        out.fill(self.zero_point);
        self.interior(out, x.shape()).assign(x);
        Ok(())
    }

    /// The part of `out` that holds the input.
    fn interior<'a, D: Dimension>(&self, out: &'a mut ArrayRef<T, D>, shape: &[usize]) -> ArrayViewMut<'a, T, D> {
        out.slice_each_axis_mut(|at| {
            let (before, len) = (self.pads[at.axis.index()].0, shape[at.axis.index()]);
            Slice::from(before..before + len)
        })
    }
}
