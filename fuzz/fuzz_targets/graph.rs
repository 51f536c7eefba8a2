//! Graphs that are built node by node, with attributes that fit and that do not.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ndarray::{ArrayD, IxDyn};
use ndarray_quant::graph::{Activation, Clamp, GraphBuilder, Op, TensorId, op};
use ndarray_quant::nn::{Padding, Window};

mod network;

/// A small number, or one that overflows.
#[derive(Arbitrary, Debug, Clone, Copy)]
struct Number(u8);

impl From<Number> for usize {
    fn from(number: Number) -> usize {
        match number.0 {
            byte @ 0..240 => usize::from(byte % 12),
            byte => [usize::MAX, isize::MAX as usize, 1 << 63, 1 << 32, u32::MAX as usize, 1 << 31, 1 << 16, 255]
                [usize::from(byte % 8)],
        }
    }
}

fn numbers(numbers: &[Number]) -> Vec<usize> {
    numbers.iter().take(6).map(|&x| x.into()).collect()
}

fn pair(x: [Number; 2]) -> [usize; 2] {
    x.map(usize::from)
}

#[derive(Arbitrary, Debug)]
struct Geometry {
    strides: [Number; 2],
    dilations: [Number; 2],
    padding: Option<[Number; 4]>,
    ceil: bool,
}

impl Geometry {
    fn window(&self) -> Window {
        let padding = self.padding.map_or(Padding::Same, |pads| Padding::Explicit(pads.map(usize::from)));
        let window = Window::new().with_strides(pair(self.strides)).with_dilations(pair(self.dilations));
        window.with_padding(padding).with_ceil_mode(self.ceil)
    }
}

#[derive(Arbitrary, Debug)]
enum Operator {
    Conv(Geometry, Number),
    Linear,
    MatMul,
    Where,
    Binary(u8),
    Function(u8, f32),
    Clip(Option<f32>, Option<f32>),
    MaxPool([Number; 2], Geometry),
    AveragePool([Number; 2], Geometry, bool),
    GlobalAveragePool,
    Reduce(u8, Vec<Number>),
    Concat(Number),
    Pad([Number; 4]),
    Resize([Number; 2]),
    Reshape(Vec<Number>),
    Transpose(Vec<Number>),
    Slice(Number, Number, Number, i8),
    Gather(Number, Vec<Number>),
    Embedding,
    Expand(Vec<Number>),
    DepthToSpace([Number; 2], Number),
    SpaceToDepth([Number; 2]),
    Softmax(Number),
    LogSoftmax(Number),
    BatchNorm(f32),
    LayerNorm(f32),
}

