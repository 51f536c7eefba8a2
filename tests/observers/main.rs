//! Observers against slow and plain references.

mod search;

use ndarray::{Array, Array1, Array2, ArrayD, ArrayView2, Axis, Ix2, array, s};
use ndarray_quant::error::{ParamsError, ShapeError, ValueError};
use ndarray_quant::observer::*;
use ndarray_quant::*;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const ROWS: usize = 3;

/// Values of all magnitudes, with zeros and repetitions.
fn value() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![
        4 => -4.0f32..4.0,
        1 => prop_oneof![Just(0.0f32), Just(-0.0), Just(1.0), Just(-1.0)],
        1 => -1e4f32..1e4,
        1 => prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(1e-45f32), Just(-1e-40), Just(f32::MIN_POSITIVE)],
    ]
}

fn tame() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![4 => -4.0f32..4.0, 1 => Just(0.0f32), 1 => -30.0f32..30.0]
}

/// Batches of one to nine columns and `ROWS` rows.
fn batches(value: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = Vec<Array2<f32>>> {
    let batch = (1usize..9).prop_flat_map(move |columns| {
        prop::collection::vec(value.clone(), ROWS * columns)
            .prop_map(move |v| Array2::from_shape_vec((ROWS, columns), v).unwrap())
    });
    prop::collection::vec(batch, 1..7)
}

fn after<O: Observer>(mut observer: O, batches: &[Array2<f32>]) -> O {
    batches.iter().for_each(|b| observer.observe(b).unwrap());
    observer
}

fn merged<O: Observer>(mut a: O, b: &O) -> O {
    a.merge(b).unwrap();
    a
}

fn gaussian(rng: &mut Pcg64Mcg) -> f32 {
    (0..12).map(|_| rng.random_range(0.0f32..1.0)).sum::<f32>() - 6.0
}

/// Runs the body for every observer that merges exactly.
macro_rules! for_each_exact {
    ($granularity:expr, |$observer:ident| $body:expr) => {{
        {
            let $observer = || MinMax::per_tensor().with_granularity($granularity);
            $body
        }
        {
            let $observer = || Percentile::per_tensor().with_percentile(90.0).unwrap().with_granularity($granularity);
            $body
        }
        {
            let $observer = || Entropy::per_tensor().with_granularity($granularity);
            $body
        }
        {
            let $observer = || Mse::per_tensor().with_granularity($granularity);
            $body
        }
    }};
}

/// Runs the body for every observer.
macro_rules! for_each_observer {
    ($granularity:expr, |$observer:ident| $body:expr) => {{
        for_each_exact!($granularity, |$observer| $body);
        {
            let $observer =
                || MovingAverage::per_tensor().with_averaging_constant(0.25).unwrap().with_granularity($granularity);
            $body
        }
        {
            let $observer = || HistogramObserver::per_tensor().with_granularity($granularity);
            $body
        }
    }};
}

// After the macros, which it uses.
#[cfg(feature = "serde")]
mod serialized;

fn granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![Just(Granularity::PerTensor), Just(Granularity::per_axis(Axis(0)))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The result does not depend on the order of the batches, their sizes, or the order of merging.
    #[test]
    fn exact_observers_merge_exactly(batches in batches(value()), cut in 0usize..8, g in granularity()) {
        let (left, right) = batches.split_at(cut.min(batches.len()));
        let views: Vec<_> = batches.iter().map(|b| b.view()).collect();
        let whole = ndarray::concatenate(Axis(1), &views).unwrap();
        for_each_exact!(g, |observer| {
            let once = after(observer(), std::slice::from_ref(&whole));
            prop_assert_eq!(&once, &after(observer(), &batches));
            let (a, b) = (after(observer(), left), after(observer(), right));
            prop_assert_eq!(&once, &merged(a.clone(), &b));
            prop_assert_eq!(&once, &merged(b, &a));
            let singly = batches.iter().map(|b| after(observer(), std::slice::from_ref(b)));
            prop_assert_eq!(&once, &singly.rev().reduce(|a, b| merged(b, &a)).unwrap());
        });
    }

    #[test]
    fn moving_averages_merge_up_to_rounding(batches in batches(tame()), cut in 0usize..8, c in 0.01f32..=1.0) {
        let (left, right) = batches.split_at(cut.min(batches.len()));
        let observer = || MovingAverage::per_axis(Axis(0)).with_averaging_constant(c).unwrap();
        let (once, parts) = (after(observer(), &batches), merged(after(observer(), left), &after(observer(), right)));
        for (row, (a, b)) in once.blocks().iter().zip(parts.blocks()).enumerate() {
            let bounds = |r: usize, b: &Array2<f32>| b.row(r).iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
            let mut plain: Option<(f64, f64)> = None;
            for batch in &batches {
                let (low, high) = bounds(row, batch);
                let (low, high, c) = (low as f64, high as f64, c as f64);
                plain = Some(plain.map_or((low, high), |(l, h)| (l + c * (low - l), h + c * (high - h))));
            }
            let (low, high) = plain.unwrap();
            for found in [a.bounds(), b.bounds()] {
                prop_assert!((found.min() as f64 - low).abs() < 1e-4 && (found.max() as f64 - high).abs() < 1e-4);
            }
        }
    }

    /// A move displaces a value by at most one bin, so cumulative counts interleave.
    #[test]
    fn torch_histograms_merge_within_a_bin(batches in batches(tame()), cut in 1usize..7) {
        let whole = |part: &[Array2<f32>]| {
            let views: Vec<_> = part.iter().map(|b| b.view()).collect();
            after(HistogramObserver::per_tensor(), &[ndarray::concatenate(Axis(1), &views).unwrap()])
        };
        let exact = whole(&batches);
        // One move each, against one per batch.
        let mut found = vec![(after(HistogramObserver::per_tensor(), &batches), batches.len())];
        if cut < batches.len() {
            found.push((merged(whole(&batches[..cut]), &whole(&batches[cut..])), 1));
        }
        let running = |range: &HistogramObserver| {
            let counts = range.blocks()[0].counts().iter();
            counts.scan(0.0, |sum, c| { *sum += c; Some(*sum) }).collect::<Vec<f64>>()
        };
        let exact_counts = running(&exact);
        for (found, moved) in found {
            prop_assert_eq!(exact.blocks()[0].bounds(), found.blocks()[0].bounds());
            let found = running(&found);
            prop_assert!((found[2047] - exact_counts[2047]).abs() < 1e-6);
            for bin in 0..2048 {
                let low = if bin < moved { 0.0 } else { exact_counts[bin - moved] };
                let high = exact_counts[(bin + moved).min(2047)];
                prop_assert!(low - 1e-6 <= found[bin] && found[bin] <= high + 1e-6);
            }
        }
    }

    #[test]
    fn strides_never_matter(v in prop::collection::vec(value(), 24), g in 0usize..4) {
        let x = Array::from_shape_vec((2, 3, 4), v).unwrap();
        let g = [Granularity::PerTensor, Granularity::per_axis(Axis(1)), Granularity::per_axis(Axis(2)),
            Granularity::per_group(Axis(2), 3)][g];
        let transposed = x.view().reversed_axes().as_standard_layout().into_owned();
        let mut flipped = x.slice(s![.., ..;-1, ..;-1]).as_standard_layout().into_owned();
        flipped.slice_collapse(s![.., ..;-1, ..;-1]);
        for_each_observer!(g, |observer| {
            let (mut a, mut b, mut c, mut d) = (observer(), observer(), observer(), observer());
            a.observe(&x).unwrap();
            b.observe(&transposed.view().reversed_axes()).unwrap();
            c.observe(&flipped).unwrap();
            d.observe(&x.view().into_dyn()).unwrap();
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(&a, &c);
            prop_assert_eq!(&a, &d);
        });
    }

    #[test]
    fn per_axis_is_per_tensor_on_each_slice(batches in batches(value())) {
        for_each_observer!(Granularity::PerTensor, |observer| {
            let rows = after(observer().with_granularity(Granularity::per_axis(Axis(0))), &batches);
            for row in 0..ROWS {
                let slices: Vec<_> = batches.iter().map(|b| b.slice(s![row..=row, ..]).to_owned()).collect();
                let slice = after(observer(), &slices);
                prop_assert_eq!(&rows.blocks()[row], &slice.blocks()[0]);
            }
        });
        let groups = after(MinMax::per_group(Axis(0), 2), &[batches[0].slice(s![.., ..1]).to_owned()]);
        let x = batches[0].column(0);
        prop_assert_eq!(groups.blocks()[0].max(), x[0].max(x[1]));
        prop_assert_eq!(groups.blocks()[1].max(), x[2]);
    }

    #[test]
    fn percentiles_are_quantiles_of_sorted_data(v in prop::collection::vec(value(), 1..300), percent in 50.5f64..=100.0) {
        let mut range = Percentile::per_tensor().with_percentile(percent).unwrap();
        range.observe(&Array1::from(v.clone())).unwrap();
        let width = range.blocks()[0].bin_width();
        let at = |sorted: &mut Vec<f32>, part: f64| {
            sorted.sort_by(f32::total_cmp);
            sorted[((part * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1] as f64
        };
        let near = |a: f32, b: f64| (a as f64 - b).abs() <= width;
        let (min, max) = bounds(&range, Scheme::<u8>::asymmetric());
        let cut = (100.0 - percent) / 200.0;
        prop_assert!(near(min, at(&mut v.clone(), cut)) && near(max, at(&mut v.clone(), 1.0 - cut)));
        let (min, max) = bounds(&range, Scheme::<u8>::symmetric());
        prop_assert!(near(max.max(-min), at(&mut v.iter().map(|x| x.abs()).collect(), percent / 100.0)));
    }

    /// Ranges stay within the bounds of the data; a percentile of 100 gives exactly those bounds.
    #[test]
    fn ranges_stay_within_the_data(batches in batches(value())) {
        let full = bounds(&after(MinMax::per_tensor(), &batches), Scheme::<u8>::asymmetric());
        let all = after(Percentile::per_tensor().with_percentile(100.0).unwrap(), &batches);
        prop_assert_eq!(bounds(&all, Scheme::<u8>::asymmetric()), full);
        let (low, high) = bounds(&all, Scheme::<u8>::symmetric());
        prop_assert_eq!(high.max(-low), full.1.max(-full.0));
        for_each_exact!(Granularity::PerTensor, |observer| {
            let range = after(observer(), &batches);
            for (min, max) in [bounds(&range, Scheme::<u8>::asymmetric()), bounds(&range, Scheme::<I4>::symmetric())] {
                prop_assert!(min <= max && min >= full.0.min(0.0) && max <= full.1.max(0.0), "{min} {max} {full:?}");
            }
            Scheme::<i8>::symmetric().params(&range).unwrap();
            Scheme::<i32>::asymmetric().params(&range).unwrap();
        });
    }

    /// The error never exceeds the error of the full range or of other ranges by more than 5 %.
    #[test]
    fn mse_is_least(v in prop::collection::vec(tame(), 1..200), outlier in prop_oneof![Just(0.0f32), -200.0f32..200.0]) {
        let mut x = Array1::from(v);
        x[0] = outlier;
        let mut range = Mse::per_tensor();
        range.observe(&x).unwrap();
        let histogram = &range.blocks()[0];
        let (min, max) = (histogram.bounds().min(), histogram.bounds().max());
        fn check<T: Element>(range: &Mse, scheme: Scheme<T>, min: f32, max: f32) -> std::result::Result<(), TestCaseError> {
            let h = &range.blocks()[0];
            let (low, high) = range.statistic().clip(h, &scheme);
            let error = h.mean_squared_error(&scheme, low, high);
            prop_assert!(error <= h.mean_squared_error(&scheme, min, max));
            for part in 1..=64 {
                let part = part as f32 / 64.0;
                let other = h.mean_squared_error(&scheme, (min * part).min(0.0), (max * part).max(0.0));
                prop_assert!(error <= other * 1.05 + 1e-12, "{error} {other} {part}");
            }
            Ok(())
        }
        check(&range, Scheme::<u8>::asymmetric(), min, max)?;
        check(&range, Scheme::<i8>::symmetric(), min, max)?;
        check(&range, Scheme::<I4>::asymmetric(), min, max)?;
        check(&range, Scheme::<I2>::symmetric().narrow_range(), min, max)?;
    }
}

fn bounds<T: Element>(range: &impl Observer, scheme: Scheme<T>) -> (f32, f32) {
    let ranges = range.ranges(&scheme).unwrap();
    (*ranges.min().first().unwrap(), *ranges.max().first().unwrap())
}

#[test]
fn memory_is_bounded_and_extremes_work() {
    let mut range = Mse::per_tensor();
    for x in [0.0f32, 1e-45, -1e-45, f32::MIN_POSITIVE, 1.0, -7.0, 1e30, f32::MAX, f32::MIN] {
        range.observe(&array![x]).unwrap();
        let histogram = &range.blocks()[0];
        assert!(histogram.counts().len() <= 2048);
        Scheme::<u8>::asymmetric().params(&range).unwrap();
    }
    assert_eq!(range.blocks()[0].counts().iter().sum::<u64>(), 9);
    for constant in [0.0f32, 5.0, -5.0, 1e-45, f32::MAX, f32::MIN] {
        for_each_observer!(Granularity::PerTensor, |observer| {
            let range = after(observer(), &[Array2::from_elem((3, 4), constant)]);
            assert_eq!(bounds(&range, Scheme::<u8>::asymmetric()), (constant, constant));
            let (min, max) = bounds(&range, Scheme::<i8>::symmetric());
            // A little less may be a code exactly.
            let magnitude = max.max(-min);
            assert!(magnitude <= constant.abs() && magnitude >= constant.abs() * 0.99, "{magnitude}");
        });
    }
}

#[test]
fn non_finite_values_are_errors_and_change_nothing() {
    let good = array![[1.0f32, 2.0, -3.0], [0.5, 0.0, 4.0]];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = &good * 100.0;
        x[[1, 2]] = bad;
        for_each_observer!(Granularity::per_axis(Axis(1)), |observer| {
            let mut range = observer();
            range.observe(&good).unwrap();
            let before = range.clone();
            let error = range.observe(&x).unwrap_err();
            assert!(matches!(&error, Error::Value(ValueError::NonFinite { index, .. }) if *index == [1, 2]), "{error}");
            assert_eq!(range, before);
        });
    }
    let beyond_f32 = array![0.0f64, 1e300];
    let error = MinMax::per_tensor().observe(&beyond_f32).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::NonFinite { what: "x", found: 1e300, index: vec![1] }));
}

