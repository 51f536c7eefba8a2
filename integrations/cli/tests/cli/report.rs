use crate::folder::Folder;

fn quantized(more: &[&str]) -> Folder {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[20, 3, 8, 8]);
    let args = ["quantize", "image.onnx", "-o", "q.safetensors", "--calibration-data", "x.npy"];
    let args = [&args[..], &["--calibrate-method", "minmax"]].concat();
    folder.succeeds(&[&args[..], more].concat());
    folder
}

#[test]
fn prints_layers_and_outputs() {
    let folder = quantized(&[]);
    let text = folder.succeeds(&["report", "image.onnx", "q.safetensors", "--data", "x.npy"]);
    for part in ["Layers, on 8 samples:\n", "node ", "\nr ", "Outputs, on 20 samples:\n", "\ny ", "\nWeights: "] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let text = folder.succeeds(&["report", "image.onnx", "q.safetensors", "--data", "x.npy", "--worst", "1"]);
    assert_eq!(
        text.lines().skip_while(|line| !line.starts_with("node")).take_while(|line| !line.is_empty()).count(),
        2
    );
}

#[test]
fn writes_json_and_svg() {
    let folder = quantized(&[]);
    let args = ["report", "image.onnx", "q.safetensors", "--data", "x.npy", "--samples", "12"];
    let text = folder.succeeds(&[&args[..], &["--json", "-", "--svg", "layers.svg"]].concat());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["samples"], 12);
    assert_eq!(json["outputs"][0]["output"], "y");
    assert!(json["outputs"][0]["sqnr_db"].as_f64().unwrap() > 20.0, "{text}");
    assert_eq!(json["layers"]["layers"].as_array().unwrap().len(), 4);
    assert!(folder.read("layers.svg").starts_with("<svg "));
}

/// Equalized weights are not the float network's, so that only the outputs can be compared.
#[test]
fn an_equalized_network() {
    let folder = quantized(&["--equalize"]);
    let text = folder.succeeds(&["report", "image.onnx", "q.safetensors", "--data", "x.npy"]);
    assert!(text.contains("Outputs, on 20 samples:\n"), "{text}");
    let args = ["report", "image.onnx", "--calibration-data", "x.npy", "--data", "x.npy"];
    let text = folder.succeeds(&args);
    assert!(text.starts_with("Layers, on 8 samples:\n"), "{text}");
    let text = folder.succeeds(&[&args[..], &["--calibrate-method", "minmax", "--equalize"]].concat());
    assert!(text.starts_with("Layers, on 8 samples:\n"), "{text}");
}

#[test]
fn quantizes_first_without_a_quantized_network() {
    let folder = quantized(&[]);
    let text = folder.succeeds(&["report", "image.onnx", "--mode", "dynamic", "--data", "x.npy"]);
    assert!(text.contains("Outputs, on 20 samples:\n"), "{text}");
    let error = folder.fails(2, &["report", "image.onnx", "q.safetensors", "--mode", "dynamic", "--data", "x.npy"]);
    assert!(error.contains("cannot be used with"), "{error}");
    let error = folder.fails(1, &["report", "image.onnx", "q.safetensors"]);
    assert!(error.contains("give --data FILE or FOLDER, or --random-data N"), "{error}");
}
