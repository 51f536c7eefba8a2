//! Operators on codes against scalar formulas.

use ndarray::{Array1, Array2, Array4, Axis, Ix4, Zip, s};
use ndarray_quant::gemm::{Int8, Workspace};
use ndarray_quant::{
    Convention, Element, QParams, QTensor, Scheme,
    compat::gemmlowp::{FixedPoint, FixedPointRounding},
    nn::{Arithmetic, Conv2d, HalfLinear, Linear, Multiplier, Output},
};
use ndarray_quant::{
    nn::{Padding, Window},
    ops::{self, Add, AveragePool, Concat, GlobalAveragePool, Lookup, MaxPool, Mul, NearestMode, Pad, Resize, Softmax},
};
use proptest::prelude::*;

type Params = QParams<u8>;

/// `a * b + c`, rounded once.
#[allow(clippy::disallowed_methods, reason = "the formula of QLinearAdd has FMA")]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

fn params() -> impl Strategy<Value = Params> {
    (0.005f32..0.5, any::<u8>()).prop_map(|(scale, zero)| QParams::per_tensor(scale, zero).unwrap())
}

fn scale_zero_point(params: &Params) -> (f32, f32) {
    (params.scales()[0], params.zero_point().map_or(0.0, |z| z.iter().next().copied().unwrap_or_default().into()))
}

fn images() -> impl Strategy<Value = Array4<u8>> {
    (1usize..3, 1usize..7, 1usize..7, prop_oneof![1usize..5, 60usize..70]).prop_flat_map(|dim| {
        let len = dim.0 * dim.1 * dim.2 * dim.3;
        prop::collection::vec(any::<u8>(), len).prop_map(move |v| Array4::from_shape_vec(dim, v).unwrap())
    })
}

/// Copies an array to NCHW memory order.
fn channels_first(x: &Array4<u8>) -> Array4<u8> {
    x.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned().permuted_axes([0, 2, 3, 1])
}

fn code(x: f32) -> u8 {
    x.clamp(0.0, 255.0).round_ties_even() as u8
}

/// Dynamic quantization equals quantizing first, for inputs of any strides.
fn dynamic_layer<W: ndarray_quant::gemm::Int8 + Element<Code = W>>(x: &Array2<f32>, w: &QTensor<W, ndarray::Ix2>) {
    let layer = Linear::new(w, Some(&Array1::from_elem(w.unpacked_codes().nrows(), 0.25))).unwrap();
    let (of_all, of_rows) = (Scheme::<u8>::asymmetric(), Scheme::<i8>::symmetric().per_axis(Axis(0)));
    let expected = layer.forward_dequantize(&of_all.quantize(x).unwrap()).unwrap();
    let expected_per_row = layer.forward_dequantize(&of_rows.quantize(x).unwrap()).unwrap();
    let transposed = x.t().as_standard_layout().into_owned();
    let mut workspace = Workspace::new();
    for x in [x.view(), transposed.t()] {
        let mut y = Array2::zeros((expected.ncols(), expected.nrows()));
        layer.forward_dynamic_into(&x, &mut y.view_mut().reversed_axes(), &mut workspace).unwrap();
        assert_eq!(y.t(), expected);
        assert_eq!(layer.forward_dynamic_per_row(&x).unwrap(), expected_per_row);
    }
}

