use crate::folder::Folder;

#[test]
fn times_networks_side_by_side() {
    let folder = Folder::with_network();
    folder.succeeds(&["quantize", "image.onnx", "-o", "q.safetensors", "--mode", "dynamic"]);
    let args = ["bench", "image.onnx", "q.safetensors", "--repeat", "5", "--threads", "1"];
    let text = folder.succeeds(&args);
    assert!(text.starts_with("5 runs of 1 sample, on 1 thread; times in milliseconds\n\nmodel "), "{text}");
    assert!(text.contains("\nimage.onnx ") && text.contains("\nq.safetensors "), "{text}");
    let text = folder.succeeds(&[&args[..], &["--json", "-", "--batch", "3"]].concat());
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[1]["runs"], 5);
    assert!(rows[0]["min"].as_f64() <= rows[0]["p50"].as_f64() && rows[0]["p50"].as_f64() <= rows[0]["max"].as_f64());
    assert_eq!(rows[0]["speed"], 1.0);
    folder.npy("x.npy", &[2, 3, 8, 8]);
    let error = folder.fails(1, &["bench", "image.onnx", "--data", "x.npy", "--batch", "3"]);
    assert!(error.contains("--batch 3: found 2 samples"), "{error}");
}
