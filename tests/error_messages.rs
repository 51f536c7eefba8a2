//! Every error message, compared with `error_messages.txt`.
//!
//! After a change of texts, write the file anew with
//! `UPDATE_MESSAGES=1 cargo test --all-features --test error_messages`, and read its diff.
#![cfg(all(feature = "std", feature = "onnx", feature = "safetensors"))]

#[allow(dead_code)]
#[path = "onnx/message.rs"]
mod message;

use std::collections::BTreeMap;
use std::fmt::Write;

use half::f16;
use message::{Message, floats, model, node};
use ndarray::{Array, Array1, Array2, Axis, IntoDimension, Ix2, arr0, array};
use ndarray_quant::compat::{fbgemm::choose_qparams, gemmlowp::FixedPoint};
use ndarray_quant::error::ParamsError;
use ndarray_quant::gemm::{DequantizeEpilogue, I32Epilogue, PackedRhs, RequantizeEpilogue, gemm};
use ndarray_quant::graph::{
    Activation, Arena, CalibrationMethod, Graph, GraphBuilder, QuantizedNetwork, Recipe, TensorId, op,
};
use ndarray_quant::half::{HalfCast, Overflow};
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::metrics::sqnr_db;
use ndarray_quant::nn::{Arithmetic, Conv2d, HalfLinear, Linear, Multiplier, Output, Window};
use ndarray_quant::observer::{Bounds, MinMax, MovingAverage, Percentile, Ranges};
use ndarray_quant::ops::{Add, Concat, MaxPool, Pad, matmul_integer};
use ndarray_quant::ptq::{AdaRound, Gptq, Hadamard, Hqq, InputStatistics, SmoothQuant};
use ndarray_quant::qat::BatchNormFold;
use ndarray_quant::{Error, Granularity, I4, Packed, QParams, QTensor, Result, Scheme};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/error_messages.txt");

const HEADER: &str = "\
Calls and the messages of their errors, by domain and variant. Written by
UPDATE_MESSAGES=1 cargo test --all-features --test error_messages
";

type Params = QParams<u8>;
type Params4Bit = QParams<I4>;

fn ones<S: IntoDimension>(shape: S) -> Array<f32, S::Dim> {
    Array::from_elem(shape.into_dimension(), 1.0)
}

fn codes<S: IntoDimension>(shape: S) -> QTensor<u8, S::Dim> {
    Scheme::<u8>::asymmetric().quantize(&ones(shape)).unwrap()
}

/// Codes with scale 0.1 and zero point 0.
fn tenths<S: IntoDimension>(shape: S) -> QTensor<u8, S::Dim> {
    params(0.1, 0).quantize(&ones(shape)).unwrap()
}

fn weights<S: IntoDimension>(shape: S) -> QTensor<i8, S::Dim> {
    Scheme::<i8>::symmetric().quantize(&ones(shape)).unwrap()
}

fn params(scale: f32, zero_point: u8) -> Params {
    Params::per_tensor(scale, zero_point).unwrap()
}

fn params_per_axis(axis: usize, len: usize) -> Params {
    Params::per_axis(Axis(axis), Array1::ones(len), None).unwrap()
}

fn output() -> Output<u8> {
    Output::to(&params(1.0, 0))
}

fn linear(shape: [usize; 2]) -> Linear<i8> {
    Linear::new(&weights(shape), Some(&Array1::ones(shape[0]))).unwrap()
}

fn conv(shape: [usize; 4]) -> Conv2d<i8> {
    Conv2d::new(&weights(shape), None, &Window::new(), 1).unwrap()
}

fn rhs(shape: [usize; 2]) -> PackedRhs<i8> {
    PackedRhs::pack(&Array2::zeros(shape), &[0]).unwrap()
}

/// An observer per row that has seen three rows.
fn rows() -> MinMax {
    let mut rows = MinMax::per_axis(Axis(0));
    rows.observe(&ones([3, 4])).unwrap();
    rows
}

fn percentile(percentile: f64) -> Percentile {
    Percentile::per_tensor().with_percentile(percentile).unwrap()
}

/// Calls a builder with its input `x` of shape `[1, 4]` and its constant `c` of shape `[4]`.
fn build<T>(call: impl FnOnce(&mut GraphBuilder, TensorId, TensorId) -> Result<T>) -> Result<T> {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", &[1, 4])?;
    let c = builder.constant("c", &ones([4]))?;
    call(&mut builder, x, c)
}

