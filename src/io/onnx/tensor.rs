//! Reads a `TensorProto` as floats or integers.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use super::limits::{Limits, MAX_RANK, fits};
use super::proto::TensorProto;
use crate::error::{Error, FileError, Result};
use crate::graph::Constant;
use crate::ops::operator::IntTensor;

/// A tensor whose values are known while the file is read: an initializer, or a node computed from initializers.
#[derive(Debug, Clone)]
pub(crate) enum ConstantTensor {
    Float(Constant),
    /// Shapes, axes and flags.
    Int(IntTensor),
}

impl ConstantTensor {
    pub(crate) fn new(tensor: &TensorProto, max_elements: usize) -> Result<Self> {
        if tensor.data_location != 0 {
            return Err(malformed(
                tensor,
                "data in the file itself (see OnnxReader::read_file)",
                "a reference to another file",
            ));
        }
        if tensor.dims.len() > MAX_RANK {
            let found = format_args!("{} for {:?}", tensor.dims.len(), tensor.name);
            return Err(Limits::exceeded("rank of a tensor", MAX_RANK, found));
        }
        let length = |&d: &i64| usize::try_from(d).map_err(|_| malformed(tensor, "lengths of at least 0", d));
        let dims = tensor.dims.iter().map(length).collect::<Result<Vec<_>>>()?;
        if !fits(&dims, max_elements) {
            let found = format_args!("shape {dims:?} of {:?}", tensor.name);
            return Err(Limits::exceeded("elements of a tensor", max_elements, found));
        }
        Ok(match tensor.data_type {
            1 => ConstantTensor::Float(floats(tensor, &dims, decode(tensor, &tensor.float_data, f32::from_le_bytes)?)?),
            11 => {
                let values: Vec<f64> = decode(tensor, &tensor.double_data, f64::from_le_bytes)?;
                ConstantTensor::Float(floats(tensor, &dims, values.into_iter().map(|x| x as f32).collect())?)
            }
            10 => ConstantTensor::Float(floats(tensor, &dims, halves(tensor, |bits| f16::from_bits(bits).to_f32())?)?),
            16 => ConstantTensor::Float(floats(tensor, &dims, halves(tensor, |bits| bf16::from_bits(bits).to_f32())?)?),
            2 => ConstantTensor::Int(integers(tensor, &dims, u8::from_le_bytes, |x| x as u8)?),
            3 => ConstantTensor::Int(integers(tensor, &dims, i8::from_le_bytes, |x| x as i8)?),
            4 => ConstantTensor::Int(integers(tensor, &dims, u16::from_le_bytes, |x| x as u16)?),
            5 => ConstantTensor::Int(integers(tensor, &dims, i16::from_le_bytes, |x| x as i16)?),
            6 => ConstantTensor::Int(integers(tensor, &dims, i32::from_le_bytes, |x| x)?),
            7 => {
                let values = decode(tensor, &tensor.int64_data, i64::from_le_bytes)?;
                ConstantTensor::Int(array(tensor, &dims, values)?.into_shared())
            }
            9 => {
                let values: Vec<i32> = decode(tensor, &tensor.int32_data, |[byte]| i32::from(byte))?;
                let flags = values.into_iter().map(|value| i64::from(value != 0)).collect();
                ConstantTensor::Int(array(tensor, &dims, flags)?.into_shared())
            }
            21 | 22 => ConstantTensor::Int(packed(tensor, &dims, 4, tensor.data_type == 22)?),
            25 | 26 => ConstantTensor::Int(packed(tensor, &dims, 2, tensor.data_type == 26)?),
            other => {
                let expected = "data type FLOAT, FLOAT16, BFLOAT16, DOUBLE, UINT8, INT8, UINT16, INT16, INT32, INT64, BOOL, \
                                UINT4, INT4, UINT2 or INT2";
                return Err(malformed(tensor, expected, data_type(other)));
            }
        })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            ConstantTensor::Float(values) => values.shape(),
            ConstantTensor::Int(values) => values.shape(),
        }
    }
}

