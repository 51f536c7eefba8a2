//! One node of the file, with its attributes and constant inputs.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::proto::{AttributeProto, NodeProto};
use super::tensor::Known;
use crate::error::{Error, Result};
use crate::window::{Padding, Window};

/// A node, and the name that messages call it by.
pub(super) struct Source<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) name: String,
}

impl<'a> Source<'a> {
    pub(super) fn op(&self) -> &'a str {
        &self.node.op_type
    }

    /// The name of input `i`, if it is given.
    pub(super) fn input(&self, i: usize) -> Option<&'a str> {
        self.node.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    pub(super) fn required(&self, i: usize) -> Result<&'a str> {
        self.input(i).ok_or_else(|| self.wrong("input", alloc::format!("an input {i}"), "none"))
    }

    pub(super) fn output(&self) -> Result<&'a str> {
        let name = self.node.output.first().map(String::as_str).filter(|name| !name.is_empty());
        name.ok_or_else(|| self.wrong("output", "an output", "none"))
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Result<Known>> {
        self.attribute(name).and_then(|a| a.t.as_ref()).map(Known::new)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|a| &a.floats[..])
    }

    pub(super) fn text<'t>(&'t self, name: &str, default: &'t str) -> &'t str {
        self.attribute(name).map_or(default, |a| core::str::from_utf8(&a.s).unwrap_or("?"))
    }

    /// The axis that a possibly negative number names.
    pub(super) fn axis(&self, axis: i64, ndim: usize) -> Result<usize> {
        let positive = if axis < 0 { axis.checked_add(ndim as i64) } else { Some(axis) };
        let found = positive.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < ndim);
        found.ok_or_else(|| self.wrong("axis", alloc::format!("one of {ndim}"), axis))
    }

    /// Lengths, none of them negative.
    pub(super) fn sizes<const N: usize>(&self, what: &'static str, values: &[i64]) -> Result<[usize; N]> {
        let sizes: Option<Vec<usize>> = values.iter().map(|&v| usize::try_from(v).ok()).collect();
        let sizes = sizes.and_then(|sizes| <[usize; N]>::try_from(sizes).ok());
        sizes.ok_or_else(|| self.wrong(what, alloc::format!("{N} lengths"), alloc::format!("{values:?}")))
    }

    /// How the kernel of a convolution or pooling slides.
    pub(super) fn window(&self, kernel: [usize; 2]) -> Result<Window> {
        let pair = |name, values: Option<&[i64]>| values.map_or(Ok([1, 1]), |values| self.sizes(name, values));
        let declared = pair("kernel_shape", self.ints("kernel_shape"))?;
        if self.has("kernel_shape") && declared != kernel {
            let (expected, found) = (alloc::format!("{kernel:?}"), alloc::format!("{declared:?}"));
            return Err(self.wrong("kernel_shape", expected, found));
        }
        let padding = match (self.text("auto_pad", "NOTSET"), self.ints("pads")) {
            ("NOTSET", Some(pads)) => Padding::Explicit(self.sizes("pads", pads)?),
            ("NOTSET", None) | ("VALID", _) => Padding::Valid,
            ("SAME_UPPER", _) => Padding::Same,
            ("SAME_LOWER", _) => Padding::SameLower,
            (other, _) => return Err(self.unsupported(alloc::format!("auto_pad {other}"))),
        };
        let strides = pair("strides", self.ints("strides"))?;
        let dilations = pair("dilations", self.ints("dilations"))?;
        Ok(Window::new().with_strides(strides).with_dilations(dilations).with_padding(padding))
    }

    pub(super) fn unsupported(&self, why: impl ToString) -> Error {
        let domain = if self.node.domain.is_empty() { "" } else { "." };
        let op = alloc::format!("{}{domain}{}", self.node.domain, self.node.op_type);
        Error::Unsupported { op, node: self.name.clone(), why: why.to_string() }
    }

    pub(super) fn wrong(&self, what: &'static str, expected: impl ToString, found: impl ToString) -> Error {
        Error::Format { what, expected: expected.to_string(), found: found.to_string() }.at(&self.name)
    }
}
