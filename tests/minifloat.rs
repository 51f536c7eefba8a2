//! Tensors of float codes against the definition, value by value.

use half::f16;
use ndarray::{Array, Array1, Array2, Axis, array};
use ndarray_quant::half::Overflow;
use ndarray_quant::minifloat::{
    F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, Minifloat, MinifloatParams, MinifloatTensor,
};
use ndarray_quant::observer::{MinMax, Percentile};
use ndarray_quant::{Dequantize, Error, Granularity, Quantize, Scheme, error::ValueError};
use proptest::prelude::*;

/// The index of the scale of an element.
fn block(granularity: Granularity, shape: (usize, usize), (i, j): (usize, usize)) -> usize {
    match granularity {
        Granularity::PerAxis { axis: 0 } => i,
        Granularity::PerAxis { .. } => j,
        Granularity::PerGroup { axis: 0, size } => i / size * shape.1 + j,
        Granularity::PerGroup { size, .. } => i * shape.1.div_ceil(size) + j / size,
        _ => 0,
    }
}

fn check<T: Minifloat>(x: &Array2<f32>, granularity: Granularity) {
    let params = MinifloatParams::<T>::of(x, granularity).expect("finite values");
    let scale = |at| params.scales()[block(granularity, x.dim(), at)];
    for overflow in [Overflow::Saturate, Overflow::Infinity, Overflow::Error] {
        let params = params.clone().with_overflow(overflow);
        // The values have this range, so nothing overflows.
        let q = params.quantize(x).expect("no overflow");
        for ((at, &x), &code) in x.indexed_iter().zip(q.codes()) {
            assert_eq!(code, T::from_f32_saturating(x / scale(at)), "{x} {}", scale(at));
        }
        for ((at, &y), &code) in q.dequantize().indexed_iter().zip(q.codes()) {
            assert_eq!(y, code.to_f32() * scale(at));
        }
        let wide = params.quantize(&x.mapv(f64::from)).expect("no overflow");
        for ((at, &y), &code) in wide.dequantize_as::<f64>().indexed_iter().zip(wide.codes()) {
            assert_eq!(y, f64::from(code.to_f32()) * f64::from(scale(at)));
        }
        // Other strides, and the transposed tensor in memory.
        let mut codes = Array::from_elem(x.t().raw_dim(), T::default());
        let (mut wide_rows, mut transposed) =
            (Array2::zeros((x.nrows(), 2 * x.ncols())), codes.view_mut().reversed_axes());
        wide_rows.slice_mut(ndarray::s![.., ..;2]).assign(x);
        params.quantize_into(&wide_rows.slice(ndarray::s![.., ..;2]), &mut transposed).expect("one shape");
        assert_eq!(codes.t(), q.codes());
    }
}

fn granularities() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        (0..2usize).prop_map(|axis| Granularity::PerAxis { axis }),
        (0..2usize, 1..20usize).prop_map(|(axis, size)| Granularity::PerGroup { axis, size }),
    ]
}

proptest! {
    #[test]
    fn every_value_is_rounded_by_itself(
        rows in 1..4usize,
        x in prop::collection::vec(-100f32..100.0, 40),
        exponent in -30i32..30,
        granularity in granularities(),
    ) {
        let x = Array2::from_shape_vec((rows, 40 / rows), x[..40 / rows * rows].to_vec()).expect("values of all rows");
        let x = x.mapv(|x| x * 2f32.powi(exponent));
        check::<F8E4M3FN>(&x, granularity);
        check::<F8E5M2>(&x, granularity);
        check::<F8E4M3FNUZ>(&x, granularity);
        check::<F8E5M2FNUZ>(&x, granularity);
        check::<F6E2M3FN>(&x, granularity);
        check::<F6E3M2FN>(&x, granularity);
        check::<F4E2M1FN>(&x, granularity);
    }

    /// The error of a normal code is at most half a unit of its last place.
    #[test]
    fn errors_are_relative(x in prop::collection::vec(-1f32..1.0, 1..300)) {
        let x = Array1::from_vec(x);
        let params = MinifloatParams::<F8E4M3FN>::of(&x, Granularity::PerTensor).expect("finite values");
        let smallest = params.scales()[0] * 2f32.powi(-9);
        for (x, y) in x.iter().zip(&params.quantize(&x).expect("no overflow").dequantize()) {
            prop_assert!((x - y).abs() <= (x.abs() / 16.0).max(smallest / 2.0) * 1.0001, "{x} {y}");
        }
    }
}

