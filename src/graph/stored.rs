//! Quantized weights, as a network stores and saves them.

use alloc::vec::Vec;

use half::f16;
use ndarray::{Array1, ArrayD, Axis, Dimension, Ix2, Ix4, IxDyn};

use super::network::Constant;
use crate::element::{Element, I4};
use crate::error::Result;
use crate::granularity::Granularity;
use crate::half::{HalfCast, Overflow};
use crate::ops::float_weights::Weights;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The weights of a layer, as codes or in half precision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Int4(QTensor<I4, IxDyn>),
    Int8(QTensor<i8, IxDyn>),
    Half(ArrayD<f16>),
}

impl Stored {
    /// Converts weights to half precision. A weight that exceeds its range is an error.
    pub(crate) fn half(weights: &Constant) -> Result<Self> {
        Ok(Stored::Half(HalfCast::<f16>::new(Overflow::Error).quantize(&**weights)?))
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Stored::Int4(w) => w.raw_dim().slice().to_vec(),
            Stored::Int8(w) => w.raw_dim().slice().to_vec(),
            Stored::Half(w) => w.shape().to_vec(),
        }
    }

    /// The size of the codes and scales, or of the half-precision values, in bytes. Memory and files take the same.
    pub(crate) fn size_in_bytes(&self) -> usize {
        match self {
            Stored::Int4(w) => w.codes().as_bytes().len() + size_of::<f32>() * w.params().scale().len(),
            Stored::Int8(w) => w.codes().len() + size_of::<f32>() * w.params().scale().len(),
            Stored::Half(w) => size_of::<f16>() * w.len(),
        }
    }

    /// The values in `f32`.
    pub(crate) fn dequantize(&self) -> Constant {
        match self {
            Stored::Int4(w) => w.dequantize().into_shared(),
            Stored::Int8(w) => w.dequantize().into_shared(),
            Stored::Half(w) => w.mapv(f16::to_f32).into_shared(),
        }
    }

    /// The weights for a float kernel. Half-precision values stay as they are.
    pub(crate) fn to_weights(&self) -> Weights {
        match self {
            Stored::Half(w) => Weights::F16(w.clone()),
            codes => Weights::F32(codes.dequantize()),
        }
    }

    /// Codes, scales and zero points; no zero points if all are 0. `None` for half precision.
    #[cfg(feature = "onnx")]
    pub(crate) fn codes(&self) -> Option<(ArrayD<i8>, Vec<f32>, Vec<i8>)> {
        fn parts<T: Element<Code = i8>>(w: &QTensor<T, IxDyn>) -> (ArrayD<i8>, Vec<f32>, Vec<i8>) {
            let zero_points = w.params().zero_point().map_or_else(Vec::new, |zero| zero.iter().copied().collect());
            (w.unpacked_codes().into_owned(), w.params().scales().to_vec(), zero_points)
        }
        match self {
            Stored::Int4(w) => Some(parts(w)),
            Stored::Int8(w) => Some(parts(w)),
            Stored::Half(_) => None,
        }
    }

    /// The codes as `[out, kh, kw, in]` for an integer convolution. `None` for half precision.
    pub(crate) fn to_conv(&self) -> Option<Result<QTensor<i8, Ix4>>> {
        match self {
            Stored::Int4(w) => Some(with_axes(w, &[0, 2, 3, 1])),
            Stored::Int8(w) => Some(with_axes(w, &[0, 2, 3, 1])),
            Stored::Half(_) => None,
        }
    }

    /// The codes as `[out, in]` for an integer linear layer. `None` for half precision.
    pub(crate) fn to_linear(&self) -> Option<Result<QTensor<i8, Ix2>>> {
        match self {
            Stored::Int4(w) => Some(with_axes(w, &[0, 1])),
            Stored::Int8(w) => Some(with_axes(w, &[0, 1])),
            Stored::Half(_) => None,
        }
    }
}

/// The codes of a layer, as bytes and with the axes in this order.
fn with_axes<T: Element<Code = i8>, D: Dimension>(w: &QTensor<T, IxDyn>, axes: &[usize]) -> Result<QTensor<i8, D>> {
    let codes = w.unpacked_codes().view().permuted_axes(axes).as_standard_layout().into_owned();
    let codes = codes.into_dimensionality().expect("the rank of the weights");
    let scales: Array1<f32> = w.params().scale().iter().copied().collect();
    let zero_points: Option<Array1<i8>> = w.params().zero_point().map(|z| z.iter().copied().collect());
    let params = match w.params().granularity() {
        Granularity::PerTensor => QParams::per_tensor(scales[0], zero_points.map_or(0, |z| z[0]))?,
        _ => QParams::per_axis(Axis(0), scales, zero_points)?,
    };
    QTensor::new(codes, params)
}
