//! Learned scales and zero points, and the training schedule.

use super::*;
use ndarray_quant::error::{ShapeError, ValueError};

/// LSQ by the paper's formulas: initial scale, gradient and gradient scale.
#[test]
fn lsq() {
    let w = Array2::from_shape_fn((2, 50), |(i, j)| ((i * 50 + j) as f32 * 0.7).sin() * (1.0 + i as f32));
    let scheme = Scheme::<i8>::symmetric().with_bits(3).unwrap().per_axis(Axis(0)); // -4..=3
    let q = LearnedQuantizer::lsq(scheme, &w).unwrap();
    for (row, &scale) in w.rows().into_iter().zip(q.scale()) {
        let mean = row.iter().map(|x| x.abs()).sum::<f32>() / 50.0;
        assert!((scale - 2.0 * mean / 3f32.sqrt()).abs() < 1e-6);
    }
    assert!((q.gradient_scales(100)[0] - 1.0 / (50.0f32 * 3.0).sqrt()).abs() < 1e-8);
    let features = q.clone().with_gradient_scale(GradientScale::Activations(10));
    assert!((features.gradient_scales(100)[1] - 1.0 / 30f32.sqrt()).abs() < 1e-8);

    let gradients = q.gradients(&w, &Array2::ones(w.dim())).unwrap();
    for (i, row) in w.rows().into_iter().enumerate() {
        let by_scale: f32 = row
            .iter()
            .map(|x| x / q.params().scales()[i])
            .map(|v| match v {
                v if v <= -4.0 => -4.0,
                v if v >= 3.0 => 3.0,
                v => v.round_ties_even() - v,
            })
            .sum();
        assert!((gradients.scale[i] - by_scale / 150f32.sqrt()).abs() < 1e-5);
    }
    let zeros = LearnedQuantizer::lsq(Scheme::<i8>::symmetric(), &Array1::<f32>::zeros(3)).unwrap();
    assert_eq!(zeros.params().scales()[0], 1.0);
    let nan = LearnedQuantizer::lsq(Scheme::<i8>::symmetric(), &ndarray::array![1.0f32, f32::NAN]);
    assert!(matches!(nan, Err(Error::Value(ValueError::NonFinite { index, .. })) if index == [1]));
}

/// Ten thousand steps at ten times the paper's learning rate of 0.01, with finite and infinite gradients.
#[test]
fn scales_stay_positive_and_finite() {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    let mut w = Array1::from_shape_simple_fn(64, || rng.random_range(-1.0f32..1.0));
    let bits = |bits| Scheme::<i8>::symmetric().with_bits(bits).unwrap();
    let start = Scheme::<u8>::asymmetric().params_of(&w).unwrap();
    let (mut two, mut four) =
        (LearnedQuantizer::lsq(bits(2), &w).unwrap(), LearnedQuantizer::lsq(bits(4), &w).unwrap());
    let mut plus = LearnedQuantizer::lsq_plus(start).unwrap();
    let mut pact = Pact::<u8>::new(1.0, 2).unwrap();
    let usable = |scale: f32| assert!(scale > 0.0 && scale.is_finite(), "{scale}");
    for step in 0..10_000 {
        let noise = if step % 1000 == 999 { f32::INFINITY } else { 100.0 };
        let grad = w.mapv(|w| (w - 0.3) * rng.random_range(-1.0f32..1.0) * noise);
        for q in [&mut two, &mut four] {
            q.sgd_step(&q.gradients(&w, &grad).unwrap(), 0.1).unwrap();
            usable(q.params().scales()[0]);
        }
        plus.sgd_step(&plus.gradients(&w, &grad).unwrap(), 0.1).unwrap();
        usable(plus.params().scales()[0]);
        assert!((0.0..=255.0).contains(&plus.zero_point().unwrap().first().copied().unwrap()));
        let (_, by_alpha) = pact.gradients(&w, &grad).unwrap();
        pact.set_alpha(pact.alpha() - 0.1 * by_alpha).unwrap();
        usable(pact.params().scales()[0]);
        w.mapv_inplace(|w| (w + rng.random_range(-0.01f32..0.01)).clamp(-2.0, 2.0));
    }
}

/// LSQ+ learns an offset: zero points move to cover the data.
#[test]
fn lsq_plus() {
    let x = Array1::linspace(1.0f32, 3.0, 200);
    let params = QParams::<u8>::per_tensor(0.25, 0).unwrap().with_code_range(0, 15).unwrap();
    // The range starts centred on the middle code; all data is in the upper half.
    let mut q = LearnedQuantizer::lsq_plus(params).unwrap();
    q.set_zero_point(&ndarray::array![8.4]).unwrap();
    assert_eq!(q.params().zero_point().unwrap().first().copied().unwrap(), 8);
    let error = |q: &LearnedQuantizer<u8>| &q.as_fake_quantize().forward(&x).unwrap().0 - &x;
    let before = error(&q).mapv(|e| e * e).sum();
    for _ in 0..2000 {
        let gradients = q.gradients(&x, &error(&q)).unwrap();
        let (scale, zero) =
            (q.scale() - &(&gradients.scale * 0.02), q.zero_point().unwrap() - &(&gradients.zero_point * 20.0));
        q.set_scale(&scale).unwrap();
        q.set_zero_point(&zero).unwrap();
    }
    assert!(q.params().zero_point().map_or(0, |z| z.first().copied().unwrap()) < 8);
    assert!(error(&q).mapv(|e| e * e).sum() < 0.5 * before);
    let fixed = &mut LearnedQuantizer::lsq(Scheme::<u8>::asymmetric(), &x).unwrap();
    assert!(matches!(fixed.set_zero_point(&ndarray::array![1.0]), Err(Error::Argument { .. })));
}

#[test]
fn schedule() {
    let (scheme, range) = (Scheme::<u8>::asymmetric().per_axis(Axis(1)), MinMax::per_axis(Axis(1)));
    let mut q = ScheduledQuantizer::new(scheme, range).with_quant_delay(2).with_freeze_after(4);
    assert_eq!(q.evaluate(&ndarray::array![[0.3f32, 0.4]]).unwrap(), ndarray::array![[0.3, 0.4]]);
    for step in 0..6u8 {
        let x = ndarray::array![[0.3f32, -0.7], [1.0 + step as f32, 2.0]];
        assert_eq!((q.observer_enabled(), q.fake_quant_enabled()), (step < 4, step >= 2));
        let (y, mask) = q.forward(&x).unwrap();
        let range = 1.0 + step.min(3) as f32;
        let scale = q.params().unwrap().scales()[0];
        assert!((scale - range / 255.0).abs() < 1e-7, "step {step}: {scale}");
        assert_eq!(y == x, step < 2);
        assert_eq!(mask.clipped(), (step > 3) as usize);
        let grad = q.backward(&mask, &Array2::<f32>::ones(x.dim())).unwrap();
        assert_eq!(grad[[1, 0]], (step < 4) as u8 as f32);
    }
    assert!(!q.observer_enabled() && q.fake_quant_enabled());
    let before = q.clone();
    assert!(matches!(q.forward(&Array2::<f32>::zeros((1, 3))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    assert_eq!((q.observer_enabled(), q.params()), (before.observer_enabled(), before.params()));
    // Freezing before the delay is over quantizes.
    let early = ScheduledQuantizer::new(Scheme::<u8>::asymmetric(), MinMax::per_tensor());
    let mut early = early.with_quant_delay(9).with_freeze_after(3);
    for step in 0..4 {
        assert_eq!(early.fake_quant_enabled(), step == 3);
        early.forward(&ndarray::array![0.3f32, step as f32]).unwrap();
    }
}
