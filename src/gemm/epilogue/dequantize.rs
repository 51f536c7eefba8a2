use alloc::vec::Vec;

use ndarray::ArrayViewMut2;

use super::sealed::{Finish, Job};
use super::{Epilogue, check_bias, check_len};
use crate::element::sealed::Sealed;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::simd::Dequantize;

/// Dequantizes accumulators to `f32`: `f32(acc) * (row_scale * col_scale) + bias`, in this order, without FMA.
///
/// Row scales belong to the LHS: one, or one per row (dynamic quantization per row). Column scales belong to the RHS:
/// one, or one per column (weights quantized per output channel).
#[derive(Debug, Clone)]
pub struct DequantizeEpilogue {
    /// One per row. A single row scale is multiplied into `col_scale`.
    row_scale: Option<Vec<f32>>,
    col_scale: Vec<f32>,
    bias: Option<Vec<f32>>,
    clamp: Option<(f32, f32)>,
}

impl DequantizeEpilogue {
    /// Creates an epilogue from one scale or one per row, one scale or one per column, and an optional bias per column.
    ///
    /// # Errors
    /// [`Error::Params`] unless every scale is finite and positive.
    pub fn new(row_scale: &[f32], col_scale: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        check_scales("row_scale", row_scale)?;
        check_scales("col_scale", col_scale)?;
        let (row_scale, col_scale) = match row_scale {
            &[one] => (None, col_scale.iter().map(|scale| one * scale).collect()),
            many => (Some(many.to_vec()), col_scale.to_vec()),
        };
        Ok(Self { row_scale, col_scale, bias: bias.map(<[f32]>::to_vec), clamp: None })
    }

    /// Clamps outputs to `low..=high`.
    pub(crate) fn with_clamp(mut self, low: f32, high: f32) -> Self {
        self.clamp = (low > f32::NEG_INFINITY || high < f32::INFINITY).then_some((low, high));
        self
    }
}

pub(super) fn check_scales(what: &'static str, scales: &[f32]) -> Result<()> {
    let usable = |scale: f32| (scale > 0.0) & (scale < f32::INFINITY);
    // Test all without a branch first and look for the bad one only on failure: layers are set up at each call.
    if scales.iter().fold(true, |all, &scale| all & usable(scale)) {
        return Ok(());
    }
    let found = scales.iter().enumerate().find(|&(_, &scale)| !usable(scale));
    found.map_or(Ok(()), |(index, &scale)| {
        Err(ParamsError::Scale { what, found: scale as f64, index: alloc::vec![index] }.into())
    })
}

impl Sealed for DequantizeEpilogue {}
impl Epilogue for DequantizeEpilogue {
    type Out = f32;
}
impl Finish<f32> for DequantizeEpilogue {
    fn bias(&self) -> Option<&[i32]> {
        None
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        check_len("row scales", rows, self.row_scale.as_ref().map_or(1, Vec::len))?;
        check_len("column scales", cols, self.col_scale.len())?;
        check_bias(self.bias.as_deref(), cols)
    }

    fn run(&self, job: impl Job, out: ArrayViewMut2<'_, f32>) {
        let stage = Dequantize {
            row_scales: self.row_scale.as_deref().unwrap_or_default(),
            col_scales: &self.col_scale,
            bias: self.bias.as_deref().unwrap_or_default(),
            clamp: self.clamp,
        };
        job.run(stage, out);
    }
}
