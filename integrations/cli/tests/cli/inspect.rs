use crate::folder::{Folder, image_network, unsupported};

#[test]
fn prints_operators_and_sizes_and_runs_once() {
    let folder = Folder::with_network();
    let text = folder.succeeds(&["inspect", "image.onnx"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [
        &["input", "x", "undefined", "n", "x", "3", "x", "8", "x", "8"][..],
        &["operator", "nodes", "weights"],
        &["Conv", "1", "864", "B"],
        &["Gemm", "1", "144", "B"],
        &["all", "5", "1.01", "kB"],
    ] {
        assert!(lines.contains(&line.to_vec()), "{line:?} in\n{text}");
    }
    assert!(text.contains("after folding and fusion: 4 nodes, 2 of them with weights to quantize"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("ran on zeros in "), "{text}");
    assert!(text.ends_with(" ms: y 1x4\n"), "{text}");
}

#[test]
fn writes_json() {
    let folder = Folder::with_network();
    let text = folder.succeeds(&["inspect", "image.onnx", "--json", "-"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["opset"], 13);
    assert_eq!(json["operators"].as_array().unwrap().len(), 5);
    assert_eq!(json["run"]["layers"], 2);
    assert_eq!(json["error"], serde_json::Value::Null);
}

#[test]
fn a_quantized_network_has_its_nodes_in_float_listed() {
    let folder = Folder::with_network();
    folder.succeeds(&["quantize", "image.onnx", "-o", "q.onnx", "--mode", "dynamic"]);
    let text = folder.succeeds(&["inspect", "q.onnx"]);
    assert!(text.contains("already quantized; after fusion: "), "{text}");
    assert!(text.contains(": dynamic range, because its input "), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&folder.succeeds(&["inspect", "q.onnx", "--json", "-"])).unwrap();
    assert!(json["run"]["weights"]["quantized_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn asks_for_the_shape_of_an_input() {
    let folder = Folder::new();
    folder.write("any.onnx", &image_network(0));
    let output = folder.run(&["inspect", "any.onnx"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "inputs have no fixed shape in the file; add --input x=1x3xNxN";
    assert_eq!(error, format!("ndarray-quant: any.onnx: {expected}\n"));
    // The operators are listed all the same.
    assert!(String::from_utf8(output.stdout).unwrap().contains("GlobalAveragePool"));
    let text = folder.succeeds(&["inspect", "any.onnx", "--input", "x=1x3x12x16"]);
    assert!(text.ends_with("y 1x4\n"), "{text}");
    let error = folder.fails(1, &["inspect", "any.onnx", "--input", "images=1x3x12x16"]);
    assert!(error.contains("--input: the network has no input \"images\"; its inputs: \"x\""), "{error}");
}

#[test]
fn names_all_that_is_not_supported() {
    let folder = Folder::new();
    folder.write("strange.onnx", &unsupported());
    let output = folder.run(&["inspect", "strange.onnx", "--json", "found.json"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "ndarray-quant: strange.onnx: 3 nodes are not supported
  Frobnicate: the operator is not implemented (2 nodes, such as \"a\")
  GridSample: the operator is not implemented (1 node \"c\")
";
    assert_eq!(error, expected);
    assert!(String::from_utf8(output.stdout).unwrap().contains("Frobnicate"));
    let json: serde_json::Value = serde_json::from_str(&folder.read("found.json")).unwrap();
    assert!(json["error"].as_str().unwrap().contains("GridSample"));
}
