//! The files in which MNIST and Fashion-MNIST are distributed: a magic number, the shape in 32-bit numbers, bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use ndarray::{Array2, ArrayD};

use crate::data::{CLASSES, Dataset};
use crate::program::Result;

/// The images for training and those for testing.
pub(crate) fn load(directory: &Path) -> Result<(Dataset, Dataset)> {
    let part = |name: &str| -> Result<Dataset> {
        let images = read(&directory.join(format!("{name}-images-idx3-ubyte.gz")))?;
        let labels = read(&directory.join(format!("{name}-labels-idx1-ubyte.gz")))?;
        let (&[count, height, width], &[names]) = (images.shape(), labels.shape()) else {
            return Err(format!("{name}: expected images of two axes, and labels").into());
        };
        if count != names || labels.iter().any(|&label| usize::from(label) >= CLASSES) {
            return Err(format!("{name}: {count} images and {names} labels from 0 to {}", CLASSES - 1).into());
        }
        let images = images.iter().map(|&pixel| pixel as f32 / 255.0).collect();
        Ok(Dataset {
            images: Array2::from_shape_vec((count, height * width), images)?,
            labels: labels.iter().map(|&label| label.into()).collect(),
        })
    };
    Ok((part("train")?, part("t10k")?))
}

/// A tensor of bytes.
fn read(path: &Path) -> Result<ArrayD<u8>> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| named(&e))?;
    GzDecoder::new(file).read_to_end(&mut bytes).map_err(|e| named(&e))?;
    let Some((&[0, 0, 8, axes], rest)) = bytes.split_first_chunk() else {
        return Err(named(&"not a tensor of bytes").into());
    };
    let Some((sizes, data)) = rest.split_at_checked(4 * axes as usize) else {
        return Err(named(&"ends within its shape").into());
    };
    let shape: Vec<usize> = sizes.as_chunks().0.iter().map(|&size| u32::from_be_bytes(size) as usize).collect();
    Ok(ArrayD::from_shape_vec(shape, data.to_vec()).map_err(|e| named(&e))?)
}
