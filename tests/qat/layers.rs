//! Layers in training: folded batch normalization, rounded biases, and the linear layer with an integer form.

use super::*;
use ndarray_quant::error::{ParamsError, ShapeError, ValueError};

/// Without quantization, training gives the outputs of batch normalization, and a frozen layer gives the outputs of the folded network.
#[test]
fn batch_norm_folding() {
    let mut rng = Pcg64Mcg::seed_from_u64(5);
    let (channels, depth) = (4, 6);
    let w = Array2::from_shape_simple_fn((channels, depth), || rng.random_range(-1.0f32..1.0));
    let gamma = Array1::from_shape_simple_fn(channels, || rng.random_range(0.5f32..1.5));
    let beta = Array1::from_shape_simple_fn(channels, || rng.random_range(-1.0f32..1.0));
    let mut bn = BatchNormFold::new(gamma.clone(), beta.clone()).unwrap();
    for _ in 0..50 {
        let x = Array2::from_shape_simple_fn((32, depth), || rng.random_range(-1.0f32..2.0));
        let z = x.dot(&w.t());
        let batch = bn.observe(&z).unwrap();
        let y = bn.normalize(&x.dot(&bn.fold(&w).unwrap().t()), Some(&batch)).unwrap();
        let mean = z.mean_axis(Axis(0)).unwrap();
        let deviation = z.var_axis(Axis(0), 0.0).mapv(|v| (v + 1e-5).sqrt());
        assert_close(&y, &((z - mean) / deviation * &gamma + &beta), 1e-5);
    }
    let x = Array2::from_shape_simple_fn((32, depth), || rng.random_range(-1.0f32..2.0));
    let folded = bn.fold(&w).unwrap();
    let frozen = bn.normalize(&x.dot(&folded.t()), None).unwrap();
    assert_close(&frozen, &(x.dot(&folded.t()) + bn.folded_bias()), 1e-5);
    let (mean, variance) = bn.running_statistics();
    let float = (x.dot(&w.t()) - mean) / variance.mapv(|v| (v + 1e-5).sqrt()) * &gamma + &beta;
    assert_close(&frozen, &float, 1e-5);
}

fn assert_close(found: &Array2<f32>, expected: &Array2<f32>, tolerance: f32) {
    let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * scale, "expected {expected}, found {found}");
    }
}

/// Gradients of a folded layer against central differences of its loss, with batch statistics and frozen.
#[test]
fn batch_norm_gradients() {
    let mut rng = Pcg64Mcg::seed_from_u64(6);
    let mut random = |shape: (usize, usize)| Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0f32..1.0));
    let (w, x, towards) = (random((3, 4)), random((9, 4)), random((9, 3)));
    let (gamma, beta) = (random((1, 3)).row(0).mapv(|g| g + 1.5), random((1, 3)).row(0).to_owned());
    let statistics = (ndarray::array![0.1f32, -0.2, 0.3], ndarray::array![0.7f32, 1.2, 0.4]);
    let layer = |gamma: &Array1<f32>, beta: &Array1<f32>| {
        let bn = BatchNormFold::new(gamma.clone(), beta.clone()).unwrap();
        bn.with_running_statistics(statistics.0.clone(), statistics.1.clone()).unwrap()
    };
    for frozen in [false, true] {
        let loss = |w: &Array2<f32>, gamma: &Array1<f32>, beta: &Array1<f32>| {
            let bn = layer(gamma, beta);
            let batch = bn.clone().observe(&x.dot(&w.t())).unwrap();
            let u = x.dot(&bn.fold(w).unwrap().t());
            let y = bn.normalize(&u, Some(&batch).filter(|_| !frozen)).unwrap();
            (y * &towards).mapv(f64::from).sum()
        };
        let bn = layer(&gamma, &beta);
        let z = x.dot(&w.t());
        let batch = bn.clone().observe(&z).unwrap();
        let u = x.dot(&bn.fold(&w).unwrap().t());
        let batch = Some((&*z, &batch)).filter(|_| !frozen);
        let g = bn.normalize_backward(&u, batch, &towards).unwrap();
        let (by_w, by_gamma) = bn.fold_backward(&w, &g.folded.t().dot(&x)).unwrap();
        let (by_w, by_gamma) = (by_w + g.unfolded.t().dot(&x), by_gamma + &g.gamma);
        let h = 1e-2;
        let close = |found: f32, up: f64, down: f64| {
            let expected = (up - down) / (2.0 * h as f64);
            assert!(
                (found as f64 - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                "expected {expected}, found {found}"
            );
        };
        for i in 0..3 {
            let moved = |a: &Array1<f32>, h: f32| {
                let mut a = a.clone();
                a[i] += h;
                a
            };
            close(by_gamma[i], loss(&w, &moved(&gamma, h), &beta), loss(&w, &moved(&gamma, -h), &beta));
            close(g.beta[i], loss(&w, &gamma, &moved(&beta, h)), loss(&w, &gamma, &moved(&beta, -h)));
            for j in 0..4 {
                let moved = |h: f32| {
                    let mut w = w.clone();
                    w[[i, j]] += h;
                    w
                };
                close(by_w[[i, j]], loss(&moved(h), &gamma, &beta), loss(&moved(-h), &gamma, &beta));
            }
        }
    }
}

