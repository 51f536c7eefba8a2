//! Saving and loading networks, and files that are malformed.

use super::*;

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
    let format = |e: Error| assert!(matches!(e, Error::Format { .. }), "{e:?}");
    format(replaced("ndarray-quant", "ndarray-quart"));
    format(replaced("\\\"version\\\":1", "\\\"version\\\":2"));
    format(replaced("\"dtype\":\"I8\"", "\"dtype\":\"U8\""));
    let node = replaced("\\\"groups\\\":16", "\\\"groups\\\":17");
    assert!(matches!(node, Error::Node { .. }), "{node:?}");
}
