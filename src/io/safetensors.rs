//! Quantized networks in safetensors files: codes, scales and biases as tensors, the operators and the recipe as JSON
//! in the file's metadata.
//!
//! | tensor | type | content |
//! |---|---|---|
//! | a weight's name | `I8` | its codes, one to a byte, also those of four bits |
//! | a weight's name and `#scale` | `F32` | its scales, one for each channel or one for all |
//! | a weight's name | `F16` | half-precision weights |
//! | any other constant's name | `F32` | its values |
//!
//! ```
//! # use ndarray::array;
//! # use ndarray_quant::graph::{GraphBuilder, Recipe};
//! use ndarray_quant::io::safetensors;
//! # let mut g = GraphBuilder::new();
//! # let x = g.input("x", &[1, 2])?;
//! # let y = g.linear("y", &x, &array![[1.0, -0.7]], None)?;
//! # let graph = g.build(&[&y])?;
//! let network = graph.quantize(&Recipe::dynamic_range(&graph)?)?;
//! let bytes = safetensors::write(&network)?;
//! let same = safetensors::read(&bytes)?;
//! let x = array![[1.0f32, 0.5]];
//! assert_eq!(same.run(&x)?, network.run(&x)?);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ::safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use half::f16;
use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use crate::element::{Element, I4, Storage};
use crate::error::{Error, Result};
use crate::granularity::Granularity;
use crate::graph::{Input, Node, Precision, QuantizedNetwork, Recipe, TensorRecipe};
use crate::graph::{Parts, Stored};
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The name of our entry in the metadata.
const KEY: &str = "ndarray-quant";

/// What the name of a weight's scales ends with.
const SCALE: &str = "#scale";

/// The version of the format.
const VERSION: u32 = 1;

/// Everything but tensors.
#[derive(Serialize, Deserialize)]
struct Structure {
    version: u32,
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    outputs: Vec<String>,
    recipe: Recipe,
}

/// A tensor to be written.
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
    fn reals<'a>(shape: &[usize], values: impl Iterator<Item = &'a f32>) -> Self {
        Self { dtype: Dtype::F32, shape: shape.into(), data: values.flat_map(|x| x.to_le_bytes()).collect() }
    }
}

/// The bytes of a file that holds the network. The same network gives the same bytes.
///
/// # Errors
/// [`Error::Name`] if the name of a constant ends like that of scales.
pub fn write(network: &QuantizedNetwork) -> Result<Vec<u8>> {
    let parts = network.parts();
    let mut tensors = BTreeMap::<String, Bytes>::new();
    for (name, value) in parts.graph.constants() {
        if name.ends_with(SCALE) {
            let expected = "a name that does not end in `#scale`";
            return Err(Error::Name { what: "constant", expected, found: name.clone() });
        }
        tensors.insert(name.clone(), Bytes::reals(value.shape(), value.iter()));
    }
    for (name, stored) in parts.stored {
        match stored {
            Stored::Int8(w) => push_codes(&mut tensors, name, w),
            Stored::Int4(w) => push_codes(&mut tensors, name, w),
            Stored::Half(w) => {
                let data = w.iter().flat_map(|x| x.to_le_bytes()).collect();
                tensors.insert(name.clone(), Bytes { dtype: Dtype::F16, shape: w.shape().into(), data });
            }
        }
    }
    let structure = Structure {
        version: VERSION,
        inputs: parts.graph.inputs().to_vec(),
        nodes: parts.graph.nodes().to_vec(),
        outputs: parts.graph.outputs().to_vec(),
        recipe: parts.recipe.clone(),
    };
    let json = serde_json::to_string(&structure).map_err(|e| malformed("a structure that JSON can hold", &e))?;
    let metadata = core::iter::once((KEY.to_string(), json)).collect();
    ::safetensors::serialize(&tensors, Some(metadata)).map_err(|e| malformed("tensors that fit the format", &e))
}

