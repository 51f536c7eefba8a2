//! Buffers that start at a cache line.

use alloc::{vec, vec::Vec};
use core::ops::{Deref, DerefMut};

/// Elements that start at a cache line, so that no vector load of whole registers crosses two.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

pub(crate) type AlignedBytes = Aligned<u8>;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

impl<T: Copy + Default> Aligned<T> {
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut aligned = Self { values: Vec::new(), start: 0, len: 0 };
        aligned.resize(len);
        aligned
    }

    /// Changes the length and leaves the content unspecified.
    pub(crate) fn resize(&mut self, len: usize) {
        let padding = LINE / size_of::<T>();
        if self.values.len() < len + padding {
            self.values = vec![T::default(); len + padding];
            self.start = self.values.as_ptr().align_offset(LINE).min(padding);
        }
        self.len = len;
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.len]
    }
}

impl<T: Copy + Default> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}
