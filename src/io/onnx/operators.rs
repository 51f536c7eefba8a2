//! The operators that the reader knows: their inputs and attributes, by opset version.
//!
//! [`OnnxNode::check`] compares every node with this table before the node is read. An operator, an input or an
//! attribute that is not in the table is an error, so nothing in a file that changes a result is skipped.

use alloc::format;
use alloc::string::String;

use super::node::OnnxNode;
use super::proto::AttributeProto;
use crate::error::Result;

/// The newest version of the operator set `ai.onnx` that the table covers.
pub(super) const NEWEST_OPSET: i64 = 24;

/// The type of an attribute's value, with its number in `AttributeProto.AttributeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float = 1,
    Int = 2,
    Text = 3,
    Tensor = 4,
    Floats = 6,
    Ints = 7,
}

/// The treatment of an attribute.
#[derive(Debug, Clone, Copy)]
enum Use {
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
struct Attribute {
    name: &'static str,
    kind: Kind,
    usage: Use,
    first: i64,
    last: i64,
}

impl Attribute {
    const fn since(self, first: i64) -> Self {
        Self { first, ..self }
    }

    const fn until(self, last: i64) -> Self {
        Self { last, ..self }
    }
}

const fn attribute(name: &'static str, kind: Kind, usage: Use) -> Attribute {
    Attribute { name, kind, usage, first: 1, last: NEWEST_OPSET }
}

const fn int(name: &'static str) -> Attribute {
    attribute(name, Kind::Int, Use::Read)
}

const fn ints(name: &'static str) -> Attribute {
    attribute(name, Kind::Ints, Use::Read)
}

const fn float(name: &'static str) -> Attribute {
    attribute(name, Kind::Float, Use::Read)
}

const fn floats(name: &'static str) -> Attribute {
    attribute(name, Kind::Floats, Use::Read)
}

const fn text(name: &'static str) -> Attribute {
    attribute(name, Kind::Text, Use::Read)
}

const fn tensor(name: &'static str) -> Attribute {
    attribute(name, Kind::Tensor, Use::Read)
}

const fn ignore(name: &'static str, kind: Kind) -> Attribute {
    attribute(name, kind, Use::Ignore)
}

const fn only(name: &'static str, value: i64) -> Attribute {
    attribute(name, Kind::Int, Use::OnlyInt(value))
}

const fn only_text(name: &'static str, value: &'static str) -> Attribute {
    attribute(name, Kind::Text, Use::OnlyText(value))
}

/// An operator with the opset versions that define it.
struct Operator {
    name: &'static str,
    first: i64,
    last: i64,
    /// `(since, required, allowed)`: the numbers of inputs as of opset `since`, in ascending order.
    inputs: &'static [(i64, usize, usize)],
    attributes: &'static [Attribute],
}

const fn operator(
    name: &'static str,
    inputs: &'static [(i64, usize, usize)],
    attributes: &'static [Attribute],
) -> Operator {
    Operator { name, first: 1, last: NEWEST_OPSET, inputs, attributes }
}

impl Operator {
    const fn since(self, first: i64) -> Self {
        Self { first, ..self }
    }

