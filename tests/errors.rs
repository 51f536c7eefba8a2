//! Bad input gets an error that names the expected and the found value; nothing panics.

use half::f16;
use ndarray::{Array1, Array2, Array4, ArrayD, Axis, Ix2, Ix4, IxDyn, array};
use ndarray_quant::error::{FileError, GraphError, ParamsError, ShapeError, ValueError};
use ndarray_quant::gemm::{DequantizeEpilogue, I32Epilogue, PackedRhs, RequantizeEpilogue, Workspace, gemm, gemm_into};
use ndarray_quant::graph::{Activation, Clamp, GraphBuilder, op};
use ndarray_quant::{
    Error, Granularity, I4, Packed, QParams, QTensor, Scheme,
    compat::gemmlowp::FixedPoint,
    half::{HalfCast, Overflow},
    nn::{Arithmetic, HalfLinear, Linear, Multiplier, Output, PreparedLinear},
    observer::Ranges,
};
use ndarray_quant::{
    nn::{Conv2d, Padding, PreparedConv2d, Window},
    ops::{GlobalAveragePool, MaxPool, NearestMode, Pad, Resize},
};

/// Checks that the message contains all parts.
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "«{text}» does not name «{part}»");
    }
}

#[test]
fn scales() {
    for bad in [0.0f32, -0.5, f32::NAN, f32::INFINITY, -0.0] {
        let error = QParams::<u8>::per_tensor(bad, 0).unwrap_err();
        assert!(matches!(error, Error::Params(ParamsError::Scale { .. })));
        says(&error, &["finite, positive", &format!("{bad}")]);
    }
    let error = QParams::<i8>::per_axis(Axis(0), array![1.0, 2.0, -3.0], None).unwrap_err();
    assert_eq!(error, Error::Params(ParamsError::Scale { what: "scale", found: -3.0, index: vec![2] }));
    // An f64 scale that f32 kernels cannot use.
    let tiny = array![[1e-300f64]];
    assert!(matches!(
        QParams::<i8>::from_f64(Granularity::PerTensor, tiny, None),
        Err(Error::Params(ParamsError::Scale { .. }))
    ));
    assert!(matches!(
        DequantizeEpilogue::new(&[1.0], &[1.0, 0.0], None),
        Err(Error::Params(ParamsError::Scale { .. }))
    ));
    assert!(matches!(
        Multiplier::new(1.0, f32::NAN, 1.0, Arithmetic::F32),
        Err(Error::Params(ParamsError::Scale { .. }))
    ));
    assert!(matches!(Multiplier::new(1e30, 1e30, 1.0, Arithmetic::F32), Err(Error::Params(ParamsError::Scale { .. }))));
}

#[test]
fn zero_points_and_code_ranges() {
    let error = QParams::<I4>::per_tensor(1.0, 8).unwrap_err();
    assert_eq!(error, Error::Params(ParamsError::ZeroPoint { min: -8, max: 7, found: 8 }));
    says(&error, &["-8..=7", "8"]);
    let error = QParams::<u8>::per_tensor(1.0, 200).unwrap().with_code_range(0, 127).unwrap_err();
    assert_eq!(error, Error::Params(ParamsError::ZeroPoint { min: 0, max: 127, found: 200 }));
    for (min, max) in [(5, 5), (7, 3), (-1, 10), (0, 256)] {
        let error = Scheme::<u8>::asymmetric().with_code_range(min, max).unwrap_err();
        assert_eq!(error, Error::Params(ParamsError::CodeRange { min: 0, max: 255, found_min: min, found_max: max }));
        says(&error, &["0..=255", &format!("{min}..={max}")]);
    }
    let error = Packed::<I4, _>::pack(&array![3i8, -9]).unwrap_err();
    assert_eq!(error, Error::Params(ParamsError::CodeRange { min: -8, max: 7, found_min: -9, found_max: -9 }));
}

