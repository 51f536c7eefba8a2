//! Kernels on codes, each a layer of [`ops`](crate::ops) with its parameters, and the ways between codes and floats.

use ndarray::{Array4, ArrayView1, ArrayView4, ArrayViewMut1, ArrayViewMut4, Ix1, Ix4};

use super::kernel::{Kernel, Scratch, Values, ValuesMut, scratch};
use super::op::Clamp;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::ops::{Conv2d, Output, PreparedConv2d, of_other_rank};
use crate::qparams::QParams;
use crate::range::Ranges;
use crate::scheme::Scheme;
use crate::threads;

/// Floats to codes.
#[derive(Debug)]
pub(crate) struct Quantize(pub(crate) QParams<u8, Ix1>);

impl Kernel for Quantize {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        quantize(&self.0, inputs[0].as_slice(), output.into_slice())
    }
}

/// Codes to floats.
#[derive(Debug)]
pub(crate) struct DequantizeEpilogue(pub(crate) QParams<u8, Ix1>);

impl Kernel for DequantizeEpilogue {
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
pub(crate) enum LayerKind {
    /// Codes to codes.
    Static(PreparedConv2d<u8, i8, u8>),
    /// Codes with these parameters to floats.
    ToReal(Conv2d<i8>, QParams<u8, Ix4>),
    /// Floats to floats, each image quantized by its own range.
    Dynamic(Conv2d<i8>),
}

/// A convolution, or a linear layer as a convolution of single pixels.
#[derive(Debug)]
pub(crate) struct Conv {
    pub(crate) kind: LayerKind,
    /// Height, width, channels.
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    /// Of floats; the clamp of codes is in the layer.
    pub(crate) clamp: Clamp,
}

impl Kernel for Conv {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, memory: &mut Scratch) -> Result<()> {
        match &self.kind {
            LayerKind::Static(layer) => {
                let x = view(inputs[0].as_slice(), images, self.input);
                layer.forward_into(&x, &mut view_mut(output.into_slice(), images, self.output), &mut memory.gemm)
            }
            LayerKind::ToReal(layer, params) => {
                let x = view(inputs[0].as_slice(), images, self.input);
                let mut y = view_mut(output.into_slice(), images, self.output);
                layer.forward_clamped_into(params, &x, self.clamp.bounds(), &mut y, &mut memory.gemm)
            }
            LayerKind::Dynamic(layer) => {
                let [x_len, y_len] = [self.input, self.output].map(|dims| dims.iter().product::<usize>().max(1));
                let y = output.into_slice::<f32>();
                for (x, y) in inputs[0].as_slice::<f32>().chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)) {
                    let codes = scratch(&mut memory.codes, x_len);
                    let params = params_of(x, self.input)?;
                    quantize(&of_other_rank(&params)?, x, codes)?;
                    let codes = view(codes, 1, self.input);
                    let mut y = view_mut(y, 1, self.output);
                    layer.forward_clamped_into(&params, &codes, self.clamp.bounds(), &mut y, &mut memory.gemm)?;
                }
                Ok(())
            }
        }
    }
}

/// One element takes as long to convert, or to look at for its range, as so many products of codes.
const PRODUCTS: usize = 16;

/// The codes of reals, in parts for threads if it is worth it.
fn quantize(params: &QParams<u8, Ix1>, x: &[f32], codes: &mut [u8]) -> Result<()> {
    let mut done = alloc::vec![Ok(()); threads::worth(x.len().saturating_mul(PRODUCTS))];
    threads::each_part(codes, 1, &mut done, &|first, codes, done| {
        let x = ArrayView1::from(&x[first..first + codes.len()]);
        *done = params.quantize_into(&x, &mut ArrayViewMut1::from(codes));
    });
    done.into_iter().collect()
}

/// Parameters by the range of an image, which is that of the ranges of its parts.
fn params_of(x: &[f32], dims: [usize; 3]) -> Result<QParams<u8, Ix4>> {
    let scheme = Scheme::<u8>::asymmetric();
    let parts = threads::worth(x.len().saturating_mul(PRODUCTS));
    let mut ranges = alloc::vec![None; parts];
    if parts > 1 {
        threads::each_part(&mut ranges, 1, &mut alloc::vec![(); parts], &|first, ranges, ()| {
            let [start, end] = [first, first + ranges.len()].map(|part| x.len() * part / parts);
            let range = Ranges::of(&ArrayView1::from(&x[start..end]), Granularity::PerTensor);
            ranges.fill(range.ok().map(|range| (range.min()[0], range.max()[0])));
        });
    }
    match ranges.into_iter().reduce(|a, b| a.zip(b).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)))).flatten() {
        Some((low, high)) => {
            let bound = |bound| Array4::from_elem([1; 4], bound);
            scheme.params_from_ranges(&Ranges::new(Granularity::PerTensor, bound(low), bound(high))?)
        }
        // In one piece, or with an error that tells where in the image it is.
        None => scheme.params_of(&view(x, 1, dims)),
    }
}

/// Output parameters with a fused clamp.
pub(crate) fn requantize(params: &QParams<u8, Ix4>, clamp: Clamp) -> Output<u8, Ix4> {
    Output::to(params).clamp(clamp.low, clamp.high)
}

fn view<T>(values: &[T], images: usize, [h, w, c]: [usize; 3]) -> ArrayView4<'_, T> {
    ArrayView4::from_shape((images, h, w, c), values).expect("lengths were planned")
}

fn view_mut<T>(values: &mut [T], images: usize, [h, w, c]: [usize; 3]) -> ArrayViewMut4<'_, T> {
    ArrayViewMut4::from_shape((images, h, w, c), values).expect("lengths were planned")
}
