//! Elements of an axis by their positions.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD, Axis};

use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::movement::Movement;
use super::operator::{FloatNode, Inputs, Operator};
use super::shape::Shape;
use crate::error::{Error, GraphError, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The elements of an axis at constant positions, in this order (ONNX: `Gather` with constant indices of rank 1).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Gather {
    /// The axis.
    pub axis: usize,
    /// The positions.
    pub indices: Vec<usize>,
}

impl Movement for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        let Some(&len) = x.get(self.axis) else { return Err(Error::axis(x.len(), self.axis)) };
        if let Some(found) = self.indices.iter().find(|&&at| at >= len) {
            let found = alloc::format!("{found} for an axis of length {len}");
            return Err(Error::Argument { what: "indices", expected: "positions of the axis", found });
        }
        let mut shape = x.to_vec();
        shape[self.axis] = self.indices.len();
        Ok(shape)
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        x.select(Axis(self.axis), &self.indices)
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        let indices = node.ints(&self.indices);
        node.inputs.push(indices);
        node.all("Gather", alloc::vec![crate::io::onnx::export::writer::int("axis", self.axis)])
    }
}

/// The rows of a constant table, the first input `[rows, ..]`, at positions that are computed: embeddings (ONNX: `Gather` of
/// a constant with axis 0). Negative positions count from the end.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Embedding;

impl Operator for Embedding {
    fn name(&self) -> &'static str {
        "Embedding"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (2..=2, "2 (table, positions)")
    }

    fn stores_constants(&self) -> bool {
        true
    }

    fn takes_exact_values(&self, input: usize) -> bool {
        input == 1
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        if inputs.constant != [true, false] {
            let (expected, found) = ("a constant table and computed positions".into(), "others".into());
            return Err(GraphError::Inputs { expected, found }.into());
        }
        let (table, at) = (inputs.shapes[0], inputs.shapes[1]);
        let shape = [at, table.get(1..).unwrap_or_default()].concat();
        if table.is_empty() || at.len() == 4 || shape.len() == 4 {
            return Err(Error::layout("positions", "positions and rows that are not of rank 4 together", &shape));
        }
        Ok(shape)
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let rows = node.inputs[0][0];
        Some(Box::new(EmbeddingKernel { rows, table: node.vector(0).expect("checked when the graph was made") }))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        let positions = node.inputs[1].clone();
        node.inputs[1] = node.node("Cast", [positions], alloc::vec![crate::io::onnx::export::writer::int("to", 7)]);
        node.all("Gather", Vec::new())
    }
}

#[derive(Debug)]
struct EmbeddingKernel {
    rows: usize,
    table: Vec<f32>,
}

impl Kernel for EmbeddingKernel {
    fn size_in_bytes(&self) -> usize {
        size_of_val(&self.table[..])
    }

    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let len = self.table.len().checked_div(self.rows).unwrap_or(0).max(1);
        for (&at, y) in inputs[0].as_slice::<f32>().iter().zip(output.into_slice::<f32>().chunks_exact_mut(len)) {
            let row = if at < 0.0 { at + self.rows as f32 } else { at };
            if !(0.0..self.rows as f32).contains(&row) {
                let found = alloc::format!("{at} for a table of {} rows", self.rows);
                return Err(Error::Argument { what: "position", expected: "a row of the table", found });
            }
            y.copy_from_slice(&self.table[row as usize * len..][..len]);
        }
        Ok(())
    }
}