/// Compares sums and products in every arithmetic with formulas for one element. `ones` selects axes of length 1 of the
/// operands, `first` selects operands in NCHW memory order.
fn check_broadcast<T: Int8 + Into<i32> + Into<f32>>(
    lens: [usize; 4],
    ones: [[bool; 4]; 2],
    first: [bool; 3],
    [(sa, za), (sb, zb), (sy, zy)]: [(f32, T); 3],
    relu: bool,
) {
    let array = |len: [usize; 4], seed: usize, channels_first: bool| {
        let order = |[n, h, w, c]: [usize; 4]| if channels_first { [n, c, h, w] } else { [n, h, w, c] };
        let mut state = seed;
        let codes = Array4::from_shape_simple_fn(order(len), || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            T::from_i32((state >> 20) as i32)
        });
        if channels_first { codes.permuted_axes([0, 2, 3, 1]) } else { codes }
    };
    let shape = |i: usize| std::array::from_fn(|axis| if ones[i][axis] { 1 } else { lens[axis] });
    let (a, b, mut y) = (array(shape(0), 1, first[0]), array(shape(1), 2, first[1]), array(lens, 3, first[2]));
    let (wide_a, wide_b) = (a.broadcast(y.raw_dim()).unwrap(), b.broadcast(y.raw_dim()).unwrap());
    let [pa, pb, py] = [(sa, za), (sb, zb), (sy, zy)].map(|(s, z)| QParams::<T>::per_tensor(s, z).unwrap());
    let least = if relu { zy } else { T::from_i32(T::MIN) };
    let limit = |code: i32| T::from_i32(code.clamp(T::MIN, T::MAX)).max(least);
    let code = |x: f32| limit(x.clamp(-1e4, 1e4).round_ties_even() as i32);
    let int = |code: T| -> i32 { code.into() };
    let float = |code: T| -> f32 { code.into() };
    let fixed = Arithmetic::FixedPoint;
    for by in [Arithmetic::F32, Arithmetic::F64, fixed(FixedPointRounding::Double), fixed(FixedPointRounding::Single)] {
        let to = Output::to(&py).with_arithmetic(by);
        let to = if relu { to.relu() } else { to };
        let sum = |a: T, b: T| match by {
            Arithmetic::FixedPoint(rounding) => {
                let twice_max = 2.0 * f64::from(sa.max(sb));
                let by = |x: i32, factor: f64| FixedPoint::from_f64(factor).unwrap().multiply(x, rounding);
                let a = by((int(a) - int(za)) << 20, f64::from(sa) / twice_max);
                let b = by((int(b) - int(zb)) << 20, f64::from(sb) / twice_max);
                limit(by(a + b, twice_max / (f64::from(1 << 20) * f64::from(sy))) + int(zy))
            }
            _ => {
                let (ra, rb) = (sa / sy, sb / sy);
                let constant = float(zy) - fma(ra, float(za), rb * float(zb));
                code(fma(float(a), ra, fma(float(b), rb, constant)))
            }
        };
        let multiplier = Multiplier::new(sa, sb, sy, by).unwrap();
        let product = |a: T, b: T| match multiplier {
            Multiplier::F32(factor) => code(((int(a) - int(za)) * (int(b) - int(zb))) as f32 * factor + float(zy)),
            multiplier => multiplier.requantize::<T>((int(a) - int(za)) * (int(b) - int(zb)), zy).max(least),
        };
        if by != Arithmetic::F64 {
            Add::new(&pa, &pb, &to).unwrap().forward_into(&a, &b, &mut y).unwrap();
            assert!(Zip::from(&wide_a).and(&wide_b).and(&y).all(|&a, &b, &y| sum(a, b) == y), "sum, {by:?}");
        }
        Mul::new(&pa, &pb, &to).unwrap().forward_into(&a, &b, &mut y).unwrap();
        assert!(Zip::from(&wide_a).and(&wide_b).and(&y).all(|&a, &b, &y| product(a, b) == y), "product, {by:?}");
    }
}

/// Tests rows longer than a chunk, and tensors that are split over threads.
#[test]
fn large_sums_and_products() {
    let params = [(0.03, 120u8), (0.07, 130), (0.05, 7)];
    let [no, yes] = [false, true];
    check_broadcast([1, 2, 2, 1500], [[no; 4], [yes, no, no, yes]], [no; 3], params, no);
    check_broadcast([1, 1, 2, 1500], [[no; 4], [yes; 4]], [no, no, yes], params, no);
    check_broadcast([3, 24, 64, 64], [[no; 4], [no, yes, yes, no]], [no; 3], params, no);
    check_broadcast([1, 1, 1, 280000], [[no; 4], [no; 4]], [no; 3], params, no);
}

