//! Casts: floats ↔ half precision and float codes, codes ↔ floats, integers → narrower codes.

use ndarray::{ArrayD, IxDyn};
use ndarray_quant::{
    Dequantize, Element, Float, QParams, QTensor,
    element::Code,
    half::{HalfCast, HalfFloat, Overflow},
    minifloat::{E8M0, E8M0Rounding, Minifloat, MinifloatParams},
};

use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_element, with_float, with_minifloat};
use crate::runner::{Outcome, Stop};

const ATTRS: [&str; 9] =
    ["from", "to", "from_name", "to_name", "rounding", "saturate", "round_mode", "out_of_range", "block_size"];

/// ONNX: `Cast`; PyTorch: `Tensor.to`; numpy: `astype`. A second output holds the values cast back.
pub(crate) fn cast(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&ATTRS)?;
    let mut values = case.input(0)?.clone();
    let mut outputs = Vec::new();
    for (expected, _) in &case.outputs {
        values = cast_to(case, &values, expected.tensor.dtype())?;
        outputs.push(values.clone());
    }
    Ok(outputs)
}

fn cast_to(case: &Case, x: &Tensor, dtype: &str) -> Outcome<Tensor> {
    let from_float = x.floats().is_some();
    match dtype {
        "f8e8m0fnu" => to_e8m0(case, x),
        "f16" | "bf16" | "f32" | "f64" if x.minifloats().is_some() => {
            with_float!(dtype, G => from_minifloat::<G>(x))
        }
        name if name.starts_with('f') && !["f16", "f32", "f64"].contains(&name) => {
            with_minifloat!(dtype, T => with_float!(x.dtype(), F => to_minifloat::<F, T>(case, x)))
        }
        "f16" if from_float => with_float!(x.dtype(), F => to_half::<F, half::f16>(x)),
        "bf16" if from_float => with_float!(x.dtype(), F => to_half::<F, half::bf16>(x)),
        "f32" | "f64" if from_float => with_float!(dtype, G => from_half::<G>(x)),
        "f16" | "bf16" | "f32" | "f64" => {
            with_element!(x.dtype(), T => with_float!(dtype, G => from_codes::<T, G>(x)))
        }
        _ => with_element!(dtype, T => to_codes::<T>(x)),
    }
}

fn to_half<F, H>(x: &Tensor) -> Outcome<Tensor>
where
    F: Float + Typed<Value = F>,
    H: HalfFloat + Typed<Value = H>,
{
    let x = view::<F>(x)?;
    Ok(H::tensor(HalfCast::<H>::new(Overflow::Infinity).quantize(x)?))
}

/// The overflow policy of a cast to float codes: ONNX saturates unless the case says otherwise.
pub(crate) fn overflow(case: &Case) -> Overflow {
    let saturates = case.attr("saturate").is_none_or(|value| *value == true || *value == 1);
    if saturates { Overflow::Saturate } else { Overflow::Infinity }
}

fn to_minifloat<F, T>(case: &Case, x: &Tensor) -> Outcome<Tensor>
where
    F: Float + Typed<Value = F>,
    T: Minifloat + Typed<Value = T>,
{
    let params = MinifloatParams::<T>::per_tensor(1.0)?.with_overflow(overflow(case));
    Ok(T::tensor(params.quantize(view::<F>(x)?)?.into_parts().0))
}

fn from_minifloat<G: Float + Typed<Value = G>>(x: &Tensor) -> Outcome<Tensor> {
    match x.minifloats() {
        Some(values) => Ok(G::tensor(values.mapv(G::from_f32))),
        None => Err(Stop::not_covered(format!("cast from {} to {}", x.dtype(), G::NAME))),
    }
}

fn to_e8m0(case: &Case, x: &Tensor) -> Outcome<Tensor> {
    let rounding = match (case.text("round_mode")?, case.text("rounding")?) {
        (Some("up"), None) => E8M0Rounding::Up,
        (None, Some("half_away") | None) => E8M0Rounding::Nearest,
        (mode, rounding) => return Err(Stop::not_covered(format!("rounding {mode:?}, {rounding:?}"))),
    };
    let saturates = overflow(case) == Overflow::Saturate;
    let cast = if saturates { E8M0::from_f32_saturating } else { E8M0::from_f32 };
    match x.floats() {
        Some(x) => Ok(Tensor::E8M0(x.mapv(|x| cast(x as f32, rounding)))),
        None => Err(Stop::not_covered(format!("cast from {} to f8e8m0fnu", x.dtype()))),
    }
}

fn from_half<G: Float + Typed<Value = G>>(x: &Tensor) -> Outcome<Tensor> {
    match x {
        Tensor::F16(x) => Ok(G::tensor(Dequantize::<G, IxDyn>::dequantize(x)?)),
        Tensor::Bf16(x) => Ok(G::tensor(Dequantize::<G, IxDyn>::dequantize(x)?)),
        other => Err(Stop::not_covered(format!("cast from {} to {}", other.dtype(), G::NAME))),
    }
}

/// Codes with scale 1 and zero point 0, so that each code equals its value.
fn from_codes<T, G>(x: &Tensor) -> Outcome<Tensor>
where
    T: Element + Typed<Value = <T as Element>::Code>,
    G: Float + Typed<Value = G>,
{
    let params = QParams::<T>::per_tensor(1.0, T::Code::default())?;
    let q = QTensor::<T, IxDyn>::from_codes(view::<T>(x)?.clone(), params)?;
    Ok(G::tensor(q.dequantize_as::<G>()))
}

/// Casts as C does: floats are truncated toward zero, integers keep the low bits that fit the type.
fn to_codes<T>(x: &Tensor) -> Outcome<Tensor>
where
    T: Element + Typed<Value = <T as Element>::Code>,
{
    let wide: ArrayD<i64> = match (x.integers(), x.floats()) {
        (Some(integers), _) => integers,
        (None, Some(floats)) => floats.mapv(|x| x as i64),
        (None, None) => return Err(Stop::not_covered(format!("dtype {}", x.dtype()))),
    };
    // The low bits of the element type, sign-extended.
    let shift = 32 - T::BITS;
    let low_bits = |x: i64| {
        let high = (x as i32) << shift;
        T::Code::from_i32(if T::MIN < 0 { high >> shift } else { (high as u32 >> shift) as i32 })
    };
    Ok(T::tensor(wide.mapv(low_bits)))
}

fn view<T: Typed>(x: &Tensor) -> Outcome<&ArrayD<T::Value>> {
    T::view(x).ok_or_else(|| Stop::not_covered(format!("dtype {}", x.dtype())))
}