/// A linear layer `y` of `x` with shape `[1, 4]`.
fn graph() -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", &[1, 4]).unwrap();
    let y = builder.linear("y", x, &ones([2, 4]), None).unwrap();
    builder.build(&[y]).unwrap()
}

fn two_outputs() -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", &[1, 4]).unwrap();
    let y = builder.relu("y", x).unwrap();
    builder.build(&[x, y]).unwrap()
}

/// A tensor of a builder that no longer exists.
fn other_tensor() -> TensorId {
    GraphBuilder::new().input("other", &[1, 4]).unwrap()
}

fn dynamic_range() -> Recipe {
    Recipe::dynamic_range(&graph()).unwrap()
}

/// A recipe whose input is codes and whose output is float.
fn calibrated() -> Recipe {
    let graph = graph();
    graph.calibrate([ones([1, 4]).view()]).unwrap().recipe(&graph, CalibrationMethod::MinMax).unwrap()
}

fn onnx(nodes: &[Message]) -> Vec<u8> {
    model(nodes, &[floats("w", &[3, 3], &[0.0; 9])], &[1, 4], "y")
}

/// Pairs the source of a call with its error.
macro_rules! failed {
    ($($call:tt)*) => {
        (stringify!($($call)*), error(stringify!($($call)*), $($call)*))
    };
}

fn error<T>(call: &str, result: Result<T>) -> Error {
    result.err().unwrap_or_else(|| panic!("no error: {call}"))
}

fn parameters() -> Vec<(&'static str, Error)> {
    vec![
        failed!(Params::per_tensor(0.0, 0)),
        failed!(Params::per_axis(Axis(0), array![1.0, f32::NAN], None)),
        failed!(Multiplier::new(1.0, f32::INFINITY, 1.0, Arithmetic::F32)),
        failed!(DequantizeEpilogue::new(&[1.0], &[1.0, 0.0], None)),
        failed!(Params4Bit::per_tensor(1.0, 8)),
        failed!(params(1.0, 200).with_code_range(0, 127)),
        failed!(params(1.0, 0).with_code_range(7, 3)),
        failed!(params(1.0, 0).with_code_range(0, 256)),
        failed!(choose_qparams(0.0, 1.0, 5, 5)),
        failed!(Packed::<I4, _>::pack(&array![3i8, -9])),
        failed!(Scheme::<i8>::symmetric().per_axis(Axis(2)).quantize(&ones([3, 4]))),
        failed!(Scheme::<i8>::symmetric().per_axis(Axis(1)).quantize(&ones([3]))),
        failed!(Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&arr0(1.0f32))),
        failed!(Scheme::<i8>::symmetric().per_group(Axis(1), 0).quantize(&ones([3, 4]))),
        failed!(Scheme::<u8>::asymmetric().quantize(&array![[1.0, f32::NAN]])),
        failed!(Scheme::<u8>::asymmetric().quantize(&array![0.0, 1e300])),
        failed!(Bounds::new(2.0, 1.0)),
        failed!(choose_qparams(0.0, f32::INFINITY, 0, 255)),
        failed!(Params::per_axis(Axis(0), array![1.0, 2.0], Some(array![0]))),
        failed!(params_per_axis(0, 2).quantize(&ones([3, 4]))),
        failed!(params(1.0, 0).quantize_into(&ones([3, 4]), &mut Array2::zeros((3, 5)))),
        failed!(Packed::<I4, Ix2>::from_bytes((3, 3), vec![0; 4])),
        failed!(Ranges::new(Granularity::PerTensor, ones([1, 2]), ones([1, 2]))),
        failed!(HalfCast::<f16>::new(Overflow::Error).quantize(&array![1.5f32, -7e4])),
        failed!(FixedPoint::from_f64(-1.0)),
        failed!(FixedPoint::from_parts(1, 31)),
    ]
}

