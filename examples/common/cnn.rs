//! A small convolutional network, trained here: two convolutions of stride 2 and a linear layer.

use std::convert::Infallible;

use ndarray::{Array1, Array2, Array4, ArrayView2, Axis, Zip};
use ndarray_quant::graph::{Graph, GraphBuilder};
use ndarray_quant::nn::Window;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::data::{CLASSES, Dataset};
use crate::net::FloatLinear;
use crate::program::Result;
use crate::progress::Progress;
use crate::train::{self, Adam, LEARNING_RATE, cross_entropy};

/// Seed of all random numbers, so that every run gives the same network.
const SEED: u64 = 15;
const EPOCHS: usize = 10;

/// Height and width of an image, and of the outputs of the two convolutions.
const SIZES: [usize; 3] = [14, 7, 4];
/// Their channels.
const CHANNELS: [usize; 3] = [1, 16, 32];

pub(crate) struct Cnn {
    /// Two convolutions as products with im2col, and the linear layer.
    pub(crate) layers: Vec<FloatLinear>,
}

/// Images of one row each as a graph reads them.
pub(crate) fn images(x: ArrayView2<f32>) -> Array4<f32> {
    Array4::from_shape_fn((x.nrows(), 1, SIZES[0], SIZES[0]), |(n, _, y, i)| x[[n, y * SIZES[0] + i]])
}

impl Cnn {
    fn new(rng: &mut impl Rng) -> Self {
        let depth = [9 * CHANNELS[0], 9 * CHANNELS[1], SIZES[2] * SIZES[2] * CHANNELS[2]];
        let layer = |(depth, out)| FloatLinear::new(depth, out, rng);
        Self { layers: depth.into_iter().zip([CHANNELS[1], CHANNELS[2], CLASSES]).map(layer).collect() }
    }

    pub(crate) fn trained(data: &Dataset) -> Self {
        let rng = &mut Pcg64Mcg::seed_from_u64(SEED);
        let mut network = Self::new(rng);
        let mut adam = Adam::new(&network.layers);
        let mut progress = Progress::new("training", EPOCHS);
        let Ok(()) = train::steps(data, EPOCHS, &mut progress, rng, |images, labels, left| {
            let (loss, gradients) = network.gradients(images.view(), labels);
            adam.update(&mut network.layers, &gradients, 3.0 * LEARNING_RATE * left);
            Ok::<_, Infallible>(loss)
        });
        progress.clear();
        network
    }

    pub(crate) fn graph(&self) -> Result<Graph> {
        let mut g = GraphBuilder::new();
        let mut x = g.input("image", &[1, 1, SIZES[0], SIZES[0]])?;
        for (i, layer) in self.layers[..2].iter().enumerate() {
            // Rows are [height, width, channel], weights of a graph [out, channel, height, width].
            let shape = (CHANNELS[i + 1], 3, 3, CHANNELS[i]);
            let weights = layer.weight.to_shape(shape)?.permuted_axes([0, 3, 1, 2]).to_owned();
            let window = Window::new().with_strides([2, 2]).with_padding(1);
            x = g.conv(&format!("conv{}", i + 1), x, &weights, Some(&layer.bias), window, 1)?;
            x = g.relu(&format!("relu{}", i + 1), x)?;
        }
        let x = g.flatten("features", x)?;
        // Features are [height, width, channel] here, and [channel, height, width] in the graph.
        let [size, channels] = [SIZES[2], CHANNELS[2]];
        let last = &self.layers[2];
        let weights = last.weight.to_shape((CLASSES, size, size, channels))?.permuted_axes([0, 3, 1, 2]).to_owned();
        let weights = weights.to_shape((CLASSES, size * size * channels))?.to_owned();
        let y = g.linear("scores", x, &weights, Some(&last.bias))?;
        Ok(g.build(&[y])?)
    }

