//! Observers that are saved and loaded, and invalid serialized data.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn observers_round_trip(batches in batches(value()), g in granularity()) {
        for_each_observer!(g, |observer| {
            let range = after(observer(), &batches);
            let mut back = range.clone();
            back = serde_json::from_str(&serde_json::to_string(&back).unwrap()).unwrap();
            prop_assert_eq!(&range, &back);
            prop_assert_eq!(merged(range.clone(), &range), merged(back.clone(), &range));
            let mut empty = observer();
            empty = serde_json::from_str(&serde_json::to_string(&empty).unwrap()).unwrap();
            prop_assert_eq!(observer(), empty);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Corrupted text is an error, or gives an observer that can be used.
    #[test]
    fn accepted_data_works(
        batch in batches(value()),
        at in prop::collection::vec((0usize..300, "[0-9e.,:{}\\[\\]\"-]"), 1..4),
        g in granularity(),
    ) {
        for_each_observer!(g, |observer| {
            let range = after(observer(), &batch);
            let mut json = serde_json::to_string(&range).unwrap();
            for (at, with) in &at {
                let at = at % json.len();
                json.replace_range(at..at + 1, with);
            }
            let mut back = observer();
            if serde_json::from_str(&json).map(|parsed| back = parsed).is_ok() {
                let _ = back.observe(&batch[0]);
                let _ = back.merge(&range);
                let _ = back.ranges(&Scheme::<u8>::asymmetric()).map(|_| ());
                let _ = Scheme::<i8>::symmetric().params(&back);
            }
        });
    }
}

/// Each replacement breaks what a valid observer holds.
#[test]
fn invalid_data_is_an_error() {
    fn rejects<O>(observer: O, replacements: &[(&str, &str)])
    where
        O: Observer + ::serde::Serialize + ::serde::de::DeserializeOwned,
    {
        let observer = after(observer, &[array![[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]]]);
        let json = serde_json::to_string(&observer).unwrap();
        for (from, to) in replacements {
            let broken = json.replacen(from, to, 1);
            assert_ne!(broken, json, "{from}");
            assert!(serde_json::from_str::<O>(&broken).is_err(), "{broken:.200}");
        }
    }
    let of_bounds = [("[-2.0,1.0]", "[2.0,1.0]"), ("[-2.0,1.0]", "[null,1.0]"), ("[-2.0,1.0]", "[-2.0,1e39]")];
    let of_shape = [("[3]", "[4]"), ("[3]", "[3,2]"), ("[3]", "[3,1]"), ("[3]", "[]")];
    rejects(MinMax::per_axis(Axis(0)), &of_bounds);
    rejects(MinMax::per_axis(Axis(0)), &of_shape);
    rejects(MinMax::per_tensor(), &[("\"shape\":[]", "\"shape\":[1,1]")]);
    rejects(MovingAverage::per_axis(Axis(0)), &of_bounds);
    rejects(MovingAverage::per_axis(Axis(0)), &[("\"batches\":1", "\"batches\":0"), ("0.01", "0.0")]);
    rejects(Percentile::per_axis(Axis(0)).with_percentile(99.5).unwrap(), &of_bounds);
    rejects(
        Percentile::per_tensor().with_percentile(99.5).unwrap(),
        &[("99.5", "45.0"), ("99.5", "null"), ("\"counts\":[", "\"counts\":[0,")],
    );
    rejects(Mse::per_axis(Axis(0)), &[("\"counts\":[", "\"counts\":[0,"), ("\"counts\":[0", "\"counts\":[-1")]);
    rejects(HistogramObserver::per_axis(Axis(0)), &of_bounds);
    rejects(
        HistogramObserver::per_tensor(),
        &[("\"counts\":[", "\"counts\":[0.0,"), ("\"counts\":[1.0", "\"counts\":[-1.0")],
    );
    rejects(HistogramObserver::per_tensor(), &[("\"counts\":[1.0", "\"counts\":[null")]);
}

/// `Mse`, `Entropy` and `Percentile` keep the same histogram: the kind in the serialized form tells them apart.
#[test]
fn an_observer_is_read_as_its_own_kind_only() {
    fn expect<O: Observer + ::serde::de::DeserializeOwned>(observers: &[(&str, String)], expected: &str) {
        for (found, json) in observers {
            match serde_json::from_str::<O>(json) {
                Ok(_) => assert_eq!(*found, expected),
                Err(error) => {
                    let message = format!("kind of the serialized observer: expected {expected}, found {found}");
                    assert!(error.to_string().starts_with(&message), "{error}");
                }
            }
        }
    }
    let mut observers = Vec::new();
    for_each_observer!(Granularity::PerTensor, |observer| {
        let json = serde_json::to_string(&after(observer(), &[array![[1.0, -2.0]]])).unwrap();
        let kinds = ["HistogramObserver", "MovingAverage", "Percentile", "MinMax", "Entropy", "Mse"];
        let kind = kinds.into_iter().find(|kind| json.contains(&format!("\"{kind}\""))).unwrap();
        observers.push((kind, json));
    });
    expect::<MinMax>(&observers, "MinMax");
    expect::<MovingAverage>(&observers, "MovingAverage");
    expect::<Percentile>(&observers, "Percentile");
    expect::<Entropy>(&observers, "Entropy");
    expect::<Mse>(&observers, "Mse");
    expect::<HistogramObserver>(&observers, "HistogramObserver");
    // The kind is required.
    let json = serde_json::to_string(&MinMax::per_tensor()).unwrap();
    assert!(serde_json::from_str::<MinMax>(&json.replace("\"kind\":\"MinMax\",", "")).is_err());
}

/// Counts at their limit do not overflow.
#[test]
fn full_counts_saturate() {
    let mut range = Mse::per_tensor();
    range.observe(&array![0.0f32]).unwrap();
    let json = serde_json::to_string(&range).unwrap().replace("[1]", "[18446744073709551615]");
    let mut range: Mse = serde_json::from_str(&json).unwrap();
    range.observe(&array![0.0f32, 1.0]).unwrap();
    let copy = range.clone();
    range.merge(&copy).unwrap();
    for scheme in [Scheme::<u8>::asymmetric(), Scheme::<u8>::symmetric()] {
        scheme.params(&range).unwrap();
    }
}