fn observers() -> Vec<(&'static str, Error)> {
    vec![
        failed!(MinMax::per_tensor().ranges(&Scheme::<u8>::asymmetric())),
        failed!(MinMax::per_tensor().observe(&array![[0.0, f32::INFINITY]])),
        failed!(rows().observe(&ones([4, 4]))),
        failed!(rows().merge(&MinMax::per_tensor())),
        failed!(Percentile::per_tensor().with_percentile(30.0)),
        failed!(Gptq::new().with_damping(-0.1)),
        failed!(AdaRound::new().with_learning_rate(0.0)),
        failed!(Hqq::new().with_norm(2.0)),
        failed!(SmoothQuant::new().with_alpha(1.5)),
        failed!(Gptq::new().quantize(&ones([2, 1]), &Scheme::<I4>::symmetric(), &array![[-1.0]])),
        failed!(Gptq::new().quantize(&ones([2, 1]), &Scheme::<I4>::symmetric(), &array![[f64::NAN]])),
        failed!(Gptq::new().quantize(&ones([2, 4]), &Scheme::<I4>::symmetric(), &Array2::eye(3))),
        failed!(Gptq::new().quantize(&ones([2, 4]), &Scheme::<I4>::symmetric().per_axis(Axis(1)), &Array2::eye(4))),
        failed!(Hadamard::new(4, 0).rotate(&ones([1, 5]))),
        failed!(InputStatistics::new(4).merge(&InputStatistics::new(5))),
        failed!(graph().quantize_with(&dynamic_range(), None, Gptq::new())),
        failed!(MovingAverage::per_tensor().with_averaging_constant(2.0)),
        failed!(BatchNormFold::new(ones([2]), ones([3]))),
        failed!(
            BatchNormFold::new(ones([2]), ones([2])).unwrap().with_running_statistics(ones([2]), array![1.0, -0.5])
        ),
        failed!(percentile(99.0).merge(&percentile(98.0))),
    ]
}

fn layers() -> Vec<(&'static str, Error)> {
    vec![
        failed!(gemm(&Array2::<u8>::zeros((2, 3)), 0, &rhs([4, 5]), &I32Epilogue::new())),
        failed!(gemm(&Array2::<u8>::zeros((2, 4)), 0, &rhs([4, 5]), &I32Epilogue::with_bias(&[0, i32::MAX, 0, 0, 0]))),
        failed!(gemm(&Array2::<u8>::zeros((1, 70_000)), 0, &rhs([70_000, 1]), &I32Epilogue::new())),
        failed!(PackedRhs::pack(&Array2::<i8>::zeros((4, 5)), &[0, 0])),
        failed!(PackedRhs::pack(&Array2::<i8>::zeros((9_000_000, 1)), &[0])),
        // Calls pack both operands for the micro-kernel of the machine, so only a unit test can provoke this one.
        failed!(Err::<(), _>(Error::Params(ParamsError::Kernel { expected: "avx512vnni", found: "avx2" }))),
        failed!(matmul_integer(&Array2::<u8>::zeros((2, 3)), 0, &Array2::<i8>::zeros((4, 5)), &[0])),
        failed!(Linear::new(&weights([4, 3]), Some(&Array1::zeros(3)))),
        failed!(Linear::new(&weights([2, 3]), Some(&array![0.0, f32::NAN]))),
        failed!(Linear::new(&weights([1, 131_072]), None)),
        failed!(Linear::new(&Scheme::<i8>::symmetric().per_axis(Axis(1)).quantize(&ones([4, 3])).unwrap(), None)),
        failed!(linear([4, 3]).forward_dynamic(&ones([2, 5]))),
        failed!(linear([4, 3]).prepare(&params(1e-9, 0), &output())),
        failed!(linear([4, 3]).prepare(&params(0.1, 0), &Output::to(&params_per_axis(1, 4)))),
        failed!(linear([4, 3]).prepare(&params(0.1, 0), &output()).unwrap().forward(&codes([1, 3]))),
        failed!(HalfLinear::new(Array2::from_elem((2, 2), f16::ONE), Some(&Array1::zeros(3)))),
        failed!(Conv2d::new(&weights([6, 3, 3, 3]), None, &Window::new(), 4)),
        failed!(conv([6, 3, 3, 3]).forward_dynamic(&ones([2, 3, 8, 8]))),
        failed!(conv([6, 3, 5, 5]).forward_dynamic(&ones([2, 8, 8, 3]))),
        failed!(conv([6, 3, 3, 3]).output_shape(&[2, 3])),
        failed!(Window::new().output_size([5, 5], [3, 3])),
        failed!(MaxPool::new([2, 2], &Window::new().with_strides([0, 1]))),
        failed!(MaxPool::new([2, 2], &Window::new()).unwrap().output_shape(&[1, 2])),
        failed!(Pad::new(&params(0.1, 0), &[(0, 0)]).unwrap().output_shape(&[1, 2])),
        failed!(Concat::new(Axis(1), &[&params_per_axis(1, 4)], &params(0.1, 0))),
        failed!(Concat::new(Axis(1), &[&params(0.1, 0)], &params(0.1, 0)).unwrap().forward::<Ix2>(&[])),
        failed!(
            Add::new(&params(0.1, 0), &params(0.1, 0), &output()).unwrap().forward(&tenths([2, 3]), &tenths([2, 4]))
        ),
        failed!(Concat::new(Axis(1), &[], &params(0.1, 0)).unwrap().forward::<Ix2>(&[])),
        failed!(Pad::new(&params(0.1, 0), &[(usize::MAX, 0)]).unwrap().output_shape(&[2])),
        failed!(Window::new().with_padding(1 << 30).output_size([3, 3], [5, 5])),
        failed!(RequantizeEpilogue::new(1.0, &[1.0], None, &params_per_axis(0, 2), Arithmetic::F32)),
        failed!(Multiplier::new(1e30, 1e30, 1.0, Arithmetic::F32)),
    ]
}

