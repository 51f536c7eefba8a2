//! `Einsum` in ONNX files: a product of matrices between transpositions and reshapes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::op::MatMul;
use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::ops::reduce::{Reduce, Reduction};
use crate::ops::reshape::Reshape;
use crate::ops::transpose::Transpose;

/// A tensor whose axes have labels.
#[derive(Clone)]
struct Labelled {
    name: String,
    labels: Vec<char>,
    shape: Vec<usize>,
}

/// Adds the products of pairs of operands, one after the other.
pub(super) fn einsum(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let equation: String = node.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let unsupported = |why: &str| node.unsupported(alloc::format!("equation {equation:?}: {why}"));
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (&*equation, None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    let names: Vec<&String> = node.node.input.iter().filter(|name| !name.is_empty()).collect();
    if terms.len() != names.len() {
        let expected = alloc::format!("{} terms", names.len());
        return Err(node.malformed("equation", expected, terms.len()));
    }
    let mut operands = Vec::new();
    let mut ellipsis: Vec<char> = Vec::new();
    for (term, name) in terms.into_iter().zip(names) {
        let shape = importer.shape_of(name)?;
        let labels = labels_of(term, shape.len(), &mut ellipsis);
        let labels = labels.filter(|labels| labels.len() == shape.len());
        let labels = labels.ok_or_else(|| unsupported("a label for each axis is expected"))?;
        if (1..labels.len()).any(|i| labels[..i].contains(&labels[i])) {
            return Err(unsupported("a label that is repeated in a term"));
        }
        operands.push(Labelled { name: name.to_string(), labels, shape });
    }
    let output: Vec<char> = match output {
        Some(output) => {
            labels_of(output, usize::MAX, &mut ellipsis).ok_or_else(|| unsupported("labels are letters"))?
        }
        None => {
            // Labels that occur once, in alphabetical order.
            let all: Vec<char> = operands.iter().flat_map(|operand| operand.labels.clone()).collect();
            let mut once: Vec<char> =
                all.iter().copied().filter(|c| all.iter().filter(|d| *d == c).count() == 1).collect();
            once.sort_unstable();
            once
        }
    };
    let known = |c: &char| operands.iter().any(|operand| operand.labels.contains(c));
    if (1..output.len()).any(|i| output[..i].contains(&output[i])) || !output.iter().all(known) {
        return Err(unsupported("each label of the output once, from the terms"));
    }
    // One operand after the other; labels that nothing needs any more are summed over.
    let mut rest: Vec<Labelled> = operands.into_iter().rev().collect();
    let Some(mut so_far) = rest.pop() else { return Err(unsupported("no terms")) };
    while let Some(next) = rest.pop() {
        let needed = |c: &char| output.contains(c) || rest.iter().any(|operand| operand.labels.contains(c));
        let a_needed = |c: &char| needed(c) || next.labels.contains(c);
        let a = sum(importer, node, so_far.clone(), a_needed)?;
        let b_needed = |c: &char| needed(c) || a.labels.contains(c);
        let b = sum(importer, node, next.clone(), b_needed)?;
        so_far = product(importer, node, a, b, needed)?;
    }
    let y = sum(importer, node, so_far, |c| output.contains(c))?;
    let y = transposed(importer, node, y, &output)?;
    importer.push(node, Reshape { shape: y.shape }, alloc::vec![y.name])
}

/// The labels of a term. `...` stands for axes with labels of their own, the same in each term.
fn labels_of(term: &str, ndim: usize, ellipsis: &mut Vec<char>) -> Option<Vec<char>> {
    let is_label = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic());
    let Some((before, after)) = term.split_once("...") else { return is_label(term).then(|| term.chars().collect()) };
    if !is_label(before) || !is_label(after) {
        return None;
    }
    if ndim != usize::MAX {
        let count = ndim.checked_sub(before.len() + after.len())?;
        let digits: Vec<char> = ('0'..='9').take(count).collect();
        if digits.len() < count || !ellipsis.is_empty() && ellipsis.len() != count {
            return None;
        }
        *ellipsis = digits;
    }
    Some(before.chars().chain(ellipsis.iter().copied()).chain(after.chars()).collect())
}

