//! Images as a network reads them.

use std::path::Path;

use ndarray::{Array1, Array4};

use crate::program::{self, Result};

/// `(pixel - mean) / scale` of the images in a `.npy` file, seen as `[images, channels, height, width]`. There are one mean
/// and one scale, or one for each channel.
pub(crate) fn read(path: &Path, mean: &[f32], scale: &[f32]) -> Result<Array4<f32>> {
    let pixels: Array4<u8> = program::at(path, ndarray_npy::read_npy(path))?;
    let channels = pixels.dim().3;
    if let Some(found) = [mean.len(), scale.len()].into_iter().find(|&len| len != 1 && len != channels) {
        return Err(format!("--mean and --scale take 1 or {channels} numbers, found {found}").into());
    }
    let images =
        (pixels.mapv(f32::from) - &Array1::from_iter(mean.iter().copied())) / &Array1::from_iter(scale.iter().copied());
    Ok(images.permuted_axes([0, 3, 1, 2]))
}
