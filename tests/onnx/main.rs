//! ONNX files built byte by byte: valid ones, and malformed ones that must give errors.
#![cfg(feature = "onnx")]

mod attention;
mod attributes;
mod limits;
mod message;
mod operators;

use message::{Message, attribute, floats, ints, model, node};
use ndarray::{Array, IxDyn, array};
use ndarray_quant::error::GraphError;
use ndarray_quant::graph::{Graph, Op};
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::{Error, Result};

fn read(bytes: &[u8]) -> Result<Graph> {
    Graph::from_onnx_bytes(bytes)
}

fn small() -> Vec<u8> {
    let nodes = [
        node("Conv", &["x", "w"], "c", &[attribute("pads", &[1, 1, 1, 1]), attribute("kernel_shape", &[3, 3])]),
        node("Clip", &["c", "zero", "six"], "r", &[]),
        node("Shape", &["r"], "s", &[]),
        node("Gather", &["s", "first"], "n", &[]),
        node("Unsqueeze", &["n", "axis"], "n1", &[]),
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
        ints("axis", &[0]),
        ints("rest", &[-1]),
        floats("fc", &[2, 4], &[1., 0., 0., 0., 1., 1., 1., 1.]),
        floats("b", &[2], &[0.0, -1.0]),
    ];
    model(&nodes, &tensors, &[0, 1, 2, 2], "y")
}

#[test]
fn a_small_network() -> Result<()> {
    let graph = read(&small())?.simplify()?;
    assert_eq!(graph.nodes().iter().map(|n| n.op.name()).collect::<Vec<_>>(), ["Conv", "Reshape", "Linear"]);
    let x = array![[[[1.0f32, -2.0], [7.0, 3.0]]], [[[0.0, 0.0], [0.0, 0.5]]]];
    assert_eq!(graph.run(&x)?, array![[1.0f32, 9.0], [0.0, -0.5]].into_dyn());
    Ok(())
}

/// A description counts what a file declares, whether the network can be read or not.
#[test]
fn a_file_is_described() -> Result<()> {
    let found = OnnxReader::new().describe(&small())?;
    assert_eq!((found.opset, found.producer.as_str()), (Some(13), ""));
    let shape = found.inputs[0].shape.as_ref().unwrap();
    let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
    assert_eq!((found.inputs.len(), found.inputs[0].name.as_str(), shape.join("x").as_str()), (1, "x", "nx1x2x2"));
    // Weights of 9, 1 and 1 floats, 2x4 and 2 floats, and three integers.
    assert_eq!((found.parameters, found.size_in_bytes), (24, 21 * 4 + 3 * 8));
    let size = |name: &str| found.operators.iter().find(|operator| operator.name == name).unwrap().size_in_bytes;
    assert_eq!([size("Conv"), size("Clip"), size("Gemm")], [36, 8, 40]);

    let constant = node("Constant", &[], "w", &[message::tensor("value", floats("", &[2, 3], &[1.0; 6]))]);
    let nodes = [constant, node("Frobnicate", &["x", "w"], "y", &[]), node("Frobnicate", &["y"], "z", &[])];
    let found = OnnxReader::new().describe(&model(&nodes, &[], &[1, 4], "z"))?;
    assert_eq!((found.operators[0].name.as_str(), found.operators[0].nodes), ("Frobnicate", 2));
    assert_eq!((found.operators[0].size_in_bytes, found.parameters), (24, 6));
    assert!(OnnxReader::new().with_max_bytes(10).describe(&small()).is_err());
    Ok(())
}

