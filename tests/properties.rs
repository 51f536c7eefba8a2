//! Properties of quantization for arbitrary data, checked against slow scalar references.

use half::{bf16, f16};
use ndarray::{Array, Array1, Array2, Array3, ArrayD, Axis, Dimension, IxDyn, s};
use ndarray_quant::{
    Convention, Dequantize, Element, Granularity, I2, I4, QParams, Scheme, U2, U4,
    compat::gemmlowp::{FixedPoint, FixedPointRounding},
    element::Code,
    half::{HalfCast, Overflow},
    nn::{Arithmetic, Multiplier},
};
use proptest::prelude::*;

const CONVENTIONS: [Convention; 3] = [Convention::Onnx, Convention::Torch, Convention::TfLite];

fn convention() -> impl Strategy<Value = Convention> {
    prop::sample::select(&CONVENTIONS)
}

/// Generates finite values of all magnitudes that occur in networks, with zeros and ties.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -10.0f32..10.0,
        1 => Just(0.0f32),
        1 => (-40i32..40).prop_map(|i| i as f32 * 0.25),
        1 => -1e6f32..1e6,
        1 => -1e-6f32..1e-6,
    ]
}

fn tensor() -> impl Strategy<Value = Array3<f32>> {
    (0usize..6, 0usize..7, 0usize..9).prop_flat_map(|(a, b, c)| {
        prop::collection::vec(value(), a * b * c).prop_map(move |v| Array3::from_shape_vec((a, b, c), v).unwrap())
    })
}

fn granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        (0usize..3).prop_map(|axis| Granularity::PerAxis { axis }),
        (0usize..3, 1usize..6).prop_map(|(axis, size)| Granularity::PerGroup { axis, size }),
    ]
}

fn scheme<T: Element>() -> impl Strategy<Value = Scheme<T>> {
    (any::<bool>(), any::<bool>(), granularity(), convention()).prop_map(
        |(symmetric, narrow, granularity, convention)| {
            let scheme = if symmetric { Scheme::symmetric() } else { Scheme::asymmetric() };
            let scheme = if narrow { scheme.narrow_range() } else { scheme };
            scheme.with_granularity(granularity).with_convention(convention)
        },
    )
}

/// Returns the scale and zero point of an element, without the crate's iteration over blocks.
fn params_at<T: Element>(params: &QParams<T>, index: [usize; 3]) -> (f32, i32) {
    let block = match params.granularity() {
        Granularity::PerAxis { axis } => vec![index[axis]],
        Granularity::PerGroup { axis, size } => {
            let mut block = index.to_vec();
            block[axis] /= size;
            block
        }
        _ => vec![],
    };
    (params.scale()[&block[..]], params.zero_point().map_or(0, |z| z[&block[..]].to_i32()))
}

/// Quantizes by the formulas of the numerics page, in its order of operations.
fn reference_code(x: f32, scale: f32, zero_point: i32, (min, max): (i32, i32), convention: Convention) -> i32 {
    if x.is_nan() {
        return zero_point;
    }
    let rounded = match convention {
        Convention::Torch => (x * (1.0 / scale)).round_ties_even(),
        Convention::TfLite => (x / scale).round(),
        _ => (x / scale).round_ties_even(),
    };
    (rounded as f64 + zero_point as f64).clamp(min as f64, max as f64) as i32
}

