//! Changes of a graph's constants.

use alloc::collections::BTreeMap;
use alloc::string::String;

use ndarray::ArrayD;

use super::network::{FreshNames, Parts};

/// The parts of a graph whose constants change.
pub(super) struct Edit {
    pub(super) parts: Parts,
    pub(super) names: FreshNames,
    /// See [`Parts::reads`].
    reads: BTreeMap<String, usize>,
}

impl Edit {
    pub(super) fn new(parts: Parts) -> Self {
        Self { names: FreshNames::new(&parts), reads: parts.reads(), parts }
    }

    /// Changes the constant that is an input of node `i`. If anything else reads it too, the node gets a copy under a new
    /// name.
    pub(super) fn update_constant(&mut self, i: usize, input: usize, update: impl FnOnce(&mut ArrayD<f32>)) {
        let Parts { nodes, constants, .. } = &mut self.parts;
        let node = &mut nodes[i];
        let name = node.inputs[input].clone();
        let mut value = constants[&name].clone().into_owned();
        update(&mut value);
        let new = match self.reads.get_mut(&name) {
            Some(reads) if *reads > 1 => {
                *reads -= 1;
                let new = self.names.take(alloc::format!("{name}.{}", node.output));
                self.reads.insert(new.clone(), 1);
                new
            }
            _ => name,
        };
        node.inputs[input].clone_from(&new);
        constants.insert(new, value.into_shared());
    }
}
