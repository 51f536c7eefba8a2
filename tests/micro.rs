//! Models for microcontrollers: the codes of the network, the memory they say, and bytes that are no model.

use ndarray::{Array, Array1, Array4, ArrayD, IxDyn, array};
use ndarray_quant::Error;
use ndarray_quant::error::GraphError;
use ndarray_quant::graph::{
    Activation, Arena, CalibrationMethod, Graph, GraphBuilder, Precision, QuantizedNetwork, Recipe, TensorId, op,
};
use ndarray_quant::micro::{Model, ModelBuf, ModelError, Sizes};
use ndarray_quant::nn::{Padding, Window};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Quantizes a network of one input so that all of it computes on codes.
fn full_integer(graph: &Graph, rng: &mut impl Rng) -> QuantizedNetwork {
    let shape = graph.inputs().next().and_then(|name| graph.shape(name)).unwrap().to_vec();
    let samples = Array::from_shape_simple_fn([&[8], &shape[1..]].concat(), || rng.random_range(-1.0f32..1.5));
    let mut recipe = graph.calibrate([samples.view()]).unwrap().recipe(graph, CalibrationMethod::MinMax).unwrap();
    for output in graph.outputs() {
        recipe.tensor_mut(output).unwrap().precision = Precision::Int8;
    }
    graph.quantize(&recipe).unwrap()
}

/// The codes of a tensor in the order of models.
fn in_order(x: &ArrayD<u8>) -> Vec<u8> {
    match x.ndim() {
        4 => x.view().permuted_axes(&[0, 2, 3, 1][..]).iter().copied().collect(),
        _ => x.iter().copied().collect(),
    }
}

/// Runs a model on random codes, in an arena of exactly the size that it says, and compares with the network.
fn check(network: &QuantizedNetwork, model: &ModelBuf, rng: &mut impl Rng) {
    let input = network.graph().inputs().next().unwrap();
    let shape = network.graph().shape(input).unwrap().to_vec();
    let Sizes { input, output, arena } = model.sizes();
    assert_eq!(Sizes::of(model.as_bytes()), Ok(model.sizes()));
    let model = Model::new(model.as_bytes()).unwrap();
    for _ in 0..3 {
        let x: ArrayD<u8> = Array::from_shape_simple_fn(IxDyn(&shape), || rng.random());
        let expected = in_order(&network.run_codes(&x, &mut Arena::new()).unwrap());
        assert_eq!(input, x.len());
        let (mut found, mut buffer) = (vec![0; output], vec![rng.random(); arena]);
        model.run(&in_order(&x), &mut found, &mut buffer).unwrap();
        assert_eq!(found, expected);
    }
}

/// A random network: operators of any geometry, one after the other, which read any tensor before.
struct Random<'r, R> {
    g: GraphBuilder,
    rng: &'r mut R,
    /// All tensors that the next operator may read.
    tensors: Vec<TensorId>,
    count: usize,
}

