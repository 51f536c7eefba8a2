//! Graphs: nodes, names, operators, memory.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::Error;

/// Invalid use of a graph, or an error in one of its nodes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum GraphError {
    /// An error in one node. [`source`](core::error::Error::source) is the cause.
    Node {
        /// The node's name.
        node: String,
        /// The cause.
        error: Box<Error>,
    },
    /// A name does not exist.
    Unknown {
        /// The kind of named thing, such as `tensor`.
        what: &'static str,
        /// The unknown name.
        name: String,
        /// The most similar names that exist, best first.
        nearest: Vec<String>,
    },
    /// A name is taken, or does not fit what it names.
    Name {
        /// The kind of named thing, such as `tensor`.
        what: &'static str,
        /// The names that are valid.
        expected: &'static str,
        /// The name found.
        found: String,
    },
    /// An operator, attribute or input is not supported.
    Unsupported {
        /// The operator's name.
        op: String,
        /// The node's name.
        node: String,
        /// The unsupported part.
        why: String,
    },
    /// Several nodes of a file are not supported.
    UnsupportedNodes {
        /// What is not supported, the most frequent first.
        uses: Vec<UnsupportedUse>,
    },
    /// The inputs of a node or network do not have the number or the kind that it takes.
    Inputs {
        /// The number or the kind that is valid.
        expected: String,
        /// The inputs found.
        found: String,
    },
    /// The outputs of a network do not have the number or the kind that the call returns.
    Outputs {
        /// The number or the kind that is valid.
        expected: String,
        /// The outputs found.
        found: String,
    },
    /// An argument belongs to another graph.
    Mismatch {
        /// The argument.
        what: &'static str,
        /// The graph that is expected.
        expected: &'static str,
        /// The argument found.
        found: String,
    },
    /// A run needs more memory than the limit of its arena.
    Memory {
        /// The limit in bytes.
        limit: usize,
        /// The bytes that the run needs.
        found: usize,
        /// The size of the batch.
        batch: usize,
    },
}

/// An operator, attribute or input that is not supported, and the nodes that have it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UnsupportedUse {
    /// The operator's name.
    pub op: String,
    /// The name of the first node.
    pub node: String,
    /// The unsupported part.
    pub why: String,
    /// The number of nodes.
    pub count: usize,
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node, error } => write!(f, "node {node:?}: {error}"),
            Self::Unknown { what, name, nearest } => {
                write!(f, "unknown {what} {name:?}")?;
                nearest.iter().enumerate().try_for_each(|(i, name)| {
                    let separator = if i == 0 { "; similar: " } else { ", " };
                    write!(f, "{separator}{name:?}")
                })
            }
            Self::Name { what, expected, found } => write!(f, "{what}: expected {expected}, found {found:?}"),
            Self::Unsupported { op, node, why } => write!(f, "operator {op} of node {node:?} is not supported: {why}"),
            Self::UnsupportedNodes { uses } => {
                let count: usize = uses.iter().map(|use_| use_.count).sum();
                write!(f, "{count} nodes are not supported")?;
                uses.iter().enumerate().try_for_each(|(i, UnsupportedUse { op, node, why, count })| {
                    let separator = if i == 0 { ": " } else { "; " };
                    write!(f, "{separator}{op} ({count}, such as {node:?}): {why}")
                })
            }
            Self::Inputs { expected, found } => write!(f, "inputs: expected {expected}, found {found}"),
            Self::Outputs { expected, found } => write!(f, "outputs: expected {expected}, found {found}"),
            Self::Mismatch { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
            Self::Memory { limit, found, batch } => write!(
                f,
                "memory of a run: expected at most {limit} bytes (see Arena::with_max_bytes), \
                 found {found} bytes for a batch of {batch}"
            ),
        }
    }
}

// Not derived: the source is the error itself, so that a caller can downcast it, not the box around it.
impl core::error::Error for GraphError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Node { error, .. } => Some(&**error),
            _ => None,
        }
    }
}
