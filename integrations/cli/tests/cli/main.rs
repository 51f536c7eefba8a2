//! The program as a user calls it: each command on small networks, and what it says when something is wrong.

mod bench;
mod folder;
mod inspect;
#[allow(dead_code, reason = "shared with the tests of ndarray-quant")]
#[path = "../../../../tests/onnx/message.rs"]
mod message;
mod qdq;
mod quantize;
mod report;
mod run;

use folder::Folder;

/// Every command explains itself, with examples.
#[test]
fn help() {
    let folder = Folder::new();
    for command in ["quantize", "report", "run", "bench", "inspect"] {
        let help = folder.succeeds(&[command, "--help"]);
        assert!(help.contains("Examples:\n") && help.contains(&format!("Usage: ndarray-quant {command}")), "{help}");
    }
    assert!(folder.succeeds(&["--version"]).starts_with("ndarray-quant "));
}

#[test]
fn a_command_line_that_is_not_understood() {
    let folder = Folder::new();
    assert!(folder.fails(2, &["quantise"]).contains("a similar subcommand exists: 'quantize'"));
    assert!(folder.fails(2, &["inspect", "m.onnx", "--input", "x=1x0"]).contains("expected NAME=SHAPE, such as"));
    assert!(folder.fails(2, &["bench", "m.onnx", "--threads", "0"]).contains("--threads"));
}

#[test]
fn a_file_that_is_not_there_or_not_a_network() {
    let folder = Folder::new();
    let error = folder.fails(1, &["inspect", "missing.onnx"]);
    assert_eq!(error, "ndarray-quant: missing.onnx: No such file or directory (os error 2)\n");
    folder.write("text.onnx", b"hello");
    let error = folder.fails(1, &["inspect", "text.onnx"]);
    assert!(error.starts_with("ndarray-quant: text.onnx: ONNX file: expected a message of type ModelProto"), "{error}");
    let error = folder.fails(1, &["inspect", "q.safetensors"]);
    assert!(
        error.contains("q.safetensors: expected a float network in an ONNX file, found a quantized one"),
        "{error}"
    );
    let error = folder.fails(1, &["bench", "network.pb"]);
    assert_eq!(error, "ndarray-quant: network.pb: expected a network in a .onnx or .safetensors file\n");
}