impl<R: Rng> Random<'_, R> {
    fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    fn values<const N: usize>(&mut self, shape: [usize; N]) -> Array<f32, ndarray::Dim<[usize; N]>>
    where
        ndarray::Dim<[usize; N]>: ndarray::Dimension,
        [usize; N]: ndarray::IntoDimension<Dim = ndarray::Dim<[usize; N]>>,
    {
        Array::from_shape_simple_fn(shape, || self.rng.random_range(-0.7f32..0.7))
    }

    fn window(&mut self) -> Window {
        let mut two = |end: usize| [1 + self.below(end), 1 + self.below(end)];
        let (strides, dilations) = (two(3), two(2));
        let padding = match self.below(4) {
            0 => Padding::Same,
            1 => Padding::Explicit([0; 4].map(|_: usize| self.below(3))),
            _ => Padding::Valid,
        };
        Window::new()
            .with_strides(strides)
            .with_dilations(dilations)
            .with_padding(padding)
            .with_ceil_mode(self.below(4) == 0)
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("node{}", self.count)
    }

    /// Adds an operator, unless it does not fit the shape.
    fn step(&mut self) {
        let recent = self.tensors.len() - 1;
        let i = if self.below(4) == 0 { self.below(recent + 1) } else { recent };
        let x = self.tensors[i];
        let shape = self.g.shape(x).unwrap().to_vec();
        let &[_, c, h, w] = &shape[..] else { return };
        let name = self.name();
        let y = match self.below(13) {
            0..3 => {
                let groups = if self.below(3) == 0 { c } else { 1 + self.below(2) };
                let out = groups * (1 + self.below(3));
                let kernel = [1 + self.below(3), 1 + self.below(3)];
                if c % groups != 0 {
                    return;
                }
                let (weights, bias) = (self.values([out, c / groups, kernel[0], kernel[1]]), self.values([out]));
                let (window, bias) = (self.window(), Some(&*bias).filter(|_| self.below(3) > 0));
                let y = self.g.conv(&name, x, &weights, bias, window, groups);
                let activation = [None, Some(Activation::relu()), Some(Activation::relu6())][self.below(3)];
                match (y, activation) {
                    (Ok(y), Some(activation)) => self.g.activation(&format!("{name}.activation"), y, activation),
                    (y, _) => y,
                }
            }
            3 => {
                let (kernel, window) = ([1 + self.below(3), 1 + self.below(3)], self.window());
                self.g.max_pool(&name, x, kernel, window)
            }
            4 => {
                let (kernel, window, include) =
                    ([1 + self.below(3), 1 + self.below(3)], self.window(), self.below(2) == 0);
                self.g.average_pool(&name, x, kernel, window, include)
            }
            5 => {
                // A residual, or a constant for each channel or all.
                let same =
                    self.tensors.iter().copied().filter(|&t| self.g.shape(t).unwrap() == shape).collect::<Vec<_>>();
                let each = self.values([c, 1, 1]);
                let other = match self.below(3) {
                    0 => self.g.constant(&format!("{name}.c"), &each).unwrap(),
                    1 => self.g.constant(&format!("{name}.c"), &array![0.3f32]).unwrap(),
                    _ => same[self.below(same.len())],
                };
                let op = [op::Binary::Add, op::Binary::Sub, op::Binary::Mul][self.below(3)];
                let inputs = if self.below(2) == 0 { [x, other] } else { [other, x] };
                self.g.node(&name, op, &inputs)
            }
            6 => {
                let activation = [Activation::Sigmoid, Activation::HardSwish, Activation::Tanh][self.below(3)];
                self.g.activation(&name, x, activation)
            }
            7 => {
                // Squeeze and excitation.
                let mean = self.g.global_average_pool(&name, x).unwrap();
                self.g.mul(&format!("{name}.scaled"), x, mean)
            }
            8 => {
                let axis = 1 + self.below(3);
                let fits = |&t: &TensorId| {
                    let other = self.g.shape(t).unwrap();
                    other.len() == 4 && (1..4).all(|a| a == axis || other[a] == shape[a])
                };
                let others: Vec<_> = self.tensors.iter().copied().filter(fits).collect();
                let other = others[self.below(others.len())];
                self.g.concat(&name, &[x, other], axis)
            }
            9 => {
                let pads = [0; 4].map(|_: usize| self.below(3));
                self.g.pad(&name, x, pads)
            }
            10 => {
                let scales = [1 + self.below(2), 1 + self.below(2)];
                self.g.resize(&name, x, scales)
            }
            11 => {
                let perm = [vec![0, 1, 3, 2], vec![0, 2, 3, 1], vec![0, 3, 1, 2]][self.below(3)].clone();
                self.g.node(&name, op::Transpose { perm }, &[x])
            }
            _ => self.g.reshape(&name, x, &[c * h, w, 1]),
        };
        if let Ok(y) = y
            && self.g.shape(y).unwrap().iter().product::<usize>() <= 1000
        {
            self.tensors.push(y);
        }
    }

    /// Ends with linear layers, or with an image.
    fn finish(mut self) -> Graph {
        let mut y = *self.tensors.last().unwrap();
        for i in 0..self.below(3) {
            y = self.g.flatten(&format!("flat{i}"), y).unwrap();
            let features = self.g.shape(y).unwrap()[1];
            let (outputs, bias) = (1 + self.below(12), self.below(2) == 0);
            let (weights, biases) = (self.values([outputs, features]), self.values([outputs]));
            y = self.g.linear(&format!("linear{i}"), y, &weights, Some(&*biases).filter(|_| bias)).unwrap();
        }
        let graph = self.g.build(&[y]).unwrap();
        if self.rng.random() { graph.simplify().unwrap() } else { graph }
    }
}

