//! Serialized forms in JSON: what is accepted works.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use ndarray::{Array2, Ix2, IxDyn};
use ndarray_quant::graph::{Calibration, CalibrationMethod, Recipe};
use ndarray_quant::minifloat::{F8E4M3FN, MinifloatParams};
use ndarray_quant::observer::{Entropy, HistogramObserver, MinMax, MovingAverage, Mse, Observer, Percentile};
use ndarray_quant::{Element, I4, Packed, QParams, QTensor, Scheme, U2};
use serde::{Serialize, de::DeserializeOwned};

/// Reads a value that is written as it was read.
fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&value).expect("a value that was read");
    // JSON has no NaN, so that a value that holds one is not written as a number.
    if let Ok(again) = serde_json::from_str::<T>(&written) {
        assert_eq!(serde_json::to_string(&again).expect("a value that was read"), written);
    }
    Some(value)
}

fn data(rows: usize, cols: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, cols), |(i, j)| ((i * 31 + j * 7) % 19) as f32 - 9.0)
}

fn observer<O: Observer + DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) {
    let Some(mut observer) = read::<O>(text) else { return };
    let _ = Scheme::<u8>::asymmetric().params(&observer);
    let _ = observer.observe(&data(3, 4));
    let again = read::<O>(text).expect("the same text");
    let _ = observer.merge(&again);
    let _ = Scheme::<i8>::symmetric().params(&observer);
}

fn params<T: Element>(text: &str)
where
    QParams<T>: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let Some(params) = read::<QParams<T>>(text) else { return };
    for x in [data(1, 4), data(4, 4)] {
        if let Ok(codes) = params.quantize(&x) {
            assert_eq!(codes.dequantize().dim(), x.dim());
        }
        let _ = params.fake_quantize(&x);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match kind {
        b'a' => observer::<MinMax>(text),
        b'b' => observer::<MovingAverage>(text),
        b'c' => observer::<Percentile>(text),
        b'd' => observer::<Entropy>(text),
        b'e' => observer::<Mse>(text),
        b'f' => observer::<HistogramObserver>(text),
        b'g' => params::<u8>(text),
        b'h' => params::<i8>(text),
        b'i' => params::<I4>(text),
        b'j' => params::<i16>(text),
        b'k' => {
            if let Some(scheme) = read::<Scheme<i8>>(text) {
                let _ = scheme.quantize(&data(4, 4)).map(|x| x.dequantize());
            }
        }
        b'l' => {
            if let Some(packed) = read::<Packed<U2, Ix2>>(text) {
                assert_eq!(packed.unpack().len(), packed.len());
            }
        }
        b'm' => {
            if let Some(x) = read::<QTensor<I4, IxDyn>>(text) {
                assert_eq!(x.dequantize().shape(), x.shape());
            }
        }
        b'n' => {
            if let Some(x) = read::<QTensor<u8, Ix2>>(text) {
                assert_eq!(x.dequantize().shape(), x.shape());
            }
        }
        b'o' => drop(read::<Recipe>(text).map(|recipe| recipe.to_string())),
        b'p' => {
            if let Some(mut calibration) = read::<Calibration>(text) {
                let again = calibration.clone();
                let _ = calibration.merge(&again);
                let mut g = ndarray_quant::graph::GraphBuilder::new();
                let graph = g
                    .input("x", &[1, 4])
                    .and_then(|x| g.linear("y", x, &data(3, 4), None))
                    .and_then(|y| g.build(&[y]))
                    .expect("a network");
                for method in [CalibrationMethod::MinMax, CalibrationMethod::Mse] {
                    let _ = calibration.recipe(&graph, method).and_then(|recipe| graph.quantize(&recipe));
                }
            }
        }
        _ => {
            if let Some(params) = read::<MinifloatParams<F8E4M3FN>>(text) {
                let _ = params.quantize(&data(4, 4)).map(|x| x.dequantize());
            }
        }
    }
});