    const fn until(self, last: i64) -> Self {
        Self { last, ..self }
    }
}

const ANY: usize = usize::MAX;
const UNARY: &[(i64, usize, usize)] = &[(1, 1, 1)];
const BINARY: &[(i64, usize, usize)] = &[(1, 2, 2)];
/// An in-place hint of opsets 1 to 5.
const CONSUMED: Attribute = ignore("consumed_inputs", Kind::Ints).until(5);
/// The elementwise operators of opsets 1 to 6 broadcast only if asked; `axis` aligns the operands, and has no default.
const ARITHMETIC: &[Attribute] = &[only("broadcast", 0).until(6), CONSUMED];

const OPERATORS: &[Operator] = &[
    operator("Add", BINARY, ARITHMETIC),
    operator(
        "AveragePool",
        UNARY,
        &[
            text("auto_pad"),
            ints("kernel_shape"),
            ints("pads"),
            ints("strides"),
            int("count_include_pad").since(7),
            int("ceil_mode").since(10),
            ints("dilations").since(19),
        ],
    ),
    operator(
        "BatchNormalization",
        &[(1, 5, 5)],
        &[
            float("epsilon"),
            ignore("momentum", Kind::Float),
            only("spatial", 1).until(8),
            int("is_test").until(6),
            only("training_mode", 0).since(14),
            CONSUMED,
        ],
    ),
    // The rounding of casts to 8-bit floats, which are not supported.
    operator(
        "Cast",
        UNARY,
        &[int("to"), ignore("saturate", Kind::Int).since(19), ignore("round_mode", Kind::Text).since(24)],
    )
    .since(6),
    operator("Clip", &[(1, 1, 1), (11, 1, 3)], &[float("min").until(10), float("max").until(10), CONSUMED]),
    operator("Concat", &[(1, 1, ANY)], &[int("axis")]),
    operator(
        "Constant",
        &[(1, 0, 0)],
        &[
            tensor("value"),
            float("value_float").since(12),
            floats("value_floats").since(12),
            int("value_int").since(12),
            ints("value_ints").since(12),
        ],
    ),
    operator(
        "Conv",
        &[(1, 2, 3)],
        &[text("auto_pad"), ints("dilations"), int("group"), ints("kernel_shape"), ints("pads"), ints("strides")],
    ),
    operator("Div", BINARY, ARITHMETIC),
    operator(
        "Dropout",
        &[(1, 1, 1), (12, 1, 3)],
        &[
            ignore("ratio", Kind::Float).until(11),
            ignore("seed", Kind::Int).since(12),
            int("is_test").until(6),
            CONSUMED,
        ],
    ),
    operator("Flatten", UNARY, &[int("axis")]),
    operator("Gather", BINARY, &[int("axis")]),
    operator(
        "Gemm",
        &[(1, 3, 3), (11, 2, 3)],
        &[
            float("alpha"),
            float("beta"),
            only("transA", 0),
            int("transB"),
            // The row that `C` must be broadcasts to the same result with and without it.
            ignore("broadcast", Kind::Int).until(6),
        ],
    ),
    operator("GlobalAveragePool", UNARY, &[]),
    operator("HardSigmoid", UNARY, &[float("alpha"), float("beta"), CONSUMED]),
    operator("HardSwish", UNARY, &[]).since(14),
    operator("Identity", UNARY, &[]),
    operator("LeakyRelu", UNARY, &[float("alpha"), CONSUMED]),
    operator("MatMul", BINARY, &[]),
    operator(
        "MaxPool",
        UNARY,
        &[
            text("auto_pad"),
            ints("kernel_shape"),
            ints("pads"),
            ints("strides"),
            // The layout of the output `Indices`, which is not supported.
            ignore("storage_order", Kind::Int).since(8),
            int("ceil_mode").since(10),
            ints("dilations").since(10),
        ],
    ),
    operator("Mul", BINARY, ARITHMETIC),
    operator(
        "Pad",
        &[(1, 1, 1), (11, 2, 3), (18, 2, 4)],
        &[
            only_text("mode", "constant"),
            ints("paddings").until(1),
            ints("pads").since(2).until(10),
            float("value").until(10),
        ],
    ),
    operator(
        "ReduceMean",
        &[(1, 1, 1), (18, 1, 2)],
        &[
            ints("axes").until(17),
            int("keepdims"),
            // Without axes the operator is not supported.
            ignore("noop_with_empty_axes", Kind::Int).since(18),
        ],
    ),
    operator("Relu", UNARY, &[CONSUMED]),
    operator(
        "Reshape",
        &[(1, 1, 1), (5, 2, 2)],
        &[ints("shape").until(4), int("allowzero").since(14), CONSUMED.until(4)],
    ),
    operator(
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
    )
    .since(10),
    operator("Shape", UNARY, &[int("start").since(15), int("end").since(15)]),
    operator("Sigmoid", UNARY, &[CONSUMED]),
    operator("Softmax", UNARY, &[int("axis")]),
    operator("Squeeze", &[(1, 1, 1), (13, 1, 2)], &[ints("axes").until(12)]),
    operator("Sub", BINARY, ARITHMETIC),
    operator("Tanh", UNARY, &[CONSUMED]),
    operator("Unsqueeze", &[(1, 1, 1), (13, 2, 2)], &[ints("axes").until(12)]),
    operator("Upsample", &[(7, 1, 1), (9, 2, 2)], &[only_text("mode", "nearest"), floats("scales").until(8)])
        .since(7)
        .until(9),
];

impl OnnxNode<'_> {
    /// Checks the operator, its attributes and its numbers of inputs and outputs against the table.
    pub(super) fn check(&self, opset: i64) -> Result<()> {
        let Some(operator) = OPERATORS.iter().find(|operator| operator.name == self.op()) else {
            return Err(self.unsupported("the operator is not implemented"));
        };
        if !(operator.first..=operator.last).contains(&opset) {
            let (first, last) = (operator.first, operator.last);
            return Err(self.unsupported(format!("supported in opsets {first} to {last}, the file uses opset {opset}")));
        }
        let inputs = operator.inputs.iter().rev().find(|&&(since, ..)| since <= opset);
        let &(_, required, allowed) = inputs.unwrap_or(&(1, 0, 0));
        for i in 0..required {
            self.required(i)?;
        }
        if let Some(i) = (allowed..self.node.input.len()).find(|&i| self.input(i).is_some()) {
            let name = &self.node.input[i];
            return Err(self.unsupported(format!("input {i} ({name:?}) in opset {opset}")));
        }
        // The mask of a dropout does not exist at inference: reading it is an error at the node that reads it.
        let outputs = self.node.output.iter().skip(1);
        if let Some(name) = outputs.clone().find(|name| !name.is_empty() && self.op() != "Dropout") {
            return Err(self.unsupported(format!("output {name:?} beside the first one")));
        }
        self.check_attributes(operator, opset)
    }

