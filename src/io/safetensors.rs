//! The [safetensors](https://github.com/huggingface/safetensors) files of quantized networks.
//!
//! [`QuantizedNetwork::save`] and [`load`](QuantizedNetwork::load) write and read files,
//! [`to_safetensors`](QuantizedNetwork::to_safetensors) and [`from_safetensors`](QuantizedNetwork::from_safetensors) do the
//! same with bytes. Weights are stored as tensors, which other tools can read:
//!
//! | tensor | type | content |
//! |---|---|---|
//! | the name of `Int8` weights | `I8` | codes |
//! | the name of `Int4` or `Int2` weights | `U8`, one axis | codes in row-major order, two or four per byte, the first in the low bits, two's complement |
//! | the name of `Float16` weights | `F16` | values |
//! | the name of quantized weights, then `#scale` | `F32`, one axis | one scale, one per output channel, or one per group in row-major order; zero points are 0 unless the recipe gives others |
//! | the name of any other constant | `F32` | values |
//! | `#ranges` | `F32`, `[n, 2]` | the ranges of the recipe: the smallest and the largest value of each |
//!
//! The entry `ndarray-quant` of the header's metadata is JSON: the version of this format (1), inputs, nodes and outputs of
//! the graph, shapes of packed weights, and the recipe. Each name and each operator stands in it once.
//!
//! ```
//! # use ndarray::array;
//! use ndarray_quant::graph::{GraphBuilder, QuantizedNetwork, Recipe};
//! # let mut g = GraphBuilder::new();
//! # let x = g.input("x", &[1, 2])?;
//! # let y = g.linear("y", x, &array![[1.0, -0.7]], None)?;
//! # let graph = g.build(&[y])?;
//! let network = graph.quantize(&Recipe::dynamic_range(&graph)?)?;
//! let bytes = network.to_safetensors()?;
//! let loaded = QuantizedNetwork::from_safetensors(&bytes)?;
//! let x = array![[1.0f32, 0.5]];
//! assert_eq!(loaded.run(&x)?, network.run(&x)?);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ::safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use half::f16;
use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use crate::element::{Element, I2, I4, Packed, Storage};
use crate::error::{Error, FileError, GraphError, Result};
use crate::graph::{Clamp, Graph, Input, Node, Op, Precision, QuantizedNetwork, Recipe, TensorRecipe};
use crate::graph::{Parts, Stored};
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The entry of the metadata that holds the structure.
const KEY: &str = "ndarray-quant";

/// The suffix of the name of scales.
const SCALE: &str = "#scale";

/// The version of the format.
const VERSION: u32 = 1;

/// The name of the tensor with the ranges of the recipe.
const RANGES: &str = "#ranges";

/// The network without its tensors. Tensors are indices into `names`, and operators into `ops`.
#[derive(Serialize, Deserialize)]
struct Structure {
    version: u32,
    names: Vec<String>,
    inputs: Vec<(usize, Vec<usize>)>,
    ops: Vec<Op>,
    nodes: Vec<PackedNode>,
    outputs: Vec<usize>,
    /// The shapes of weights of fewer than 8 bits, whose tensors are packed bytes.
    packed: BTreeMap<String, Vec<usize>>,
    /// Recipes without their ranges, and the tensors of each with the number of their ranges.
    recipe: Vec<(TensorRecipe, Vec<(usize, usize)>)>,
    float_layers: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weight_only_layers: Vec<usize>,
}

/// A node: the operator, the inputs, the output and the clamp.
#[derive(Serialize, Deserialize)]
struct PackedNode(usize, Vec<usize>, usize, Option<Clamp>);

/// Gives each value an index, in the order in which they come. Values are compared as JSON.
struct Table<T> {
    indices: BTreeMap<String, usize>,
    values: Vec<T>,
}

impl<T: Serialize> Table<T> {
    fn new() -> Self {
        Self { indices: BTreeMap::new(), values: Vec::new() }
    }

    fn index(&mut self, value: T) -> Result<usize> {
        let json = to_json(&value)?;
        let next = self.values.len();
        let index = *self.indices.entry(json).or_insert(next);
        if index == next {
            self.values.push(value);
        }
        Ok(index)
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| malformed("a structure that JSON can hold", &e))
}

