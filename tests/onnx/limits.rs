//! Small files cost little time and memory, and callers can set limits.

use ndarray::{Array, IxDyn};
use ndarray_quant::error::FileError;
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::{Error, Result};

use super::message::{Message, floats, int, int_list, ints, model, node, string};
use super::{read, small};

#[track_caller]
fn exceeds(read: Result<ndarray_quant::graph::Graph>, parts: &[&str]) {
    let text = read.expect_err("a limit").to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "«{text}» does not name all of {parts:?}");
}

/// Each node concatenates its input 8 times: without a limit, 10 nodes make 2³⁰ elements.
fn doublings(count: usize) -> Vec<Message> {
    let name = |i: usize| format!("c{i}");
    (0..count).map(|i| node("Concat", &[&*name(i); 8], &name(i + 1), &[int("axis", 0)])).collect()
}

#[test]
fn chains_of_concatenated_integers() {
    let nodes = [doublings(12), vec![node("Reshape", &["x", "c12"], "y", &[])]].concat();
    let file = model(&nodes, &[ints("c0", &[1])], &[1, 4], "y");
    assert!(file.len() < 1200);
    exceeds(read(&file), &["constant folding", "at most"]);
    // Long lists stay within the budget, and are no shapes.
    let nodes = [doublings(4), vec![node("Reshape", &["x", "c4"], "y", &[])]].concat();
    exceeds(read(&model(&nodes, &[ints("c0", &[1])], &[1, 4], "y")), &["list of integers", "4096"]);
    // Many nodes that read one large tensor.
    let gathers = (0..1000).map(|i| node("Gather", &["c4", "c4"], &format!("g{i}"), &[]));
    let nodes = [doublings(4), gathers.collect(), vec![node("Relu", &["x"], "y", &[])]].concat();
    exceeds(read(&model(&nodes, &[ints("c0", &[1])], &[1, 4], "y")), &["constant folding"]);
}

#[test]
fn chains_of_folded_floats() {
    // Each sum has 2²⁴ elements, from two vectors of 2¹².
    let vectors = [doublings(4), vec![node("Relu", &["x"], "y", &[])]].concat();
    let sums = (0..20).map(|i| node("Add", &["row", "column"], &format!("s{i}"), &[]));
    let ones = |name: &str, dims: &[i64]| floats(name, dims, &vec![1.0; 1 << 12]);
    let nodes = [vectors, sums.collect()].concat();
    let tensors = [floats("c0", &[1], &[1.0]), ones("row", &[1 << 12]), ones("column", &[1 << 12, 1])];
    exceeds(read(&model(&nodes, &tensors, &[1, 4], "y")), &["constant folding"]);
    // Concatenations grow without other constants.
    let nodes = [doublings(12), vec![node("Add", &["x", "c12"], "y", &[])]].concat();
    exceeds(read(&model(&nodes, &[floats("c0", &[1], &[1.0])], &[1, 4], "y")), &["constant folding"]);
    // Every `Sub` has a negated constant of its own.
    let differences = (0..10).map(|i| node("Sub", &["x", "c7"], &format!("d{i}"), &[]));
    let nodes = [doublings(7), differences.collect(), vec![node("Relu", &["x"], "y", &[])]].concat();
    let read = OnnxReader::new().with_max_elements(5 << 20).read(&model(&nodes, &tensors[..1], &[1, 1 << 21], "y"));
    exceeds(read, &["constant folding"]);
}

/// Takes a fraction of a second; folding that is quadratic in the number of nodes takes minutes.
#[test]
fn long_chains() -> Result<()> {
    const COUNT: usize = 60_000;
    let name = |i: usize| format!("c{i}");
    let nodes: Vec<Message> = (0..COUNT)
        .map(|i| match i % 3 {
            0 => node("Identity", &[&*name(i)], &name(i + 1), &[]),
            1 => node("Mul", &[&*name(i), "c0"], &name(i + 1), &[]),
            _ => node("Relu", &[&*name(i)], &name(i + 1), &[]),
        })
        .chain([node("Add", &["x", &name(COUNT)], "y", &[])])
        .collect();
    let file = model(&nodes, &[floats("c0", &[1], &[1.0])], &[1, 1], "y");
    assert_eq!(read(&file)?.nodes().len(), 1);
    Ok(())
}

