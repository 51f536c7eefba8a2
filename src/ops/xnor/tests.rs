use alloc::vec;

use ndarray::{Array1, Array2, Array4, Axis};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::weights::Output;
use super::{BinaryConv2d, BinaryLinear};
use crate::BinaryTensor;
use crate::error::Error;
use crate::gemm::Workspace;
use crate::simd::Isa;
use crate::window::Window;

fn uniform<D: ndarray::ShapeBuilder>(shape: D, rng: &mut Pcg64) -> ndarray::Array<f32, D::Dim> {
    ndarray::Array::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

/// Scales of both signs and 0, and biases near the sums, so that outputs change their sign somewhere.
fn output_stage(outputs: usize, depth: usize, rng: &mut Pcg64) -> (Array1<f32>, Array1<f32>) {
    let scales = Array1::from_shape_simple_fn(outputs, || match rng.random_range(0..8) {
        0 => 0.0,
        1 => 1.0,
        _ => rng.random_range(-2.0..2.0),
    });
    let bound = 2.0 * (depth as f32).sqrt() + 1.0;
    let bias = scales.mapv(|scale| (scale * rng.random_range(-bound..bound)).round());
    (scales, bias)
}

/// The value before rounding to a sign.
fn expected(dot: i64, scale: f32, bias: f32) -> f32 {
    dot as f32 * scale + bias
}

fn sign(x: f32) -> f32 {
    if x < 0.0 { -1.0 } else { 1.0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn linear_layers_are_exact_on_every_set(
        rows in 0..40usize, depth in prop_oneof![0..130usize, 900..1100usize], outputs in 0..70usize, seed: u64,
    ) {
        let rng = &mut Pcg64::seed_from_u64(seed);
        let (x, w) = (uniform((rows, depth), rng), uniform((outputs, depth), rng));
        let (scales, bias) = output_stage(outputs, depth, rng);
        let (signs, w_signs) = (BinaryTensor::sign(&x).unwrap(), BinaryTensor::sign(&w).unwrap());
        prop_assert_eq!(&signs.dequantize(), &x.mapv(sign));
        prop_assert_eq!(&BinaryTensor::from_words((rows, depth), signs.as_words().to_vec()).unwrap(), &signs);
        let layer = BinaryLinear::from_signs(&w_signs, &scales, Some(&bias)).unwrap();
        let y = Array2::from_shape_fn((rows, outputs), |(i, j)| {
            let dot = x.row(i).iter().zip(w.row(j)).map(|(&x, &w)| (sign(x) * sign(w)) as i64).sum();
            expected(dot, scales[j], bias[j])
        });
        for isa in Isa::available() {
            let (mut out, mut words) = (vec![7.0; rows * outputs], vec![7; rows * u32::row_len(outputs)]);
            layer.multiply(isa, &signs, &mut out, &mut Workspace::new());
            layer.multiply(isa, &signs, &mut words, &mut Workspace::new());
            prop_assert_eq!(&out, &y.clone().into_raw_vec_and_offset().0, "{:?}", isa);
            let found = BinaryTensor::from_valid_words(y.raw_dim(), words);
            prop_assert_eq!(&found, &BinaryTensor::sign(&y).unwrap(), "{:?}", isa);
        }
        let mut strided = Array2::zeros((outputs, rows));
        layer.forward_into(&signs, &mut strided.view_mut().reversed_axes(), &mut Workspace::new()).unwrap();
        prop_assert_eq!(strided.t(), &y);
    }

    #[test]
    fn convolutions_are_exact_on_every_set(
        size in (1..9usize, 1..9usize), kernel in (1..4usize, 1..4usize), channels in prop_oneof![Just(1), Just(3), Just(32), 1..70usize],
        outputs in 1..40usize, pads in 0..3usize, strides in (1..3usize, 1..3usize), dilation in 1..3usize, ones: bool, seed: u64,
    ) {
        let rng = &mut Pcg64::seed_from_u64(seed);
        let x = uniform((2, size.0, size.1, channels), rng);
        let w = uniform((outputs, kernel.0, kernel.1, channels), rng);
        let (scales, bias) = output_stage(outputs, kernel.0 * kernel.1 * channels, rng);
        let window = Window::new().with_padding([pads, 1, 0, pads]).with_strides([strides.0, strides.1])
            .with_dilations([dilation, dilation]);
        let conv = BinaryConv2d::from_signs(&BinaryTensor::sign(&w).unwrap(), &scales, Some(&bias), &window).unwrap();
        let conv = if ones { conv.with_one_padding() } else { conv };
        let signs = BinaryTensor::sign(&x).unwrap();
        let Ok(placed) = window.place([kernel.0, kernel.1], [size.0, size.1]) else {
            prop_assert!(matches!(conv.forward(&signs), Err(Error::Shape(_))));
            return Ok(());
        };
        let y = Array4::from_shape_fn(conv.output_shape(signs.shape()).unwrap(), |(i, y, x_out, j)| {
            let mut dot = 0;
            for (ky, kx, c) in ndarray::indices((kernel.0, kernel.1, channels)) {
                let x = match (placed.source(0, y, ky), placed.source(1, x_out, kx)) {
                    (Some(y), Some(at)) => sign(x[[i, y, at, c]]),
                    _ => if ones { 1.0 } else { 0.0 },
                };
                dot += (x * sign(w[[j, ky, kx, c]])) as i64;
            }
            expected(dot, scales[j], bias[j])
        });
        for isa in Isa::available() {
            let mut out = vec![7.0; y.len()];
            conv.multiply(isa, &signs, placed, &mut out, &mut Workspace::new());
            prop_assert_eq!(&out, &y.clone().into_raw_vec_and_offset().0, "{:?}", isa);
        }
        prop_assert_eq!(conv.forward_sign(&signs).unwrap(), BinaryTensor::sign(&y).unwrap());
        let mut strided = Array4::zeros((y.dim().3, y.dim().0, y.dim().1, y.dim().2));
        conv.forward_into(&signs, &mut strided.view_mut().permuted_axes([1, 2, 3, 0]), &mut Workspace::new()).unwrap();
        prop_assert_eq!(&strided.permuted_axes([1, 2, 3, 0]), &y);
    }
}

#[test]
fn scales_are_mean_magnitudes() {
    let w = ndarray::array![[0.5f32, -1.5], [3.0, 1.0]];
    let layer = BinaryLinear::new(&w, None).unwrap();
    let x = BinaryTensor::sign(&ndarray::array![[1.0f32, 1.0]]).unwrap();
    assert_eq!(layer.forward(&x).unwrap(), ndarray::array![[0.0, 4.0]]);
    assert_eq!(layer.size_in_bytes(), 16 * 4 + 2 * 4 + 2 * 8);
    let conv = BinaryConv2d::new(&w.clone().insert_axis(Axis(1)).insert_axis(Axis(1)), None, &Window::new()).unwrap();
    let x = BinaryTensor::sign(&ndarray::array![[[[1.0f32, 1.0]]]]).unwrap();
    assert_eq!(conv.forward(&x).unwrap().into_raw_vec_and_offset().0, [0.0, 4.0]);
}

/// Threads split rows, and give the same bits.
#[cfg(feature = "rayon")]
#[test]
fn threads_give_the_same_bits() {
    let rng = &mut Pcg64::seed_from_u64(1);
    let (x, w) = (uniform((301, 2000), rng), uniform((70, 2000), rng));
    let (layer, x) = (BinaryLinear::new(&w, None).unwrap(), BinaryTensor::sign(&x).unwrap());
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (layer.forward(&x).unwrap(), layer.forward_sign(&x).unwrap()))
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(7), one);
}

