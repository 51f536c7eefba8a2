//! Kernels on codes, each a layer of [`ops`](crate::ops) with its parameters, and the ways between codes and floats.

use ndarray::{ArrayView1, ArrayView4, ArrayViewMut1, ArrayViewMut4, Ix1, Ix4};

use super::kernel::{Kernel, Scratch, Values, ValuesMut, scratch};
use super::op::Clamp;
use crate::error::Result;
use crate::ops::{QConv, Requantize, StaticConv};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// Floats to codes.
#[derive(Debug)]
pub(crate) struct Quantize(pub(crate) QParams<u8, Ix1>);

impl Kernel for Quantize {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let x = ArrayView1::from(inputs[0].as_slice::<f32>());
        self.0.quantize_into(&x, &mut ArrayViewMut1::from(output.into_slice::<u8>()))
    }
}

/// Codes to floats.
#[derive(Debug)]
pub(crate) struct Dequantize(pub(crate) QParams<u8, Ix1>);

impl Kernel for Dequantize {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let x = ArrayView1::from(inputs[0].as_slice::<u8>());
        self.0.dequantize_into(&x, &mut ArrayViewMut1::from(output.into_slice::<f32>()))
    }
}

/// Floats to the reals of their codes: what a network of integers sees.
#[derive(Debug)]
pub(crate) struct FakeQuantize {
    /// By the range of each image, if there are none.
    pub(crate) params: Option<QParams<u8, Ix1>>,
}

impl Kernel for FakeQuantize {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        let len = if self.params.is_some() { x.len() } else { x.len() / images.max(1) };
        for (x, y) in x.chunks_exact(len.max(1)).zip(y.chunks_exact_mut(len.max(1))) {
            let (x, mut y) = (ArrayView1::from(x), ArrayViewMut1::from(y));
            match &self.params {
                Some(params) => params.fake_quantize_into(&x, &mut y)?,
                None => Scheme::<u8>::asymmetric().params_of(&x)?.fake_quantize_into(&x, &mut y)?,
            }
        }
        Ok(())
    }
}

/// What a layer with integer weights makes of its input.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each layer")]
pub(crate) enum Arithmetic {
    /// Codes to codes.
    Static(StaticConv<u8, i8, u8>),
    /// Codes with these parameters to floats.
    ToReal(QConv<i8>, QParams<u8, Ix4>),
    /// Floats to floats, each image quantized by its own range.
    Dynamic(QConv<i8>),
}

/// A convolution, or a linear layer as a convolution of single pixels.
#[derive(Debug)]
pub(crate) struct Conv {
    pub(crate) arithmetic: Arithmetic,
    /// Height, width, channels.
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    /// Of floats; the clamp of codes is in the layer.
    pub(crate) clamp: Clamp,
}

impl Kernel for Conv {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, memory: &mut Scratch) -> Result<()> {
        match &self.arithmetic {
            Arithmetic::Static(layer) => {
                let x = view(inputs[0].as_slice(), images, self.input);
                layer.forward_into(&x, &mut view_mut(output.into_slice(), images, self.output), &mut memory.gemm)
            }
            Arithmetic::ToReal(layer, params) => {
                let x = view(inputs[0].as_slice(), images, self.input);
                let y = output.into_slice::<f32>();
                let mut out = view_mut(y, images, self.output);
                layer.forward_dequantize_into(params, &x, &mut out, &mut memory.gemm)?;
                self.clamp(y);
                Ok(())
            }
            Arithmetic::Dynamic(layer) => {
                let [x_len, y_len] = [self.input, self.output].map(|dims| dims.iter().product::<usize>().max(1));
                let y = output.into_slice::<f32>();
                for (x, y) in inputs[0].as_slice::<f32>().chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)) {
                    let x = view(x, 1, self.input);
                    let params = Scheme::<u8>::asymmetric().params_of(&x)?;
                    let mut codes = view_mut(scratch(&mut memory.codes, x_len), 1, self.input);
                    params.quantize_into(&x, &mut codes)?;
                    let mut y = view_mut(y, 1, self.output);
                    layer.forward_dequantize_into(&params, &codes, &mut y, &mut memory.gemm)?;
                }
                self.clamp(y);
                Ok(())
            }
        }
    }
}

impl Conv {
    fn clamp(&self, y: &mut [f32]) {
        if self.clamp != Clamp::NONE {
            y.iter_mut().for_each(|y| *y = self.clamp.apply(*y));
        }
    }
}

/// Output parameters with a fused clamp.
pub(crate) fn requantize(params: &QParams<u8, Ix4>, clamp: Clamp) -> Requantize<u8, Ix4> {
    Requantize::to(params).clamp(clamp.low, clamp.high)
}

fn view<T>(values: &[T], images: usize, [h, w, c]: [usize; 3]) -> ArrayView4<'_, T> {
    ArrayView4::from_shape((images, h, w, c), values).expect("lengths were planned")
}

fn view_mut<T>(values: &mut [T], images: usize, [h, w, c]: [usize; 3]) -> ArrayViewMut4<'_, T> {
    ArrayViewMut4::from_shape((images, h, w, c), values).expect("lengths were planned")
}
