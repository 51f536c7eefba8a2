//! Saved networks: what is read can be run and written again, and the header is checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndarray_quant::graph::QuantizedNetwork;

#[allow(dead_code)]
mod network;

/// The length of the header is not for the fuzzer to guess.
fn with_header_length(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().rposition(|&byte| byte == b'}')? + 1;
    let header = bytes.get(8..end)?;
    Some([&(header.len() as u64).to_le_bytes()[..], header, &bytes[end..]].concat())
}

fuzz_target!(|bytes: &[u8]| {
    for bytes in [Some(bytes.to_vec()), with_header_length(bytes)].into_iter().flatten() {
        if let Ok(network) = QuantizedNetwork::from_safetensors(&bytes) {
            network::check_quantized(network.graph(), network.recipe());
            let written = network.to_safetensors().expect("a network that was read");
            let again = QuantizedNetwork::from_safetensors(&written).expect("a file that was written");
            assert_eq!(again.to_safetensors().expect("a network that was read"), written);
        }
    }
});
