//! `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` in ONNX files.

use alloc::vec::Vec;

use crate::error::Result;
use crate::io::onnx::constants::{squeezed, unsqueezed};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{CONSUMED, OnnxOperator, UNARY, int, ints};

use super::Reshape;

/// The spelling of [`Reshape`].
pub(crate) const RESHAPE: &[OnnxOperator] = &[
    OnnxOperator::new("Flatten", UNARY, &[int("axis")], reshape),
    OnnxOperator::new(
        "Reshape",
        &[(1, 1, 1), (5, 2, 2)],
        &[ints("shape").until(4), int("allowzero").since(14), CONSUMED.until(4)],
        reshape,
    ),
    OnnxOperator::new("Squeeze", &[(1, 1, 1), (13, 1, 2)], &[ints("axes").until(12)], reshape),
    OnnxOperator::new("Unsqueeze", &[(1, 1, 1), (13, 2, 2)], &[ints("axes").until(12)], reshape),
];

fn reshape(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let shape = match node.op() {
        "Flatten" => {
            let axis = node.axis(node.int("axis", 1), x.len() + 1)?;
            let [rows, columns] = [&x[..axis], &x[axis..]].map(|axes| axes.iter().product());
            alloc::vec![rows, columns]
        }
        "Reshape" => {
            let target = importer.int_list(node, "shape", 1)?;
            let target = target.ok_or_else(|| node.malformed("node", "a shape", "none"))?;
            reshape_target(importer, node, &x, &target)?
        }
        "Squeeze" => squeezed(node, &x, importer.int_list(node, "axes", 1)?.as_deref())?,
        _ => unsqueezed(node, &x, importer.int_list(node, "axes", 1)?.as_deref())?,
    };
    importer.limits.check_shape(node.output()?, &shape)?;
    importer.push(node, Reshape { shape }, alloc::vec![node.required(0)?.into()])
}

/// Returns the target shape for a batch of one. In `target`, 0 copies a length of the input and -1 is inferred. The first
/// length may be the batch that the file was exported with.
fn reshape_target(importer: &Importer, node: &OnnxNode<'_>, x: &[usize], target: &[i64]) -> Result<Vec<usize>> {
    let count: usize = x.iter().product();
    let allow_zero = node.int("allowzero", 0) != 0;
    let fixed = |(axis, &len): (usize, &i64)| match len {
        0 if !allow_zero => match x.get(axis) {
            Some(&len) => Ok(Some(len)),
            None => Err(node.malformed("shape", alloc::format!("lengths for {x:?}"), alloc::format!("{target:?}"))),
        },
        -1 => Ok(None),
        len => node.sizes::<1>("shape", &[len]).map(|[len]| Some(len)),
    };
    let mut lengths = target.iter().enumerate().map(fixed).collect::<Result<Vec<_>>>()?;
    let product =
        |lengths: &[Option<usize>]| lengths.iter().flatten().try_fold(1usize, |product, &len| product.checked_mul(len));
    let fits = |lengths: &[Option<usize>]| match product(lengths) {
        Some(product) if lengths.contains(&None) => count.checked_rem(product) == Some(0),
        product => product == Some(count),
    };
    if importer.batch > 1 && lengths.first() == Some(&Some(importer.batch)) && x.first() == Some(&1) {
        lengths[0] = Some(1);
    }
    let inferred = lengths.iter().filter(|len| len.is_none()).count();
    if inferred > 1 || !fits(&lengths) {
        let expected = alloc::format!("lengths of {count} elements with at most one -1");
        return Err(node.malformed("shape", expected, alloc::format!("{target:?}")));
    }
    let rest = product(&lengths).and_then(|product| count.checked_div(product)).unwrap_or(0);
    Ok(lengths.into_iter().map(|len| len.unwrap_or(rest)).collect())
}