#[test]
fn overflow_is_an_error_with_its_place() {
    let cast = |overflow| MinifloatParams::<F8E4M3FN>::per_tensor(2.0).map(|params| params.with_overflow(overflow));
    // 464 * 2 is a tie, which rounds to 448 * 2.
    let x = array![[1.0f32, 928.0], [928.1, f32::NAN]];
    let error = cast(Overflow::Error).and_then(|params| params.quantize(&x)).expect_err("928.1 overflows");
    let (limit, found) = (896.0, f64::from(928.1f32));
    assert_eq!(error, Error::Value(ValueError::Overflow { limit, found, index: vec![1, 0] }));
    assert_eq!(error.to_string(), "x: expected magnitudes of at most 896, found 928.0999755859375 at index [1, 0]");
    let codes = |overflow| cast(overflow).and_then(|params| params.quantize(&x)).expect("no error").into_parts().0;
    assert_eq!(codes(Overflow::Saturate)[[1, 0]], F8E4M3FN::MAX);
    assert!(codes(Overflow::Infinity)[[1, 0]].is_nan() && codes(Overflow::Saturate)[[1, 1]].is_nan());
}

#[test]
fn values_without_a_code_are_errors() {
    fn error<T: Minifloat>(x: f32) -> Option<String> {
        let params = MinifloatParams::<T>::per_tensor(1.0).expect("a scale").with_overflow(Overflow::Error);
        params.quantize(&array![0.0, x]).err().map(|error| error.to_string())
    }
    assert_eq!(error::<F4E2M1FN>(f32::NAN).as_deref(), Some("x: expected finite values, found NaN at index [1]"));
    assert_eq!(error::<F8E4M3FNUZ>(f32::NAN), None);
    assert_eq!(error::<F8E5M2>(f32::INFINITY), None);
    assert!(error::<F8E5M2>(61440.0).is_some() && error::<F8E5M2>(61439.0).is_none());
    assert!(error::<F8E4M3FN>(f32::INFINITY).is_some_and(|text| text.contains("at most 448, found inf")));
    // 7 is a tie between 6 and 8, and rounds to 8, which the type does not have.
    assert!(error::<F4E2M1FN>(7.0).is_some() && error::<F4E2M1FN>(-7f32.next_down()).is_none());
    assert!(error::<F6E3M2FN>(30.0).is_some() && error::<F6E3M2FN>(29.9).is_none());
}

#[test]
fn observers_give_scales() {
    let x = Array1::from_iter((0..1000).map(|i| i as f32 - 700.0));
    let mut range = MinMax::per_tensor();
    range.observe(&x).expect("finite values");
    let scheme = Scheme::<i8>::symmetric();
    let params = MinifloatParams::<F8E5M2>::from_ranges(&range.ranges(&scheme).expect("values")).expect("scales");
    assert_eq!(params.scales(), [700.0 / 57344.0]);
    let mut range = Percentile::per_axis(Axis(0));
    range.observe(&x.clone().into_shape_with_order((2, 500)).expect("1000 values")).expect("finite values");
    let params = MinifloatParams::<F8E5M2>::from_ranges(&range.ranges(&scheme).expect("values")).expect("scales");
    assert_eq!(params.scale().shape(), [2]);
    let zeros = MinifloatParams::<F4E2M1FN>::of(&Array1::<f32>::zeros(3), Granularity::PerTensor).expect("finite");
    assert_eq!(zeros.scales(), [1.0]);
}

#[test]
fn shapes_must_fit() {
    assert!(MinifloatParams::<F8E5M2>::per_tensor(0.0).is_err());
    assert!(MinifloatParams::<F8E5M2>::per_tensor(f32::NAN).is_err());
    let rows = MinifloatParams::<F8E5M2>::per_axis(Axis(0), array![1.0, 2.0]).expect("scales");
    assert!(matches!(rows.quantize(&Array2::<f32>::zeros((3, 2))), Err(Error::Shape(_))));
    assert!(MinifloatTensor::new(Array2::from_elem((3, 2), F8E5M2::MAX), rows.clone()).is_err());
    let q = rows.quantize(&Array2::<f16>::zeros((2, 5))).expect("two rows");
    assert_eq!(q.shape(), [2, 5]);
    assert_eq!(Dequantize::<f32, _>::size_in_bytes(&q), 10 + 8);
    assert!(Dequantize::<f32, _>::dequantize_into(&q, &mut Array2::zeros((5, 2))).is_err());
    let by_trait = Quantize::<f16, _>::quantize(&rows, &Array2::<f16>::zeros((2, 5))).expect("two rows");
    assert_eq!(by_trait, q);
    assert_eq!(rows.quantize(&Array2::<f32>::zeros((2, 0))).expect("two rows").dequantize().len(), 0);
}

#[cfg(feature = "serde")]
#[test]
fn tensors_are_checked_when_they_are_read() {
    let q = MinifloatParams::<F6E2M3FN>::per_axis(Axis(1), array![0.5, 2.0])
        .and_then(|params| params.quantize(&array![[1.0f32, -3.0], [0.1, 100.0]]))
        .expect("two columns");
    let json = serde_json::to_string(&q).expect("serializes");
    assert_eq!(serde_json::from_str::<MinifloatTensor<F6E2M3FN, ndarray::Ix2>>(&json).expect("the same"), q);
    let damaged = json.replace("[0.5,2.0]", "[0.5,-2.0]");
    assert_ne!(json, damaged);
    assert!(serde_json::from_str::<MinifloatTensor<F6E2M3FN, ndarray::Ix2>>(&damaged).is_err());
}
