//! Constants of a file: nodes that hold or make values, and nodes whose inputs are all known.

use alloc::vec::Vec;

use ndarray::{ArcArray, ArrayD, IxDyn, Zip};

use super::import::Importer;
use super::node::OnnxNode;
use super::operator::{CONSUMED, Kind, OnnxOperator, UNARY, float, floats, ignore, int, ints, tensor};
use super::tensor::{ConstantTensor, data_type};
use crate::error::Result;
use crate::ops::binary::op::Binary;
use crate::ops::operator::{Inputs, Operator};
use crate::ops::reshape::Reshape;
use crate::ops::shape::broadcast;
use crate::ops::unary::function::Activation;

/// Operators without a node in the graph.
pub(super) const STRUCTURAL: &[OnnxOperator] = &[
    // The rounding of casts to 8-bit floats, which are not supported.
    OnnxOperator::new(
        "Cast",
        UNARY,
        &[int("to"), ignore("saturate", Kind::Int).since(19), ignore("round_mode", Kind::Text).since(24)],
        Importer::cast,
    )
    .since(6),
    OnnxOperator::new(
        "Constant",
        &[(1, 0, 0)],
        &[
            tensor("value"),
            float("value_float").since(12),
            floats("value_floats").since(12),
            int("value_int").since(12),
            ints("value_ints").since(12),
        ],
        Importer::constant_node,
    ),
    OnnxOperator::new("ConstantOfShape", UNARY, &[tensor("value")], Importer::constant_of_shape).since(9),
    OnnxOperator::new(
        "Dropout",
        &[(1, 1, 1), (12, 1, 3)],
        &[
            ignore("ratio", Kind::Float).until(11),
            ignore("seed", Kind::Int).since(12),
            int("is_test").until(6),
            CONSUMED,
        ],
        Importer::dropout,
    )
    .with_outputs(),
    OnnxOperator::new("Identity", UNARY, &[], Importer::alias),
    OnnxOperator::new("Range", &[(11, 3, 3)], &[], Importer::range).since(11),
    OnnxOperator::new("Shape", UNARY, &[int("start").since(15), int("end").since(15)], Importer::shape_node),
];

