//! Values and gradients equal `ndarray_quant`'s, for all float types and for strided tensors.

use candle_core::{DType, Device, Result, Tensor, Var};
use ndarray::{ArrayD, Axis, IxDyn};
use ndarray_quant::{
    Scheme,
    qat::{FakeQuantize, LearnedQuantizer},
};
use ndarray_quant_candle::{Learned, fake_quantize};

fn data() -> Result<(Var, Tensor, ArrayD<f32>, ArrayD<f32>)> {
    let x = ArrayD::from_shape_fn(IxDyn(&[5, 7]), |i| ((i[0] * 7 + i[1]) as f32 * 0.7).sin() * 2.0);
    let grad = x.mapv(|x| (3.0 * x).cos());
    let tensor = |x: &ArrayD<f32>| Tensor::from_vec(x.iter().copied().collect(), (5, 7), &Device::Cpu);
    Ok((Var::from_tensor(&tensor(&x)?)?, tensor(&grad)?, x, grad))
}

fn flat(t: &Tensor) -> Result<Vec<f32>> {
    t.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}

#[test]
fn straight_through() -> Result<()> {
    let (x, grad, x_array, grad_array) = data()?;
    let params =
        Scheme::<i8>::symmetric().with_bits(3).unwrap().per_axis(Axis(0)).params_of(&(&x_array * 0.6)).unwrap();
    let fake = FakeQuantize::new(params);
    let (y_array, mask) = fake.forward(&x_array).unwrap();
    assert!(mask.clipped() > 0);
    let y = fake_quantize(&x, &fake)?;
    assert_eq!(flat(&y)?, y_array.iter().copied().collect::<Vec<_>>());
    let found = (y * &grad)?.sum_all()?.backward()?;
    let expected = fake.backward(&mask, &grad_array).unwrap();
    assert_eq!(flat(found.get(&x).unwrap())?, expected.into_iter().collect::<Vec<_>>());

    // A transposed tensor, scales along its other axis.
    let across =
        Scheme::<i8>::symmetric().with_bits(3).unwrap().per_axis(Axis(1)).params_of(&(&x_array.t().to_owned() * 0.6));
    let y = fake_quantize(&x.t()?, &FakeQuantize::new(across.unwrap()))?.t()?;
    assert_eq!(flat(&y)?, y_array.iter().copied().collect::<Vec<_>>());
    assert_eq!(fake_quantize(&x.to_dtype(DType::BF16)?, &fake)?.dtype(), DType::BF16);
    assert!(fake_quantize(&x.to_dtype(DType::U8)?, &fake).is_err());
    assert!(fake_quantize(&x.narrow(0, 0, 3)?, &fake).is_err());
    Ok(())
}

#[test]
fn learned_scales() -> Result<()> {
    let (x, grad, x_array, grad_array) = data()?;
    let scheme = Scheme::<i8>::symmetric().with_bits(2).unwrap().per_axis(Axis(1));
    let expected = LearnedQuantizer::lsq(scheme, &x_array).unwrap();
    let learned = Learned::lsq(scheme, &x)?;
    let y = learned.forward(&x)?;
    assert_eq!(flat(&y)?, expected.as_fake_quantize().forward(&x_array).unwrap().0.into_iter().collect::<Vec<_>>());
    let found = (y * &grad)?.sum_all()?.backward()?;
    let expected = expected.gradients(&x_array, &grad_array).unwrap();
    assert_eq!(flat(found.get(&x).unwrap())?, expected.input.into_iter().collect::<Vec<_>>());
    assert_eq!(flat(found.get(learned.scale()).unwrap())?, expected.scale.into_iter().collect::<Vec<_>>());

    // Scales stay usable for any proposal of an optimizer.
    for bad in [-1f32, f32::NAN, f32::INFINITY] {
        learned.scale().set(&Tensor::full(bad, learned.scale().shape(), &Device::Cpu)?)?;
        assert!(learned.params().is_err());
        learned.project()?;
        assert!(learned.params()?.scale().iter().all(|s| *s > 0.0 && s.is_finite()));
    }
    Ok(())
}
