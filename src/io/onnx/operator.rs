//! The spelling of an operator in ONNX files: its inputs and attributes, by opset version.
//!
//! [`OnnxOperator::check`] compares every node with it before the node is read. An operator, an input or an attribute
//! that no spelling lists is an error, so nothing in a file that changes a result is skipped.

use alloc::format;
use alloc::string::String;

use super::import::Importer;
use super::node::OnnxNode;
use super::proto::AttributeProto;
use crate::error::Result;

/// The newest version of the operator set `ai.onnx` that the table covers.
pub(crate) const NEWEST_OPSET: i64 = 24;

/// The type of an attribute's value, with its number in `AttributeProto.AttributeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float = 1,
    Int = 2,
    Text = 3,
    Tensor = 4,
    Floats = 6,
    Ints = 7,
}

/// The treatment of an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// The value becomes a part of the graph.
    Read,
    /// The value has no effect on inference.
    Ignore,
    /// Only this value is supported.
    OnlyInt(i64),
    /// Only this value is supported.
    OnlyText(&'static str),
}

/// The name of an `AttributeType`.
fn kind_name(kind: i32) -> &'static str {
    const NAMES: [&str; 8] = ["UNDEFINED", "FLOAT", "INT", "STRING", "TENSOR", "GRAPH", "FLOATS", "INTS"];
    usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind)).unwrap_or(&"another type")
}

/// An attribute and the opset versions in which the operator has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute {
    name: &'static str,
    kind: Kind,
    usage: Use,
    first: i64,
    last: i64,
}

impl Attribute {
    pub(crate) const fn since(self, first: i64) -> Self {
        Self { first, ..self }
    }

    pub(crate) const fn until(self, last: i64) -> Self {
        Self { last, ..self }
    }
}

pub(crate) const fn attribute(name: &'static str, kind: Kind, usage: Use) -> Attribute {
    Attribute { name, kind, usage, first: 1, last: NEWEST_OPSET }
}

pub(crate) const fn int(name: &'static str) -> Attribute {
    attribute(name, Kind::Int, Use::Read)
}

pub(crate) const fn ints(name: &'static str) -> Attribute {
    attribute(name, Kind::Ints, Use::Read)
}

pub(crate) const fn float(name: &'static str) -> Attribute {
    attribute(name, Kind::Float, Use::Read)
}

pub(crate) const fn floats(name: &'static str) -> Attribute {
    attribute(name, Kind::Floats, Use::Read)
}

pub(crate) const fn text(name: &'static str) -> Attribute {
    attribute(name, Kind::Text, Use::Read)
}

pub(crate) const fn tensor(name: &'static str) -> Attribute {
    attribute(name, Kind::Tensor, Use::Read)
}

pub(crate) const fn ignore(name: &'static str, kind: Kind) -> Attribute {
    attribute(name, kind, Use::Ignore)
}

pub(crate) const fn only(name: &'static str, value: i64) -> Attribute {
    attribute(name, Kind::Int, Use::OnlyInt(value))
}

pub(crate) const fn only_text(name: &'static str, value: &'static str) -> Attribute {
    attribute(name, Kind::Text, Use::OnlyText(value))
}

/// The domain of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    /// `ai.onnx`.
    Onnx,
    /// `com.microsoft`.
    Microsoft,
    /// Both, with the same meaning.
    Both,
}

/// An operator with the opset versions that define it.
pub(crate) struct OnnxOperator {
    pub(crate) name: &'static str,
    first: i64,
    last: i64,
    /// `(since, required, allowed)`: the numbers of inputs as of opset `since`, in ascending order.
    inputs: &'static [(i64, usize, usize)],
    attributes: &'static [Attribute],
    /// Whether nodes may have outputs beside the first one.
    several_outputs: bool,
    domain: Domain,
    /// Adds the node to the graph.
    pub(crate) read: Read,
}