impl Importer {
    /// Computes the output of an operator whose inputs are all known. Returns `None` if it is not a function of
    /// constants, or not all of them are known.
    pub(super) fn evaluate(
        &mut self,
        operator: &dyn Operator,
        inputs: &[ConstantTensor],
    ) -> Result<Option<ConstantTensor>> {
        let (mut floats, mut integers) = (Vec::new(), Vec::new());
        for input in inputs {
            match input {
                ConstantTensor::Float(values) => floats.push(values),
                ConstantTensor::Int(values) => integers.push(values),
            }
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(ConstantTensor::shape).collect();
        let constant = alloc::vec![true; shapes.len()];
        crate::graph::check_operator(operator, shapes.len())?;
        let elements = || {
            operator.infer(&Inputs { shapes: &shapes, constant: &constant }).and_then(|shape| {
                self.limits.check_shape("a folded constant", &shape)?;
                Ok(shape.iter().product())
            })
        };
        if integers.is_empty() {
            let count = elements()?;
            self.budget.spend_floats(count)?;
            return operator.evaluate(&floats).map(|y| Ok(ConstantTensor::Float(y?.into_shared()))).transpose();
        }
        if floats.is_empty() {
            let count = elements()?;
            self.budget.spend_ints(count)?;
            return operator.evaluate_ints(&integers).map(|y| Ok(ConstantTensor::Int(y?.into_shared()))).transpose();
        }
        Ok(None)
    }

    fn constant_node(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        let [attribute] = &node.node.attribute[..] else {
            return Err(node.malformed("node", "one value", node.node.attribute.len()));
        };
        if let Some(tensor) = &attribute.t {
            self.quantization.set_type(node.output()?, tensor.data_type);
        }
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
        self.folded_constant(node.output()?, value);
        Ok(())
    }

    fn shape_node(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        let shape = self.shape(node, 0)?;
        let ndim = shape.len() as i64;
        let clamped = |name, default| {
            let axis: i64 = node.int(name, default);
            (if axis < 0 { axis.saturating_add(ndim) } else { axis }).clamp(0, ndim) as usize
        };
        let (start, end) = (clamped("start", 0), clamped("end", ndim));
        self.budget.spend_ints(shape.len())?;
        let lengths = vector(shape[start..end.max(start)].iter().map(|&len| len as i64).collect());
        self.folded_constant(node.output()?, ConstantTensor::Int(lengths));
        Ok(())
    }

    fn constant_of_shape(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        let shape = self.lengths(node, "shape", 0)?;
        self.limits.check_shape(node.output()?, &shape)?;
        let count = shape.iter().product();
        let value = match node.tensor("value", self.limits.elements).transpose()? {
            None => ConstantTensor::Float(scalar(0.0)),
            Some(value) => value,
        };
        let wrong = || node.malformed("attribute value", "one element", "another number");
        let value = match value {
            ConstantTensor::Float(x) if x.len() == 1 => {
                self.budget.spend_floats(count)?;
                let x = *x.first().ok_or_else(wrong)?;
                ConstantTensor::Float(ArrayD::from_elem(IxDyn(&shape), x).into_shared())
            }
            ConstantTensor::Int(x) if x.len() == 1 => {
                self.budget.spend_ints(count)?;
                let x = *x.first().ok_or_else(wrong)?;
                ConstantTensor::Int(ArrayD::from_elem(IxDyn(&shape), x).into_shared())
            }
            _ => return Err(wrong()),
        };
        self.folded_constant(node.output()?, value);
        Ok(())
    }

    /// `start`, `start + delta`, … before `limit`.
    fn range(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        let value = |i: usize| match self.constant(node.required(i)?) {
            Some(ConstantTensor::Float(x)) if x.len() == 1 => Ok((x.first().map(|&x| f64::from(x)), false)),
            Some(ConstantTensor::Int(x)) if x.len() == 1 => Ok((x.first().map(|&x| x as f64), true)),
            _ => Err(node.unsupported(alloc::format!("input {i} is not a constant of one element"))),
        };
        let [(start, integers), (limit, _), (delta, _)] = [value(0)?, value(1)?, value(2)?];
        let [start, limit, delta] = [start, limit, delta].map(Option::unwrap_or_default);
        let count = num_traits::Float::ceil((limit - start) / delta).max(0.0);
        if count.is_nan() {
            return Err(node.malformed("delta", "a number other than 0", delta));
        }
        // Integers of more bits than `f64` has are no lengths or positions.
        let (count, value) = (count as usize, |i: usize| start + i as f64 * delta);
        let values = if integers {
            self.budget.spend_ints(count)?;
            ConstantTensor::Int(vector((0..count).map(|i| value(i) as i64).collect()))
        } else {
            self.budget.spend_floats(count)?;
            ConstantTensor::Float(vector((0..count).map(|i| value(i) as f32).collect()))
        };
        self.folded_constant(node.output()?, values);
        Ok(())
    }

    /// The value of a constant of any type. Integers of more bits than `f64` has lose the others.
    fn known(&self, node: &OnnxNode<'_>, i: usize) -> Result<ArrayD<f64>> {
        match self.constant(node.required(i)?) {
            Some(ConstantTensor::Float(values)) => Ok(values.mapv(f64::from)),
            Some(ConstantTensor::Int(values)) => Ok(values.mapv(|value| value as f64)),
            None => Err(node.unsupported(alloc::format!("input {i} is not a constant"))),
        }
    }

    /// Compares two constants, floats or integers, as flags.
    pub(crate) fn compare_constants(&mut self, names: [&str; 2], function: Binary) -> Result<Option<ConstantTensor>> {
        let known: Option<Vec<ConstantTensor>> = names.iter().map(|name| self.constant(name).cloned()).collect();
        let Some(known) = known else { return Ok(None) };
        Ok(self.evaluate(&function, &known)?.map(|flags| match flags {
            ConstantTensor::Float(flags) => ConstantTensor::Int(flags.mapv(|flag| flag as i64).into_shared()),
            flags => flags,
        }))
    }

    /// Selects elements of two constants.
    pub(crate) fn select_constants(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        let condition = self.known(node, 0)?;
        let value = |i: usize| {
            let value = self.constant(node.required(i)?).cloned();
            value.ok_or_else(|| node.unsupported(alloc::format!("input {i} is not a constant")))
        };
        let value = match (value(1)?, value(2)?) {
            (ConstantTensor::Float(a), ConstantTensor::Float(b)) => {
                ConstantTensor::Float(self.selected(node, &condition, &a, &b)?.into_shared())
            }
            (ConstantTensor::Int(a), ConstantTensor::Int(b)) => {
                ConstantTensor::Int(self.selected(node, &condition, &a, &b)?.into_shared())
            }
            _ => return Err(node.malformed("inputs 1 and 2", "tensors of one type", "floats and integers")),
        };
        self.folded_constant(node.output()?, value);
        Ok(())
    }

    fn selected<T: Copy>(
        &mut self,
        node: &OnnxNode<'_>,
        condition: &ArrayD<f64>,
        a: &ArcArray<T, IxDyn>,
        b: &ArcArray<T, IxDyn>,
    ) -> Result<ArrayD<T>> {
        let shape = broadcast(condition.shape(), &broadcast(a.shape(), b.shape())?)?;
        self.limits.check_shape(node.output()?, &shape)?;
        self.budget.spend_floats(shape.iter().product())?;
        let [a, b] = [a, b].map(|x| x.broadcast(&shape[..]).expect("all broadcast to the common shape"));
        let condition = condition.broadcast(&shape[..]).expect("all broadcast to the common shape");
        Ok(Zip::from(&condition).and(&a).and(&b).map_collect(|&c, &a, &b| if c != 0.0 { a } else { b }))
    }

    /// A cast of constants, or a cast of floats to floats, which changes nothing here.
    fn cast(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        // FLOAT, FLOAT16, DOUBLE, BFLOAT16
        const FLOATS: [i64; 4] = [1, 10, 11, 16];
        // INT32, INT64, BOOL
        const INTS: [i64; 3] = [6, 7, 9];
        let to = node.required_int("to")?;
        let name = || i32::try_from(to).map_or_else(|_| alloc::format!("{to}"), data_type);
        let unsupported = |from: &str| node.unsupported(alloc::format!("attribute to = {}, a cast of {from}", name()));
        let value = match self.constant(node.required(0)?).cloned() {
            None => return self.cast_activation(node, FLOATS.contains(&to), to == 9),
            Some(value @ ConstantTensor::Float(_)) if FLOATS.contains(&to) => value,
            Some(value @ ConstantTensor::Int(_)) if to == 7 => value,
            Some(ConstantTensor::Int(values)) if FLOATS.contains(&to) => {
                self.budget.spend_floats(values.len())?;
                ConstantTensor::Float(values.mapv(|value| value as f32).into_shared())
            }
            Some(value) if INTS.contains(&to) => {
                let values = match value {
                    // Rounds towards zero.
                    ConstantTensor::Float(values) => {
                        values.mapv(|value| if to == 9 { (value != 0.0).into() } else { value as i64 })
                    }
                    ConstantTensor::Int(values) => {
                        values.mapv(|value| if to == 9 { (value != 0).into() } else { value })
                    }
                };
                self.budget.spend_ints(values.len())?;
                if let Some(value) = values.iter().find(|&&value| to == 6 && i32::try_from(value).is_err()) {
                    return Err(node.malformed("cast to INT32", "values of 32 bits", value));
                }
                ConstantTensor::Int(values.into_shared())
            }
            Some(ConstantTensor::Float(_)) => return Err(unsupported("floats")),
            Some(ConstantTensor::Int(_)) => return Err(unsupported("integers")),
        };
        self.folded_constant(node.output()?, value);
        Ok(())
    }

    /// Integers and flags are floats in the graph, so that a cast changes values only from floats.
    fn cast_activation(&mut self, node: &OnnxNode<'_>, to_floats: bool, to_flags: bool) -> Result<()> {
        let x = node.required(0)?;
        match (self.is_integer(x), to_floats) {
            (true, false) if !to_flags => return self.alias(node),
            (false, true) => return self.alias(node),
            (true, true) => {
                let shape = self.shape_of(x)?;
                self.push(node, Reshape { shape }, alloc::vec![x.into()])?;
            }
            (false, false) if !to_flags => self.push(node, Activation::Truncate, alloc::vec![x.into()])?,
            _ => return Err(node.unsupported("attribute to = BOOL")),
        }
        self.set_integer(node.output()?, !to_floats);
        Ok(())
    }

    /// The attribute `axis` of `Concat`, which has a default in opsets 1 to 3 only.
    pub(crate) fn concat_axis(&self, node: &OnnxNode) -> Result<i64> {
        if self.opset < 4 { Ok(node.int("axis", 1)) } else { node.required_int("axis") }
    }
}

/// The shape without the axes of length 1 at `axes`, or without all axes of length 1.
pub(crate) fn squeezed(node: &OnnxNode, shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
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
pub(crate) fn unsqueezed(node: &OnnxNode, shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
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
