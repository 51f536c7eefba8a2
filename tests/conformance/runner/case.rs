//! Reads a `case.json`: attributes, inputs, expected outputs.

use ndarray::ArrayD;
use serde_json::{Map, Value};

use super::store::{Store, join};
use super::tensor::{Tensor, Typed};
use super::{Outcome, Stop};

/// The description of a case, without its tensors.
pub(crate) struct Description {
    /// Directory of its files in the store.
    pub(crate) path: String,
    pub(crate) id: String,
    /// The first part of the identifier: the system that computed the outputs.
    pub(crate) source: String,
    pub(crate) op: String,
    /// The parsed file, or the reason why it could not be read.
    pub(crate) content: Outcome<Map<String, Value>>,
}

impl Description {
    /// Never fails. Source and operation come from the path if the file does not name them.
    pub(crate) fn read(store: &Store, path: &str) -> Self {
        let content =
            store.read(&join(path, "case.json")).map_err(|error| Stop::failed(format!("case.json: {error}"))).and_then(
                |bytes| serde_json::from_slice(&bytes).map_err(|error| Stop::failed(format!("case.json: {error}"))),
            );
        let text = |key: &str| content.as_ref().ok().and_then(|map: &Map<_, _>| map.get(key)?.as_str());
        let id = text("id").unwrap_or(path).to_owned();
        let mut parts = id.split('/');
        let source = parts.next().unwrap_or_default().to_owned();
        let op = text("op").or(parts.next()).unwrap_or_default().to_owned();
        Self { path: path.to_owned(), source, op, id, content }
    }

    /// True if the case records a quirk that need not be reproduced.
    pub(crate) fn is_informative(&self) -> bool {
        let flag = |map: &Map<String, Value>| map.get("attrs")?.get("informative")?.as_bool();
        self.content.as_ref().ok().and_then(flag).unwrap_or(false)
    }
}

/// The comparison applied to an output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Compare {
    Exact,
    Ulp { max: u64 },
    CodeDiff { max: u64, max_mismatch_frac: f64 },
    Tol { rtol: f64, atol: f64 },
}

/// An input, or an expected output.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) tensor: Tensor,
}

/// A case with its tensors.
pub(crate) struct Case {
    pub(crate) source: String,
    attrs: Map<String, Value>,
    pub(crate) inputs: Vec<Named>,
    pub(crate) outputs: Vec<(Named, Compare)>,
}

/// Attributes that say where a case comes from, not what it computes.
const REMARKS: [&str; 6] = ["informative", "opset", "agreement", "domain", "signed_zero", "exhaustive"];

impl Case {
    pub(crate) fn load(store: &Store, description: &Description) -> Outcome<Self> {
        let content = description.content.as_ref().map_err(Clone::clone)?;
        match content.get("format").and_then(Value::as_u64) {
            Some(1) => {}
            Some(format) => return Err(Stop::not_covered(format!("format {format}"))),
            None => return Err(Stop::failed("case.json: no format")),
        }
        let attrs = match content.get("attrs") {
            Some(Value::Object(attrs)) => attrs.clone(),
            None => Map::new(),
            Some(_) => return Err(Stop::failed("case.json: attrs is no object")),
        };
        let read = |entry: &Value| read_tensor(store, &description.path, entry);
        let inputs = entries(content, "inputs")?.iter().map(read).collect::<Outcome<_>>()?;
        let outputs = entries(content, "outputs")?
            .iter()
            .map(|entry| Ok((read(entry)?, compare(entry)?)))
            .collect::<Outcome<_>>()?;
        Ok(Self { source: description.source.clone(), attrs, inputs, outputs })
    }

    /// Stops as not covered if the case has an attribute that the operation does not know.
    pub(crate) fn knows(&self, attrs: &[&str]) -> Outcome<()> {
        let unknown = |name: &&String| !attrs.contains(&name.as_str()) && !REMARKS.contains(&name.as_str());
        match self.attrs.keys().find(unknown) {
            Some(name) => Err(Stop::not_covered(format!("attribute {name}"))),
            None => Ok(()),
        }
    }

    /// Stops as not covered if the attribute is present and has another value.
    pub(crate) fn expects(&self, name: &str, value: impl Into<Value>) -> Outcome<()> {
        match self.attr(name) {
            Some(found) if *found != value.into() => Err(Stop::not_covered(format!("attribute {name} {found}"))),
            _ => Ok(()),
        }
    }