fn part(importer: &mut Importer, node: &OnnxNode<'_>, op: impl Into<Op>, inputs: Vec<String>) -> Result<String> {
    let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
    importer.push_as(op, inputs, &name).map(|()| name)
}

/// Sums over the axes whose labels are not needed.
fn sum(importer: &mut Importer, node: &OnnxNode<'_>, x: Labelled, needed: impl Fn(&char) -> bool) -> Result<Labelled> {
    let axes: Vec<usize> = (0..x.labels.len()).filter(|&axis| !needed(&x.labels[axis])).collect();
    if axes.is_empty() {
        return Ok(x);
    }
    let kept: Vec<usize> = (0..x.labels.len()).filter(|axis| !axes.contains(axis)).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| x.shape[axis]).collect();
    let reduced = part(importer, node, Reduce { reduction: Reduction::Sum, axes }, alloc::vec![x.name])?;
    let name = part(importer, node, Reshape { shape: shape.clone() }, alloc::vec![reduced])?;
    Ok(Labelled { name, labels: kept.iter().map(|&axis| x.labels[axis]).collect(), shape })
}

/// The axes in this order of their labels.
fn transposed(importer: &mut Importer, node: &OnnxNode<'_>, x: Labelled, labels: &[char]) -> Result<Labelled> {
    if x.labels == labels {
        return Ok(x);
    }
    let perm: Vec<usize> = labels.iter().filter_map(|c| x.labels.iter().position(|d| d == c)).collect();
    let shape = perm.iter().map(|&axis| x.shape[axis]).collect();
    let name = part(importer, node, Transpose { perm }, alloc::vec![x.name])?;
    Ok(Labelled { name, labels: labels.to_vec(), shape })
}

/// Multiplies two tensors and sums over the labels of both that are not needed.
fn product(
    importer: &mut Importer,
    node: &OnnxNode<'_>,
    a: Labelled,
    b: Labelled,
    needed: impl Fn(&char) -> bool,
) -> Result<Labelled> {
    let len = |x: &Labelled, c: &char| x.labels.iter().position(|d| d == c).map_or(1, |axis| x.shape[axis]);
    let of = |x: &Labelled, other: &Labelled, both: bool, kept: bool| -> Vec<char> {
        let labels = x.labels.iter().copied();
        labels.filter(|c| other.labels.contains(c) == both && (!both || needed(c) == kept)).collect()
    };
    let (batch, inner) = (of(&a, &b, true, true), of(&a, &b, true, false));
    let (rows, columns) = (of(&a, &b, false, true), of(&b, &a, false, true));
    if batch.iter().chain(&inner).any(|c| len(&a, c) != len(&b, c)) {
        return Err(node.unsupported("axes of one label that broadcast"));
    }
    let product_of = |x: &Labelled, labels: &[char]| labels.iter().map(|c| len(x, c)).product::<usize>();
    let batch_shape: Vec<usize> = batch.iter().map(|c| len(&a, c)).collect();
    let shape: Vec<usize> =
        batch.iter().chain(&rows).map(|c| len(&a, c)).chain(columns.iter().map(|c| len(&b, c))).collect();
    let [m, k, n] = [product_of(&a, &rows), product_of(&a, &inner), product_of(&b, &columns)];
    let a = transposed(importer, node, a, &[&batch[..], &rows, &inner].concat())?;
    let b = transposed(importer, node, b, &[&batch[..], &inner, &columns].concat())?;
    let a = part(importer, node, Reshape { shape: [&batch_shape[..], &[m, k]].concat() }, alloc::vec![a.name])?;
    let b = part(importer, node, Reshape { shape: [&batch_shape[..], &[k, n]].concat() }, alloc::vec![b.name])?;
    let y = part(importer, node, MatMul, alloc::vec![a, b])?;
    let name = part(importer, node, Reshape { shape: shape.clone() }, alloc::vec![y])?;
    Ok(Labelled { name, labels: [batch, rows, columns].concat(), shape })
}
