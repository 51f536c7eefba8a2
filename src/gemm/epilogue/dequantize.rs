use alloc::vec::Vec;

use super::accumulators::Accumulators;
use super::sealed::Finish;
use super::tile_out::{TileOut, columns};
use super::{Epilogue, check_bias, check_len};
use crate::affine::clamp_f32;
use crate::element::sealed::Sealed;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::simd::OutputStage;

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

/// Dequantizes accumulators, with row scales if `BY_ROW`.
struct DequantizeStage<'a, const BY_ROW: bool> {
    epilogue: &'a DequantizeEpilogue,
    out: TileOut<'a, f32>,
}

impl<const BY_ROW: bool> OutputStage for DequantizeStage<'_, BY_ROW> {
    /// Index of the first column, scales, biases.
    type ColumnParams<const COLS: usize> = (usize, [f32; COLS], Option<[f32; COLS]>);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn column_params<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::ColumnParams<COLS> {
        let DequantizeEpilogue { col_scale, bias, .. } = self.epilogue;
        let first = self.out.at.1 + col;
        let bias = bias.as_ref().map(|bias| columns::<_, COLS, WHOLE>(bias, first));
        (col, columns::<_, COLS, WHOLE>(col_scale, first), bias)
    }

    #[inline(always)]
    fn store_row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, mut scales, bias): Self::ColumnParams<COLS>,
        acc: [i32; COLS],
    ) {
        if let (true, Some(row_scales)) = (BY_ROW, &self.epilogue.row_scale) {
            let row_scale = row_scales[self.out.at.0 + i];
            scales.iter_mut().for_each(|scale| *scale *= row_scale);
        }
        let mut y = [0.0; COLS];
        for j in 0..COLS {
            y[j] = acc[j] as f32 * scales[j];
        }
        if let Some(bias) = bias {
            for j in 0..COLS {
                y[j] += bias[j];
            }
        }
        if let Some((low, high)) = self.epilogue.clamp {
            for y in &mut y {
                *y = clamp_f32(*y, low, high);
            }
        }
        self.out.store::<COLS, WHOLE>(i, col, y);
    }
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

    #[inline(always)]
    fn finish(&self, acc: impl Accumulators, out: TileOut<'_, f32>) {
        match self.row_scale {
            Some(_) => acc.store_to(DequantizeStage::<true> { epilogue: self, out }),
            None => acc.store_to(DequantizeStage::<false> { epilogue: self, out }),
        }
    }
}