#[test]
fn dynamic_layers_with_rows_in_cache_set_conflict() {
    let x = Array2::from_shape_fn((70, 4096), |(i, j)| ((i * 7 + j * 5) % 23) as f32 - 9.0);
    let w = Array2::from_shape_fn((2, 4096), |(i, j)| ((i + j * 3) % 11) as f32 - 5.0);
    dynamic_layer(&x, &Scheme::<i8>::symmetric().quantize(&w).unwrap());
}

/// Every form of a layer and its `_into` variant agree, into arrays that are not contiguous and hold NaN.
#[test]
fn into_variants_agree_with_allocating_forms() {
    let mut workspace = Workspace::new();
    let x = Array2::from_shape_fn((5, 9), |(i, j)| ((i * 7 + j * 5) % 23) as f32 * 0.1 - 0.9);
    let w = Array2::from_shape_fn((6, 9), |(i, j)| ((i + j * 3) % 11) as f32 * 0.1 - 0.5);
    let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&w).unwrap();
    let layer = Linear::new(&w, Some(&Array1::from_elem(6, 0.25))).unwrap();
    let to = Output::to(&QParams::<u8>::per_tensor(0.02, 100).unwrap()).relu();
    let codes = Scheme::<u8>::asymmetric().quantize(&x).unwrap();
    let rows = Scheme::<u8>::asymmetric().per_axis(Axis(0)).quantize(&x).unwrap();
    let half = x.mapv(half::f16::from_f32).slice(s![..4, ..]).to_owned();
    let (mut y, mut y_codes) = (Array2::from_elem((6, 5), f32::NAN), Array2::zeros((6, 5)));
    for codes in [&codes, &rows] {
        let mut out = y.view_mut().reversed_axes();
        layer.forward_dequantize_into(codes.params(), codes.codes(), &mut out, &mut workspace).unwrap();
        assert_eq!(out, layer.forward_dequantize(codes).unwrap());
    }
    let mut out = y_codes.view_mut().reversed_axes();
    layer.forward_into(codes.params(), codes.codes(), &to, &mut out, &mut workspace).unwrap();
    assert_eq!(out, layer.forward(&codes, &to).unwrap().codes());
    let prepared = layer.clone().prepare(codes.params(), &to).unwrap();
    assert_eq!(out, prepared.forward(&codes).unwrap().codes());
    assert_eq!(layer.output_shape(&[5, 9]).unwrap(), prepared.output_shape(&[5, 9]).unwrap());
    assert!(layer.size_in_bytes() >= 6 * 9 + 12 * 4 && prepared.size_in_bytes() >= 6 * 9 + 6 * 4);
    let half_layer = HalfLinear::new(half, Some(&Array1::ones(4))).unwrap();
    let mut out = Array2::from_elem((4, 5), f32::NAN).reversed_axes();
    half_layer.forward_into(&x, &mut out).unwrap();
    assert_eq!(out, half_layer.forward(&x).unwrap());

    let x = Array4::from_shape_fn((2, 5, 4, 3), |(n, h, w, c)| ((n * 7 + h * 5 + w * 3 + c) % 23) as f32 * 0.1 - 0.9);
    let w = Array4::from_shape_fn((6, 3, 2, 3), |(o, h, w, c)| ((o + h * 3 + w + c * 5) % 11) as f32 * 0.1 - 0.5);
    let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&w).unwrap();
    let layer = Conv2d::new(&w, Some(&Array1::from_elem(6, 0.25)), &Window::new().with_padding(1), 1).unwrap();
    let to = Output::to(&QParams::<u8>::per_tensor(0.02, 100).unwrap()).relu();
    let codes = Scheme::<u8>::asymmetric().quantize(&x).unwrap();
    let [n, h, w, c] = layer.output_shape(x.shape()).unwrap();
    assert_eq!([n, h, w, c], [2, 5, 5, 6]);
    let nhwc = [0, 2, 3, 1];
    let mut out = Array4::from_elem((n, c, h, w), f32::NAN).permuted_axes(nhwc);
    layer.forward_dequantize_into(codes.params(), codes.codes(), &mut out, &mut workspace).unwrap();
    assert_eq!(out, layer.forward_dequantize(&codes).unwrap());
    for x in [x.view(), x.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().view().permuted_axes(nhwc)] {
        out.fill(f32::NAN);
        layer.forward_dynamic_into(&x, &mut out, &mut workspace).unwrap();
        assert_eq!(out, layer.forward_dequantize(&codes).unwrap());
        assert_eq!(out, layer.forward_dynamic(&x).unwrap());
    }
    let mut out = Array4::zeros((n, c, h, w)).permuted_axes(nhwc);
    layer.forward_into(codes.params(), codes.codes(), &to, &mut out, &mut workspace).unwrap();
    assert_eq!(out, layer.forward(&codes, &to).unwrap().codes());
    let prepared = layer.clone().prepare(codes.params(), &to).unwrap();
    assert_eq!(out, prepared.forward(&codes).unwrap().codes());
    assert!(layer.size_in_bytes() >= 6 * 18 + 12 * 4 && prepared.size_in_bytes() >= 6 * 18 + 6 * 4);
}

