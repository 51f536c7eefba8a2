//! Convolution against its definition, on every instruction set.

use alloc::{vec, vec::Vec};

use ndarray::{Array4, ArrayRef4};
use proptest::prelude::*;

use super::weights::ConvWeights;
use crate::affine::{Arithmetic, Multiplier};
use crate::gemm::{I32Epilogue, Int8, RequantizeEpilogue, Workspace};
use crate::qparams::QParams;
use crate::simd::Isa;
use crate::window::{Padding, Window};

/// The definition: `bias + Σ (x - x_zero) * (w - w_zero)` over the kernel positions inside the image.
fn naive<X: Int8, W: Int8>(case: &Case<X, W>) -> Array4<i32> {
    let placed = case.window.place([case.w.dim().1, case.w.dim().2], [case.x.dim().1, case.x.dim().2]).unwrap();
    let (outputs, kh, kw, channels) = case.w.dim();
    let per_group = outputs / case.groups;
    Array4::from_shape_fn((case.x.dim().0, placed.output[0], placed.output[1], outputs), |(n, y, x, o)| {
        let zero = if case.w_zero.len() == 1 { case.w_zero[0] } else { case.w_zero[o] };
        let mut sum = case.bias[o];
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (Some(row), Some(column)) = (placed.source(0, y, ky), placed.source(1, x, kx)) else { continue };
            for c in 0..channels {
                let code = case.x[[n, row, column, o / per_group * channels + c]];
                sum += (code.to_i32() - case.x_zero.to_i32()) * (case.w[[o, ky, kx, c]].to_i32() - zero.to_i32());
            }
        }
        sum
    })
}

#[derive(Debug, Clone)]
struct Case<X: Int8, W: Int8> {
    x: Array4<X>,
    x_zero: X,
    w: Array4<W>,
    w_zero: Vec<W>,
    bias: Vec<i32>,
    window: Window,
    groups: usize,
}

fn code<T: Int8>() -> impl Strategy<Value = T> {
    prop_oneof![1 => Just(T::MIN), 1 => Just(T::MAX), 3 => T::MIN..=T::MAX].prop_map(T::from_i32)
}

fn tensor<T: Int8>(dim: (usize, usize, usize, usize)) -> impl Strategy<Value = Array4<T>> {
    let len = dim.0 * dim.1 * dim.2 * dim.3;
    prop::collection::vec(code(), len).prop_map(move |v| Array4::from_shape_vec(dim, v).unwrap())
}

fn window() -> impl Strategy<Value = Window> {
    let padding = prop_oneof![
        1 => Just(Padding::Valid),
        2 => Just(Padding::Same),
        1 => Just(Padding::SameLower),
        2 => [0usize..4, 0usize..4, 0usize..4, 0usize..4].prop_map(Padding::Explicit),
    ];
    let steps = || prop_oneof![3 => Just([1, 1]), 2 => Just([2, 2]), 1 => [1usize..4, 1usize..4]];
    let dilations = prop_oneof![3 => Just([1, 1]), 1 => [1usize..3, 1usize..4]];
    (steps(), dilations, padding, any::<bool>()).prop_map(|(s, d, p, ceil)| {
        Window::new().with_strides(s).with_dilations(d).with_padding(p).with_ceil_mode(ceil)
    })
}

/// Channels per group, outputs per group, groups: ordinary, grouped, depthwise, depthwise with a channel multiplier.
fn channels() -> impl Strategy<Value = (usize, usize, usize)> {
    prop_oneof![
        2 => (1usize..20, 1usize..40, Just(1)),
        1 => (1usize..5, 1usize..5, 2usize..5),
        3 => (Just(1), Just(1), 1usize..80),
        1 => (Just(1), 2usize..4, 1usize..20),
    ]
}

fn case<X: Int8, W: Int8>() -> impl Strategy<Value = Case<X, W>> {
    case_of((0usize..3, 1usize..10, 1usize..12), channels())
}

/// More columns and channels than one tile holds.
fn large_depthwise<X: Int8, W: Int8>() -> impl Strategy<Value = Case<X, W>> {
    let channels = prop_oneof![90usize..110, 180usize..210];
    case_of((Just(1), 3usize..6, 40usize..90), channels.prop_map(|groups| (1, 1, groups)))
}

fn case_of<X: Int8, W: Int8>(
    image: impl Strategy<Value = (usize, usize, usize)>,
    channels: impl Strategy<Value = (usize, usize, usize)>,
) -> impl Strategy<Value = Case<X, W>> {
    let kernel = prop_oneof![2 => Just((3, 3)), 1 => Just((5, 5)), 1 => Just((1, 1)), 2 => (1usize..6, 1usize..6)];
    (image, kernel, channels, window())
        .prop_filter("the kernel fits", |((_, h, w), (kh, kw), _, window)| window.place([*kh, *kw], [*h, *w]).is_ok())
        .prop_flat_map(|((n, h, w), (kh, kw), (channels, per_group, groups), window)| {
            let outputs = per_group * groups;
            let zeros = prop_oneof![
                2 => Just(vec![W::from_i32(0.clamp(W::MIN, W::MAX))]),
                1 => prop::collection::vec(code(), 1),
                1 => prop::collection::vec(code(), outputs),
            ];
            let bias = prop::collection::vec(-5000..5000, outputs);
            (tensor((n, h, w, channels * groups)), code(), tensor((outputs, kh, kw, channels)), zeros, bias)
                .prop_map(move |(x, x_zero, w, w_zero, bias)| Case { x, x_zero, w, w_zero, bias, window, groups })
        })
}

