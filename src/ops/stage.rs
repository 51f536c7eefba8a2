//! What layers from codes to codes have around their product, of whatever weights.

use alloc::vec::Vec;

use ndarray::{ArrayRef1, Dimension};

use super::requantize::Output;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::gemm::{Int8, RequantizeEpilogue};
use crate::qparams::QParams;

/// The parameters of a layer's input and output, and how its accumulators become codes of the output.
#[derive(Debug, Clone)]
pub(super) struct Stage<X: Int8, Y: Element, D: Dimension> {
    pub(super) x: QParams<X, D>,
    pub(super) x_zero_point: X,
    pub(super) epilogue: RequantizeEpilogue<Y>,
    pub(super) y: QParams<Y, D>,
}

impl<X: Int8, Y: Element, D: Dimension> Stage<X, Y, D> {
    /// For weights of these scales, and a bias in reals.
    pub(super) fn new(x: &QParams<X, D>, scales: &[f32], bias: Option<&[f32]>, to: &Output<Y, D>) -> Result<Self> {
        let (x_scale, _) = x.of_tensor("parameters of the input")?;
        let bias = bias.map(|bias| quantize_bias(bias, x_scale, scales)).transpose()?;
        Self::with_bias(x, scales, bias.as_deref(), to)
    }

    /// For a bias that is already in units of the accumulator.
    pub(super) fn with_bias(
        x: &QParams<X, D>,
        scales: &[f32],
        bias: Option<&[i32]>,
        to: &Output<Y, D>,
    ) -> Result<Self> {
        let (x_scale, x_zero_point) = x.of_tensor("parameters of the input")?;
        let epilogue = to.epilogue(x_scale, scales, bias)?;
        Ok(Self { x: x.clone(), x_zero_point, epilogue, y: to.params.clone() })
    }

    /// The greatest distance of an input's code from its zero point.
    pub(super) fn max_abs_diff(&self) -> i64 {
        X::max_abs_diff(self.x_zero_point)
    }
}

/// Checks that the bias has one finite value for each output channel.
pub(crate) fn check_bias(bias: Option<&ArrayRef1<f32>>, channels: usize) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    if bias.len() != channels {
        return Err(Error::shape("bias", &[channels], bias.shape()));
    }
    match bias.iter().enumerate().find(|(_, b)| !b.is_finite()) {
        Some((channel, &found)) => Err(Error::NonFinite { found: found as f64, index: alloc::vec![channel] }),
        None => Ok(()),
    }
}

/// The bias in units of the accumulator, `rne(bias / (x_scale * w_scale))`; an error if it leaves `i32`.
///
/// `w_scales` has one element, or one for each element of `bias`.
pub(crate) fn quantize_bias(bias: &[f32], x_scale: f32, w_scales: &[f32]) -> Result<Vec<i32>> {
    let code = |(channel, &bias): (usize, &f32)| {
        let code = crate::element::Compute::round_ties_even(bias as f64 / bias_scale(x_scale, w_scales, channel));
        if code.abs() <= i32::MAX as f64 {
            Ok(code as i32)
        } else {
            Err(Error::Bias { max: i32::MAX as i64, found: code, channel })
        }
    };
    bias.iter().enumerate().map(code).collect()
}

/// The unit of the accumulator of an output channel, `x_scale * w_scale` in `f64`.
pub(crate) fn bias_scale(x_scale: f32, w_scales: &[f32], channel: usize) -> f64 {
    let w_scale = if w_scales.len() == 1 { w_scales[0] } else { w_scales[channel] };
    x_scale as f64 * w_scale as f64
}
