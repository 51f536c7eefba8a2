//! Layers with integer weights in a network.

use core::fmt::Debug;

use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Dimension, Ix2, Ix4};

use super::clamp::Clamp;
use super::conv::{Conv2d, PreparedConv2d};
use super::index::map_index;
use super::kernel::{Kernel, Scratch, Values, ValuesMut, resized};
use super::linear::{Linear, PreparedLinear};
use super::output::Output;
use super::quantize::{params_of, quantize};
use crate::error::Result;
use crate::gemm::Workspace;
use crate::qparams::QParams;

/// A layer with `i8` weights: a linear layer or a convolution.
pub(crate) trait IntegerLayer: Debug + Send + Sync {
    /// The axes of its input and output.
    type Dim: Dimension;
    /// The layer for known parameters of input and output.
    type Prepared: Debug + Send + Sync;

    /// The shape of images of this height, width and number of channels.
    fn dim(images: usize, image: [usize; 3]) -> Self::Dim;

    fn prepare(self, x: &QParams<u8>, to: &Output<u8>) -> Result<Self::Prepared>;

    /// Returns an error if an accumulator could overflow for inputs with these parameters.
    fn check_input(&self, x: &QParams<u8>) -> Result<()>;

    /// Codes to codes.
    fn run_prepared(
        layer: &Self::Prepared,
        x: &ArrayRef<u8, Self::Dim>,
        out: &mut ArrayRef<u8, Self::Dim>,
        workspace: &mut Workspace,
    ) -> Result<()>;

    /// Codes to floats, which are clamped.
    fn run_to_f32(
        &self,
        x_params: &QParams<u8>,
        x: &ArrayRef<u8, Self::Dim>,
        clamp: (f32, f32),
        out: &mut ArrayRef<f32, Self::Dim>,
        workspace: &mut Workspace,
    ) -> Result<()>;

    fn size_in_bytes(&self) -> usize;

    fn size_of_prepared(layer: &Self::Prepared) -> usize;
}

/// Implements [`IntegerLayer`] by the methods of a layer, with its form for known parameters, its axes, and the shape of
/// images.
macro_rules! integer_layer {
    ($layer:ty, $prepared:ty, $dim:ty, |$images:ident, $image:pat_param| $shape:expr) => {
        impl IntegerLayer for $layer {
            type Dim = $dim;
            type Prepared = $prepared;

            fn dim($images: usize, $image: [usize; 3]) -> $dim {
                $shape
            }

            fn prepare(self, x: &QParams<u8>, to: &Output<u8>) -> Result<$prepared> {
                self.prepare(x, to)
            }

            fn check_input(&self, x: &QParams<u8>) -> Result<()> {
                self.check_input(x)
            }

            fn run_prepared(
                layer: &$prepared,
                x: &ArrayRef<u8, $dim>,
                out: &mut ArrayRef<u8, $dim>,
                workspace: &mut Workspace,
            ) -> Result<()> {
                layer.forward_into(x, out, workspace)
            }

            fn run_to_f32(
                &self,
                x_params: &QParams<u8>,
                x: &ArrayRef<u8, $dim>,
                clamp: (f32, f32),
                out: &mut ArrayRef<f32, $dim>,
                workspace: &mut Workspace,
            ) -> Result<()> {
                self.forward_clamped_into(x_params, x, clamp, out, workspace)
            }

            fn size_in_bytes(&self) -> usize {
                self.size_in_bytes()
            }

            fn size_of_prepared(layer: &$prepared) -> usize {
                layer.size_in_bytes()
            }
        }
    };
}
integer_layer!(Linear<i8>, PreparedLinear<u8, i8, u8>, Ix2, |images, [h, w, c]| Ix2(images * h * w, c));
integer_layer!(Conv2d<i8>, PreparedConv2d<u8, i8, u8>, Ix4, |images, [h, w, c]| Ix4(images, h, w, c));

/// A layer by the types of its input and output.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each layer")]
pub(crate) enum Form<L: IntegerLayer> {
    /// Codes to codes: full integer.
    Static(L::Prepared),
    /// Codes to floats. Holds the parameters of the input.
    StaticToF32(L, QParams<u8>),
    /// Floats to floats: quantizes each image on the fly, by its own range.
    DynamicRange(L),
}

/// The kernel of a layer.
#[derive(Debug)]
pub(crate) struct LayerKernel<L: IntegerLayer> {
    pub(crate) form: Form<L>,
    /// Height, width and channels of the input.
    pub(crate) input: [usize; 3],
    /// Height, width and channels of the output.
    pub(crate) output: [usize; 3],
    /// The clamp of a float output. Output codes are clamped by the layer.
    pub(crate) clamp: Clamp,
}

impl<L: IntegerLayer> Kernel for LayerKernel<L> {
    fn size_in_bytes(&self) -> usize {
        match &self.form {
            Form::Static(layer) => L::size_of_prepared(layer),
            Form::StaticToF32(layer, _) | Form::DynamicRange(layer) => layer.size_in_bytes(),
        }
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let [input_dim, output_dim] = [self.input, self.output].map(|image| L::dim(images, image));
        match &self.form {
            Form::Static(layer) => {
                let x = view(inputs[0].as_slice(), input_dim);
                L::run_prepared(layer, &x, &mut view_mut(output.into_slice(), output_dim), &mut scratch.gemm)
            }
            Form::StaticToF32(layer, params) => {
                let x = view(inputs[0].as_slice(), input_dim);
                let mut y = view_mut(output.into_slice(), output_dim);
                layer.run_to_f32(params, &x, self.clamp.bounds(), &mut y, &mut scratch.gemm)
            }
            Form::DynamicRange(layer) => {
                let [x_len, y_len] = [self.input, self.output].map(|dims| dims.iter().product::<usize>().max(1));
                let y = output.into_slice::<f32>();
                let x = inputs[0].as_slice::<f32>();
                for (image, (x, y)) in x.chunks_exact(x_len).zip(y.chunks_exact_mut(y_len)).enumerate() {
                    let codes = resized(&mut scratch.codes, x_len);
                    let params = params_of(x).map_err(|e| map_index(e, |i| alloc::vec![image * x_len + i[0]]))?;
                    // An image with a NaN has no range.
                    quantize(&params, x, codes, true)?;
                    let codes = view(codes, L::dim(1, self.input));
                    let mut y = view_mut(y, L::dim(1, self.output));
                    layer.run_to_f32(&params, &codes, self.clamp.bounds(), &mut y, &mut scratch.gemm)?;
                }
                Ok(())
            }
        }
    }
}

pub(super) fn view<T, D: Dimension>(values: &[T], dim: D) -> ArrayView<'_, T, D> {
    ArrayView::from_shape(dim, values).expect("lengths were planned")
}

pub(super) fn view_mut<T, D: Dimension>(values: &mut [T], dim: D) -> ArrayViewMut<'_, T, D> {
    ArrayViewMut::from_shape(dim, values).expect("lengths were planned")
}
