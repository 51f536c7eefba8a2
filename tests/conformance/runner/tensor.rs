//! Reads a `.npy` file as a tensor of its logical type.

use half::{bf16, f16};
use ndarray::ArrayD;
use ndarray_npy::ReadNpyExt;
use ndarray_npy::npy::header::Header;
use ndarray_quant::minifloat::{
    E8M0, F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, Minifloat,
};
use ndarray_quant::{I2, I4, U2, U4};

use super::{Outcome, Stop};

/// A tensor of one of the logical types of the format.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tensor {
    F64(ArrayD<f64>),
    F32(ArrayD<f32>),
    F16(ArrayD<f16>),
    Bf16(ArrayD<bf16>),
    I64(ArrayD<i64>),
    I32(ArrayD<i32>),
    I16(ArrayD<i16>),
    I8(ArrayD<i8>),
    U16(ArrayD<u16>),
    U8(ArrayD<u8>),
    I4(ArrayD<i8>),
    U4(ArrayD<u8>),
    I2(ArrayD<i8>),
    U2(ArrayD<u8>),
    F8E4M3FN(ArrayD<F8E4M3FN>),
    F8E5M2(ArrayD<F8E5M2>),
    F8E4M3FNUZ(ArrayD<F8E4M3FNUZ>),
    F8E5M2FNUZ(ArrayD<F8E5M2FNUZ>),
    F6E2M3FN(ArrayD<F6E2M3FN>),
    F6E3M2FN(ArrayD<F6E3M2FN>),
    F4E2M1FN(ArrayD<F4E2M1FN>),
    E8M0(ArrayD<E8M0>),
}

/// A type whose tensors are one variant of [`Tensor`].
pub(crate) trait Typed: 'static {
    /// The type that holds one element.
    type Value: Copy;
    /// The name of the type in the format.
    const NAME: &'static str;
    /// The elements, if the tensor is of this type.
    fn view(tensor: &Tensor) -> Option<&ArrayD<Self::Value>>;
    /// A tensor of this type.
    fn tensor(values: ArrayD<Self::Value>) -> Tensor;
}

macro_rules! typed {
    ($($t:ident $value:ident $variant:ident $name:literal;)*) => {
        $(impl Typed for $t {
            type Value = $value;
            const NAME: &'static str = $name;
            fn view(tensor: &Tensor) -> Option<&ArrayD<$value>> {
                if let Tensor::$variant(values) = tensor { Some(values) } else { None }
            }
            fn tensor(values: ArrayD<$value>) -> Tensor {
                Tensor::$variant(values)
            }
        })*

        impl Tensor {
            /// The name of the type in the format.
            pub(crate) fn dtype(&self) -> &str {
                match self {
                    $(Tensor::$variant(_) => $name,)*
                }
            }

            pub(crate) fn shape(&self) -> &[usize] {
                match self {
                    $(Tensor::$variant(values) => values.shape(),)*
                }
            }
        }
    };
}
typed! {
    f64 f64 F64 "f64";
    f32 f32 F32 "f32";
    f16 f16 F16 "f16";
    bf16 bf16 Bf16 "bf16";
    i64 i64 I64 "i64";
    i32 i32 I32 "i32";
    i16 i16 I16 "i16";
    i8 i8 I8 "i8";
    u16 u16 U16 "u16";
    u8 u8 U8 "u8";
    I4 i8 I4 "i4";
    U4 u8 U4 "u4";
    I2 i8 I2 "i2";
    U2 u8 U2 "u2";
    F8E4M3FN F8E4M3FN F8E4M3FN "f8e4m3fn";
    F8E5M2 F8E5M2 F8E5M2 "f8e5m2";
    F8E4M3FNUZ F8E4M3FNUZ F8E4M3FNUZ "f8e4m3fnuz";
    F8E5M2FNUZ F8E5M2FNUZ F8E5M2FNUZ "f8e5m2fnuz";
    F6E2M3FN F6E2M3FN F6E2M3FN "f6e2m3fn";
    F6E3M2FN F6E3M2FN F6E3M2FN "f6e3m2fn";
    F4E2M1FN F4E2M1FN F4E2M1FN "f4e2m1fn";
    E8M0 E8M0 E8M0 "f8e8m0fnu";
}

/// Expands the body with the name as an alias of the element type that a string names.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_element!(@ $dtype, $T => $body,
            "i8" i8, "u8" u8, "i16" i16, "u16" u16, "i32" i32,
            "i4" ndarray_quant::I4, "u4" ndarray_quant::U4, "i2" ndarray_quant::I2, "u2" ndarray_quant::U2)
    };
    (@ $dtype:expr, $T:ident => $body:expr, $($name:literal $t:ty),*) => {
        match $dtype {
            $($name => { type $T = $t; $body })*
            other => Err($crate::runner::Stop::not_covered(format!("dtype {other}"))),
        }
    };
}
pub(crate) use with_element;

/// Expands the body with the name as an alias of the 8-bit type that a string names.
macro_rules! with_byte {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            "i8" => {
                type $T = i8;
                $body
            }
            "u8" => {
                type $T = u8;
                $body
            }
            other => Err($crate::runner::Stop::not_covered(format!("dtype {other}"))),
        }
    };
}
pub(crate) use with_byte;

/// Expands the body with the name as an alias of the float type that a string names.
macro_rules! with_float {
    ($dtype:expr, $F:ident => $body:expr) => {
        match $dtype {
            "f32" => {
                type $F = f32;
                $body
            }
            "f64" => {
                type $F = f64;
                $body
            }
            "f16" => {
                type $F = half::f16;
                $body
            }
            "bf16" => {
                type $F = half::bf16;
                $body
            }
            other => Err($crate::runner::Stop::not_covered(format!("dtype {other}"))),
        }
    };
}
pub(crate) use with_float;