/// The first two are the tests `maxpool_2d_ceil` and `averagepool_2d_ceil` of the ONNX standard, the last one is
/// `averagepool_2d_ceil_last_window_starts_on_pad` with other numbers.
#[test]
fn ceil_mode_windows_past_the_padding() -> Result<()> {
    let run = |op: &str, size: usize, attributes: &[Message]| {
        let attributes = [attributes, &[attribute("kernel_shape", &[3, 3]), attribute("ceil_mode", &[1])]].concat();
        let file = model(&[node(op, &["x"], "y", &attributes)], &[], &[1, 1, size as i64, size as i64], "y");
        read(&file)?.run(&Array::from_shape_fn((1, 1, size, size), |(_, _, y, x)| (size * y + x + 1) as f32))
    };
    let twos = || attribute("strides", &[2, 2]);
    assert_eq!(run("MaxPool", 4, &[twos()])?, array![[[[11.0, 12.0], [15.0, 16.0]]]].into_dyn());
    assert_eq!(run("AveragePool", 4, &[twos()])?, array![[[[6.0, 7.5], [12.0, 13.5]]]].into_dyn());
    // The padding counts, the area past it does not: the last windows have two rows or columns, one in the padding.
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

/// A kernel that covers padding only is an error, wherever it lies.
#[test]
fn poolings_of_padding_only() {
    for (size, kernel, stride, dilation) in (1..4i64)
        .flat_map(|n| (1..4i64).flat_map(move |k| (1..4i64).flat_map(move |s| (1..=n).map(move |d| (n, k, s, d)))))
    {
        for (before, after) in (0..9).flat_map(|before| (0..9).map(move |after| (before, after))) {
            let attributes = [
                attribute("kernel_shape", &[kernel, 1]),
                attribute("strides", &[stride, 1]),
                attribute("dilations", &[dilation, 1]),
                attribute("pads", &[before, 0, after, 0]),
            ];
            let file = model(&[node("MaxPool", &["x"], "y", &attributes)], &[], &[1, 1, size, 1], "y");
            let length = before + size + after - ((kernel - 1) * dilation + 1);
            let within = |at: i64| (0..kernel).any(|tap| (0..size).contains(&(at * stride + tap * dilation - before)));
            let expected = length >= 0 && (0..=length / stride).all(within);
            let shape = (size, kernel, stride, dilation, before, after);
            assert_eq!(read(&file).is_ok(), expected, "{shape:?}");
        }
    }
}

#[test]
fn truncated_and_corrupted_files_never_panic() {
    let bytes = small();
    for end in 0..bytes.len() {
        let _ = read(&bytes[..end]);
    }
    for bit in 0..8 * bytes.len() {
        let mut hostile = bytes.clone();
        hostile[bit / 8] ^= 1 << (bit % 8);
        // Most are errors. The others must run, or fail with an error.
        if let Ok(graph) = read(&hostile).and_then(|graph| graph.simplify()) {
            let input = graph.shape(graph.inputs().next().unwrap()).unwrap().to_vec();
            if input.iter().product::<usize>() < 1 << 16 {
                let _ = graph.run(&Array::<f32, _>::zeros(IxDyn(&input)));
            }
        }
    }
}

#[test]
fn unsupported_operators_are_named() {
    let file = model(&[node("NonMaxSuppression", &["x"], "y", &[])], &[], &[1, 4], "y");
    match read(&file) {
        Err(Error::Graph(GraphError::Unsupported { op, node, .. })) => {
            assert_eq!((&*op, &*node), ("NonMaxSuppression", "y"))
        }
        other => panic!("{other:?}"),
    }
    let foreign = node("Relu", &["x"], "y", &[]).text(7, "com.example");
    match read(&model(&[foreign], &[], &[1, 4], "y")) {
        Err(Error::Graph(GraphError::Unsupported { op, .. })) => assert_eq!(op, "com.example.Relu"),
        other => panic!("{other:?}"),
    }
}

/// One error names all operators and attributes that are not supported, with their numbers of nodes.
#[test]
fn all_unsupported_nodes_are_named() {
    let nodes = [
        node("GridSample", &["x"], "a", &[]),
        node("Relu", &["a"], "b", &[]),
        node("GridSample", &["b"], "c", &[]),
        node("Transpose", &["x"], "d", &[attribute("perm", &[1, 0])]),
        node("Elu", &["d"], "e", &[attribute("beta", &[1])]),
        node("Add", &["c", "e"], "y", &[]),
    ];
    match read(&model(&nodes, &[], &[1, 4], "y")) {
        Err(Error::Graph(GraphError::UnsupportedNodes { uses })) => {
            let found: Vec<_> = uses.iter().map(|found| (&*found.op, &*found.node, found.count)).collect();
            assert_eq!(found, [("GridSample", "a", 2), ("Elu", "e", 1)]);
        }
        other => panic!("{other:?}"),
    }
    // A quantized network is not a float network.
    let weights = floats("w", &[1], &[1.0]).int(2, 3);
    let nodes = [node("DequantizeLinear", &["w", "scale"], "v", &[]), node("Mul", &["x", "v"], "y", &[])];
    let error = read(&model(&nodes, &[weights], &[1, 4], "y")).unwrap_err().to_string();
    assert!(error.contains("already quantized"), "{error}");
}

#[test]
fn malformed_graphs_are_errors() {
    let rejected = |nodes: &[Message], tensors: &[Message], input: &[i64]| {
        let read = read(&model(nodes, tensors, input, "y"));
        assert!(read.is_err(), "{read:?}");
        println!("{}", read.unwrap_err());
    };
    // A cycle, and tensors that are never defined.
    rejected(&[node("Relu", &["b"], "a", &[]), node("Relu", &["a"], "b", &[])], &[], &[1, 4]);
    rejected(&[node("Add", &["x", "missing"], "y", &[])], &[], &[1, 4]);
    rejected(&[node("Relu", &[], "y", &[])], &[], &[1, 4]);
    rejected(&[node("Relu", &["x"], "x", &[])], &[], &[1, 4]);
    // Shapes too large for memory, or with another number of elements than the data.
    let huge = i64::MAX;
    rejected(&[node("Relu", &["x"], "y", &[])], &[], &[1, huge, huge]);
    rejected(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[huge, huge], &[1.0])], &[1, 4]);
    rejected(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[-1], &[1.0])], &[1, 4]);
    rejected(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[2], &[1.0, f32::NAN])], &[1, 2]);
    rejected(&[node("Pad", &["x", "p"], "y", &[])], &[ints("p", &[0, 0, huge, huge, 0, 0, huge, huge])], &[1, 1, 4, 4]);
    rejected(&[node("Reshape", &["x", "s"], "y", &[])], &[ints("s", &[1, huge, huge])], &[1, 4]);
    rejected(&[node("Reshape", &["x", "s"], "y", &[])], &[ints("s", &[1, -1, -1])], &[1, 4]);
    let conv = |attributes: &[Message]| node("Conv", &["x", "w"], "y", attributes);
    let w = || floats("w", &[1, 1, 1, 1], &[1.0]);
    rejected(&[conv(&[attribute("strides", &[0, 0])])], &[w()], &[1, 1, 4, 4]);
    rejected(&[conv(&[attribute("strides", &[-1, 1])])], &[w()], &[1, 1, 4, 4]);
    rejected(&[conv(&[attribute("dilations", &[0, 1])])], &[w()], &[1, 1, 4, 4]);
    rejected(&[conv(&[attribute("group", &[0])])], &[w()], &[1, 1, 4, 4]);
    rejected(&[conv(&[attribute("pads", &[huge, huge, huge, huge])])], &[w()], &[1, 1, 4, 4]);
    rejected(&[conv(&[])], &[floats("w", &[0, 1, 0, 0], &[])], &[1, 1, 4, 4]);
    // Invalid windows of poolings.
    for op in ["MaxPool", "AveragePool"] {
        let pool = |attributes: &[Message]| node(op, &["x"], "y", attributes);
        let kernel = |size: i64| attribute("kernel_shape", &[size, size]);
        let ceil = || attribute("ceil_mode", &[1]);
        rejected(&[pool(&[])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(0)])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(5), ceil()])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(huge), ceil()])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(2), attribute("pads", &[huge, 0, huge, 0]), ceil()])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(2), attribute("pads", &[3, 0, 0, 0]), ceil()])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(2), attribute("strides", &[0, 1]), ceil()])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(2), attribute("dilations", &[huge, 1]), ceil()])], &[], &[1, 1, 4, 4]);
        rejected(&[pool(&[kernel(1)])], &[], &[1, 4]);
        let wide = [kernel(2), attribute("strides", &[huge, huge]), ceil()];
        let graph = read(&model(&[pool(&wide)], &[], &[1, 1, 4, 4], "y")).unwrap();
        assert_eq!(graph.shape("y"), Some(&[1, 1, 1, 1][..]));
    }
    // The caller gives a length to an axis that has none.
    rejected(&[node("Relu", &["x"], "y", &[])], &[], &[0, 0]);
    let open = model(&[node("Relu", &["x"], "y", &[])], &[], &[0, 0], "y");
    let graph = OnnxReader::new().with_input_shape("x", &[1, 3]).read(&open).unwrap();
    assert_eq!(graph.nodes()[0].op.name(), "Relu");
    assert!(matches!(graph.nodes()[0].op, Op::Activation(_)));
}