#[test]
fn shapes_axes_and_groups() {
    let x = Array2::<f32>::ones((3, 4));
    let error = Scheme::<i8>::symmetric().per_axis(Axis(2)).quantize(&x).unwrap_err();
    assert_eq!(error, Error::Shape(ShapeError::Axis { ndim: 2, found: 2 }));
    says(&error, &["2-D", "found axis 2"]);
    let error = Scheme::<i8>::symmetric().per_group(Axis(1), 0).quantize(&x).unwrap_err();
    assert_eq!(error, Error::Params(ParamsError::GroupSize { found: 0 }));
    says(&error, &["at least 1", "found 0"]);
    let error = QParams::<i8>::per_axis(Axis(0), array![1.0, 2.0], None).unwrap().quantize(&x).unwrap_err();
    assert_eq!(error, Error::Shape(ShapeError::Mismatch { what: "parameters", expected: vec![3], found: vec![2] }));
    says(&error, &["[3]", "[2]"]);
    let error = QParams::<i8>::per_axis(Axis(0), array![1.0, 2.0], Some(array![0])).unwrap_err();
    assert_eq!(error, Error::Shape(ShapeError::Mismatch { what: "zero points", expected: vec![2], found: vec![1] }));
    let mut codes = Array2::<i8>::zeros((3, 5));
    let params = QParams::<i8>::per_tensor(1.0, 0).unwrap();
    let error = params.quantize_into(&x, &mut codes).unwrap_err();
    assert_eq!(error, Error::Shape(ShapeError::Mismatch { what: "codes", expected: vec![3, 4], found: vec![3, 5] }));
    assert!(params.dequantize_into(&codes, &mut Array2::<f32>::zeros((1, 1))).is_err());
    assert!(params.fake_quantize_into(&x, &mut Array2::<f32>::zeros((1, 1))).is_err());
    let wrong = QParams::per_axis(Axis(1), Array1::ones(3), None);
    assert!(matches!(QTensor::<i8, _>::new(codes, wrong.unwrap()), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    // Parameters per axis serve every rank that has the axis; groups have the rank of the tensor.
    let params = QParams::<i8>::new(Granularity::per_axis(Axis(0)), ArrayD::ones(IxDyn(&[3])), None).unwrap();
    params.quantize(&x.clone().into_dyn()).unwrap();
    let scalar = params.quantize(&ndarray::arr0(1.0f32)).unwrap_err();
    assert_eq!(scalar, Error::Shape(ShapeError::Axis { ndim: 0, found: 0 }));
    let groups = QParams::<i8>::new(Granularity::per_group(Axis(0), 2), Array1::ones(2), None).unwrap();
    assert!(matches!(groups.quantize(&x), Err(Error::Shape(ShapeError::Count { .. }))));
    let columns = QParams::<i8>::new(Granularity::per_axis(Axis(0)), Array2::ones((3, 1)), None);
    assert!(matches!(columns, Err(Error::Shape(ShapeError::Mismatch { .. }))));
    // No scales are allocated for axes of a tensor without elements that are too long.
    let vast = Array2::<f32>::zeros((1 << 60, 0));
    assert!(matches!(
        Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&vast),
        Err(Error::Shape(ShapeError::TooLarge { .. }))
    ));
    assert!(Packed::<I4, Ix2>::from_bytes((3, 3), vec![0; 4]).is_err());
    for dims in [[usize::MAX, 2, 1], [2, 0, usize::MAX], [0, usize::MAX / 2, 4]] {
        assert!(Packed::<I4, IxDyn>::from_bytes(IxDyn(&dims), vec![]).is_err(), "{dims:?}");
    }
    assert!(Ranges::new(Granularity::PerTensor, Array2::zeros((1, 2)), Array2::zeros((1, 2))).is_err());
}

#[test]
fn values() {
    let x = array![[1.0f32, 2.0], [f32::NAN, 0.0]];
    let error = Scheme::<u8>::asymmetric().quantize(&x).unwrap_err();
    says(&error, &["finite", "NaN", "[1, 0]"]);
    let error = Scheme::<u8>::asymmetric().quantize(&array![0.0, 1e300]).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::NonFinite { what: "x", found: 1e300, index: vec![1] }));
    let error = Scheme::<u8>::asymmetric().params_from_range(2.0, 1.0).unwrap_err();
    assert_eq!(error, Error::Params(ParamsError::Range { min: 2.0, max: 1.0 }));
    says(&error, &["min <= max", "min 2", "max 1"]);
    assert!(matches!(
        ndarray_quant::compat::fbgemm::choose_qparams(0.0, f32::INFINITY, 0, 255),
        Err(Error::Params(ParamsError::Range { .. }))
    ));
    assert!(matches!(
        ndarray_quant::compat::fbgemm::choose_qparams(0.0, 1.0, 5, 5),
        Err(Error::Params(ParamsError::CodeRange { .. }))
    ));
    let mut out = Array1::from_elem(2, f16::ONE);
    let error = HalfCast::<f16>::new(Overflow::Error).quantize_into(&array![1.5f32, -7e4], &mut out).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Overflow { limit: 65504.0, found: -7e4f32 as f64, index: vec![1] }));
    says(&error, &["65504", "-70000", "[1]"]);
    assert_eq!(out, array![f16::ONE, f16::ONE], "nothing was written");
    for bad in [-1.0, f64::NAN, f64::INFINITY, 2e9] {
        assert!(matches!(FixedPoint::from_f64(bad), Err(Error::Argument { .. })));
    }
    assert!(FixedPoint::from_parts(-1, 0).is_err() && FixedPoint::from_parts(1, 31).is_err());
}