/// Prepared operators check scale and zero point, not convention and code range.
#[test]
fn prepared_layers_accept_every_input_with_their_scale_and_zero_point() {
    let x = QParams::<u8>::per_tensor(0.01, 3).unwrap();
    let weights = Scheme::<i8>::symmetric().quantize(&Array2::<f32>::ones((2, 3))).unwrap();
    let to = Output::to(&QParams::<u8>::per_tensor(0.02, 0).unwrap());
    let layer = Linear::new(&weights, None).unwrap().prepare(&x, &to).unwrap();
    let values = Array2::from_elem((1, 3), 0.5f32);
    let expected = layer.forward(&x.quantize(&values).unwrap()).unwrap();
    for other in [
        x.clone().with_convention(Convention::TfLite),
        x.clone().with_convention(Convention::Torch),
        x.clone().with_code_range(0, 127).unwrap(),
    ] {
        assert_eq!(layer.forward(&other.quantize(&values).unwrap()).unwrap(), expected);
    }
    for (scale, zero_point) in [(0.02, 3), (0.01, 0)] {
        let other = QParams::<u8>::per_tensor(scale, zero_point).unwrap();
        let text = layer.forward(&other.quantize(&values).unwrap()).unwrap_err().to_string();
        for part in
            ["input", "prepared for", "scale 0.01, zero point 3", &format!("scale {scale}, zero point {zero_point}")]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("Blocks") && !text.contains("18446744073709551615"), "{text}");
    }
}