/// The integer layer outputs the codes of the layer in training, for all arithmetic modes and activations, and the gradients
/// are close to the gradients of fake quantization around a float product.
#[test]
fn a_layer_in_training_is_the_integer_layer() {
    let mut rng = Pcg64Mcg::seed_from_u64(9);
    let (x, w) = (
        Array2::from_shape_simple_fn((40, 30), || rng.random_range(-1.0f32..2.0)),
        Array2::from_shape_simple_fn((20, 30), || rng.random_range(-0.5f32..0.5)),
    );
    let bias = Array1::from_shape_simple_fn(20, || rng.random_range(-0.5f32..0.5));
    let grad = Array2::from_shape_simple_fn((40, 20), || rng.random_range(-1.0f32..1.0));
    let input: QParams<u8> = Scheme::asymmetric().params_of(&x).unwrap();
    let on_grid = input.fake_quantize(&x).unwrap();
    let requantizations = [Arithmetic::F32, Arithmetic::F64, Arithmetic::FixedPoint(Default::default())];
    for (bits, arithmetic) in [2, 3, 4, 8].into_iter().flat_map(|bits| requantizations.map(|r| (bits, r))) {
        let scheme = Scheme::<i8>::symmetric().with_bits(bits).unwrap().per_axis(Axis(0));
        let weights = FakeQuantize::new(scheme.params_of(&w).unwrap()).with_clipping(SteClipping::Unrounded);
        let z = on_grid.dot(&weights.params().fake_quantize(&w).unwrap().t()) + &bias;
        let output: QParams<u8> = Scheme::asymmetric().with_bits(bits).unwrap().params_of(&z).unwrap();
        for relu in [false, true] {
            let to = Output::to(&output).with_arithmetic(arithmetic);
            let to = if relu { to.relu() } else { to };
            let layer = FakeLinear::new(&input, &weights, &to).unwrap();
            let pass = layer.forward(&on_grid, &w, Some(&bias)).unwrap();
            let integer = layer.to_integer(&w, Some(&bias)).unwrap().forward(&input.quantize(&x).unwrap()).unwrap();
            assert_eq!(integer.codes(), pass.codes());
            assert_eq!(integer.dequantize(), *pass.output());
            assert_close(pass.output(), &z.mapv(|z| if relu { z.max(0.0) } else { z }), 0.6 * output.scales()[0]);
            plain_gradients(&layer, &weights, &output, relu, (&on_grid, &w, &z, &grad), pass);
        }
    }
}

