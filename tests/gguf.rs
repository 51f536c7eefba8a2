//! GGUF files: writing and reading again, and files that are damaged.
#![cfg(feature = "gguf")]

use ndarray::{Array2, array};
use ndarray_quant::block::{BlockTensor, ggml};
use ndarray_quant::io::gguf::{GgmlType, GgufBuilder, GgufFile, Value, ValueType};
use ndarray_quant::{Error, error::FileError};
use proptest::prelude::*;

/// A file with values of every type and three tensors.
fn file() -> Vec<u8> {
    let w = Array2::from_shape_fn((3, 64), |(i, j)| (i as f32 - 1.0) * (j as f32 * 0.2).cos());
    let q4 = BlockTensor::<ggml::Q4_0, _>::quantize(&w).expect("finite");
    let mut builder = GgufBuilder::new();
    for (key, value) in [
        ("a.u8", Value::U8(200)),
        ("a.i8", Value::I8(-3)),
        ("a.u16", Value::U16(60000)),
        ("a.i16", Value::I16(-300)),
        ("a.u32", Value::U32(4_000_000_000)),
        ("a.i32", Value::I32(-70000)),
        ("a.f32", Value::F32(0.25)),
        ("a.bool", Value::Bool(true)),
        ("a.string", Value::from("Grüße")),
        ("a.u64", Value::U64(1 << 40)),
        ("a.i64", Value::I64(-1)),
        ("a.f64", Value::F64(1e-300)),
    ] {
        builder.metadata(key, value).expect("a new key");
    }
    builder.metadata_array("tokens", &[Value::from("a"), Value::from(""), Value::from("ab")]).expect("a new key");
    builder.metadata_array("scores", &[Value::F32(1.0), Value::F32(-2.0)]).expect("a new key");
    builder.tensor("w", &[3, 64], GgmlType::Q4_0).expect("whole blocks");
    builder.tensor("b", &[3], GgmlType::F32).expect("a vector");
    builder.tensor("empty", &[0, 7], GgmlType::I8).expect("no values");
    let mut bytes = builder.header();
    bytes.extend(q4.as_bytes());
    builder.pad(&mut bytes);
    bytes.extend([1.0f32, 2.0, -3.0].iter().flat_map(|x| x.to_le_bytes()));
    builder.pad(&mut bytes);
    assert_eq!(bytes.len() as u64, builder.file_size());
    bytes
}

#[test]
fn what_is_written_is_read() {
    let bytes = file();
    let file = GgufFile::parse(&bytes).expect("a valid file");
    assert_eq!((file.version(), file.len(), file.is_empty(), file.metadata().count()), (3, 3, false, 14));
    assert_eq!(file.get("a.u8").and_then(|value| value.as_u64()), Some(200));
    assert_eq!(file.get("a.i8"), Some(Value::I8(-3)));
    assert_eq!(file.get("a.i8").and_then(|value| value.as_u64()), None);
    assert_eq!(file.get("a.f64").and_then(|value| value.as_f64()), Some(1e-300));
    assert_eq!(file.get("a.bool"), Some(Value::Bool(true)));
    assert_eq!(file.get("a.string").and_then(|value| value.as_str()), Some("Grüße"));
    assert_eq!(file.get("b"), None);
    let tokens = file.get("tokens").and_then(|value| value.as_array()).expect("an array");
    assert_eq!((tokens.len(), tokens.is_empty(), tokens.value_type()), (3, false, ValueType::String));
    assert_eq!(tokens.iter().filter_map(|token| token.as_str()).collect::<Vec<_>>(), ["a", "", "ab"]);

    let w = file.tensor("w").expect("a tensor");
    assert_eq!((w.name(), w.shape(), w.ggml_type(), w.as_bytes().len()), ("w", &[3, 64][..], GgmlType::Q4_0, 108));
    let blocks = w.blocks::<ggml::Q4_0>().expect("the type of the tensor");
    assert_eq!(blocks.dequantize(), w.dequantize().expect("a type that can be dequantized"));
    assert!(w.blocks::<ggml::Q8_0>().is_err());
    assert_eq!(file.tensor("b").and_then(|b| b.dequantize().ok()), Some(array![1.0, 2.0, -3.0].into_dyn()));
    assert_eq!(file.tensor("empty").and_then(|t| t.dequantize().ok()).map(|t| t.len()), Some(0));
    assert_eq!(file.tensors().map(|tensor| tensor.name()).collect::<Vec<_>>(), ["w", "b", "empty"]);
    assert!(file.tensor("c").is_none());
}

#[test]
fn a_truncated_file_is_an_error() {
    let bytes = file();
    // The last tensor has no bytes, but it starts where the file ends.
    for len in 0..bytes.len() {
        assert!(matches!(GgufFile::parse(&bytes[..len]), Err(Error::File(FileError::Format { .. }))), "{len} bytes");
    }
}

