//! What exporters compute around `Reshape`: integers that are known when the file is read.

use alloc::vec::Vec;

use ndarray::{ArrayD, IxDyn};

use super::import::Importer;
use super::node::Source;
use super::tensor::Known;
use crate::error::Result;

impl Importer {
    /// Nodes on integers that are known, as exporters write them around `Reshape`. Returns whether this was one.
    pub(super) fn integers(&mut self, source: &Source) -> Result<bool> {
        let one = |values: Vec<i64>| ArrayD::from_shape_vec(IxDyn(&[values.len()]), values).ok();
        let int = |i: usize| match source.input(i).and_then(|name| self.known(name)) {
            Some(Known::Int(values)) => Some(values.clone()),
            _ => None,
        };
        let value = match source.op() {
            "Constant" => match source.tensor("value") {
                Some(value) => Some(value?),
                None if source.has("value_int") => {
                    Some(Known::Int(ArrayD::from_elem(IxDyn(&[]), source.int("value_int", 0))))
                }
                None if source.has("value_ints") => {
                    one(source.ints("value_ints").unwrap_or_default().to_vec()).map(Known::Int)
                }
                None if source.has("value_float") => {
                    Some(Known::Float(ArrayD::from_elem(IxDyn(&[]), source.float("value_float", 0.0)).into_shared()))
                }
                None => return Err(source.unsupported("a constant of this kind")),
            },
            "Shape" => {
                if source.has("start") || source.has("end") {
                    return Err(source.unsupported("a part of a shape"));
                }
                let shape = self.shape(source, 0)?;
                one(shape.iter().map(|&len| len as i64).collect()).map(Known::Int)
            }
            "Gather" => match (int(0), int(1)) {
                (Some(values), Some(at)) if values.ndim() == 1 && source.int("axis", 0) == 0 => {
                    let pick = |&i: &i64| source.axis(i, values.len()).map(|i| values[[i]]);
                    let picked = at.iter().map(pick).collect::<Result<Vec<_>>>()?;
                    ArrayD::from_shape_vec(at.raw_dim(), picked).ok().map(Known::Int)
                }
                _ => return Err(source.unsupported("anything but integers that are known")),
            },
            "Unsqueeze" | "Squeeze" => match int(0) {
                Some(values) if values.len() == 1 && values.ndim() <= 1 => {
                    let shape = if source.op() == "Squeeze" { &[][..] } else { &[1][..] };
                    values.into_shape_with_order(IxDyn(shape)).ok().map(Known::Int)
                }
                _ => None,
            },
            "Cast" => int(0).map(Known::Int),
            "Concat" => {
                let parts: Option<Vec<ArrayD<i64>>> = (0..source.node.input.len()).map(int).collect();
                let joined = |parts: Vec<ArrayD<i64>>| parts.iter().flatten().copied().collect();
                parts.filter(|parts| !parts.is_empty()).and_then(|parts| one(joined(parts))).map(Known::Int)
            }
            _ => None,
        };
        match value {
            Some(value) => self.know(source.output()?, value).map(|()| true),
            None => Ok(false),
        }
    }
}