#[test]
fn ranks() {
    let wide = [1; 65];
    exceeds(
        read(&model(&[node("Relu", &["x"], "y", &[])], &[], &wide, "y")),
        &["rank of a tensor", "at most 64", "65"],
    );
    let tensors = [floats("w", &wide, &[1.0])];
    exceeds(
        read(&model(&[node("Add", &["x", "w"], "y", &[])], &tensors, &[1, 1], "y")),
        &["rank of a tensor", "at most 64", "65"],
    );
    let axes: Vec<i64> = (1..64).collect();
    let nodes = [node("Unsqueeze", &["x", "a"], "y", &[])];
    exceeds(read(&model(&nodes, &[ints("a", &axes)], &[1, 1], "y")), &["rank of a tensor", "at most 64", "65"]);
}

#[test]
fn limits_of_the_caller() -> Result<()> {
    let file = small();
    let reader = OnnxReader::new;
    assert!(reader().with_max_bytes(file.len()).read(&file).is_ok());
    exceeds(
        reader().with_max_bytes(file.len() - 1).read(&file),
        &["bytes of the ONNX file", &format!("at most {}", file.len() - 1)],
    );
    assert!(reader().with_max_nodes(8).read(&file).is_ok());
    exceeds(reader().with_max_nodes(7).read(&file), &["number of nodes", "at most 7", "8"]);
    assert!(reader().with_max_elements(9).read(&file).is_ok());
    exceeds(reader().with_max_elements(8).read(&file), &["elements of a tensor", "at most 8", "[1, 1, 3, 3]", "\"w\""]);

    // One node that makes a run take much memory.
    let pads = ints("p", &[0, 0, 0, 0, 0, 0, 10_000, 10_000]);
    let pad = model(&[node("Pad", &["x", "p"], "y", &[])], &[pads], &[1, 1, 1, 1], "y");
    assert!(pad.len() < 150);
    exceeds(
        reader().with_max_elements(1 << 20).read(&pad),
        &["elements of a tensor", "at most 1048576", "[1, 1, 10001, 10001]"],
    );
    exceeds(reader().with_max_elements(1 << 20).with_input_shape("x", &[1, 1, 2000, 2000]).read(&pad), &["\"x\""]);

    let path = std::env::temp_dir().join(format!("limits_of_the_caller_{}.onnx", std::process::id()));
    std::fs::write(&path, &file).unwrap();
    let (found, long) = (reader().read_file(&path), reader().with_max_bytes(10).read_file(&path));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(found?, read(&file)?);
    exceeds(long, &["bytes", "at most 10"]);
    assert!(matches!(reader().read_file(&path), Err(Error::File(FileError::Io { .. }))));
    Ok(())
}

#[test]
fn truncated_files_say_so() {
    let file = small();
    for end in 1..file.len() {
        let text = read(&file[..end]).expect_err("a truncated file").to_string();
        let between_fields = [2, file.len() - 4].contains(&end);
        assert!(text.contains("truncated") || between_fields, "{end} of {} bytes: {text}", file.len());
    }
    exceeds(read(&[]), &["ONNX file"]);
    exceeds(read(&file[..file.len() - 4]), &["opset_import"]);
}

/// A constant that is an output of the graph is returned whole, for any batch.
#[test]
fn constant_outputs() -> Result<()> {
    for (dims, values) in [(&[][..], &[7.0f32][..]), (&[0], &[]), (&[1, 0], &[]), (&[3], &[1.0, 2.0, 3.0])] {
        let graph = read(&model(&[], &[floats("c", dims, values)], &[1, 1], "c"))?;
        let shape: Vec<usize> = dims.iter().map(|&len| len as usize).collect();
        let expected = Array::from_shape_vec(IxDyn(&shape), values.to_vec()).unwrap();
        for graph in [graph.clone().simplify()?, graph] {
            for batch in [1, 2] {
                assert_eq!(graph.run(&Array::<f32, _>::zeros((batch, 1)))?, expected);
            }
        }
    }
    exceeds(read(&model(&[], &[ints("c", &[1])], &[1, 1], "c")), &["\"c\"", "floats"]);
    Ok(())
}

