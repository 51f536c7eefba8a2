//! `Resize` and `Upsample` in ONNX files.

use alloc::vec::Vec;

use super::op::Resize;
use crate::error::Result;
use crate::io::onnx::export::writer::{self as export, NodeWriter};
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, floats, ignore, ints, only, only_text, text};
use crate::ops::gather::Gather;
use crate::ops::interpolate::{Coordinates, Interpolate};
use alloc::string::String;

/// The spelling of [`Resize`].
pub(crate) const RESIZE: &[OnnxOperator] = &[
    OnnxOperator::new(
        "Resize",
        &[(10, 2, 2), (11, 1, 4)],
        &[
            text("mode"),
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
    OnnxOperator::new("Upsample", &[(7, 1, 1), (9, 2, 2)], &[text("mode"), floats("scales").until(8)], resize)
        .since(7)
        .until(9),
];

fn resize(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = importer.shape(node, 0)?;
    // One axis is the width of images with one row.
    let image = match x[..] {
        [n, c, len] => [n, c, 1, len],
        [n, c, h, w] => [n, c, h, w],
        _ => return Err(node.unsupported(alloc::format!("a tensor of shape {x:?}, not an image"))),
    };
    let mut factors = resize_factors(importer, node, &x)?;
    if x.len() == 3 {
        factors.insert(2, Factor { scale: 1.0, size: 1 });
    }
    let [batch, channels, height, width] = factors[..] else { return Err(node.unsupported("scales of other axes")) };
    if batch.scale != 1.0 || channels.scale != 1.0 || height.size == 0 || width.size == 0 {
        let scales: Vec<f64> = factors.iter().map(|factor| factor.scale).collect();
        let why = alloc::format!("scales {scales:?}: only those of height and width are supported");
        return Err(node.unsupported(why));
    }
    let size = [height.size, width.size];
    importer.limits.check_shape(node.output()?, &[image[0], image[1], size[0], size[1]])?;
    let name = importer.reshaped(node, node.required(0)?, &x, image.to_vec())?;
    let shape = (x.len() == 3).then(|| alloc::vec![x[0], x[1], size[1]]);
    // Earlier opsets have no attribute, and compute what `asymmetric` and `floor` do.
    let default = if importer.opset >= 11 { ("half_pixel", "round_prefer_floor") } else { ("asymmetric", "floor") };
    let transformation = node.text("coordinate_transformation_mode", default.0);
    let coordinates = match transformation {
        "half_pixel" => Coordinates::HalfPixel,
        "pytorch_half_pixel" => Coordinates::HalfPixelOrZero,
        "asymmetric" => Coordinates::Asymmetric,
        "align_corners" => Coordinates::AlignCorners,
        other => {
            return Err(node.unsupported(alloc::format!("attribute coordinate_transformation_mode = {other:?}")));
        }
    };
    let scales = [height.scale as f32, width.scale as f32];
    match node.text("mode", "nearest") {
        "nearest" => {}
        "linear" => {
            return importer.push_reshaped(node, Interpolate { size, scales, coordinates }, alloc::vec![name], shape);
        }
        other => return Err(node.unsupported(alloc::format!("attribute mode = {other:?}"))),
    }
    let rounding = node.text("nearest_mode", default.1);
    let round: fn(f64) -> f64 = match rounding {
        "floor" => num_traits::Float::floor,
        "ceil" => num_traits::Float::ceil,
        "round_prefer_floor" => |x| num_traits::Float::ceil(x - 0.5),
        "round_prefer_ceil" => |x| num_traits::Float::floor(x + 0.5),
        other => return Err(node.unsupported(alloc::format!("attribute nearest_mode = {other:?}"))),
    };
    let nearest = [0, 1].map(|axis| {
        let (input, output) = (image[axis + 2], size[axis]);
        let pixel =
            |i| round(coordinates.source(i, input, output, scales[axis])).clamp(0.0, (input - 1) as f64) as usize;
        (0..output).map(pixel).collect::<Vec<usize>>()
    });
    // Whole factors repeat pixels, whichever coordinates are used.
    let repeats = |axis: usize| {
        let factor = size[axis] / image[axis + 2];
        size[axis] == factor * image[axis + 2] && nearest[axis].iter().enumerate().all(|(i, &at)| at == i / factor)
    };
    if repeats(0) && repeats(1) {
        let scales = [size[0] / image[2], size[1] / image[3]];
        return importer.push_reshaped(node, Resize { scales }, alloc::vec![name], shape);
    }
    let [rows, columns] = nearest;
    let resized_rows = importer.new_name(&alloc::format!("{}.rows", node.output()?));
    importer.push_as(Gather { axis: 2, indices: rows }, alloc::vec![name], &resized_rows)?;
    importer.push_reshaped(node, Gather { axis: 3, indices: columns }, alloc::vec![resized_rows], shape)
}

/// The factor of an axis, and the length that it becomes.
#[derive(Clone, Copy)]
struct Factor {
    scale: f64,
    size: usize,
}

/// The factors of a `Resize` or `Upsample`, by axis.
fn resize_factors(importer: &Importer, node: &OnnxNode<'_>, shape: &[usize]) -> Result<Vec<Factor>> {
    let (scales, sizes) = match (node.op(), importer.opset) {
        ("Upsample", ..=8) => (None, None),
        ("Upsample", _) | (_, 10) => (importer.float_constant(node, 1)?, None),
        _ => (importer.float_constant(node, 2)?, importer.int_list(node, "", 3)?),
    };
    let axes = match node.ints("axes") {
        Some(axes) => node.axes(axes, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    // Opset 11 has no way to leave out `scales` but an empty tensor.
    let scales = scales.filter(|scales| !scales.is_empty());
    let sizes = sizes.filter(|sizes| !sizes.is_empty());
    let check_count = |count: usize| match count == axes.len() {
        true => Ok(()),
        false => Err(node.malformed("scales or sizes", alloc::format!("{} values", axes.len()), count)),
    };
    let scaled = |(&axis, &scale): (&usize, &f32)| {
        let (scale, len) = (f64::from(scale), shape[axis] as f64);
        Factor { scale, size: (len * scale) as usize }
    };
    let given: Vec<Factor> = match (scales, sizes, node.floats("scales")) {
        (Some(scales), None, None) => {
            check_count(scales.len())?;
            axes.iter().zip(scales.iter()).map(scaled).collect()
        }
        (None, None, Some(scales)) => {
            check_count(scales.len())?;
            axes.iter().zip(scales.iter()).map(scaled).collect()
        }
        (None, Some(sizes), None) => {
            check_count(sizes.len())?;
            // The batch in the file is the one that it was exported with.
            let is_batch = |axis: usize, size: i64| axis == 0 && (size == 1 || size == importer.batch as i64);
            let factor = |(&axis, &size): (&usize, &i64)| match is_batch(axis, size) {
                true => Factor { scale: 1.0, size: shape[axis] },
                false => Factor { scale: size as f64 / shape[axis] as f64, size: usize::try_from(size).unwrap_or(0) },
            };
            axes.iter().zip(&sizes).map(factor).collect()
        }
        (None, None, None) => return Err(node.malformed("node", "scales or sizes", "none")),
        _ => return Err(node.malformed("node", "either scales or sizes", "both")),
    };
    let mut factors: Vec<Factor> = shape.iter().map(|&size| Factor { scale: 1.0, size }).collect();
    axes.iter().zip(given).for_each(|(&axis, factor)| factors[axis] = factor);
    Ok(factors)
}

/// Writes a resize of height and width, by factors or to a size.
pub(crate) fn write(
    [height, width]: [f32; 2],
    mode: &str,
    coordinates: &str,
    size: Option<[usize; 2]>,
    node: &mut NodeWriter<'_>,
) -> Result<String> {
    let x = node.inputs[0].clone();
    let attributes = alloc::vec![
        export::text("mode", mode),
        export::text("coordinate_transformation_mode", coordinates),
        export::text("nearest_mode", "floor"),
    ];
    let none = alloc::string::String::new;
    let inputs = match size {
        None => [x, none(), node.floats(&[1.0, 1.0, height, width]), none()],
        Some([height, width]) => [x, none(), none(), node.ints(&[node.output[0], node.output[1], height, width])],
    };
    Ok(node.node("Resize", inputs, attributes))
}