#[test]
fn errors_name_the_argument() {
    let w = Array2::<f32>::ones((3, 5));
    let layer = BinaryLinear::new(&w, None).unwrap();
    let x = BinaryTensor::sign(&Array2::<f32>::ones((2, 4))).unwrap();
    assert!(matches!(layer.forward(&x), Err(Error::Shape(_))));
    let fails = |error: Error, part: &str| {
        let text = alloc::string::ToString::to_string(&error);
        assert!(text.contains(part), "{text}");
    };
    fails(layer.forward(&x).unwrap_err(), "x, [batch, in]");
    fails(BinaryLinear::new(&w, Some(&Array1::zeros(2))).unwrap_err(), "bias");
    fails(BinaryLinear::from_signs(&BinaryTensor::sign(&w).unwrap(), &Array1::zeros(2), None).unwrap_err(), "scales");
    let infinite = Array1::from_elem(3, f32::INFINITY);
    fails(BinaryLinear::from_signs(&BinaryTensor::sign(&w).unwrap(), &infinite, None).unwrap_err(), "scales");
    fails(BinaryLinear::new(&Array2::from_elem((1, 1), f32::NAN), None).unwrap_err(), "x");
    fails(BinaryTensor::from_words((2, 40), vec![0; 3]).unwrap_err(), "number of words");
    assert!(BinaryTensor::from_words((usize::MAX, 40), vec![]).is_err());
    let w = Array4::<f32>::ones((2, 3, 3, 4));
    fails(BinaryConv2d::new(&w, None, &Window::new().with_strides([0, 1])).unwrap_err(), "strides");
    let conv = BinaryConv2d::new(&w, None, &Window::new()).unwrap();
    let x = BinaryTensor::sign(&Array4::<f32>::ones((1, 4, 4, 3))).unwrap();
    fails(conv.forward(&x).unwrap_err(), "4 channels");
}
