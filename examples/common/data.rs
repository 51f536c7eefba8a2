//! The images: Fashion-MNIST at 14×14 pixels, see `examples/data/README.md`.

use ndarray::{Array1, Array2, ArrayView2, Axis, ShapeError, s};

/// Pixels of an image.
pub(crate) const PIXELS: usize = 14 * 14;

/// Kinds of clothing.
pub(crate) const CLASSES: usize = 10;

/// Number of training images. The remaining images are the test set.
const TRAIN: usize = 6000;

static IMAGES: &[u8] = include_bytes!("../data/fashion14_x.u8");
static LABELS: &[u8] = include_bytes!("../data/fashion14_y.u8");

/// Images, one per row, and what they show.
pub(crate) struct Dataset {
    /// Brightness from 0 to 1.
    pub(crate) images: Array2<f32>,
    /// From 0 to 9.
    pub(crate) labels: Array1<usize>,
}

impl Dataset {
    /// The images for training and those for testing.
    pub(crate) fn load() -> Result<(Self, Self), ShapeError> {
        let pixels = ArrayView2::from_shape((LABELS.len(), PIXELS), IMAGES)?;
        let part = |rows: std::ops::Range<usize>| Dataset {
            images: pixels.slice(s![rows.clone(), ..]).mapv(|p| p as f32 / 255.0),
            labels: LABELS[rows].iter().map(|&label| label.into()).collect(),
        };
        Ok((part(0..TRAIN), part(TRAIN..LABELS.len())))
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The images in batches of `size`, without copying; the last batch may be smaller.
    pub(crate) fn batches(&self, size: usize) -> impl Iterator<Item = ArrayView2<'_, f32>> {
        self.images.axis_chunks_iter(Axis(0), size)
    }
}