fn push_codes<T: Element<Code = i8>>(tensors: &mut BTreeMap<String, Bytes>, name: &str, w: &QTensor<T, IxDyn>) {
    let codes = w.unpacked_codes();
    let data = codes.iter().map(|&code| code as u8).collect();
    tensors.insert(name.into(), Bytes { dtype: Dtype::I8, shape: codes.shape().into(), data });
    let scale = w.params().scale();
    tensors.insert(alloc::format!("{name}{SCALE}"), Bytes::reals(&[scale.len()], scale.iter()));
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// [`Error::Format`] if the bytes are not such a file, and the errors of building the network that they describe:
/// nothing of the file is trusted.
pub fn read(bytes: &[u8]) -> Result<QuantizedNetwork> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| malformed("a safetensors file", &e))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| malformed("a safetensors file", &e))?;
    let json = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let json = json.ok_or_else(|| malformed("an entry `ndarray-quant` in the metadata", &"none"))?;
    let structure: Structure = serde_json::from_str(json).map_err(|e| malformed("a network as JSON", &e))?;
    if structure.version != VERSION {
        return Err(malformed("version 1", &structure.version));
    }
    let Structure { inputs, nodes, outputs, recipe, .. } = structure;
    let mut parts = Parts { inputs, nodes, outputs, ..Parts::default() };
    let mut stored = BTreeMap::new();
    for (name, tensor) in file.iter().filter(|(name, _)| !name.ends_with(SCALE)) {
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
                Stored::Int8(codes(name, &tensor, &file, recipe)?)
            }
            (Dtype::I8, Some(recipe @ TensorRecipe { precision: Precision::Int4, .. })) => {
                Stored::Int4(codes::<I4>(name, &tensor, &file, recipe)?)
            }
            (found, _) => {
                return Err(malformed(
                    "tensors of the types that the recipe says",
                    &alloc::format!("{found:?} of {name:?}"),
                ));
            }
        };
        parts.stored.insert(name.into(), value.shape());
        stored.insert(name.into(), value);
    }
    QuantizedNetwork::from_file(parts, stored, recipe)
}

/// The codes of a weight with the scales beside them.
fn codes<T: Element<Code = i8>>(
    name: &str,
    tensor: &TensorView<'_>,
    file: &SafeTensors<'_>,
    recipe: &TensorRecipe,
) -> Result<QTensor<T, IxDyn>> {
    let scales = file.tensor(&alloc::format!("{name}{SCALE}"));
    let scales = scales.map_err(|e| malformed("scales beside codes", &e))?;
    if scales.dtype() != Dtype::F32 {
        return Err(malformed("scales of type F32", &alloc::format!("{:?} for {name:?}", scales.dtype())));
    }
    let scales: ArrayD<f32> = array(name, &scales, f32::from_le_bytes)?;
    let codes: ArrayD<i8> = array(name, tensor, i8::from_le_bytes)?;
    let mut grid = alloc::vec![1; codes.ndim()];
    if let (Granularity::PerAxis { axis: 0 }, Some(first)) = (recipe.granularity, grid.first_mut()) {
        *first = scales.len();
    }
    let count = scales.len();
    let scales = scales.into_shape_with_order(IxDyn(&grid));
    let scales = scales.map_err(|_| malformed("a scale for each channel, or one", &count))?;
    // The ranges are narrow: the smallest code is left out.
    if let Some(bad) = codes.iter().find(|&&code| i32::from(code).abs() > T::MAX) {
        return Err(malformed("codes within the range of the recipe", &alloc::format!("{bad} in {name:?}")));
    }
    let params = QParams::<T, IxDyn>::new(recipe.granularity, scales, None)?.with_code_range(-T::MAX, T::MAX)?;
    QTensor::new(T::Storage::from_codes(codes), params)
}

fn array<T, const N: usize>(name: &str, tensor: &TensorView<'_>, from: impl Fn([u8; N]) -> T) -> Result<ArrayD<T>> {
    let (values, rest) = tensor.data().as_chunks::<N>();
    let values: Vec<T> = values.iter().map(|&bytes| from(bytes)).collect();
    let array = ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).ok().filter(|_| rest.is_empty());
    array.ok_or_else(|| {
        malformed("as many bytes as the shape needs", &alloc::format!("{:?} of {name:?}", tensor.shape()))
    })
}

fn malformed(expected: &str, found: &dyn ToString) -> Error {
    Error::Format { what: "safetensors file", expected: expected.into(), found: found.to_string() }
}

/// Writes a network to a file.
///
/// # Errors
/// [`Error::File`] if that fails, and those of [`write()`].
#[cfg(feature = "std")]
pub fn save(network: &QuantizedNetwork, path: impl AsRef<std::path::Path>) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, write(network)?).map_err(|error| super::file_error(path, error))
}

/// Reads a network from a file.
///
/// # Errors
/// [`Error::File`] if it cannot be read, and those of [`read`].
#[cfg(feature = "std")]
pub fn load(path: impl AsRef<std::path::Path>) -> Result<QuantizedNetwork> {
    read(&super::read_file(path.as_ref(), usize::MAX)?)
}
