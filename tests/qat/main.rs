//! Fake quantization against plain references, published formulas and central differences of smooth surrogates.

mod layers;
mod learned;

use ndarray::{Array, Array1, Array2, Array3, ArrayRef2, Axis, Ix3, s};
use ndarray_quant::{
    Convention, Element, Error, Granularity, QParams, Scheme,
    element::Code,
    nn::{Arithmetic, Linear, Output},
    observer::MinMax,
    qat::{
        BatchNormFold, FakeLinear, FakeQuantize, GradientScale, LearnedQuantizer, Pact, ScheduledQuantizer,
        SteClipping, fake_quantize_bias,
    },
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

fn convention() -> impl Strategy<Value = Convention> {
    prop::sample::select(&[Convention::Onnx, Convention::Torch, Convention::TfLite])
}

fn clipping() -> impl Strategy<Value = SteClipping> {
    prop::sample::select(&[SteClipping::Rounded, SteClipping::Unrounded, SteClipping::Never])
}

fn granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        (0usize..3).prop_map(|axis| Granularity::PerAxis { axis }),
        (0usize..3, 1usize..6).prop_map(|(axis, size)| Granularity::PerGroup { axis, size }),
    ]
}

/// Values inside and outside the code range, with ties, and gradients. Some rows are longer than a word of the mask.
fn tensors() -> impl Strategy<Value = (Array3<f32>, Array3<f32>)> {
    let value = prop_oneof![4 => -3.0f32..3.0, 1 => (-40i32..40).prop_map(|i| i as f32 * 0.125), 1 => -1e3f32..1e3];
    (0usize..4, 0usize..4, prop_oneof![0usize..9, 60usize..70]).prop_flat_map(move |(a, b, c)| {
        let array = move |v| Array3::from_shape_vec((a, b, c), v).expect("matching length");
        let n = a * b * c;
        (prop::collection::vec(value.clone(), n), prop::collection::vec(-1.0f32..1.0, n))
            .prop_map(move |(x, grad)| (array(x), array(grad)))
    })
}

/// Random parameters for a tensor of this shape, optionally with zero points.
fn params<T: Element>(shape: Ix3, granularity: Granularity, bits: u32, with_zero: bool, seed: u64) -> QParams<T> {
    let scheme =
        Scheme::<T>::symmetric().with_bits(bits).expect("at most the bits of the type").with_granularity(granularity);
    let like = scheme.params_of(&Array3::<f32>::zeros(shape)).expect("zeros have a range");
    let (min, max) = like.code_range();
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let scale = like.scale().mapv(|_| [0.125, rng.random_range(0.01..0.5)][rng.random_range(0..2)]);
    let zero =
        like.scale().mapv(|_| T::Code::from_i32(if with_zero { rng.random_range(min..=max) } else { min.max(0) }));
    let params = QParams::new(granularity, scale, Some(zero)).expect("valid parameters");
    params.with_code_range(min, max).expect("the same codes")
}

fn block_of(granularity: Granularity, index: (usize, usize, usize)) -> Vec<usize> {
    let index = [index.0, index.1, index.2];
    match granularity {
        Granularity::PerAxis { axis } => vec![index[axis]],
        Granularity::PerGroup { axis, size } => {
            let mut block = index.to_vec();
            block[axis] /= size;
            block
        }
        _ => vec![],
    }
}

fn round(v: f32, convention: Convention) -> f32 {
    if convention == Convention::TfLite { v.round() } else { v.round_ties_even() }
}

/// The papers' formulas for one value: `v`, the centred code, and -1, 0 or 1 if it is clipped below, not, or above.
fn reference(
    x: f32,
    scale: f32,
    zero: f32,
    (min, max): (i32, i32),
    convention: Convention,
    clipping: SteClipping,
) -> (f32, f32, i32) {
    let v = if convention == Convention::Torch { x * (1.0 / scale) } else { x / scale };
    let (low, high) = (min as f32 - zero, max as f32 - zero);
    let rounded = round(v, convention);
    let side = match clipping {
        SteClipping::Rounded => (rounded > high) as i32 - (rounded < low) as i32,
        SteClipping::Unrounded => (v >= high) as i32 - (v <= low) as i32,
        SteClipping::Never => 0,
    };
    (v, rounded.clamp(low, high), side)
}

