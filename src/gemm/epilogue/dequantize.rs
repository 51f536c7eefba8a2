use alloc::vec::Vec;

use super::outputs::{TileOut, columns, map_lanes, zip_lanes};
use super::{Epilogue, check_bias, check_len};
use crate::affine::clamp_real;
use crate::arch::{Columns, Kernel, Rows, Sink};
use crate::element::sealed::Sealed;
use crate::error::{Error, Result};

/// Back to reals: `f32(acc) * (row_scale * col_scale) + bias`, in this order, without contraction.
///
/// Row scales are those of the left side: one, or one per row (dynamic quantization per row). Column scales are those
/// of the right side: one, or one per column (weights per output channel).
#[derive(Debug, Clone)]
pub struct Dequantize {
    row_scale: Vec<f32>,
    col_scale: Vec<f32>,
    bias: Option<Vec<f32>>,
    clamp: Option<(f32, f32)>,
}

impl Dequantize {
    /// With scales of which there is one or one for each, and an optional bias per column.
    ///
    /// # Errors
    /// [`Error::Scale`] unless every scale is finite and positive.
    pub fn new(row_scale: &[f32], col_scale: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        for (index, &scale) in row_scale.iter().chain(col_scale).enumerate() {
            if !(scale > 0.0 && scale.is_finite()) {
                let index = if index < row_scale.len() { index } else { index - row_scale.len() };
                return Err(Error::Scale { found: scale as f64, index: alloc::vec![index] });
            }
        }
        let bias = bias.map(<[f32]>::to_vec);
        Ok(Self { row_scale: row_scale.to_vec(), col_scale: col_scale.to_vec(), bias, clamp: None })
    }

    /// With outputs clamped to these bounds.
    pub(crate) fn with_clamp(mut self, low: f32, high: f32) -> Self {
        self.clamp = (low > f32::NEG_INFINITY || high < f32::INFINITY).then_some((low, high));
        self
    }

    #[inline(always)]
    fn row_scale(&self, row: usize) -> f32 {
        match self.row_scale.as_slice() {
            &[one] => one,
            many => many[row],
        }
    }
}

/// What a bias is added to.
#[inline(always)]
fn scaled(acc: i32, row_scale: f32, col_scale: f32) -> f32 {
    acc as f32 * (row_scale * col_scale)
}

/// Dequantizes sums in registers.
struct Dequantizing<'a> {
    scales: &'a Dequantize,
    out: TileOut<'a, f32>,
}

impl Sink for Dequantizing<'_> {
    type Columns<const COLS: usize> = (usize, [f32; COLS], Option<[f32; COLS]>);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS> {
        let Dequantize { col_scale, bias, .. } = self.scales;
        let first = self.out.at.1 + col;
        let bias = bias.as_ref().map(|bias| columns::<_, COLS, WHOLE>(bias, first));
        (col, columns::<_, COLS, WHOLE>(col_scale, first), bias)
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, col_scale, bias): Self::Columns<COLS>,
        sums: [i32; COLS],
    ) {
        let row_scale = self.scales.row_scale(self.out.at.0 + i);
        let mut lanes = [0.0; COLS];
        for l in 0..COLS {
            lanes[l] = scaled(sums[l], row_scale, col_scale[l]);
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

impl Sealed for Dequantize {}
impl Epilogue for Dequantize {
    type Out = f32;

    fn bias(&self) -> Option<&[i32]> {
        None
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        check_len("row scales", rows, self.row_scale.len())?;
        check_len("column scales", cols, self.col_scale.len())?;
        check_bias(self.bias.as_deref(), cols)
    }

    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(&self, kernel: K, rows: usize, a: Rows<'_>, b: Columns<'_>, out: TileOut<'_, f32>) -> bool {
        kernel.multiply_to(rows, a, b, Dequantizing { scales: self, out })
    }

    #[inline(always)]
    fn store(&self, row: usize, col: usize, acc: &[i32], out: &mut [f32]) {
        let row_scale = self.row_scale(row);
        match self.col_scale.as_slice() {
            &[one] => map_lanes(acc, out, |acc| scaled(acc, row_scale, one)),
            many => zip_lanes(acc, &many[col..], out, |acc, col_scale| scaled(acc, row_scale, col_scale)),
        }
        if let Some(bias) = &self.bias {
            out.iter_mut().zip(&bias[col..]).for_each(|(out, bias)| *out += bias);
        }
        if let Some((low, high)) = self.clamp {
            out.iter_mut().for_each(|out| *out = clamp_real(*out, low, high));
        }
    }
}
