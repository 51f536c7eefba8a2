//! Networks that ONNX Runtime's quantizer has quantized: outputs equal ONNX Runtime's.
//!
//! `generate.py` makes the networks and records the outputs. `QUANTIZED_NETWORKS=DIRECTORY` tests others than those beside
//! this file.
#![cfg(all(feature = "onnx", feature = "std"))]

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use ndarray_quant::graph::{Arena, CalibrationMethod, Graph, Mode, Precision, QuantizedNetwork};
use ndarray_quant::io::onnx::OnnxReader;

/// The networks of a folder whose names start with `prefix`.
fn networks(prefix: &str) -> Vec<PathBuf> {
    let folder = std::env::var_os("QUANTIZED_NETWORKS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quantized_onnx/networks"), PathBuf::from);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut paths: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ext| ext == "onnx") && name(path).contains(prefix))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no networks in {folder:?}");
    paths
}

/// The inputs that `generate.py` makes.
fn input(shape: &[usize], index: u32) -> ArrayD<f32> {
    let mut state = 12345 + 7919 * index;
    ArrayD::from_shape_simple_fn(shape, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    })
}

/// Outputs of all inputs, and ONNX Runtime's.
fn outputs(path: &Path) -> (Vec<f32>, Vec<f32>) {
    let network = QuantizedNetwork::from_onnx(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let bytes = std::fs::read(path.with_extension("bin")).unwrap();
    let expected: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let graph = network.graph();
    let shape = graph.shape(graph.inputs().next().unwrap()).unwrap().to_vec();
    let len: usize = graph.shape(&graph.outputs()[0]).unwrap().iter().product();
    let mut arena = Arena::new();
    let run = |index| network.run_with(&input(&shape, index as u32), &mut arena).unwrap().into_iter();
    ((0..expected.len() / len).flat_map(run).collect(), expected)
}

fn check(prefix: &str) {
    let mut wrong = Vec::new();
    for path in networks(prefix) {
        let (found, expected) = outputs(&path);
        let bits = |x: &f32| x.to_bits();
        let differing = found.iter().zip(&expected).filter(|(a, b)| bits(a) != bits(b)).count();
        let greatest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{differing:5} of {} differ by up to {greatest}: {path:?}", expected.len());
        // ONNX Runtime computes nodes between tensors of `i8` that several nodes read in float.
        let allowed = if prefix == "qdq" && path.to_string_lossy().contains("i8i8") { expected.len() / 50 } else { 0 };
        if differing > allowed {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn qdq_networks_compute_what_onnx_runtime_computes() {
    check("qdq");
}

#[test]
fn networks_of_operators_on_codes_compute_what_onnx_runtime_computes() {
    check("qop");
}

#[test]
fn dynamically_quantized_networks_compute_what_onnx_runtime_computes() {
    check("dynamic");
}

/// Weights in blocks along the depth stay codes. Sums of floats are in another order than ONNX Runtime's.
#[test]
fn networks_with_weights_in_blocks_compute_what_onnx_runtime_computes() {
    for path in networks("groups") {
        let (found, expected) = outputs(&path);
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let greatest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("differ by up to {greatest} of {largest}: {path:?}");
        assert!(greatest <= 2e-6 * largest, "{path:?}: {greatest} of {largest}");
        let mode = if path.to_string_lossy().contains("int8") { Mode::DynamicRange } else { Mode::WeightOnly };
        let modes = QuantizedNetwork::from_onnx(&path).unwrap().modes();
        assert_eq!(modes.iter().filter(|node| node.mode == mode).count(), 2, "{path:?}: {modes:?}");
    }
}

/// The networks of this folder, and float networks that are calibrated and quantized here, all written as QDQ.
///
/// `EXPORTED=DIRECTORY` keeps the files and the outputs, so that `compare.py` can compare them with ONNX Runtime's.
#[test]
fn written_networks_are_the_same_networks() {
    let exported = std::env::var_os("EXPORTED").map(PathBuf::from);
    let mut arena = Arena::new();
    for path in networks("") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let network = match name.ends_with("float") {
            true => quantized_here(&path),
            false => QuantizedNetwork::from_onnx(&path).unwrap(),
        };
        let bytes = network.to_onnx().unwrap();
        let again = QuantizedNetwork::from_onnx_bytes(&bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let graph = network.graph();
        let shape = graph.shape(graph.inputs().next().unwrap()).unwrap().to_vec();
        let mut outputs = Vec::new();
        for index in 0..20 {
            let x = input(&shape, index);
            let y = network.run_with(&x, &mut arena).unwrap();
            assert_eq!(y, again.run_with(&x, &mut arena).unwrap(), "{path:?}");
            outputs.extend(y.iter().flat_map(|y| y.to_le_bytes()));
        }
        if let Some(folder) = &exported {
            std::fs::write(folder.join(&name).with_extension("onnx"), bytes).unwrap();
            std::fs::write(folder.join(&name).with_extension("bin"), outputs).unwrap();
        }
    }
}

/// Calibrates and quantizes a float network, with codes as output.
fn quantized_here(path: &Path) -> QuantizedNetwork {
    let graph = Graph::from_onnx(path).unwrap().simplify().unwrap();
    let shape = graph.shape(graph.inputs().next().unwrap()).unwrap().to_vec();
    let samples: Vec<_> = (1000..1016).map(|index| input(&shape, index)).collect();
    let calibration = graph.calibrate(samples.iter().map(|x| x.view())).unwrap();
    let mut recipe = calibration.recipe(&graph, CalibrationMethod::MinMax).unwrap();
    recipe.tensor_mut(&graph.outputs()[0]).unwrap().precision = Precision::Int8;
    graph.quantize(&recipe).unwrap()
}

/// Nodes that a file leaves in float are listed with a reason.
#[test]
fn nodes_in_float_are_listed() {
    let modes = |name: &str| {
        let path = networks(name).remove(0);
        QuantizedNetwork::from_onnx(path).unwrap().modes()
    };
    assert!(modes("image_qdq_u8u8").iter().all(|node| node.mode == Mode::Integer && node.why.is_none()));
    assert!(modes("sequence_qop_u8u8").iter().all(|node| node.mode == Mode::Integer));
    for node in modes("image_dynamic") {
        assert_ne!(node.mode, Mode::Integer);
        assert!(node.why.unwrap().ends_with("is Float32"));
    }
}

/// A reader of float networks says what to do with a quantized one.
#[test]
fn quantized_networks_are_not_read_as_float_networks() {
    for path in networks("vector_").into_iter().filter(|path| !path.to_string_lossy().contains("float")) {
        let error = Graph::from_onnx(&path).unwrap_err().to_string();
        assert!(error.contains("already quantized") && error.contains("QuantizedNetwork::from_onnx"), "{error}");
    }
}

#[cfg(feature = "safetensors")]
#[test]
fn networks_are_saved_and_loaded() {
    let mut arena = Arena::new();
    for path in networks("image_q") {
        let network = QuantizedNetwork::from_onnx(&path).unwrap();
        let loaded = QuantizedNetwork::from_safetensors(&network.to_safetensors().unwrap()).unwrap();
        let x = input(&[1, 3, 10, 10], 0);
        assert_eq!(loaded.run_with(&x, &mut arena), network.run_with(&x, &mut arena), "{path:?}");
    }
}

/// Bytes that are changed at random give a network or an error.
#[test]
fn damaged_files_do_not_panic() {
    let reader = OnnxReader::new().with_max_elements(1 << 12);
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for name in ["image_qop_u8u8", "vector_qdq_i8i8", "vector_dynamic_u8", "sequence_qop_i8i8"] {
        let Some(path) = networks("").into_iter().find(|path| path.file_stem().unwrap() == name) else { continue };
        let bytes = std::fs::read(path).unwrap();
        for _ in 0..200 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            if let Ok((graph, recipe)) = reader.read_quantized(&bytes) {
                let _ = graph.quantize(&recipe).map(|network| network.to_onnx());
            }
        }
    }
}
