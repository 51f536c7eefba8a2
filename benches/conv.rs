//! Convolutions of quantized images, requantized to codes: `cargo bench --bench conv`.
//!
//! Throughput counts operations, two per multiply–accumulate.

mod data;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array4, Axis, Ix4};
use ndarray_quant::gemm::Workspace;
use ndarray_quant::nn::{Conv2d, Padding, PreparedConv2d, Window};
use ndarray_quant::{QParams, QTensor, Result, nn::Output};

/// Name, height and width, channels in, channels out, kernel, stride, groups.
const SHAPES: [(&str, usize, usize, usize, usize, usize, usize); 7] = [
    ("stem", 224, 3, 32, 3, 2, 1),
    ("pointwise", 56, 64, 256, 1, 1, 1),
    ("3x3", 28, 128, 128, 3, 1, 1),
    ("depthwise 3x3", 112, 32, 32, 3, 1, 32),
    ("depthwise 3x3, stride 2", 56, 144, 144, 3, 2, 144),
    ("depthwise 5x5", 14, 480, 480, 5, 1, 480),
    ("grouped", 28, 128, 128, 3, 1, 4),
];

fn layer(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
) -> Result<PreparedConv2d<u8, i8, u8>> {
    let weights = data::uniform((outputs, kernel, kernel, inputs / groups), -127..=127);
    let params = QParams::<i8>::per_axis(Axis(0), Array1::from_elem(outputs, 0.01), None)?;
    let window = Window::new().with_strides([stride, stride]).with_padding(Padding::Same);
    let to = Output::to(&QParams::per_tensor(0.5, 128)?).relu();
    let weights = QTensor::<i8, Ix4>::new(weights, params)?;
    Conv2d::new(&weights, None, &window, groups)?.prepare(&QParams::per_tensor(0.02, 128)?, &to)
}

fn convolutions(c: &mut Criterion) {
    let mut group = c.benchmark_group("convolution u8 by i8");
    for (name, side, inputs, outputs, kernel, stride, groups) in SHAPES {
        let layer = layer(inputs, outputs, kernel, stride, groups).expect("a layer");
        let x: Array4<u8> = data::uniform((1, side, side, inputs), u8::MIN..=u8::MAX);
        let mut y = Array4::zeros(layer.output_shape(x.shape()).expect("a kernel that fits"));
        let mut workspace = Workspace::new();
        group.throughput(Throughput::Elements((2 * y.len() * kernel * kernel * inputs / groups) as u64));
        group.bench_function(format!("{name}/{side}x{side}x{inputs}"), |bench| {
            bench.iter(|| layer.forward_into(black_box(&x), &mut y, &mut workspace).expect("shapes agree"))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = convolutions
}
criterion_main!(benches);
