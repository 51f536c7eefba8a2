//! Builds a [`Graph`] from the nodes of the file.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::ArrayD;

use super::constants::STRUCTURAL;
use super::known::KNOWN;
use super::limits::{FoldingBudget, Limits, MAX_RANK};
use super::node::OnnxNode;
use super::operator::{NEWEST_OPSET, OnnxOperator};
use super::proto::{Dimension, GraphProto, ModelProto, NodeProto, ValueInfo};
use super::quantized::{self, FileQuantization, OPERATORS};
use super::tensor::{ConstantTensor, data_type};
use super::unsupported::Unsupported;
use crate::error::{Error, FileError, GraphError, Result};
use crate::graph::collect::set_of;
use crate::graph::{Constant, Graph, GraphBuilder, Op, Recipe};
use crate::ops::operator::IntTensor;
use crate::ops::registry;
use crate::ops::reshape::Reshape;

/// Builds the graph of a float network. `shapes` overrides the shapes of inputs.
pub(super) fn graph(model: &ModelProto, shapes: &BTreeMap<String, Vec<usize>>, limits: &Limits) -> Result<Graph> {
    if !model.graph.as_ref().is_some_and(quantized::is_quantized) {
        return Ok(read(model, shapes, limits)?.0);
    }
    let found = "a network that is already quantized (see QuantizedNetwork::from_onnx)".into();
    Err(GraphError::Mismatch { what: "ONNX file", expected: "a float network", found }.into())
}

/// Builds the graph of a network, and the recipe by which it is quantized in the file.
pub(super) fn quantized_graph(
    model: &ModelProto,
    shapes: &BTreeMap<String, Vec<usize>>,
    limits: &Limits,
) -> Result<(Graph, Recipe)> {
    let (graph, quantization) = read(model, shapes, limits)?;
    quantization.finish(graph)
}

fn read(
    model: &ModelProto,
    shapes: &BTreeMap<String, Vec<usize>>,
    limits: &Limits,
) -> Result<(Graph, FileQuantization)> {
    let graph = model.graph.as_ref().ok_or_else(|| malformed("ONNX file", "a graph", "none".into()))?;
    limits.check_nodes(graph.node.len())?;
    if let Some(sparse) = graph.sparse_initializer.first() {
        let found = format!("a sparse initializer of {} bytes", sparse.len());
        return Err(malformed("ONNX file", "dense initializers", found));
    }
    // A function of another domain is an error at the node that calls it.
    if let Some(function) = model.functions.iter().find(|function| is_default_domain(&function.domain)) {
        let found = format!("a definition of {:?}", function.name);
        return Err(malformed("ONNX file", "no functions in the domain ai.onnx", found));
    }
    let mut importer = Importer {
        opset: opset(model)?,
        batch: 1,
        limits: *limits,
        budget: FoldingBudget::new(limits),
        builder: GraphBuilder::new(),
        constants: BTreeMap::new(),
        integers: BTreeSet::new(),
        aliases: BTreeMap::new(),
        tensor_names: tensor_names(graph)?,
        quantization: FileQuantization::new(graph),
    };
    let mut blockers = Blockers::default();
    for tensor in &graph.initializer {
        importer.quantization.set_type(&tensor.name, tensor.data_type);
        importer.stored_constant(&tensor.name, ConstantTensor::new(tensor, limits.elements)?);
    }
    importer.inputs(graph, shapes)?;
    for node in &graph.node {
        let node = named(node);
        let read = find_operator(&node).and_then(|operator| {
            operator.check(&node, importer.opset)?;
            match blockers.block(&node) {
                true => Ok(()),
                false => importer.node(&node, operator).map_err(|e| e.at(&node.name)),
            }
        });
        read.or_else(|error| blockers.add(&node, error))?;
    }
    blockers.found.check()?;
    if graph.output.is_empty() {
        return Err(malformed("ONNX file", "at least one output of the graph", "none".into()));
    }
    let outputs = graph.output.iter().map(|output| importer.operand(&output.name)).collect::<Result<Vec<_>>>()?;
    Ok((importer.builder.build_named(outputs)?, importer.quantization))
}

/// Names a node for errors.
fn named(node: &NodeProto) -> OnnxNode<'_> {
    let name = [Some(&node.name), node.output.first()].into_iter().flatten().find(|name| !name.is_empty());
    OnnxNode { node, name: name.cloned().unwrap_or_default() }
}

