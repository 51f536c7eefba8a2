//! `Where` in ONNX files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Where;
use crate::error::Result;
use crate::io::onnx::export::writer::{NodeWriter, int};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::OnnxOperator;
use crate::ops::expand::Expand;
use crate::ops::shape::broadcast;

/// The spelling of [`Where`].
pub(crate) const WHERE: &[OnnxOperator] = &[OnnxOperator::new("Where", &[(9, 3, 3)], &[], select).since(9)];

fn select(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    if (0..3).all(|i| node.input(i).is_some_and(|name| importer.is_constant(name))) {
        return importer.select_constants(node);
    }
    let shapes = [importer.shape(node, 0)?, importer.shape(node, 1)?, importer.shape(node, 2)?];
    let shape = broadcast(&broadcast(&shapes[0], &shapes[1])?, &shapes[2])?;
    let mut inputs = Vec::new();
    for (i, from) in shapes.iter().enumerate() {
        let mut name = importer.as_floats(node.required(i)?, node.output()?)?;
        if *from != shape {
            let wide = importer.new_name(&alloc::format!("{}.input.{i}", node.output()?));
            importer.push_as(Expand { shape: shape.clone() }, alloc::vec![name.to_string()], &wide)?;
            name = wide;
        }
        inputs.push(name);
    }
    let integers = node.input(1).is_some_and(|name| importer.is_integer(name));
    importer.push(node, Where, inputs)?;
    importer.set_integer(node.output()?, integers);
    Ok(())
}

/// Writes a selection. The condition is a float in the graph.
pub(super) fn write(node: &mut NodeWriter<'_>) -> Result<String> {
    let bool_type = alloc::vec![int("to", 9)];
    node.inputs[0] = node.node("Cast", [node.inputs[0].clone()], bool_type);
    node.all("Where", Vec::new())
}
