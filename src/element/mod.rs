//! Traits of element types, for generic code.
//!
//! A quantized tensor stores *codes*: small integers that stand for real numbers. [`Element`] is the element type of a
//! quantized tensor, and [`Code`] the integer that holds one unpacked code. The types [`Packed`], [`I4`] and [`Float`] are
//! at the root of the crate.

pub(crate) mod dtype;
pub(crate) mod e8m0;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod minifloat;
pub(crate) mod packed;

pub(crate) use dtype::DType;
pub(crate) use float::{Compute, Float, HalfFloat, Widen};
pub use integer::Code;
pub(crate) use integer::{Element, I2, I4, Storage};
#[cfg(feature = "onnx")]
pub(crate) use integer::{U2, U4};
pub(crate) use minifloat::Minifloat;
pub(crate) use packed::{Packed, check_codes};

pub(crate) mod sealed {
    pub trait Sealed {}

    /// Private part of [`Code`](super::Code).
    pub trait Width {
        /// True for `i32`, whose codes do not all fit into the significand of an `f32`.
        const WIDE: bool;
    }
}

#[cfg(feature = "serde")]
mod bounds {
    pub trait MaybeSerde: serde::Serialize + serde::de::DeserializeOwned {}
    impl<T: serde::Serialize + serde::de::DeserializeOwned> MaybeSerde for T {}
}
#[cfg(not(feature = "serde"))]
mod bounds {
    pub trait MaybeSerde {}
    impl<T> MaybeSerde for T {}
}
pub(crate) use bounds::MaybeSerde;