pub(super) fn find_operator(node: &OnnxNode<'_>) -> Result<&'static OnnxOperator> {
    let domain = &node.node.domain;
    let operator = operators().find(|operator| operator.is(domain, node.op()));
    operator.ok_or_else(|| match is_default_domain(domain) || domain == "com.microsoft" {
        true => node.unsupported("the operator is not implemented"),
        false => node.unsupported(format!("domain {domain:?} is not implemented")),
    })
}

/// The nodes that are not supported. The nodes that read their outputs are not read, so that one error names them all.
#[derive(Default)]
struct Blockers {
    found: Unsupported,
    /// Tensors that are not known.
    outputs: BTreeSet<String>,
}

impl Blockers {
    /// Returns whether a node reads a tensor that is not known. Its outputs are not known either.
    fn block(&mut self, node: &OnnxNode<'_>) -> bool {
        let blocked = node.node.input.iter().any(|name| self.outputs.contains(name));
        if blocked {
            self.outputs.extend(node.node.output.iter().cloned());
        }
        blocked
    }

    /// Notes that a node is not supported. Returns other errors.
    fn add(&mut self, node: &OnnxNode<'_>, error: Error) -> Result<()> {
        self.found.add(error)?;
        self.outputs.extend(node.node.output.iter().cloned());
        Ok(())
    }
}

fn malformed(what: &'static str, expected: &str, found: String) -> Error {
    FileError::Format { what, expected: expected.into(), found }.into()
}

pub(super) fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// The version of the operator set `ai.onnx` that the file uses.
fn opset(model: &ModelProto) -> Result<i64> {
    let mut versions = model.opset_import.iter().filter(|set| is_default_domain(&set.domain)).map(|set| set.version);
    let expected = format!("one version of the operator set ai.onnx in 1..={NEWEST_OPSET}");
    let first = versions.next();
    match (first, versions.find(|version| Some(*version) != first)) {
        (Some(version @ 1..=NEWEST_OPSET), None) => Ok(version),
        (None, _) => Err(malformed("opset_import of the ONNX file", &expected, "none".into())),
        (Some(version), None) => Err(malformed("opset_import of the ONNX file", &expected, format!("{version}"))),
        (Some(a), Some(b)) => Err(malformed("opset_import of the ONNX file", &expected, format!("{a} and {b}"))),
    }
}

/// Returns the names of all tensors that the file defines. Each may be defined once; an initializer may also be the
/// default value of an input.
fn tensor_names(graph: &GraphProto) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut define = |name: &String| match names.insert(name.clone()) {
        true => Ok(()),
        false => Err(GraphError::Name { what: "tensor", expected: "a name that is defined once", found: name.clone() }),
    };
    graph.initializer.iter().try_for_each(|tensor| define(&tensor.name))?;
    let outputs = graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
    outputs.into_iter().try_for_each(&mut define)?;
    let initializers = set_of(graph.initializer.iter().map(|tensor| &tensor.name));
    let mut inputs = BTreeSet::new();
    for ValueInfo { name, .. } in &graph.input {
        if name.is_empty() || !inputs.insert(name) || (!initializers.contains(name) && define(name).is_err()) {
            let expected = "a name that no other tensor has";
            return Err(GraphError::Name { what: "input of the graph", expected, found: name.clone() }.into());
        }
    }
    Ok(names)
}

pub(crate) struct Importer {
    pub(crate) builder: GraphBuilder,
    /// Constants of the file, and integer constants computed from them. Computed float constants are in `builder`.
    constants: BTreeMap<String, ConstantTensor>,
    /// Activations of the file that are integers or flags, and are floats in the graph.
    integers: BTreeSet<String>,
    /// Outputs of `Identity` and `Dropout`, with the names of their inputs.
    pub(super) aliases: BTreeMap<String, String>,
    /// The tensor names of the file, and the names that the importer made up.
    tensor_names: BTreeSet<String>,
    pub(super) quantization: FileQuantization,
    pub(crate) opset: i64,
    /// The batch that the file was exported with.
    pub(crate) batch: usize,
    pub(crate) limits: Limits,
    pub(crate) budget: FoldingBudget,
}

impl Importer {
    /// Returns a name of its own for a tensor that is not in the file.
    pub(crate) fn new_name(&mut self, base: &str) -> String {
        let name = unused(base, &self.tensor_names);
        self.tensor_names.insert(name.clone());
        name
    }

    /// Takes a constant that the file holds.
    pub(crate) fn stored_constant(&mut self, name: &str, value: ConstantTensor) {
        self.budget.add_stored(value.shape().iter().product());
        self.constants.insert(name.into(), value);
    }

    /// Takes a constant that was computed; the caller has spent the budget for it.
    pub(crate) fn folded_constant(&mut self, name: &str, value: ConstantTensor) {
        self.constants.insert(name.into(), value);
    }

