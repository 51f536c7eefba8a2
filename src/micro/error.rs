//! Errors of models. They hold no text of their own, so that a program without a heap can return them.

use thiserror::Error;

/// An invalid model, or a buffer of the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The bytes do not start as a model does.
    #[error("bytes of a model: expected the magic number of a model, found other bytes")]
    Magic,
    /// The version of the format is another one.
    #[error("version of a model: expected {expected}, found {found}")]
    Version {
        /// The version that this crate reads.
        expected: u32,
        /// The version found.
        found: u32,
    },
    /// The bytes are not as many as the header says.
    #[error("length of a model: expected {expected} bytes, found {found}")]
    Length {
        /// The length in the header; the length of the header if the bytes are shorter.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// The checksum does not match the bytes.
    #[error("checksum of a model: expected {expected:#010x}, found {found:#010x}")]
    Checksum {
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A step is invalid.
    #[error("step {step} of a model: {what}")]
    Step {
        /// The index of the step.
        step: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The header is invalid.
    #[error("header of a model: {what}")]
    Header {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A buffer of a run has the wrong length.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Buffer {
        /// The buffer.
        what: &'static str,
        /// The length that the model needs.
        expected: usize,
        /// The length found.
        found: usize,
    },
}