/// Errors name the argument of the call, with expected and found shapes, and say what to do about another layout.
#[test]
fn errors_speak_of_the_callers_arguments() {
    fn says<T: std::fmt::Debug>(result: ndarray_quant::Result<T>, parts: &[&str]) {
        let text = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("side"), "{text}");
    }
    let w = Scheme::<i8>::symmetric().quantize(&Array2::<f32>::ones((6, 4))).unwrap();
    let fc = Linear::new(&w, None).unwrap();
    let wrong = Array2::<f32>::ones((2, 3));
    let codes = Scheme::<u8>::asymmetric().quantize(&wrong).unwrap();
    let to = Output::to(&QParams::<u8>::per_tensor(0.02, 0).unwrap());
    let x_says = ["x, [batch, in]", "[2, 4]", "[2, 3]"];
    says(fc.forward_dynamic(&wrong), &x_says);
    says(fc.forward_dynamic_per_row(&wrong), &x_says);
    says(fc.forward_dequantize(&codes), &x_says);
    says(fc.forward(&codes, &to), &x_says);
    says(fc.clone().prepare(codes.params(), &to).unwrap().forward(&codes), &x_says);
    says(ops::fully_connected(&codes, &w, None, &to), &x_says);
    says(ops::matmul_integer(&codes.codes().view(), 0, &w.codes().t(), &[0]), &["a, [m, k]", "[2, 4]", "[2, 3]"]);
    says(ops::qlinear_matmul(&codes, &w, &QParams::<u8>::per_tensor(0.1, 0).unwrap()), &["a, [m, k]", "[2, 6]"]);

    // Outputs per axis.
    let per_axis = Output::to(&QParams::<u8>::per_axis(Axis(1), Array1::ones(6), None).unwrap());
    let x = QParams::<u8>::per_tensor(0.1, 0).unwrap();
    says(fc.prepare(&x, &per_axis), &["output", "per tensor", "per axis 1"]);

    // NCHW images and OIHW weights.
    let conv = |shape: [usize; 4], groups| {
        let w = Scheme::<i8>::symmetric().quantize(&Array4::<f32>::ones(shape)).unwrap();
        Conv2d::new(&w, None, &Window::new(), groups).unwrap()
    };
    let image = |shape: [usize; 4]| Array4::<f32>::ones(shape);
    let nchw = conv([6, 3, 3, 3], 1).forward_dynamic(&image([2, 3, 8, 8]));
    says(nchw, &["image", "4-D NHWC", "3 channels", "shape [2, 3, 8, 8]", "NCHW? use permuted_axes"]);
    let oihw = ["image", "shape [2, 8, 8, 3]", "weights OIHW? use permuted_axes"];
    says(conv([6, 3, 5, 5], 1).forward_dynamic(&image([2, 8, 8, 3])), &oihw);
    says(conv([3, 1, 5, 5], 3).forward_dynamic(&image([2, 8, 8, 3])), &oihw);
    says(conv([6, 3, 3, 3], 1).output_shape(&[2, 3]), &["image", "4-D NHWC", "3 channels", "shape [2, 3]"]);
    says(
        conv([6, 3, 3, 3], 1).forward_dynamic(&image([2, 8, 8, 5])),
        &["4-D NHWC with 3 channels", "shape [2, 8, 8, 5]"],
    );

    // A NaN has the index of the caller's array, whatever its strides.
    let mut x = image([2, 3, 8, 8]);
    x[[1, 2, 4, 5]] = f32::NAN;
    says(conv([6, 3, 3, 3], 1).forward_dynamic(&x.permuted_axes([0, 2, 3, 1])), &["[1, 4, 5, 2]"]);

    // Windows that fit no image fail when the operator is made.
    let strides = Window::new().with_strides([0, 1]);
    says(MaxPool::new([2, 2], &strides), &["strides", "at least 1", "[0, 1]"]);
    says(MaxPool::new([2, 0], &Window::new()), &["kernel", "at least 1", "[2, 0]"]);
    says(MaxPool::new([2, 2], &Window::new()).unwrap().output_shape(&[1, 2]), &["image", "4-D NHWC", "[1, 2]"]);
    assert!(MaxPool::new([7, 7], &Window::new()).is_ok());
}

#[test]
fn shapes_of_quantized_tensors() {
    let x = QTensor::<u8, Ix4>::new(
        Array4::from_shape_fn((2, 3, 4, 5), |(a, b, c, d)| (60 * a + 20 * b + 5 * c + d) as u8),
        QParams::per_tensor(0.5, 3).unwrap(),
    )
    .unwrap();
    for axis in 0..=4 {
        let flat = x.clone().flatten(axis).unwrap();
        let rows = [1, 2, 6, 24, 120][axis];
        assert_eq!(flat.codes().dim(), (rows, 120 / rows));
        assert!(flat.codes().iter().zip(0u8..).all(|(&code, expected)| code == expected));
    }
    assert!(x.clone().flatten(5).is_err() && x.clone().into_shape([7, 11]).is_err());
    let packed = Scheme::<ndarray_quant::I4>::symmetric().quantize(&Array2::<f32>::ones((3, 5))).unwrap();
    assert_eq!(
        packed.clone().into_shape([15]).unwrap().dequantize().to_vec(),
        packed.dequantize().into_iter().collect::<Vec<_>>()
    );
    let per_axis = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&Array2::<f32>::ones((3, 5))).unwrap();
    assert!(per_axis.into_shape([15]).is_err());
}