impl Operator {
    fn op(&self) -> Op {
        use op::{Binary, Reduction};
        const BINARY: [Binary; 8] =
            [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow, Binary::Max, Binary::Min, Binary::Equal];
        const REDUCTIONS: [Reduction; 5] =
            [Reduction::Mean, Reduction::Sum, Reduction::Prod, Reduction::Max, Reduction::Min];
        match self {
            Operator::Conv(geometry, groups) => op::Conv { window: geometry.window(), groups: (*groups).into() }.into(),
            Operator::Linear => op::Linear.into(),
            Operator::MatMul => op::MatMul.into(),
            Operator::Where => op::Where.into(),
            Operator::Binary(at) => BINARY[usize::from(*at) % BINARY.len()].into(),
            Operator::Function(at, alpha) => {
                let functions = [
                    Activation::Sigmoid,
                    Activation::Tanh,
                    Activation::HardSwish,
                    Activation::LeakyRelu { alpha: *alpha },
                    Activation::Silu,
                    Activation::Abs,
                    Activation::Elu { alpha: *alpha },
                    Activation::Erf,
                    Activation::Exp,
                    Activation::Gelu,
                    Activation::Log,
                    Activation::Neg,
                    Activation::Reciprocal,
                    Activation::Round,
                    Activation::Sqrt,
                ];
                functions[usize::from(*at) % functions.len()].into()
            }
            Operator::Clip(low, high) => Activation::Clip(Clamp { low: *low, high: *high }).into(),
            Operator::MaxPool(kernel, geometry) => {
                op::MaxPool { kernel: pair(*kernel), window: geometry.window() }.into()
            }
            Operator::AveragePool(kernel, geometry, include) => {
                let (kernel, window) = (pair(*kernel), geometry.window());
                op::AveragePool { kernel, window, count_include_pad: *include }.into()
            }
            Operator::GlobalAveragePool => op::GlobalAveragePool.into(),
            Operator::Reduce(at, axes) => {
                let reduction = REDUCTIONS[usize::from(*at) % REDUCTIONS.len()];
                op::Reduce { reduction, axes: numbers(axes) }.into()
            }
            Operator::Concat(axis) => op::Concat { axis: (*axis).into() }.into(),
            Operator::Pad(pads) => op::Pad { pads: pads.map(usize::from) }.into(),
            Operator::Resize(scales) => op::Resize { scales: pair(*scales) }.into(),
            Operator::Reshape(shape) => op::Reshape { shape: numbers(shape) }.into(),
            Operator::Transpose(perm) => op::Transpose { perm: numbers(perm) }.into(),
            Operator::Slice(axis, start, count, step) => {
                let [axis, start, count] = [*axis, *start, *count].map(usize::from);
                op::Slice { axis, start, count, step: (*step).into() }.into()
            }
            Operator::Gather(axis, indices) => op::Gather { axis: (*axis).into(), indices: numbers(indices) }.into(),
            Operator::Embedding => op::Embedding.into(),
            Operator::Expand(shape) => op::Expand { shape: numbers(shape) }.into(),
            Operator::DepthToSpace(block, groups) => {
                op::DepthToSpace { block: pair(*block), groups: (*groups).into() }.into()
            }
            Operator::SpaceToDepth(block) => op::SpaceToDepth { block: pair(*block) }.into(),
            Operator::Softmax(axis) => op::Softmax { axis: (*axis).into() }.into(),
            Operator::LogSoftmax(axis) => op::LogSoftmax { axis: (*axis).into() }.into(),
            Operator::BatchNorm(epsilon) => op::BatchNorm { epsilon: *epsilon }.into(),
            Operator::LayerNorm(epsilon) => op::LayerNorm { epsilon: *epsilon }.into(),
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Constant {
    shape: Vec<u8>,
    first: f32,
    step: i8,
}

impl Constant {
    fn array(&self) -> ArrayD<f32> {
        let shape: Vec<usize> = self.shape.iter().take(5).map(|len| usize::from(len % 9)).collect();
        let len = shape.iter().product::<usize>();
        let (len, shape) = if len > 1 << 12 { (1, vec![]) } else { (len, shape) };
        let value = |i: usize| if i == 0 { self.first } else { (i % 13) as f32 * f32::from(self.step) / 32.0 };
        ArrayD::from_shape_vec(IxDyn(&shape), (0..len).map(value).collect()).expect("a shape")
    }
}

#[derive(Arbitrary, Debug)]
struct Node {
    op: Operator,
    inputs: Vec<u8>,
    /// Constants that follow the inputs: weights.
    weights: Vec<Constant>,
}

#[derive(Arbitrary, Debug)]
struct Network {
    shape: Vec<Number>,
    constants: Vec<Constant>,
    nodes: Vec<Node>,
    outputs: Vec<u8>,
}

fuzz_target!(|network: Network| {
    let mut g = GraphBuilder::new();
    let shape: Vec<usize> = std::iter::once(1).chain(numbers(&network.shape)).collect();
    let Ok(x) = g.input("x", &shape) else { return };
    let mut tensors: Vec<TensorId> = vec![x];
    for (i, constant) in network.constants.iter().take(6).enumerate() {
        tensors.extend(g.constant(&format!("c{i}"), &constant.array()));
    }
    for (i, node) in network.nodes.iter().take(12).enumerate() {
        let mut inputs: Vec<TensorId> =
            node.inputs.iter().take(5).map(|&at| tensors[usize::from(at) % tensors.len()]).collect();
        for (j, weights) in node.weights.iter().take(4).enumerate() {
            inputs.extend(g.constant(&format!("w{i}_{j}"), &weights.array()));
        }
        tensors.extend(g.node(&format!("n{i}"), node.op.op(), &inputs));
    }
    let last = tensors[tensors.len() - 1];
    let outputs = network.outputs.iter().take(2).map(|&at| tensors[usize::from(at) % tensors.len()]);
    let outputs: Vec<TensorId> = std::iter::once(last).chain(outputs).collect();
    if let Ok(graph) = g.build(&outputs) {
        network::check(graph);
    }
});
