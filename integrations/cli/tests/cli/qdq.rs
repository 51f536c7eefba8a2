//! Quantized networks in ONNX files.

use ndarray::ArrayD;
use ndarray_quant::io::onnx::OnnxReader;

use crate::folder::{Folder, arg_max, image_network};

/// A folder with a network, samples, and the network quantized as `q.onnx` and `q.safetensors`.
fn quantized(more: &[&str]) -> Folder {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[20, 3, 8, 8]);
    for output in ["q.onnx", "q.safetensors"] {
        folder.succeeds(&[&["quantize", "image.onnx", "-o", output][..], more].concat());
    }
    folder
}

const STATIC: [&str; 4] = ["--calibration-data", "x.npy", "--calibrate-method", "minmax"];

fn run(folder: &Folder, model: &str) -> ArrayD<f32> {
    folder.succeeds(&["run", model, "--data", "x.npy", "--output", "y.npy"]);
    ndarray_npy::read_npy(folder.path("y.npy")).unwrap()
}

#[test]
fn every_mode_is_written_and_runs_as_the_safetensors_file() {
    let int4 = [&STATIC[..], &["--weight-type", "int4"]].concat();
    for mode in [&STATIC[..], &["--mode", "dynamic"], &["--mode", "float16"], &int4] {
        let folder = quantized(mode);
        let [found, expected] = ["q.onnx", "q.safetensors"].map(|model| run(&folder, model));
        assert_eq!(found.shape(), [20, 4]);
        // A file has biases in units of the accumulator, and one dynamic range for all rows.
        let db = ndarray_quant::metrics::sqnr_db(&found, &expected).unwrap();
        assert!(db > 40.0, "{mode:?}: {db} dB");
    }
}

#[test]
fn the_format_is_named_or_follows_from_the_extension() {
    let folder = quantized(&STATIC);
    let args = ["quantize", "image.onnx", "-o", "network", "--mode", "dynamic", "--format", "onnx"];
    let text = folder.succeeds(&args);
    assert!(text.contains("\nnetwork: "), "{text}");
    for (name, operator) in [("q.onnx", "QuantizeLinear"), ("network", "DynamicQuantizeLinear")] {
        let model = OnnxReader::new().describe_file(folder.path(name)).unwrap();
        assert!(model.is_quantized && model.operators.iter().any(|found| found.name == operator), "{model:?}");
    }
    let before = std::fs::read(folder.path("image.onnx")).unwrap();
    let error = folder.fails(1, &["quantize", "image.onnx", "-o", "./image.onnx", "--mode", "dynamic"]);
    assert_eq!(error, "ndarray-quant: --output ./image.onnx: expected another file than the model\n");
    assert_eq!(std::fs::read(folder.path("image.onnx")).unwrap(), before);
}

#[test]
fn what_cannot_be_written_is_an_error_first() {
    let folder = Folder::new();
    folder.write("scores.onnx", &arg_max());
    // The data is not read.
    let args = ["quantize", "scores.onnx", "-o", "q.onnx", "--calibration-data", "missing.npy"];
    let error = folder.fails(1, &[&args[..], &["--save-recipe", "r.json"]].concat());
    let expected = "ndarray-quant: q.onnx: 2 nodes are not supported
  ArgMax: it has no form in ONNX files (2 nodes, such as \"a\")
";
    assert_eq!(error, expected);
    assert!(!folder.path("q.onnx").exists() && !folder.path("r.json").exists());
    folder.succeeds(&["quantize", "scores.onnx", "-o", "q.safetensors", "--mode", "dynamic"]);
}

#[test]
fn report_and_bench_read_it() {
    let folder = quantized(&STATIC);
    let args = ["report", "image.onnx", "q.onnx", "--data", "x.npy", "--json", "-"];
    let json: serde_json::Value = serde_json::from_str(&folder.succeeds(&args)).unwrap();
    let layers = json["layers"]["layers"].as_array().unwrap();
    let ops: Vec<_> = layers.iter().map(|layer| layer["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["Conv", "GlobalAveragePool", "Reshape", "Linear"]);
    assert!(layers.iter().all(|layer| layer["local"]["sqnr_db"].as_f64().unwrap() > 20.0), "{json}");
    let args = ["bench", "image.onnx", "q.onnx", "q.safetensors", "--repeat", "2", "--json", "-"];
    let rows: serde_json::Value = serde_json::from_str(&folder.succeeds(&args)).unwrap();
    assert_eq!(rows[1]["bytes"], rows[2]["bytes"]);

    let error = folder.fails(1, &["report", "image.onnx", "image.onnx", "--data", "x.npy"]);
    assert!(error.contains("image.onnx: expected a quantized network, found a float one"), "{error}");
    let error = folder.fails(1, &["quantize", "q.onnx", "-o", "p.onnx", "--mode", "dynamic"]);
    assert!(error.contains("q.onnx: ONNX file: expected a float network, found a network that is already"), "{error}");
}

#[test]
fn layers_of_equalized_weights_are_not_compared() {
    let folder = quantized(&[&STATIC[..], &["--equalize"]].concat());
    let text = folder.succeeds(&["report", "image.onnx", "q.onnx", "--data", "x.npy"]);
    assert!(text.starts_with("Layers: not compared: the weights were equalized"), "{text}");
    assert!(text.contains("Outputs, on 20 samples:\n"), "{text}");
    let error = folder.fails(1, &["report", "image.onnx", "q.onnx", "--data", "x.npy", "--svg", "layers.svg"]);
    assert!(error.contains("--svg: the layers cannot be compared: the weights were equalized"), "{error}");
}

/// A network whose inputs have no shape takes one with each command; a quantized file has all shapes.
#[test]
fn shapes_of_inputs() {
    let folder = Folder::new();
    folder.write("any.onnx", &image_network(0));
    let shape = ["--input", "x=1x3x8x8"];
    folder.succeeds(&[&["quantize", "any.onnx", "-o", "q.onnx", "--mode", "dynamic"][..], &shape].concat());
    folder.npy("x.npy", &[2, 3, 8, 8]);
    folder.succeeds(&["run", "q.onnx", "--data", "x.npy"]);
    folder.succeeds(&[&["report", "any.onnx", "q.onnx", "--data", "x.npy"][..], &shape].concat());
    folder.succeeds(&[&["bench", "any.onnx", "q.onnx", "--repeat", "1"][..], &shape].concat());
}
