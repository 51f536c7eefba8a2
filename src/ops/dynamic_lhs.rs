//! An f32 LHS that is quantized on the fly.

use core::ops::Range;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, s};

use crate::affine::{Codes, Convention};
use crate::elementwise::{Params, Scales, quantize_run};
use crate::gemm::LhsSource;

/// An f32 matrix with the parameters that quantize it to `u8`: `clamp(rne(x / scale) + zero_point)`.
///
/// A block of rows is quantized right before it is multiplied, so the micro-kernel reads its codes from L2. Symmetric
/// `i8` codes are the same codes with zero point 128: a product depends on `code - zero_point` only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DynamicLhs<'a> {
    pub(crate) values: ArrayView2<'a, f32>,
    /// One scale for all rows, or one per row.
    pub(crate) scales: &'a [f32],
    pub(crate) zero_point: u8,
}

impl LhsSource for DynamicLhs<'_> {
    fn nrows(&self) -> usize {
        self.values.nrows()
    }

    fn depth(&self) -> usize {
        self.values.ncols()
    }

    fn signed(&self) -> bool {
        false
    }

    fn fill(&self, rows: Range<usize>, stride: usize, codes: &mut [u8]) {
        let (first, depth) = (rows.start, self.values.ncols());
        let values = self.values.slice(s![rows, ..]);
        match (self.scales, values.to_slice()) {
            (&[scale], Some(values)) if stride == depth => self.quantize_slice(ArrayView1::from(values), scale, codes),
            _ => {
                for (i, (row, codes)) in values.rows().into_iter().zip(codes.chunks_exact_mut(stride)).enumerate() {
                    let scale = if let &[one] = self.scales { one } else { self.scales[first + i] };
                    self.quantize_slice(row, scale, &mut codes[..depth]);
                }
            }
        }
    }

    fn overhang(&self) -> usize {
        0
    }
}

impl DynamicLhs<'_> {
    fn quantize_slice(&self, values: ArrayView1<'_, f32>, scale: f32, codes: &mut [u8]) {
        let (scales, zero_points) = (Scales::F32(&[scale]), Some(&[self.zero_point][..]));
        let params = Params { scales, zero_points, size: usize::MAX };
        quantize_run(values, params, Codes::all::<u8>(), Convention::Onnx, ArrayViewMut1::from(codes));
    }
}
