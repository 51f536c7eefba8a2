use ndarray::{Array2, ArrayD};

use crate::folder::{Folder, samples, two_inputs};

#[test]
fn writes_and_summarizes_outputs() {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[11, 3, 8, 8]);
    let text = folder.succeeds(&["run", "image.onnx", "--data", "x.npy", "--output", "y.npy", "--batch", "4"]);
    let line = text.lines().nth(1).unwrap();
    assert!(text.starts_with("output") && line.starts_with("y ") && line.contains("11x4"), "{text}");
    let y: Array2<f32> = ndarray_npy::read_npy(folder.path("y.npy")).unwrap();
    let graph = ndarray_quant::graph::Graph::from_onnx(folder.path("image.onnx")).unwrap().simplify().unwrap();
    let expected = graph.run(&samples(&[11, 3, 8, 8])).unwrap();
    assert_eq!(y.shape(), expected.shape());
    assert!((&y.into_dyn() - &expected).iter().all(|diff| diff.abs() < 1e-5));

    let top = folder.succeeds(&["run", "image.onnx", "--data", "x.npy", "--samples", "2", "--top", "3"]);
    assert_eq!(top.lines().count(), 1 + 2 * 3, "{top}");
}

#[test]
fn runs_a_quantized_network() {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[11, 3, 8, 8]);
    folder.succeeds(&["quantize", "image.onnx", "-o", "q.safetensors", "--calibration-data", "x.npy"]);
    folder.succeeds(&["run", "q.safetensors", "--data", "x.npy", "--output", "y.npz"]);
    let mut file = ndarray_npy::NpzReader::new(std::fs::File::open(folder.path("y.npz")).unwrap()).unwrap();
    let y: ArrayD<f32> = file.by_name("y").unwrap();
    assert_eq!(y.shape(), [11, 4]);
    let error = folder.fails(1, &["run", "q.safetensors", "--data", "x.npy", "--output", "y.csv"]);
    assert!(error.contains("y.csv: expected the name of a .npy or .npz file"), "{error}");
}

#[test]
fn two_inputs_by_name() {
    let folder = Folder::new();
    folder.write("two.onnx", &two_inputs());
    folder.npy("a.npy", &[5, 6]);
    let text = folder.succeeds(&["run", "two.onnx", "--data", "a=a.npy", "--data", "b=a.npy"]);
    assert!(text.contains("5x2"), "{text}");
}
