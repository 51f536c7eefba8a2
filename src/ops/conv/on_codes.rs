//! Layers with integer weights in a network.

use ndarray::{ArrayView4, ArrayViewMut4};

use super::{Conv2d, PreparedConv2d};
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::index::map_index;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut, resized};
use crate::ops::quantize::{params_of, quantize};
use crate::qparams::QParams;

/// A convolution with `i8` weights, by the types of its input and output.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each layer")]
pub(crate) enum QuantizedConv {
    /// Codes to codes: full integer.
    Static(PreparedConv2d<u8, i8, u8>),
    /// Codes to floats. Holds the parameters of the input.
    StaticToF32(Conv2d<i8>, QParams<u8>),
    /// Floats to floats: quantizes each image on the fly, by its own range.
    DynamicRange(Conv2d<i8>),
}

/// A convolution, or a linear layer as a 1×1 convolution of one pixel.
#[derive(Debug)]
pub(crate) struct Conv {
    pub(crate) layer: QuantizedConv,
    /// Height, width and channels of the input.
    pub(crate) input: [usize; 3],
    /// Height, width and channels of the output.
    pub(crate) output: [usize; 3],
    /// The clamp of a float output. Output codes are clamped by the layer.
    pub(crate) clamp: Clamp,
}

impl Kernel for Conv {
    fn size_in_bytes(&self) -> usize {
        match &self.layer {
            QuantizedConv::Static(layer) => layer.size_in_bytes(),
            QuantizedConv::StaticToF32(layer, _) | QuantizedConv::DynamicRange(layer) => layer.size_in_bytes(),
        }
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        match &self.layer {
            QuantizedConv::Static(layer) => {
                let x = view(inputs[0].as_slice(), images, self.input);
                layer.forward_into(&x, &mut view_mut(output.into_slice(), images, self.output), &mut scratch.gemm)
            }
            QuantizedConv::StaticToF32(layer, params) => {
                let x = view(inputs[0].as_slice(), images, self.input);
                let mut y = view_mut(output.into_slice(), images, self.output);
                layer.forward_clamped_into(params, &x, self.clamp.bounds(), &mut y, &mut scratch.gemm)
            }
            QuantizedConv::DynamicRange(layer) => {
                let [x_len, y_len] = [self.input, self.output].map(|dims| dims.iter().product::<usize>().max(1));
                let y = output.into_slice::<f32>();
                let x = inputs[0].as_slice::<f32>();
                for (image, (x, y)) in x.chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)).enumerate() {
                    let codes = resized(&mut scratch.codes, x_len);
                    let params = params_of(x).map_err(|e| map_index(e, |i| alloc::vec![image * x_len + i[0]]))?;
                    // An image with a NaN has no range.
                    quantize(&params, x, codes, true)?;
                    let codes = view(codes, 1, self.input);
                    let mut y = view_mut(y, 1, self.output);
                    layer.forward_clamped_into(&params, &codes, self.clamp.bounds(), &mut y, &mut scratch.gemm)?;
                }
                Ok(())
            }
        }
    }
}

fn view<T>(values: &[T], images: usize, [h, w, c]: [usize; 3]) -> ArrayView4<'_, T> {
    ArrayView4::from_shape((images, h, w, c), values).expect("lengths were planned")
}

fn view_mut<T>(values: &mut [T], images: usize, [h, w, c]: [usize; 3]) -> ArrayViewMut4<'_, T> {
    ArrayViewMut4::from_shape((images, h, w, c), values).expect("lengths were planned")
}
