//! A left side of reals, which become codes on the way.

use core::ops::Range;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, s};

use super::lhs::Lhs;
use super::packed_lhs::Left;
use crate::affine::Codes;
use crate::affine::rules::Onnx;
use crate::elementwise::{Params, quantize_run};

/// Reals with parameters to quantize them with: `clamp(rne(x / scale) + zero_point)`, a `u8`.
///
/// A block of rows is quantized right before it is multiplied, so that its codes are read from the cache. Symmetric codes of
/// `i8` are these with a zero point of 128: what a product sees of a code is its distance from the zero point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reals<'a> {
    pub(crate) values: ArrayView2<'a, f32>,
    /// One for all rows, or one for each.
    pub(crate) scales: &'a [f32],
    pub(crate) zero_point: u8,
}

impl<'a> From<Reals<'a>> for Left<'a, u8> {
    fn from(reals: Reals<'a>) -> Self {
        Left(Lhs::Reals(reals))
    }
}

impl Reals<'_> {
    /// Writes the codes of these rows, which are `stride` apart.
    pub(super) fn quantize(&self, which: Range<usize>, stride: usize, codes: &mut [u8]) {
        let (first, depth) = (which.start, self.values.ncols());
        let values = self.values.slice(s![which, ..]);
        match (self.scales, values.to_slice()) {
            (&[scale], Some(values)) if stride == depth => self.run(ArrayView1::from(values), scale, codes),
            _ => {
                for (i, (row, codes)) in values.rows().into_iter().zip(codes.chunks_exact_mut(stride)).enumerate() {
                    let scale = if let &[one] = self.scales { one } else { self.scales[first + i] };
                    self.run(row, scale, &mut codes[..depth]);
                }
            }
        }
    }

    fn run(&self, values: ArrayView1<'_, f32>, scale: f32, codes: &mut [u8]) {
        let params = Params::Constant(scale, self.zero_point);
        quantize_run::<_, _, _, Onnx>(values, params, Codes::all::<u8>(), ArrayViewMut1::from(codes));
    }
}
