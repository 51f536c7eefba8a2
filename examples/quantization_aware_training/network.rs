//! The network with few bits: every weight, every activation between layers.
//!
//! Pixels and scores have 8 bits. All weights and the activations between layers have the requested number of bits. A
//! ReLU costs nothing: negative outputs have no code.

use ndarray::{Array, Array2, ArrayD, ArrayRef1, ArrayRef2, Axis, Dimension, Ix2, IxDyn};
use ndarray_quant::{
    Element, Granularity, I2, I4, QParams, QTensor, Result, Scheme, Ternary,
    nn::{Output, PreparedLinear},
    observer::{BlockObserver, MinMax, Statistic},
    qat::{FakeLinear, GradientScale, LearnedQuantizer, LinearPass, SteClipping},
};
use rand::Rng;

use crate::data::Dataset;
use crate::net::{FloatLinear, Network};
use crate::progress::Progress;
use crate::train::{self, LEARNING_RATE, WEIGHT_DECAY, cross_entropy, descend};

/// Learning rate of the logarithms of the scales.
const STEP_RATE: f32 = 2e-3;

/// Codes of the pixels, and of the scores.
const OUTER_BITS: u32 = 8;

/// The width of the weights of all layers and of the activations between them.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Width {
    /// Of weights and activations.
    Bits(u32),
    /// Weights are -1, 0 and 1 times a scale, activations have 8 bits (BitNet b1.58).
    Ternary,
}

impl Width {
    /// The bits of information in a weight.
    pub(crate) fn bits(self) -> f64 {
        match self {
            Width::Bits(bits) => bits.into(),
            Width::Ternary => 1.58,
        }
    }

    fn activation_bits(self) -> u32 {
        match self {
            Width::Bits(bits) => bits,
            Width::Ternary => 8,
        }
    }

    pub(crate) fn name(self) -> String {
        format!("W{}A{}", self.bits(), self.activation_bits())
    }
}

/// A layer and the grids of its weights and of its outputs.
struct Layer {
    linear: FloatLinear,
    /// A scale per output channel. Those of ternary weights follow from the weights.
    weights: LearnedQuantizer<i8>,
    width: Width,
    outputs: LearnedQuantizer<u8>,
}

pub(crate) struct FewBits {
    input: QParams<u8>,
    layers: Vec<Layer>,
}

impl FewBits {
    /// Quantizes a trained network (post-training quantization), with ranges from this observer on the calibration
    /// images.
    pub(crate) fn calibrated<S: Statistic>(
        float: &Network,
        images: &ArrayRef2<f32>,
        width: Width,
        observer: BlockObserver<S>,
    ) -> Result<Self> {
        let outputs = float.layer_outputs(images);
        let layer = |(i, (linear, outputs)): (usize, (&FloatLinear, &Array2<f32>))| {
            let mut range = observer.clone().with_granularity(Granularity::per_axis(Axis(0)));
            range.observe(&linear.weight)?;
            let weights = weight_scheme(width)?.params(&range)?;
            let mut range = observer.clone();
            range.observe(outputs)?;
            let outputs = if float.is_last(i) { scores(outputs)? } else { activation_scheme(width)?.params(&range)? };
            Layer::new(linear, width, LearnedQuantizer::new(weights)?, LearnedQuantizer::new(outputs)?)
        };
        Self::new(float.layers.iter().zip(&outputs).enumerate().map(layer))
    }

    /// Creates a network to train, with scales by LSQ's formula, except those of ternary weights.
    pub(crate) fn with_learned_steps(float: &Network, images: &ArrayRef2<f32>, width: Width) -> Result<Self> {
        let outputs = float.layer_outputs(images);
        let layer = |(i, (linear, outputs)): (usize, (&FloatLinear, &Array2<f32>))| {
            let weights = match width {
                Width::Bits(_) => LearnedQuantizer::lsq(weight_scheme(width)?, &linear.weight)?,
                Width::Ternary => ternary(&linear.weight)?,
            };
            let outputs = if float.is_last(i) {
                LearnedQuantizer::new(scores(outputs)?)?
            } else {
                LearnedQuantizer::lsq(activation_scheme(width)?, outputs)?
            };
            Layer::new(linear, width, weights, outputs)
        };
        Self::new(float.layers.iter().zip(&outputs).enumerate().map(layer))
    }

    fn new(layers: impl Iterator<Item = Result<Layer>>) -> Result<Self> {
        let input = Scheme::<u8>::asymmetric().with_bits(OUTER_BITS)?.params_from_range(0.0, 1.0)?;
        Ok(Self { input, layers: layers.collect::<Result<_>>()? })
    }