impl Structure {
    /// Packs the structure, and all ranges as pairs of numbers.
    fn pack(graph: &Graph, recipe: &Recipe, packed: BTreeMap<String, Vec<usize>>) -> Result<(Self, Vec<f32>)> {
        let (mut names, mut ops, mut recipes) = (Table::new(), Table::new(), Table::new());
        let inputs =
            graph.typed_inputs().iter().map(|input| Ok((names.index(input.name.clone())?, input.shape.clone())));
        let inputs = inputs.collect::<Result<_>>()?;
        let mut nodes = Vec::with_capacity(graph.nodes().len());
        for Node { op, inputs, clamp, output } in graph.nodes() {
            let inputs = inputs.iter().map(|name| names.index(name.clone())).collect::<Result<_>>()?;
            let clamp = (*clamp != Clamp::NONE).then_some(*clamp);
            nodes.push(PackedNode(ops.index(op.clone())?, inputs, names.index(output.clone())?, clamp));
        }
        let outputs = graph.outputs().iter().map(|name| names.index(name.clone())).collect::<Result<_>>()?;
        let (mut members, mut ranges) = (Vec::<Vec<(usize, usize)>>::new(), Vec::<Vec<f32>>::new());
        for (name, tensor) in &recipe.tensors {
            let index = recipes.index(TensorRecipe { ranges: Vec::new(), ..tensor.clone() })?;
            members.resize(recipes.values.len(), Vec::new());
            ranges.resize(recipes.values.len(), Vec::new());
            members[index].push((names.index(name.clone())?, tensor.ranges.len()));
            ranges[index].extend(tensor.ranges.iter().flat_map(|&(min, max)| [min, max]));
        }
        let mut indices = |layers: &BTreeSet<String>| {
            layers.iter().map(|name| names.index(name.clone())).collect::<Result<Vec<usize>>>()
        };
        let (float_layers, weight_only_layers) = (indices(&recipe.float_layers)?, indices(&recipe.weight_only_layers)?);
        let recipe = recipes.values.into_iter().zip(members).collect();
        let (names, ops) = (names.values, ops.values);
        let structure = Self {
            version: VERSION,
            names,
            inputs,
            ops,
            nodes,
            outputs,
            packed,
            recipe,
            float_layers,
            weight_only_layers,
        };
        Ok((structure, ranges.concat()))
    }

    /// The structure of a graph, without its constants, the recipe, and the shapes of packed tensors.
    fn unpack(self, ranges: &[f32]) -> Result<(Parts, Recipe, BTreeMap<String, Vec<usize>>)> {
        let no_index = |what, &index: &usize| malformed(what, &index);
        let name = |index: usize| {
            let name = self.names.get(index).cloned();
            name.ok_or_else(|| no_index("indices of names below their number", &index))
        };
        let all = |indices: &[usize]| indices.iter().map(|&index| name(index)).collect::<Result<Vec<String>>>();
        let inputs = self.inputs.iter().map(|(index, shape)| Ok(Input { name: name(*index)?, shape: shape.clone() }));
        let node = |PackedNode(op, inputs, output, clamp): &PackedNode| {
            let op = self.ops.get(*op).cloned();
            let op = op.ok_or_else(|| no_index("indices of operators below their number", output))?;
            Ok(Node { op, inputs: all(inputs)?, clamp: clamp.unwrap_or(Clamp::NONE), output: name(*output)? })
        };
        let parts = Parts {
            inputs: inputs.collect::<Result<_>>()?,
            nodes: self.nodes.iter().map(node).collect::<Result<_>>()?,
            outputs: all(&self.outputs)?,
            ..Parts::default()
        };
        let set = |indices: &[usize]| Ok::<_, Error>(all(indices)?.into_iter().collect());
        let (float_layers, weight_only_layers) = (set(&self.float_layers)?, set(&self.weight_only_layers)?);
        let mut recipe = Recipe { tensors: BTreeMap::new(), float_layers, weight_only_layers };
        let mut rest = ranges.chunks_exact(2).map(|range| (range[0], range[1]));
        for (tensor, members) in &self.recipe {
            for &(index, count) in members {
                let ranges: Vec<(f32, f32)> = rest.by_ref().take(count).collect();
                if ranges.len() < count {
                    return Err(malformed("a range for each range of the recipe", &"fewer"));
                }
                recipe.tensors.insert(name(index)?, TensorRecipe { ranges, ..tensor.clone() });
            }
        }
        Ok((parts, recipe, self.packed))
    }
}

