//! Saving and loading networks, and files that are malformed.

use super::*;
use ndarray_quant::error::{FileError, GraphError};

fn mixed(graph: &Graph, x: &ArrayD<f32>) -> QuantizedNetwork {
    let mut recipe = calibrated(graph, x);
    recipe.tensor_mut("grouped.weight").unwrap().precision = Precision::Int4;
    recipe.tensor_mut("project.weight").unwrap().precision = Precision::Float16;
    recipe.float_layers.insert("swish".into());
    graph.quantize(&recipe).unwrap()
}

#[test]
fn networks_come_back_as_they_were() {
    let rng = &mut Pcg64Mcg::seed_from_u64(12);
    let graph = network(rng);
    let x = images(8, rng);
    let saved = mixed(&graph, &x);
    let bytes = saved.to_safetensors().unwrap();
    let loaded = QuantizedNetwork::from_safetensors(&bytes).unwrap();
    assert_eq!(loaded.run(&x).unwrap(), saved.run(&x).unwrap());
    assert_eq!(loaded.recipe(), saved.recipe());
    assert_eq!(loaded.size_in_bytes(), saved.size_in_bytes());
    assert_eq!(loaded.weights_size_in_bytes(), saved.weights_size_in_bytes());
    assert_eq!(loaded.to_safetensors().unwrap(), bytes);
    assert_eq!(saved.file_size().unwrap(), bytes.len());
}

#[test]
fn hostile_files_are_errors() {
    let rng = &mut Pcg64Mcg::seed_from_u64(13);
    let graph = network(rng);
    let x = images(2, rng);
    let bytes = mixed(&graph, &x).to_safetensors().unwrap();
    for end in (0..bytes.len()).step_by(37) {
        assert!(QuantizedNetwork::from_safetensors(&bytes[..end]).is_err());
    }
    // Flipped bits in the header and in tensors give an error, or a network whose run returns without a panic.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in (0..header).step_by(5).chain((header..bytes.len()).step_by(211)) {
        let mut hostile = bytes.clone();
        hostile[at] ^= 1 << (at % 7);
        if let Ok(network) = QuantizedNetwork::from_safetensors(&hostile) {
            let _ = network.run(&x);
        }
    }
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap_or_else(|| panic!("{from}"));
        let mut hostile = bytes.clone();
        hostile[at..at + to.len()].copy_from_slice(to.as_bytes());
        QuantizedNetwork::from_safetensors(&hostile).expect_err(from)
    };
    let format = |e: Error| assert!(matches!(e, Error::File(FileError::Format { .. })), "{e:?}");
    format(replaced("ndarray-quant", "ndarray-quart"));
    format(replaced("\\\"version\\\":1", "\\\"version\\\":2"));
    format(replaced("\"dtype\":\"I8\"", "\"dtype\":\"U8\""));
    let node = replaced("\\\"groups\\\":16", "\\\"groups\\\":17");
    assert!(matches!(node, Error::Graph(GraphError::Node { .. })), "{node:?}");
}

/// Replaces the structure of the network in a file.
fn with_structure(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, tensors) = bytes[8..].split_at(len);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let text = header["__metadata__"].as_object_mut().unwrap().values_mut().next().unwrap();
    let mut structure = serde_json::from_str(text.as_str().unwrap()).unwrap();
    change(&mut structure);
    *text = structure.to_string().into();
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), &header[..], tensors].concat()
}

/// The structure of a network of many nodes takes little beside its weights.
#[test]
fn files_are_little_larger_than_the_network() {
    let rng = &mut Pcg64Mcg::seed_from_u64(22);
    let mut g = GraphBuilder::new();
    let mut y = g.input("x", &[1, 32, 8, 8]).unwrap();
    for i in 0..100 {
        let bias = random(32, rng);
        let w = random((32, 32, 1, 1), rng) * 0.2;
        y = g.conv(&format!("layer.{i}.conv"), y, &w, Some(&bias), Window::new(), 1).unwrap();
        y = g.activation(&format!("layer.{i}.swish"), y, Activation::HardSwish).unwrap();
    }
    let graph = g.build(&[y]).unwrap();
    let recipe = calibrated(&graph, &random(IxDyn(&[1, 32, 8, 8]), rng));
    let network = graph.quantize(&recipe).unwrap();
    let (file, weights) = (network.file_size().unwrap(), network.weights_size_in_bytes());
    assert!(file < weights * 170 / 100, "{file} {weights}");
}

#[test]
fn structures_with_wrong_indices_are_errors() {
    let rng = &mut Pcg64Mcg::seed_from_u64(23);
    let graph = network(rng);
    let bytes = mixed(&graph, &images(2, rng)).to_safetensors().unwrap();
    for path in ["/nodes/0/0", "/nodes/0/1/0", "/nodes/0/2", "/outputs/0", "/inputs/0/0", "/recipe/0/1/0/1"] {
        let hostile = with_structure(&bytes, |s| *s.pointer_mut(path).unwrap() = 1_000_000.into());
        let error = QuantizedNetwork::from_safetensors(&hostile).unwrap_err();
        assert!(matches!(error, Error::File(FileError::Format { .. })), "{path}: {error}");
    }
}

#[test]
fn clamps_of_nodes_that_have_none_are_errors() {
    let rng = &mut Pcg64Mcg::seed_from_u64(17);
    let graph = network(rng);
    let x = images(2, rng);
    let bytes = mixed(&graph, &x).to_safetensors().unwrap();
    assert!(QuantizedNetwork::from_safetensors(&with_structure(&bytes, |_| ())).is_ok());
    let hostile = with_structure(&bytes, |structure| {
        let ops = structure["ops"].clone();
        let nodes = structure["nodes"].as_array_mut().unwrap();
        let is = |node: &serde_json::Value, op| ops[node[0].as_u64().unwrap() as usize].get(op).is_some();
        let clamp = nodes.iter().find(|node| is(node, "Conv")).unwrap()[3].clone();
        let pool = nodes.iter_mut().find(|node| is(node, "MaxPool")).unwrap();
        assert_ne!(pool[3], clamp, "the convolution has a clamp, the pooling has none");
        pool[3] = clamp;
    });
    let error = QuantizedNetwork::from_safetensors(&hostile).unwrap_err();
    assert!(error.to_string().contains("clamp"), "{error}");
}
