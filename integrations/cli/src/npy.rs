//! Arrays in `.npy` and `.npz` files, of any element type whose values `f32` can hold.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ndarray::ArrayD;
use ndarray_npy::{NpzReader, NpzWriter, ReadNpyError, ReadNpzError, ReadableElement};

/// An array as its file holds it.
pub(crate) enum Array {
    Floats(ArrayD<f32>),
    /// Pixels, or other small numbers.
    Bytes(ArrayD<u8>),
}

/// Reads a `.npy` file.
pub(crate) fn read(path: &Path) -> Result<Array> {
    read_any(&mut Npy(path)).with_context(|| path.display().to_string())
}

/// Reads all arrays of a `.npz` file, with their names.
pub(crate) fn read_all(path: &Path) -> Result<Vec<(String, Array)>> {
    let read = || -> Result<_> {
        let mut file = NpzReader::new(File::open(path)?)?;
        let mut arrays = Vec::new();
        for name in file.names()? {
            let array = read_any(&mut Entry(&mut file, &name)).with_context(|| format!("array {name:?}"))?;
            arrays.push((name, array));
        }
        Ok(arrays)
    };
    read().with_context(|| path.display().to_string())
}

/// Writes arrays to a `.npz` file, or the only one to a `.npy` file.
pub(crate) fn write<'a>(
    path: &Path,
    mut arrays: impl ExactSizeIterator<Item = (&'a str, &'a ArrayD<f32>)>,
) -> Result<()> {
    let mut write = || -> Result<()> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npz") => {
                let mut file = NpzWriter::new(File::create(path)?);
                arrays.try_for_each(|(name, array)| file.add_array(name, array))?;
                file.finish()?;
            }
            Some("npy") if arrays.len() == 1 => {
                arrays.try_for_each(|(_, array)| ndarray_npy::write_npy(path, array))?;
            }
            Some("npy") => bail!("a .npy file holds one array, and the network has {} outputs", arrays.len()),
            _ => bail!("expected the name of a .npy or .npz file"),
        }
        Ok(())
    };
    write().with_context(|| path.display().to_string())
}

/// An array that is read as one element type after the other, until it is the right one.
trait Source {
    fn read<T: ReadableElement>(&mut self) -> Result<ArrayD<T>, ReadNpzError>;
}

struct Npy<'a>(&'a Path);

impl Source for Npy<'_> {
    fn read<T: ReadableElement>(&mut self) -> Result<ArrayD<T>, ReadNpzError> {
        ndarray_npy::read_npy(self.0).map_err(ReadNpzError::Npy)
    }
}

struct Entry<'a>(&'a mut NpzReader<File>, &'a str);

impl Source for Entry<'_> {
    fn read<T: ReadableElement>(&mut self) -> Result<ArrayD<T>, ReadNpzError> {
        self.0.by_name::<ndarray::OwnedRepr<T>, ndarray::IxDyn>(self.1)
    }
}

fn read_any(source: &mut impl Source) -> Result<Array> {
    /// Returns the array if it has this element type.
    macro_rules! try_type {
        ($element:ty, $convert:expr) => {
            match source.read::<$element>() {
                Ok(values) => return Ok($convert(values)),
                Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(found))) => found,
                Err(error) => return Err(error.into()),
            }
        };
    }
    try_type!(f32, Array::Floats);
    try_type!(u8, Array::Bytes);
    try_type!(f64, |x: ArrayD<f64>| Array::Floats(x.mapv(|x| x as f32)));
    try_type!(i64, |x: ArrayD<i64>| Array::Floats(x.mapv(|x| x as f32)));
    try_type!(i32, |x: ArrayD<i32>| Array::Floats(x.mapv(|x| x as f32)));
    try_type!(i16, |x: ArrayD<i16>| Array::Floats(x.mapv(f32::from)));
    try_type!(u16, |x: ArrayD<u16>| Array::Floats(x.mapv(f32::from)));
    try_type!(i8, |x: ArrayD<i8>| Array::Floats(x.mapv(f32::from)));
    let found = try_type!(bool, |x: ArrayD<bool>| Array::Floats(x.mapv(|x| f32::from(u8::from(x)))));
    bail!("expected elements of type float32, float64, bool or an integer of 8 to 64 bits, found {found}")
}