    /// Returns the im2col matrix of each convolution and the linear layer's input, and the scores.
    pub(crate) fn forward(&self, images: ArrayView2<f32>) -> (Vec<Array2<f32>>, Array2<f32>) {
        let mut x = images.to_owned();
        let mut read = Vec::new();
        for (i, layer) in self.layers[..2].iter().enumerate() {
            let im2col = gather(&x, i);
            let mut y = im2col.dot(&layer.weight.t()) + &layer.bias;
            y.mapv_inplace(|y| y.max(0.0));
            read.push(im2col);
            let features = SIZES[i + 1] * SIZES[i + 1] * CHANNELS[i + 1];
            x = y.into_shape_with_order((images.nrows(), features)).expect("one row of pixels for each image");
        }
        let scores = x.dot(&self.layers[2].weight.t()) + &self.layers[2].bias;
        read.push(x);
        (read, scores)
    }

    fn gradients(&self, images: ArrayView2<f32>, labels: &Array1<usize>) -> (f32, Vec<FloatLinear>) {
        let (read, scores) = self.forward(images);
        let (loss, mut grad) = cross_entropy(scores, labels);
        let mut gradients = Vec::new();
        for i in (0..3).rev() {
            gradients.push(FloatLinear { weight: grad.t().dot(&read[i]), bias: grad.sum_axis(Axis(0)) });
            if i == 0 {
                break;
            }
            let by_read = grad.dot(&self.layers[i].weight);
            let (size, channels) = (SIZES[i], CHANNELS[i]);
            let features = size * size * channels;
            let by_features = if i == 2 { by_read } else { scatter(&by_read, i, images.nrows()) };
            grad = by_features.into_shape_with_order((images.nrows() * size * size, channels)).expect("rows of pixels");
            // A ReLU passes the gradient where it passed the value.
            let outputs = if i == 2 { read[2].clone() } else { self.first_outputs(&read[0], images.nrows(), features) };
            let outputs = outputs.into_shape_with_order(grad.raw_dim()).expect("of the same size");
            Zip::from(&mut grad).and(&outputs).for_each(|g, &y| *g = if y > 0.0 { *g } else { 0.0 });
        }
        gradients.reverse();
        (loss, gradients)
    }

    fn first_outputs(&self, im2col: &Array2<f32>, images: usize, features: usize) -> Array2<f32> {
        let y = im2col.dot(&self.layers[0].weight.t()) + &self.layers[0].bias;
        y.into_shape_with_order((images, features)).expect("one row of pixels for each image")
    }

    pub(crate) fn accuracy(&self, data: &Dataset) -> f64 {
        let scores = self.forward(data.images.view()).1;
        let right = crate::net::predictions(&scores).zip(&data.labels).filter(|(found, label)| found == *label).count();
        right as f64 / data.len() as f64
    }
}

/// Calls `f` for every element of an image's im2col matrix in convolution `i` that is not padding: with its row and
/// column, and with its position in the image.
fn each_element(i: usize, mut f: impl FnMut((usize, usize), usize)) {
    let (size, channels, out) = (SIZES[i], CHANNELS[i], SIZES[i + 1]);
    for (y, x, ky, kx) in ndarray::indices((out, out, 3, 3)) {
        let (row, column) = ((2 * y + ky).wrapping_sub(1), (2 * x + kx).wrapping_sub(1));
        if row < size && column < size {
            for c in 0..channels {
                f((y * out + x, (ky * 3 + kx) * channels + c), (row * size + column) * channels + c);
            }
        }
    }
}

/// The 3×3 im2col of images, one to a row.
fn gather(images: &Array2<f32>, i: usize) -> Array2<f32> {
    let pixels = SIZES[i + 1] * SIZES[i + 1];
    let mut im2col = Array2::zeros((images.nrows() * pixels, 9 * CHANNELS[i]));
    for (n, image) in images.outer_iter().enumerate() {
        each_element(i, |(row, column), from| im2col[[n * pixels + row, column]] = image[from]);
    }
    im2col
}

/// Adds the elements of im2col matrices to the elements of the images that they were read from (col2im).
fn scatter(im2col: &Array2<f32>, i: usize, images: usize) -> Array2<f32> {
    let pixels = SIZES[i + 1] * SIZES[i + 1];
    let mut sums = Array2::zeros((images, SIZES[i] * SIZES[i] * CHANNELS[i]));
    for (n, mut image) in sums.outer_iter_mut().enumerate() {
        each_element(i, |(row, column), to| image[to] += im2col[[n * pixels + row, column]]);
    }
    sums
}
