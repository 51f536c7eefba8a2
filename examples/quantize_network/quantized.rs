//! The network in four arithmetics: as it was trained, and quantized in three ways.
//!
//! | | weights | between layers | needs |
//! |---|---|---|---|
//! | float16 | `f16` | `f32` | nothing |
//! | dynamic range | `i8` | `f32`, each layer quantizes its input when it sees it | nothing |
//! | full integer | `i8` | `u8` | a few images, to know the ranges beforehand |

use half::f16;
use ndarray::{Array2, ArrayRef2, Axis, Ix2};
use ndarray_quant::{
    QParams, QTensor, Result, Scheme,
    half::{HalfCast, Overflow},
    nn::{HalfLinear, Linear, Output, PreparedLinear},
    observer::MinMax,
};

use crate::net::{FloatLinear, Network, relu};

/// A network that can be compared with others.
pub(crate) trait Model {
    fn name(&self) -> &'static str;

    /// The bytes of all weights and biases, scales and zero points.
    fn size_in_bytes(&self) -> usize;

    /// The scores of each class, one image per row.
    fn scores(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>>;
}

impl Model for Network {
    fn name(&self) -> &'static str {
        "float32"
    }

    fn size_in_bytes(&self) -> usize {
        self.layers.iter().map(|l| size_of::<f32>() * (l.weight.len() + l.bias.len())).sum()
    }

    fn scores(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        Ok(self.forward(images))
    }
}

/// Weights rounded to half precision. They are widened again to compute in `f32`.
pub(crate) struct Float16 {
    layers: Vec<HalfLinear<f16>>,
}

impl Float16 {
    pub(crate) fn new(float: &Network) -> Result<Self> {
        let cast = HalfCast::<f16>::new(Overflow::Error);
        let layer = |l: &FloatLinear| HalfLinear::new(cast.quantize(&l.weight)?, Some(&l.bias));
        Ok(Self { layers: float.layers.iter().map(layer).collect::<Result<_>>()? })
    }
}

impl Model for Float16 {
    fn name(&self) -> &'static str {
        "float16"
    }

    fn size_in_bytes(&self) -> usize {
        self.layers.iter().map(HalfLinear::size_in_bytes).sum()
    }

    fn scores(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        with_relu_between(&self.layers, images, HalfLinear::forward)
    }
}

/// Weights of a layer as integers: `i8` from -127 to 127, one scale for each output channel.
pub(crate) fn quantize_weights(layer: &FloatLinear) -> Result<QTensor<i8, Ix2>> {
    Scheme::<i8>::symmetric().narrow_range().per_axis(Axis(0)).quantize(&layer.weight)
}

/// The bytes of a layer with integer weights; its bias is four bytes per channel, as `f32` and as `i32`.
fn layer_size(weights: &QTensor<i8, Ix2>, layer: &FloatLinear) -> usize {
    weights.size_in_bytes() + 4 * layer.bias.len()
}

/// Integer weights; each layer takes the range of its input, a whole batch, from the input itself.
pub(crate) struct DynamicRange {
    layers: Vec<Linear>,
    size_in_bytes: usize,
}

impl DynamicRange {
    pub(crate) fn new(float: &Network) -> Result<Self> {
        let mut network = Self { layers: Vec::new(), size_in_bytes: 0 };
        for layer in &float.layers {
            let weights = quantize_weights(layer)?;
            network.size_in_bytes += layer_size(&weights, layer);
            network.layers.push(Linear::new(&weights, Some(&layer.bias))?);
        }
        Ok(network)
    }
}

impl Model for DynamicRange {
    fn name(&self) -> &'static str {
        "dynamic_range"
    }

    fn size_in_bytes(&self) -> usize {
        self.size_in_bytes
    }

    fn scores(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        with_relu_between(&self.layers, images, Linear::forward_dynamic)
    }
}

/// Integers from the first layer to the last: codes in, codes out, and no float instruction between.
pub(crate) struct FullInteger {
    input: QParams<u8>,
    layers: Vec<PreparedLinear<u8, i8, u8>>,
    size_in_bytes: usize,
}

impl FullInteger {
    /// Quantizes to the ranges that `calibration` images have in the float network.
    pub(crate) fn new(float: &Network, calibration: &ArrayRef2<f32>) -> Result<Self> {
        let activations = calibrate(float, calibration)?;
        let mut size_in_bytes = activations.iter().map(QParams::size_in_bytes).sum();
        let mut layers = Vec::new();
        for (i, layer) in float.layers.iter().enumerate() {
            let weights = quantize_weights(layer)?;
            size_in_bytes += layer_size(&weights, layer);

            // The output of each layer is the input of the next.
            let (input, output) = (&activations[i], &activations[i + 1]);
            let mut to = Output::to(output).integer_only();
            if !float.is_last(i) {
                to = to.relu();
            }
            layers.push(Linear::new(&weights, Some(&layer.bias))?.prepare(input, &to)?);
        }
        Ok(Self { input: activations[0].clone(), layers, size_in_bytes })
    }

    /// The parameters of what a layer puts out.
    pub(crate) fn output_params(&self, layer: usize) -> &QParams<u8> {
        self.layers[layer].output()
    }
}

/// The parameters of the input and of each layer's output, from the smallest and greatest values that pass by.
fn calibrate(float: &Network, images: &ArrayRef2<f32>) -> Result<Vec<QParams<u8>>> {
    let mut ranges = vec![MinMax::per_tensor(); 1 + float.layers.len()];
    // In batches, as a data set that does not fit in memory would come.
    for batch in images.axis_chunks_iter(Axis(0), 64) {
        ranges[0].observe(&batch)?;
        for (range, output) in ranges[1..].iter_mut().zip(float.layer_outputs(&batch)) {
            range.observe(&output)?;
        }
    }
    ranges.iter().map(|range| Scheme::<u8>::asymmetric().params(range)).collect()
}

impl Model for FullInteger {
    fn name(&self) -> &'static str {
        "full_integer"
    }

    fn size_in_bytes(&self) -> usize {
        self.size_in_bytes
    }

    fn scores(&self, images: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut x = self.input.quantize(images)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        Ok(x.dequantize())
    }
}

/// Layer after layer, with a ReLU after all but the last.
fn with_relu_between<L>(
    layers: &[L],
    images: &ArrayRef2<f32>,
    forward: impl Fn(&L, &ArrayRef2<f32>) -> Result<Array2<f32>>,
) -> Result<Array2<f32>> {
    let mut x = images.to_owned();
    for (i, layer) in layers.iter().enumerate() {
        if i > 0 {
            relu(&mut x);
        }
        x = forward(layer, &x)?;
    }
    Ok(x)
}