fn codes_equal_the_formula<T: Element>(x: &Array3<f32>, scheme: Scheme<T>) -> Result<(), TestCaseError> {
    let q = scheme.quantize(x).unwrap();
    let params = q.params();
    let codes = q.unpacked_codes();
    let dequantized = q.dequantize();
    for ((i, j, k), &x) in x.indexed_iter() {
        let (scale, zero_point) = params_at(params, [i, j, k]);
        let code = codes[[i, j, k]].to_i32();
        prop_assert_eq!(code, reference_code(x, scale, zero_point, params.code_range(), params.convention()));
        prop_assert_eq!(dequantized[[i, j, k]], (code - zero_point) as f32 * scale);
        // The range comes from the data, so nothing is clipped: the error is at most half a scale, plus the f32
        // rounding errors of the value and of the quotient that gave the zero point.
        let bound = scale * 0.5 + 4.0 * f32::EPSILON * (x.abs() + scale * (zero_point as f32).abs());
        prop_assert!((dequantized[[i, j, k]] - x).abs() <= bound, "{x} became {}", dequantized[[i, j, k]]);
        if x == 0.0 {
            prop_assert_eq!(dequantized[[i, j, k]], 0.0);
        }
    }
    prop_assert_eq!(params.fake_quantize(x).unwrap(), dequantized);
    Ok(())
}

