//! Between floats and codes, element by element, and the same in training.

use std::hint::black_box;
use std::io::Write;

use half::f16;
use ndarray::{Array1, ArrayD};
use ndarray_quant::{
    Convention, QParams, Scheme,
    half::{HalfCast, Overflow},
    qat::{FakeQuantize, SteMask},
};

use crate::data::uniform;
use crate::program::Result;
use crate::timer::{Timer, Work};

/// Numbers of elements: the tensors lie in L1, L2, L3 and main memory.
pub(crate) const SIZES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];

/// Times all conversions of this many elements.
pub(crate) fn run(timer: &mut Timer<'_, impl Write>, len: usize) -> Result {
    timer.case("quantize_f32_i8", &[len], Work::Bytes(5 * len), || {
        let (x, mut out) = (floats(len), Array1::<i8>::zeros(len));
        let params = params(3)?;
        Ok(move || params.quantize_into(black_box(&x), &mut out))
    })?;
    timer.case("dequantize_i8_f32", &[len], Work::Bytes(5 * len), || {
        let (q, mut out) = (uniform(len, i8::MIN..=i8::MAX), Array1::<f32>::zeros(len));
        let params = params(3)?;
        Ok(move || params.dequantize_into(black_box(&q), &mut out))
    })?;
    timer.case("dynamic_quantize_f32_u8", &[len], Work::Bytes(5 * len), || {
        let (x, mut out) = (floats(len), Array1::<u8>::zeros(len));
        let scheme = Scheme::<u8>::asymmetric();
        Ok(move || scheme.params_of(black_box(&x))?.quantize_into(&x, &mut out))
    })?;
    timer.case("cast_f32_f16", &[len], Work::Bytes(6 * len), || {
        let (x, mut out) = (floats(len), Array1::<f16>::from_elem(len, f16::ZERO));
        let cast = HalfCast::<f16>::new(Overflow::Infinity);
        Ok(move || cast.quantize_into(black_box(&x), &mut out))
    })?;
    timer.case("fake_quant_fwd", &[len], Work::Bytes(8 * len), || {
        let (x, mut out) = (some_clipped(len), Array1::<f32>::zeros(len));
        let params = trained()?;
        Ok(move || params.fake_quantize_into(black_box(&x), &mut out))
    })?;
    // Forward: 4 bytes in, 4 out. Backward: the same. The mask is neither.
    timer.case("fake_quant_fwd_bwd", &[len], Work::Bytes(16 * len), || {
        let (x, mut out, mut input) = (some_clipped(len), Array1::<f32>::zeros(len), Array1::<f32>::zeros(len));
        let (fake, mut mask) = (FakeQuantize::new(trained()?), SteMask::default());
        Ok(move || {
            fake.forward_into(black_box(&x), &mut out, &mut mask)?;
            // The gradient of the output is the input itself: what it holds does not matter.
            fake.backward_into(&mask, black_box(&x), &mut input)
        })
    })?;
    // Backward reads the input as well.
    timer.case("fake_quant_learnable_fwd_bwd", &[len], Work::Bytes(20 * len), || {
        let (x, mut out, mut input) = (some_clipped(len), Array1::<f32>::zeros(len), Array1::<f32>::zeros(len));
        let (mut scale, mut zero_point) = (ArrayD::zeros(&[][..]), ArrayD::zeros(&[][..]));
        let fake = FakeQuantize::new(trained()?);
        Ok(move || {
            fake.params().fake_quantize_into(black_box(&x), &mut out)?;
            fake.gradients_into(&x, black_box(&x), &mut input, &mut scale, &mut zero_point)
        })
    })
}

/// As PyTorch is asked to: its formula, no zero point, codes up to ±2.56.
fn trained() -> ndarray_quant::Result<QParams<i8>> {
    Ok(params(0)?.with_convention(Convention::Torch))
}

fn some_clipped(len: usize) -> Array1<f32> {
    uniform(len, -2.7..2.7)
}

fn floats(len: usize) -> Array1<f32> {
    uniform(len, -2.0..2.0)
}

fn params(zero_point: i8) -> ndarray_quant::Result<QParams<i8>> {
    QParams::per_tensor(0.02, zero_point)
}