fn random_network(seed: u64) -> (QuantizedNetwork, Pcg64Mcg) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut g = GraphBuilder::new();
    let shape = [1, rng.random_range(1..5), rng.random_range(1..9), rng.random_range(1..9)];
    let x = g.input("x", &shape).unwrap();
    let steps = rng.random_range(0..9);
    let mut random = Random { g, rng: &mut rng, tensors: vec![x], count: 0 };
    (0..steps).for_each(|_| random.step());
    let graph = random.finish();
    let network = full_integer(&graph, &mut rng);
    (network, rng)
}

proptest! {
    /// In an arena of exactly the size that the model says, whose nodes add up.
    #[test]
    fn codes_are_those_of_the_network(seed in any::<u64>()) {
        let (network, mut rng) = random_network(seed);
        let model = network.to_micro().unwrap_or_else(|error| panic!("{error}\n{}", network.recipe()));
        check(&network, &model, &mut rng);
        let flash: usize = model.nodes().iter().map(|memory| memory.flash).sum();
        prop_assert_eq!(flash + 48, model.as_bytes().len(), "{}", model);
        prop_assert_eq!(model.nodes().iter().map(|memory| memory.arena).max().unwrap_or(0), model.sizes().arena);
    }

    /// Bytes that differ from those of a model, with a checksum that matches: an error, or a run that ends.
    #[test]
    fn no_bytes_make_it_panic(seed in any::<u64>()) {
        let (network, mut rng) = random_network(seed);
        let model = network.to_micro().unwrap();
        let Sizes { input, output, arena } = model.sizes();
        for _ in 0..50 {
            let mut bytes = model.as_bytes().to_vec();
            for _ in 0..rng.random_range(1..4) {
                // Most faults in the header and the steps.
                let end = if rng.random() { bytes.len().min(400) } else { bytes.len() };
                let word = 4 * rng.random_range(0..end / 4);
                let values = [0, 1, 2, 255, 256, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX, 1 << rng.random_range(0..32), rng.random()];
                let old = u32::from_le_bytes(bytes[word..word + 4].try_into().unwrap());
                let value = [values[rng.random_range(0..values.len())], old.wrapping_add(1), old.wrapping_sub(1), old ^ 1 << rng.random_range(0..32)];
                bytes[word..word + 4].copy_from_slice(&value[rng.random_range(0..4)].to_le_bytes());
            }
            if rng.random() {
                bytes.truncate(rng.random_range(0..=bytes.len()));
            }
            sign(&mut bytes);
            let Ok(model) = Model::new(&bytes) else { continue };
            let sizes = model.sizes();
            if sizes.input.max(sizes.output).max(sizes.arena) <= 4 * input.max(output).max(arena) {
                let (x, mut y, mut buffer) = (vec![7; sizes.input], vec![0; sizes.output], vec![0; sizes.arena]);
                prop_assert_eq!(model.run(&x, &mut y, &mut buffer), Ok(()));
            }
        }
    }
}

/// Writes the length and the checksum that the bytes should have.
fn sign(bytes: &mut [u8]) {
    if bytes.len() >= 16 {
        let len = bytes.len() as u32;
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        let checksum = crc32(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// A small network with a residual.
fn small() -> QuantizedNetwork {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2, 5, 4]).unwrap();
    let weights = Array4::from_shape_fn((2, 2, 3, 3), |(o, i, y, x)| ((o + 2 * i + 3 * y + 5 * x) as f32).sin());
    let y = g.conv("conv", x, &weights, Some(&Array1::ones(2)), Window::new().with_padding(1), 1).unwrap();
    let y = g.add("sum", x, y).unwrap();
    full_integer(&g.build(&[y]).unwrap(), &mut Pcg64Mcg::seed_from_u64(1))
}

#[test]
fn every_truncation_and_every_flipped_bit_is_an_error() {
    let model = small().to_micro().unwrap();
    let bytes = model.as_bytes();
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(bytes[12..16], crc32(&bytes[16..]).to_le_bytes());
    for len in 0..bytes.len() {
        assert!(Model::new(&bytes[..len]).is_err(), "{len}");
        // With a checksum of its own.
        let mut short = bytes[..len].to_vec();
        sign(&mut short);
        assert!(Model::new(&short).is_err(), "{len}");
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Model::new(&flipped).is_err(), "{bit}");
    }
}