/// Expands the body with the name as an alias of the float code that a string names.
macro_rules! with_minifloat {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_minifloat!(@ $dtype, $T => $body,
            "f8e4m3fn" F8E4M3FN, "f8e5m2" F8E5M2, "f8e4m3fnuz" F8E4M3FNUZ, "f8e5m2fnuz" F8E5M2FNUZ,
            "f6e2m3fn" F6E2M3FN, "f6e3m2fn" F6E3M2FN, "f4e2m1fn" F4E2M1FN)
    };
    (@ $dtype:expr, $T:ident => $body:expr, $($name:literal $t:ident),*) => {
        match $dtype {
            $($name => { type $T = ndarray_quant::minifloat::$t; $body })*
            other => Err($crate::runner::Stop::not_covered(format!("dtype {other}"))),
        }
    };
}
pub(crate) use with_minifloat;

impl Tensor {
    /// Reads the bytes of a `.npy` file.
    pub(crate) fn read(npy: &[u8], dtype: &str) -> Outcome<Self> {
        Ok(match dtype {
            "f64" => Tensor::F64(values(npy)?),
            "f32" => Tensor::F32(values(npy)?),
            "f16" => Tensor::F16(halves(npy)?),
            "bf16" => Tensor::Bf16(values::<u16>(npy)?.mapv(bf16::from_bits)),
            "i64" => Tensor::I64(values(npy)?),
            "i32" => Tensor::I32(values(npy)?),
            "i16" => Tensor::I16(values(npy)?),
            "i8" => Tensor::I8(values(npy)?),
            "u16" => Tensor::U16(values(npy)?),
            "u8" => Tensor::U8(values(npy)?),
            "i4" => Tensor::I4(low_bits(npy, 4)?.mapv(|bits| ((bits << 4) as i8) >> 4)),
            "u4" => Tensor::U4(low_bits(npy, 4)?),
            "i2" => Tensor::I2(low_bits(npy, 2)?.mapv(|bits| ((bits << 6) as i8) >> 6)),
            "u2" => Tensor::U2(low_bits(npy, 2)?),
            "f8e8m0fnu" => Tensor::E8M0(values::<u8>(npy)?.mapv(E8M0::from_bits)),
            other => return with_minifloat!(other, T => Ok(T::tensor(low_bits(npy, T::BITS)?.mapv(T::from_bits)))),
        })
    }

    /// Returns whether it holds float codes with a sign.
    pub(crate) fn is_minifloat(&self) -> bool {
        with_minifloat!(self.dtype(), T => Ok(T::view(self).is_some())).unwrap_or(false)
    }

    /// Returns the elements as `i64`, if it holds integers.
    pub(crate) fn integers(&self) -> Option<ArrayD<i64>> {
        Some(match self {
            Tensor::I64(x) => x.clone(),
            Tensor::I32(x) => x.mapv(i64::from),
            Tensor::I16(x) => x.mapv(i64::from),
            Tensor::U16(x) => x.mapv(i64::from),
            Tensor::I8(x) | Tensor::I4(x) | Tensor::I2(x) => x.mapv(i64::from),
            Tensor::U8(x) | Tensor::U4(x) | Tensor::U2(x) => x.mapv(i64::from),
            _ => return None,
        })
    }

    /// Returns the elements as `f64`, which is exact, if it holds floats.
    pub(crate) fn floats(&self) -> Option<ArrayD<f64>> {
        Some(match self {
            Tensor::F64(x) => x.clone(),
            Tensor::F32(x) => x.mapv(f64::from),
            Tensor::F16(x) => x.mapv(f64::from),
            Tensor::Bf16(x) => x.mapv(f64::from),
            _ => return None,
        })
    }

    /// Returns the values of float codes, if it holds those.
    pub(crate) fn minifloats(&self) -> Option<ArrayD<f32>> {
        if let Tensor::E8M0(x) = self {
            return Some(x.mapv(f32::from));
        }
        with_minifloat!(self.dtype(), T => Ok(T::view(self).map(|x| x.mapv(f32::from)))).ok().flatten()
    }
}

fn values<A: ndarray_npy::ReadableElement>(npy: &[u8]) -> Outcome<ArrayD<A>> {
    ArrayD::read_npy(npy).map_err(|error| Stop::failed(format!("not readable as npy: {error}")))
}

/// Reads half-precision values, for which the npy reader has no type.
fn halves(mut npy: &[u8]) -> Outcome<ArrayD<f16>> {
    let header = Header::from_reader(&mut npy).map_err(|error| Stop::failed(format!("no npy header: {error}")))?;
    let descriptor = header.type_descriptor.to_string();
    if descriptor.trim_matches(['\'', '"']) != "<f2" || header.layout.is_fortran() {
        return Err(Stop::failed(format!("expected little-endian f16 in C order, found {descriptor}")));
    }
    let (pairs, rest) = npy.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Stop::failed("an odd number of bytes for f16 values"));
    }
    let values = pairs.iter().map(|&pair| f16::from_le_bytes(pair)).collect();
    ArrayD::from_shape_vec(header.shape, values)
        .map_err(|error| Stop::failed(format!("wrong number of values: {error}")))
}

/// Reads one code per byte, from its low bits. The high bits must be zero.
fn low_bits(npy: &[u8], bits: u32) -> Outcome<ArrayD<u8>> {
    let codes: ArrayD<u8> = values(npy)?;
    match codes.iter().find(|&&code| u32::from(code) >> bits != 0) {
        Some(code) => Err(Stop::failed(format!("{code:#x} is no {bits}-bit code"))),
        None => Ok(codes),
    }
}
