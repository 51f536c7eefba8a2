//! ONNX files as bytes: reading, describing, quantizing and running what they hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndarray_quant::io::onnx::OnnxReader;

mod network;

fuzz_target!(|bytes: &[u8]| {
    let reader = OnnxReader::new().with_max_bytes(1 << 16).with_max_nodes(64).with_max_elements(1 << 12);
    let _ = reader.describe(bytes);
    if let Ok(graph) = reader.read(bytes) {
        network::check(graph);
    }
    if let Ok((graph, recipe)) = reader.read_quantized(bytes) {
        network::check_quantized(&graph, &recipe);
    }
});
