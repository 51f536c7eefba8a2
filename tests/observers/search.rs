//! The searches for the best range: the errors and divergences that they minimize.

use super::*;

#[test]
fn the_integrated_error_is_the_measured_one() {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let x = Array1::from_shape_fn(20_000, |_| gaussian(&mut rng));
    let mut range = Mse::per_tensor();
    range.observe(&x).unwrap();
    for (min, max) in [(-1.0, 1.5), (-3.0, 3.0), (-6.0, 6.0)] {
        let scheme = Scheme::<I4>::asymmetric();
        let y = scheme.params_from_range(min, max).unwrap().fake_quantize(&x).unwrap();
        let measured = (&x - &y).mapv(|e| (e * e) as f64).mean().unwrap();
        let integrated = range.blocks()[0].mean_squared_error(&scheme, min, max);
        assert!((measured / integrated - 1.0).abs() < 0.02, "{measured} {integrated}");
    }
}

#[test]
fn entropy_clips_the_outliers_of_a_gaussian() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    let mut x = Array1::from_shape_fn(100_000, |_| gaussian(&mut rng));
    x[10] = 60.0;
    x[20] = -45.0;
    let mut range = Entropy::per_tensor();
    range.observe(&x).unwrap();
    for (min, max) in [bounds(&range, Scheme::<i8>::symmetric()), bounds(&range, Scheme::<u8>::asymmetric())] {
        assert!((-12.0..=-2.5).contains(&min) && (2.5..=12.0).contains(&max), "{min} {max}");
    }
    // The scheme has more codes than the histogram has bins, so nothing is clipped.
    assert_eq!(bounds(&range, Scheme::<i16>::symmetric()), (-45.0, 60.0));
}

/// The divergence by its definition, bin by bin.
#[test]
fn entropy_is_the_least_divergence() {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for outlier in [3.0f32, 9.0, 30.0] {
        let mut x = Array1::from_shape_fn(5_000, |_| gaussian(&mut rng).abs());
        x[0] = outlier;
        let mut range = Entropy::per_tensor();
        range.observe(&x).unwrap();
        let histogram = &range.blocks()[0];
        let counts: Vec<f64> = histogram.counts().iter().map(|&c| c as f64).collect();
        let divergence = |to: usize| {
            let mut p = counts[..to].to_vec();
            p[to - 1] += counts[to..].iter().sum::<f64>();
            let mut q = vec![0.0; to];
            for level in 0..16 {
                let bins = level * to / 16..(level + 1) * to / 16;
                let sum: f64 = counts[bins.clone()].iter().sum();
                let occupied: Vec<usize> = bins.filter(|&b| p[b] > 0.0).collect();
                let count = if sum > 0.0 { sum } else { 1e-4 } / occupied.len() as f64;
                occupied.iter().for_each(|&b| q[b] = count);
            }
            let (p_sum, q_sum): (f64, f64) = (p.iter().sum(), q.iter().sum());
            let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
            terms.map(|(p, q)| p / p_sum * ((p / p_sum) / (q / q_sum)).ln()).sum::<f64>()
        };
        let least = (16..=counts.len()).map(divergence).fold(f64::INFINITY, f64::min);
        let (_, max) = range.statistic().clip(histogram, &Scheme::<U4>::asymmetric());
        let found = divergence((max as f64 / histogram.bin_width()).ceil() as usize);
        assert!((found - least).abs() < 1e-9, "{found} {least}");
    }
}