/// The formulas with the zero point added before rounding: `v`, the code, and -1, 0 or 1.
fn reference_after_zero(
    x: f32,
    scale: f32,
    zero: f32,
    (min, max): (i32, i32),
    clipping: SteClipping,
) -> (f32, f32, i32) {
    let v = x * (1.0 / scale);
    let (sum, low, high) = (v + zero, min as f32, max as f32);
    let side = match clipping {
        SteClipping::Rounded => (sum.round_ties_even() > high) as i32 - (sum.round_ties_even() < low) as i32,
        SteClipping::Unrounded => (sum >= high) as i32 - (sum <= low) as i32,
        SteClipping::Never => 0,
    };
    (v, sum.round_ties_even().clamp(low, high), side)
}

fn forward_and_backward<T: Element>(
    (x, grad): (Array3<f32>, Array3<f32>),
    granularity: Granularity,
    bits: u32,
    convention: Convention,
    clipping: SteClipping,
    with_zero: bool,
    seed: u64,
) -> Result<(), TestCaseError> {
    let params = params::<T>(x.raw_dim(), granularity, bits, with_zero, seed).with_convention(convention);
    let fake = FakeQuantize::new(params.clone()).with_clipping(clipping);
    let (y, mask) = fake.forward(&x).unwrap();
    prop_assert_eq!(&y, &params.fake_quantize(&x).unwrap());
    let passes = mask.to_array();
    let gradients = fake.gradients(&x, &grad).unwrap();
    let zero_at = |block: &[usize]| params.zero_point().map_or(0.0, |z| z[block].to_i32() as f32);
    let mut scale = Array::<f64, _>::zeros(params.scale().raw_dim());
    let (mut zero_point, mut magnitude) = (scale.clone(), scale.clone());
    for (index, &x) in x.indexed_iter() {
        let block = block_of(granularity, index);
        let (s, z) = (params.scale()[&block[..]], zero_at(&block));
        let (_, centred, side) = reference(x, s, z, params.code_range(), convention, clipping);
        prop_assert_eq!((y[index], passes[index]), (centred * s, side == 0));
        // PyTorch's backward pass adds the zero point before rounding.
        let (v, centred, side) = if convention == Convention::Torch {
            let (v, code, side) = reference_after_zero(x, s, z, params.code_range(), clipping);
            (v, code - z, side)
        } else {
            reference(x, s, z, params.code_range(), convention, clipping)
        };
        let g = grad[index];
        prop_assert_eq!(gradients.input[index], if side == 0 { g } else { 0.0 });
        let by_scale = if side == 0 { centred - v } else { centred };
        scale[&block[..]] += g as f64 * by_scale as f64;
        magnitude[&block[..]] += (g * by_scale).abs() as f64 + (g * s).abs() as f64;
        zero_point[&block[..]] -= if side == 0 { 0.0 } else { g as f64 * s as f64 };
    }
    for ((expected, found), m) in scale.iter().zip(&gradients.scale).zip(&magnitude) {
        prop_assert!((expected - *found as f64).abs() <= 1e-5 * m + 1e-30, "scale: {expected} {found}");
    }
    for ((expected, found), m) in zero_point.iter().zip(&gradients.zero_point).zip(&magnitude) {
        prop_assert!((expected - *found as f64).abs() <= 1e-5 * m + 1e-30, "zero point: {expected} {found}");
    }
    let input = fake.backward(&mask, &grad).unwrap();
    prop_assert_eq!(&input, &Array3::from_shape_fn(x.dim(), |i| if passes[i] { grad[i] } else { 0.0 }));
    prop_assert_eq!(mask.clipped(), passes.iter().filter(|p| !**p).count());

    // Strides and caller-provided arrays do not change the results.
    let wide = |from: &Array3<f32>| {
        let (a, b, c) = from.dim();
        let mut wide = Array3::<f32>::zeros((c, a, 2 * b));
        wide.slice_mut(s![.., .., ..;2]).assign(&from.view().permuted_axes([2, 0, 1]));
        wide
    };
    let (wide_x, wide_grad, mut wide_y, mut wide_input) = (wide(&x), wide(&grad), wide(&x), wide(&x));
    let x2 = wide_x.slice(s![.., .., ..;2]).permuted_axes([1, 2, 0]);
    let grad2 = wide_grad.slice(s![.., .., ..;2]).permuted_axes([1, 2, 0]);
    let mut y2 = wide_y.slice_mut(s![.., .., ..;2]).permuted_axes([1, 2, 0]);
    let mut input2 = wide_input.slice_mut(s![.., .., ..;2]).permuted_axes([1, 2, 0]);
    let mut mask2 = mask.clone();
    fake.forward_into(&x2, &mut y2, &mut mask2).unwrap();
    prop_assert!(y2 == y && mask2 == mask);
    fake.backward_into(&mask2, &grad2, &mut input2).unwrap();
    prop_assert!(input2 == input);
    let (mut scale2, mut zero2) = (gradients.scale.clone(), gradients.scale.clone());
    fake.gradients_into(&x2, &grad2, &mut input2, &mut scale2, &mut zero2).unwrap();
    prop_assert!(input2 == gradients.input && scale2 == gradients.scale && zero2 == gradients.zero_point);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn signed_codes(t in tensors(), g in granularity(), bits in 2u32..=8, c in convention(), clip in clipping(), zero: bool, seed: u64) {
        forward_and_backward::<i8>(t, g, bits, c, clip, zero, seed)?;
    }
    #[test]
    fn unsigned_codes(t in tensors(), g in granularity(), bits in 2u32..=8, c in convention(), clip in clipping(), zero: bool, seed: u64) {
        forward_and_backward::<u8>(t, g, bits, c, clip, zero, seed)?;
    }
    #[test]
    fn wide_codes(t in tensors(), g in granularity(), bits in 2u32..=16, c in convention(), clip in clipping(), zero: bool, seed: u64) {
        forward_and_backward::<i16>(t.clone(), g, bits, c, clip, zero, seed)?;
        forward_and_backward::<u16>(t, g, bits, c, clip, zero, seed)?;
    }

    /// With a constant rounding error the function is smooth, and its central differences are the gradients.
    #[test]
    fn gradients_are_differences_of_the_surrogate(x in -3.0f64..3.0, scale in 0.05f64..0.5, zero in 0i32..8, signed: bool) {
        let (min, max) = if signed { (-8, 7) } else { (0, 15) };
        let zero = zero.clamp(min, max);
        let params = QParams::<i8>::per_tensor(scale as f32, zero as i8).unwrap().with_code_range(min, max).unwrap();
        let scale = scale as f32 as f64;
        let v = x / scale;
        // Differences are meaningless at a kink.
        prop_assume!(((v + zero as f64 - min as f64).abs() > 1e-3) && ((v + zero as f64 - max as f64).abs() > 1e-3));
        let residual = v.round_ties_even() - v;
        let surrogate = |x: f64, scale: f64, zero: f64| {
            let v = x / scale;
            // Inside the range, rounding moves a value by a constant; outside, it is clipped.
            let centred = if v + zero <= min as f64 { min as f64 - zero }
                else if v + zero >= max as f64 { max as f64 - zero }
                else { v + residual };
            scale * centred
        };
        let h = 1e-6;
        let central = |f: &dyn Fn(f64) -> f64| (f(h) - f(-h)) / (2.0 * h);
        let found = FakeQuantize::new(params).with_clipping(SteClipping::Unrounded)
            .gradients(&Array1::from_elem(1, x), &Array1::from_elem(1, 1.0f64)).unwrap();
        let expected = central(&|h| surrogate(x + h, scale, zero as f64));
        prop_assert!((found.input[0] - expected).abs() < 1e-4, "input: {} {expected}", found.input[0]);
        let expected = central(&|h| surrogate(x, scale + h, zero as f64));
        prop_assert!((found.scale[[]] as f64 - expected).abs() < 1e-4, "scale: {} {expected}", found.scale[[]]);
        let expected = central(&|h| surrogate(x, scale, zero as f64 + h));
        prop_assert!((found.zero_point[[]] as f64 - expected).abs() < 1e-4, "zero: {} {expected}", found.zero_point[[]]);
    }

    /// Half precision is computed in `f32`, and `f64` in `f64`.
    #[test]
    fn other_float_types((x, grad) in tensors(), g in granularity(), seed: u64) {
        let fake = FakeQuantize::new(params::<i8>(x.raw_dim(), g, 4, true, seed));
        let (half, half_grad) = (x.mapv(half::f16::from_f32), grad.mapv(half::f16::from_f32));
        let (wide, wide_grad) = (half.mapv(f32::from), half_grad.mapv(f32::from));
        let (found, expected) = (fake.gradients(&half, &half_grad).unwrap(), fake.gradients(&wide, &wide_grad).unwrap());
        prop_assert!(found.input.mapv(f32::from) == expected.input && found.scale == expected.scale);
        let ((y, mask), (wide_y, wide_mask)) = (fake.forward(&half).unwrap(), fake.forward(&wide).unwrap());
        prop_assert!(y == wide_y.mapv(half::f16::from_f32) && mask == wide_mask);
        let double = fake.gradients(&x.mapv(f64::from), &grad.mapv(f64::from)).unwrap();
        prop_assert_eq!(double.input.dim(), x.dim());
    }

    /// The gradient by `α` is the sum of the gradients of all values clipped at `α`.
    #[test]
    fn pact((x, grad) in tensors(), alpha in 0.1f32..3.0, bits in 2u32..=8) {
        let pact = Pact::<u8>::new(alpha, bits).unwrap();
        let (y, _) = pact.forward(&x).unwrap();
        let (input, by_alpha) = pact.gradients(&x, &grad).unwrap();
        let levels = ((1 << bits) - 1) as f32;
        let scale = alpha / levels;
        let mut expected = 0.0f64;
        for (index, &x) in x.indexed_iter() {
            let clipped = (x / scale).clamp(0.0, levels);
            prop_assert_eq!(y[index], clipped.round_ties_even() * scale);
            prop_assert_eq!(input[index], if 0.0 < clipped && clipped < levels { grad[index] } else { 0.0 });
            expected += if clipped == levels { grad[index] as f64 } else { 0.0 };
        }
        prop_assert!((by_alpha as f64 - expected).abs() < 1e-4);
    }

    /// A proposed scale is taken within a factor of two of the present one, and a NaN never.
    #[test]
    fn set_scales_are_usable(present in prop_oneof![1e-30f32..1e30, 0.01f32..1.0], proposed: f32) {
        let params = QParams::<i8>::per_tensor(present, 0).unwrap();
        let mut quantizer = LearnedQuantizer::new(params).unwrap();
        let present = quantizer.params().scales()[0];
        quantizer.set_scale(&Array1::from_elem(1, proposed)).unwrap();
        let scale = quantizer.params().scales()[0];
        prop_assert!(scale > 0.0 && scale.is_finite() && (0.5 * present..=2.0 * present).contains(&scale), "{scale}");
    }
}