proptest! {
    #[test]
    fn dynamic_layers(rows in 0usize..40, depth in 1usize..70, cols in 1usize..70, x in prop::collection::vec(-3f32..5.0, 2800)) {
        let x = Array2::from_shape_fn((rows, depth), |(i, j)| x[i * depth + j]);
        let w = Array2::from_shape_fn((cols, depth), |(i, j)| ((i * 3 + j * 7) % 13) as f32 - 4.0);
        dynamic_layer(&x, &Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&w).unwrap());
        dynamic_layer(&x, &Scheme::<u8>::asymmetric().per_axis(Axis(0)).quantize(&w).unwrap());
    }

    #[test]
    fn sums_and_products(a in images(), pa in params(), pb in params(), py in params()) {
        let b = a.slice(s![.., ..;-1, ..;-1, ..]).to_owned();
        let one_row = b.slice(s![..1, ..1, ..1, ..]);
        let ((sa, za), (sb, zb), (sy, zy)) = (scale_zero_point(&pa), scale_zero_point(&pb), scale_zero_point(&py));
        let sum = |a: u8, b: u8| {
            let (ra, rb) = (sa / sy, sb / sy);
            code(fma(a as f32, ra, fma(b as f32, rb, zy - fma(ra, za, rb * zb))))
        };
        let product = |a: u8, b: u8| code(((a as f32 - za) * (b as f32 - zb)) * ((sa * sb) / sy) + zy);
        let to = Output::to(&py);
        let (add, mul) = (Add::new(&pa, &pb, &to).unwrap(), Mul::new(&pa, &pb, &to).unwrap());
        for a in [a.clone(), channels_first(&a)] {
            for b in [b.view(), one_row] {
                let wide = b.broadcast(a.raw_dim()).unwrap();
                let mut y = Array4::zeros(a.raw_dim());
                add.forward_into(&a, &b, &mut y).unwrap();
                prop_assert!(ndarray::Zip::from(&a).and(&wide).and(&y).all(|&a, &b, &y| sum(a, b) == y));
                mul.forward_into(&a, &b, &mut y).unwrap();
                prop_assert!(ndarray::Zip::from(&a).and(&wide).and(&y).all(|&a, &b, &y| product(a, b) == y));
            }
        }
        // In fixed point the sum differs by at most one code.
        let fixed = Arithmetic::FixedPoint(FixedPointRounding::Double);
        if let Ok(add) = Add::new(&pa, &pb, &Output::to(&py).with_arithmetic(fixed)) {
            let mut y = Array4::zeros(a.raw_dim());
            add.forward_into(&a, &b, &mut y).unwrap();
            prop_assert!(ndarray::Zip::from(&a).and(&b).and(&y).all(|&a, &b, &y| sum(a, b).abs_diff(y) <= 1));
        }
    }

    #[test]
    fn sums_and_products_that_broadcast(
        lens in (0usize..4, 1usize..6, 1usize..6, 1usize..200), ones in prop::array::uniform2(prop::array::uniform4(any::<bool>())),
        first in prop::array::uniform3(any::<bool>()), scales in prop::array::uniform3(-7f32..3.0),
        zeros in prop::array::uniform3(any::<u8>()), relu: bool,
    ) {
        let lens = [lens.0, lens.1, lens.2, lens.3];
        let params = [0, 1, 2].map(|i| (scales[i].exp2(), zeros[i]));
        check_broadcast::<u8>(lens, ones, first, params, relu);
        check_broadcast::<i8>(lens, ones, first, params.map(|(scale, zero)| (scale, zero as i8)), relu);
    }

    #[test]
    fn pools(
        x in images(), px in params(), py in params(), kernel in 1usize..4, stride in 1usize..4, dilation in 1usize..3,
        pads in [0usize..2, 0usize..2, 0usize..2, 0usize..2], ceil: bool, same: bool, include: bool,
    ) {
        let (_, h, w, _) = x.dim();
        let total = |size: usize| {
            ((size.div_ceil(stride) - 1) * stride + (kernel - 1) * dilation + 1).saturating_sub(size)
        };
        let padding = if same { Padding::Same } else { Padding::Explicit(pads) };
        let window = Window::new().with_strides([stride; 2]).with_dilations([dilation; 2]).with_padding(padding).with_ceil_mode(ceil);
        let [top, left, bottom, right] = match same {
            true => [total(h) / 2, total(w) / 2, total(h).div_ceil(2), total(w).div_ceil(2)],
            false => pads,
        };
        prop_assume!(window.output_size([kernel; 2], [h, w]).is_ok());
        let tensor = QTensor::new(x.clone(), px.clone()).unwrap();
        let pool = AveragePool::new(&px, [kernel; 2], &window, &Output::to(&py)).unwrap();
        let mean = pool.count_include_pad(include).forward(&tensor).unwrap();
        let fixed = Arithmetic::FixedPoint(FixedPointRounding::Double);
        let to = Output::to(&px).with_arithmetic(fixed);
        let pool = AveragePool::new(&px, [kernel; 2], &window, &to).unwrap();
        let mean_of_codes = pool.count_include_pad(include).forward(&tensor).unwrap();
        let max = MaxPool::new([kernel; 2], &window).unwrap().forward(&tensor).unwrap();
        let ((sx, zx), (sy, zy)) = (scale_zero_point(&px), scale_zero_point(&py));
        for ((n, y, x_out, c), &got) in mean.codes().indexed_iter() {
            let (mut sum, mut codes, mut inside, mut padded, mut greatest) = (0f32, 0, 0, 0, 0);
            for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                let (down, across) = (y * stride + ky * dilation, x_out * stride + kx * dilation);
                padded += (down < top + h + bottom && across < left + w + right) as i32;
                if let Some(&code) = x.get([n, down.wrapping_sub(top), across.wrapping_sub(left), c]) {
                    sum += (code as f32 - zx) * sx;
                    codes += code as i32;
                    greatest = greatest.max(code);
                    inside += 1;
                }
            }
            let count = if include { padded } else { inside }.max(1);
            prop_assert_eq!(got, code(sum / count as f32 / sy + zy));
            // The padding holds zero points; halves are rounded up, which for codes of `u8` is away from zero.
            codes += (count - inside) * zx as i32;
            prop_assert_eq!(mean_of_codes.codes()[[n, y, x_out, c]] as i32, (2 * codes + count) / (2 * count));
            prop_assert_eq!(max.codes()[[n, y, x_out, c]], greatest);
        }
        let global = GlobalAveragePool::new(&px, &Output::to(&py)).unwrap();
        let mut out = Array4::zeros((x.dim().0, 1, 1, x.dim().3));
        global.forward_into(&channels_first(&x), &mut out, &mut Workspace::new()).unwrap();
        for ((n, _, _, c), &got) in out.indexed_iter() {
            let acc: i32 = x.slice(s![n, .., .., c]).iter().map(|&x| x as i32 - zx as i32).sum();
            let factor = sx / (sy * (h * w) as f32);
            prop_assert_eq!(got, ((acc as f32 * factor).round_ties_even() + zy).clamp(0.0, 255.0) as u8);
        }
    }

    #[test]
    fn tables(x in images(), px in params(), py in params()) {
        let tensor = QTensor::new(x.clone(), px.clone()).unwrap();
        let same = Lookup::requantize(&px, &py).unwrap();
        let mut y = Array4::<u8>::zeros(x.raw_dim());
        same.forward_into(&channels_first(&x), &mut y).unwrap();
        let expected = py.quantize(&tensor.dequantize()).unwrap();
        prop_assert_eq!(&y, expected.codes());
        let concat = Concat::new(Axis(3), &[&px, &py], &py).unwrap();
        let joined = concat.forward(&[&tensor, &QTensor::new(y.clone(), py.clone()).unwrap()]).unwrap();
        prop_assert_eq!(joined.codes(), &ndarray::concatenate![Axis(3), y, y]);
        for axis in (0..4).map(Axis) {
            let expected = ndarray::concatenate![axis, y, y];
            let concat = Concat::new(axis, &[&px, &py], &py).unwrap();
            let mut out = Array4::zeros(expected.raw_dim());
            concat.forward_into(&[x.view(), y.view()], &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
            let mut out = channels_first(&out.mapv(|code| !code));
            concat.forward_into(&[channels_first(&x).view(), y.view()], &mut out).unwrap();
            prop_assert_eq!(&out, &expected);
        }
        let probabilities = QParams::per_tensor(1.0 / 256.0, 0).unwrap();
        let softmax = Softmax::new(&px, &probabilities).unwrap().forward(&tensor).unwrap();
        for (row, values) in softmax.codes().rows().into_iter().zip(tensor.dequantize().rows()) {
            let exp: Vec<f64> = values.iter().map(|&x| (x as f64).exp()).collect();
            let sum: f64 = exp.iter().sum();
            for (&code, exp) in row.iter().zip(exp) {
                prop_assert!((code as f64 - (exp / sum * 256.0).min(255.0)).abs() <= 0.501);
            }
        }
    }

    #[test]
    fn movements(x in images(), top in 0usize..3, left in 0usize..3, rows in 1usize..9, columns in 1usize..9) {
        let (n, h, w, c) = x.dim();
        let mut out = Array4::zeros((n, h + top, w + left, c));
        let params = Params::per_tensor(0.1, 7).unwrap();
        let pad = Pad::new(&params, &[(0, 0), (top, 0), (left, 0), (0, 0)]).unwrap();
        pad.forward_into(&x, &mut out).unwrap();
        prop_assert_eq!(out.slice(s![.., top.., left.., ..]), x.view());
        prop_assert!(out.slice(s![.., ..top, .., ..]).iter().all(|&code| code == 7));
        let half_pixel = |at: usize, from: usize, to: usize| {
            ((at as f64 + 0.5) * from as f64 / to as f64 - 1.0).ceil().clamp(0.0, (from - 1) as f64) as usize
        };
        let mut out = Array4::zeros((n, rows, columns, c));
        Resize::new([rows, columns], NearestMode::AsymmetricFloor).forward_into(&x, &mut out).unwrap();
        prop_assert!(out.indexed_iter().all(|((n, y, at, c), &code)| code == x[[n, y * h / rows, at * w / columns, c]]));
        Resize::new([rows, columns], NearestMode::HalfPixelPreferFloor).forward_into(&x, &mut out).unwrap();
        let source = |y, at| (half_pixel(y, h, rows), half_pixel(at, w, columns));
        prop_assert!(out.indexed_iter().all(|((n, y, at, c), &code)| code == x[[n, source(y, at).0, source(y, at).1, c]]));
    }
}