    fn check_attributes(&self, operator: &Operator, opset: i64) -> Result<()> {
        for (i, attribute) in self.node.attribute.iter().enumerate() {
            let name = &attribute.name;
            // No operator has more attributes than this: the quadratic search is short.
            let earlier = &self.node.attribute[..i.min(operator.attributes.len())];
            if earlier.iter().any(|earlier| earlier.name == *name) {
                return Err(self.malformed("attribute", "one value for each attribute", format!("{name:?} twice")));
            }
            let known = operator.attributes.iter().find(|known| known.name == name);
            let Some(known) = known.filter(|known| (known.first..=known.last).contains(&opset)) else {
                let value = printed(attribute);
                return Err(self.unsupported(format!("attribute {name} = {value} in opset {opset}")));
            };
            if !attribute.ref_attr_name.is_empty() {
                return Err(self.unsupported(format!("attribute {name} refers to an attribute of a function")));
            }
            if attribute.r#type != 0 && attribute.r#type != known.kind as i32 {
                let (expected, found) = (kind_name(known.kind as i32), kind_name(attribute.r#type));
                return Err(self.malformed("attribute", format!("{name} of type {expected}"), found));
            }
            let supported = match known.usage {
                Use::Read | Use::Ignore => true,
                Use::OnlyInt(value) => attribute.i == value,
                Use::OnlyText(value) => attribute.s == value.as_bytes(),
            };
            if !supported {
                return Err(self.unsupported_attribute(attribute));
            }
        }
        Ok(())
    }

    /// The error for an attribute whose value is not implemented.
    pub(super) fn unsupported_attribute(&self, attribute: &AttributeProto) -> crate::Error {
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
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for operator in OPERATORS {
            assert!(operator.inputs.is_sorted_by(|a, b| a.0 < b.0), "{}", operator.name);
            assert!(operator.inputs[0].0 <= operator.first, "{}", operator.name);
            for (i, attribute) in operator.attributes.iter().enumerate() {
                assert!(attribute.first <= attribute.last && attribute.last <= NEWEST_OPSET);
                assert!(operator.attributes[..i].iter().all(|other| other.name != attribute.name));
            }
        }
        assert!(OPERATORS.is_sorted_by(|a, b| a.name < b.name));
    }
}
