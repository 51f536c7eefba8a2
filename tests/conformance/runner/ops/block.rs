//! Block formats: ggml's, and the weights of ONNX Runtime's `MatMulNBits`.

use ndarray::{Ix2, Ix3};
use ndarray_quant::block::{BlockFormat, BlockTensor, from_matmul_nbits, ggml};
use ndarray_quant::half::{HalfCast, Overflow};
use ndarray_quant::nn::LinearNBits;
use ndarray_quant::{Element, QTensor, U2, U4};

use crate::runner::case::Case;
use crate::runner::tensor::Tensor;
use crate::runner::{Outcome, Stop};

/// Expands the body with the name as an alias of the format that a string names.
macro_rules! with_format {
    ($name:expr, $B:ident => $body:expr) => {
        with_format!(@ $name, $B => $body, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4)
    };
    (@ $name:expr, $B:ident => $body:expr, $($format:ident)*) => {
        match $name {
            $(stringify!($format) => { type $B = ggml::$format; $body })*
            other => Err(Stop::not_covered(format!("format {other}"))),
        }
    };
}

const ATTRS: [&str; 3] = ["format", "block_size", "type_size"];

/// gguf-py: `quantize`.
pub(crate) fn gguf_quantize(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&ATTRS)?;
    let x = case.values::<f32>(0)?;
    let bytes = match format(case)? {
        "BF16" => {
            let halves = HalfCast::<half::bf16>::new(Overflow::Infinity).quantize(x)?;
            halves.iter().flat_map(|half| half.to_le_bytes()).collect()
        }
        name => with_format!(name, B => Ok(BlockTensor::<B, _>::quantize(x)?.into_bytes()))?,
    };
    Ok(vec![case.like_output::<u8>(0, bytes)?])
}

/// gguf-py: `dequantize`.
pub(crate) fn gguf_dequantize(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&ATTRS)?;
    let bytes: Vec<u8> = case.values::<u8>(0)?.iter().copied().collect();
    let shape = case.output(0)?.shape();
    match format(case)? {
        "BF16" => {
            let values = bytes.as_chunks().0.iter().map(|&pair| half::bf16::from_le_bytes(pair).to_f32());
            Ok(vec![case.like_output::<f32>(0, values.collect())?])
        }
        name => with_format!(name, B => {
            case.expects("block_size", B::VALUES as u64)?;
            case.expects("type_size", B::BYTES as u64)?;
            Ok(vec![Tensor::F32(BlockTensor::<B, _, _>::from_bytes(shape, bytes)?.dequantize())])
        }),
    }
}

fn format(case: &Case) -> Outcome<&str> {
    case.text("format")?.ok_or_else(|| Stop::failed("no format"))
}

const NBITS_ATTRS: [&str; 6] = ["K", "N", "bits", "block_size", "accuracy_level", "packing"];

/// The weights of `MatMulNBits`.
pub(crate) fn dequantize_nbits(case: &Case) -> Outcome<Vec<Tensor>> {
    let weights = match bits(case)? {
        2 => nbits_tensor::<U2>(case)?.dequantize(),
        4 => nbits_tensor::<U4>(case)?.dequantize(),
        8 => nbits_tensor::<u8>(case)?.dequantize(),
        bits => return Err(Stop::not_covered(format!("{bits} bits"))),
    };
    Ok(vec![Tensor::F32(weights.into_dyn())])
}

/// ONNX Runtime: `MatMulNBits`.
pub(crate) fn matmul_nbits(case: &Case) -> Outcome<Vec<Tensor>> {
    let layer = match bits(case)? {
        2 => LinearNBits::new(&nbits_tensor::<U2>(case)?, None)?,
        4 => LinearNBits::new(&nbits_tensor::<U4>(case)?, None)?,
        8 => LinearNBits::new(&nbits_tensor::<u8>(case)?, None)?,
        bits => return Err(Stop::not_covered(format!("{bits} bits"))),
    };
    let a = case.values::<f32>(0)?.view().into_dimensionality::<Ix2>();
    let a = a.map_err(|error| Stop::failed(format!("a: {error}")))?;
    let y = match case.integer("accuracy_level")? {
        None | Some(0 | 1) => layer.forward(&a)?,
        Some(4) => layer.forward_dynamic(&a)?,
        Some(level) => return Err(Stop::not_covered(format!("accuracy_level {level}"))),
    };
    Ok(vec![Tensor::F32(y.into_dyn())])
}

fn bits(case: &Case) -> Outcome<i64> {
    case.knows(&NBITS_ATTRS)?;
    case.expects("packing", "low bits first along K")?;
    case.integer("bits")?.ok_or_else(|| Stop::failed("no bits"))
}

fn nbits_tensor<T: Element>(case: &Case) -> Outcome<QTensor<T, Ix2>> {
    let missing = |name: &str| Stop::failed(format!("{name} is missing or has another type or rank"));
    let (Some(Tensor::U8(packed)), Some(Tensor::F32(scales))) = (case.named("b"), case.named("scales")) else {
        return Err(missing("b or scales"));
    };
    let packed = packed.view().into_dimensionality::<Ix3>().map_err(|_| missing("b"))?;
    let scales = scales.view().into_dimensionality::<Ix2>().map_err(|_| missing("scales"))?;
    let zero_points = match case.named("zero_points") {
        Some(Tensor::U8(packed)) => {
            Some(packed.view().into_dimensionality::<Ix2>().map_err(|_| missing("zero_points"))?)
        }
        Some(_) => return Err(missing("zero_points")),
        None => None,
    };
    let k = case.integer("K")?.and_then(|k| usize::try_from(k).ok()).ok_or_else(|| missing("K"))?;
    Ok(from_matmul_nbits::<T>(&packed, &scales, zero_points.as_deref(), k)?)
}
