//! ONNX files, written here byte by byte: sound ones, and hostile ones that must give errors.
#![cfg(feature = "onnx")]

use ndarray::{Array, IxDyn, array};
use ndarray_quant::graph::Op;
use ndarray_quant::io::onnx;
use ndarray_quant::{Error, Result};

/// A protobuf message in the making.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
    fn int(self, tag: u64, value: i64) -> Self {
        self.varint(tag << 3).varint(value as u64)
    }
    fn bytes(self, tag: u64, bytes: &[u8]) -> Self {
        let mut message = self.varint(tag << 3 | 2).varint(bytes.len() as u64);
        message.0.extend(bytes);
        message
    }
    fn text(self, tag: u64, text: &str) -> Self {
        self.bytes(tag, text.as_bytes())
    }
    fn message(self, tag: u64, message: Message) -> Self {
        self.bytes(tag, &message.0)
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = dims.iter().fold(Message::default(), |m, &d| m.int(1, d));
    tensor.int(2, 1).text(8, name).bytes(9, &raw)
}

fn ints(name: &str, values: &[i64]) -> Message {
    let tensor = Message::default().int(1, values.len() as i64).int(2, 7).text(8, name);
    values.iter().fold(tensor, |m, &v| m.int(7, v))
}

fn attribute(name: &str, values: &[i64]) -> Message {
    match values {
        [one] => Message::default().text(1, name).int(3, *one),
        many => many.iter().fold(Message::default().text(1, name), |m, &v| m.int(8, v)),
    }
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Message]) -> Message {
    let m = inputs.iter().fold(Message::default(), |m, i| m.text(1, i)).text(2, output).text(4, op);
    attributes.iter().fold(m, |m, a| m.message(5, a.clone()))
}

fn value(name: &str, dims: &[i64]) -> Message {
    let dim = |m: Message, &d: &i64| {
        m.message(1, if d > 0 { Message::default().int(1, d) } else { Message::default().text(2, "n") })
    };
    let shape = dims.iter().fold(Message::default(), dim);
    Message::default().text(1, name).message(2, Message::default().message(1, Message::default().message(2, shape)))
}

fn model(nodes: &[Message], tensors: &[Message], input: &[i64], output: &str) -> Vec<u8> {
    let graph = nodes.iter().fold(Message::default(), |m, n| m.message(1, n.clone()));
    let graph = tensors.iter().fold(graph, |m, t| m.message(5, t.clone()));
    let graph = graph.message(11, value("x", input)).message(12, value(output, &[]));
    Message::default().int(1, 8).message(7, graph).message(8, Message::default().int(2, 13)).0
}

fn small() -> Vec<u8> {
    let nodes = [
        node("Conv", &["x", "w"], "c", &[attribute("pads", &[1, 1, 1, 1]), attribute("kernel_shape", &[3, 3])]),
        node("Clip", &["c", "zero", "six"], "r", &[]),
        node("Shape", &["r"], "s", &[]),
        node("Gather", &["s", "first"], "n", &[]),
        node("Unsqueeze", &["n"], "n1", &[]),
        node("Concat", &["n1", "rest"], "target", &[attribute("axis", &[0])]),
        node("Reshape", &["r", "target"], "f", &[]),
        node("Gemm", &["f", "fc", "b"], "y", &[attribute("transB", &[1])]),
    ];
    let first = Message::default().int(2, 7).text(8, "first").int(7, 0);
    let tensors = [
        floats("w", &[1, 1, 3, 3], &[0., 0., 0., 0., 1., 0., 0., 0., 0.]),
        floats("zero", &[], &[0.0]),
        floats("six", &[], &[6.0]),
        first,
        ints("rest", &[-1]),
        floats("fc", &[2, 4], &[1., 0., 0., 0., 1., 1., 1., 1.]),
        floats("b", &[2], &[0.0, -1.0]),
    ];
    model(&nodes, &tensors, &[0, 1, 2, 2], "y")
}