#[test]
fn products() {
    let a = Array2::<u8>::zeros((2, 3));
    let b = PackedRhs::pack(&Array2::<i8>::zeros((4, 5)), &[0]).unwrap();
    let error = gemm(&a, 0, &b, &I32Epilogue::new()).unwrap_err();
    assert!(
        matches!(&error, Error::Shape(ShapeError::Mismatch { expected, found, .. }) if expected == &[2, 4] && found == &[2, 3])
    );
    let zeros = PackedRhs::pack(&Array2::<i8>::zeros((4, 5)), &[0, 0]).unwrap_err();
    assert!(matches!(zeros, Error::Shape(ShapeError::Count { expected: 5, found: 2, .. })));
    let a = Array2::<u8>::zeros((2, 4));
    assert!(matches!(
        gemm(&a, 0, &b, &I32Epilogue::with_bias(&[0; 4])),
        Err(Error::Shape(ShapeError::Count { expected: 5, found: 4, .. }))
    ));
    assert!(matches!(
        gemm(&a, 0, &b, &DequantizeEpilogue::new(&[1.0; 3], &[1.0], None).unwrap()),
        Err(Error::Shape(ShapeError::Count { expected: 2, found: 3, .. }))
    ));
    let mut out = Array2::from_elem((2, 4), 9);
    assert!(gemm_into(&a, 0, &b, &I32Epilogue::new(), &mut out, &mut Workspace::new()).is_err());
    let error = gemm(&a, 0, &b, &I32Epilogue::with_bias(&[0, 0, i32::MAX, 0, 0])).unwrap_err();
    assert_eq!(
        error,
        Error::Value(ValueError::Bias { max: i32::MAX as i64 - 4 * 255 * 128, found: i32::MAX as f64, channel: 2 })
    );
    let deep = PackedRhs::pack(&Array2::<i8>::zeros((70_000, 1)), &[0]).unwrap();
    let error = gemm(&Array2::<u8>::zeros((1, 70_000)), 0, &deep, &I32Epilogue::new()).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Depth { max: 65_793, found: 70_000 }));
    says(&error, &["65793", "70000"]);
    assert!(matches!(
        PackedRhs::pack(&Array2::<i8>::zeros((9_000_000, 1)), &[0]),
        Err(Error::Value(ValueError::Depth { .. }))
    ));
    let per_axis = QParams::<u8>::per_axis(Axis(0), array![1.0, 2.0], None).unwrap();
    assert!(matches!(
        RequantizeEpilogue::new(1.0, &[1.0], None, &per_axis, Arithmetic::F32),
        Err(Error::Params(ParamsError::Granularity { .. }))
    ));
}

