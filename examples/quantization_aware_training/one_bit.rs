//! The network of one bit: the signs of weights and of the activations between layers.
//!
//! Pixels have 8 bits, scores are `f32`. The scale of an output is the mean magnitude of its weights.

use ndarray::{Array2, ArrayRef2, ArrayView1, Axis, Zip};
use ndarray_quant::{
    BinaryTensor, QParams, QTensor, Result, Scheme,
    nn::{BinaryLinear, Linear},
    qat::FakeSign,
};
use rand::Rng;

use crate::data::Dataset;
use crate::net::{FloatLinear, Network};
use crate::progress::Progress;
use crate::train::{self, Adam, LEARNING_RATE, cross_entropy};

pub(crate) const NAME: &str = "W1A1";

pub(crate) struct OneBit {
    input: QParams<u8>,
    layers: Vec<FloatLinear>,
}

/// A layer in a forward pass.
struct Pass {
    /// Codes of the pixels, or signs.
    x: Array2<f32>,
    /// The signs of the weights, times their scales.
    weights: Array2<f32>,
    y: Array2<f32>,
}

impl OneBit {
    /// Takes the signs of a trained network.
    pub(crate) fn new(float: &Network) -> Result<Self> {
        let input = Scheme::<u8>::asymmetric().params_from_range(0.0, 1.0)?;
        Ok(Self { input, layers: float.layers.clone() })
    }

    /// The scores of each class, one image per row.
    pub(crate) fn forward(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut passes = self.passes(images)?;
        Ok(passes.pop().map_or_else(|| images.to_owned(), |pass| pass.y))
    }

    /// Runs every layer and keeps what backpropagation needs. Sums of codes times signs are small integers, so they are exact.
    fn passes(&self, images: &ArrayRef2<f32>) -> Result<Vec<Pass>> {
        let mut passes: Vec<Pass> = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let x = match passes.last() {
                Some(pass) => FakeSign::new().forward(&pass.y)?,
                None => self.input.quantize(images)?.codes().mapv(f32::from),
            };
            let weights = FakeSign::scaled().per_axis(Axis(0)).forward(&layer.weight)?;
            let mut y = x.dot(&FakeSign::new().forward(&layer.weight)?.t());
            let (unit, scales) = (self.unit(i), magnitudes(&weights));
            Zip::from(y.rows_mut()).for_each(|mut y| {
                Zip::from(&mut y)
                    .and(&scales)
                    .and(&layer.bias)
                    .for_each(|y, scale, bias| *y = *y * (unit * scale) + bias);
            });
            passes.push(Pass { x, weights, y });
        }
        Ok(passes)
    }

    /// The scale of the input of a layer.
    fn unit(&self, layer: usize) -> f32 {
        if layer == 0 { self.input.scales()[0] } else { 1.0 }
    }

    /// Counts the signs and scores, over all layers and images, that differ in the integer network.
    pub(crate) fn codes_that_differ_in_integers(&self, data: &Dataset) -> Result<usize> {
        let [first, rest @ ..] = self.layers.as_slice() else { return Ok(0) };
        let scales = magnitudes(&FakeSign::scaled().per_axis(Axis(0)).forward(&first.weight)?);
        let codes = FakeSign::new().forward(&first.weight)?.mapv(|sign| sign as i8);
        let weights = QTensor::<i8, _>::new(codes, QParams::per_axis(Axis(0), scales, None)?)?;
        let first = Linear::new(&weights, Some(&first.bias))?;
        let rest = rest.iter().map(|layer| BinaryLinear::new(&layer.weight, Some(&layer.bias)));
        let rest = rest.collect::<Result<Vec<_>>>()?;
        let mut differ = 0;
        for images in data.batches(256) {
            let passes = self.passes(&images)?;
            let mut signs = BinaryTensor::sign(&first.forward_dequantize(&self.input.quantize(&images)?)?)?;
            for (i, (layer, pass)) in rest.iter().zip(&passes[1..]).enumerate() {
                differ += different(&signs.dequantize(), &pass.x);
                if i + 1 == rest.len() {
                    differ += different(&layer.forward(&signs)?, &pass.y);
                }
                signs = layer.forward_sign(&signs)?;
            }
        }
        Ok(differ)
    }

    /// Returns the size of packed weights, their scales, and biases, in bytes.
    pub(crate) fn size_in_bytes(&self) -> Result<usize> {
        let layers = self.layers.iter().map(|layer| {
            Ok(BinaryTensor::sign(&layer.weight)?.size_in_bytes() + 2 * size_of::<f32>() * layer.bias.len())
        });
        layers.sum()
    }

    /// Trains weights and biases. The progress advances by one per epoch.
    pub(crate) fn train(
        &mut self,
        data: &Dataset,
        epochs: usize,
        progress: &mut Progress,
        rng: &mut impl Rng,
    ) -> Result<()> {
        let mut adam = Adam::new(&self.layers);
        train::steps(data, epochs, progress, rng, |images, labels, left| {
            let passes = self.passes(images)?;
            let Some(last) = passes.last() else { return Ok(0.0) };
            let (loss, mut grad) = cross_entropy(last.y.clone(), labels);
            let mut gradients = Vec::with_capacity(self.layers.len());
            for (i, (layer, pass)) in self.layers.iter().zip(&passes).enumerate().rev() {
                let by_weights = grad.t().dot(&pass.x) * self.unit(i);
                let weight = FakeSign::scaled().per_axis(Axis(0)).gradient(&layer.weight, &by_weights)?;
                gradients.push(FloatLinear { weight, bias: grad.sum_axis(Axis(0)) });
                if i > 0 {
                    grad = FakeSign::new().gradient(&passes[i - 1].y, &grad.dot(&pass.weights))?;
                }
            }
            gradients.reverse();
            adam.update(&mut self.layers, &gradients, LEARNING_RATE * left);
            self.layers.iter_mut().for_each(|layer| layer.weight.mapv_inplace(|w| w.clamp(-1.0, 1.0)));
            Ok(loss)
        })
    }
}

/// Returns the scales of signs of weights, one for each output.
fn magnitudes(weights: &Array2<f32>) -> ndarray::Array1<f32> {
    weights.rows().into_iter().map(|row: ArrayView1<'_, f32>| row.first().map_or(0.0, |w| w.abs())).collect()
}

fn different(found: &ArrayRef2<f32>, expected: &ArrayRef2<f32>) -> usize {
    found.iter().zip(expected).filter(|(found, expected)| found != expected).count()
}