    /// An attribute; `null` counts as absent.
    pub(crate) fn attr(&self, name: &str) -> Option<&Value> {
        self.attrs.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn integer(&self, name: &str) -> Outcome<Option<i64>> {
        self.typed_attr(name, "an integer", Value::as_i64)
    }

    /// A list of sizes.
    pub(crate) fn integers(&self, name: &str) -> Outcome<Option<Vec<usize>>> {
        self.typed_attr(name, "a list of sizes", |value| serde_json::from_value(value.clone()).ok())
    }

    pub(crate) fn text(&self, name: &str) -> Outcome<Option<&str>> {
        self.typed_attr(name, "a text", Value::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Outcome<Option<f64>> {
        self.typed_attr(name, "a number", Value::as_f64)
    }

    fn typed_attr<'a, T>(&'a self, name: &str, kind: &str, read: fn(&'a Value) -> Option<T>) -> Outcome<Option<T>> {
        let wrong = |value: &Value| Stop::failed(format!("attribute {name}: expected {kind}, found {value}"));
        self.attr(name).map(|value| read(value).ok_or_else(|| wrong(value))).transpose()
    }

    /// Returns the smallest and the greatest code, if the case names them.
    pub(crate) fn code_range(&self) -> Outcome<Option<(i32, i32)>> {
        let bound = |value: i64| i32::try_from(value).map_err(|_| Stop::failed(format!("code bound {value}")));
        match (self.integer("qmin")?, self.integer("qmax")?) {
            (Some(min), Some(max)) => Ok(Some((bound(min)?, bound(max)?))),
            _ => Ok(None),
        }
    }

    /// An input in the operator's order.
    pub(crate) fn input(&self, index: usize) -> Outcome<&Tensor> {
        let input = self.inputs.get(index).ok_or_else(|| Stop::failed(format!("input {index} is missing")))?;
        Ok(&input.tensor)
    }

    /// An optional input by its name.
    pub(crate) fn named(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|input| input.name == name).map(|input| &input.tensor)
    }

    /// The elements of an input that must be of this type.
    pub(crate) fn values<T: Typed>(&self, index: usize) -> Outcome<&ArrayD<T::Value>> {
        let input = self.input(index)?;
        T::view(input).ok_or_else(|| {
            Stop::not_covered(format!("{} of dtype {}, not {}", self.inputs[index].name, input.dtype(), T::NAME))
        })
    }

    /// An expected output.
    pub(crate) fn output(&self, index: usize) -> Outcome<&Tensor> {
        let output = self.outputs.get(index).ok_or_else(|| Stop::failed(format!("output {index} is missing")))?;
        Ok(&output.0.tensor)
    }

    /// Parameters in the shape in which an output expects them: as a scalar, or as a list.
    pub(crate) fn like_output<T: Typed>(&self, index: usize, values: Vec<T::Value>) -> Outcome<Tensor> {
        let shape = self.output(index)?.shape();
        let found = values.len();
        let values = ArrayD::from_shape_vec(shape, values)
            .map_err(|_| Stop::failed(format!("output {index}: expected shape {shape:?}, got {found} values")))?;
        Ok(T::tensor(values))
    }

    pub(crate) fn has_strict_zeros(&self) -> bool {
        self.attr("signed_zero").and_then(Value::as_str) == Some("strict")
    }
}

fn entries<'a>(content: &'a Map<String, Value>, key: &str) -> Outcome<&'a Vec<Value>> {
    content.get(key).and_then(Value::as_array).ok_or_else(|| Stop::failed(format!("case.json: no list of {key}")))
}

fn text<'a>(entry: &'a Value, key: &str) -> Outcome<&'a str> {
    entry.get(key).and_then(Value::as_str).ok_or_else(|| Stop::failed(format!("case.json: a tensor without {key}")))
}

fn read_tensor(store: &Store, path: &str, entry: &Value) -> Outcome<Named> {
    let (name, file, dtype) = (text(entry, "name")?, text(entry, "file")?, text(entry, "dtype")?);
    let bytes = store.read(&join(path, file)).map_err(|error| Stop::failed(format!("{file}: {error}")))?;
    let tensor = Tensor::read(&bytes, dtype).map_err(|stop| match stop {
        Stop::Failed(why) => Stop::Failed(format!("{file}: {why}")),
        not_covered => not_covered,
    })?;
    let promised: Option<Vec<usize>> = entry.get("shape").and_then(|shape| serde_json::from_value(shape.clone()).ok());
    match promised {
        Some(shape) if shape == tensor.shape() => Ok(Named { name: name.to_owned(), tensor }),
        Some(shape) => Err(Stop::failed(format!("{file}: expected shape {shape:?}, found {:?}", tensor.shape()))),
        None => Err(Stop::failed(format!("case.json: {name} without a shape"))),
    }
}

fn compare(entry: &Value) -> Outcome<Compare> {
    let compare = entry.get("compare").ok_or_else(|| Stop::failed("case.json: an output without compare"))?;
    let number = |key: &str| {
        let value = compare.get(key).and_then(Value::as_f64);
        value.ok_or_else(|| Stop::failed(format!("case.json: compare without {key}")))
    };
    let count = |key: &str| {
        let value = compare.get(key).and_then(Value::as_u64);
        value.ok_or_else(|| Stop::failed(format!("case.json: compare without {key}")))
    };
    Ok(match text(compare, "kind")? {
        "exact" => Compare::Exact,
        "ulp" => Compare::Ulp { max: count("max")? },
        "code_diff" => Compare::CodeDiff { max: count("max")?, max_mismatch_frac: number("max_mismatch_frac")? },
        "tol" => Compare::Tol { rtol: number("rtol")?, atol: number("atol")? },
        other => return Err(Stop::not_covered(format!("comparison {other}"))),
    })
}
