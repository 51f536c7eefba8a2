//! Folds integer constants: the shape computations that exporters write around `Reshape`.

use alloc::vec::Vec;

use ndarray::{ArcArray, ArrayD, IxDyn};

use super::import::Importer;
use super::node::OnnxNode;
use super::tensor::{ConstantTensor, IntTensor, data_type};
use crate::error::Result;

impl Importer {
    /// Computes the output of `Constant` and `Shape`, and of nodes whose inputs are integer constants. Returns `None`
    /// for other nodes.
    pub(super) fn integer_constant(&mut self, node: &OnnxNode) -> Result<Option<ConstantTensor>> {
        let value = match node.op() {
            "Constant" => return self.constant_node(node).map(Some),
            "Shape" => self.shape_node(node)?,
            "Gather" => self.gather(node)?,
            "Cast" => return self.cast(node).map(Some),
            "Squeeze" | "Unsqueeze" => match self.int_input(node, 0) {
                Some(values) => self.reshape_ints(node, values)?,
                None => return Ok(None),
            },
            "Concat" => {
                let parts: Option<Vec<IntTensor>> =
                    (0..node.node.input.len()).map(|i| self.int_input(node, i)).collect();
                match parts {
                    Some(parts) => self.concat_ints(node, &parts)?,
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(ConstantTensor::Int(value)))
    }

    fn int_input(&self, node: &OnnxNode, i: usize) -> Option<IntTensor> {
        match node.input(i).and_then(|name| self.constant(name)) {
            Some(ConstantTensor::Int(values)) => Some(values.clone()),
            _ => None,
        }
    }

    fn constant_node(&mut self, node: &OnnxNode) -> Result<ConstantTensor> {
        let [attribute] = &node.node.attribute[..] else {
            return Err(node.malformed("node", "one value", node.node.attribute.len()));
        };
        let value = match &*attribute.name {
            "value" => node
                .tensor("value", self.limits.elements)
                .ok_or_else(|| node.malformed("attribute value", "a tensor", "none"))??,
            "value_int" => ConstantTensor::Int(scalar(attribute.i)),
            "value_ints" => ConstantTensor::Int(vector(attribute.ints.clone())),
            "value_float" => ConstantTensor::Float(scalar(attribute.f)),
            _ => ConstantTensor::Float(vector(attribute.floats.clone())),
        };
        if let ConstantTensor::Float(values) = &value {
            if values.iter().any(|x| x.is_nan()) {
                return Err(node.malformed("node", "numbers", "NaN"));
            }
            self.budget.add_stored(values.len());
        }
        Ok(value)
    }

    fn shape_node(&mut self, node: &OnnxNode) -> Result<IntTensor> {
        let shape = self.shape(node, 0)?;
        let ndim = shape.len() as i64;
        let clamped = |name, default| {
            let axis: i64 = node.int(name, default);
            (if axis < 0 { axis.saturating_add(ndim) } else { axis }).clamp(0, ndim) as usize
        };
        let (start, end) = (clamped("start", 0), clamped("end", ndim));
        self.budget.spend_ints(shape.len())?;
        Ok(vector(shape[start..end.max(start)].iter().map(|&len| len as i64).collect()))
    }

    fn gather(&mut self, node: &OnnxNode) -> Result<IntTensor> {
        let (Some(values), Some(at)) = (self.int_input(node, 0), self.int_input(node, 1)) else {
            return Err(node.unsupported("its inputs are not integer constants"));
        };
        if values.ndim() != 1 {
            return Err(node.unsupported(alloc::format!("elements of a tensor of shape {:?}", values.shape())));
        }
        node.axis(node.int("axis", 0), 1)?;
        self.budget.spend_ints(at.len())?;
        let pick = |&i: &i64| node.axis(i, values.len()).map(|i| values[[i]]);
        let picked = at.iter().map(pick).collect::<Result<Vec<_>>>()?;
        Ok(ArrayD::from_shape_vec(at.raw_dim(), picked).expect("one value for each index").into_shared())
    }

    fn cast(&mut self, node: &OnnxNode) -> Result<ConstantTensor> {
        let Some(values) = self.int_input(node, 0) else {
            return Err(node.unsupported("its input is not an integer constant"));
        };
        match node.required_int("to")? {
            // INT64
            7 => Ok(ConstantTensor::Int(values)),
            // INT32
            6 => {
                self.budget.spend_ints(values.len())?;
                match values.iter().find(|&&value| i32::try_from(value).is_err()) {
                    Some(value) => Err(node.malformed("cast to INT32", "values of 32 bits", value)),
                    None => Ok(ConstantTensor::Int(values)),
                }
            }
            // FLOAT
            1 => {
                self.budget.spend_floats(values.len())?;
                Ok(ConstantTensor::Float(values.mapv(|value| value as f32).into_shared()))
            }
            to => {
                let to = i32::try_from(to).map_or_else(|_| alloc::format!("{to}"), data_type);
                Err(node.unsupported(alloc::format!("attribute to = {to}")))
            }
        }
    }

    fn reshape_ints(&self, node: &OnnxNode, values: IntTensor) -> Result<IntTensor> {
        let axes = self.int_list(node, "axes", 1)?;
        let shape = if node.op() == "Squeeze" {
            squeezed(node, values.shape(), axes.as_deref())?
        } else {
            unsqueezed(node, values.shape(), axes.as_deref())?
        };
        self.limits.check_shape(node.output()?, &shape)?;
        Ok(values.into_shape_with_order(IxDyn(&shape)).expect("the same number of elements"))
    }

    fn concat_ints(&mut self, node: &OnnxNode, parts: &[IntTensor]) -> Result<IntTensor> {
        if let Some(part) = parts.iter().find(|part| part.ndim() != 1) {
            return Err(node.unsupported(alloc::format!("integers of shape {:?}", part.shape())));
        }
        node.axis(self.concat_axis(node)?, 1)?;
        self.budget.spend_ints(parts.iter().map(|part| part.len()).fold(0, usize::saturating_add))?;
        Ok(vector(parts.iter().flatten().copied().collect()))
    }

    /// The attribute `axis` of `Concat`, which has a default in opsets 1 to 3 only.
    pub(super) fn concat_axis(&self, node: &OnnxNode) -> Result<i64> {
        if self.opset < 4 { Ok(node.int("axis", 1)) } else { node.required_int("axis") }
    }
}

/// The shape without the axes of length 1 at `axes`, or without all axes of length 1.
pub(super) fn squeezed(node: &OnnxNode, shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
    let axes = match axes {
        Some(axes) => node.axes(axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        let expected = alloc::format!("axis {axis} of length 1");
        return Err(node.malformed("tensor", expected, alloc::format!("shape {shape:?}")));
    }
    Ok((0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect())
}

/// The shape with axes of length 1 inserted at `axes`.
pub(super) fn unsqueezed(node: &OnnxNode, shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
    let axes = axes.ok_or_else(|| node.malformed("node", "axes", "none"))?;
    let ndim = shape.len() + axes.len();
    let axes = node.axes(axes, ndim)?;
    let mut old = shape.iter().copied();
    Ok((0..ndim).map(|axis| if axes.contains(&axis) { 1 } else { old.next().unwrap_or(1) }).collect())
}

fn scalar<T: Clone>(value: T) -> ArcArray<T, IxDyn> {
    ArrayD::from_elem(IxDyn(&[]), value).into_shared()
}

fn vector<T: Clone>(values: Vec<T>) -> ArcArray<T, IxDyn> {
    ArrayD::from_shape_vec(IxDyn(&[values.len()]), values).expect("a vector").into_shared()
}
