//! Samples that a network runs on: from files, or random.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use ndarray_quant::graph::Graph;

use crate::args::{DataArgs, DataPath, ImageArgs};
use crate::images::Pixels;
use crate::npy::{self, Array};
use crate::output;

/// The seed of random samples, so that every run has the same.
const SEED: u64 = 0;

/// Samples for all inputs of a network.
pub(crate) struct Samples {
    /// The shape of each input for one sample. The first axis is 1 for most.
    shapes: Vec<Vec<usize>>,
    source: Source,
    len: usize,
}

enum Source {
    /// An array for each input.
    Arrays(Vec<ArrayD<f32>>),
    /// An image for each sample, read when it is needed.
    Images(Vec<PathBuf>, Pixels),
    Zeros,
}

/// The names and shapes of a network's inputs.
struct Inputs<'g> {
    names: Vec<&'g str>,
    shapes: Vec<Vec<usize>>,
}

impl<'g> Inputs<'g> {
    fn of(graph: &'g Graph) -> Self {
        let names: Vec<&str> = graph.inputs().collect();
        let shapes = names.iter().map(|name| graph.shape(name).unwrap_or_default().to_vec()).collect();
        Self { names, shapes }
    }

    /// The index of the input with this name.
    fn index(&self, name: &str) -> Result<usize> {
        let index = self.names.iter().position(|&found| found == name);
        index.with_context(|| format!("the network has no input {name:?}; its inputs: {}", self.names.join(", ")))
    }

    /// The index of the only input.
    fn single(&self) -> Result<usize> {
        match self.names[..] {
            [_] => Ok(0),
            _ => bail!(
                "the network has {} inputs ({}): give NAME=PATH for each, or a .npz file with an array for each",
                self.names.len(),
                self.names.join(", ")
            ),
        }
    }
}

impl Samples {
    /// Reads the samples that the arguments name.
    pub(crate) fn read(graph: &Graph, args: &DataArgs, images: &ImageArgs, option: &str) -> Result<Self> {
        let inputs = Inputs::of(graph);
        let samples = match (&args.data[..], args.random_data) {
            ([], None) => bail!("give {option} FILE or FOLDER, or --random-data N"),
            ([], Some(n)) => Self::random(inputs, n),
            (paths, _) => Self::from_paths(inputs, paths, &images.pixels()?)?,
        };
        let len = samples.len.min(args.samples.unwrap_or(usize::MAX));
        ensure!(len > 0, "{option}: no samples");
        Ok(Self { len, ..samples })
    }

    /// Samples of zeros.
    pub(crate) fn zeros(graph: &Graph, len: usize) -> Self {
        Self { shapes: Inputs::of(graph).shapes, source: Source::Zeros, len }
    }

    fn random(inputs: Inputs, len: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let array = |shape: &Vec<usize>| ArrayD::from_shape_simple_fn(batch(shape, len), || rng.f32());
        Self { source: Source::Arrays(inputs.shapes.iter().map(array).collect()), shapes: inputs.shapes, len }
    }

