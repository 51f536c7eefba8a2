//! `TensorProto` → floats or integers.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use super::proto::TensorProto;
use crate::error::{Error, Result};
use crate::graph::Constant;

/// A tensor that is known while the file is read.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Float(Constant),
    /// Shapes, axes and the like.
    Int(ArrayD<i64>),
}

impl Known {
    pub(super) fn new(tensor: &TensorProto) -> Result<Self> {
        if tensor.data_location != 0 {
            return Err(malformed(tensor, "its data in the file itself", "a reference to another file"));
        }
        let length = |&d: &i64| usize::try_from(d).map_err(|_| malformed(tensor, "lengths of at least 0", d));
        let dims = tensor.dims.iter().map(length).collect::<Result<Vec<_>>>()?;
        Ok(match tensor.data_type {
            1 => Known::Float(shaped(tensor, &dims, raw(tensor, &tensor.float_data, f32::from_le_bytes)?)?),
            11 => {
                let values: Vec<f64> = raw(tensor, &tensor.double_data, f64::from_le_bytes)?;
                Known::Float(shaped(tensor, &dims, values.into_iter().map(|x| x as f32).collect())?)
            }
            10 => Known::Float(shaped(tensor, &dims, halves(tensor, |bits| f16::from_bits(bits).to_f32())?)?),
            16 => Known::Float(shaped(tensor, &dims, halves(tensor, |bits| bf16::from_bits(bits).to_f32())?)?),
            6 => {
                let values: Vec<i32> = raw(tensor, &tensor.int32_data, i32::from_le_bytes)?;
                Known::Int(array(tensor, &dims, values.into_iter().map(i64::from).collect())?)
            }
            7 => Known::Int(array(tensor, &dims, raw(tensor, &tensor.int64_data, i64::from_le_bytes)?)?),
            other => {
                return Err(malformed(tensor, "floats, or integers of 32 or 64 bits", format_args!("type {other}")));
            }
        })
    }
}

fn shaped(tensor: &TensorProto, dims: &[usize], values: Vec<f32>) -> Result<Constant> {
    if let Some(bad) = values.iter().find(|x| x.is_nan()) {
        return Err(malformed(tensor, "numbers", bad));
    }
    Ok(array(tensor, dims, values)?.into_shared())
}

fn array<T>(tensor: &TensorProto, dims: &[usize], values: Vec<T>) -> Result<ArrayD<T>> {
    let found = values.len();
    ArrayD::from_shape_vec(IxDyn(dims), values)
        .map_err(|_| malformed(tensor, format_args!("as many values as the shape {dims:?} has"), found))
}

/// The bytes of `raw_data` if there are any, else the values of the field for the type.
fn raw<T: Copy, const N: usize>(tensor: &TensorProto, typed: &[T], from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
    if tensor.raw_data.is_empty() {
        return Ok(typed.to_vec());
    }
    let (values, rest) = tensor.raw_data.as_chunks::<N>();
    if rest.is_empty() {
        Ok(values.iter().map(|&bytes| from(bytes)).collect())
    } else {
        Err(malformed(tensor, format_args!("a multiple of {N} bytes"), tensor.raw_data.len()))
    }
}

fn halves(tensor: &TensorProto, from: impl Fn(u16) -> f32) -> Result<Vec<f32>> {
    let typed: Vec<u16> = tensor.int32_data.iter().map(|&bits| bits as u16).collect();
    Ok(raw(tensor, &typed, u16::from_le_bytes)?.into_iter().map(from).collect())
}

fn malformed(tensor: &TensorProto, expected: impl ToString, found: impl ToString) -> Error {
    let found: String = alloc::format!("{} in tensor {:?}", found.to_string(), tensor.name);
    Error::Format { what: "ONNX tensor", expected: expected.to_string(), found }
}