/// A tensor to write.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

impl Bytes {
    fn packed<T: Element<Storage<IxDyn> = Packed<T, IxDyn>>>(w: &QTensor<T, IxDyn>) -> Self {
        let data = w.codes().as_bytes().to_vec();
        Self { dtype: Dtype::U8, shape: alloc::vec![data.len()], data }
    }

    fn f32<'a>(shape: &[usize], values: impl Iterator<Item = &'a f32>) -> Self {
        Self { dtype: Dtype::F32, shape: shape.into(), data: values.flat_map(|x| x.to_le_bytes()).collect() }
    }
}

impl QuantizedNetwork {
    /// Serializes the network as a [safetensors](crate::io::safetensors) file. Equal networks give equal bytes.
    ///
    /// # Errors
    /// [`Error::Graph`] if the name of a constant is `#ranges`, or ends in `#scale`, the suffix of scales.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        write(self)
    }

    /// Returns the size of the [safetensors](crate::io::safetensors) file in bytes, with its header. Serializes the network
    /// to measure it.
    ///
    /// # Errors
    /// Same as [`to_safetensors`](Self::to_safetensors).
    pub fn file_size(&self) -> Result<usize> {
        Ok(self.to_safetensors()?.len())
    }

    /// Reads the bytes of a [safetensors](crate::io::safetensors) file. The file need not be trusted: all parts are
    /// checked.
    ///
    /// # Errors
    /// [`Error::File`] if the bytes are not such a file, or are truncated; otherwise the errors of
    /// [`Graph::quantize`](crate::graph::Graph::quantize) for the network that the file describes.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        read(bytes)
    }

    /// Saves the network in a [safetensors](crate::io::safetensors) file.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written, otherwise the same as [`to_safetensors`](Self::to_safetensors).
    #[cfg(feature = "std")]
    pub fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, write(self)?).map_err(|error| super::io_error(path, error))
    }

    /// Loads a network from a [safetensors](crate::io::safetensors) file.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read, otherwise the same as [`from_safetensors`](Self::from_safetensors).
    #[cfg(feature = "std")]
    pub fn load(path: impl AsRef<std::path::Path>) -> Result<Self> {
        read(&super::read_file(path.as_ref(), usize::MAX)?)
    }
}

fn write(network: &QuantizedNetwork) -> Result<Vec<u8>> {
    let parts = network.parts();
    let (mut tensors, mut packed) = (BTreeMap::<String, Bytes>::new(), BTreeMap::new());
    let names = parts.graph.constants().map(|(name, _)| name).chain(parts.stored.keys().map(String::as_str));
    if let Some(found) = { names }.find(|name| name.ends_with(SCALE) || *name == RANGES) {
        let expected = "a name other than `#ranges` that does not end in `#scale`, the suffix of scales";
        return Err(GraphError::Name { what: "constant to save", expected, found: found.into() }.into());
    }
    for (name, value) in parts.graph.constants() {
        tensors.insert(name.into(), Bytes::f32(value.shape(), value.iter()));
    }
    for (name, stored) in parts.stored {
        let (tensor, scale) = match stored {
            Stored::Int8(w) => {
                let data = w.codes().iter().map(|&code| code as u8).collect();
                let tensor = Bytes { dtype: Dtype::I8, shape: w.codes().shape().into(), data };
                (tensor, Some(w.params().scale()))
            }
            Stored::Int4(w) => (Bytes::packed(w), Some(w.params().scale())),
            Stored::Int2(w) => (Bytes::packed(w), Some(w.params().scale())),
            Stored::Half(w) => {
                let data = w.iter().flat_map(|x| x.to_le_bytes()).collect();
                (Bytes { dtype: Dtype::F16, shape: w.shape().into(), data }, None)
            }
        };
        if matches!(stored, Stored::Int2(_) | Stored::Int4(_)) {
            packed.insert(name.clone(), stored.shape());
        }
        tensors.insert(name.clone(), tensor);
        if let Some(scale) = scale {
            tensors.insert(alloc::format!("{name}{SCALE}"), Bytes::f32(&[scale.len()], scale.iter()));
        }
    }
    let (structure, ranges) = Structure::pack(parts.graph, parts.recipe, packed)?;
    tensors.insert(RANGES.into(), Bytes::f32(&[ranges.len() / 2, 2], ranges.iter()));
    let metadata = core::iter::once((KEY.to_string(), to_json(&structure)?)).collect();
    ::safetensors::serialize(&tensors, Some(metadata)).map_err(|e| malformed("tensors that fit the format", &e))
}