#[test]
fn layers() {
    let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&Array2::<f32>::ones((4, 3))).unwrap();
    assert!(matches!(Linear::new(&w, Some(&Array1::zeros(3))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    let mut bias = Array1::zeros(4);
    bias[2] = f32::NAN;
    let error = Linear::new(&w, Some(&bias)).unwrap_err();
    assert!(matches!(error, Error::Value(ValueError::NonFinite { index, .. }) if index == [2]));
    let wrong_axis = Scheme::<i8>::symmetric().per_axis(Axis(1)).quantize(&Array2::<f32>::ones((4, 3))).unwrap();
    let error = Linear::new(&wrong_axis, None).unwrap_err();
    says(&error, &["per axis 0", "per axis 1"]);

    let fc = Linear::new(&w, Some(&Array1::ones(4))).unwrap();
    assert!(matches!(fc.forward_dynamic(&Array2::ones((2, 5))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    assert!(matches!(
        fc.forward_dynamic(&Array2::from_elem((2, 3), f32::INFINITY)),
        Err(Error::Value(ValueError::NonFinite { .. }))
    ));
    let x = QParams::<u8>::per_tensor(1e-9, 0).unwrap();
    let y = QParams::<u8>::per_tensor(1.0, 0).unwrap();
    let error = fc.clone().prepare(&x, &Output::to(&y)).unwrap_err();
    assert!(matches!(error, Error::Value(ValueError::Bias { channel: 0, .. })));

    let x = QParams::<u8>::per_tensor(0.1, 0).unwrap();
    let fixed: PreparedLinear<u8, i8, u8> = fc.prepare(&x, &Output::to(&y)).unwrap();
    let other = QParams::<u8>::per_tensor(0.2, 0).unwrap().quantize(&Array2::<f32>::ones((1, 3))).unwrap();
    assert!(matches!(fixed.forward(&other), Err(Error::Params(ParamsError::Mismatch { .. }))));
    assert!(HalfLinear::new(Array2::from_elem((2, 2), f16::ONE), Some(&Array1::zeros(3))).is_err());
    let half = HalfLinear::new(Array2::from_elem((2, 2), f16::ONE), None).unwrap();
    assert!(half.forward(&Array2::zeros((1, 3))).is_err());
}

#[test]
fn layers_that_are_too_deep() {
    let params = |zero_point| QParams::<u8>::per_tensor(1.0, zero_point).unwrap();
    let to = || Output::to(&params(0));
    // Too deep for every zero point of the input.
    let weights = |depth| Scheme::<i8>::symmetric().quantize(&Array2::<f32>::zeros((2, depth))).unwrap();
    let error = Linear::new(&weights(131_072), None).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Depth { max: 131_071, found: 131_072 }));
    let error = PreparedLinear::new(&params(128), &weights(131_072), None, &to()).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Depth { max: 131_071, found: 131_072 }));
    // A zero point at the end of the code range doubles the maximum of `|q - zero_point|`.
    let codes = Array2::<u8>::zeros((2, 65_794));
    let far = |zero_point| QTensor::new(codes.clone(), params(zero_point)).unwrap();
    assert_eq!(Linear::new(&far(0), None).unwrap_err(), Error::Value(ValueError::Depth { max: 65_793, found: 65_794 }));
    assert!(Linear::new(&far(128), None).is_ok());
    // Too deep for this zero point of the input, or for this bias.
    let deep = Linear::new(&weights(131_071), None).unwrap();
    assert_eq!(
        deep.clone().prepare(&params(0), &to()).unwrap_err(),
        Error::Value(ValueError::Depth { max: 65_793, found: 131_071 })
    );
    assert!(deep.prepare(&params(128), &to()).is_ok());
    let full = Linear::new(&weights(131_071), Some(&array![0.0, 16_384.0])).unwrap();
    let error = full.prepare(&params(128), &to()).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Bias { max: 16_383, found: 16_384.0, channel: 1 }));

    let window = Window::new();
    let params = |zero_point| QParams::<u8>::per_tensor(1.0, zero_point).unwrap();
    for (shape, groups) in [((2, 1, 2, 65_536), 1), ((2, 2, 65_536, 1), 2)] {
        let zeros = QTensor::new(Array4::zeros(shape), QParams::<i8>::per_tensor(1.0, 0).unwrap()).unwrap();
        let error = Conv2d::new(&zeros, None, &window, groups).unwrap_err();
        assert_eq!(error, Error::Value(ValueError::Depth { max: 131_071, found: 131_072 }));
    }
    let zeros = QTensor::new(Array4::zeros((1, 1, 1, 70_000)), QParams::<i8>::per_tensor(1.0, 0).unwrap()).unwrap();
    let conv = Conv2d::new(&zeros, None, &window, 1).unwrap();
    let error = conv.clone().prepare(&params(0), &Output::to(&params(0))).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Depth { max: 65_793, found: 70_000 }));
    assert!(conv.prepare(&params(128), &Output::to(&params(0))).is_ok());
    let error = PreparedConv2d::new(&params(0), &zeros, None, &window, 1, &Output::to(&params(0))).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::Depth { max: 65_793, found: 70_000 }));
}

