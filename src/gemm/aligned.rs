//! Byte buffers that start at a cache line.

use alloc::{vec, vec::Vec};

/// Bytes that start at a cache line, so that no vector load of a panel crosses two.
#[derive(Debug, Default)]
pub(crate) struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// Bytes of a cache line.
    pub(crate) const LINE: usize = 64;

    pub(crate) fn zeroed(len: usize) -> Self {
        let mut aligned = Self::default();
        aligned.resize(len);
        aligned
    }

    /// Changes the length and leaves the content unspecified.
    pub(crate) fn resize(&mut self, len: usize) {
        if self.bytes.len() < len + Self::LINE {
            self.bytes = vec![0; len + Self::LINE];
            self.start = self.bytes.as_ptr().align_offset(Self::LINE).min(Self::LINE);
        }
        self.len = len;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}
