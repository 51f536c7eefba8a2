//! Memory that products and operators reuse from call to call.

use alloc::{boxed::Box, vec::Vec};
use core::any::Any;
use core::fmt;

use super::aligned::AlignedBytes;
use super::lhs::LhsBlock;

/// Memory that products and operators reuse from call to call.
///
/// Keep one per caller and pass it to `_into` functions: they allocate nothing once it has grown to their problems.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    pub(super) threads: Vec<ThreadScratch>,
    /// A copy of the input in standard layout, if the caller's is not.
    pub(crate) input: ScratchSlot,
    /// The output in standard layout, if the caller's is not.
    pub(crate) output: ScratchSlot,
    pub(crate) depthwise: ScratchSlot,
}

impl Workspace {
    /// Creates an empty workspace.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The scratch of one thread.
#[derive(Debug, Clone, Default)]
pub(super) struct ThreadScratch {
    pub(super) lhs: LhsBlock,
    pub(super) tile: Vec<i32>,
    /// Scratch of AMX.
    pub(super) hardware_tiles: AlignedBytes,
    pub(super) start: Vec<i32>,
    pub(super) zero_points: Vec<i32>,
    /// A tile of outputs on its way to a strided array.
    pub(super) outputs: ScratchSlot,
}

/// Scratch of any type. It is kept as long as the type stays the same.
#[derive(Default)]
pub(crate) struct ScratchSlot(Option<Box<dyn Any + Send + Sync>>);

impl ScratchSlot {
    /// Takes the scratch out, with unspecified content, or creates one.
    pub(crate) fn take<T: Default + Send + Sync + 'static>(&mut self) -> Box<T> {
        self.0.take().and_then(|kept| kept.downcast().ok()).unwrap_or_default()
    }

    /// Puts the scratch back for the next call.
    pub(crate) fn put<T: Send + Sync + 'static>(&mut self, scratch: Box<T>) {
        self.0 = Some(scratch);
    }
}

/// A clone is empty: the content has no meaning between calls.
impl Clone for ScratchSlot {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for ScratchSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScratchSlot")
    }
}
