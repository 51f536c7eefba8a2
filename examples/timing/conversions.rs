//! Between floats and codes, element by element.

use std::hint::black_box;
use std::io::Write;

use half::f16;
use ndarray::{Array1, Ix1};
use ndarray_quant::{Convention, HalfCast, Overflow, QParams, Scheme};

use crate::data::uniform;
use crate::timer::{Result, Timer, Work};

/// Elements: from the first-level cache to main memory.
pub(crate) const SIZES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];

/// Times all conversions of this many elements.
pub(crate) fn run(timer: &mut Timer<'_, impl Write>, len: usize) -> Result<()> {
    timer.case("quantize_f32_i8", &[len], Work::Bytes(5 * len), || {
        let (x, mut out) = (reals(len), Array1::<i8>::zeros(len));
        let params = params(3)?;
        Ok(move || params.quantize_into(black_box(&x), &mut out))
    })?;
    timer.case("dequantize_i8_f32", &[len], Work::Bytes(5 * len), || {
        let (q, mut out) = (uniform(len, i8::MIN..=i8::MAX), Array1::<f32>::zeros(len));
        let params = params(3)?;
        Ok(move || params.dequantize_into(black_box(&q), &mut out))
    })?;
    timer.case("dynamic_quantize_f32_u8", &[len], Work::Bytes(5 * len), || {
        let (x, mut out) = (reals(len), Array1::<u8>::zeros(len));
        let scheme = Scheme::<u8>::asymmetric();
        Ok(move || scheme.params_of(black_box(&x))?.quantize_into(&x, &mut out))
    })?;
    timer.case("cast_f32_f16", &[len], Work::Bytes(6 * len), || {
        let (x, mut out) = (reals(len), Array1::<f16>::from_elem(len, f16::ZERO));
        let cast = HalfCast::<f16>::new(Overflow::Infinity);
        Ok(move || cast.quantize_into(black_box(&x), &mut out))
    })?;
    timer.case("fake_quant_fwd", &[len], Work::Bytes(8 * len), || {
        let (x, mut out) = (reals(len), Array1::<f32>::zeros(len));
        // Training is PyTorch's, so its formula.
        let params = params(0)?.with_convention(Convention::Torch);
        Ok(move || params.fake_quantize_into(black_box(&x), &mut out))
    })
}

fn reals(len: usize) -> Array1<f32> {
    uniform(len, -2.0..2.0)
}

fn params(zero_point: i8) -> ndarray_quant::Result<QParams<i8, Ix1>> {
    QParams::per_tensor(0.02, zero_point)
}