fn read(bytes: &[u8]) -> Result<QuantizedNetwork> {
    let not_a_file = |e| wrong_length(bytes).unwrap_or_else(|| malformed("a valid file", &e));
    let file = SafeTensors::deserialize(bytes).map_err(not_a_file)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(not_a_file)?;
    let json = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let json = json.ok_or_else(|| malformed("the entry `ndarray-quant` in the metadata", &"none"))?;
    let structure: Structure = serde_json::from_str(json).map_err(|e| malformed("a network as JSON", &e))?;
    if structure.version != VERSION {
        return Err(malformed("version 1", &structure.version));
    }
    let ranges = file.tensor(RANGES).map_err(|e| malformed("a tensor of ranges", &e))?;
    let ranges: ArrayD<f32> = array(RANGES, &ranges, f32::from_le_bytes)?;
    let (mut parts, recipe, packed) = structure.unpack(ranges.as_slice().unwrap_or_default())?;
    let mut stored = BTreeMap::new();
    for (name, tensor) in file.iter().filter(|(name, _)| !name.ends_with(SCALE) && *name != RANGES) {
        let value = match (tensor.dtype(), recipe.tensors.get(name)) {
            (Dtype::F32, _) => {
                let value: ArrayD<f32> = array(name, &tensor, f32::from_le_bytes)?;
                if let Some(bad) = value.iter().find(|x| !x.is_finite()) {
                    return Err(malformed("finite constants", &alloc::format!("{bad} in {name:?}")));
                }
                parts.constants.insert(name.into(), value.into_shared());
                continue;
            }
            (Dtype::F16, Some(TensorRecipe { precision: Precision::Float16, .. })) => {
                Stored::Half(array(name, &tensor, f16::from_le_bytes)?)
            }
            (Dtype::I8, Some(recipe @ TensorRecipe { precision: Precision::Int8, .. })) => {
                let codes: ArrayD<i8> = array(name, &tensor, i8::from_le_bytes)?;
                Stored::Int8(quantized(name, codes, &file, recipe)?)
            }
            (Dtype::U8, Some(recipe @ TensorRecipe { precision: Precision::Int4, .. })) => {
                Stored::Int4(quantized(name, packed_codes::<I4>(name, &packed, &tensor)?, &file, recipe)?)
            }
            (Dtype::U8, Some(recipe @ TensorRecipe { precision: Precision::Int2, .. })) => {
                Stored::Int2(quantized(name, packed_codes::<I2>(name, &packed, &tensor)?, &file, recipe)?)
            }
            (found, _) => {
                let found = alloc::format!("type {found:?} of {name:?}");
                return Err(malformed("tensors of the types that the recipe's precisions need", &found));
            }
        };
        parts.stored.insert(name.into(), value.shape());
        stored.insert(name.into(), value);
    }
    QuantizedNetwork::from_file(parts, stored, recipe)
}

fn packed_codes<T: Element>(
    name: &str,
    shapes: &BTreeMap<String, Vec<usize>>,
    tensor: &TensorView<'_>,
) -> Result<Packed<T, IxDyn>> {
    let no_shape = || malformed("a shape for each tensor of packed codes", &alloc::format!("none for {name:?}"));
    let shape = shapes.get(name).ok_or_else(no_shape)?;
    let codes = Packed::from_bytes(IxDyn(shape), tensor.data().to_vec());
    codes.map_err(|e| malformed("packed codes that fit their shape", &e))
}