/// The same elements in NCHW memory order.
fn channels_first<T: Clone>(x: &ArrayRef4<T>) -> Array4<T> {
    x.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned().permuted_axes([0, 2, 3, 1])
}

/// The output codes of accumulators for input scale 0.5, computed element by element.
fn requantized_to<T: Int8>(
    sums: &Array4<i32>,
    scales: &[f32],
    scale: f32,
    zero_point: T,
    clamp: [i32; 2],
) -> Array4<T> {
    Array4::from_shape_fn(sums.dim(), |at| {
        let multiplier = Multiplier::new(0.5, scales[at.3], scale, Arithmetic::F32).unwrap();
        T::from_i32(multiplier.requantize::<T>(sums[at], zero_point).to_i32().clamp(clamp[0], clamp[1]))
    })
}

fn agrees<X: Int8, W: Int8>(case: Case<X, W>) -> Result<(), TestCaseError> {
    let expected = naive(&case);
    let scales: Vec<f32> = (0..case.bias.len()).map(|o| 0.001 + o as f32 * 0.0001).collect();
    let requantized = requantized_to::<u8>(&expected, &scales, 0.3, 17, [0, 255]);
    // Signed codes and activations: outputs beyond `i32`, beyond the codes, and below the zero point.
    let clamps = [(1e-12, [-100, 90]), (0.01, [-100, 90]), (0.05, [-100, -20])];
    let clamped = clamps.map(|(scale, clamp)| requantized_to::<i8>(&expected, &scales, scale, -5, clamp));
    let x_first = channels_first(&case.x);
    let mut workspace = Workspace::new();
    for isa in Isa::available() {
        let weights = ConvWeights::new_for(Some(isa), &case.w, &case.w_zero, case.window, case.groups).unwrap();
        let mut y = Array4::zeros(expected.dim());
        let sums = I32Epilogue::with_bias(&case.bias);
        weights.run(&case.x, case.x_zero, &sums, &mut y, &mut workspace).unwrap();
        prop_assert_eq!(&y, &expected, "{:?}", isa);
        let params = QParams::<u8>::per_tensor(0.3, 17).unwrap();
        let codes = RequantizeEpilogue::new(0.5, &scales, Some(&case.bias), &params, Arithmetic::F32).unwrap();
        let mut y = channels_first(&Array4::zeros(expected.dim()));
        weights.run(&x_first, case.x_zero, &codes, &mut y, &mut workspace).unwrap();
        prop_assert_eq!(&y, &requantized, "{:?}, channels first", isa);
        for ((scale, [min, max]), expected) in clamps.into_iter().zip(&clamped) {
            let params = QParams::<i8>::per_tensor(scale, -5).unwrap();
            let codes = RequantizeEpilogue::new(0.5, &scales, Some(&case.bias), &params, Arithmetic::F32).unwrap();
            let mut y = Array4::zeros(expected.dim());
            weights.run(&case.x, case.x_zero, &codes.with_clamp(min, max).unwrap(), &mut y, &mut workspace).unwrap();
            prop_assert_eq!(&y, expected, "{:?}, clamped to {}..={} of {}", isa, min, max, scale);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn large_depthwise_u8_by_i8(case in large_depthwise::<u8, i8>()) { agrees(case)?; }
}

proptest! {
    #[test]
    fn u8_by_i8(case in case::<u8, i8>()) { agrees(case)?; }
    #[test]
    fn i8_by_i8(case in case::<i8, i8>()) { agrees(case)?; }
    #[test]
    fn u8_by_u8(case in case::<u8, u8>()) { agrees(case)?; }
}

/// The bits do not depend on the number of threads.
#[cfg(feature = "rayon")]
#[test]
fn threads() {
    let x = Array4::from_shape_fn((3, 41, 37, 48), |(n, y, x, c)| (n * 89 + y * 31 + x * 7 + c * 3) as u8);
    for (groups, channels, kernel) in [(48, 1, 3), (48, 1, 5), (1, 48, 3), (4, 12, 1)] {
        let w =
            Array4::from_shape_fn((96, kernel, kernel, channels), |(o, y, x, c)| (o * 13 + y * 5 + x * 3 + c) as i8);
        let window = Window::new().with_padding(Padding::Same);
        let weights = ConvWeights::new(&w, &[3], window, groups).unwrap();
        let sums = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut y = Array4::zeros((3, 41, 37, 96));
            pool.install(|| weights.run(&x, 7, &I32Epilogue::new(), &mut y, &mut Workspace::new())).unwrap();
            y
        };
        let expected = sums(1);
        for threads in [2, 7] {
            assert_eq!(sums(threads), expected, "{groups} groups, {threads} threads");
        }
    }
}
