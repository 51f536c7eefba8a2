//! The crate against recorded outputs of established systems, see `tests/conformance/README.md`.

#[path = "conformance/runner/mod.rs"]
mod runner;

use std::collections::BTreeMap;
use std::path::Path;

use runner::{Report, Store};

/// Source, operation, and the least number of cases that must pass, so that coverage cannot shrink unnoticed.
const COVERED: [(&str, &str, usize); 80] = [
    ("gemmlowp_np", "multiply_by_quantized_multiplier", 2),
    ("gemmlowp_np", "quantize_multiplier", 1),
    ("gemmlowp_np", "rounding_divide_by_pot", 1),
    ("gemmlowp_np", "saturating_rounding_doubling_high_mul", 1),
    ("ggml", "gguf_quantize", 17),
    ("gguf", "gguf_dequantize", 43),
    ("gguf", "gguf_quantize", 27),
    ("litert", "add", 3),
    ("litert", "average_pool_2d", 2),
    ("litert", "conv_2d", 4),
    ("litert", "depthwise_conv_2d", 4),
    ("litert", "dequantize", 6),
    ("litert", "fully_connected", 5),
    ("litert", "logistic", 2),
    ("litert", "mul", 3),
    ("litert", "quantize", 6),
    ("litert", "requantize", 3),
    ("litert", "requantize_acc", 5),
    ("litert_xnn", "conv_2d", 4),
    ("litert_xnn", "depthwise_conv_2d", 4),
    ("litert_xnn", "fully_connected", 5),
    ("litert_xnn", "requantize_acc", 5),
    ("ml_dtypes", "decode", 20),
    ("ml_dtypes", "encode", 26),
    ("onnx_node", "cast", 29),
    ("onnx_node", "conv_integer", 1),
    ("onnx_node", "dequantize_linear", 8),
    ("onnx_node", "dynamic_quantize_linear", 2),
    ("onnx_node", "matmul_integer", 1),
    ("onnx_node", "qlinear_conv", 1),
    ("onnx_node", "qlinear_matmul", 5),
    ("onnx_node", "quantize_linear", 8),
    ("onnx_ref", "cast", 8),
    ("onnx_ref", "conv_integer", 3),
    ("onnx_ref", "dequantize_linear", 10),
    ("onnx_ref", "dynamic_quantize_linear", 3),
    ("onnx_ref", "matmul_integer", 6),
    ("onnx_ref", "qlinear_conv", 3),
    ("onnx_ref", "qlinear_matmul", 6),
    ("onnx_ref", "quantize_linear", 14),
    ("ort", "cast", 8),
    ("ort", "conv_integer", 4),
    ("ort", "dequantize_linear", 29),
    ("ort", "dequantize_nbits", 10),
    ("ort", "dynamic_quantize_linear", 9),
    ("ort", "matmul_integer", 17),
    ("ort", "matmul_nbits", 14),
    ("ort", "qlinear_add", 10),
    ("ort", "qlinear_average_pool", 8),
    ("ort", "qlinear_conv", 18),
    ("ort", "qlinear_global_average_pool", 6),
    ("ort", "qlinear_matmul", 22),
    ("ort", "qlinear_mul", 10),
    ("ort", "qlinear_sigmoid", 4),
    ("ort", "quantize_linear", 33),
    ("tflite", "add", 3),
    ("tflite", "average_pool_2d", 2),
    ("tflite", "conv_2d", 4),
    ("tflite", "depthwise_conv_2d", 4),
    ("tflite", "dequantize", 6),
    ("tflite", "fully_connected", 6),
    ("tflite", "logistic", 2),
    ("tflite", "mul", 3),
    ("tflite", "quantize", 6),
    ("tflite", "requantize", 3),
    ("tflite", "requantize_acc", 5),
    ("torch", "cast", 17),
    ("torch", "choose_qparams", 8),
    ("torch", "decode", 10),
    ("torch", "dequantize_per_channel", 18),
    ("torch", "dequantize_per_tensor", 12),
    ("torch", "fake_quantize", 31),
    ("torch", "fake_quantize_learnable", 30),
    ("torch", "observer_histogram", 12),
    ("torch", "observer_min_max", 20),
    ("torch", "observer_moving_average", 8),
    ("torch", "observer_moving_average_per_channel", 4),
    ("torch", "observer_per_channel_min_max", 8),
    ("torch", "quantize_per_channel", 18),
    ("torch", "quantize_per_tensor", 24),
];

fn run_archive(source: &str) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(format!("{source}.tar.gz"));
    let store = Store::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut report = Report::default();
    runner::run(&store, &mut report);
    report
}

#[test]
fn recorded_outputs_are_reproduced() {
    let mut required: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    for (source, op, cases) in COVERED {
        required.entry(source).or_default().push((op, cases));
    }
    for (source, ops) in required {
        let report = run_archive(source);
        assert_eq!(report.total().failed, 0, "{report}");
        // Informative cases are not in the total.
        assert_eq!(report.total().not_covered, 0, "{report}");
        for (op, cases) in ops {
            let passed = report.counts().find(|row| (row.0, row.1) == (source, op)).map_or(0, |row| row.2.passed);
            assert!(passed >= cases, "{source}/{op}: {passed} of at least {cases} passed\n{report}");
        }
    }
}

