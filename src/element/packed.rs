use alloc::{vec, vec::Vec};
use core::marker::PhantomData;

use ndarray::{Array, CowArray, Dimension};

use super::{Code, Storage, SubByte};
use crate::error::{Error, Result};

/// A tensor of 4-bit or 2-bit codes, packed two or four to a byte.
///
/// Codes stand in row-major order without padding between rows, the first code of a byte in its lowest bits
/// (the layout of ONNX and TFLite). Unused bits of the last byte are zero. Size: `ceil(len * BITS / 8)` bytes.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{I4, Packed};
/// let packed = Packed::<I4, _>::pack(&array![[1i8, -1, 7]])?;
/// assert_eq!(packed.as_bytes(), [0xf1, 0x07]);
/// assert_eq!(packed.unpack(), array![[1, -1, 7]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(bound(serialize = "D: serde::Serialize", deserialize = "D: serde::Deserialize<'de>"), try_from = "Raw<D>")
)]
pub struct Packed<T: SubByte, D: Dimension> {
    dim: D,
    bytes: Vec<u8>,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

/// What a serialized tensor holds before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Raw<D> {
    dim: D,
    bytes: Vec<u8>,
}

#[cfg(feature = "serde")]
impl<T: SubByte, D: Dimension> TryFrom<Raw<D>> for Packed<T, D> {
    type Error = Error;
    fn try_from(raw: Raw<D>) -> Result<Self> {
        Self::from_bytes(raw.dim, raw.bytes)
    }
}

impl<T: SubByte, D: Dimension> Packed<T, D> {
    const PER_BYTE: usize = (8 / T::BITS) as usize;
    const MASK: u8 = (0xffu32 >> (8 - T::BITS)) as u8;

    /// Packs one code per element. An out-of-range code is refused with [`Error::CodeRange`].
    pub fn pack(codes: &ndarray::ArrayRef<T::Code, D>) -> Result<Self> {
        for &code in codes {
            let found = code.to_i32();
            if found < T::MIN || found > T::MAX {
                return Err(Error::CodeRange { min: T::MIN, max: T::MAX, found_min: found, found_max: found });
            }
        }
        Ok(Self::pack_in_range(codes.raw_dim(), codes.iter().copied()))
    }

    /// Takes bytes that are already packed: `ceil(len * BITS / 8)` of them. Unused bits are cleared.
    pub fn from_bytes(shape: impl ndarray::IntoDimension<Dim = D>, mut bytes: Vec<u8>) -> Result<Self> {
        let dim = shape.into_dimension();
        let elements = dim.size_checked();
        let expected = elements.map(|n| n.div_ceil(Self::PER_BYTE));
        if expected != Some(bytes.len()) {
            return Err(Error::shape("packed bytes", &[expected.unwrap_or(usize::MAX)], &[bytes.len()]));
        }
        let used = dim.size() % Self::PER_BYTE;
        if let (Some(last), 1..) = (bytes.last_mut(), used) {
            *last &= 0xff >> (8 - used * T::BITS as usize);
        }
        Ok(Self { dim, bytes, element: PhantomData })
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dim.size()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape in elements.
    pub fn shape(&self) -> &[usize] {
        self.dim.slice()
    }

    /// One code per element, in row-major order.
    pub fn unpack(&self) -> Array<T::Code, D> {
        // Two shifts carry the sign of a signed code up.
        let unused = 32 - T::BITS;
        let code = |i: usize| {
            let shift = (i % Self::PER_BYTE) * T::BITS as usize;
            let bits = ((self.bytes[i / Self::PER_BYTE] >> shift) & Self::MASK) as i32;
            T::Code::from_i32(if T::MIN < 0 { (bits << unused) >> unused } else { bits })
        };
        Array::from_shape_vec(self.dim.clone(), (0..self.len()).map(code).collect())
            .expect("as many codes as the shape has elements")
    }

    fn pack_in_range(dim: D, codes: impl Iterator<Item = T::Code>) -> Self {
        let mut bytes = vec![0u8; dim.size().div_ceil(Self::PER_BYTE)];
        for (i, code) in codes.enumerate() {
            let shift = (i % Self::PER_BYTE) * T::BITS as usize;
            bytes[i / Self::PER_BYTE] |= (code.to_i32() as u8 & Self::MASK) << shift;
        }
        Self { dim, bytes, element: PhantomData }
    }
}

impl<T: SubByte, D: Dimension> Storage<T, D> for Packed<T, D> {
    fn from_codes(codes: Array<T::Code, D>) -> Self {
        Self::pack_in_range(codes.raw_dim(), codes.iter().copied())
    }
    fn codes(&self) -> CowArray<'_, T::Code, D> {
        self.unpack().into()
    }
    fn raw_dim(&self) -> D {
        self.dim.clone()
    }
    fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }
}
