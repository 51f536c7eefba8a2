//! The float network: linear layers with ReLU between them.

use ndarray::{Array1, Array2, ArrayRef2, Axis};
use rand::{Rng, RngExt};

/// `y = x · weightᵀ + bias`, one image per row of `x`.
#[derive(Clone)]
pub(crate) struct FloatLinear {
    /// One row per output.
    pub(crate) weight: Array2<f32>,
    pub(crate) bias: Array1<f32>,
}

impl FloatLinear {
    /// He's initialization: uniform, of the variance that ReLU keeps from layer to layer.
    pub(crate) fn new(inputs: usize, outputs: usize, rng: &mut impl Rng) -> Self {
        let bound = (6.0 / inputs as f32).sqrt();
        let weight = Array2::from_shape_simple_fn((outputs, inputs), || rng.random_range(-bound..bound));
        FloatLinear { weight, bias: Array1::zeros(outputs) }
    }

    pub(crate) fn forward(&self, x: &ArrayRef2<f32>) -> Array2<f32> {
        let mut y = x.dot(&self.weight.t());
        y += &self.bias;
        y
    }
}

/// Layers of which all but the last are followed by a ReLU.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) layers: Vec<FloatLinear>,
}

impl Network {
    /// A network with these numbers of values between its layers, not yet trained.
    pub(crate) fn new(sizes: &[usize], rng: &mut impl Rng) -> Self {
        let layers = sizes.windows(2).map(|pair| FloatLinear::new(pair[0], pair[1], rng)).collect();
        Network { layers }
    }

    /// The scores of each class (the greatest one wins), one image per row.
    pub(crate) fn forward(&self, images: &ArrayRef2<f32>) -> Array2<f32> {
        let mut outputs = self.layer_outputs(images);
        outputs.pop().unwrap_or_else(|| images.to_owned())
    }

    /// Returns the output of every layer, after its ReLU. Training and calibration use all of them.
    pub(crate) fn layer_outputs(&self, images: &ArrayRef2<f32>) -> Vec<Array2<f32>> {
        let mut outputs: Vec<Array2<f32>> = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let mut y = match outputs.last() {
                Some(x) => layer.forward(x),
                None => layer.forward(images),
            };
            if !self.is_last(i) {
                relu(&mut y);
            }
            outputs.push(y);
        }
        outputs
    }

    pub(crate) fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.layers.len()
    }
}

pub(crate) fn relu(x: &mut ArrayRef2<f32>) {
    x.mapv_inplace(|x| x.max(0.0));
}

/// The class with the greatest score, image by image.
pub(crate) fn predictions(scores: &ArrayRef2<f32>) -> impl Iterator<Item = usize> {
    scores.axis_iter(Axis(0)).map(|row| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(class, _)| class)
    })
}