    /// The scores of each class, one image per row.
    pub(crate) fn forward(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut passes = self.passes(images)?;
        Ok(passes.pop().map_or_else(|| images.to_owned(), |pass| pass.output().clone()))
    }

    /// Runs every layer and keeps what backpropagation needs.
    fn passes(&self, images: &ArrayRef2<f32>) -> Result<Vec<LinearPass<u8>>> {
        let mut passes: Vec<LinearPass<u8>> = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let x = passes.last().map_or(images, |pass| pass.output());
            passes.push(self.fake(i)?.forward(x, &layer.linear.weight, Some(&layer.linear.bias))?);
        }
        Ok(passes)
    }

    /// Returns layer `i` with the present parameters. Its input parameters are the output parameters of the layer before.
    fn fake(&self, i: usize) -> Result<FakeLinear<u8, i8, u8>> {
        let input = if i == 0 { &self.input } else { self.layers[i - 1].outputs.params() };
        let layer = &self.layers[i];
        let fake = FakeLinear::new(input, layer.weights.as_fake_quantize(), &Output::to(layer.outputs.params()))?;
        Ok(fake.with_output_clipping(SteClipping::Unrounded))
    }

    /// Returns the integer network. It computes the same codes as [`Self::forward`].
    fn to_integer(&self) -> Result<Vec<PreparedLinear<u8, i8, u8>>> {
        let layers = self.layers.iter().enumerate();
        layers.map(|(i, layer)| self.fake(i)?.to_integer(&layer.linear.weight, Some(&layer.linear.bias))).collect()
    }

    /// Counts the codes, over all layers and images, that differ in the integer network.
    pub(crate) fn codes_that_differ_in_integers(&self, data: &Dataset) -> Result<usize> {
        let integer = self.to_integer()?;
        let mut differ = 0;
        for images in data.batches(256) {
            let mut x = self.input.quantize(&images)?;
            for (layer, pass) in integer.iter().zip(self.passes(&images)?) {
                x = layer.forward(&x)?;
                differ += x.codes().iter().zip(pass.codes()).filter(|(integer, fake)| integer != fake).count();
            }
        }
        Ok(differ)
    }

    /// Returns the size of packed weights, their scales, and biases, in bytes.
    pub(crate) fn size_in_bytes(&self) -> Result<usize> {
        let mut bytes = 0;
        for Layer { linear, weights, width, .. } in &self.layers {
            let weights = weights.params().quantize(&linear.weight)?;
            bytes += size_of::<f32>() * linear.bias.len();
            bytes += match width {
                Width::Bits(2) | Width::Ternary => packed_size::<I2>(&weights)?,
                Width::Bits(3 | 4) => packed_size::<I4>(&weights)?,
                Width::Bits(_) => weights.size_in_bytes(),
            };
        }
        Ok(bytes)
    }

    /// Trains weights, biases and scales together. The progress advances by one per epoch.
    pub(crate) fn train(
        &mut self,
        data: &Dataset,
        epochs: usize,
        progress: &mut Progress,
        rng: &mut impl Rng,
    ) -> Result<()> {
        let mut states: Vec<State> = self.layers.iter().map(State::new).collect();
        let mut step = 0;
        train::steps(data, epochs, progress, rng, |images, labels, left| {
            step += 1;
            self.step(images, labels, &mut states, step, left)
        })
    }

    /// Trains on one batch: forward pass, backward pass, a step of Adam. Returns the loss.
    fn step(
        &mut self,
        images: &ArrayRef2<f32>,
        labels: &ArrayRef1<usize>,
        states: &mut [State],
        step: i32,
        rate: f32,
    ) -> Result<f32> {
        let passes = self.passes(images)?;
        let Some(last) = passes.last() else { return Ok(0.0) };
        let (loss, mut grad) = cross_entropy(last.output().clone(), labels);
        for i in (0..self.layers.len()).rev() {
            let x = if i == 0 { images } else { passes[i - 1].output() };
            let fake = self.fake(i)?;
            let layer = &mut self.layers[i];
            let gradients = fake.backward(x, &layer.linear.weight, &passes[i], &grad)?;
            let (state, rates) = (&mut states[i], (LEARNING_RATE * rate, STEP_RATE * rate));
            layer.linear.weight *= 1.0 - rates.0 * WEIGHT_DECAY;
            state.weight.descend(step, rates.0, &mut layer.linear.weight, &gradients.weights.input);
            state.bias.descend(step, rates.0, &mut layer.linear.bias, &gradients.bias);
            match layer.width {
                Width::Bits(_) => {
                    state.weight_step.descend_scales(step, rates.1, &mut layer.weights, &gradients.weights.scale)?;
                }
                Width::Ternary => layer.weights = ternary(&layer.linear.weight)?,
            }
            let by_output = ArrayD::from_elem(&[][..], gradients.output_scale);
            state.output_step.descend_scales(step, rates.1, &mut layer.outputs, &by_output)?;
            grad = gradients.input;
        }
        Ok(loss)
    }
}

