use alloc::{vec, vec::Vec};
use core::marker::PhantomData;

use ndarray::{Array, CowArray, Dimension};

use super::{Code, Element, Storage};
use crate::error::{ParamsError, Result, check_count, elements};
use crate::simd::{self, Task};

/// A tensor of 4-bit or 2-bit codes, packed two or four to a byte.
///
/// Codes are in row-major order, without padding between rows. The first code of a byte is in its lowest bits, as in
/// ONNX and TFLite. Unused bits of the last byte are zero. The size is `ceil(len * BITS / 8)` bytes.
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
    serde(
        bound(serialize = "D: serde::Serialize", deserialize = "D: serde::Deserialize<'de>"),
        try_from = "Serialized<D>"
    )
)]
pub struct Packed<T: Element, D: Dimension> {
    dim: D,
    bytes: Vec<u8>,
    #[cfg_attr(feature = "serde", serde(skip))]
    element: PhantomData<T>,
}

/// The serialized form of a packed tensor, checked when it is read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Packed")]
struct Serialized<D> {
    dim: D,
    bytes: Vec<u8>,
}

#[cfg(feature = "serde")]
impl<T: Element, D: Dimension> TryFrom<Serialized<D>> for Packed<T, D> {
    type Error = crate::Error;
    fn try_from(tensor: Serialized<D>) -> Result<Self> {
        Self::from_bytes(tensor.dim, tensor.bytes)
    }
}

impl<T: Element, D: Dimension> Packed<T, D> {
    const PER_BYTE: usize = {
        assert!(T::BITS < 8, "Packed holds codes of fewer than 8 bits: I4, U4, I2 or U2");
        (8 / T::BITS) as usize
    };

    /// Packs an array with one code per element. Any strides.
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) if a code is outside `T::MIN..=T::MAX`.
    pub fn pack(codes: &ndarray::ArrayRef<T::Code, D>) -> Result<Self> {
        check_codes::<T, D>(codes)?;
        Ok(Self::pack_in_range(codes))
    }

    /// Creates a tensor from `ceil(len * BITS / 8)` packed bytes. Unused bits of the last byte are cleared.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the number of bytes differs or if no array can have this shape.
    pub fn from_bytes(shape: impl ndarray::IntoDimension<Dim = D>, mut bytes: Vec<u8>) -> Result<Self> {
        let dim = shape.into_dimension();
        let expected = elements("packed tensor", dim.slice())?.div_ceil(Self::PER_BYTE);
        check_count("number of packed bytes", expected, bytes.len())?;
        let used = dim.size() % Self::PER_BYTE;
        if let (Some(last), 1..) = (bytes.last_mut(), used) {
            *last &= 0xff >> (8 - used * T::BITS as usize);
        }
        Ok(Self { dim, bytes, element: PhantomData })
    }

    /// Returns the packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.dim.size()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the shape in elements.
    pub fn shape(&self) -> &[usize] {
        self.dim.slice()
    }

    /// Returns an array with one code per element, in row-major order.
    pub fn unpack(&self) -> Array<T::Code, D> {
        let mut codes = vec![T::Code::default(); self.len()];
        simd::run(Unpack::<T> { bytes: &self.bytes, codes: &mut codes });
        Array::from_shape_vec(self.dim.clone(), codes).expect("as many codes as the shape has elements")
    }

    fn pack_in_range(codes: &ndarray::ArrayRef<T::Code, D>) -> Self {
        let mut bytes = vec![0u8; codes.len().div_ceil(Self::PER_BYTE)];
        let row_major = codes.as_standard_layout();
        let row_major = row_major.as_slice().expect("standard layout is a slice");
        simd::run(Pack::<T> { codes: row_major, bytes: &mut bytes });
        Self { dim: codes.raw_dim(), bytes, element: PhantomData }
    }
}

