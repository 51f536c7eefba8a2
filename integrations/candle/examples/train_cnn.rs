//! Trains a small convolutional network with 4-bit weights and activations, with candle's autograd and optimizer.
//!
//! ```text
//! cargo run --release --example train_cnn
//! ```

use candle_core::{D, Device, Module, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};
use indicatif::ProgressBar;
use ndarray::Axis;
use ndarray_quant::{Scheme, qat::GradientScale};
use ndarray_quant_candle::Learned;

const BITS: u32 = 4;
const EPOCHS: usize = 10;
const LEARNING_RATE: f64 = 6e-3;
const BATCH: usize = 64;
const SIDE: usize = 14;
const TRAIN: usize = 6000;

/// Fashion-MNIST at 14×14 pixels, see `examples/data/README.md` of ndarray-quant.
static IMAGES: &[u8] = include_bytes!("../../../examples/data/fashion14_x.u8");
static LABELS: &[u8] = include_bytes!("../../../examples/data/fashion14_y.u8");

/// Weights with a learned scale per output channel, and a bias.
struct Weights {
    weight: Var,
    bias: Var,
    quantizer: Learned<i8>,
}

impl Weights {
    fn new(shape: &[usize]) -> Result<Self> {
        let inputs: usize = shape[1..].iter().product();
        let weight = Var::from_tensor(&Tensor::randn(0f32, (2.0 / inputs as f32).sqrt(), shape, &Device::Cpu)?)?;
        let bias = Var::zeros(shape[0], candle_core::DType::F32, &Device::Cpu)?;
        let scheme = Scheme::symmetric().with_bits(BITS).map_err(candle_core::Error::wrap)?.per_axis(Axis(0));
        let quantizer = Learned::lsq(scheme, &weight)?;
        Ok(Self { weight, bias, quantizer })
    }

    /// The fake-quantized weights.
    fn rounded(&self) -> Result<Tensor> {
        self.quantizer.forward(&self.weight)
    }
}

/// Two convolutions and a linear layer; activations after a ReLU are quantized to unsigned codes.
struct Network {
    weights: [Weights; 3],
    activations: [Learned<u8>; 2],
}

impl Network {
    fn new(images: &Tensor) -> Result<Self> {
        let weights = [Weights::new(&[16, 1, 3, 3])?, Weights::new(&[32, 16, 3, 3])?, Weights::new(&[10, 32 * 9])?];
        let scheme = Scheme::asymmetric().with_bits(BITS).map_err(candle_core::Error::wrap)?;
        // The scales are initialized from the outputs of the untrained network, and learned from then on.
        let (first, features) = (convolve(images, &weights[0])?, [16 * 49, 32 * 9]);
        let second = convolve(&first.max_pool2d(2)?, &weights[1])?;
        let learned = |x: &Tensor, n| Ok(Learned::lsq(scheme, x)?.with_gradient_scale(GradientScale::Activations(n)));
        let activations: [Result<Learned<u8>>; 2] = [learned(&first, features[0]), learned(&second, features[1])];
        let [first, second] = activations;
        Ok(Self { weights, activations: [first?, second?] })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.activations[0].forward(&convolve(images, &self.weights[0])?)?.max_pool2d(2)?;
        let x = self.activations[1].forward(&convolve(&x, &self.weights[1])?)?.max_pool2d(2)?;
        let last = &self.weights[2];
        candle_nn::Linear::new(last.rounded()?, Some(last.bias.as_tensor().clone())).forward(&x.flatten_from(1)?)
    }

    fn variables(&self) -> Vec<Var> {
        let weights = self.weights.iter().flat_map(|w| [&w.weight, &w.bias, w.quantizer.scale()]);
        weights.chain(self.activations.iter().map(Learned::scale)).cloned().collect()
    }

    /// Projects all scales after an optimizer step, so that they stay positive and finite.
    fn project(&self) -> Result<()> {
        self.weights.iter().try_for_each(|w| w.quantizer.project())?;
        self.activations.iter().try_for_each(Learned::project)
    }
}

fn convolve(x: &Tensor, weights: &Weights) -> Result<Tensor> {
    x.conv2d(&weights.rounded()?, 1, 1, 1, 1)?.broadcast_add(&weights.bias.reshape((1, (), 1, 1))?)?.relu()
}

fn main() -> Result<()> {
    let pixels: Vec<f32> = IMAGES.iter().map(|&p| p as f32 / 255.0).collect();
    let images = Tensor::from_vec(pixels, (LABELS.len(), 1, SIDE, SIDE), &Device::Cpu)?;
    let labels = Tensor::from_vec(LABELS.iter().map(|&l| l as u32).collect(), LABELS.len(), &Device::Cpu)?;
    let (test, test_labels) =
        (images.narrow(0, TRAIN, LABELS.len() - TRAIN)?, labels.narrow(0, TRAIN, LABELS.len() - TRAIN)?);

    let network = Network::new(&images.narrow(0, 0, 256)?)?;
    let mut optimizer = AdamW::new(network.variables(), ParamsAdamW { lr: LEARNING_RATE, ..Default::default() })?;
    let batches = TRAIN / BATCH;
    let bar = ProgressBar::new((EPOCHS * batches) as u64);
    for step in 0..EPOCHS * batches {
        let start = step % batches * BATCH;
        let scores = network.forward(&images.narrow(0, start, BATCH)?)?;
        let loss = loss::cross_entropy(&scores, &labels.narrow(0, start, BATCH)?)?;
        optimizer.set_learning_rate(LEARNING_RATE * (1.0 - step as f64 / (EPOCHS * batches) as f64));
        optimizer.backward_step(&loss)?;
        network.project()?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let right = network.forward(&test)?.argmax(D::Minus1)?.eq(&test_labels)?.to_dtype(candle_core::DType::F32)?;
    let accuracy = right.mean_all()?.to_scalar::<f32>()?;
    println!("W{BITS}A{BITS}: {:.2}% of {} test images", 100.0 * accuracy, LABELS.len() - TRAIN);
    if accuracy < 0.8 {
        return Err(candle_core::Error::Msg(format!("expected an accuracy of at least 80%, found {accuracy}")));
    }
    Ok(())
}
