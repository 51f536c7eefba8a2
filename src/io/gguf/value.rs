//! Values of metadata.

use super::malformed;
use super::reader::Cursor;
use crate::error::Result;

/// The type of a value of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of the types")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// All types, by their numbers in files.
    const ALL: [Self; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    pub(super) fn from_id(id: u32) -> Result<Self> {
        let found = Self::ALL.get(id as usize).copied();
        found.ok_or_else(|| malformed("type of a metadata value", "a number up to 12", alloc::format!("{id}")))
    }

    pub(super) fn id(self) -> u32 {
        self as u32
    }

    /// Returns the number of bytes of a value, or `None` if it varies.
    fn size(self) -> Option<usize> {
        Some(match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 8,
            ValueType::String | ValueType::Array => return None,
        })
    }
}

/// A value of the metadata.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the names of the types")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// A text. The format demands UTF-8, which is not checked, because tokens of some files are not: see
    /// [`as_str`](Self::as_str).
    String(&'a [u8]),
    Array(ValueArray<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(text.as_bytes())
    }
}

impl<'a> Value<'a> {
    /// Returns the type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// Returns the text, if it is one in UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        if let Value::String(text) = self { core::str::from_utf8(text).ok() } else { None }
    }

    /// Returns the array, if it is one.
    pub fn as_array(&self) -> Option<ValueArray<'a>> {
        if let Value::Array(array) = *self { Some(array) } else { None }
    }

    /// Returns the integer, if it is one of any type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(x) => Some(x.into()),
            Value::U16(x) => Some(x.into()),
            Value::U32(x) => Some(x.into()),
            Value::U64(x) => Some(x),
            Value::I8(x) => x.try_into().ok(),
            Value::I16(x) => x.try_into().ok(),
            Value::I32(x) => x.try_into().ok(),
            Value::I64(x) => x.try_into().ok(),
            _ => None,
        }
    }

    /// Returns the float, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(x) => Some(x.into()),
            Value::F64(x) => Some(x),
            _ => None,
        }
    }

    /// Reads a value of this type.
    pub(super) fn read(cursor: &mut Cursor<'a>, value_type: ValueType) -> Result<Self> {
        Ok(match value_type {
            ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array()?)),
            ValueType::U32 => Value::U32(cursor.u32()?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array()?)),
            ValueType::Bool => Value::Bool(cursor.array::<1>()? != [0]),
            ValueType::String => Value::String(cursor.string()?),
            ValueType::Array => Value::Array(ValueArray::read(cursor)?),
            ValueType::U64 => Value::U64(cursor.u64()?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array()?)),
        })
    }

    /// Appends the value as files hold it.
    pub(super) fn write(&self, bytes: &mut alloc::vec::Vec<u8>) {
        match *self {
            Value::U8(x) => bytes.extend(x.to_le_bytes()),
            Value::I8(x) => bytes.extend(x.to_le_bytes()),
            Value::U16(x) => bytes.extend(x.to_le_bytes()),
            Value::I16(x) => bytes.extend(x.to_le_bytes()),
            Value::U32(x) => bytes.extend(x.to_le_bytes()),
            Value::I32(x) => bytes.extend(x.to_le_bytes()),
            Value::F32(x) => bytes.extend(x.to_le_bytes()),
            Value::Bool(x) => bytes.push(x.into()),
            Value::String(text) => {
                bytes.extend((text.len() as u64).to_le_bytes());
                bytes.extend(text);
            }
            Value::Array(array) => {
                bytes.extend(array.value_type.id().to_le_bytes());
                bytes.extend((array.len as u64).to_le_bytes());
                bytes.extend(array.bytes);
            }
            Value::U64(x) => bytes.extend(x.to_le_bytes()),
            Value::I64(x) => bytes.extend(x.to_le_bytes()),
            Value::F64(x) => bytes.extend(x.to_le_bytes()),
        }
    }
}

/// An array of the metadata, such as the tokens of a vocabulary: values of one type, which are read when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueArray<'a> {
    value_type: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> ValueArray<'a> {
    /// Returns the type of the values.
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Iterates over the values.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut cursor, value_type) = (Cursor::new(self.bytes), self.value_type);
        // The values were checked when the array was read.
        (0..self.len).map_while(move |_| Value::read(&mut cursor, value_type).ok())
    }

    fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        let value_type = ValueType::from_id(cursor.u32()?)?;
        let len = cursor.length("length of an array")?;
        let start = cursor.rest();
        match value_type.size() {
            Some(size) => drop(cursor.take(len.saturating_mul(size))?),
            None if value_type == ValueType::Array => {
                return Err(malformed("array of the metadata", "values that are no arrays", "arrays"));
            }
            // Each string has at least the bytes of its length, so the loop ends with the file.
            None => (0..len).try_for_each(|_| cursor.string().map(drop))?,
        }
        Ok(Self { value_type, len, bytes: &start[..start.len() - cursor.rest().len()] })
    }
}
