//! Limits on what a file may cost to read.

use alloc::string::ToString;

use crate::error::{Error, FileError, Result};

/// The greatest rank of a tensor, and so the greatest number of axes or lengths that a node may list.
pub(crate) const MAX_RANK: usize = 64;

/// The most integers that constant folding may compute in one file. Exporters compute shapes: a few integers per node.
const MAX_FOLDED_INTS: usize = 1 << 20;

/// The most floats that constant folding may compute in one file, in addition to [`FOLDED_PER_STORED`] for each float
/// of the file.
const MAX_FOLDED_FLOATS: usize = 1 << 24;

/// Constant folding may copy each weight of the file a few times: to transpose it, to scale it, to negate it.
const FOLDED_PER_STORED: usize = 4;

/// The limits that a caller sets with [`OnnxReader`](super::OnnxReader).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) nodes: usize,
    pub(crate) elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: i32::MAX as usize, nodes: 1 << 16, elements: 1 << 28 }
    }
}

impl Limits {
    /// The error for a file, or a part of it, that exceeds a limit.
    pub(crate) fn exceeded(what: &'static str, max: usize, found: impl ToString) -> Error {
        FileError::Limit { what, max, found: found.to_string() }.into()
    }

    pub(crate) fn check_bytes(&self, bytes: u64) -> Result<()> {
        if bytes <= self.bytes as u64 {
            return Ok(());
        }
        Err(Self::exceeded("bytes of the ONNX file", self.bytes, bytes))
    }

    pub(crate) fn check_nodes(&self, nodes: usize) -> Result<()> {
        if nodes <= self.nodes {
            return Ok(());
        }
        Err(Self::exceeded("number of nodes", self.nodes, nodes))
    }

    /// Checks the rank and the number of elements of a tensor for a batch of one.
    pub(crate) fn check_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        if shape.len() > MAX_RANK {
            return Err(Self::exceeded("rank of a tensor", MAX_RANK, format_args!("{} for {name:?}", shape.len())));
        }
        if !fits(shape, self.elements) {
            let found = format_args!("shape {shape:?} of {name:?}");
            return Err(Self::exceeded("elements of a tensor", self.elements, found));
        }
        Ok(())
    }
}

/// Returns whether a tensor has at most `max_elements` elements, also without the axes that make it empty.
pub(crate) fn fits(shape: &[usize], max_elements: usize) -> bool {
    let lengths = shape.iter().filter(|&&len| len != 0);
    lengths.copied().try_fold(1usize, usize::checked_mul).is_some_and(|count| count <= max_elements)
}

/// The numbers of elements that constant folding may still compute.
#[derive(Debug)]
pub(crate) struct FoldingBudget {
    floats: usize,
    ints: usize,
}

impl FoldingBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { floats: MAX_FOLDED_FLOATS.min(limits.elements), ints: MAX_FOLDED_INTS }
    }

    /// Raises the budget for `count` floats that the file itself holds.
    pub(crate) fn add_stored(&mut self, count: usize) {
        self.floats = self.floats.saturating_add(count.saturating_mul(FOLDED_PER_STORED));
    }

    pub(crate) fn spend_floats(&mut self, count: usize) -> Result<()> {
        Self::spend(&mut self.floats, count)
    }

    pub(crate) fn spend_ints(&mut self, count: usize) -> Result<()> {
        Self::spend(&mut self.ints, count)
    }

    fn spend(left: &mut usize, count: usize) -> Result<()> {
        match left.checked_sub(count) {
            Some(rest) => *left = rest,
            None => {
                return Err(Limits::exceeded("elements that constant folding may still compute", *left, count));
            }
        }
        Ok(())
    }
}
