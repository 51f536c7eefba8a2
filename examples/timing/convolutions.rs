//! Convolutions of quantized images, requantized to codes.

use std::hint::black_box;
use std::io::Write;

use ndarray::{Array1, Array4, Axis, Ix4};
use ndarray_quant::gemm::Workspace;
use ndarray_quant::nn::{Conv2d, Padding, PreparedConv2d, Window};
use ndarray_quant::{QParams, QTensor, nn::Output};

use crate::data::uniform;
use crate::program::Result;
use crate::timer::{Timer, Work};

/// Images, height, width, channels in, channels out, kernel, stride, groups.
pub(crate) const SHAPES: [[usize; 8]; 8] = [
    [1, 56, 56, 64, 64, 3, 1, 1],
    [1, 28, 28, 128, 128, 3, 1, 1],
    [1, 14, 14, 256, 256, 3, 1, 1],
    [1, 7, 7, 512, 512, 3, 1, 1],
    [1, 112, 112, 32, 32, 3, 1, 32],
    [1, 14, 14, 512, 512, 3, 1, 512],
    [1, 224, 224, 3, 32, 3, 2, 1],
    [1, 56, 56, 64, 256, 1, 1, 1],
];

/// Times a convolution in both layouts: channels first, as ONNX has it, and channels last.
pub(crate) fn run(timer: &mut Timer<'_, impl Write>, shape: [usize; 8]) -> Result {
    let [n, h, w, c, out, k, stride, groups] = shape;
    let work = Work::Operations(2 * n * (h / stride) * (w / stride) * out * (c / groups) * k * k);
    timer.case("conv_nchw_u8s8_u8", &shape, work, || {
        let x = uniform((n, c, h, w), u8::MIN..=u8::MAX);
        let layer = layer(shape)?;
        let [n, rows, columns, out] = layer.output_shape(&[n, h, w, c])?;
        let (mut y, mut workspace) = (Array4::zeros((n, out, rows, columns)), Workspace::new());
        Ok(move || {
            let x = black_box(&x).view().permuted_axes([0, 2, 3, 1]);
            let mut y = y.view_mut().permuted_axes([0, 2, 3, 1]);
            layer.forward_into(&x, &mut y, &mut workspace)
        })
    })?;
    timer.case("conv_nhwc_u8s8_u8", &shape, work, || {
        let x = uniform((n, h, w, c), u8::MIN..=u8::MAX);
        let layer = layer(shape)?;
        let (mut y, mut workspace) = (Array4::zeros(layer.output_shape(x.shape())?), Workspace::new());
        Ok(move || layer.forward_into(black_box(&x), &mut y, &mut workspace))
    })
}

/// With a weight scale per output channel.
fn layer([_, _, _, c, out, k, stride, groups]: [usize; 8]) -> ndarray_quant::Result<PreparedConv2d<u8, i8, u8>> {
    let weights = uniform((out, k, k, c / groups), -127..=127);
    let params = QParams::<i8>::per_axis(Axis(0), Array1::from_elem(out, 0.01), None)?;
    let weights = QTensor::<i8, Ix4>::new(weights, params)?;
    let half = k / 2;
    let window = Window::new().with_strides([stride, stride]).with_padding(Padding::Explicit([half; 4]));
    let to = Output::to(&QParams::per_tensor(0.5, 128)?);
    Conv2d::new(&weights, None, &window, groups)?.prepare(&QParams::per_tensor(0.02, 128)?, &to)
}
