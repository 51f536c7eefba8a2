//! Images as a network reads them.

use std::path::Path;

use ndarray::Array4;

use crate::program::{self, Result};

/// `(pixel - mean) / scale` of the images in a `.npy` file, seen as `[images, channels, height, width]`.
pub(crate) fn read(path: &Path, mean: f32, scale: f32) -> Result<Array4<f32>> {
    let pixels: Array4<u8> = program::at(path, ndarray_npy::read_npy(path))?;
    Ok(pixels.mapv(|pixel| (f32::from(pixel) - mean) / scale).permuted_axes([0, 3, 1, 2]))
}
