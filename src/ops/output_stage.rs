//! The parameters and the output stage of prepared layers: everything around the integer product.

use alloc::vec::Vec;

use ndarray::ArrayRef1;

use super::output::Output;
use crate::element::Element;
use crate::error::{Error, Result, ValueError};
use crate::gemm::{Int8, RequantizeEpilogue};
use crate::qparams::QParams;

/// The parameters of a layer's input and output, and the epilogue from accumulators to output codes.
#[derive(Debug, Clone)]
pub(crate) struct OutputStage<X: Int8, Y: Element> {
    pub(super) x: QParams<X>,
    pub(super) x_zero_point: X,
    pub(crate) epilogue: RequantizeEpilogue<Y>,
    pub(super) y: QParams<Y>,
}

impl<X: Int8, Y: Element> OutputStage<X, Y> {
    /// Prepares for weights of these scales and a bias in `f32`.
    pub(crate) fn new(x: &QParams<X>, scales: &[f32], bias: Option<&[f32]>, to: &Output<Y>) -> Result<Self> {
        let (x_scale, _) = x.of_tensor("input")?;
        let bias = bias.map(|bias| quantize_bias(bias, x_scale, scales)).transpose()?;
        Self::with_bias(x, scales, bias.as_deref(), to)
    }

    /// Prepares for weights of these scales and a bias in units of the accumulator.
    pub(super) fn with_bias(x: &QParams<X>, scales: &[f32], bias: Option<&[i32]>, to: &Output<Y>) -> Result<Self> {
        let (x_scale, x_zero_point) = x.of_tensor("input")?;
        let epilogue = to.epilogue(x_scale, scales, bias)?;
        Ok(Self { x: x.clone(), x_zero_point, epilogue, y: to.params.clone() })
    }

    /// The greatest `|x - x_zero|` of an input code.
    pub(super) fn max_abs_diff(&self) -> i64 {
        X::max_abs_diff(self.x_zero_point)
    }

    /// The bytes of multipliers and bias.
    pub(super) fn size_in_bytes(&self) -> usize {
        self.epilogue.size_in_bytes()
    }
}

/// Checks that a bias has one finite value per output channel.
pub(crate) fn check_bias(bias: Option<&ArrayRef1<f32>>, channels: usize) -> Result<()> {
    bias.map_or(Ok(()), |bias| check_channels("bias", bias, channels))
}

/// Returns an error unless there is a finite value for each channel.
pub(crate) fn check_channels(what: &'static str, values: &ArrayRef1<f32>, channels: usize) -> Result<()> {
    if values.len() != channels {
        return Err(Error::shape(what, &[channels], values.shape()));
    }
    match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        Some((channel, &found)) => {
            Err(ValueError::NonFinite { what, found: found as f64, index: alloc::vec![channel] }.into())
        }
        None => Ok(()),
    }
}

/// Rounds a bias to units of the accumulator: `rne(bias / (x_scale * w_scale))`. Returns an error if a value does not
/// fit `i32`.
///
/// `w_scales` has one element, or one per element of `bias`.
pub(crate) fn quantize_bias(bias: &[f32], x_scale: f32, w_scales: &[f32]) -> Result<Vec<i32>> {
    let code = |(channel, &bias): (usize, &f32)| {
        let code = crate::element::Compute::round_ties_even(bias as f64 / bias_scale(x_scale, w_scales, channel));
        if code.abs() <= i32::MAX as f64 {
            Ok(code as i32)
        } else {
            Err(ValueError::Bias { max: i32::MAX as i64, found: code, channel }.into())
        }
    };
    bias.iter().enumerate().map(code).collect()
}

/// Returns the unit of the accumulator of an output channel, `x_scale * w_scale` in `f64`.
pub(crate) fn bias_scale(x_scale: f32, w_scales: &[f32], channel: usize) -> f64 {
    let w_scale = if w_scales.len() == 1 { w_scales[0] } else { w_scales[channel] };
    x_scale as f64 * w_scale as f64
}