#[test]
fn a_small_network() -> Result<()> {
    let graph = onnx::read(&small())?.simplify()?;
    assert_eq!(graph.nodes().iter().map(|n| n.op.name()).collect::<Vec<_>>(), ["Conv", "Reshape", "Linear"]);
    let x = array![[[[1.0f32, -2.0], [7.0, 3.0]]], [[[0.0, 0.0], [0.0, 0.5]]]];
    assert_eq!(graph.run(&x)?, array![[1.0f32, 9.0], [0.0, -0.5]].into_dyn());
    Ok(())
}

/// The first two are the tests `maxpool_2d_ceil` and `averagepool_2d_ceil` of the ONNX standard, the last one is
/// `averagepool_2d_ceil_last_window_starts_on_pad` with other numbers.
#[test]
fn poolings_that_reach_beyond_the_padding() -> Result<()> {
    let run = |op: &str, size: usize, attributes: &[Message]| {
        let attributes = [attributes, &[attribute("kernel_shape", &[3, 3]), attribute("ceil_mode", &[1])]].concat();
        let file = model(&[node(op, &["x"], "y", &attributes)], &[], &[1, 1, size as i64, size as i64], "y");
        onnx::read(&file)?.run(&Array::from_shape_fn((1, 1, size, size), |(_, _, y, x)| (size * y + x + 1) as f32))
    };
    let twos = || attribute("strides", &[2, 2]);
    assert_eq!(run("MaxPool", 4, &[twos()])?, array![[[[11.0, 12.0], [15.0, 16.0]]]].into_dyn());
    assert_eq!(run("AveragePool", 4, &[twos()])?, array![[[[6.0, 7.5], [12.0, 13.5]]]].into_dyn());
    // The padding counts, what lies beyond it does not: the last windows have two rows or columns, one in the padding.
    let counted = || [attribute("pads", &[1, 1, 1, 1]), attribute("count_include_pad", &[1])];
    let mean = run("AveragePool", 4, &[&[twos()], &counted()[..]].concat())?;
    let expected = [[14.0 / 9.0, 30.0 / 9.0, 2.0], [57.0 / 9.0, 11.0, 6.0], [27.0 / 6.0, 45.0 / 6.0, 4.0]];
    assert_eq!(mean.shape(), [1, 1, 3, 3]);
    assert!(mean.iter().zip(expected.as_flattened()).all(|(mean, expected)| (mean - expected).abs() < 1e-5));
    // A second row and column would start in the padding.
    let mean = run("AveragePool", 2, &[&[attribute("strides", &[3, 3])], &counted()[..]].concat())?;
    assert!(mean.shape() == [1, 1, 1, 1] && (mean[[0, 0, 0, 0]] - 10.0 / 9.0).abs() < 1e-6);
    Ok(())
}

#[test]
fn every_truncation_and_every_flipped_bit_is_survived() {
    let bytes = small();
    for end in 0..bytes.len() {
        let _ = onnx::read(&bytes[..end]);
    }
    for bit in 0..8 * bytes.len() {
        let mut hostile = bytes.clone();
        hostile[bit / 8] ^= 1 << (bit % 8);
        // Most are errors; what is not must also run, or refuse to.
        if let Ok(graph) = onnx::read(&hostile).and_then(|graph| graph.simplify()) {
            let input = graph.inputs()[0].shape.clone();
            if input.iter().product::<usize>() < 1 << 16 {
                let _ = graph.run(&Array::<f32, _>::zeros(IxDyn(&input)));
            }
        }
    }
}