fn networks() -> Vec<(&'static str, Error)> {
    vec![
        failed!(build(|g, _, _| g.input("x", &[1, 4]))),
        failed!(build(|g, _, _| g.input("two", &[2, 4]))),
        failed!(build(|g, _, _| g.constant("nan", &array![f32::NAN]))),
        failed!(build(|g, x, _| g.linear("y", x, &ones([2, 3]), None))),
        failed!(build(|g, x, _| g.linear("y", x, &array![[f32::NAN, 0.0, 0.0, 0.0]], None))),
        failed!(build(|g, x, _| g.add("y", x, other_tensor()))),
        failed!(build(|g, x, c| g
            .add("y", x, c)
            .and_then(|y| g.linear("z", y, &ones([3, 4]), None))
            .and_then(|z| g.add("w", z, x)))),
        failed!(build(|g, x, _| g.activation("y", x, Activation::LeakyRelu { alpha: f32::NAN }))),
        failed!(build(|g, x, _| g.softmax("y", x, 2))),
        failed!(build(|g, x, _| g.flatten("y", x).and_then(|y| g.max_pool("z", y, [2, 2], Window::new())))),
        failed!(build(|g, x, _| g.node("y", op::Binary::Add, &[x]))),
        failed!(build(|g, _, c| g.node("y", op::Linear, &[c, c]))),
        failed!(graph().run(&ones([1, 5]))),
        failed!(graph().compile().unwrap().run_with(&ones([1, 4]), &mut Arena::new().with_max_bytes(8))),
        failed!(graph().quantize(&dynamic_range()).unwrap().run(&array![[0.0, f32::NAN, 0.0, 0.0]])),
        failed!(graph().quantize(&dynamic_range()).unwrap().run_codes(&Array2::zeros((1, 4)), &mut Arena::new())),
        failed!(graph().quantize(&calibrated()).unwrap().run_codes(&Array2::zeros((1, 4)), &mut Arena::new())),
        failed!(two_outputs().run(&ones([1, 4]))),
        failed!(graph().compile().unwrap().run_many(&[], &mut Arena::new())),
        failed!(graph().mixed_precision_within_bytes(&dynamic_range(), &ones([1, 4]), 1)),
        failed!(dynamic_range().tensor_mut("y.weigth")),
        failed!(sqnr_db(&ones([2]), &ones([3]))),
        failed!(Graph::from_onnx_bytes(b"")),
        failed!(Graph::from_onnx_bytes(&onnx(&[node("GridSample", &["x"], "y", &[])]))),
        failed!(Graph::from_onnx_bytes(&onnx(&[
            node("GridSample", &["x"], "a", &[]),
            node("GridSample", &["a"], "b", &[]),
            node("Loop", &["b"], "y", &[])
        ]))),
        failed!(Graph::from_onnx_bytes(&onnx(&[node("DequantizeLinear", &["x", "w"], "y", &[])]))),
        failed!(Graph::from_onnx_bytes(&onnx(&[node("MatMul", &["x", "w"], "y", &[])]))),
        failed!(OnnxReader::new().with_max_bytes(4).read(&onnx(&[]))),
        failed!(OnnxReader::new().with_input_shape("z", &[1]).read(&onnx(&[node("Relu", &["x"], "y", &[])]))),
        failed!(QuantizedNetwork::from_safetensors(&[0; 4])),
        failed!(Graph::from_onnx("no/such/model.onnx")),
    ]
}