/// Weights beside the file, as exporters store large networks.
#[cfg(feature = "std")]
#[test]
fn weights_in_another_file() {
    let folder = std::env::temp_dir().join(format!("ndarray-quant-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let read = |location: &str, offset: &str, length: &str| {
        let entry = |key: &str, value: &str| Message::default().text(1, key).text(2, value);
        let tensor = Message::default().int(1, 2).int(2, 1).text(8, "w").int(14, 1);
        let entries = [entry("location", location), entry("offset", offset), entry("length", length)];
        let tensor = entries.into_iter().fold(tensor, |tensor, entry| tensor.message(13, entry));
        let path = folder.join("model.onnx");
        std::fs::write(&path, model(&[node("Mul", &["x", "w"], "y", &[])], &[tensor], &[1, 2], "y")).unwrap();
        let small = OnnxReader::new().with_max_bytes(200).read_file(&path);
        (Graph::from_onnx(&path), small.is_ok())
    };
    let values: Vec<u8> = [7.0f32, 2.0, -3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(folder.join("model.onnx.data"), values).unwrap();
    let (graph, fits) = read("model.onnx.data", "4", "8");
    assert_eq!((graph.unwrap().run(&array![[1.0f32, 2.0]]).unwrap(), fits), (array![[2.0f32, -6.0]].into_dyn(), true));
    for (location, offset, length, part) in [
        ("model.onnx.data", "8", "8", "4 bytes behind offset 8"),
        ("model.onnx.data", "4", "4", "2 values"),
        ("model.onnx.data", "x", "8", "\"x\""),
        ("missing", "0", "8", "missing"),
        ("../model.onnx.data", "4", "8", "in the folder"),
        ("/etc/passwd", "0", "8", "in the folder"),
    ] {
        let error = read(location, offset, length).0.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let long = "9".repeat(9);
    assert!(read("model.onnx.data", "0", &long).0.is_err());
    std::fs::remove_dir_all(folder).unwrap();
}
