//! The nodes that one operator becomes, and the tensors of the file.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::ArrayRef2;

use crate::error::{GraphError, Result};
use crate::io::onnx::operator::Kind;
use crate::io::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use crate::qparams::QParams;
use crate::window::{Padding, Window};

/// A number of an initializer.
pub(crate) trait Number: Copy {
    /// Its `TensorProto.DataType`.
    const TYPE: i32;
    fn bytes(self) -> impl IntoIterator<Item = u8>;
}

macro_rules! numbers {
    ($($t:ty = $number:literal),*) => {$(
        impl Number for $t {
            const TYPE: i32 = $number;
            fn bytes(self) -> impl IntoIterator<Item = u8> {
                self.to_le_bytes()
            }
        }
    )*};
}
numbers!(f32 = 1, u8 = 2, i8 = 3, i32 = 6, i64 = 7, half::f16 = 10);

/// The domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// The nodes and initializers of a file.
#[derive(Default)]
pub(crate) struct File {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    names: BTreeSet<String>,
}

impl File {
    /// A file in which no tensor has one of these names.
    pub(super) fn new(names: BTreeSet<String>) -> Self {
        Self { names, ..Self::default() }
    }

    /// Returns `base`, or `base.1`, `base.2`, … if a tensor has that name.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_string();
        let mut i = 0;
        while !self.names.insert(name.clone()) {
            i += 1;
            name = format!("{base}.{i}");
        }
        name
    }

    /// Adds an initializer. Its name starts with `base`.
    pub(super) fn tensor<T: Number>(
        &mut self,
        base: &str,
        shape: &[usize],
        values: impl IntoIterator<Item = T>,
    ) -> String {
        let name = self.fresh(base);
        self.initializers.push(TensorProto {
            dims: shape.iter().map(|&len| len as i64).collect(),
            data_type: T::TYPE,
            raw_data: values.into_iter().flat_map(Number::bytes).collect(),
            name: name.clone(),
            ..TensorProto::default()
        });
        name
    }

    /// Adds a node with several outputs, whose names start with `base`.
    pub(super) fn nodes(
        &mut self,
        base: &str,
        op: &str,
        inputs: impl IntoIterator<Item = String>,
        attributes: Vec<AttributeProto>,
        outputs: usize,
    ) -> Vec<String> {
        let output: Vec<String> = (0..outputs).map(|_| self.fresh(base)).collect();
        self.nodes.push(NodeProto {
            input: inputs.into_iter().collect(),
            name: format!("node of {}", output[0]),
            output: output.clone(),
            op_type: op.into(),
            attribute: attributes,
            domain: String::new(),
        });
        output
    }

    /// Adds a node with one output.
    pub(super) fn node(
        &mut self,
        base: &str,
        op: &str,
        inputs: impl IntoIterator<Item = String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.nodes(base, op, inputs, attributes, 1).swap_remove(0)
    }

    /// Adds a node of the domain `com.microsoft` with one output.
    pub(super) fn microsoft_node(
        &mut self,
        base: &str,
        op: &str,
        inputs: impl IntoIterator<Item = String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = self.node(base, op, inputs, attributes);
        if let Some(node) = self.nodes.last_mut() {
            node.domain = MICROSOFT.into();
        }
        output
    }

    /// Adds a scale and a zero point. Codes of `u8` that are those of `i8` plus 128 are written as `i8`.
    pub(super) fn params(&mut self, base: &str, params: &QParams<u8>, signed: bool) -> Result<[String; 2]> {
        let (scale, zero) = params.of_tensor("activation")?;
        let scale = self.tensor(&format!("{base}_scale"), &[], [scale]);
        let zero_name = format!("{base}_zero_point");
        let zero = match signed {
            true => self.tensor(&zero_name, &[], [(zero ^ 0x80) as i8]),
            false => self.tensor(&zero_name, &[], [zero]),
        };
        Ok([scale, zero])
    }

    /// Quantizes and dequantizes a tensor.
    pub(super) fn round(&mut self, base: &str, x: String, [scale, zero]: &[String; 2]) -> String {
        let params = || [scale.clone(), zero.clone()];
        let codes =
            self.node(&format!("{base}_quantized"), "QuantizeLinear", [x].into_iter().chain(params()), Vec::new());
        let inputs = [codes].into_iter().chain(params());
        self.node(&format!("{base}_dequantized"), "DequantizeLinear", inputs, Vec::new())
    }
}