proptest! {
    #[test]
    fn u8_codes(x in tensor(), scheme in scheme::<u8>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn i8_codes(x in tensor(), scheme in scheme::<i8>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn u16_codes(x in tensor(), scheme in scheme::<u16>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn i16_codes(x in tensor(), scheme in scheme::<i16>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn i4_codes(x in tensor(), scheme in scheme::<I4>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn u4_codes(x in tensor(), scheme in scheme::<U4>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn i2_codes(x in tensor(), scheme in scheme::<I2>()) { codes_equal_the_formula(&x, scheme)?; }
    #[test]
    fn u2_codes(x in tensor(), scheme in scheme::<U2>()) { codes_equal_the_formula(&x, scheme)?; }

    /// The real number 0 has an exact code in every range.
    #[test]
    fn zero_is_exact(min in value(), max in value(), symmetric: bool, narrow: bool, convention in convention()) {
        let scheme = if symmetric { Scheme::<u8>::symmetric() } else { Scheme::asymmetric() };
        let scheme = if narrow { scheme.narrow_range() } else { scheme }.with_convention(convention);
        let params = scheme.params_from_range(min.min(max), min.max(max)).unwrap();
        prop_assert_eq!(params.quantize(&Array1::from_elem(1, 0.0f32)).unwrap().dequantize()[0], 0.0);
    }

    /// Codes are monotonic in the value, and values out of range saturate.
    #[test]
    fn monotone_and_saturating(scale in 1e-3f32..10.0, zero_point: i8, convention in convention(), mut x in prop::collection::vec(any::<f32>(), 2..50)) {
        x.retain(|x| !x.is_nan());
        x.sort_by(f32::total_cmp);
        x.extend([f32::MAX, f32::INFINITY]);
        x.splice(0..0, [f32::NEG_INFINITY, f32::MIN]);
        let params = QParams::<i8>::per_tensor(scale, zero_point).unwrap().with_convention(convention);
        let q = params.quantize(&Array1::from_vec(x)).unwrap();
        let codes = q.codes().to_vec();
        prop_assert!(codes.is_sorted());
        prop_assert_eq!((codes[0], codes[1]), (i8::MIN, i8::MIN));
        prop_assert_eq!(&codes[codes.len() - 2..], [i8::MAX, i8::MAX]);
        let nan = params.quantize(&Array1::from_elem(3, f32::NAN)).unwrap();
        prop_assert!(nan.codes().iter().all(|&q| q == zero_point));
    }

    #[test]
    fn per_axis_is_per_tensor_on_each_slice(x in tensor(), axis in 0usize..3, symmetric: bool, convention in convention()) {
        let scheme = if symmetric { Scheme::<i8>::symmetric() } else { Scheme::asymmetric() }.with_convention(convention);
        let whole = scheme.per_axis(Axis(axis)).quantize(&x).unwrap();
        for (i, slice) in x.axis_iter(Axis(axis)).enumerate() {
            let alone = scheme.quantize(&slice).unwrap();
            prop_assert_eq!(whole.codes().index_axis(Axis(axis), i), alone.codes());
            if !slice.is_empty() {
                prop_assert_eq!(whole.params().scales()[i], alone.params().scales()[0]);
            }
        }
    }

    /// Codes and values do not depend on strides or on the type of the dimension.
    #[test]
    fn strides_never_matter(x in tensor(), scheme in scheme::<i8>()) {
        let q = scheme.quantize(&x).unwrap();
        let dequantized = q.dequantize();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            // A copy with axes in another memory order and the first one reversed.
            let mut copy = x.view().permuted_axes(order).as_standard_layout().into_owned();
            copy.invert_axis(Axis(0));
            let mut copy = copy.as_standard_layout().into_owned();
            copy.invert_axis(Axis(0));
            let mut back = [0; 3];
            order.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
            let strided = copy.view().permuted_axes(back);
            prop_assert_eq!(strided, &x);
            let again = scheme.quantize(&strided).unwrap();
            prop_assert_eq!(&again, &q);

            let mut padded = Array3::from_elem((x.dim().0, x.dim().1, 2 * x.dim().2), 99i8);
            let mut out = padded.slice_mut(s![.., .., ..;2]);
            q.params().quantize_into(&strided, &mut out).unwrap();
            prop_assert_eq!(&out, q.codes());
            let mut values = Array3::from_elem((x.dim().2, x.dim().1, x.dim().0), f32::NAN);
            q.dequantize_into(&mut values.view_mut().reversed_axes()).unwrap();
            prop_assert_eq!(values.reversed_axes(), dequantized.view());
            prop_assert_eq!(q.params().fake_quantize(&strided).unwrap(), dequantized.view());
        }
        let dynamic: ArrayD<f32> = x.clone().into_dyn();
        let again = scheme.quantize(&dynamic).unwrap();
        prop_assert_eq!(again.codes(), &q.codes().clone().into_dyn());
    }

    #[test]
    fn packed_codes_survive(x in tensor()) {
        let q = Scheme::<I4>::symmetric().quantize(&x).unwrap();
        prop_assert_eq!(q.codes().as_bytes().len(), x.len().div_ceil(2));
        let codes = q.unpacked_codes().into_owned();
        prop_assert_eq!(&ndarray_quant::Packed::<I4, _>::pack(&codes).unwrap(), q.codes());
        let bytes = q.codes().as_bytes().to_vec();
        prop_assert_eq!(&ndarray_quant::Packed::<I4, _>::from_bytes(codes.raw_dim(), bytes).unwrap(), q.codes());
        let q = Scheme::<U2>::asymmetric().quantize(&x).unwrap();
        prop_assert_eq!(q.codes().as_bytes().len(), x.len().div_ceil(4));
    }

    /// Half-precision tensors are computed in `f32`, `f64` tensors in `f64`.
    #[test]
    fn other_float_types(x in tensor(), scheme in scheme::<u8>()) {
        let halves = x.mapv(f16::from_f32);
        prop_assume!(halves.iter().all(|h| h.is_finite()));
        let q = scheme.quantize(&halves).unwrap();
        prop_assert_eq!(&q, &scheme.quantize(&halves.mapv(f32::from)).unwrap());
        if q.params().convention() == Convention::Torch && q.params().granularity() != Granularity::PerTensor {
            // Values are rounded once, from `f64`. Rounding to `f32` first would round twice.
            for (&half, &exact) in q.dequantize_as::<f16>().iter().zip(&q.dequantize_as::<f64>()) {
                let error = |bits| (f16::from_bits(bits).to_f64() - exact).abs();
                // The neighbour of zero is NaN, which `min` ignores.
                let neighbours = error(half.to_bits().wrapping_sub(1)).min(error(half.to_bits().wrapping_add(1)));
                prop_assert!(error(half.to_bits()) <= neighbours, "{exact} to {half}");
            }
        } else {
            prop_assert_eq!(q.dequantize_as::<f16>(), q.dequantize().mapv(f16::from_f32));
        }
        let brains = x.mapv(bf16::from_f32);
        prop_assert_eq!(scheme.quantize(&brains).unwrap(), scheme.quantize(&brains.mapv(f32::from)).unwrap());
        let double = scheme.quantize(&x.mapv(f64::from)).unwrap();
        let single = scheme.quantize(&x).unwrap();
        prop_assert_eq!(double.params(), single.params());
        for ((i, j, k), &x) in x.indexed_iter() {
            let (scale, _) = params_at(double.params(), [i, j, k]);
            prop_assert!((double.dequantize_as::<f64>()[[i, j, k]] - x as f64).abs() <= scale as f64 * 0.5001);
        }
    }

    #[test]
    fn half_casts_round_to_nearest_even(x in prop::collection::vec(any::<f32>(), 0..40)) {
        let x = Array1::from_vec(x);
        let ieee = HalfCast::<f16>::new(Overflow::Infinity).quantize(&x).unwrap();
        for (&x, &y) in x.iter().zip(&ieee) {
            prop_assert!(y.is_nan() == x.is_nan());
            prop_assert!(x.is_nan() || y == f16::from_f32(x));
        }
        let saturated = HalfCast::<f16>::new(Overflow::Saturate).quantize(&x).unwrap();
        for ((&x, &y), &ieee) in x.iter().zip(&saturated).zip(&ieee) {
            let expected = if ieee.is_infinite() { f16::MAX.copysign(f16::from_f32(x)) } else { ieee };
            prop_assert!(x.is_nan() || y == expected);
        }
        let checked = HalfCast::<f16>::new(Overflow::Error).quantize(&x);
        let overflows = x.iter().zip(&ieee).any(|(x, y)| x.is_finite() && y.is_infinite());
        prop_assert_eq!(checked.is_err(), overflows);
        let back: Array1<f32> = HalfCast::<bf16>::new(Overflow::Infinity).quantize(&x).unwrap().dequantize().unwrap();
        for (&x, &y) in x.iter().zip(&back) {
            prop_assert!(x.is_nan() && y.is_nan() || y == bf16::from_f32(x).to_f32());
        }
    }
}

/// Computes the two fixed-point roundings in wide integers, by their definitions.
fn reference_fixed_point(x: i32, q31: i32, shift: i32, rounding: FixedPointRounding) -> i128 {
    let half_away = |value: i128, by: u32| {
        let half = if by == 0 { 0 } else { 1i128 << (by - 1) };
        let magnitude = (value.abs() + half) >> by;
        if value < 0 { -magnitude } else { magnitude }
    };
    let saturate = |value: i128| value.clamp(i32::MIN as i128, i32::MAX as i128);
    match rounding {
        FixedPointRounding::Double => {
            let shifted = saturate((x as i128) << shift.max(0));
            // Negative ties: gemmlowp's high multiplication rounds up, its division rounds away from zero.
            let product = shifted * q31 as i128;
            let nudge = if product >= 0 { 1i128 << 30 } else { 1 - (1i128 << 30) };
            let high = saturate((product + nudge) / (1i128 << 31));
            half_away(high, (-shift).max(0) as u32)
        }
        FixedPointRounding::Single => {
            let by = (31 - shift) as u32;
            saturate((x as i128 * q31 as i128 + (1i128 << (by - 1))) >> by)
        }
    }
}

/// Tests a million random triples, and every value near a bound with every shift.
#[test]
fn fixed_point_equals_wide_integers() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(31);
    let check = |x: i32, q31: i32, shift: i32| {
        let factor = FixedPoint::from_parts(q31, shift).unwrap();
        for rounding in [FixedPointRounding::Double, FixedPointRounding::Single] {
            let expected = reference_fixed_point(x, q31, shift, rounding);
            assert_eq!(factor.multiply(x, rounding) as i128, expected, "{x} * {q31} * 2^({shift} - 31), {rounding:?}");
        }
    };
    for _ in 0..1_000_000 {
        let x: i32 = rng.random::<i32>() >> rng.random_range(0..31);
        check(x, rng.random_range(1 << 30..=i32::MAX), rng.random_range(-31..=30));
    }
    for x in [i32::MIN, i32::MIN + 1, -3, -2, -1, 0, 1, 2, 3, i32::MAX - 1, i32::MAX] {
        for q31 in [0, 1 << 30, (1 << 30) + 1, i32::MAX - 1, i32::MAX] {
            (-31..=30).for_each(|shift| check(x, q31, shift));
        }
    }
}

/// All arithmetics agree to one code, and exactly where no tie is near.
#[test]
fn requantizations_agree_within_a_code() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
    for _ in 0..1_000_000 {
        let (x, w, y) =
            (rng.random_range(1e-4f32..1.0), rng.random_range(1e-4f32..1.0), rng.random_range(1e-2f32..1.0));
        let acc = rng.random_range(-2_000_000i32..2_000_000);
        let exact = acc as f64 * (x as f64 * w as f64 / y as f64);
        let near_tie = ((exact.abs() - exact.abs().floor()) - 0.5).abs() < 1e-4 * exact.abs().max(1.0);
        let expected = exact.round().clamp(-32768.0, 32767.0) as i16;
        for arithmetic in [
            Arithmetic::F32,
            Arithmetic::F64,
            Arithmetic::FixedPoint(FixedPointRounding::Single),
            Arithmetic::FixedPoint(FixedPointRounding::Double),
        ] {
            let code = Multiplier::new(x, w, y, arithmetic).unwrap().requantize::<i16>(acc, 0);
            let off = (code as i32 - expected as i32).abs();
            // Two roundings differ by one if the first one turns a fraction below one half into a tie.
            let twice = arithmetic == Arithmetic::FixedPoint(FixedPointRounding::Double);
            assert!(off <= 1 && (off == 0 || near_tie || twice), "{acc} * {exact}: {code}, not {expected}");
        }
    }
}

/// Tests tensors without elements, without axes, and of one element.
#[test]
fn degenerate_shapes() {
    let scheme = Scheme::<u8>::asymmetric();
    let empty = Array2::<f32>::zeros((0, 3));
    assert_eq!(scheme.quantize(&empty).unwrap().dequantize(), empty);
    assert_eq!(scheme.per_axis(Axis(1)).quantize(&empty).unwrap().dequantize(), empty);
    assert_eq!(scheme.per_axis(Axis(0)).quantize(&empty).unwrap().params().scale().shape(), [0]);
    let scalar = ndarray::arr0(2.0f32);
    let q = scheme.quantize(&scalar).unwrap();
    assert_eq!((q.codes()[()], q.dequantize()[()]), (255, 2.0));
    let dynamic = ArrayD::<f32>::zeros(IxDyn(&[2, 0, 4, 1, 5]));
    assert_eq!(scheme.per_group(Axis(2), 3).quantize(&dynamic).unwrap().dequantize(), dynamic);
}

/// The widest and the narrowest ranges of f32 give usable parameters.
#[test]
fn extreme_ranges() {
    fn check<D: Dimension>(x: Array<f32, D>) {
        for convention in CONVENTIONS {
            for scheme in [Scheme::<i8>::symmetric(), Scheme::asymmetric()] {
                let q = scheme.with_convention(convention).quantize(&x).unwrap();
                assert!(q.dequantize().iter().all(|y| y.is_finite()), "{x:?}, {convention:?}");
            }
        }
    }
    check(ndarray::array![f32::MIN / 2.0, 0.0, f32::MAX / 2.0]);
    check(ndarray::array![1e-45f32, 0.0, -1e-45]);
    check(ndarray::array![0.0f32, -0.0]);
    check(ndarray::array![f32::MIN_POSITIVE, f32::MAX / 2.0]);
    // The outermost code may overflow f32 when dequantized; the others stay finite.
    let widest = Scheme::<u8>::asymmetric().quantize(&ndarray::array![f32::MIN, 0.0, f32::MAX]).unwrap();
    assert_eq!(widest.dequantize()[1], 0.0);
}