#[test]
fn counts_beyond_the_file_are_errors() {
    let head = |tensors: u64, entries: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes
    };
    let message = |bytes: &[u8]| GgufFile::parse(bytes).expect_err("a hostile file").to_string();
    assert_eq!(
        message(&head(u64::MAX, 0)),
        "number of tensors: expected at most 0 in the bytes that follow, found 18446744073709551615"
    );
    assert!(message(&head(0, 1 << 60)).starts_with("number of metadata entries: expected at most 0"));
    let entry = |value_type: u32, rest: &[u8]| {
        let mut bytes = head(0, 1);
        bytes.extend(1u64.to_le_bytes());
        bytes.push(b'k');
        bytes.extend(value_type.to_le_bytes());
        bytes.extend(rest);
        bytes
    };
    assert!(message(&entry(13, &[0; 16])).contains("a number up to 12, found 13"));
    assert!(message(&entry(8, &[0xff; 8])).starts_with("length of a string"));
    let array = |value_type: u32, len: u64| [&value_type.to_le_bytes()[..], &len.to_le_bytes()].concat();
    assert!(message(&entry(9, &array(10, 1 << 61))).starts_with("length of an array"));
    assert!(message(&entry(9, &[&array(10, 30)[..], &[0; 32]].concat())).contains("240 more bytes"));
    assert!(message(&entry(9, &[&array(9, 1)[..], &[0; 32]].concat())).contains("values that are no arrays"));
    assert!(GgufFile::parse(&head(0, 0)).is_ok());
}

#[test]
fn tensors_must_follow_each_other() {
    let bytes = file();
    let find = |name: &[u8]| {
        let pattern = [&(name.len() as u64).to_le_bytes()[..], name].concat();
        bytes.windows(pattern.len()).position(|window| window == pattern).expect("the name") + pattern.len()
    };
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        GgufFile::parse(&bytes).map(|_| ()).expect_err("a damaged file").to_string()
    };
    let (w, b) = (find(b"w"), find(b"b"));
    // Number of axes, axes, type, offset.
    let offset = b + 4 + 8 + 4;
    let found = changed(offset, &0u64.to_le_bytes());
    assert_eq!(found, "start of a tensor: expected 128, behind the one before it, found 0 for \"b\"");
    assert!(changed(w, &5u32.to_le_bytes()).starts_with("number of axes of a tensor: expected at most 4, found 5"));
    assert!(changed(w + 4, &65u64.to_le_bytes()).contains("rows of whole blocks of 32"));
    assert!(changed(w + 4, &(1u64 << 62).to_le_bytes()).contains("that fit in memory"));
    assert!(changed(w + 12, &(1u64 << 40).to_le_bytes()).contains("bytes up to the end of \"w\""));
    assert!(changed(w + 20, &99u32.to_le_bytes()).contains("number 99 for \"w\""));
    assert!(changed(b - 1, b"w").contains("\"w\" twice"));
}

#[test]
fn a_builder_checks_names_and_shapes() {
    let mut builder = GgufBuilder::new();
    builder.metadata("k", Value::U8(1)).expect("a new key");
    assert!(builder.metadata("k", Value::U8(1)).is_err());
    assert!(builder.metadata("general.alignment", Value::U32(64)).is_err());
    assert!(builder.metadata_array("a", &[Value::U8(1), Value::I8(1)]).is_err());
    builder.tensor("t", &[2, 256], GgmlType::Q4_K).expect("whole blocks");
    assert!(builder.tensor("t", &[2, 256], GgmlType::Q4_K).is_err());
    let error = builder.tensor("u", &[2, 128], GgmlType::Q4_K).expect_err("half a block").to_string();
    assert!(error.contains("a multiple of 256 for Q4_K, found shape [2, 128]"), "{error}");
    assert!(builder.tensor("u", &[1; 5], GgmlType::F32).is_err());
    assert_eq!(builder.padding(33), 31);
}

#[test]
fn every_type_has_its_number() {
    let types: Vec<_> = (0..100).filter_map(GgmlType::from_id).collect();
    assert_eq!(types.len(), 33);
    for ggml_type in types {
        assert_eq!(GgmlType::from_id(ggml_type.id()), Some(ggml_type));
        assert_eq!(ggml_type.to_string(), ggml_type.name());
    }
}

proptest! {
    /// Any change of bytes gives a file or an error, and what can be read of the file is read.
    #[test]
    fn damaged_files_do_not_fail(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = file();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(file) = GgufFile::parse(&bytes) {
            for tensor in file.tensors() {
                let _ = tensor.dequantize();
            }
            for (_, value) in file.metadata() {
                if let Some(array) = value.as_array() {
                    prop_assert_eq!(array.iter().count(), array.len());
                }
            }
        }
    }
}
