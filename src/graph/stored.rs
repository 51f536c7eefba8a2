//! Weights as a quantized network keeps them.

use alloc::vec::Vec;

use half::f16;
use ndarray::{Array1, ArrayD, Axis, Dimension, Ix4, IxDyn};

use super::float::Weights;
use super::network::Constant;
use crate::element::{Element, I4};
use crate::error::Result;
use crate::granularity::Granularity;
use crate::half::{HalfCast, Overflow};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::quantize::Quantize;

/// One constant in fewer bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Int4(QTensor<I4, IxDyn>),
    Int8(QTensor<i8, IxDyn>),
    Half(ArrayD<f16>),
}

impl Stored {
    /// In half precision; what is too large for it is an error.
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

    /// Codes and parameters, or halves.
    pub(crate) fn size_in_bytes(&self) -> usize {
        match self {
            Stored::Int4(w) => w.size_in_bytes(),
            Stored::Int8(w) => w.size_in_bytes(),
            Stored::Half(w) => size_of::<f16>() * w.len(),
        }
    }

    /// The floats that it stands for.
    pub(crate) fn dequantize(&self) -> Constant {
        match self {
            Stored::Int4(w) => w.dequantize().into_shared(),
            Stored::Int8(w) => w.dequantize().into_shared(),
            Stored::Half(w) => w.mapv(f16::to_f32).into_shared(),
        }
    }

    /// For float operators: halves as they are.
    pub(crate) fn to_weights(&self) -> Weights {
        match self {
            Stored::Half(w) => Weights::F16(w.clone()),
            codes => Weights::F32(codes.dequantize()),
        }
    }

    /// Codes as convolutions of codes take them, `[out, height, width, in]`.
    pub(crate) fn to_conv(&self) -> Option<Result<QTensor<i8, Ix4>>> {
        match self {
            Stored::Int4(w) => Some(conv_weights(w)),
            Stored::Int8(w) => Some(conv_weights(w)),
            Stored::Half(_) => None,
        }
    }
}

fn conv_weights<T: Element<Code = i8>>(w: &QTensor<T, IxDyn>) -> Result<QTensor<i8, Ix4>> {
    let mut codes = w.unpacked_codes().into_owned();
    // A linear layer is a convolution of one pixel.
    while codes.ndim() < 4 {
        let last = codes.ndim();
        codes.insert_axis_inplace(Axis(last));
    }
    let codes = codes.permuted_axes(&[0, 2, 3, 1][..]).into_dimensionality().expect("four axes");
    let codes = codes.as_standard_layout().into_owned();
    let scales: Array1<f32> = w.params().scale().iter().copied().collect();
    let params = match w.params().granularity() {
        Granularity::PerTensor => QParams::per_tensor(scales[0], 0)?,
        _ => QParams::per_axis(Axis(0), scales, None)?,
    };
    QTensor::new(codes, params)
}
