//! Nodes that move elements: padding, resizing, reshaping.

use alloc::vec::Vec;

use super::import::Importer;
use super::node::Source;
use crate::error::Result;
use crate::graph::Op;

impl Importer {
    pub(super) fn pad(&mut self, source: &Source) -> Result<()> {
        if source.text("mode", "constant") != "constant"
            || self.real(source, 2)?.is_some_and(|v| v.iter().any(|&v| v != 0.0))
        {
            return Err(source.unsupported("padding with anything but zeros"));
        }
        let pads = self.ints_of(source, "pads", 1)?.unwrap_or_default();
        let [0, 0, top, left, 0, 0, bottom, right] = source.sizes::<8>("pads", &pads)? else {
            return Err(source.unsupported("padding of batch or channels"));
        };
        let inputs = alloc::vec![self.operand(source.required(0)?)?];
        self.push(source, Op::Pad { pads: [top, left, bottom, right] }, inputs)
    }

    /// Nearest neighbours by whole factors, which is the same for all ways to map coordinates that are in use.
    pub(super) fn resize(&mut self, source: &Source) -> Result<()> {
        let shape = self.shape(source, 0)?;
        let (scales, sizes) = match (source.op(), self.opset) {
            ("Upsample", ..9) | ("Resize", ..10) => (None, None),
            ("Upsample", _) | ("Resize", 10) => (self.real(source, 1)?, None),
            _ => (self.real(source, 2)?, self.ints(source, 3)?),
        };
        let factors: Vec<f64> = match (scales, sizes) {
            // The batch that the file was made for is not ours.
            (_, Some(sizes)) => {
                let ratio = |(&to, &from): (&i64, &usize)| to as f64 / from as f64;
                core::iter::once(1.0).chain(sizes.iter().zip(&shape).map(ratio).skip(1)).collect()
            }
            (Some(scales), None) => scales.iter().map(|&s| s.into()).collect(),
            (None, None) => source.floats("scales").unwrap_or_default().iter().map(|&s| s.into()).collect(),
        };
        let whole = |f: f64| (1.0..=65536.0).contains(&f) && f as usize as f64 == f;
        let mode = source.text("mode", "nearest");
        let rounding = source.text("nearest_mode", "round_prefer_floor");
        let mapping = source.text("coordinate_transformation_mode", "half_pixel");
        let same = self.opset < 11
            || matches!(
                (mapping, rounding),
                ("asymmetric", "floor") | ("half_pixel", "round_prefer_floor" | "round_prefer_ceil")
            );
        let &[1.0, 1.0, down, right] = &factors[..] else {
            return Err(source.unsupported("factors for other axes than height and width"));
        };
        if mode != "nearest" || !same || !whole(down) || !whole(right) || shape.len() != 4 {
            return Err(source.unsupported("anything but nearest neighbours by whole factors"));
        }
        let inputs = alloc::vec![self.operand(source.required(0)?)?];
        self.push(source, Op::Repeat { factors: [down as usize, right as usize] }, inputs)
    }

    pub(super) fn reshape(&mut self, source: &Source) -> Result<()> {
        let shape = self.shape(source, 0)?;
        let inner: usize = shape.iter().skip(1).product();
        let target = match source.op() {
            "Flatten" => {
                if source.axis(source.int("axis", 1), shape.len() + 1)? != 1 {
                    return Err(source.unsupported("an axis other than 1"));
                }
                alloc::vec![inner]
            }
            "Reshape" => {
                let target = self.ints_of(source, "shape", 1)?.unwrap_or_default();
                self.reshape_target(source, &shape, &target, inner)?
            }
            op => {
                let axes = self.ints_of(source, "axes", 1)?.unwrap_or_default();
                let added = if op == "Squeeze" { 0 } else { axes.len() };
                let axes = axes.iter().map(|&a| source.axis(a, shape.len() + added)).collect::<Result<Vec<_>>>()?;
                if axes.contains(&0) || (op == "Squeeze" && axes.is_empty()) {
                    return Err(source.unsupported("a change of the batch"));
                }
                if op == "Squeeze" {
                    if let Some(&axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
                        return Err(source.wrong("axis", "a length of 1", shape[axis]));
                    }
                    (1..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect()
                } else {
                    let mut old = shape.iter().copied();
                    let total = shape.len() + axes.len();
                    let full = (0..total).map(|axis| if axes.contains(&axis) { 1 } else { old.next().unwrap_or(1) });
                    full.skip(1).collect()
                }
            }
        };
        let inputs = alloc::vec![self.operand(source.required(0)?)?];
        self.push(source, Op::Reshape { shape: target }, inputs)
    }

    /// The new shape without the batch; the first number stands for the batch, 0 for what was there, -1 for the rest.
    fn reshape_target(&self, source: &Source, shape: &[usize], target: &[i64], inner: usize) -> Result<Vec<usize>> {
        let batch = [0, -1, 1, self.batch as i64];
        let Some((_, rest)) = target.split_first().filter(|(first, _)| batch.contains(first)) else {
            return Err(source.unsupported(alloc::format!("a change of the batch, to {target:?}")));
        };
        let fixed = |(axis, &len): (usize, &i64)| match len {
            0 if source.int("allowzero", 0) == 0 => Ok(shape.get(axis + 1).copied()),
            -1 => Ok(None),
            len => source.sizes::<1>("shape", &[len]).map(|[len]| Some(len)),
        };
        let lengths = rest.iter().enumerate().map(fixed).collect::<Result<Vec<_>>>()?;
        let product = lengths.iter().flatten().try_fold(1usize, |product, &len| product.checked_mul(len));
        let unknown = lengths.iter().filter(|len| len.is_none()).count();
        match product.and_then(|product| inner.checked_div(product)) {
            Some(rest) if unknown <= 1 => Ok(lengths.into_iter().map(|len| len.unwrap_or(rest)).collect()),
            _ => Err(source.wrong("shape", "lengths of which one may be -1", alloc::format!("{target:?}"))),
        }
    }
}
