use alloc::vec::Vec;

use super::outputs::{TileOut, columns};
use super::{Epilogue, Sums, check_bias, check_len};
use crate::affine::clamp_real;
use crate::arch::Sink;
use crate::element::sealed::Sealed;
use crate::error::{Error, Result};

/// Back to reals: `f32(acc) * (row_scale * col_scale) + bias`, in this order, without contraction.
///
/// Row scales are those of the left side: one, or one per row (dynamic quantization per row). Column scales are those
/// of the right side: one, or one per column (weights per output channel).
#[derive(Debug, Clone)]
pub struct DequantizeEpilogue {
    /// One for each row. One for all is a factor of `col_scale` already.
    row_scale: Option<Vec<f32>>,
    col_scale: Vec<f32>,
    bias: Option<Vec<f32>>,
    clamp: Option<(f32, f32)>,
}

impl DequantizeEpilogue {
    /// With scales of which there is one or one for each, and an optional bias per column.
    ///
    /// # Errors
    /// [`Error::Scale`] unless every scale is finite and positive.
    pub fn new(row_scale: &[f32], col_scale: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        check_scales(row_scale)?;
        check_scales(col_scale)?;
        let (row_scale, col_scale) = match row_scale {
            &[one] => (None, col_scale.iter().map(|scale| one * scale).collect()),
            many => (Some(many.to_vec()), col_scale.to_vec()),
        };
        Ok(Self { row_scale, col_scale, bias: bias.map(<[f32]>::to_vec), clamp: None })
    }

    /// With outputs clamped to these bounds.
    pub(crate) fn with_clamp(mut self, low: f32, high: f32) -> Self {
        self.clamp = (low > f32::NEG_INFINITY || high < f32::INFINITY).then_some((low, high));
        self
    }
}

fn check_scales(scales: &[f32]) -> Result<()> {
    let usable = |scale: f32| (scale > 0.0) & (scale < f32::INFINITY);
    // All of them without a branch first, and which one it is only if it matters: layers are set up at each call.
    if scales.iter().fold(true, |all, &scale| all & usable(scale)) {
        return Ok(());
    }
    let found = scales.iter().enumerate().find(|&(_, &scale)| !usable(scale));
    found.map_or(Ok(()), |(index, &scale)| Err(Error::Scale { found: scale as f64, index: alloc::vec![index] }))
}

/// Dequantizes sums, with scales of rows or without.
struct Dequantizing<'a, const BY_ROW: bool> {
    scales: &'a DequantizeEpilogue,
    out: TileOut<'a, f32>,
}

impl<const BY_ROW: bool> Sink for Dequantizing<'_, BY_ROW> {
    type Columns<const COLS: usize> = (usize, [f32; COLS], Option<[f32; COLS]>);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS> {
        let DequantizeEpilogue { col_scale, bias, .. } = self.scales;
        let first = self.out.at.1 + col;
        let bias = bias.as_ref().map(|bias| columns::<_, COLS, WHOLE>(bias, first));
        (col, columns::<_, COLS, WHOLE>(col_scale, first), bias)
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, mut factors, bias): Self::Columns<COLS>,
        sums: [i32; COLS],
    ) {
        if let (true, Some(scales)) = (BY_ROW, &self.scales.row_scale) {
            let row_scale = scales[self.out.at.0 + i];
            factors.iter_mut().for_each(|factor| *factor *= row_scale);
        }
        let mut lanes = [0.0; COLS];
        for l in 0..COLS {
            lanes[l] = sums[l] as f32 * factors[l];
        }
        if let Some(bias) = bias {
            for l in 0..COLS {
                lanes[l] += bias[l];
            }
        }
        if let Some((low, high)) = self.scales.clamp {
            for lane in &mut lanes {
                *lane = clamp_real(*lane, low, high);
            }
        }
        self.out.put::<COLS, WHOLE>(i, col, lanes);
    }
}

impl Sealed for DequantizeEpilogue {}
impl Epilogue for DequantizeEpilogue {
    type Out = f32;

    fn bias(&self) -> Option<&[i32]> {
        None
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        check_len("row scales", rows, self.row_scale.as_ref().map_or(1, Vec::len))?;
        check_len("column scales", cols, self.col_scale.len())?;
        check_bias(self.bias.as_deref(), cols)
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "the trait is sealed")]
    fn finish(&self, sums: impl Sums, out: TileOut<'_, f32>) {
        match self.row_scale {
            Some(_) => sums.to(Dequantizing::<true> { scales: self, out }),
            None => sums.to(Dequantizing::<false> { scales: self, out }),
        }
    }
}