/// Builds one case of `quantize_linear`, whose files a test can damage.
fn small_case() -> BTreeMap<String, Vec<u8>> {
    let tensor = |name: &str, dtype: &str, shape: &str| {
        format!(r#"{{"name":"{name}","file":"{name}.npy","dtype":"{dtype}","shape":{shape}"#)
    };
    let json = format!(
        r#"{{"format":1,"id":"ort/quantize_linear/small","op":"quantize_linear","attrs":{{"axis":null}},
            "inputs":[{}}},{}}},{}}}],"outputs":[{},"compare":{{"kind":"exact"}}}}]}}"#,
        tensor("x", "f32", "[2]"),
        tensor("scale", "f32", "[]"),
        tensor("zero_point", "u8", "[]"),
        tensor("y", "u8", "[2]"),
    );
    let npy = |array: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        array(&mut bytes);
        bytes
    };
    use ndarray::{arr0, arr1};
    use ndarray_npy::WriteNpyExt;
    let write = "npy is written to memory";
    let file = |name: &str| format!("ort/quantize_linear/small/{name}");
    BTreeMap::from([
        (file("case.json"), json.into_bytes()),
        (file("x.npy"), npy(&|b| arr1(&[1.0f32, -1.0]).write_npy(b).expect(write))),
        (file("scale.npy"), npy(&|b| arr0(0.5f32).write_npy(b).expect(write))),
        (file("zero_point.npy"), npy(&|b| arr0(128u8).write_npy(b).expect(write))),
        (file("y.npy"), npy(&|b| arr1(&[130u8, 126]).write_npy(b).expect(write))),
    ])
}

/// Applies a change to the small case and returns the runner's verdict.
fn verdict(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> String {
    let mut files = small_case();
    change(&mut files);
    let mut report = Report::default();
    runner::run(&Store::Archive(files), &mut report);
    report.to_string()
}

/// Replaces a string in the small case's `case.json` and returns the runner's verdict.
fn edited(from: &str, to: &str) -> String {
    verdict(|files| {
        let json = files.get_mut("ort/quantize_linear/small/case.json").expect("a file of the case");
        let text = String::from_utf8_lossy(json).replace(from, to);
        assert_ne!(text.as_bytes(), json.as_slice(), "{from} is in case.json");
        *json = text.into_bytes();
    })
}

fn assert_says(report: &str, total: &str, reason: &str) {
    assert!(report.ends_with(total), "expected {total}\n{report}");
    assert!(report.contains(reason), "expected {reason}\n{report}");
}

const PASSED: &str = "\n1 passed, 0 failed, 0 not covered";
const FAILED: &str = "\n0 passed, 1 failed, 0 not covered";
const NOT_COVERED: &str = "\n0 passed, 0 failed, 1 not covered";

#[test]
fn an_intact_case_passes() {
    assert_says(&verdict(|_| {}), PASSED, "quantize_linear");
}

#[test]
fn the_first_difference_is_named() {
    let report = verdict(|files| {
        let y = files.get_mut("ort/quantize_linear/small/y.npy").expect("a file of the case");
        *y.last_mut().expect("a code") = 7;
    });
    assert_says(&report, FAILED, "ort/quantize_linear/small: y[1]: expected 7, got 126");
}

#[test]
fn a_damaged_case_fails_with_its_reason() {
    for missing in ["x.npy", "scale.npy", "y.npy"] {
        let report = verdict(|files| drop(files.remove(&format!("ort/quantize_linear/small/{missing}"))));
        assert_says(&report, FAILED, missing);
    }
    let truncated = verdict(|files| {
        files.get_mut("ort/quantize_linear/small/x.npy").expect("a file of the case").pop();
    });
    assert_says(&truncated, FAILED, "x.npy: not readable as npy");
    let not_json = verdict(|files| drop(files.insert("ort/quantize_linear/small/case.json".into(), b"{".to_vec())));
    assert_says(&not_json, FAILED, "ort/quantize_linear/small: case.json: EOF");
    let promised = verdict(|files| {
        let index = br#"[{"path":"ort/cast/gone"}]"#;
        files.insert("index.json".into(), index.to_vec());
    });
    assert_says(&promised, "\n1 passed, 1 failed, 0 not covered", "ort/cast/gone: case.json: entity not found");
    assert_says(
        &edited(r#""shape":[2],"compare""#, r#""shape":[3],"compare""#),
        FAILED,
        "expected shape [3], found [2]",
    );
    assert_says(&edited(r#""dtype":"f32","shape":[2]"#, r#""dtype":"f64","shape":[2]"#), FAILED, "x.npy: not readable");
    let blocked = edited(r#""axis":null"#, r#""axis":3,"block_size":2"#);
    assert_says(&blocked, FAILED, "axis 3 of a tensor with 1 axes");
    assert_says(&edited(r#""axis":null"#, r#""axis":"x""#), FAILED, "attribute axis: expected an integer");
    assert_says(&edited(r#""outputs""#, r#""output""#), FAILED, "no list of outputs");
}

#[test]
fn what_is_unknown_is_not_covered_by_name() {
    assert_says(&edited(r#""op":"quantize_linear""#, r#""op":"frobnicate""#), NOT_COVERED, "operation frobnicate");
    assert_says(&edited(r#""axis":null"#, r#""spin":1"#), NOT_COVERED, "attribute spin");
    assert_says(&edited(r#""dtype":"u8","shape":[]"#, r#""dtype":"c64","shape":[]"#), NOT_COVERED, "dtype c64");
    assert_says(&edited(r#""kind":"exact""#, r#""kind":"vibes""#), NOT_COVERED, "comparison vibes");
    assert_says(&edited(r#""format":1"#, r#""format":2"#), NOT_COVERED, "format 2");
}

#[test]
fn an_informative_case_neither_passes_nor_fails() {
    let informative = edited(r#""axis":null"#, r#""informative":true"#);
    assert_says(&informative, "\n0 passed, 0 failed, 0 not covered", "1 of 1 agree");
}
