//! Data movement: padding, resizing, reshaping.

use alloc::vec::Vec;

use super::import::Importer;
use super::integers::{squeezed, unsqueezed};
use super::node::OnnxNode;
use crate::error::Result;
use crate::graph::op;

impl Importer {
    pub(super) fn pad(&mut self, node: &OnnxNode) -> Result<()> {
        let shape = self.shape(node, 0)?;
        if shape.len() != 4 {
            return Err(node.unsupported(alloc::format!("a tensor of shape {shape:?}, not an image")));
        }
        let value = match self.float_constant(node, 2)? {
            Some(value) => self.scalar(node, "constant_value", &value)?,
            None => node.float("value", 0.0),
        };
        if value != 0.0 {
            return Err(node.unsupported(alloc::format!("padding with {value}, not with zeros")));
        }
        let attribute = if self.opset < 2 { "paddings" } else { "pads" };
        let pads = self.int_list(node, attribute, 1)?.ok_or_else(|| node.malformed("node", "pads", "none"))?;
        let axes = match self.int_list(node, "axes", 3)? {
            Some(axes) => node.axes(&axes, 4)?,
            None => alloc::vec![0, 1, 2, 3],
        };
        if pads.len() != 2 * axes.len() {
            let expected = alloc::format!("{} values, two for each axis", 2 * axes.len());
            return Err(node.malformed("pads", expected, pads.len()));
        }
        if pads.iter().any(|&pad| pad < 0) {
            return Err(node.unsupported(alloc::format!("negative pads {pads:?}")));
        }
        let mut full = [0; 8];
        for (i, &axis) in axes.iter().enumerate() {
            (full[axis], full[axis + 4]) = (pads[i], pads[axes.len() + i]);
        }
        let [0, 0, top, left, 0, 0, bottom, right] = node.sizes::<8>("pads", &full)? else {
            return Err(node.unsupported("padding of the batch or the channels"));
        };
        let inputs = alloc::vec![self.operand(node.required(0)?)?];
        self.push(node, op::Pad { pads: [top, left, bottom, right] }.into(), inputs)
    }

    /// Nearest neighbor by whole factors. All supported coordinate transformations select the same pixels.
    pub(super) fn resize(&mut self, node: &OnnxNode) -> Result<()> {
        let shape = self.shape(node, 0)?;
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
        if self.opset >= 11 && !supported {
            let attributes = alloc::format!("nearest_mode = {rounding:?} with {transformation:?} coordinates");
            return Err(node.unsupported(attributes));
        }
        let factors = self.resize_factors(node, &shape)?;
        let whole = |f: f64| (1.0..=65536.0).contains(&f) && f as usize as f64 == f;
        let [batch, channels, down, right] = factors;
        if batch != 1.0 || channels != 1.0 || !whole(down) || !whole(right) {
            let why = alloc::format!("scales {factors:?}: only whole ones of height and width are supported");
            return Err(node.unsupported(why));
        }
        let inputs = alloc::vec![self.operand(node.required(0)?)?];
        self.push(node, op::Resize { scales: [down as usize, right as usize] }.into(), inputs)
    }

    /// The scales of a `Resize` or `Upsample`, by axis.
    fn resize_factors(&self, node: &OnnxNode, shape: &[usize]) -> Result<[f64; 4]> {
        let (scales, sizes) = match (node.op(), self.opset) {
            ("Upsample", ..=8) => (None, None),
            ("Upsample", _) | (_, 10) => (self.float_constant(node, 1)?, None),
            _ => (self.float_constant(node, 2)?, self.int_list(node, "", 3)?),
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
                let is_batch = |axis: usize, size: i64| axis == 0 && (size == 1 || size == self.batch as i64);
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

    pub(super) fn reshape(&mut self, node: &OnnxNode) -> Result<()> {
        let shape = self.shape(node, 0)?;
        let inner: usize = shape.iter().skip(1).product();
        let target = match node.op() {
            "Flatten" => {
                let axis = node.int("axis", 1);
                if node.axis(axis, shape.len() + 1)? != 1 {
                    return Err(node.unsupported(alloc::format!("attribute axis = {axis} on shape {shape:?}")));
                }
                alloc::vec![inner]
            }
            "Reshape" => {
                let target = self.int_list(node, "shape", 1)?;
                let target = target.ok_or_else(|| node.malformed("node", "a shape", "none"))?;
                self.reshape_target(node, &shape, &target, inner)?
            }
            op => {
                let axes = self.int_list(node, "axes", 1)?;
                let ndim = shape.len() + if op == "Squeeze" { 0 } else { axes.as_ref().map_or(0, Vec::len) };
                // Without axes, `Squeeze` would remove a batch of 1 as well.
                let batch = match &axes {
                    Some(axes) => node.axes(axes, ndim)?.contains(&0),
                    None => op == "Squeeze",
                };
                if batch {
                    return Err(node.unsupported("a change of the batch axis"));
                }
                let target = if op == "Squeeze" { squeezed } else { unsqueezed }(node, &shape, axes.as_deref())?;
                target.get(1..).unwrap_or_default().to_vec()
            }
        };
        let inputs = alloc::vec![self.operand(node.required(0)?)?];
        self.push(node, op::Reshape { shape: target }.into(), inputs)
    }

    /// Returns the target shape without the batch. In `target`, the first value is the batch, 0 copies a length of the
    /// input, and -1 is inferred.
    fn reshape_target(&self, node: &OnnxNode, shape: &[usize], target: &[i64], inner: usize) -> Result<Vec<usize>> {
        let allow_zero = node.int("allowzero", 0) != 0;
        let is_batch = |&len: &i64| match len {
            0 => !allow_zero,
            -1 | 1 => true,
            len => len == self.batch as i64,
        };
        let Some((first, rest)) = target.split_first().filter(|(first, _)| is_batch(first)) else {
            return Err(node.unsupported(alloc::format!("a change of the batch, to shape {target:?}")));
        };
        let fixed = |(axis, &len): (usize, &i64)| match len {
            0 if !allow_zero => match shape.get(axis + 1) {
                Some(&len) => Ok(Some(len)),
                None => {
                    Err(node.malformed("shape", alloc::format!("lengths for {shape:?}"), alloc::format!("{target:?}")))
                }
            },
            -1 => Ok(None),
            len => node.sizes::<1>("shape", &[len]).map(|[len]| Some(len)),
        };
        let lengths = rest.iter().enumerate().map(fixed).collect::<Result<Vec<_>>>()?;
        let product = lengths.iter().flatten().try_fold(1usize, |product, &len| product.checked_mul(len));
        let inferred = lengths.iter().filter(|len| len.is_none()).count() + usize::from(*first == -1);
        match product.and_then(|product| inner.checked_div(product)) {
            Some(rest) if inferred <= 1 => Ok(lengths.into_iter().map(|len| len.unwrap_or(rest)).collect()),
            None if inferred == 0 && product == Some(0) => Ok(lengths.into_iter().flatten().collect()),
            _ => Err(node.malformed("shape", "lengths with at most one -1", alloc::format!("{target:?}"))),
        }
    }
}