/// Deserialization rejects settings that no constructor accepts.
#[cfg(feature = "serde")]
#[test]
fn serialized_settings() {
    let scheme = Scheme::<u8>::symmetric().per_group(Axis(1), 4).narrow_range();
    let json = serde_json::to_string(&scheme).unwrap();
    assert_eq!(serde_json::from_str::<Scheme<u8>>(&json).unwrap(), scheme);
    let empty = json.replace("\"min\":1", "\"min\":255");
    assert!(empty != json && serde_json::from_str::<Scheme<u8>>(&empty).is_err());
    assert!(serde_json::from_str::<Scheme<i8>>(&json).is_err(), "255 is no i8");

    let factor = FixedPoint::from_f64(0.1).unwrap();
    let json = serde_json::to_string(&factor).unwrap();
    assert_eq!(serde_json::from_str::<FixedPoint>(&json).unwrap(), factor);
    assert!(serde_json::from_str::<FixedPoint>("[1, 31]").is_err());
    assert!(serde_json::from_str::<FixedPoint>("[-1, 0]").is_err());
}

/// Deserialization restores the same tensor. Damaged input gives an error or a valid tensor.
#[cfg(feature = "serde")]
#[test]
fn serialized_tensors() {
    use ndarray_quant::{Element, U2};
    use serde::{Serialize, de::DeserializeOwned};

    fn survives<T: Element>(scheme: Scheme<T>)
    where
        T::Storage<Ix2>: Serialize + DeserializeOwned,
        T::Storage<IxDyn>: Serialize + DeserializeOwned,
    {
        let x = array![[1.0f32, -0.5, 0.25], [3.0, 0.0, -2.0]];
        let tensor = scheme.quantize(&x).unwrap();
        let json = serde_json::to_string(&tensor).unwrap();
        assert_eq!(serde_json::from_str::<QTensor<T, Ix2>>(&json).unwrap(), tensor);
        let tensor = scheme.quantize(&x.into_dyn()).unwrap();
        let json = serde_json::to_string(&tensor).unwrap();
        assert_eq!(serde_json::from_str::<QTensor<T, IxDyn>>(&json).unwrap(), tensor);
        for at in 0..json.len() {
            for byte in [b'0', b'1', b'9', b'-', b'.', b'e', b',', b'[', b']', b'"', b' '] {
                let mut hostile = json.clone().into_bytes();
                hostile[at] = byte;
                if let Ok(tensor) = serde_json::from_slice::<QTensor<T, IxDyn>>(&hostile) {
                    assert_eq!(tensor.dequantize().raw_dim(), tensor.raw_dim());
                }
            }
        }
        let shape = |dims: &str| json.replacen("[2,3]", dims, 1);
        let max = u64::MAX;
        for dims in ["[3,3]".into(), "[7]".into(), format!("[0,{max}]"), format!("[{max},2]"), format!("[0,{max},4]")] {
            assert!(
                shape(&dims) != json && serde_json::from_str::<QTensor<T, IxDyn>>(&shape(&dims)).is_err(),
                "{dims}"
            );
        }
    }
    survives(Scheme::<i8>::symmetric().per_axis(Axis(0)));
    survives(Scheme::<u8>::asymmetric());
    survives(Scheme::<i32>::symmetric().per_group(Axis(1), 2));
    survives(Scheme::<I4>::symmetric().per_group(Axis(1), 2));
    survives(Scheme::<U2>::asymmetric().per_axis(Axis(1)));
}