/// A file with most operators and both ways to store tensors.
fn varied() -> Vec<u8> {
    let kernel = || int_list("kernel_shape", &[2, 2]);
    let nodes = [
        node("Pad", &["x", "pads"], "p", &[string("mode", "constant")]),
        node("MaxPool", &["p"], "m", &[kernel(), int_list("strides", &[1, 1])]),
        node("AveragePool", &["p"], "a", &[kernel(), string("auto_pad", "SAME_UPPER"), int("ceil_mode", 1)]),
        node("Resize", &["m", "", "scales"], "r", &[string("nearest_mode", "round_prefer_ceil")]),
        node("Concat", &["a", "p"], "j", &[int("axis", 1)]),
        node("BatchNormalization", &["j", "two", "two", "two", "two"], "b", &[]),
        node("Softmax", &["b"], "f", &[int("axis", 1)]),
        node("ReduceMean", &["f"], "q", &[int_list("axes", &[2, 3]), int("keepdims", 0)]),
        node("Mul", &["two", "two"], "k", &[]),
        node("Sub", &["q", "k"], "y", &[]),
    ];
    let tensors = [
        ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]),
        floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]),
        floats("two", &[2], &[1.0, 0.5]),
    ];
    model(&nodes, &tensors, &[0, 1, 3, 3], "y")
}

/// Replaced, inserted and removed bytes, one or several at once: no file panics or takes long.
#[test]
fn mutated_files_never_panic() {
    let graphs = [small(), varied()];
    assert!(graphs.iter().all(|file| read(file).is_ok()));
    let reader = OnnxReader::new().with_max_elements(1 << 16);
    let mut valid = 0;
    let mut check = |bytes: &[u8]| {
        if let Ok(graph) = reader.read(bytes).and_then(|graph| graph.simplify()) {
            valid += 1;
            let shape = graph.inputs().next().and_then(|x| graph.shape(x)).unwrap_or_default().to_vec();
            let _ = graph.run(&Array::<f32, _>::zeros(IxDyn(&shape)));
        }
    };
    for file in &graphs {
        for at in 0..file.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, file[at].wrapping_add(1), file[at].wrapping_sub(1)] {
                let mut bytes = file.clone();
                bytes[at] = byte;
                check(&bytes);
            }
            check(&[&file[..at], &file[at + 1..]].concat());
            check(&[&file[..at], &file[at..at + 1], &file[at..]].concat());
        }
        // Pairs of bytes, by a linear congruential generator.
        let mut state = 1u64;
        let mut random = |end: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % end
        };
        for _ in 0..5000 {
            let mut bytes = file.clone();
            for _ in 0..1 + random(3) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            check(&bytes);
        }
    }
    assert!(valid > 0);
}

/// Poolings whose shape inference visits every output.
#[test]
fn large_poolings() {
    let pool = |i: usize| {
        let input = if i == 0 { "x".to_string() } else { format!("p{i}") };
        node("MaxPool", &[&*input], &format!("p{}", i + 1), &[int_list("kernel_shape", &[1, 1])])
    };
    let nodes: Vec<Message> = (0..50).map(pool).collect();
    let _ = read(&model(&nodes, &[], &[1, 1, 1 << 28, 1], "p50"));
    // A dilation past the image would make it visit each.
    let dilated = [int_list("kernel_shape", &[2, 1]), int_list("dilations", &[3, 1])];
    let read = read(&model(&[node("MaxPool", &["x"], "y", &dilated)], &[], &[1, 1, 2, 1], "y"));
    exceeds(read, &["dilations = [3, 1]", "[1, 1, 2, 1]"]);
}
