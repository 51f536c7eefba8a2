//! Quantized weights, as a network stores and saves them.

use alloc::vec::Vec;

use half::f16;
use ndarray::{Array1, ArrayD, ArrayRef1, Axis, Dimension, Ix2, Ix4, IxDyn};

use super::network::Constant;
use crate::element::{Element, I2, I4, Storage};
use crate::error::Result;
use crate::granularity::Granularity;
use crate::half::{HalfCast, Overflow};
use crate::nn::LinearNBits;
use crate::ops::float_weights::Weights;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The weights of a layer, as codes or in half precision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Int2(QTensor<I2, IxDyn>),
    Int4(QTensor<I4, IxDyn>),
    Int8(QTensor<i8, IxDyn>),
    Half(ArrayD<f16>),
}

/// Evaluates an expression with the quantized tensor, or another one with the values in half precision.
macro_rules! with_codes {
    ($stored:expr, $w:ident => $codes:expr, $half:ident => $float:expr) => {
        match $stored {
            Stored::Int2($w) => $codes,
            Stored::Int4($w) => $codes,
            Stored::Int8($w) => $codes,
            Stored::Half($half) => $float,
        }
    };
}

impl Stored {
    /// Converts weights to half precision. A weight that exceeds its range is an error.
    pub(crate) fn half(weights: &Constant) -> Result<Self> {
        Ok(Stored::Half(HalfCast::<f16>::new(Overflow::Error).quantize(&**weights)?))
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        with_codes!(self, w => w.shape().to_vec(), w => w.shape().to_vec())
    }

    /// The size of the codes and scales, or of the half-precision values, in bytes. Memory and files take the same.
    pub(crate) fn size_in_bytes(&self) -> usize {
        with_codes!(
            self,
            w => w.codes().size_in_bytes() + size_of::<f32>() * w.params().scale().len(),
            w => size_of::<f16>() * w.len()
        )
    }

    /// The values in `f32`.
    pub(crate) fn dequantize(&self) -> Constant {
        with_codes!(self, w => w.dequantize().into_shared(), w => w.mapv(f16::to_f32).into_shared())
    }

    pub(crate) fn is_code(&self) -> bool {
        !matches!(self, Stored::Half(_))
    }

    /// The values of the smallest and the largest code of each block. None for half precision.
    pub(crate) fn ranges(&self) -> Vec<(f32, f32)> {
        fn of<T: Element<Code = i8>>(w: &QTensor<T, IxDyn>) -> Vec<(f32, f32)> {
            let zero_point = |i: usize| w.params().zero_point().and_then(|z| z.as_slice()).map_or(0, |z| z[i].into());
            let value = |code: i32, i: usize, scale: f32| (code - zero_point(i)) as f32 * scale;
            let (min, max) = w.params().code_range();
            let scales = w.params().scales().iter().enumerate();
            scales.map(|(i, &scale)| (value(min, i, scale), value(max, i, scale))).collect()
        }
        with_codes!(self, w => of(w), _w => Vec::new())
    }

    /// The length of the groups along the depth, if the weights are in groups.
    pub(crate) fn group(&self) -> Option<usize> {
        match with_codes!(self, w => w.params().granularity(), _w => return None) {
            Granularity::PerGroup { size, .. } => Some(size),
            _ => None,
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
    pub(crate) fn codes(&self) -> Option<(ArrayD<i8>, Vec<f32>, Vec<i8>)> {
        fn parts<T: Element<Code = i8>>(w: &QTensor<T, IxDyn>) -> (ArrayD<i8>, Vec<f32>, Vec<i8>) {
            let zero_points = w.params().zero_point().map_or_else(Vec::new, |zero| zero.iter().copied().collect());
            (w.unpacked_codes().into_owned(), w.params().scales().to_vec(), zero_points)
        }
        with_codes!(self, w => Some(parts(w)), _w => None)
    }

    /// The codes as `[out, kh, kw, in]` for an integer convolution. `None` for half precision.
    pub(crate) fn to_conv(&self) -> Option<Result<QTensor<i8, Ix4>>> {
        with_codes!(self, w => Some(with_axes(w, &[0, 2, 3, 1])), _w => None)
    }

    /// The codes as `[out, in]` for an integer linear layer. `None` for half precision.
    pub(crate) fn to_linear(&self) -> Option<Result<QTensor<i8, Ix2>>> {
        with_codes!(self, w => Some(with_axes(w, &[0, 1])), _w => None)
    }

    /// A linear layer of the codes as they are, in their groups. `None` for half precision.
    pub(crate) fn to_nbits(&self, bias: Option<&ArrayRef1<f32>>) -> Option<Result<LinearNBits>> {
        with_codes!(self, w => Some(LinearNBits::of_rank_2(w, bias)), _w => None)
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