#[test]
fn nan_is_zero_and_infinities_are_clipped() {
    let fake = FakeQuantize::new(QParams::<u8>::per_tensor(0.5, 3).unwrap());
    let x = ndarray::array![f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let (y, mask) = fake.forward(&x).unwrap();
    assert_eq!((y, mask.to_array()), (ndarray::array![0.0, 126.0, -1.5], ndarray::array![true, false, false]));
    let gradients = fake.gradients(&x, &Array1::ones(3)).unwrap();
    assert_eq!((gradients.scale[[]], gradients.zero_point[[]]), (252.0 - 3.0, -1.0));
}

/// The mean over many seeds is the value, within five standard deviations.
#[test]
fn stochastic_rounding_is_unbiased() {
    const SEEDS: u64 = 2000;
    let fake = FakeQuantize::new(QParams::<i8>::per_tensor(0.25, 5).unwrap());
    let x = Array2::from_shape_fn((3, 67), |(i, j)| (i * 67 + j) as f32 * 0.0371 - 3.1);
    let mut mean = Array2::<f64>::zeros(x.dim());
    for seed in 0..SEEDS {
        let (y, mask) = fake.forward_stochastic(&x, seed).unwrap();
        assert_eq!(mask.clipped(), 0);
        mean += &y.mapv(|y| y as f64 / SEEDS as f64);
    }
    let mut total = 0.0;
    for (&x, &mean) in x.iter().zip(&mean) {
        let fraction = (x as f64 / 0.25).rem_euclid(1.0);
        let deviation = 0.25 * (fraction * (1.0 - fraction) / SEEDS as f64).sqrt();
        assert!((mean - x as f64).abs() <= 5.0 * deviation + 1e-7, "{x}: {mean}");
        total += mean - x as f64;
    }
    assert!((total / x.len() as f64).abs() < 5.0 * 0.125 / ((SEEDS as f64 * x.len() as f64).sqrt()));
    // The result depends on the seed and the position, not on strides.
    let (y, _) = fake.forward_stochastic(&x, 7).unwrap();
    let columns = x.t().as_standard_layout().into_owned();
    assert_eq!(fake.forward_stochastic(&columns.t(), 7).unwrap().0, y);
    assert_ne!(fake.forward_stochastic(&x, 8).unwrap().0, y);
    let float_zero_points = fake.with_float_zero_points(&Array2::from_elem((1, 1), 5.5)).unwrap();
    assert!(matches!(float_zero_points.forward_stochastic(&x, 1), Err(Error::Argument { .. })));
}
