//! Operators that are computed while a file is read, and have no node in a graph: the positions and masks of exporters.

use alloc::vec::Vec;

use ndarray::{ArcArray, ArrayD, Axis, Dimension, IxDyn, Zip};

use super::import::Importer;
use super::node::OnnxNode;
use super::operator::{BINARY, OnnxOperator, UNARY, int, only, only_text};
use super::tensor::ConstantTensor;
use crate::error::Result;
use crate::graph::op::Where;
use crate::ops::operator::IntTensor;
use crate::ops::shape::broadcast;

/// Operators of known tensors.
pub(super) const KNOWN: &[OnnxOperator] = &[
    OnnxOperator::new("GatherND", BINARY, &[only("batch_dims", 0).since(12)], gather_nd).since(11),
    OnnxOperator::new("Mod", BINARY, &[int("fmod")], modulo).since(10),
    OnnxOperator::new("NonZero", UNARY, &[], non_zero).since(9),
    OnnxOperator::new("ScatterND", &[(11, 3, 3)], &[only_text("reduction", "none").since(16)], scatter_nd).since(11),
    OnnxOperator::new("Size", UNARY, &[], size),
    OnnxOperator::new("Trilu", &[(14, 1, 2)], &[int("upper")], triangle).since(14),
];

impl Importer {
    /// The value of input `i`, which must be known.
    fn known_input(&self, node: &OnnxNode<'_>, i: usize) -> Result<ConstantTensor> {
        let value = self.constant(node.required(i)?).cloned();
        value.ok_or_else(|| node.unsupported(alloc::format!("input {i} is not a constant")))
    }

    fn known_ints(&self, node: &OnnxNode<'_>, i: usize) -> Result<IntTensor> {
        node.required(i)?;
        let missing = || node.malformed("node", alloc::format!("an input {i}"), "none");
        self.int_constant(node, i)?.ok_or_else(missing)
    }

    /// Takes the output of the node, a constant.
    fn known_output(&mut self, node: &OnnxNode<'_>, value: ConstantTensor) -> Result<()> {
        match &value {
            ConstantTensor::Float(values) => self.budget.spend_floats(values.len())?,
            ConstantTensor::Int(values) => self.budget.spend_ints(values.len())?,
        }
        self.folded_constant(node.output()?, value);
        Ok(())
    }
}

