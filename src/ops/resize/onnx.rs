//! `Resize` and `Upsample` in ONNX files.

use super::op::Resize;
use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, floats, ignore, ints, only, only_text, text};

/// The spelling of [`Resize`].
pub(crate) const RESIZE: &[OnnxOperator] = &[
    OnnxOperator::new(
        "Resize",
        &[(10, 2, 2), (11, 1, 4)],
        &[
            only_text("mode", "nearest"),
            text("coordinate_transformation_mode").since(11),
            text("nearest_mode").since(11),
            // Parameters of cubic interpolation and of the crop, which are not supported.
            ignore("cubic_coeff_a", Kind::Float).since(11),
            ignore("extrapolation_value", Kind::Float).since(11),
            only("exclude_outside", 0).since(11),
            only("antialias", 0).since(18),
            ints("axes").since(18),
            only_text("keep_aspect_ratio_policy", "stretch").since(18),
        ],
        resize,
    )
    .since(10),
    OnnxOperator::new(
        "Upsample",
        &[(7, 1, 1), (9, 2, 2)],
        &[only_text("mode", "nearest"), floats("scales").until(8)],
        resize,
    )
    .since(7)
    .until(9),
];

/// Nearest neighbor by whole factors. All supported coordinate transformations select the same pixels.
fn resize(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let shape = importer.shape(node, 0)?;
    if shape.len() != 4 {
        return Err(node.unsupported(alloc::format!("a tensor of shape {shape:?}, not an image")));
    }
    let transformation = node.text("coordinate_transformation_mode", "half_pixel");
    let rounding = node.text("nearest_mode", "round_prefer_floor");
    let supported = matches!(
        (transformation, rounding),
        ("asymmetric", "floor") | ("half_pixel", "round_prefer_floor" | "round_prefer_ceil")
    );
    // Earlier opsets have neither attribute, and compute what `asymmetric` and `floor` do.
    if importer.opset >= 11 && !supported {
        let attributes = alloc::format!("nearest_mode = {rounding:?} with {transformation:?} coordinates");
        return Err(node.unsupported(attributes));
    }
    let factors = resize_factors(importer, node, &shape)?;
    let whole = |f: f64| (1.0..=65536.0).contains(&f) && f as usize as f64 == f;
    let [batch, channels, down, right] = factors;
    if batch != 1.0 || channels != 1.0 || !whole(down) || !whole(right) {
        let why = alloc::format!("scales {factors:?}: only whole ones of height and width are supported");
        return Err(node.unsupported(why));
    }
    let inputs = alloc::vec![node.required(0)?.into()];
    importer.push(node, Resize { scales: [down as usize, right as usize] }, inputs)
}

/// The scales of a `Resize` or `Upsample`, by axis.
fn resize_factors(importer: &Importer, node: &OnnxNode<'_>, shape: &[usize]) -> Result<[f64; 4]> {
    let (scales, sizes) = match (node.op(), importer.opset) {
        ("Upsample", ..=8) => (None, None),
        ("Upsample", _) | (_, 10) => (importer.float_constant(node, 1)?, None),
        _ => (importer.float_constant(node, 2)?, importer.int_list(node, "", 3)?),
    };
    let axes = match node.ints("axes") {
        Some(axes) => node.axes(axes, 4)?,
        None => alloc::vec![0, 1, 2, 3],
    };
    // Opset 11 has no way to leave out `scales` but an empty tensor.
    let scales = scales.filter(|scales| !scales.is_empty());
    let sizes = sizes.filter(|sizes| !sizes.is_empty());
    let check_count = |count: usize| match count == axes.len() {
        true => Ok(()),
        false => Err(node.malformed("scales or sizes", alloc::format!("{} values", axes.len()), count)),
    };
    let given: Vec<f64> = match (scales, sizes, node.floats("scales")) {
        (Some(scales), None, None) => {
            check_count(scales.len())?;
            scales.iter().map(|&scale| scale.into()).collect()
        }
        (None, None, Some(scales)) => {
            check_count(scales.len())?;
            scales.iter().map(|&scale| scale.into()).collect()
        }
        (None, Some(sizes), None) => {
            check_count(sizes.len())?;
            // The batch in the file is the one that it was exported with.
            let is_batch = |axis: usize, size: i64| axis == 0 && (size == 1 || size == importer.batch as i64);
            let factor = |(&axis, &size): (&usize, &i64)| match is_batch(axis, size) {
                true => 1.0,
                false => size as f64 / shape[axis] as f64,
            };
            axes.iter().zip(&sizes).map(factor).collect()
        }
        (None, None, None) => return Err(node.malformed("node", "scales or sizes", "none")),
        _ => return Err(node.malformed("node", "either scales or sizes", "both")),
    };
    let mut factors = [1.0; 4];
    axes.iter().zip(given).for_each(|(&axis, factor)| factors[axis] = factor);
    Ok(factors)
}
