//! Arena that products and operators reuse from call to call.

use alloc::{boxed::Box, vec::Vec};
use core::any::Any;
use core::fmt;

use super::lhs::LhsBlock;

/// Arena that products and operators reuse from call to call.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// One for each thread.
    pub(super) parts: Vec<PartSpace>,
    /// Tensors in standard layout, where those of the caller are not.
    pub(crate) input: Room,
    pub(crate) output: Room,
    /// What depthwise convolutions keep.
    pub(crate) depthwise: Room,
}

impl Workspace {
    /// An empty one; it grows to the problems that it serves.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The memory of one thread.
#[derive(Debug, Clone, Default)]
pub(super) struct PartSpace {
    pub(super) lhs: LhsBlock,
    pub(super) tile: Vec<i32>,
    pub(super) start: Vec<i32>,
    pub(super) zero_points: Vec<i32>,
    /// Outputs on their way to where they are strided.
    pub(super) outputs: Room,
}

/// Room for a thing of whatever type comes; it is kept as long as the type stays the same.
#[derive(Default)]
pub(crate) struct Room(Option<Box<dyn Any + Send + Sync>>);

impl Room {
    /// Takes out what is in it, whatever its content, or a new one.
    pub(crate) fn take<T: Default + Send + Sync + 'static>(&mut self) -> Box<T> {
        self.0.take().and_then(|kept| kept.downcast().ok()).unwrap_or_default()
    }

    /// Puts it back for the next call.
    pub(crate) fn put<T: Send + Sync + 'static>(&mut self, thing: Box<T>) {
        self.0 = Some(thing);
    }
}

/// A copy starts empty: nothing that is in it has a meaning.
impl Clone for Room {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}