/// A function that adds a checked node to the graph.
type Read = fn(&mut Importer, &OnnxNode<'_>) -> Result<()>;

impl OnnxOperator {
    pub(crate) const fn new(
        name: &'static str,
        inputs: &'static [(i64, usize, usize)],
        attributes: &'static [Attribute],
        read: Read,
    ) -> Self {
        Self {
            name,
            first: 1,
            last: NEWEST_OPSET,
            inputs,
            attributes,
            several_outputs: false,
            domain: Domain::Onnx,
            read,
        }
    }

    /// An operator of the domain `com.microsoft`, whose opset does not matter.
    pub(crate) const fn of_microsoft(self) -> Self {
        Self { domain: Domain::Microsoft, ..self }
    }

    /// An operator that both domains have.
    pub(crate) const fn in_microsoft_too(self) -> Self {
        Self { domain: Domain::Both, ..self }
    }

    /// Returns whether a node is this operator.
    pub(super) fn is(&self, domain: &str, name: &str) -> bool {
        let domains: &[&str] = match self.domain {
            Domain::Onnx => &["", "ai.onnx"],
            Domain::Microsoft => &["com.microsoft"],
            Domain::Both => &["", "ai.onnx", "com.microsoft"],
        };
        self.name == name && domains.contains(&domain)
    }

    pub(crate) const fn since(self, first: i64) -> Self {
        Self { first, ..self }
    }

    pub(crate) const fn until(self, last: i64) -> Self {
        Self { last, ..self }
    }

    /// Accepts nodes with several outputs. The mask of a dropout does not exist at inference: reading it is an error at
    /// the node that reads it.
    pub(crate) const fn with_outputs(self) -> Self {
        Self { several_outputs: true, ..self }
    }
}

pub(crate) const ANY: usize = usize::MAX;
pub(crate) const UNARY: &[(i64, usize, usize)] = &[(1, 1, 1)];
pub(crate) const BINARY: &[(i64, usize, usize)] = &[(1, 2, 2)];
/// An in-place hint of opsets 1 to 5.
pub(crate) const CONSUMED: Attribute = ignore("consumed_inputs", Kind::Ints).until(5);
/// The elementwise operators of opsets 1 to 6 broadcast only if asked; `axis` aligns the operands, and has no default.
pub(crate) const ARITHMETIC: &[Attribute] = &[only("broadcast", 0).until(6), CONSUMED];

impl OnnxOperator {
    /// Checks the attributes of a node and its numbers of inputs and outputs.
    pub(super) fn check(&self, node: &OnnxNode<'_>, opset: i64) -> Result<()> {
        if !(self.first..=self.last).contains(&opset) {
            let (first, last) = (self.first, self.last);
            return Err(node.unsupported(format!("supported in opsets {first} to {last}, the file uses opset {opset}")));
        }
        let inputs = self.inputs.iter().rev().find(|&&(since, ..)| since <= opset);
        let &(_, required, allowed) = inputs.unwrap_or(&(1, 0, 0));
        for i in 0..required {
            node.required(i)?;
        }
        if let Some(i) = (allowed..node.node.input.len()).find(|&i| node.input(i).is_some()) {
            let name = &node.node.input[i];
            return Err(node.unsupported(format!("input {i} ({name:?}) in opset {opset}")));
        }
        let outputs = node.node.output.iter().skip(1);
        if let Some(name) = outputs.clone().find(|name| !name.is_empty() && !self.several_outputs) {
            return Err(node.unsupported(format!("output {name:?} beside the first one")));
        }
        self.check_attributes(node, opset)
    }

    fn check_attributes(&self, node: &OnnxNode<'_>, opset: i64) -> Result<()> {
        for (i, attribute) in node.node.attribute.iter().enumerate() {
            let name = &attribute.name;
            // No operator has more attributes than this: the quadratic search is short.
            let earlier = &node.node.attribute[..i.min(self.attributes.len())];
            if earlier.iter().any(|earlier| earlier.name == *name) {
                return Err(node.malformed("attribute", "one value for each attribute", format!("{name:?} twice")));
            }
            let known = self.attributes.iter().find(|known| known.name == name);
            let Some(known) = known.filter(|known| (known.first..=known.last).contains(&opset)) else {
                let value = printed(attribute);
                return Err(node.unsupported(format!("attribute {name} = {value} in opset {opset}")));
            };
            if !attribute.ref_attr_name.is_empty() {
                return Err(node.unsupported(format!("attribute {name} refers to an attribute of a function")));
            }
            if attribute.r#type != 0 && attribute.r#type != known.kind as i32 {
                let (expected, found) = (kind_name(known.kind as i32), kind_name(attribute.r#type));
                return Err(node.malformed("attribute", format!("{name} of type {expected}"), found));
            }
            let supported = match known.usage {
                Use::Read | Use::Ignore => true,
                Use::OnlyInt(value) => attribute.i == value,
                Use::OnlyText(value) => attribute.s == value.as_bytes(),
            };
            if !supported {
                return Err(node.unsupported_attribute(attribute));
            }
        }
        Ok(())
    }
}

impl OnnxNode<'_> {
    /// The error for an attribute whose value is not implemented.
    pub(crate) fn unsupported_attribute(&self, attribute: &AttributeProto) -> crate::Error {
        self.unsupported(format!("attribute {} = {}", attribute.name, printed(attribute)))
    }
}

/// The value of an attribute, as an error shows it. Long values are cut.
fn printed(attribute: &AttributeProto) -> String {
    let of_kind = |kind: Kind, otherwise: bool| attribute.r#type == kind as i32 || attribute.r#type == 0 && otherwise;
    if of_kind(Kind::Ints, !attribute.ints.is_empty()) {
        format!("{:?}", &attribute.ints[..attribute.ints.len().min(8)])
    } else if of_kind(Kind::Floats, !attribute.floats.is_empty()) {
        format!("{:?}", &attribute.floats[..attribute.floats.len().min(8)])
    } else if of_kind(Kind::Text, !attribute.s.is_empty()) {
        format!("{:?}", String::from_utf8_lossy(&attribute.s[..attribute.s.len().min(64)]))
    } else if of_kind(Kind::Tensor, attribute.t.is_some()) {
        "(a tensor)".into()
    } else if of_kind(Kind::Float, attribute.f != 0.0) {
        format!("{}", attribute.f)
    } else {
        format!("{}", attribute.i)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_table_is_sound() {
        let operators: Vec<_> = super::super::import::operators().collect();
        for (i, operator) in operators.iter().enumerate() {
            assert!(operators[..i].iter().all(|other| other.name != operator.name), "{}", operator.name);
            assert!(operator.inputs.is_sorted_by(|a, b| a.0 < b.0), "{}", operator.name);
            assert!(operator.inputs[0].0 <= operator.first, "{}", operator.name);
            for (i, attribute) in operator.attributes.iter().enumerate() {
                assert!(attribute.first <= attribute.last && attribute.last <= NEWEST_OPSET);
                assert!(operator.attributes[..i].iter().all(|other| other.name != attribute.name));
            }
        }
    }
}
