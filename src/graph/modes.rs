//! The arithmetic of each node of a quantized network, with the reason if it is float.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::lower::Quantized;
use super::network::Node;
use super::qnetwork::QuantizedNetwork;
use super::recipe::weights_of;
use super::stored::Stored;

/// The arithmetic of a node of a quantized network. It follows from the precision of its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Mode {
    /// Codes to codes.
    Integer,
    /// Codes to floats: exact sums of products of codes, dequantized. Layers only.
    IntegerToFloat,
    /// Floats to floats through codes: a linear layer quantizes each row of its input by the range of the row, or each group
    /// of it if its weights are in groups; a convolution each sample. A linear layer whose codes are given by a file takes one
    /// range for each sample too. Layers only.
    DynamicRange,
    /// Floats to floats, with weights that are codes and are widened in registers. Linear layers only.
    WeightOnly,
    /// Floats to floats; the weights may be stored in fewer bits.
    Float,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Integer => "integer",
            Mode::IntegerToFloat => "integer to float",
            Mode::DynamicRange => "dynamic range",
            Mode::WeightOnly => "weight only",
            Mode::Float => "float",
        })
    }
}

/// The arithmetic of one node of a quantized network.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeMode {
    /// The name of its output tensor.
    pub output: String,
    /// The operator's name.
    pub op: &'static str,
    /// The arithmetic.
    pub mode: Mode,
    /// The reason, unless it computes from codes to codes.
    pub why: Option<String>,
}

impl fmt::Display for NodeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { output, op, mode, why } = self;
        write!(f, "{op} {output:?}: {mode}")?;
        why.iter().try_for_each(|why| write!(f, ", because {why}"))
    }
}

impl QuantizedNetwork {
    /// Lists all nodes with their arithmetic. Nodes that do not compute from codes to codes have a reason.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndarray_quant::graph::{GraphBuilder, Mode, Recipe, op};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let x = g.linear("a", x, &array![[1.0, -0.5]], None)?;
    /// let y = g.activation("b", x, op::Activation::Tanh)?;
    /// let graph = g.build(&[y])?;
    ///
    /// let network = graph.quantize(&Recipe::dynamic_range(&graph)?)?;
    /// let modes = network.modes();
    /// assert_eq!((modes[0].mode, modes[1].mode), (Mode::DynamicRange, Mode::Float));
    /// assert_eq!(modes[1].to_string(), r#"Tanh "b": float, because its input "a" is Float32"#);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    pub fn modes(&self) -> Vec<NodeMode> {
        let parts = self.parts();
        let mode = |node: &Node| {
            let (mode, why) = parts.explained(node);
            NodeMode { output: node.output.clone(), op: node.op.name(), mode, why }
        };
        self.graph().nodes().iter().map(mode).collect()
    }
}

impl Quantized<'_> {
    /// The arithmetic of a node, and why it is not from codes to codes.
    fn explained(&self, node: &Node) -> (Mode, Option<String>) {
        let mode = match self.mode(node) {
            Mode::Integer if weights_of(node).is_none() && !self.has_code_kernel(node) => {
                return (Mode::Float, Some("it has no kernel on codes of these shapes and parameters".into()));
            }
            Mode::Integer => return (Mode::Integer, None),
            mode => mode,
        };
        if mode == Mode::WeightOnly {
            return (mode, Some("the recipe lists it in `weight_only_layers`".into()));
        }
        let weights = weights_of(node).filter(|name| !self.stored.get(*name).is_some_and(Stored::is_code));
        let activations = || node.inputs.iter().filter(|name| !self.graph.is_constant(name));
        let listed = self.recipe.float_layers.contains(&node.output);
        let (what, name) = if let Some(weights) = weights.filter(|_| !listed) {
            ("weights", weights)
        } else if let Some(x) = activations().find(|name| !self.is_code(name)) {
            ("input", x)
        } else if !self.is_code(&node.output) {
            ("output", &node.output)
        } else if self.group(node).is_some() {
            return (mode, Some("its weights are in groups".into()));
        } else if listed {
            return (mode, Some("the recipe lists it in `float_layers`".into()));
        } else {
            return (mode, Some("it takes no constants on codes".into()));
        };
        let verb = if what == "weights" { "are" } else { "is" };
        let precision = match self.stored.get(name) {
            Some(Stored::Half(_)) => super::Precision::Float16,
            _ => super::Precision::Float32,
        };
        (mode, Some(alloc::format!("its {what} {name:?} {verb} {precision}")))
    }
}