    fn from_paths(inputs: Inputs, paths: &[DataPath], pixels: &Pixels) -> Result<Self> {
        let files = files(paths)?;
        let images = files.iter().filter(|file| is_image(&file.path)).count();
        if images > 0 {
            inputs.single()?;
            ensure!(images == files.len(), "--data: expected images or arrays, found both");
            let files: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
            return Ok(Self { len: files.len(), source: Source::Images(files, pixels.clone()), shapes: inputs.shapes });
        }
        let mut parts: Vec<Vec<ArrayD<f32>>> = inputs.names.iter().map(|_| Vec::new()).collect();
        for DataPath { input, path } in &files {
            let mut add = |i: usize, array| {
                let array = as_input(array, &inputs.shapes[i], pixels);
                parts[i].push(array.with_context(|| format!("{}: input {:?}", path.display(), inputs.names[i]))?);
                Ok::<(), anyhow::Error>(())
            };
            let at = || path.display().to_string();
            match (input, is_npz(path)) {
                (Some(name), false) => add(inputs.index(name)?, npy::read(path)?)?,
                (None, false) => add(inputs.single().with_context(at)?, npy::read(path)?)?,
                (Some(_), true) => {
                    bail!("{}: expected a .npy file after NAME=, because .npz files name their arrays", at())
                }
                (None, true) => match (npy::read_all(path)?, &inputs.names[..]) {
                    // The only array for the only input, whatever its name.
                    (arrays, [_]) if arrays.len() == 1 => {
                        arrays.into_iter().try_for_each(|(_, array)| add(0, array))?
                    }
                    (arrays, _) => {
                        for (name, array) in arrays {
                            add(inputs.index(&name).with_context(at)?, array)?;
                        }
                    }
                },
            }
        }
        let mut arrays = Vec::new();
        let mut lengths = Vec::new();
        for (i, parts) in parts.iter().enumerate() {
            ensure!(!parts.is_empty(), "no data for input {:?}", inputs.names[i]);
            let views: Vec<ArrayViewD<f32>> = parts.iter().map(|part| part.view()).collect();
            arrays.push(ndarray::concatenate(Axis(0), &views)?);
            lengths.push(arrays[i].len_of(Axis(0)) / rows(&inputs.shapes[i]));
        }
        for (name, len) in inputs.names.iter().zip(&lengths) {
            let first = (inputs.names[0], lengths[0]);
            ensure!(*len == first.1, "data: {} samples for input {:?}, but {len} for {name:?}", first.1, first.0);
        }
        Ok(Self { shapes: inputs.shapes, source: Source::Arrays(arrays), len: lengths[0] })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The samples of a range, an array for each input.
    pub(crate) fn batch(&self, range: Range<usize>) -> Result<Vec<ArrayD<f32>>> {
        match &self.source {
            Source::Arrays(arrays) => {
                let slice = |(array, shape): (&ArrayD<f32>, &Vec<usize>)| {
                    let (from, to) = (range.start * rows(shape), range.end * rows(shape));
                    array.slice_axis(Axis(0), Slice::from(from..to)).to_owned()
                };
                Ok(arrays.iter().zip(&self.shapes).map(slice).collect())
            }
            Source::Images(files, pixels) => {
                let images = files[range].iter().map(|path| pixels.read(path, &self.shapes[0]));
                let images = images.collect::<Result<Vec<_>>>()?;
                let views: Vec<ArrayViewD<f32>> = images.iter().map(|image| image.view()).collect();
                Ok(vec![ndarray::concatenate(Axis(0), &views)?])
            }
            Source::Zeros => Ok(self.shapes.iter().map(|shape| ArrayD::zeros(batch(shape, range.len()))).collect()),
        }
    }

    /// All samples, in batches of at most this size.
    pub(crate) fn batches(&self, size: usize) -> impl Iterator<Item = Result<Vec<ArrayD<f32>>>> {
        let starts = (0..self.len).step_by(size.max(1));
        starts.map(move |start| self.batch(start..(start + size.max(1)).min(self.len)))
    }

    /// The number and kind of the samples, for reports.
    pub(crate) fn describe(&self) -> String {
        let what = match self.source {
            Source::Zeros => "zeros",
            Source::Images(..) => "images",
            Source::Arrays(_) => "samples",
        };
        format!("{} {what}", self.len)
    }
}

/// Views of the inputs of a batch.
pub(crate) fn views(inputs: &[ArrayD<f32>]) -> Vec<ArrayViewD<'_, f32>> {
    inputs.iter().map(|input| input.view()).collect()
}

/// The rows of one sample along the first axis.
fn rows(shape: &[usize]) -> usize {
    shape.first().copied().unwrap_or(1).max(1)
}

/// The shape of a batch.
fn batch(shape: &[usize], samples: usize) -> IxDyn {
    let mut shape = shape.to_vec();
    if let Some(first) = shape.first_mut() {
        *first *= samples;
    }
    IxDyn(&shape)
}

/// Checks the shape of an array, and normalizes pixels.
fn as_input(array: Array, shape: &[usize], pixels: &Pixels) -> Result<ArrayD<f32>> {
    let array = match array {
        Array::Bytes(bytes) if bytes.ndim() == 4 && shape.len() == 4 => return pixels.convert_array(&bytes, shape),
        Array::Bytes(bytes) => bytes.mapv(f32::from),
        Array::Floats(values) => values,
    };
    // One sample without the axis of the batch.
    let array = if array.ndim() + 1 == shape.len() { array.insert_axis(Axis(0)) } else { array };
    let fits = array.ndim() == shape.len()
        && array.shape()[1..] == shape[1..]
        && array.len_of(Axis(0)).is_multiple_of(rows(shape));
    let first = if rows(shape) == 1 { "N".into() } else { format!("{}N", rows(shape)) };
    let expected = [vec![first], shape[1..].iter().map(usize::to_string).collect()].concat().join("x");
    ensure!(fits, "expected an array of shape {expected}, found {}", output::shape(array.shape()));
    Ok(array)
}

/// The files in the paths, folders replaced by what they contain, in the order of their names.
fn files(paths: &[DataPath]) -> Result<Vec<DataPath>> {
    let mut files = Vec::new();
    for DataPath { input, path } in paths {
        let at = || path.display().to_string();
        if !path.is_dir() {
            ensure!(path.exists(), "{}: no such file", at());
            ensure!(is_array(path) || is_image(path), "{}: expected a .npy, .npz, .png or .jpg file", at());
            files.push(DataPath { input: input.clone(), path: path.clone() });
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(at)?;
        let entries = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().with_context(at)?;
        let mut found: Vec<PathBuf> = entries.into_iter().filter(|path| is_array(path) || is_image(path)).collect();
        ensure!(!found.is_empty(), "{}: expected .npy, .npz, .png or .jpg files in the folder, found none", at());
        found.sort();
        files.extend(found.into_iter().map(|path| DataPath { input: input.clone(), path }));
    }
    Ok(files)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let found = path.extension().and_then(|extension| extension.to_str());
    found.is_some_and(|found| extensions.iter().any(|extension| found.eq_ignore_ascii_case(extension)))
}

fn is_image(path: &Path) -> bool {
    has_extension(path, &["png", "jpg", "jpeg"])
}

fn is_array(path: &Path) -> bool {
    has_extension(path, &["npy", "npz"])
}

fn is_npz(path: &Path) -> bool {
    has_extension(path, &["npz"])
}