    fn inputs(&mut self, graph: &GraphProto, shapes: &BTreeMap<String, Vec<usize>>) -> Result<()> {
        let inputs: Vec<_> = graph.input.iter().filter(|input| !self.constants.contains_key(&input.name)).collect();
        if let Some(name) = shapes.keys().find(|&name| inputs.iter().all(|input| input.name != *name)) {
            return Err(Error::unknown("input of the network", name, inputs.iter().map(|input| &input.name)));
        }
        let mut first_input = true;
        for input in inputs {
            let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
            let elem_type = tensor.map_or(0, |tensor| tensor.elem_type);
            match elem_type {
                // FLOAT, FLOAT16, DOUBLE, BFLOAT16; 0 is a file without types.
                0 | 1 | 10 | 11 | 16 => {}
                // UINT8, INT8, INT32, INT64, BOOL
                2 | 3 | 6 | 7 | 9 => {
                    self.integers.insert(input.name.clone());
                    self.quantization.set_input(&input.name, elem_type);
                }
                _ => {
                    let found = format!("{} in {:?}", data_type(elem_type), input.name);
                    let expected = "elements of type float, uint8, int8, int32, int64 or bool";
                    return Err(malformed("input of the graph", expected, found));
                }
            }
            let mut shape = match shapes.get(&input.name) {
                Some(shape) => shape.clone(),
                None => declared_shape(input)?,
            };
            let Some(batch) = shape.first_mut() else {
                return Err(malformed("input of the graph", "a batch axis", format!("rank 0 in {:?}", input.name)));
            };
            // The first axis of the first input is the batch. Other inputs may have another first axis, such as layers of a
            // state.
            if first_input {
                self.batch = (*batch).max(1);
            }
            if *batch == self.batch || *batch == 0 {
                *batch = 1;
            }
            first_input = false;
            self.limits.check_shape(&input.name, &shape)?;
            self.builder.add_input(&input.name, &shape)?;
        }
        Ok(())
    }

