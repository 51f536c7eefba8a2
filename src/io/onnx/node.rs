//! One node of the file: its inputs, its attributes, and the errors that name it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::proto::{AttributeProto, NodeProto};
use super::tensor::ConstantTensor;
use crate::error::{Error, FileError, GraphError, Result};
use crate::window::{Padding, Window};

/// A node of the file, checked by [`check`](Self::check) before anything else is read from it.
pub(crate) struct OnnxNode<'a> {
    pub(crate) node: &'a NodeProto,
    /// The name of the node in errors: its name in the file, or the name of its output if it has none.
    pub(crate) name: String,
}

impl<'a> OnnxNode<'a> {
    pub(crate) fn op(&self) -> &'a str {
        &self.node.op_type
    }

    /// The name of input `i`, if the node has it.
    pub(crate) fn input(&self, i: usize) -> Option<&'a str> {
        self.node.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of input `i`.
    pub(crate) fn required(&self, i: usize) -> Result<&'a str> {
        self.input(i).ok_or_else(|| self.malformed("node", alloc::format!("an input {i}"), "none"))
    }

    /// The name of the first output.
    pub(crate) fn output(&self) -> Result<&'a str> {
        let name = self.node.output.first().map(String::as_str).filter(|name| !name.is_empty());
        name.ok_or_else(|| self.malformed("node", "an output", "none"))
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(crate) fn tensor(&self, name: &str, max_elements: usize) -> Option<Result<ConstantTensor>> {
        self.attribute(name).and_then(|a| a.t.as_ref()).map(|tensor| ConstantTensor::new(tensor, max_elements))
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    /// The value of an attribute that has no default.
    pub(crate) fn required_int(&self, name: &str) -> Result<i64> {
        let missing = || self.malformed("attribute", alloc::format!("a value of {name}"), "none");
        self.attribute(name).map(|a| a.i).ok_or_else(missing)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    pub(crate) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|a| &a.floats[..])
    }

    /// The value of a string attribute; "?" if it is not UTF-8.
    pub(crate) fn text<'t>(&'t self, name: &str, default: &'t str) -> &'t str {
        self.attribute(name).map_or(default, |a| core::str::from_utf8(&a.s).unwrap_or("?"))
    }

    /// Resolves an axis in `-ndim..ndim`.
    pub(crate) fn axis(&self, axis: i64, ndim: usize) -> Result<usize> {
        let positive = if axis < 0 { axis.checked_add(ndim as i64) } else { Some(axis) };
        let found = positive.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < ndim);
        found.ok_or_else(|| self.malformed("axis", alloc::format!("an axis of a tensor of rank {ndim}"), axis))
    }

    /// Resolves axes in `-ndim..ndim`, none of them twice.
    pub(crate) fn axes(&self, axes: &[i64], ndim: usize) -> Result<Vec<usize>> {
        // More axes than the rank are an error in any case; checking first bounds the search for repetitions.
        if axes.len() > ndim {
            let expected = alloc::format!("at most {ndim}, the rank");
            return Err(self.malformed("number of axes", expected, axes.len()));
        }
        let mut resolved = Vec::with_capacity(axes.len());
        for &axis in axes {
            let axis = self.axis(axis, ndim)?;
            if resolved.contains(&axis) {
                return Err(self.malformed("axes", "each axis once", alloc::format!("{axes:?}")));
            }
            resolved.push(axis);
        }
        Ok(resolved)
    }

    /// Converts `N` lengths, none of them negative.
    pub(crate) fn sizes<const N: usize>(&self, what: &'static str, values: &[i64]) -> Result<[usize; N]> {
        let sizes: Option<Vec<usize>> = values.iter().take(N + 1).map(|&v| usize::try_from(v).ok()).collect();
        let sizes = sizes.and_then(|sizes| <[usize; N]>::try_from(sizes).ok());
        sizes.ok_or_else(|| {
            let expected =
                if N == 1 { "a length of at least 0".into() } else { alloc::format!("{N} lengths of at least 0") };
            self.malformed(what, expected, alloc::format!("{:?}", &values[..values.len().min(N + 1)]))
        })
    }

    /// Reads the attributes of a convolution or pooling.
    pub(crate) fn window(&self, kernel: [usize; 2]) -> Result<Window> {
        let pair = |name, values: Option<&[i64]>| values.map_or(Ok([1, 1]), |values| self.sizes(name, values));
        let declared = pair("kernel_shape", self.ints("kernel_shape"))?;
        if self.has("kernel_shape") && declared != kernel {
            let (expected, found) =
                (alloc::format!("{kernel:?}, the shape of the weights"), alloc::format!("{declared:?}"));
            return Err(self.malformed("kernel_shape", expected, found));
        }
        let pads = self.ints("pads").map(|pads| self.sizes("pads", pads)).transpose()?;
        let padding = self.padding(pads)?;
        let strides = pair("strides", self.ints("strides"))?;
        let dilations = pair("dilations", self.ints("dilations"))?;
        Ok(Window::new().with_strides(strides).with_dilations(dilations).with_padding(padding))
    }

    /// Same as [`window`](Self::window), for a kernel along one axis: the width of images with one row.
    pub(crate) fn window_1d(&self, kernel: usize) -> Result<Window> {
        let one = |name, default| {
            self.ints(name).map_or(Ok(default), |values| self.sizes::<1>(name, values).map(|[len]| len))
        };
        if one("kernel_shape", kernel)? != kernel {
            let found = alloc::format!("{:?}", self.ints("kernel_shape"));
            return Err(self.malformed("kernel_shape", alloc::format!("[{kernel}], the shape of the weights"), found));
        }
        let pads = match self.ints("pads") {
            Some(pads) => self.sizes::<2>("pads", pads)?,
            None => [0, 0],
        };
        let padding = self.padding(Some([0, pads[0], 0, pads[1]]))?;
        let (stride, dilation) = (one("strides", 1)?, one("dilations", 1)?);
        Ok(Window::new().with_strides([1, stride]).with_dilations([1, dilation]).with_padding(padding))
    }

    /// Reads `auto_pad`, and takes the pads for an explicit padding.
    fn padding(&self, pads: Option<[usize; 4]>) -> Result<Padding> {
        let auto_pad = self.text("auto_pad", "NOTSET");
        if auto_pad != "NOTSET" && pads.is_some_and(|pads| pads != [0; 4]) {
            return Err(self.unsupported(alloc::format!("attribute pads beside auto_pad = {auto_pad:?}")));
        }
        Ok(match (auto_pad, pads) {
            ("NOTSET", Some(pads)) => Padding::Explicit(pads),
            ("NOTSET", None) | ("VALID", _) => Padding::Valid,
            ("SAME_UPPER", _) => Padding::Same,
            ("SAME_LOWER", _) => Padding::SameLower,
            (other, _) => return Err(self.unsupported(alloc::format!("attribute auto_pad = {other:?}"))),
        })
    }

    /// The error for a valid node that this crate does not implement.
    pub(crate) fn unsupported(&self, why: impl ToString) -> Error {
        let domain = if self.node.domain.is_empty() { "" } else { "." };
        let op = alloc::format!("{}{domain}{}", self.node.domain, self.node.op_type);
        GraphError::Unsupported { op, node: self.name.clone(), why: why.to_string() }.into()
    }

    /// The error for a node that no ONNX file may have.
    pub(crate) fn malformed(&self, what: &'static str, expected: impl ToString, found: impl ToString) -> Error {
        let error = FileError::Format { what, expected: expected.to_string(), found: found.to_string() };
        Error::from(error).at(&self.name)
    }
}