#[test]
fn unsupported_operators_are_named() {
    let file = model(&[node("NonMaxSuppression", &["x"], "y", &[])], &[], &[1, 4], "y");
    match onnx::read(&file) {
        Err(Error::Unsupported { op, node, .. }) => assert_eq!((&*op, &*node), ("NonMaxSuppression", "y")),
        other => panic!("{other:?}"),
    }
    let foreign = node("Relu", &["x"], "y", &[]).text(7, "com.example");
    match onnx::read(&model(&[foreign], &[], &[1, 4], "y")) {
        Err(Error::Unsupported { op, .. }) => assert_eq!(op, "com.example.Relu"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hostile_graphs_are_errors() {
    let refused = |nodes: &[Message], tensors: &[Message], input: &[i64]| {
        let read = onnx::read(&model(nodes, tensors, input, "y"));
        assert!(read.is_err(), "{read:?}");
        println!("{}", read.unwrap_err());
    };
    // A cycle, and a tensor that nothing makes.
    refused(&[node("Relu", &["b"], "a", &[]), node("Relu", &["a"], "b", &[])], &[], &[1, 4]);
    refused(&[node("Add", &["x", "missing"], "y", &[])], &[], &[1, 4]);
    refused(&[node("Relu", &[], "y", &[])], &[], &[1, 4]);
    refused(&[node("Relu", &["x"], "x", &[])], &[], &[1, 4]);
    // Sizes that no memory holds, or that the data do not have.
    let huge = i64::MAX;
    refused(&[node("Relu", &["x"], "y", &[])], &[], &[1, huge, huge]);
    refused(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[huge, huge], &[1.0])], &[1, 4]);
    refused(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[-1], &[1.0])], &[1, 4]);
    refused(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[2], &[1.0, f32::NAN])], &[1, 2]);
    refused(&[node("Pad", &["x", "p"], "y", &[])], &[ints("p", &[0, 0, huge, huge, 0, 0, huge, huge])], &[1, 1, 4, 4]);
    refused(&[node("Reshape", &["x", "s"], "y", &[])], &[ints("s", &[1, huge, huge])], &[1, 4]);
    refused(&[node("Reshape", &["x", "s"], "y", &[])], &[ints("s", &[1, -1, -1])], &[1, 4]);
    let conv = |attributes: &[Message]| node("Conv", &["x", "w"], "y", attributes);
    let w = || floats("w", &[1, 1, 1, 1], &[1.0]);
    refused(&[conv(&[attribute("strides", &[0, 0])])], &[w()], &[1, 1, 4, 4]);
    refused(&[conv(&[attribute("strides", &[-1, 1])])], &[w()], &[1, 1, 4, 4]);
    refused(&[conv(&[attribute("dilations", &[0, 1])])], &[w()], &[1, 1, 4, 4]);
    refused(&[conv(&[attribute("group", &[0])])], &[w()], &[1, 1, 4, 4]);
    refused(&[conv(&[attribute("pads", &[huge, huge, huge, huge])])], &[w()], &[1, 1, 4, 4]);
    refused(&[conv(&[])], &[floats("w", &[0, 1, 0, 0], &[])], &[1, 1, 4, 4]);
    // Windows that no pooling has.
    for op in ["MaxPool", "AveragePool"] {
        let pool = |attributes: &[Message]| node(op, &["x"], "y", attributes);
        let kernel = |size: i64| attribute("kernel_shape", &[size, size]);
        let ceil = || attribute("ceil_mode", &[1]);
        refused(&[pool(&[])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(0)])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(5), ceil()])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(huge), ceil()])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(2), attribute("pads", &[huge, 0, huge, 0]), ceil()])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(2), attribute("pads", &[3, 0, 0, 0]), ceil()])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(2), attribute("strides", &[0, 1]), ceil()])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(2), attribute("dilations", &[huge, 1]), ceil()])], &[], &[1, 1, 4, 4]);
        refused(&[pool(&[kernel(1)])], &[], &[1, 4]);
        let wide = [kernel(2), attribute("strides", &[huge, huge]), ceil()];
        let graph = onnx::read(&model(&[pool(&wide)], &[], &[1, 1, 4, 4], "y")).unwrap();
        assert_eq!(graph.shape("y"), Some(&[1, 1, 1, 1][..]));
    }
    // An axis without a length must be given one.
    refused(&[node("Relu", &["x"], "y", &[])], &[], &[0, 0]);
    let open = model(&[node("Relu", &["x"], "y", &[])], &[], &[0, 0], "y");
    let graph = onnx::Reader::new().input_shape("x", &[1, 3]).read(&open).unwrap();
    assert_eq!(graph.nodes()[0].op.name(), "Relu");
    assert!(matches!(graph.nodes()[0].op, Op::Activation(_)));
}