    pub(super) fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, String::as_str)
    }

    /// Returns the name that the builder has for a tensor of the file; a float constant is added to the builder.
    pub(crate) fn operand(&mut self, name: &str) -> Result<String> {
        let name = self.resolve(name).to_string();
        match self.constants.get(&name) {
            Some(ConstantTensor::Float(value)) if self.builder.shape_of(&name).is_none() => {
                // The infinities of masks: what they are added to, and the exponential of that, are the same.
                self.builder.constant(&name, &value.mapv(|x| x.clamp(f32::MIN, f32::MAX)))?;
                Ok(name)
            }
            Some(ConstantTensor::Int(_)) => {
                Err(GraphError::Name { what: "tensor", expected: "a tensor of floats, not of integers", found: name }
                    .into())
            }
            _ => Ok(name),
        }
    }

    /// Returns a list of lengths, none of them negative, which is an attribute in early opsets and an input in later ones.
    pub(crate) fn lengths(&self, node: &OnnxNode, attribute: &'static str, input: usize) -> Result<Vec<usize>> {
        let lengths = self.int_list(node, attribute, input)?;
        let lengths = lengths.ok_or_else(|| node.malformed("node", attribute, "none"))?;
        lengths.iter().map(|&len| node.sizes::<1>(attribute, &[len]).map(|[len]| len)).collect()
    }

    /// Returns the shape of input `i`, for a batch of one.
    pub(crate) fn shape(&self, node: &OnnxNode, i: usize) -> Result<Vec<usize>> {
        self.shape_of(node.required(i)?)
    }

    /// Returns the shape of a tensor, for a batch of one.
    pub(crate) fn shape_of(&self, name: &str) -> Result<Vec<usize>> {
        let shape = match self.constant(name) {
            Some(value) => Some(value.shape()),
            None => self.builder.shape_of(self.resolve(name)),
        };
        shape.map(<[usize]>::to_vec).ok_or_else(|| undefined(name))
    }

    pub(crate) fn constant(&self, name: &str) -> Option<&ConstantTensor> {
        self.constants.get(self.resolve(name))
    }

    /// Returns whether the value of a tensor is known.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        self.constant(name).is_some()
    }

    /// Returns the value of a tensor, if it is a float constant.
    pub(super) fn float_constant_of(&self, name: &str) -> Option<Constant> {
        match self.constant(name) {
            Some(ConstantTensor::Float(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// Returns the float constant that input `i` is, or `None` if the node does not have the input.
    pub(crate) fn float_constant(&self, node: &OnnxNode, i: usize) -> Result<Option<Constant>> {
        let Some(name) = node.input(i) else { return Ok(None) };
        let not_constant = || node.unsupported(format!("input {i} is not a float constant"));
        self.float_constant_of(name).map(Some).ok_or_else(not_constant)
    }

    /// Returns the integer constant that input `i` is, or `None` if the node does not have the input.
    pub(crate) fn int_constant(&self, node: &OnnxNode, i: usize) -> Result<Option<IntTensor>> {
        let Some(name) = node.input(i) else { return Ok(None) };
        match self.constant(name) {
            Some(ConstantTensor::Int(values)) => Ok(Some(values.clone())),
            _ => Err(node.unsupported(format!("input {i} is not an integer constant"))),
        }
    }

    /// Returns a list of axes or lengths, which is an attribute in early opsets and an input in later ones.
    pub(crate) fn int_list(&self, node: &OnnxNode, attribute: &str, input: usize) -> Result<Option<Vec<i64>>> {
        let found = |len: usize| Limits::exceeded("values of a list of integers", 2 * MAX_RANK, len).at(&node.name);
        if let Some(values) = node.ints(attribute) {
            return if values.len() <= 2 * MAX_RANK { Ok(Some(values.to_vec())) } else { Err(found(values.len())) };
        }
        let Some(values) = self.int_constant(node, input)? else { return Ok(None) };
        if values.len() > 2 * MAX_RANK {
            return Err(found(values.len()));
        }
        Ok(Some(values.iter().copied().collect()))
    }

    /// Adds a node to the graph, or computes its output if all inputs are constant.
    pub(crate) fn push(&mut self, node: &OnnxNode, op: impl Into<Op>, inputs: Vec<String>) -> Result<()> {
        self.push_as(op, inputs, node.output()?)
    }

    /// Same as [`push`](Self::push), with all inputs that the node has.
    pub(crate) fn push_all(&mut self, node: &OnnxNode, op: impl Into<Op>) -> Result<()> {
        let inputs = node.node.input.iter().filter(|name| !name.is_empty()).cloned().collect();
        self.push(node, op, inputs)
    }

    /// Adds a node whose output has this name, or computes its output if all inputs are constant.
    pub(crate) fn push_as(&mut self, op: impl Into<Op>, inputs: Vec<String>, output: &str) -> Result<()> {
        let op = op.into();
        let known: Option<Vec<ConstantTensor>> = inputs.iter().map(|name| self.constant(name).cloned()).collect();
        if let Some(known) = known
            && let Some(value) = self.evaluate(op.operator(), &known)?
        {
            self.folded_constant(output, value);
            return Ok(());
        }
        let integers = inputs.iter().any(|name| self.is_integer(name) && !self.is_constant(name));
        let mut names = Vec::new();
        for name in &inputs {
            names.push(if integers { self.as_floats(name, output)? } else { self.operand(name)? });
        }
        self.builder.push(op, names, output)?;
        if integers {
            self.integers.insert(output.into());
        }
        self.limits.check_shape(output, self.builder.shape_of(output).unwrap_or_default())
    }

    /// Returns whether the elements of a tensor are integers or flags in the file.
    pub(crate) fn is_integer(&self, name: &str) -> bool {
        matches!(self.constant(name), Some(ConstantTensor::Int(_))) || self.integers.contains(self.resolve(name))
    }

    /// Notes whether the elements of an activation are integers or flags in the file.
    pub(crate) fn set_integer(&mut self, name: &str, integer: bool) {
        match integer {
            true => self.integers.insert(name.into()),
            false => self.integers.remove(name),
        };
    }

    /// Returns the name that the builder has for a tensor, with integer constants as floats. `base` is the base of new names.
    pub(crate) fn as_floats(&mut self, name: &str, base: &str) -> Result<String> {
        let Some(ConstantTensor::Int(values)) = self.constant(name).cloned() else { return self.operand(name) };
        self.budget.spend_floats(values.len())?;
        let floats = self.new_name(&format!("{base}.floats"));
        self.folded_constant(&floats, ConstantTensor::Float(values.mapv(|value| value as f32).into_shared()));
        self.operand(&floats)
    }

    /// Adds a reshape of a tensor, if that changes its shape. Returns the name of the result.
    pub(crate) fn reshaped(
        &mut self,
        node: &OnnxNode,
        name: &str,
        from: &[usize],
        shape: Vec<usize>,
    ) -> Result<String> {
        if from == shape {
            return Ok(name.into());
        }
        let reshaped = self.new_name(&format!("{}.reshaped", node.output()?));
        self.push_as(Reshape { shape }, alloc::vec![name.into()], &reshaped)?;
        Ok(reshaped)
    }

    /// Same as [`push`](Self::push), with the output in another shape.
    pub(crate) fn push_reshaped(
        &mut self,
        node: &OnnxNode,
        op: impl Into<Op>,
        inputs: Vec<String>,
        shape: Option<Vec<usize>>,
    ) -> Result<()> {
        let Some(shape) = shape else { return self.push(node, op, inputs) };
        let name = self.new_name(&format!("{}.before_reshape", node.output()?));
        self.push_as(op, inputs, &name)?;
        self.push(node, Reshape { shape }, alloc::vec![name])
    }

    /// Adds a constant that a node needs in another form than the file has it.
    pub(crate) fn new_constant(&mut self, node: &OnnxNode, part: &str, value: ArrayD<f32>) -> Result<String> {
        self.budget.spend_floats(value.len())?;
        let name = self.new_name(&format!("{}.{part}", node.output()?));
        self.folded_constant(&name, ConstantTensor::Float(value.into_shared()));
        Ok(name)
    }

    /// Lets the output of the node be another name of its input.
    pub(crate) fn alias(&mut self, node: &OnnxNode) -> Result<()> {
        self.alias_of(node, node.required(0)?)
    }

    /// Lets the output of the node be another name of a tensor.
    pub(crate) fn alias_of(&mut self, node: &OnnxNode, name: &str) -> Result<()> {
        let target = self.resolve(name).to_string();
        if !self.constants.contains_key(&target) && self.builder.shape_of(&target).is_none() {
            return Err(undefined(name));
        }
        self.aliases.insert(node.output()?.into(), target);
        Ok(())
    }

    /// Rejects nodes of opsets 1 to 6 that are in training mode, which is their default.
    pub(crate) fn check_test_mode(&self, node: &OnnxNode) -> Result<()> {
        match node.int("is_test", 0) {
            0 if self.opset < 7 => Err(node.unsupported("training mode (attribute is_test = 0)")),
            _ => Ok(()),
        }
    }

    pub(super) fn dropout(&mut self, node: &OnnxNode<'_>) -> Result<()> {
        self.check_test_mode(node)?;
        if self.int_constant(node, 2)?.is_some_and(|mode| mode.len() != 1 || mode.first() != Some(&0)) {
            return Err(node.unsupported("training mode (input training_mode = true)"));
        }
        self.alias(node)
    }

    pub(crate) fn required_constant(&self, node: &OnnxNode, i: usize) -> Result<Constant> {
        node.required(i)?;
        let missing = || node.malformed("node", alloc::format!("an input {i}"), "none");
        self.float_constant(node, i)?.ok_or_else(missing)
    }

    /// The value of a constant of one element.
    pub(crate) fn scalar(&self, node: &OnnxNode, what: &'static str, value: &Constant) -> Result<f32> {
        match value.first() {
            Some(&first) if value.len() == 1 => Ok(first),
            _ => Err(node.malformed(what, "one element", alloc::format!("shape {:?}", value.shape()))),
        }
    }
}

/// All operators that the reader knows.
pub(crate) fn operators() -> impl Iterator<Item = &'static OnnxOperator> {
    registry::ONNX.iter().chain(OPERATORS).copied().flatten().chain(STRUCTURAL).chain(KNOWN)
}

fn undefined(name: &str) -> Error {
    GraphError::Name {
        what: "tensor",
        expected: "an input, an initializer or the output of an earlier node",
        found: name.into(),
    }
    .into()
}

/// Returns `base`, or `base.1`, `base.2`, … if it is taken.
fn unused(base: &str, taken: &BTreeSet<String>) -> String {
    let mut names = core::iter::once(base.to_string()).chain((1usize..).map(|i| format!("{base}.{i}")));
    names.find(|name| !taken.contains(name)).expect("finitely many names are taken")
}

/// The shape that the file declares, with 0 for a batch without a length.
fn declared_shape(input: &ValueInfo) -> Result<Vec<usize>> {
    let wrong =
        |expected: &str, found: &str| malformed("input of the graph", expected, format!("{found} in {:?}", input.name));
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims = &shape.ok_or_else(|| wrong("a tensor with a shape", "none"))?.dim;
    let length = |(axis, dim): (usize, &Dimension)| match usize::try_from(dim.dim_value) {
        // The graph runs on any batch.
        Ok(len) if len > 0 || axis == 0 => Ok(len),
        _ => {
            let found = if dim.dim_value != 0 { format!("{}", dim.dim_value) } else { format!("{:?}", dim.dim_param) };
            Err(wrong(
                "axes of fixed length (see OnnxReader::with_input_shape)",
                &format!("axis {axis} of length {found}"),
            ))
        }
    };
    dims.iter().enumerate().map(length).collect()
}