#[test]
fn an_empty_calibration_is_an_error() {
    for_each_observer!(Granularity::PerTensor, |observer| {
        let mut range = observer();
        assert_eq!(range.ranges(&Scheme::<u8>::asymmetric()), Err(Error::Value(ValueError::EmptyCalibration)));
        range.observe(&Array2::<f32>::zeros((0, 4))).unwrap();
        assert_eq!(Scheme::<u8>::asymmetric().params(&range), Err(Error::Value(ValueError::EmptyCalibration)));
        let full = after(observer(), &[array![[1.0, 2.0]]]);
        assert_eq!(merged(range.clone(), &full), full);
        assert_eq!(merged(full.clone(), &range), full);
    });
}

#[test]
fn blocks_and_settings_must_agree() {
    let mut rows = MinMax::per_axis(Axis(0));
    rows.observe(&Array2::<f32>::ones((3, 4))).unwrap();
    let before = rows.clone();
    assert!(matches!(rows.observe(&Array2::<f32>::ones((4, 4))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    rows.clone().observe(&Array1::<f32>::ones(3)).expect("three rows of any rank");
    assert_eq!(rows.observe(&ndarray::arr0(1.0f32)), Err(Error::Shape(ShapeError::Axis { ndim: 0, found: 0 })));
    let expected = Granularity::per_axis(Axis(0));
    let found = Granularity::PerTensor;
    assert_eq!(
        rows.merge(&MinMax::per_tensor()),
        Err(Error::Params(ParamsError::Granularity { what: "the merged observer", expected, found }))
    );
    let four = after(MinMax::per_axis(Axis(0)), &[Array2::ones((4, 1))]);
    assert!(matches!(rows.merge(&four), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    assert_eq!(rows, before);
    let mut a = Percentile::per_tensor().with_percentile(99.0).unwrap();
    assert!(matches!(a.merge(&Percentile::per_tensor().with_percentile(98.0).unwrap()), Err(Error::Argument { .. })));

    let scheme = Scheme::<u8>::asymmetric();
    assert_eq!(
        scheme.params(&rows),
        Err(Error::Params(ParamsError::Granularity { what: "the observer", expected: found, found: expected }))
    );
    let of_rows = scheme.per_axis(Axis(0)).params(&rows).unwrap();
    assert!(matches!(of_rows.quantize(&Array2::<f32>::ones((4, 4))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    assert_eq!(
        MinMax::per_group(Axis(0), 0).observe(&array![1.0f32]),
        Err(Error::Params(ParamsError::GroupSize { found: 0 }))
    );
    for bad in [0.0, -0.5, 1.5, f32::NAN] {
        assert!(matches!(MovingAverage::per_tensor().with_averaging_constant(bad), Err(Error::Argument { .. })));
    }
    for bad in [50.0, 100.5, f64::NAN] {
        assert!(matches!(Percentile::per_tensor().with_percentile(bad), Err(Error::Argument { .. })));
    }
}

#[test]
fn parameters_serve_tensors_of_any_rank() {
    let x = array![[1.0f32, -2.0], [3.0, 0.5]];
    let mut range = MinMax::per_tensor();
    range.observe(&x).unwrap();
    range.observe(&array![0.0f32]).unwrap();
    let scheme = Scheme::<i8>::asymmetric();
    let q = scheme.params(&range).unwrap().quantize(&x).unwrap();
    assert_eq!(q, scheme.quantize(&x).unwrap());
    assert_eq!(scheme.params(&range).unwrap().scale().shape(), [0; 0]);
    let any: ArrayD<f32> = x.clone().into_dyn();
    let q = scheme.params(&range).unwrap().quantize(&any).unwrap();
    assert_eq!(q.dequantize().into_dimensionality::<Ix2>().unwrap(), scheme.quantize(&x).unwrap().dequantize());

    let mut rows = MinMax::per_axis(Axis(0));
    rows.observe(&x).unwrap();
    let scheme = scheme.per_axis(Axis(0));
    assert_eq!(scheme.params(&rows).unwrap().scale().shape(), [2]);
    assert_eq!(scheme.params(&rows).unwrap(), scheme.params_of(&x).unwrap());
}

/// Observers take views.
#[test]
fn observers_take_views() {
    let x = array![[1.0f32, 2.0], [3.0, 4.0]];
    let view: ArrayView2<'_, f32> = x.slice(s![.., ..1]);
    let mut range = MinMax::per_tensor();
    range.observe(&view).unwrap();
    assert_eq!(bounds(&range, Scheme::<u8>::asymmetric()), (1.0, 3.0));
}