/// Adds the scales of the file to codes.
fn quantized<T: Element<Code = i8>>(
    name: &str,
    codes: T::Storage<IxDyn>,
    file: &SafeTensors<'_>,
    recipe: &TensorRecipe,
) -> Result<QTensor<T, IxDyn>> {
    let scales = file.tensor(&alloc::format!("{name}{SCALE}"));
    let scales = scales.map_err(|e| malformed("a tensor of scales for each tensor of codes", &e))?;
    let in_groups = recipe.is_in_groups();
    // The recipe has the zero points.
    if recipe.given.is_some() || (in_groups && !recipe.symmetric) {
        let params = recipe.weight_params(codes.shape())?;
        return QTensor::new(codes, params);
    }
    if scales.dtype() != Dtype::F32 {
        return Err(malformed("scales of type F32", &alloc::format!("{:?} for {name:?}", scales.dtype())));
    }
    let scales: ArrayD<f32> = array(name, &scales, f32::from_le_bytes)?;
    let (count, grid) = (scales.len(), recipe.granularity.params_shape(codes.shape())?);
    let scales = scales.into_shape_with_order(IxDyn(&grid));
    let scales = scales.map_err(|_| malformed("one scale for each block of weights", &count))?;
    if in_groups {
        return QTensor::new(codes, QParams::new(recipe.granularity, scales, None)?);
    }
    // The code range is narrow: it leaves out the smallest code.
    if let Some(bad) = codes.codes().iter().find(|&&code| i32::from(code).abs() > T::MAX) {
        return Err(malformed("codes in the narrow range", &alloc::format!("{bad} in {name:?}")));
    }
    let params = QParams::<T>::new(recipe.granularity, scales, None)?.with_code_range(-T::MAX, T::MAX)?;
    QTensor::new(codes, params)
}

/// The error for a file that ends too early or too late. `None` if its length fits, or cannot be told.
fn wrong_length(bytes: &[u8]) -> Option<Error> {
    const PREFIX: usize = 8;
    let truncated = |missing: u64| {
        let found = alloc::format!("a truncated file: {} bytes, {missing} are missing", bytes.len());
        malformed("a complete file", &found)
    };
    let Some(length) = bytes.first_chunk::<PREFIX>() else { return Some(truncated((PREFIX - bytes.len()) as u64)) };
    let header_end = u64::from_le_bytes(*length).checked_add(PREFIX as u64)?;
    // Longer headers are not valid. Most likely the bytes are something else.
    const MAX_HEADER: u64 = 100_000_000;
    if header_end > MAX_HEADER {
        return None;
    }
    if header_end > bytes.len() as u64 {
        return Some(truncated(header_end - bytes.len() as u64));
    }
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&bytes[PREFIX..header_end as usize]).ok()?;
    let end = |tensor: &serde_json::Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let end = header_end.checked_add(header.values().filter_map(end).max().unwrap_or(0))?;
    match end.cmp(&(bytes.len() as u64)) {
        core::cmp::Ordering::Greater => Some(truncated(end - bytes.len() as u64)),
        core::cmp::Ordering::Equal => None,
        core::cmp::Ordering::Less => {
            let found = alloc::format!("{} bytes behind the last tensor", bytes.len() as u64 - end);
            Some(malformed("a file that ends with its last tensor", &found))
        }
    }
}

fn array<T, const N: usize>(name: &str, tensor: &TensorView<'_>, from: impl Fn([u8; N]) -> T) -> Result<ArrayD<T>> {
    let (values, rest) = tensor.data().as_chunks::<N>();
    let values: Vec<T> = values.iter().map(|&bytes| from(bytes)).collect();
    let array = ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).ok().filter(|_| rest.is_empty());
    array
        .ok_or_else(|| malformed("data that fits the shape", &alloc::format!("shape {:?} of {name:?}", tensor.shape())))
}

fn malformed(expected: &str, found: &dyn ToString) -> Error {
    FileError::Format { what: "safetensors file", expected: expected.into(), found: found.to_string() }.into()
}