impl Layer {
    fn new(
        linear: &FloatLinear,
        width: Width,
        weights: LearnedQuantizer<i8>,
        outputs: LearnedQuantizer<u8>,
    ) -> Result<Self> {
        let features = GradientScale::Activations(linear.bias.len());
        Ok(Layer { linear: linear.clone(), weights, width, outputs: outputs.with_gradient_scale(features) })
    }
}

fn weight_scheme(width: Width) -> Result<Scheme<i8>> {
    let scheme = Scheme::symmetric().per_axis(Axis(0));
    match width {
        Width::Bits(bits) => scheme.with_bits(bits),
        Width::Ternary => scheme.with_code_range(-1, 1),
    }
}

/// Ternary weights by their mean magnitudes, with codes that fit the layers. Every gradient passes.
fn ternary(weights: &Array2<f32>) -> Result<LearnedQuantizer<i8>> {
    let params = Ternary::absmean().per_axis(Axis(0)).params_of(weights)?;
    let params = QParams::new(params.granularity(), params.scale().clone(), None)?.with_code_range(-1, 1)?;
    Ok(LearnedQuantizer::new(params)?.with_clipping(SteClipping::Never))
}

/// Returns the size of codes of fewer bits with their scales.
fn packed_size<T: Element<Code = i8>>(weights: &QTensor<i8, Ix2>) -> Result<usize> {
    let params = QParams::<T>::new(weights.params().granularity(), weights.params().scale().clone(), None)?;
    Ok(QTensor::from_codes(weights.codes().clone(), params)?.size_in_bytes())
}

/// The scheme of activations after a ReLU: from 0 on.
fn activation_scheme(width: Width) -> Result<Scheme<u8>> {
    Scheme::asymmetric().with_bits(width.activation_bits())
}

/// The scheme of scores, which have both signs.
fn scores(outputs: &ArrayRef2<f32>) -> Result<QParams<u8>> {
    let mut range = MinMax::per_tensor();
    range.observe(outputs)?;
    Scheme::symmetric().with_bits(OUTER_BITS)?.params(&range)
}

/// Adam's state for one layer.
struct State {
    weight: Moments<Ix2>,
    bias: Moments<ndarray::Ix1>,
    weight_step: Moments<IxDyn>,
    output_step: Moments<IxDyn>,
}

impl State {
    fn new(layer: &Layer) -> Self {
        State {
            weight: Moments::new(layer.linear.weight.raw_dim()),
            bias: Moments::new(layer.linear.bias.raw_dim()),
            weight_step: Moments::new(layer.weights.scale().raw_dim()),
            output_step: Moments::new(layer.outputs.scale().raw_dim()),
        }
    }
}

/// Running means of a gradient and of its square.
struct Moments<D: Dimension> {
    mean: Array<f32, D>,
    square: Array<f32, D>,
}

impl<D: Dimension> Moments<D> {
    fn new(dim: D) -> Self {
        Moments { mean: Array::zeros(dim.clone()), square: Array::zeros(dim) }
    }

    fn descend(&mut self, step: i32, rate: f32, x: &mut Array<f32, D>, grad: &Array<f32, D>) {
        descend(step, rate, x, grad, &mut self.mean, &mut self.square);
    }
}

impl Moments<IxDyn> {
    /// Runs [`Self::descend`] on the logarithms of the scales. The gradient by a logarithm is the gradient by the scale,
    /// times the scale.
    fn descend_scales<T: Element>(
        &mut self,
        step: i32,
        rate: f32,
        quantizer: &mut LearnedQuantizer<T>,
        grad: &ArrayD<f32>,
    ) -> Result<()> {
        let scale = quantizer.scale();
        let mut change = Array::zeros(scale.raw_dim());
        self.descend(step, rate, &mut change, &(grad * scale));
        let proposed = scale * &change.mapv(f32::exp);
        quantizer.set_scale(&proposed)
    }
}