#[test]
fn buffers_of_other_lengths_are_errors() {
    let model = small().to_micro().unwrap();
    let Sizes { input, output, arena } = model.sizes();
    // The image after the convolution, and the codes under its kernel.
    assert_eq!((input, output, arena), (40, 40, 40 + 18));
    let run = |x, y, z| model.model().run(&vec![0; x], &mut vec![0; y], &mut vec![0; z]);
    let error = |what, expected, found| Err(ModelError::Buffer { what, expected, found });
    assert_eq!(run(input, output, arena), Ok(()));
    assert_eq!(run(input, output, arena + 1), Ok(()));
    assert_eq!(run(input, output, arena - 1), error("arena of the model", arena, arena - 1));
    assert_eq!(run(input - 1, output, arena), error("input of the model", input, input - 1));
    assert_eq!(run(input, output + 1, arena), error("output of the model", output, output + 1));
}

#[test]
fn four_bit_weights_and_several_readers() {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 6]).unwrap();
    let weights = Array::from_shape_fn((6, 6), |(o, i)| ((o * 6 + i) as f32 * 0.7).cos());
    let a = g.linear("a", x, &weights, None).unwrap();
    let b = g.linear("b", a, &weights, None).unwrap();
    let c = g.add("c", a, b).unwrap();
    let d = g.mul("d", c, a).unwrap();
    let graph = g.build(&[d]).unwrap();
    let samples = Array::from_shape_simple_fn((8, 6), || rng.random_range(-1.0f32..1.5));
    let mut recipe = graph.calibrate([samples.view()]).unwrap().recipe(&graph, CalibrationMethod::MinMax).unwrap();
    recipe.tensor_mut("d").unwrap().precision = Precision::Int8;
    recipe.tensor_mut("a.weight").unwrap().precision = Precision::Int4;
    let network = graph.quantize(&recipe).unwrap();
    check(&network, &network.to_micro().unwrap(), &mut rng);
}

/// The input is the output.
#[test]
fn a_network_that_renames_is_a_copy() {
    let mut rng = Pcg64Mcg::seed_from_u64(4);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2, 3]).unwrap();
    let y = g.reshape("y", x, &[6]).unwrap();
    let network = full_integer(&g.build(&[y]).unwrap(), &mut rng);
    check(&network, &network.to_micro().unwrap(), &mut rng);
}

fn error_of(network: QuantizedNetwork) -> String {
    network.to_micro().unwrap_err().to_string()
}

#[test]
fn errors_name_the_node() {
    let build = |end: &dyn Fn(&mut GraphBuilder, TensorId) -> TensorId| {
        let mut g = GraphBuilder::new();
        let x = g.input("x", &[1, 4]).unwrap();
        let x = g.linear("hidden", x, &Array::from_shape_fn((4, 4), |(o, i)| o as f32 - i as f32), None).unwrap();
        let y = end(&mut g, x);
        g.build(&[y]).unwrap()
    };
    let rng = &mut Pcg64Mcg::seed_from_u64(5);
    let softmax = build(&|g, x| g.softmax("probabilities", x, 1).unwrap());
    assert_eq!(
        error_of(full_integer(&softmax, rng)),
        r#"operator Softmax of node "probabilities" is not supported: its operator has no form in a model"#
    );
    let division = build(&|g, x| g.node("ratio", op::Binary::Div, &[x, x]).unwrap());
    let error = error_of(full_integer(&division, rng));
    assert!(
        error.starts_with(r#"operator Div of node "ratio" is not supported: it computes on floats, because"#),
        "{error}"
    );

    let float = build(&|_, x| x);
    let error = float.quantize(&Recipe::dynamic_range(&float).unwrap()).unwrap().to_micro().unwrap_err();
    assert!(matches!(error, Error::Graph(GraphError::Inputs { .. })), "{error}");

    // Any order of elements.
    let gather =
        build(&|g, x| g.node("picked", op::Gather { axis: 1, indices: vec![2, 0, 3, 3, 1, 0, 1] }, &[x]).unwrap());
    assert_eq!(
        error_of(full_integer(&gather, rng)),
        r#"operator Gather of node "picked" is not supported: it moves elements in too irregular an order"#
    );
}

#[test]
fn the_table_lists_nodes() {
    let table = small().to_micro().unwrap().to_string();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["node", "operator", "flash", "arena"]);
    // The convolution has its output and the codes under its kernel in the arena; input and output of the network are not.
    assert_eq!((lines[1][1], lines[1][3]), ("Conv", "58"));
    assert_eq!((lines[2][1], lines[2][3]), ("Add", "40"));
    assert_eq!((lines[3][0], lines[3][2]), ("model", "58"));
}
