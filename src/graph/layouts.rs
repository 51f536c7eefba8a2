//! The layout of each tensor: channels last where an operator on images reads or writes it, else row-major.
//!
//! Tensors that one operator reads and writes in the same layout form a set, and a set has one layout. Only operators that
//! change the axes, and products of matrices, stand between sets: they read one layout and write the other.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::network::{Graph, Node};
use crate::ops::nhwc::Layout;
use crate::ops::operator::Layouts;

/// The layouts of the tensors of a graph.
pub(crate) struct TensorLayouts<'g> {
    index: BTreeMap<&'g str, usize>,
    layouts: Vec<Layout>,
}

impl<'g> TensorLayouts<'g> {
    pub(crate) fn new(graph: &'g Graph) -> Self {
        let images = graph.shapes().iter().filter(|(_, shape)| shape.len() == 4);
        let index: BTreeMap<&str, usize> = images.enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
        let mut sets = Sets((0..index.len()).collect());
        let tensors = |node: &'g Node| {
            // Kernels that store constants have them in the order that they need.
            let stored = node.operator().stores_constants();
            let names =
                node.inputs.iter().filter(move |name| !(stored && graph.is_constant(name))).chain([&node.output]);
            names.filter_map(|name| index.get(name.as_str()).copied())
        };
        for node in graph.nodes().iter().filter(|node| node.operator().layouts() != Layouts::Any) {
            let mut tensors = tensors(node);
            if let Some(first) = tensors.next() {
                tensors.for_each(|tensor| sets.join(first, tensor));
            }
        }
        let mut channels_last = alloc::vec![false; index.len()];
        for node in graph.nodes().iter().filter(|node| node.operator().layouts() == Layouts::ChannelsLast) {
            tensors(node).for_each(|tensor| channels_last[sets.find(tensor)] = true);
        }
        let layout = |tensor| if channels_last[sets.find(tensor)] { Layout::ChannelsLast } else { Layout::RowMajor };
        let layouts = (0..index.len()).map(layout).collect();
        Self { index, layouts }
    }

    pub(crate) fn of(&self, name: &str) -> Layout {
        self.index.get(name).map_or(Layout::RowMajor, |&tensor| self.layouts[tensor])
    }
}

/// A disjoint-set forest.
struct Sets(Vec<usize>);

impl Sets {
    fn find(&self, mut tensor: usize) -> usize {
        while self.0[tensor] != tensor {
            tensor = self.0[tensor];
        }
        tensor
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        // Short paths: the smaller index is the root.
        self.0[a.max(b)] = a.min(b);
    }
}
