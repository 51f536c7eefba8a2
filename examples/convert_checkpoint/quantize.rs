//! Types of tensors, and their bytes.

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use ndarray_quant::block::{BlockTensor, ggml};
use ndarray_quant::io::gguf::GgmlType;
use safetensors::Dtype;

use crate::checkpoint::Tensor;
use crate::program::Result;

/// The types that matrices can get, by their names on the command line.
pub(crate) const TYPES: [(&str, GgmlType); 15] = [
    ("f16", GgmlType::F16),
    ("bf16", GgmlType::BF16),
    ("q8_0", GgmlType::Q8_0),
    ("q6_k", GgmlType::Q6_K),
    ("q5_k", GgmlType::Q5_K),
    ("q5_0", GgmlType::Q5_0),
    ("q4_k", GgmlType::Q4_K),
    ("q4_0", GgmlType::Q4_0),
    ("iq4_nl", GgmlType::IQ4_NL),
    ("iq4_xs", GgmlType::IQ4_XS),
    ("mxfp4", GgmlType::MXFP4),
    ("q3_k", GgmlType::Q3_K),
    ("q2_k", GgmlType::Q2_K),
    ("tq2_0", GgmlType::TQ2_0),
    ("tq1_0", GgmlType::TQ1_0),
];

/// The type of a tensor in the GGUF file.
pub(crate) fn type_of(tensor: &Tensor, to: GgmlType) -> GgmlType {
    match tensor.dtype {
        Dtype::I8 => GgmlType::I8,
        Dtype::I16 => GgmlType::I16,
        Dtype::I32 => GgmlType::I32,
        Dtype::I64 => GgmlType::I64,
        _ if tensor.shape.len() >= 2 && to.tensor_bytes(&tensor.shape).is_some() => to,
        _ => GgmlType::F32,
    }
}

/// Converts the bytes of a tensor.
pub(crate) fn bytes(tensor: &Tensor, bytes: &[u8], to: GgmlType) -> Result<Vec<u8>> {
    if matches!(to, GgmlType::I8 | GgmlType::I16 | GgmlType::I32 | GgmlType::I64) {
        return Ok(bytes.to_vec());
    }
    let values = floats(tensor, bytes)?;
    let x = ArrayD::from_shape_vec(IxDyn(&tensor.shape), values).map_err(|e| format!("{}: {e}", tensor.name))?;
    macro_rules! blocks {
        ($($format:ident)*) => {
            match to {
                GgmlType::F32 => Ok(x.iter().flat_map(|x| x.to_le_bytes()).collect()),
                GgmlType::F16 => Ok(x.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
                GgmlType::BF16 => Ok(x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
                $(GgmlType::$format => match BlockTensor::<ggml::$format, _>::quantize(&x) {
                    Ok(blocks) => Ok(blocks.as_bytes().to_vec()),
                    Err(error) => Err(format!("{}: {error}", tensor.name).into()),
                },)*
                other => Err(format!("{}: no conversion to {other}", tensor.name).into()),
            }
        };
    }
    blocks!(Q8_0 Q6_K Q5_K Q5_0 Q4_K Q4_0 IQ4_NL IQ4_XS MXFP4 Q3_K Q2_K TQ2_0 TQ1_0)
}

/// The values of a tensor of floats.
fn floats(tensor: &Tensor, bytes: &[u8]) -> Result<Vec<f32>> {
    let halves = |to_f32: fn([u8; 2]) -> f32| bytes.as_chunks().0.iter().map(|&half| to_f32(half)).collect();
    Ok(match tensor.dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        Dtype::F16 => halves(|half| f16::from_le_bytes(half).to_f32()),
        Dtype::BF16 => halves(|half| bf16::from_le_bytes(half).to_f32()),
        other => return Err(format!("{}: expected F32, F16 or BF16, found {other:?}", tensor.name).into()),
    })
}

/// The type with a name.
pub(crate) fn parse(name: &str) -> Result<GgmlType, String> {
    let found = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    found.map(|(_, found)| *found).ok_or_else(|| format!("expected one of {}", names.join(", ")))
}