/// The remainder of a division of integers: with the sign of the divisor, or of the dividend if `fmod`.
fn modulo(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let [a, b] = [importer.known_ints(node, 0)?, importer.known_ints(node, 1)?];
    let shape = broadcast(a.shape(), b.shape())?;
    importer.limits.check_shape(node.output()?, &shape)?;
    importer.budget.spend_ints(shape.iter().product())?;
    let [a, b] = [&a, &b].map(|x| x.broadcast(&shape[..]).expect("both broadcast to the common shape"));
    let fmod = node.int("fmod", 0) != 0;
    let remainder = |a: i64, b: i64| {
        let rest = a.checked_rem(b)?;
        Some(if !fmod && rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    let rest: ArrayD<Option<i64>> = Zip::from(&a).and(&b).map_collect(|&a, &b| remainder(a, b));
    if rest.iter().any(Option::is_none) {
        return Err(node.malformed("divisor", "a number other than 0", "0"));
    }
    let rest = rest.mapv(Option::unwrap_or_default).into_shared();
    importer.folded_constant(node.output()?, ConstantTensor::Int(rest));
    Ok(())
}

/// The positions of the elements that are not 0, one column each.
fn non_zero(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let flags = match importer.known_input(node, 0)? {
        ConstantTensor::Float(values) => values.mapv(|x| x != 0.0),
        ConstantTensor::Int(values) => values.mapv(|x| x != 0),
    };
    let rank = flags.ndim().max(1);
    let at: Vec<IxDyn> = flags.indexed_iter().filter(|(_, flag)| **flag).map(|(at, _)| at).collect();
    importer.budget.spend_ints(rank.saturating_mul(at.len()))?;
    let position = |at: &IxDyn, axis: usize| at.slice().get(axis).map_or(0, |&at| at as i64);
    let positions = (0..rank).flat_map(|axis| at.iter().map(move |at| position(at, axis))).collect();
    let positions = ArrayD::from_shape_vec(IxDyn(&[rank, at.len()]), positions).expect("a position for each axis");
    importer.folded_constant(node.output()?, ConstantTensor::Int(positions.into_shared()));
    Ok(())
}

/// The number of elements, which is known for any tensor.
fn size(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let count = importer.shape(node, 0)?.iter().product::<usize>() as i64;
    importer.known_output(node, ConstantTensor::Int(ndarray::arr0(count).into_dyn().into_shared()))
}

/// The elements on one side of a diagonal, and zeros.
fn triangle(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    let &[.., rows, columns] = &shape[..] else {
        return Err(node.malformed("tensor", "at least two axes", alloc::format!("shape {shape:?}")));
    };
    let diagonal = match node.input(1) {
        Some(_) => importer.known_ints(node, 1)?.first().copied().unwrap_or(0),
        None => 0,
    };
    let upper = node.int("upper", 1) != 0;
    importer.budget.spend_floats(shape.iter().product())?;
    let kept = |row: usize, column: usize| {
        let distance = column as i64 - row as i64;
        if upper { distance >= diagonal } else { distance <= diagonal }
    };
    let mask = ndarray::Array2::from_shape_fn((rows, columns), |(row, column)| kept(row, column)).into_dyn();
    let mask = mask.broadcast(&shape[..]).expect("the last two axes");
    fn masked<T: Copy + Default>(x: &ArcArray<T, IxDyn>, mask: &ndarray::ArrayViewD<'_, bool>) -> ArcArray<T, IxDyn> {
        Zip::from(x).and(mask).map_collect(|&x, &kept| if kept { x } else { T::default() }).into_shared()
    }
    let value = match importer.constant(node.required(0)?) {
        Some(ConstantTensor::Float(x)) => ConstantTensor::Float(masked(x, &mask)),
        Some(ConstantTensor::Int(x)) => ConstantTensor::Int(masked(x, &mask)),
        None => {
            let flags = importer.new_constant(node, "mask", mask.mapv(|kept| kept.into()))?;
            let zeros = importer.new_constant(node, "zeros", ArrayD::zeros(&shape[..]))?;
            return importer.push(node, Where, alloc::vec![flags, node.required(0)?.into(), zeros]);
        }
    };
    importer.folded_constant(node.output()?, value);
    Ok(())
}

fn gather_nd(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let at = Positions::new(node, importer.known_ints(node, 1)?, importer.shape(node, 0)?)?;
    importer.limits.check_shape(node.output()?, &at.shape())?;
    let value = match importer.known_input(node, 0)? {
        ConstantTensor::Float(x) => ConstantTensor::Float(at.gather(&x)),
        ConstantTensor::Int(x) => ConstantTensor::Int(at.gather(&x)),
    };
    importer.known_output(node, value)
}

fn scatter_nd(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let at = Positions::new(node, importer.known_ints(node, 1)?, importer.shape(node, 0)?)?;
    let updates = importer.shape(node, 2)?;
    if updates != at.shape() {
        let (expected, found) = (alloc::format!("shape {:?}", at.shape()), alloc::format!("shape {updates:?}"));
        return Err(node.malformed("updates", expected, found));
    }
    let value = match (importer.known_input(node, 0)?, importer.known_input(node, 2)?) {
        (ConstantTensor::Float(x), ConstantTensor::Float(updates)) => ConstantTensor::Float(at.scatter(&x, &updates)),
        (ConstantTensor::Int(x), ConstantTensor::Int(updates)) => ConstantTensor::Int(at.scatter(&x, &updates)),
        _ => return Err(node.malformed("updates", "elements of the type of the data", "another type")),
    };
    importer.known_output(node, value)
}

/// Positions of slices of a tensor: the index of the first axes of each.
struct Positions {
    /// The axes of the positions, without the last one.
    outer: Vec<usize>,
    /// The shape of a slice.
    inner: Vec<usize>,
    /// The index of each slice among all slices.
    slices: Vec<usize>,
}

impl Positions {
    /// Checks the positions in a tensor of this shape.
    fn new(node: &OnnxNode<'_>, at: IntTensor, shape: Vec<usize>) -> Result<Self> {
        let depth = at.shape().last().copied().unwrap_or(0);
        if at.ndim() == 0 || depth > shape.len() {
            let expected = alloc::format!("positions of at most {} axes", shape.len());
            return Err(node.malformed("indices", expected, alloc::format!("shape {:?}", at.shape())));
        }
        let mut slices = Vec::new();
        for position in at.lanes(Axis(at.ndim() - 1)) {
            let mut slice = 0;
            for (&at, &len) in position.iter().zip(&shape) {
                slice = slice * len + node.axis(at, len)?;
            }
            slices.push(slice);
        }
        Ok(Self { outer: at.shape()[..at.ndim() - 1].to_vec(), inner: shape[depth..].to_vec(), slices })
    }

    /// The shape of the slices together.
    fn shape(&self) -> Vec<usize> {
        [&self.outer[..], &self.inner[..]].concat()
    }

    fn gather<T: Copy>(&self, x: &ArcArray<T, IxDyn>) -> ArcArray<T, IxDyn> {
        let (len, x) = (self.inner.iter().product::<usize>(), x.iter().copied().collect::<Vec<T>>());
        let values = self.slices.iter().flat_map(|&slice| x[slice * len..][..len].iter().copied()).collect();
        ArrayD::from_shape_vec(self.shape(), values).expect("a slice for each position").into_shared()
    }

    fn scatter<T: Copy>(&self, x: &ArcArray<T, IxDyn>, updates: &ArcArray<T, IxDyn>) -> ArcArray<T, IxDyn> {
        let len = self.inner.iter().product::<usize>();
        let mut values = x.iter().copied().collect::<Vec<T>>();
        let updates = updates.iter().copied().collect::<Vec<T>>();
        for (&slice, update) in self.slices.iter().zip(updates.chunks_exact(len.max(1))) {
            values[slice * len..][..len].copy_from_slice(update);
        }
        ArrayD::from_shape_vec(x.raw_dim(), values).expect("the elements of the tensor").into_shared()
    }
}
