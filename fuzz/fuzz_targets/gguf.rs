//! GGUF files: every tensor and every entry of the metadata of a file that is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndarray_quant::io::gguf::GgufFile;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = GgufFile::parse(bytes) else { return };
    for (key, value) in file.metadata() {
        assert!(file.get(key).is_some());
        let _ = (value.as_u64(), value.as_f64(), value.as_str());
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
    }
    for tensor in file.tensors() {
        assert!(file.tensor(tensor.name()).is_some());
        let len = tensor.shape().iter().product::<usize>();
        // A type of few bits makes a long list of floats of a short file, at most 128 of a byte.
        assert!(len <= bytes.len().max(1) * 128, "{len} elements of {} bytes", bytes.len());
        if let Ok(x) = tensor.dequantize() {
            assert_eq!(x.shape(), tensor.shape());
        }
    }
});
