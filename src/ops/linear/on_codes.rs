//! Linear layers with integer weights in a network.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::{Linear, PreparedLinear};
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::index::map_index;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::qparams::QParams;

/// A linear layer with `i8` weights, by the types of its input and output.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each layer")]
pub(crate) enum QuantizedLinear {
    /// Codes to codes: full integer.
    Static(PreparedLinear<u8, i8, u8>),
    /// Codes to floats. Holds the parameters of the input.
    StaticToF32(Linear<i8>, QParams<u8>),
    /// Floats to floats: quantizes each row on the fly, by its own range.
    DynamicRange(Linear<i8>),
}

#[derive(Debug)]
pub(crate) struct LinearOnCodes {
    pub(crate) layer: QuantizedLinear,
    /// The lengths of rows of the input and of the output.
    pub(crate) depth: usize,
    pub(crate) outputs: usize,
    /// The clamp of a float output. Output codes are clamped by the layer.
    pub(crate) clamp: Clamp,
}

impl Kernel for LinearOnCodes {
    fn size_in_bytes(&self) -> usize {
        match &self.layer {
            QuantizedLinear::Static(layer) => layer.size_in_bytes(),
            QuantizedLinear::StaticToF32(layer, _) | QuantizedLinear::DynamicRange(layer) => layer.size_in_bytes(),
        }
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        match &self.layer {
            QuantizedLinear::Static(layer) => {
                let (x, y) = (inputs[0].as_slice(), output.into_slice());
                let rows = self.rows(images, x.len());
                layer.forward_into(&view(x, rows, self.depth), &mut view_mut(y, rows, self.outputs), &mut scratch.gemm)
            }
            QuantizedLinear::StaticToF32(layer, params) => {
                let (x, y) = (inputs[0].as_slice(), output.into_slice());
                let rows = self.rows(images, x.len());
                let mut y = view_mut(y, rows, self.outputs);
                let x = view(x, rows, self.depth);
                layer.forward_clamped_into(params, &x, self.clamp.bounds(), &mut y, &mut scratch.gemm)
            }
            QuantizedLinear::DynamicRange(layer) => {
                let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice());
                let rows = self.rows(images, x.len());
                let mut y = view_mut(y, rows, self.outputs);
                let x = view(x, rows, self.depth);
                let done = layer.forward_dynamic_clamped_into(&x, self.clamp.bounds(), &mut y, &mut scratch.gemm);
                done.map_err(|e| map_index(e, |i| alloc::vec![i[0] * self.depth + i[1]]))
            }
        }
    }
}

impl LinearOnCodes {
    fn rows(&self, images: usize, len: usize) -> usize {
        len.checked_div(self.depth).unwrap_or(images)
    }
}

fn view<T>(values: &[T], rows: usize, len: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, len), values).expect("lengths were planned")
}

fn view_mut<T>(values: &mut [T], rows: usize, len: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, len), values).expect("lengths were planned")
}