/// Returns an error if a code is outside the range of the element type.
pub(crate) fn check_codes<T: Element, D: Dimension>(codes: &ndarray::ArrayRef<T::Code, D>) -> Result<()> {
    let inside = |code: &T::Code| (code.to_i32() >= T::MIN) & (code.to_i32() <= T::MAX);
    // Without a branch, so that the loop vectorizes. The invalid code is searched only if there is one.
    if codes.fold(true, |all, code| all & inside(code)) {
        return Ok(());
    }
    let found = codes.iter().find(|code| !inside(code)).map_or(0, |code| code.to_i32());
    Err(ParamsError::CodeRange { min: T::MIN, max: T::MAX, found_min: found, found_max: found }.into())
}

/// Packed bytes per iteration of a vectorized loop.
const CHUNK: usize = 32;

/// Packs codes into bytes: code `i` of a byte takes the bits from `i * BITS` on.
struct Pack<'a, T: Element> {
    codes: &'a [T::Code],
    bytes: &'a mut [u8],
}

impl<T: Element> Pack<'_, T> {
    /// Packs the codes of one byte. The last byte may have fewer codes.
    #[inline(always)]
    fn byte(codes: &[T::Code]) -> u8 {
        let mut byte = 0;
        for (i, code) in codes.iter().enumerate() {
            byte |= (code.to_i32() as u8 & mask::<T>()) << (i as u32 * T::BITS);
        }
        byte
    }
}

impl<T: Element> Task for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let per_byte = (8 / T::BITS) as usize;
        let (codes, codes_rest) = self.codes.split_at(self.codes.len() / (CHUNK * per_byte) * CHUNK * per_byte);
        let (bytes, bytes_rest) = self.bytes.split_at_mut(codes.len() / per_byte);
        for (bytes, codes) in bytes.as_chunks_mut::<CHUNK>().0.iter_mut().zip(codes.chunks_exact(CHUNK * per_byte)) {
            let mut chunk = [0; CHUNK];
            for i in 0..CHUNK {
                chunk[i] = Self::byte(&codes[i * per_byte..(i + 1) * per_byte]);
            }
            *bytes = chunk;
        }
        for (byte, codes) in bytes_rest.iter_mut().zip(codes_rest.chunks(per_byte)) {
            *byte = Self::byte(codes);
        }
    }
}

/// Unpacks bytes into codes.
struct Unpack<'a, T: Element> {
    bytes: &'a [u8],
    codes: &'a mut [T::Code],
}

impl<T: Element> Unpack<'_, T> {
    /// Returns code `i` of a byte. A left and an arithmetic right shift extend the sign of a signed code.
    #[inline(always)]
    fn code(byte: u8, i: usize) -> T::Code {
        let up = 8 - T::BITS;
        let bits = (byte >> (i as u32 * T::BITS)) << up;
        T::Code::from_i32(if T::MIN < 0 { (bits as i8 >> up) as i32 } else { (bits >> up) as i32 })
    }
}

impl<T: Element> Task for Unpack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let per_byte = (8 / T::BITS) as usize;
        let (codes, codes_rest) = self.codes.split_at_mut(self.codes.len() / (CHUNK * per_byte) * CHUNK * per_byte);
        let (bytes, bytes_rest) = self.bytes.split_at(codes.len() / per_byte);
        for (codes, &bytes) in codes.chunks_exact_mut(CHUNK * per_byte).zip(bytes.as_chunks::<CHUNK>().0) {
            for i in 0..CHUNK {
                for k in 0..per_byte {
                    codes[i * per_byte + k] = Self::code(bytes[i], k);
                }
            }
        }
        for (i, code) in codes_rest.iter_mut().enumerate() {
            *code = Self::code(bytes_rest[i / per_byte], i % per_byte);
        }
    }
}

/// Returns the mask of one code.
fn mask<T: Element>() -> u8 {
    0xff >> (8 - T::BITS)
}

impl<T: Element, D: Dimension> Storage<T, D> for Packed<T, D> {
    fn shape(&self) -> &[usize] {
        self.shape()
    }
    fn from_codes(codes: Array<T::Code, D>) -> Self {
        Self::pack_in_range(&codes)
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