/// Multipliers of 1 and more, and more channels than a tile has.
#[test]
fn depthwise_convolutions_with_large_multipliers() {
    for channels in [3, 16, 17, 40, 96] {
        let weights = Array4::from_shape_fn((channels, 2, 2, 1), |(c, y, x, _)| (c % 5 + 2 * y + x) as i8 - 3);
        let image = Array4::from_shape_fn((1, 5, 7, channels), |(_, y, x, c)| ((7 * y + x + 3 * c) % 11) as u8);
        let one = QParams::<u8>::per_tensor(1.0, 0).unwrap();
        let to = QParams::<u8>::per_tensor(0.5, 30).unwrap();
        let w = QTensor::<i8, Ix4>::new(weights.clone(), QParams::per_tensor(1.0, 0).unwrap()).unwrap();
        let conv = Conv2d::new(&w, None, &Window::new(), channels).unwrap();
        let found = conv.forward(&QTensor::new(image.clone(), one).unwrap(), &Output::to(&to)).unwrap();
        for ((_, y, x, c), &code) in found.codes().indexed_iter() {
            let product = |(i, j)| i32::from(image[[0, y + i, x + j, c]]) * i32::from(weights[[c, i, j, 0]]);
            let sum: i32 = [(0, 0), (0, 1), (1, 0), (1, 1)].map(product).iter().sum();
            assert_eq!(i32::from(code), (2 * sum + 30).clamp(0, 255), "{channels} channels: {y} {x} {c}");
        }
    }
}
