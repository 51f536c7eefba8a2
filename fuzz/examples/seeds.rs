//! Writes the inputs in `corpus` that the library makes: `cargo run --example seeds` in the folder `fuzz`.

use std::fs;

use ndarray::{Array, Array2, ArrayD, Axis, IxDyn, array};
use ndarray_quant::block::{BlockTensor, ggml};
use ndarray_quant::graph::{CalibrationMethod, Graph, GraphBuilder, Precision, Recipe};
use ndarray_quant::io::gguf::{GgmlType, GgufBuilder, Value};
use ndarray_quant::minifloat::{F8E4M3FN, MinifloatParams};
use ndarray_quant::nn::{Padding, Window};
use ndarray_quant::observer::{Entropy, HistogramObserver, MinMax, MovingAverage, Mse, Observer, Percentile};
use ndarray_quant::{I4, Packed, QParams, Result, Scheme, U2};
use serde::Serialize;

fn write(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(format!("corpus/{target}")).expect("a folder for the corpus");
    fs::write(format!("corpus/{target}/{name}"), bytes).expect("a file of the corpus");
}

fn values(shape: &[usize]) -> ArrayD<f32> {
    let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 25.0 - 2.0;
    let len = shape.iter().product();
    Array::from_shape_vec(IxDyn(shape), (0..len).map(value).collect()).expect("a shape")
}

fn image_network() -> Result<Graph> {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2, 6, 6])?;
    let same = Window::new().with_padding(Padding::Same);
    let weights = values(&[4, 2, 3, 3]).into_dimensionality().expect("four axes");
    let conv = g.conv("conv", x, &weights, Some(&array![0.1, 0.2, -0.1, 0.0]), same, 1)?;
    let conv = g.relu6("relu6", conv)?;
    let weights = values(&[4, 1, 3, 3]).into_dimensionality().expect("four axes");
    let depthwise = g.conv("depthwise", conv, &weights, None, same.with_strides([2, 2]), 4)?;
    let pool = g.max_pool("pool", conv, [2, 2], Window::new().with_strides([2, 2]))?;
    let sum = g.add("sum", depthwise, pool)?;
    let mean = g.global_average_pool("mean", sum)?;
    let flat = g.flatten("flat", mean)?;
    let scores = g.linear("scores", flat, &values(&[3, 4]).into_dimensionality().expect("two axes"), None)?;
    let y = g.softmax("y", scores, 1)?;
    g.build(&[y])
}

fn linear_network() -> Result<Graph> {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 8])?;
    let x = g.linear("a", x, &values(&[4, 8]).into_dimensionality().expect("two axes"), None)?;
    let x = g.relu("r", x)?;
    let y = g.linear("b", x, &values(&[2, 4]).into_dimensionality().expect("two axes"), Some(&array![0.5, -0.5]))?;
    g.build(&[y])
}

fn networks() -> Result<()> {
    for (name, graph, shape) in
        [("image", image_network()?, vec![4, 2, 6, 6]), ("linear", linear_network()?, vec![4, 8])]
    {
        let samples = values(&shape);
        let calibration = graph.calibrate([samples])?;
        let mut dynamic = Recipe::dynamic_range(&graph)?;
        if name == "linear" {
            dynamic.tensor_mut("a.weight")?.precision = Precision::Int4;
        }
        let recipes = [
            ("float16", Recipe::float16(&graph)),
            ("dynamic", dynamic),
            ("integer", calibration.recipe(&graph, CalibrationMethod::MinMax)?),
        ];
        for (mode, recipe) in recipes {
            let network = graph.quantize(&recipe)?;
            write("safetensors", &format!("{name}_{mode}"), &network.to_safetensors()?);
            write("onnx_bytes", &format!("{name}_{mode}"), &network.to_onnx()?);
            if name == "linear" {
                json('o', mode, &recipe);
            }
        }
        if name == "linear" {
            json('p', "calibration", &calibration);
        }
    }
    Ok(())
}

/// The first byte selects the type that the text is read as.
fn json(kind: char, name: &str, value: &impl Serialize) {
    let text = serde_json::to_string(value).expect("a value that can be written");
    write("serde", name, format!("{kind}{text}").as_bytes());
}

fn observed<O: Observer + Serialize>(kind: char, name: &str, mut observer: O) -> Result<()> {
    observer.observe(&values(&[3, 4]))?;
    json(kind, name, &observer);
    Ok(())
}

fn serialized() -> Result<()> {
    observed('a', "min_max", MinMax::per_axis(Axis(0)))?;
    observed('b', "moving_average", MovingAverage::per_tensor())?;
    observed('c', "percentile", Percentile::per_tensor())?;
    observed('d', "entropy", Entropy::per_tensor())?;
    observed('e', "mse", Mse::per_tensor())?;
    observed('f', "torch_histogram", HistogramObserver::per_tensor())?;
    let x: Array2<f32> = values(&[4, 4]).into_dimensionality().expect("two axes");
    json('g', "params_u8", Scheme::<u8>::asymmetric().quantize(&x)?.params());
    json('h', "params_i8", Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&x)?.params());
    json('i', "params_i4", Scheme::<I4>::symmetric().per_group(Axis(1), 2).quantize(&x)?.params());
    json('j', "params_i16", &QParams::<i16>::per_tensor(0.5, 3)?);
    json('k', "scheme", &Scheme::<i8>::symmetric().narrow_range().per_axis(Axis(0)));
    json('l', "packed", &Packed::<U2, _>::pack(&array![[1u8, 2, 3], [0, 1, 2]])?);
    json('m', "tensor_i4", &Scheme::<I4>::symmetric().quantize(&x.clone().into_dyn())?);
    json('n', "tensor_u8", &Scheme::<u8>::asymmetric().quantize(&x)?);
    json('q', "minifloat", &MinifloatParams::<F8E4M3FN>::per_tensor(0.5)?);
    Ok(())
}

fn gguf() -> Result<()> {
    let mut builder = GgufBuilder::new();
    builder.metadata("general.architecture", Value::from("mlp"))?;
    builder.metadata_array("list", &[Value::U32(1), Value::U32(2)])?;
    let x: Array2<f32> = values(&[2, 256]).into_dimensionality().expect("two axes");
    let q4 = BlockTensor::<ggml::Q4_0, _>::quantize(&x)?;
    let q2 = BlockTensor::<ggml::Q2_K, _>::quantize(&x)?;
    builder.tensor("a", q4.shape(), GgmlType::Q4_0)?;
    builder.tensor("b", q2.shape(), GgmlType::Q2_K)?;
    let mut bytes = builder.header();
    for tensor in [q4.as_bytes(), q2.as_bytes()] {
        bytes.extend(tensor);
        builder.pad(&mut bytes);
    }
    write("gguf", "blocks", &bytes);
    Ok(())
}

fn main() -> Result<()> {
    networks()?;
    serialized()?;
    gguf()
}