/// The variants of all domains, such as `Shape::Mismatch`, from the source.
fn variants() -> Vec<String> {
    let domains = [
        ("Shape", include_str!("../src/error/shape.rs")),
        ("Params", include_str!("../src/error/params.rs")),
        ("Value", include_str!("../src/error/value.rs")),
        ("Graph", include_str!("../src/error/graph.rs")),
        ("File", include_str!("../src/error/file.rs")),
    ];
    let mut all = variants_of("Error", include_str!("../src/error/root.rs"));
    all.retain(|variant| !domains.iter().any(|(domain, _)| variant.starts_with(&format!("{domain}("))));
    for (domain, source) in domains {
        let variants = variants_of(&format!("{domain}Error"), source);
        assert!(variants.len() > 1, "{domain}: {variants:?}");
        all.extend(variants.iter().map(|variant| format!("{domain}::{variant}")));
    }
    all
}

/// The lines of an enum that begin a variant, without the brace or comma at their end.
fn variants_of(name: &str, source: &str) -> Vec<String> {
    let (_, source) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (source, _) = source.split_once("\n}").unwrap();
    let name = |line: &str| Some(line.strip_prefix("    ")?.strip_suffix([',', '{'])?.trim().to_string());
    source.lines().filter_map(name).filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase())).collect()
}

fn variant(error: &Error) -> String {
    let text = format!("{error:?}");
    let mut names = text.split(|c: char| !c.is_ascii_alphanumeric());
    match (names.next().unwrap(), names.next()) {
        ("Argument", _) => "Argument".into(),
        (domain, variant) => format!("{domain}::{}", variant.unwrap()),
    }
}

/// Reads calls and their messages.
fn parsed(text: &str) -> BTreeMap<&str, &str> {
    let lines: Vec<_> = text.lines().collect();
    let pairs = lines.windows(2).filter_map(|pair| Some((pair[0], pair[1].strip_prefix("    ")?)));
    pairs.collect()
}

/// Lists the calls whose messages differ, with the stored message after `-` and the present one after `+`.
fn differences(stored: &str, present: &str) -> String {
    let (stored, present) = (parsed(stored), parsed(present));
    let mut calls: Vec<_> = stored.keys().chain(present.keys()).collect();
    calls.sort();
    calls.dedup();
    let mut text = String::new();
    for call in calls.into_iter().filter(|call| stored.get(*call) != present.get(*call)) {
        writeln!(text, "{call}").unwrap();
        for (sign, messages) in [('-', &stored), ('+', &present)] {
            let Some(message) = messages.get(call) else { continue };
            writeln!(text, "  {sign} {message}").unwrap();
        }
    }
    text
}

#[test]
fn messages() {
    let mut found: BTreeMap<String, String> = variants().into_iter().map(|name| (name, String::new())).collect();
    let no_such_file = std::fs::read("no/such/model.onnx").unwrap_err().to_string();
    for (call, error) in [parameters(), observers(), layers(), networks()].concat() {
        let call = call.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = error.to_string().replace(&no_such_file, "(the system's message)");
        assert!(!message.contains('\n'), "{call}: {message}");
        let section = found.get_mut(&variant(&error)).unwrap_or_else(|| panic!("{error:?} is no variant"));
        write!(section, "\n{call}\n    {message}\n").unwrap();
    }
    let mut present = HEADER.to_string();
    for (variant, section) in &found {
        assert!(!section.is_empty(), "add a call that fails with {variant}");
        write!(present, "\n# {variant}\n{section}").unwrap();
    }
    if std::env::var_os("UPDATE_MESSAGES").is_some_and(|value| value == "1") {
        std::fs::write(PATH, &present).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(stored == present, "messages differ (see the top of this file):\n{}", differences(&stored, &present));
}