/// Fake-quantized floats with the rounded bias are the integer layer; with the plain bias they are not.
///
/// Scales are powers of two, so that the float products are exact and only the bias can make a difference.
#[test]
fn a_rounded_bias_gives_the_codes_of_the_integer_layer() {
    let mut rng = Pcg64Mcg::seed_from_u64(10);
    let x = Array2::from_shape_simple_fn((64, 24), || rng.random_range(-1.0f32..1.0));
    let w = Array2::from_shape_simple_fn((16, 24), || rng.random_range(-0.5f32..0.5));
    let bias = Array1::from_shape_simple_fn(16, || rng.random_range(-0.5f32..0.5));
    let input = QParams::<u8>::per_tensor(0.25, 4).unwrap().with_code_range(0, 15).unwrap();
    let output = QParams::<u8>::per_tensor(0.125, 128).unwrap();
    let per_tensor = QParams::<i8>::per_tensor(0.25, 0).unwrap();
    let scales = Array1::from_shape_fn(16, |i| [0.125, 0.25, 0.5][i % 3]);
    let per_channel = QParams::new(Granularity::per_axis(Axis(0)), scales, None).unwrap();
    for weights in [per_tensor, per_channel] {
        let weights = weights.with_code_range(-2, 1).unwrap();
        let rounded = fake_quantize_bias(&bias, &input, &weights).unwrap();
        let product = input.fake_quantize(&x).unwrap().dot(&weights.fake_quantize(&w).unwrap().t());
        let codes = |bias: &Array1<f32>| output.quantize(&(&product + bias)).unwrap();
        let layer = Linear::new(&weights.quantize(&w).unwrap(), Some(&bias)).unwrap();
        let integer = layer.forward(&input.quantize(&x).unwrap(), &Output::to(&output)).unwrap();
        assert_eq!(integer.codes(), codes(&rounded).codes());
        let differ = integer.codes().iter().zip(codes(&bias).codes()).filter(|(a, b)| a != b).count();
        assert!(differ > x.nrows() * w.nrows() / 20, "{differ}");
    }
}

#[test]
fn a_bias_that_has_no_code_is_an_error() {
    let x = QParams::<u8>::per_tensor(0.5, 0).unwrap();
    let weights = QParams::<i8>::per_tensor(0.5, 0).unwrap();
    let channels = QParams::<i8>::new(Granularity::per_axis(Axis(0)), Array1::ones(3), None).unwrap();
    let columns = QParams::<i8>::new(Granularity::per_axis(Axis(1)), Array1::ones(3), None).unwrap();
    let bias = Array1::<f32>::ones(2);
    assert!(matches!(fake_quantize_bias(&bias, &x, &channels), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    assert!(matches!(
        fake_quantize_bias(&bias, &columns, &weights),
        Err(Error::Params(ParamsError::Granularity { .. }))
    ));
    assert!(matches!(fake_quantize_bias(&bias, &x, &columns), Err(Error::Params(ParamsError::Granularity { .. }))));
    assert!(matches!(
        fake_quantize_bias(&(&bias * 1e10), &x, &weights),
        Err(Error::Value(ValueError::Bias { channel: 0, .. }))
    ));
    assert!(matches!(
        fake_quantize_bias(&(&bias * f32::NAN), &x, &weights),
        Err(Error::Value(ValueError::NonFinite { .. }))
    ));
}

fn plain_gradients(
    layer: &FakeLinear<u8, i8, u8>,
    weights: &FakeQuantize<i8>,
    output: &QParams<u8>,
    relu: bool,
    (x, w, z, grad): (&ArrayRef2<f32>, &ArrayRef2<f32>, &ArrayRef2<f32>, &ArrayRef2<f32>),
    pass: ndarray_quant::qat::LinearPass<u8>,
) {
    let zero = output.zero_point().map_or(0, |z| z.iter().next().copied().unwrap_or_default()) as i32;
    let (min, max) = output.code_range();
    let clamped = output.clone().with_code_range(if relu { zero } else { min }, max).unwrap();
    let by_output = FakeQuantize::new(clamped).with_clipping(SteClipping::Unrounded).gradients(z, grad).unwrap();
    let on_grid = weights.params().fake_quantize(w).unwrap();
    let by_weights = weights.gradients(w, &by_output.input.t().dot(x)).unwrap();
    let found = layer.backward(x, w, &pass, grad).unwrap();
    // The layer rounds its bias, so a value at a bound may be clipped in one and not in the other.
    assert_close(&found.input, &by_output.input.dot(&on_grid), 0.2);
    assert_close(&found.weights.input, &by_weights.input, 0.2);
    let rough = |found: f32, expected: f32| {
        assert!((found - expected).abs() < 0.1 * expected.abs() + 5.0, "{found} {expected}")
    };
    rough(found.output_scale, by_output.scale[[]]);
    rough(found.output_zero_point, by_output.zero_point[[]]);
}