/// The name of a `TensorProto.DataType`.
pub(crate) fn data_type(number: i32) -> String {
    const NAMES: [&str; 27] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "UINT4",
        "INT4",
        "FLOAT4E2M1",
        "FLOAT8E8M0",
        "UINT2",
        "INT2",
    ];
    match usize::try_from(number).ok().and_then(|number| NAMES.get(number)) {
        Some(name) => name.to_string(),
        None => alloc::format!("data type {number}"),
    }
}

/// The bits of an element of a `TensorProto.DataType`, or 0 for strings and types that are not known.
pub(super) fn bits_of_element(number: i32) -> u64 {
    match number {
        25 | 26 => 2,
        21..=23 => 4,
        2 | 3 | 9 | 17..=20 | 24 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        _ => 0,
    }
}

fn floats(tensor: &TensorProto, dims: &[usize], values: Vec<f32>) -> Result<Constant> {
    // Infinities are bounds of `Clip`; elsewhere `GraphBuilder::constant` rejects them.
    if values.iter().any(|x| x.is_nan()) {
        return Err(malformed(tensor, "numbers", "NaN"));
    }
    Ok(array(tensor, dims, values)?.into_shared())
}

fn array<T>(tensor: &TensorProto, dims: &[usize], values: Vec<T>) -> Result<ArrayD<T>> {
    let found = values.len();
    ArrayD::from_shape_vec(IxDyn(dims), values).map_err(|_| {
        let expected = alloc::format!("{} values for shape {dims:?}", dims.iter().product::<usize>());
        malformed(tensor, expected, found)
    })
}

/// Decodes `raw_data` if it is there, or else takes the values from the field of the data type.
fn decode<T: Copy, const N: usize>(tensor: &TensorProto, typed: &[T], from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
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

/// Reads integers of at most 32 bits, which are values of `int32_data` unless they are raw.
fn integers<T: Copy + Into<i64>, const N: usize>(
    tensor: &TensorProto,
    dims: &[usize],
    from: impl Fn([u8; N]) -> T,
    of_typed: impl Fn(i32) -> T,
) -> Result<IntTensor> {
    let typed: Vec<T> = tensor.int32_data.iter().map(|&x| of_typed(x)).collect();
    let values = decode(tensor, &typed, from)?.into_iter().map(Into::into).collect();
    Ok(array(tensor, dims, values)?.into_shared())
}

/// Reads codes of fewer than 8 bits. Bytes hold several, the first in the low bits, and are values of `int32_data` unless
/// they are raw.
fn packed(tensor: &TensorProto, dims: &[usize], bits: u32, signed: bool) -> Result<IntTensor> {
    let typed: Vec<u8> = tensor.int32_data.iter().map(|&byte| byte as u8).collect();
    let (bytes, per_byte) = (decode(tensor, &typed, u8::from_le_bytes)?, 8 / bits as usize);
    let count: usize = dims.iter().product();
    if bytes.len() != count.div_ceil(per_byte) {
        let expected = alloc::format!("{} bytes for shape {dims:?}", count.div_ceil(per_byte));
        return Err(malformed(tensor, expected, bytes.len()));
    }
    let unused = 8 - bits;
    let code = |byte: u8, i: usize| {
        let high = byte << (unused - i as u32 * bits);
        if signed { i64::from(high as i8 >> unused) } else { i64::from(high >> unused) }
    };
    let codes = bytes.iter().flat_map(|&byte| (0..per_byte).map(move |i| code(byte, i))).take(count);
    Ok(array(tensor, dims, codes.collect())?.into_shared())
}

fn halves(tensor: &TensorProto, from: impl Fn(u16) -> f32) -> Result<Vec<f32>> {
    let typed: Vec<u16> = tensor.int32_data.iter().map(|&bits| bits as u16).collect();
    Ok(decode(tensor, &typed, u16::from_le_bytes)?.into_iter().map(from).collect())
}

fn malformed(tensor: &TensorProto, expected: impl ToString, found: impl ToString) -> Error {
    let found: String = alloc::format!("{} in tensor {:?}", found.to_string(), tensor.name);
    FileError::Format { what: "ONNX tensor", expected: expected.to_string(), found }.into()
}
