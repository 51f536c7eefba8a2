//! The nodes that cannot be read or written, all in one error.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, GraphError, Result, UnsupportedUse};

/// Reasons that an error lists.
const LISTED: usize = 50;

/// The nodes that are not supported.
#[derive(Default)]
pub(super) struct Unsupported {
    /// The first node and the number of nodes of each operator and reason.
    uses: BTreeMap<(String, String), (String, usize)>,
}

impl Unsupported {
    /// Notes that a node is not supported. Returns other errors.
    pub(super) fn add(&mut self, error: Error) -> Result<()> {
        let Error::Graph(GraphError::Unsupported { op, node, why }) = error else { return Err(error) };
        self.uses.entry((op, why)).or_insert((node, 0)).1 += 1;
        Ok(())
    }

    /// Returns an error if there are any.
    pub(super) fn check(self) -> Result<()> {
        let uses = self.uses.into_iter();
        let uses = uses.map(|((op, why), (node, count))| UnsupportedUse { op, node, why, count });
        let mut uses: Vec<UnsupportedUse> = uses.collect();
        uses.sort_by_key(|found| core::cmp::Reverse(found.count));
        match &mut uses[..] {
            [] => Ok(()),
            [UnsupportedUse { op, node, why, count: 1 }] => {
                let [op, node, why] = [op, node, why].map(core::mem::take);
                Err(GraphError::Unsupported { op, node, why }.into())
            }
            _ => {
                uses.truncate(LISTED);
                Err(GraphError::UnsupportedNodes { uses }.into())
            }
        }
    }
}