/// Extreme sizes, strides and bounds: valid ones work, others are errors.
#[test]
fn extremes() {
    let far = usize::MAX;
    let x = QTensor::<u8, Ix4>::new(Array4::zeros((1, 0, 2, 3)), QParams::per_tensor(0.1, 0).unwrap()).unwrap();
    let error = Resize::new([0, far], NearestMode::AsymmetricFloor).forward(&x).unwrap_err();
    says(&error, &["fits in memory", &format!("{far}")]);
    let pad = Pad::new(x.params(), &[(0, 0), (far, 0), (0, 0), (0, 1)]).unwrap();
    assert!(matches!(pad.forward(&x), Err(Error::Shape(ShapeError::TooLarge { .. }))));
    let half = 1 << 30;
    let wide = Window::new().with_padding(Padding::Explicit([half, half, half, half]));
    let x = QTensor::<u8, Ix4>::new(Array4::ones((1, 2, 2, 1)), QParams::per_tensor(0.1, 0).unwrap()).unwrap();
    assert!(matches!(MaxPool::new([1, 1], &wide).unwrap().forward(&x), Err(Error::Shape(ShapeError::TooLarge { .. }))));

    // A stride or dilation that is never taken may have any length.
    let same = Window::new().with_padding(Padding::Same);
    assert!(matches!(same.output_size([3, 3], [far, far]), Err(Error::Shape(ShapeError::TooLarge { .. }))));
    let w = QTensor::<i8, Ix4>::new(Array4::ones((1, 1, 1, 1)), QParams::per_tensor(0.1, 0).unwrap()).unwrap();
    let once = Window::new().with_strides([far, far]).with_dilations([far, far]);
    let to = Output::to(&QParams::<u8>::per_tensor(0.01, 0).unwrap());
    let y = Conv2d::new(&w, None, &once, 1).unwrap().forward(&x, &to).unwrap();
    assert_eq!(y.codes().iter().collect::<Vec<_>>(), [&1]);

    // Two codes stay two, and i32 has its codes.
    assert_eq!(Scheme::<i8>::symmetric().with_code_range(-1, 0).unwrap().narrow_range().levels(), 2);
    assert_eq!(Scheme::<i32>::symmetric().narrow_range().levels(), u64::from(u32::MAX));

    // min(max(y, low), high) is high where the bounds are not in order, and a NaN does not bound.
    let to = |low, high| Output::to(&QParams::<u8>::per_tensor(1.0, 0).unwrap()).clamp(Some(low), Some(high));
    assert_eq!(to(9.0, 5.0).clamp_range(), (5, 5));
    assert_eq!(to(f32::NAN, f32::NAN).clamp_range(), (0, 255));
    let mean = GlobalAveragePool::new(x.params(), &to(9.0, 5.0)).unwrap().forward(&x).unwrap();
    assert_eq!(mean.codes().iter().collect::<Vec<_>>(), [&5]);
}

#[test]
fn extremes_in_graphs() {
    let mut g = GraphBuilder::new();
    assert!(g.input("none", &[1, 0, usize::MAX, 3]).is_err());
    let x = g.input("x", &[1, 2, 0, 2]).unwrap();
    let far = g.node("far", op::Resize { scales: [usize::MAX, usize::MAX] }, &[x]);
    assert!(matches!(far, Err(Error::Graph(GraphError::Node { .. }))));
    for activation in [
        Activation::LeakyRelu { alpha: f32::NAN },
        Activation::HardSigmoid { alpha: 1.0, beta: f32::INFINITY },
        Activation::Clip(Clamp { low: Some(f32::NAN), high: None }),
    ] {
        says(&g.activation("odd", x, activation).unwrap_err(), &["odd", "finite"]);
    }
}

/// The sources of an error, from its cause on.
fn sources(error: &Error) -> Vec<&(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |error| error.source()).collect()
}

#[test]
fn the_source_of_a_node_error_is_its_cause() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 4]).unwrap();
    let error = g.linear("y", x, &Array2::ones((2, 3)), None).unwrap_err();
    let sources = sources(&error);
    assert_eq!(sources.len(), 1);
    let cause = sources[0].downcast_ref::<Error>().unwrap();
    assert!(matches!(cause, Error::Shape(ShapeError::Mismatch { what: "weights", .. })), "{cause:?}");
    assert_eq!(error.to_string(), format!("node \"y\": {cause}"));
}

#[cfg(all(feature = "std", feature = "onnx"))]
#[test]
fn the_source_of_a_file_error_is_the_io_error() {
    let error = ndarray_quant::graph::Graph::from_onnx("no/such/model.onnx").unwrap_err();
    let sources = sources(&error);
    let io = sources[0].downcast_ref::<std::io::Error>().unwrap();
    assert_eq!((sources.len(), io.kind()), (1, std::io::ErrorKind::NotFound));
    let found = std::fs::read("no/such/model.onnx").unwrap_err();
    assert_eq!(error.to_string(), format!("no/such/model.onnx: {found}"));
    assert_eq!(error, error.clone());
    assert_ne!(error, ndarray_quant::graph::Graph::from_onnx("no/such/other.onnx").unwrap_err());
}

#[test]
fn errors_cross_threads() {
    fn check<E: std::error::Error + Clone + PartialEq + Send + Sync + 'static>() {}
    check::<Error>();
    check::<ShapeError>();
    check::<ParamsError>();
    check::<ValueError>();
    check::<GraphError>();
    check::<FileError>();
}
