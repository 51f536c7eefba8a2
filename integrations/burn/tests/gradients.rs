//! Values and gradients equal `ndarray_quant`'s, and burn's autodiff trains through them.

use burn::tensor::{Device, Tensor};
use ndarray::{ArrayD, Axis, IxDyn};
use ndarray_quant::{
    Scheme,
    qat::{FakeQuantize, GradientScale, LearnedQuantizer},
};
use ndarray_quant_burn::{fake_quantize, learned_fake_quantize};

fn data() -> (ArrayD<f32>, ArrayD<f32>) {
    let x = ArrayD::from_shape_fn(IxDyn(&[5, 7]), |i| ((i[0] * 7 + i[1]) as f32 * 0.7).sin() * 2.0);
    let grad = x.mapv(|x| (3.0 * x).cos());
    (x, grad)
}

fn tensor(x: &ArrayD<f32>, device: &Device) -> Tensor<2> {
    let (rows, columns) = (x.shape()[0], x.shape()[1]);
    let flat: Vec<f32> = x.iter().copied().collect();
    Tensor::<1>::from_floats(flat.as_slice(), device).reshape([rows, columns])
}

/// A scale per block, in row-major order.
fn scales(x: &ArrayD<f32>, device: &Device) -> Tensor<1> {
    Tensor::from_floats(values(x).as_slice(), device)
}

fn flat<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.into_data().try_to_vec().expect("f32")
}

fn values(x: &ArrayD<f32>) -> Vec<f32> {
    x.iter().copied().collect()
}

#[test]
fn straight_through() {
    let (x, grad) = data();
    let params = Scheme::<i8>::symmetric().with_bits(3).unwrap().per_axis(Axis(0)).params_of(&(&x * 0.6)).unwrap();
    let fake = FakeQuantize::new(params);
    let (y, mask) = fake.forward(&x).unwrap();
    assert!(mask.clipped() > 0);
    assert_eq!(flat(fake_quantize(tensor(&x, &Device::flex()), &fake).unwrap()), values(&y));

    let device = Device::flex().autodiff();
    let input = tensor(&x, &device).require_grad();
    let output = fake_quantize(input.clone(), &fake).unwrap();
    assert_eq!(flat(output.clone().detach()), values(&y));
    let gradients = (output * tensor(&grad, &device)).sum().backward();
    assert_eq!(flat(input.grad(&gradients).unwrap()), values(&fake.backward(&mask, &grad).unwrap()));
    assert!(fake_quantize(input.slice([0..3, 0..7]), &fake).is_err());
}

#[test]
fn learned_scales() {
    let (x, grad) = data();
    let scheme = Scheme::<i8>::symmetric().with_bits(2).unwrap().per_axis(Axis(1));
    let start = LearnedQuantizer::lsq(scheme, &x).unwrap();
    let device = Device::flex().autodiff();
    let (input, scale) = (tensor(&x, &device).require_grad(), scales(start.scale(), &device).require_grad());
    let output = learned_fake_quantize(input.clone(), scale.clone(), start.params(), GradientScale::Weights).unwrap();
    let gradients = (output * tensor(&grad, &device)).sum().backward();
    let expected = start.gradients(&x, &grad).unwrap();
    assert_eq!(flat(input.grad(&gradients).unwrap()), values(&expected.input));
    assert_eq!(flat(scale.grad(&gradients).unwrap()), values(&expected.scale));
    let negative = scale.neg();
    assert!(learned_fake_quantize(input, negative, start.params(), GradientScale::Weights).is_err());
}

/// Fits a linear map with 2-bit weights by gradient descent on weights and scales.
#[test]
fn training() {
    let (x, _) = data();
    let target = ArrayD::from_shape_fn(IxDyn(&[5, 3]), |i| x[[i[0], i[1]]] - x[[i[0], i[1] + 3]]);
    let device = Device::flex().autodiff();
    let (x, target) = (tensor(&x, &device), tensor(&target, &device));
    let mut w = ArrayD::from_shape_fn(IxDyn(&[7, 3]), |i| ((i[0] * 3 + i[1]) as f32 * 1.3).sin() * 0.5);
    let mut quantizer = LearnedQuantizer::lsq(Scheme::<i8>::symmetric().with_bits(2).unwrap(), &w).unwrap();
    let mut losses = Vec::new();
    for _ in 0..300 {
        let (weights, scale) = (tensor(&w, &device).require_grad(), scales(quantizer.scale(), &device).require_grad());
        let rounded =
            learned_fake_quantize(weights.clone(), scale.clone(), quantizer.params(), GradientScale::Weights).unwrap();
        let error = x.clone().matmul(rounded) - target.clone();
        let loss = (error.clone() * error).sum();
        let gradients = loss.clone().backward();
        losses.push(flat(loss.detach())[0]);
        let step = |values: &ArrayD<f32>, grad: Vec<f32>, rate: f32| {
            values - &(ArrayD::from_shape_vec(values.raw_dim(), grad).unwrap() * rate)
        };
        w = step(&w, flat(weights.grad(&gradients).unwrap()), 0.01);
        let proposed = step(quantizer.scale(), flat(scale.grad(&gradients).unwrap()), 0.01);
        quantizer.set_scale(&proposed).unwrap();
    }
    let best = losses.iter().copied().fold(f32::INFINITY, f32::min);
    assert!(best < 0.5 * losses[0], "from {} to {best}", losses[0]);
}
