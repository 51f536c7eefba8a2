//! Training: cross-entropy, gradients by hand, Adam with decoupled weight decay.

use std::convert::Infallible;

use ndarray::{Array, Array1, Array2, ArrayRef1, ArrayRef2, Axis, Dimension, Zip};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::data::Dataset;
use crate::net::{FloatLinear, Network};
use crate::progress::Progress;

const BATCH: usize = 50;
pub(crate) const LEARNING_RATE: f32 = 1e-3;
pub(crate) const WEIGHT_DECAY: f32 = 0.1;

/// Trains the network in place. The progress advances by one each epoch. The same `rng` gives the same weights.
pub(crate) fn train(network: &mut Network, data: &Dataset, epochs: usize, progress: &mut Progress, rng: &mut impl Rng) {
    let mut adam = Adam::new(&network.layers);
    let Ok(()) = steps(data, epochs, progress, rng, |images, labels, left| {
        let (loss, gradients) = gradients(network, images, labels);
        adam.update(&mut network.layers, &gradients, LEARNING_RATE * left);
        Ok::<_, Infallible>(loss)
    });
}

/// Calls `step` with each batch of images and labels, in another order each epoch, and with the share of all steps that is
/// left: rates that fall to zero along a straight line let the last steps settle. It returns the mean loss of the batch.
pub(crate) fn steps<E>(
    data: &Dataset,
    epochs: usize,
    progress: &mut Progress,
    rng: &mut impl Rng,
    mut step: impl FnMut(&Array2<f32>, &Array1<usize>, f32) -> Result<f32, E>,
) -> Result<(), E> {
    let mut order: Vec<usize> = (0..data.len()).collect();
    let (all, mut done) = (epochs * data.len().div_ceil(BATCH), 0);
    for _ in 0..epochs {
        order.shuffle(rng);
        let mut loss = 0.0;
        for batch in order.chunks(BATCH) {
            let images = data.images.select(Axis(0), batch);
            let labels = data.labels.select(Axis(0), batch);
            loss += step(&images, &labels, 1.0 - done as f32 / all as f32)? * batch.len() as f32;
            done += 1;
        }
        progress.advance(1, &format!("loss {:.3}", loss / data.len() as f32));
    }
    Ok(())
}

/// The mean loss of a batch, and its derivative by every weight and bias.
fn gradients(network: &Network, images: &ArrayRef2<f32>, labels: &ArrayRef1<usize>) -> (f32, Vec<FloatLinear>) {
    let mut outputs = network.layer_outputs(images);
    let mut gradients = Vec::with_capacity(network.layers.len());
    let Some(scores) = outputs.pop() else { return (0.0, gradients) };
    let (loss, mut grad) = cross_entropy(scores, labels);
    for layer in network.layers.iter().rev() {
        let input = outputs.pop();
        let x = input.as_deref().unwrap_or(images);
        gradients.push(FloatLinear { weight: grad.t().dot(x), bias: grad.sum_axis(Axis(0)) });
        if let Some(x) = &input {
            grad = grad.dot(&layer.weight);
            // A ReLU passes the gradient where it passed the value.
            Zip::from(&mut grad).and(x).for_each(|g, &x| *g = if x > 0.0 { *g } else { 0.0 });
        }
    }
    gradients.reverse();
    (loss, gradients)
}

/// The mean of `-ln softmax(scores)[label]`, and its derivative by the scores.
pub(crate) fn cross_entropy(mut scores: Array2<f32>, labels: &ArrayRef1<usize>) -> (f32, Array2<f32>) {
    let batch = labels.len() as f32;
    let mut loss = 0.0;
    for (mut row, &label) in scores.rows_mut().into_iter().zip(labels) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.mapv_inplace(|x| (x - max).exp());
        row /= row.sum();
        loss -= row[label].max(f32::MIN_POSITIVE).ln() / batch;
        row[label] -= 1.0;
        row /= batch;
    }
    (loss, scores)
}

/// Adam (Kingma and Ba 2015), with the weight decay of AdamW.
pub(crate) struct Adam {
    step: i32,
    /// Running means of the gradient and of its square, layer by layer.
    mean: Vec<FloatLinear>,
    square: Vec<FloatLinear>,
}

impl Adam {
    pub(crate) fn new(layers: &[FloatLinear]) -> Self {
        let zeros = |l: &FloatLinear| FloatLinear {
            weight: Array2::zeros(l.weight.raw_dim()), //
            bias: Array1::zeros(l.bias.len()),
        };
        let state: Vec<FloatLinear> = layers.iter().map(zeros).collect();
        Adam { step: 0, mean: state.clone(), square: state }
    }

    pub(crate) fn update(&mut self, layers: &mut [FloatLinear], gradients: &[FloatLinear], rate: f32) {
        self.step += 1;
        let state = self.mean.iter_mut().zip(&mut self.square);
        for ((layer, grad), (mean, square)) in layers.iter_mut().zip(gradients).zip(state) {
            layer.weight *= 1.0 - rate * WEIGHT_DECAY;
            descend(self.step, rate, &mut layer.weight, &grad.weight, &mut mean.weight, &mut square.weight);
            descend(self.step, rate, &mut layer.bias, &grad.bias, &mut mean.bias, &mut square.bias);
        }
    }
}

/// One step of Adam for one tensor.
pub(crate) fn descend<D: Dimension>(
    step: i32,
    rate: f32,
    x: &mut Array<f32, D>,
    grad: &Array<f32, D>,
    mean: &mut Array<f32, D>,
    square: &mut Array<f32, D>,
) {
    const BETA: (f32, f32) = (0.9, 0.999);
    // The running means start at zero; this takes that bias out.
    let (mean_weight, square_weight) = (1.0 - BETA.0.powi(step), 1.0 - BETA.1.powi(step));
    Zip::from(x).and(grad).and(mean).and(square).for_each(|x, &g, m, v| {
        *m = BETA.0 * *m + (1.0 - BETA.0) * g;
        *v = BETA.1 * *v + (1.0 - BETA.1) * g * g;
        *x -= rate * (*m / mean_weight) / ((*v / square_weight).sqrt() + 1e-8);
    });
}
