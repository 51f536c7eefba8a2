//! Images as a network reads them.

use std::error::Error;
use std::path::Path;

use ndarray::Array4;

/// `(pixel - mean) / scale` of the images in a `.npy` file, seen as `[images, channels, height, width]`.
pub(crate) fn read(path: &Path, mean: f32, scale: f32) -> Result<Array4<f32>, Box<dyn Error + Send + Sync>> {
    let pixels: Array4<u8> = ndarray_npy::read_npy(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(pixels.mapv(|pixel| (f32::from(pixel) - mean) / scale).permuted_axes([0, 3, 1, 2]))
}