/// Writes the nodes of one operator.
pub(crate) struct NodeWriter<'w> {
    pub(super) file: &'w mut File,
    /// What the names of new tensors start with.
    pub(super) base: &'w str,
    pub(super) op: &'static str,
    /// The names of the inputs in the file.
    pub(crate) inputs: Vec<String>,
    pub(crate) shapes: &'w [&'w [usize]],
    pub(crate) output: &'w [usize],
    /// Scale and zero point of the first input and of the output, if these are codes.
    pub(super) codes: [Option<[String; 2]>; 2],
}

impl NodeWriter<'_> {
    /// Adds a node. Returns the name of its output.
    pub(crate) fn node<const N: usize>(
        &mut self,
        op: &str,
        inputs: [String; N],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.file.node(self.base, op, inputs, attributes)
    }

    /// Adds a node with all inputs.
    pub(crate) fn all(&mut self, op: &str, attributes: Vec<AttributeProto>) -> Result<String> {
        Ok(self.file.node(self.base, op, self.inputs.clone(), attributes))
    }

    /// Adds a node with several outputs.
    pub(crate) fn nodes(
        &mut self,
        op: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
        outputs: usize,
    ) -> Vec<String> {
        self.file.nodes(self.base, op, inputs, attributes, outputs)
    }

    /// Adds a list of integers.
    pub(crate) fn ints(&mut self, values: &[usize]) -> String {
        self.signed_ints(&values.iter().map(|&value| value as i64).collect::<Vec<_>>())
    }

    /// Adds a list of integers.
    pub(crate) fn signed_ints(&mut self, values: &[i64]) -> String {
        self.file.tensor(&format!("{}_list", self.base), &[values.len()], values.iter().copied())
    }

    /// Adds a constant of one axis.
    pub(crate) fn floats(&mut self, values: &[f32]) -> String {
        self.file.tensor(&format!("{}_constant", self.base), &[values.len()], values.iter().copied())
    }

    /// Adds a matrix.
    pub(crate) fn matrix(&mut self, values: &ArrayRef2<f32>) -> String {
        self.file.tensor(&format!("{}_constant", self.base), values.shape(), values.iter().copied())
    }

    /// Adds a constant of one element.
    pub(crate) fn scalar(&mut self, value: f32) -> String {
        self.file.tensor(&format!("{}_constant", self.base), &[], [value])
    }

    /// Adds a reshape.
    pub(crate) fn reshape(&mut self, x: String, shape: &[usize]) -> String {
        let shape = self.ints(shape);
        self.node("Reshape", [x, shape], Vec::new())
    }

    /// Quantizes and dequantizes a tensor with the parameters of the first input (0) or of the output (1), if these are
    /// codes, so that runtimes see that a tensor between two nodes is codes too.
    pub(crate) fn rounded(&mut self, x: String, which: usize) -> String {
        match &self.codes[which] {
            Some(params) => self.file.round(self.base, x, params),
            None => x,
        }
    }

    /// The error for an operator, or one of its attributes, that ONNX does not have.
    pub(crate) fn unsupported(&self, why: &str) -> crate::Error {
        let (op, node) = (self.op.to_string(), self.base.to_string());
        GraphError::Unsupported { op, node, why: why.into() }.into()
    }
}

fn attribute(name: &str, kind: Kind) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
}

pub(crate) fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto { i: value as i64, ..attribute(name, Kind::Int) }
}

pub(crate) fn last_axis(name: &str) -> AttributeProto {
    AttributeProto { i: -1, ..attribute(name, Kind::Int) }
}

pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: value, ..attribute(name, Kind::Float) }
}

pub(crate) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: values.iter().map(|&value| value as i64).collect(), ..attribute(name, Kind::Ints) }
}

pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: value.as_bytes().to_vec(), ..attribute(name, Kind::Text) }
}

/// The attributes of a window.
pub(crate) fn window(window: &Window) -> Vec<AttributeProto> {
    let mut attributes = alloc::vec![ints("strides", &window.strides)];
    if window.dilations != [1, 1] {
        attributes.push(ints("dilations", &window.dilations));
    }
    match window.padding {
        Padding::Valid => {}
        Padding::Same => attributes.push(text("auto_pad", "SAME_UPPER")),
        Padding::SameLower => attributes.push(text("auto_pad", "SAME_LOWER")),
        Padding::Explicit(pads) => attributes.push(ints("pads", &pads)),
    }
    if window.ceil_mode {
        attributes.push(int("ceil_mode", 1));
    }
    attributes
}
