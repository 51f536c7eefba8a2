//! Element types: the integers that codes are stored as, and the floats they stand for.
//!
//! The types themselves are at the root of the crate: [`Element`](crate::Element), [`Float`](crate::Float),
//! [`Packed`](crate::Packed), [`I4`](crate::I4) and so on. This module adds the traits that generic code over them names.

pub(crate) mod dtype;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod packed;

pub(crate) use dtype::DType;
pub(crate) use float::{Compute, Float, HalfFloat};
pub use integer::{Code, Storage, SubByte};
pub(crate) use integer::{Element, I4};
pub(crate) use packed::Packed;

pub(crate) mod sealed {
    pub trait Sealed {}
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
