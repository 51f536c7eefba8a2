//! Operators of files against plain computations on arrays.

use std::error::Error;

use ndarray::{Array, ArrayD, Axis, IxDyn, Slice, array, s};
use ndarray_quant::Result;
use ndarray_quant::graph::{Arena, CalibrationMethod, Calibrator, Precision, Recipe};

use super::message::{Message, float, floats, graph, int, int_list, ints, model_in, node, string, value};
use super::read;

/// Different values in `-2..2`.
pub(super) fn values(shape: &[usize]) -> ArrayD<f32> {
    let mut state = 7u32;
    Array::from_shape_simple_fn(shape, || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    })
}

pub(super) fn constant(name: &str, value: &ArrayD<f32>) -> Message {
    let dims: Vec<i64> = value.shape().iter().map(|&len| len as i64).collect();
    floats(name, &dims, &value.iter().copied().collect::<Vec<_>>())
}

pub(super) fn run_in(opset: i64, x: &ArrayD<f32>, nodes: &[Message], constants: &[Message]) -> Result<ArrayD<f32>> {
    let dims: Vec<i64> = x.shape().iter().map(|&len| len as i64).collect();
    let graph = read(&model_in(opset, nodes, constants, &dims, "y"))?;
    let y = graph.run(x)?;
    // A batch of two is computed sample by sample.
    let two = ndarray::concatenate(Axis(0), &[x.mapv(|x| -x).view(), x.view()]).expect("equal shapes");
    let both = graph.run(&two)?;
    if y.ndim() > 0 {
        let second = both.slice_axis(Axis(0), Slice::from(y.len_of(Axis(0))..));
        let same =
            |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-5 * (1.0 + a.abs()) || (a.is_nan() && b.is_nan());
        assert!(y.iter().zip(&second).all(same), "{y} {second}");
    }
    assert_eq!(graph.clone().simplify()?.run(x)?.shape(), y.shape());
    Ok(y)
}

/// Runs one node on `x` and constants.
pub(super) fn run(
    op: &str,
    x: &ArrayD<f32>,
    constants: &[Message],
    names: &[&str],
    attributes: &[Message],
) -> Result<ArrayD<f32>> {
    run_in(20, x, &[node(op, &[&["x"], names].concat(), "y", attributes)], constants)
}

pub(super) fn close(a: &ArrayD<f32>, b: &ArrayD<f32>) {
    assert_eq!(a.shape(), b.shape());
    let scale = b.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * scale.max(1e-3), "{a} instead of {b}");
    }
}

#[test]
fn transpositions() -> Result<()> {
    for (shape, perm) in [
        (&[1, 3, 4, 5][..], &[0, 2, 3, 1][..]),
        (&[1, 3, 4, 5], &[0, 3, 2, 1]),
        (&[1, 3, 4, 5], &[2, 0, 1, 3]),
        (&[1, 3, 4], &[2, 1, 0]),
        (&[1, 3, 4, 5, 2], &[4, 1, 0, 3, 2]),
        (&[1, 5], &[1, 0]),
    ] {
        let x = values(shape);
        let attribute: Vec<i64> = perm.iter().map(|&axis| axis as i64).collect();
        let y = run("Transpose", &x, &[], &[], &[int_list("perm", &attribute)])?;
        assert_eq!(y, x.view().permuted_axes(perm));
    }
    let x = values(&[1, 3, 4]);
    assert_eq!(run("Transpose", &x, &[], &[], &[])?, x.t());
    Ok(())
}

#[test]
fn slices() -> Result<()> {
    let x = values(&[1, 6, 5, 4]);
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let constants = [ints("s", starts), ints("e", ends), ints("a", axes), ints("t", steps)];
        run("Slice", &x, &constants, &["s", "e", "a", "t"], &[])
    };
    assert_eq!(slice(&[1], &[4], &[1], &[1])?, x.slice(s![.., 1..4, .., ..]).into_dyn());
    assert_eq!(slice(&[-3, 0], &[i64::MAX, 5], &[1, 2], &[2, 3])?, x.slice(s![.., 3..;2, ..;3, ..]).into_dyn());
    assert_eq!(slice(&[-1], &[i64::MIN], &[-1], &[-1])?, x.slice(s![.., .., .., ..;-1]).into_dyn());
    assert_eq!(slice(&[3], &[0], &[1], &[-2])?, x.slice(s![.., 1..4;-2, .., ..]).into_dyn());
    assert_eq!(slice(&[0], &[6], &[1], &[1])?, x);
    assert_eq!(slice(&[4], &[2], &[1], &[1])?.shape(), [1, 0, 5, 4]);
    assert!(slice(&[0], &[6], &[1], &[0]).is_err());
    assert!(slice(&[0], &[6], &[4], &[1]).is_err());
    let attributes = [int_list("starts", &[1]), int_list("ends", &[3]), int_list("axes", &[2])];
    let y = run_in(9, &x, &[node("Slice", &["x"], "y", &attributes)], &[])?;
    assert_eq!(y, x.slice(s![.., .., 1..3, ..]).into_dyn());
    Ok(())
}

#[test]
fn splits() -> Result<()> {
    let x = values(&[1, 6, 5]);
    let split = |opset: i64, inputs: &[&str], outputs: &[&str], attributes: &[Message], lengths: &[i64]| {
        let node = node("Split", inputs, outputs[0], attributes);
        let node = outputs[1..].iter().fold(node, |node, name| node.text(2, name));
        let graph = graph(&[node], &[ints("l", lengths)], &[value("x", &[1, 6, 5])], outputs[0]);
        let graph = outputs[1..].iter().fold(graph, |graph, name| graph.message(12, value(name, &[])));
        let file = Message::default().int(1, 8).message(7, graph).message(8, Message::default().int(2, opset)).0;
        read(&file)?.compile()?.run_many(&[x.view()], &mut Arena::new())
    };
    let expected = [x.slice(s![.., ..2, ..]), x.slice(s![.., 2..3, ..]), x.slice(s![.., 3.., ..])];
    for y in [
        split(13, &["x", "l"], &["a", "b", "c"], &[int("axis", 1)], &[2, 1, 3])?,
        split(11, &["x"], &["a", "b", "c"], &[int("axis", -2), int_list("split", &[2, 1, 3])], &[])?,
    ] {
        assert!(y.iter().zip(&expected).all(|(y, expected)| y == expected.view().into_dyn()));
    }
    let y = split(18, &["x"], &["a", "b"], &[int("axis", 2), int("num_outputs", 2)], &[])?;
    assert_eq!((y[0].view(), y[1].view()), (x.slice(s![.., .., ..3]).into_dyn(), x.slice(s![.., .., 3..]).into_dyn()));
    assert!(split(13, &["x", "l"], &["a", "b"], &[int("axis", 1)], &[2, 1, 3]).is_err());
    assert!(split(13, &["x", "l"], &["a", "b"], &[int("axis", 1)], &[2, 5]).is_err());
    Ok(())
}

#[test]
fn gathers_and_expansions() -> Result<()> {
    let x = values(&[1, 4, 1, 3]);
    let y = run("Gather", &x, &[ints("i", &[2, -1, 2])], &["i"], &[int("axis", 1)])?;
    assert_eq!(y, x.select(Axis(1), &[2, 3, 2]));
    let scalar = Message::default().int(2, 7).text(8, "i").int(7, -3);
    assert_eq!(run("Gather", &x, &[scalar], &["i"], &[int("axis", 1)])?, x.index_axis(Axis(1), 1));
    assert!(run("Gather", &x, &[ints("i", &[4])], &["i"], &[int("axis", 1)]).is_err());
    let wide = run("Expand", &x, &[ints("i", &[5, 1])], &["i"], &[])?;
    assert_eq!(wide, x.broadcast(IxDyn(&[1, 4, 5, 3])).unwrap());
    assert!(run("Expand", &x, &[ints("i", &[2])], &["i"], &[]).is_err());
    Ok(())
}

#[test]
fn blocks_of_pixels() -> Result<()> {
    let x = values(&[1, 8, 2, 3]);
    let to_space = |mode: &str| run("DepthToSpace", &x, &[], &[], &[int("blocksize", 2), string("mode", mode)]);
    let (dcr, crd) = (to_space("DCR")?, to_space("CRD")?);
    for (c, h, w) in ndarray::indices((2, 4, 6)) {
        let block = h % 2 * 2 + w % 2;
        assert_eq!(dcr[[0, c, h, w]], x[[0, block * 2 + c, h / 2, w / 2]]);
        assert_eq!(crd[[0, c, h, w]], x[[0, c * 4 + block, h / 2, w / 2]]);
    }
    assert_eq!(run("SpaceToDepth", &dcr, &[], &[], &[int("blocksize", 2)])?, x);
    Ok(())
}

#[test]
fn reductions() -> Result<()> {
    let x = values(&[1, 3, 4, 5]);
    for (op, f) in [
        ("ReduceSum", (|x: &[f32]| x.iter().sum()) as fn(&[f32]) -> f32),
        ("ReduceMean", |x| x.iter().sum::<f32>() / x.len() as f32),
        ("ReduceProd", |x| x.iter().product()),
        ("ReduceMax", |x| x.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        ("ReduceMin", |x| x.iter().copied().fold(f32::INFINITY, f32::min)),
    ] {
        for axes in [&[1i64][..], &[-1, 1], &[2, 3], &[1, 2, 3], &[0, 1, 2, 3]] {
            let resolved: Vec<usize> = axes.iter().map(|&axis| axis.rem_euclid(4) as usize).collect();
            let mut kept = x.shape().to_vec();
            resolved.iter().for_each(|&axis| kept[axis] = 1);
            let mut rows = ArrayD::from_elem(IxDyn(&kept), Vec::new());
            for (index, &x) in x.indexed_iter() {
                let at: Vec<usize> =
                    (0..4).map(|axis| if resolved.contains(&axis) { 0 } else { index[axis] }).collect();
                rows[&at[..]].push(x);
            }
            let expected = rows.mapv(|row| f(&row));
            close(&run(op, &x, &[ints("a", axes)], &["a"], &[])?, &expected);
            let dropped: Vec<usize> = (0..4).filter(|axis| !resolved.contains(axis)).map(|axis| kept[axis]).collect();
            let y = run(op, &x, &[ints("a", axes)], &["a"], &[int("keepdims", 0)])?;
            close(&y, &expected.to_shape(&dropped[..]).unwrap().into_owned());
        }
    }
    assert_eq!(run("ReduceSum", &x, &[], &[], &[int("noop_with_empty_axes", 1)])?, x);
    assert_eq!(run("GlobalMaxPool", &x, &[], &[], &[])?.shape(), [1, 3, 1, 1]);
    Ok(())
}

#[test]
fn products_of_tensors() -> Result<()> {
    for (a, b) in [
        (&[1, 2, 3, 4][..], &[1, 2, 4, 5][..]),
        (&[1, 2, 3, 4], &[4, 5]),
        (&[1, 3, 4], &[4, 5]),
        (&[1, 2, 3, 4], &[1, 1, 4, 5]),
        (&[1, 3, 4], &[2, 4, 5]),
        (&[1, 6, 1, 3, 4], &[1, 1, 2, 4, 5]),
        (&[1, 4], &[4, 5]),
        (&[1, 4], &[3, 4, 5]),
        (&[1, 3, 4], &[4]),
    ] {
        let (a, b) = (values(a), values(b).mapv(|x| x * 0.5 + 0.1));
        let y = run("MatMul", &a, &[constant("b", &b)], &["b"], &[])?;
        let b = if b.ndim() == 1 { b.clone().insert_axis(Axis(1)) } else { b.clone() };
        let ndim = a.ndim().max(b.ndim());
        let padded = |x: &ArrayD<f32>| {
            let shape = [vec![1; ndim - x.ndim()], x.shape().to_vec()].concat();
            x.to_shape(&shape[..]).unwrap().into_owned()
        };
        let (a, b) = (padded(&a), padded(&b));
        let mut shape: Vec<usize> = (0..ndim - 2).map(|axis| a.shape()[axis].max(b.shape()[axis])).collect();
        shape.extend([a.shape()[ndim - 2], b.shape()[ndim - 1]]);
        let expected = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let outer = |x: &ArrayD<f32>| (0..ndim - 2).map(|axis| at[axis] % x.shape()[axis]).collect::<Vec<_>>();
            let term = |k: usize| {
                let (a_at, b_at) =
                    ([&outer(&a)[..], &[at[ndim - 2], k]].concat(), [&outer(&b)[..], &[k, at[ndim - 1]]].concat());
                a[&a_at[..]] * b[&b_at[..]]
            };
            (0..a.shape()[ndim - 1]).map(term).sum::<f32>()
        });
        close(&y.to_shape(&shape[..]).unwrap().into_owned(), &expected);
    }
    // Two activations.
    let x = values(&[1, 2, 3, 3]);
    let y = run_in(13, &x, &[node("MatMul", &["x", "x"], "y", &[])], &[])?;
    for (h, i, j) in ndarray::indices((2, 3, 3)) {
        let sum: f32 = (0..3).map(|k| x[[0, h, i, k]] * x[[0, h, k, j]]).sum();
        assert!((y[[0, h, i, j]] - sum).abs() < 1e-5);
    }
    Ok(())
}

#[test]
fn normalizations() -> Result<()> {
    let normal = |x: &[f32]| {
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x.len() as f32;
        x.iter().map(|x| (x - mean) / (variance + 1e-3).sqrt()).collect::<Vec<f32>>()
    };
    for (shape, axis) in
        [(&[1, 4, 6][..], 2usize), (&[1, 6], 1), (&[1, 2, 3, 4], 3), (&[1, 2, 3, 4], 2), (&[1, 3, 5], 1)]
    {
        let x = values(shape);
        let (scale, bias) = (values(&shape[axis..]).mapv(|x| x + 3.0), values(&shape[axis..]));
        let attributes = [int("axis", axis as i64 - shape.len() as i64), float("epsilon", 1e-3)];
        let constants = [constant("s", &scale), constant("b", &bias)];
        let y = run("LayerNormalization", &x, &constants, &["s", "b"], &attributes)?;
        let len: usize = shape[axis..].iter().product();
        let flat: Vec<f32> = x.as_slice().unwrap().chunks(len).flat_map(normal).collect();
        let expected = ArrayD::from_shape_vec(IxDyn(shape), flat).unwrap() * &scale + &bias;
        close(&y, &expected);
    }
    let x = values(&[1, 4, 3, 2]);
    let (scale, bias) = (array![1.0f32, 2.0, -1.0, 0.5].into_dyn(), array![0.0f32, 1.0, 2.0, -1.0].into_dyn());
    let constants = [constant("s", &scale), constant("b", &bias)];
    let by_channel = |v: &ArrayD<f32>| v.to_shape(&[1, 4, 1, 1][..]).unwrap().into_owned();
    for (op, groups) in [("InstanceNormalization", 4), ("GroupNormalization", 2)] {
        let attributes = match groups {
            4 => vec![float("epsilon", 1e-3)],
            groups => vec![float("epsilon", 1e-3), int("num_groups", groups as i64)],
        };
        let y = run_in(21, &x, &[node(op, &["x", "s", "b"], "y", &attributes)], &constants)?;
        let flat: Vec<f32> = x.as_slice().unwrap().chunks(24 / groups).flat_map(normal).collect();
        let expected = ArrayD::from_shape_vec(IxDyn(x.shape()), flat).unwrap() * by_channel(&scale) + by_channel(&bias);
        close(&y, &expected);
    }
    Ok(())
}

#[test]
fn functions_of_one_tensor() -> Result<()> {
    let x = values(&[1, 3, 4, 5]);
    for (op, f) in [
        ("Abs", (|x| x.abs()) as fn(f32) -> f32),
        ("Ceil", |x| x.ceil()),
        ("Cos", |x| x.cos()),
        ("Exp", |x| x.exp()),
        ("Floor", |x| x.floor()),
        ("Mish", |x| x * x.exp().ln_1p().tanh()),
        ("Neg", |x| -x),
        ("Reciprocal", |x| 1.0 / x),
        ("Round", |x| x.round_ties_even()),
        ("Sign", |x| x.signum()),
        ("Sin", |x| x.sin()),
        ("Softplus", |x| x.exp().ln_1p()),
        ("Softsign", |x| x / (1.0 + x.abs())),
    ] {
        close(&run(op, &x, &[], &[], &[])?, &x.mapv(f));
    }
    for (alpha, attributes) in [(1.0f32, vec![]), (0.5, vec![float("alpha", 0.5)])] {
        let elu = |x: f32| if x > 0.0 { x } else { alpha * (x.exp() - 1.0) };
        close(&run("Elu", &x, &[], &[], &attributes)?, &x.mapv(elu));
        // On codes: the value of each code.
        let graph = read(&model_in(20, &[node("Elu", &["x"], "y", &attributes)], &[], &[1, 3, 4, 5], "y"))?;
        let mut recipe = graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
        recipe.tensor_mut("y")?.precision = Precision::Int8;
        let network = graph.quantize(&recipe)?;
        let [x_params, y_params] = ["x", "y"].map(|name| network.activation(name).unwrap());
        let codes = x_params.quantize(&x)?;
        let expected = y_params.quantize(&codes.dequantize().mapv(elu))?;
        let found = network.run_codes(&codes.codes().to_owned(), &mut Arena::new())?;
        assert_eq!(found, expected.codes());
    }
    let positive = x.mapv(|x| x.abs() + 0.1);
    close(&run("Log", &positive, &[], &[], &[])?, &positive.mapv(f32::ln));
    close(&run("Sqrt", &positive, &[], &[], &[])?, &positive.mapv(f32::sqrt));
    // GELU is the error function in another form.
    let inner = run("Mul", &x, &[floats("c", &[], &[0.5f32.sqrt()])], &["c"], &[])?;
    let erf = run("Erf", &inner, &[], &[], &[])?;
    let expected = ndarray::Zip::from(&x).and(&erf).map_collect(|x, erf| 0.5 * x * (1.0 + erf));
    close(&run("Gelu", &x, &[], &[], &[])?, &expected);
    let tanh = run("Gelu", &x, &[], &[], &[string("approximate", "tanh")])?;
    assert!(tanh.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 2e-3));
    assert!(run("Gelu", &x, &[], &[], &[string("approximate", "sin")]).is_err());
    Ok(())
}

#[test]
fn functions_of_two_tensors() -> Result<()> {
    let x = values(&[1, 3, 4, 5]);
    for (op, f) in [
        ("Add", (|a, b| a + b) as fn(f32, f32) -> f32),
        ("Sub", |a, b| a - b),
        ("Mul", |a, b| a * b),
        ("Div", |a, b| a / b),
        ("Max", f32::max),
        ("Min", f32::min),
        ("Pow", |a, b| a.powf(b)),
    ] {
        // Powers are of positive numbers.
        let x = if op == "Pow" { x.mapv(|x| x.abs() + 0.1) } else { x.clone() };
        for shape in [&[5][..], &[4, 1], &[3, 1, 1], &[1, 3, 4, 5], &[], &[1, 1, 5], &[2, 3, 4, 5]] {
            let b = values(shape).mapv(|x| x + 2.5);
            let wide: Vec<usize> = [&[shape.len().checked_sub(4).map_or(1, |_| shape[0])], &x.shape()[1..]].concat();
            let expected = ndarray::Zip::from(x.broadcast(&wide[..]).unwrap())
                .and(b.broadcast(&wide[..]).unwrap())
                .map_collect(|&a, &b| f(a, b));
            close(&run(op, &x, &[constant("b", &b)], &["b"], &[])?, &expected);
            let reverse = ndarray::Zip::from(x.broadcast(&wide[..]).unwrap())
                .and(b.broadcast(&wide[..]).unwrap())
                .map_collect(|&a, &b| f(b, a));
            let nodes = [node(op, &["b", "x"], "y", &[])];
            close(&run_in(13, &x, &nodes, &[constant("b", &b)])?, &reverse);
        }
        // Two activations, of different ranks.
        let nodes =
            [node("Abs", &["x"], "a", &[]), node("Squeeze", &["a", "zero"], "s", &[]), node(op, &["a", "s"], "y", &[])];
        let a = x.mapv(f32::abs);
        close(&run_in(13, &x, &nodes, &[ints("zero", &[0])])?, &a.mapv(|a| f(a, a)));
    }
    let y = run("Max", &x, &[floats("a", &[], &[-1.0]), floats("b", &[5], &[0.0; 5])], &["a", "b"], &[])?;
    assert_eq!(y, x.mapv(|x| x.max(0.0)));
    assert_eq!(run("Max", &x, &[], &[], &[])?, x);
    // A divisor of zero is no reciprocal.
    let y = run("Div", &x, &[floats("b", &[], &[0.0])], &["b"], &[])?;
    assert!(y.iter().all(|y| y.is_infinite()));
    Ok(())
}

#[test]
fn convolutions_along_one_axis() -> Result<()> {
    let (x, w) = (values(&[1, 4, 9]), values(&[6, 2, 3]));
    let bias = values(&[6]);
    let attributes =
        [int("group", 2), int_list("strides", &[2]), int_list("pads", &[1, 2]), int_list("dilations", &[2])];
    let y = run("Conv", &x, &[constant("w", &w), constant("b", &bias)], &["w", "b"], &attributes)?;
    let expected = ArrayD::from_shape_fn(IxDyn(&[1, 6, 4]), |at| {
        let (o, t) = (at[1], at[2]);
        let term = |(c, k): (usize, usize)| {
            let source = (2 * t + 2 * k).checked_sub(1).filter(|&source| source < 9);
            source.map_or(0.0, |source| x[[0, o / 3 * 2 + c, source]] * w[[o, c, k]])
        };
        bias[o] + (0..2).flat_map(|c| (0..3).map(move |k| (c, k))).map(term).sum::<f32>()
    });
    close(&y, &expected);
    assert!(run("Conv", &x, &[constant("w", &w)], &["w"], &[int_list("pads", &[1, 1, 1, 1])]).is_err());
    // A network of such layers is one of images with one row.
    let pads = || [int_list("pads", &[1, 1])];
    let [scale, variance] = [0.5, 1.0].map(|low| values(&[4]).mapv(|x| x.abs() + low));
    let nodes = [
        node("Conv", &["x", "v"], "a", &pads()),
        node("BatchNormalization", &["a", "scale", "bias4", "bias4", "variance"], "n", &[]),
        node("Relu", &["n"], "r", &[]),
        node("Conv", &["r", "v"], "c", &pads()),
        node("Sigmoid", &["c"], "s", &[]),
        node("Conv", &["s", "v"], "y", &pads()),
    ];
    let constants = [("v", values(&[4, 4, 3])), ("scale", scale), ("variance", variance), ("bias4", values(&[4]))];
    let constants = constants.map(|(name, value)| constant(name, &value));
    let graph = read(&model_in(14, &nodes, &constants, &[1, 4, 9], "y"))?;
    let simple = graph.clone().simplify()?;
    let names: Vec<_> = simple.nodes().iter().map(|node| node.op.name()).collect();
    assert_eq!(names, ["Reshape", "Conv", "Conv", "Sigmoid", "Conv", "Reshape"]);
    close(&simple.run(&x)?, &graph.run(&x)?);
    Ok(())
}

/// Each pixel of the input adds its weights to a block of the output.
#[test]
fn transposed_convolutions() -> Result<()> {
    for (kernel, strides, pads, extra, groups) in [
        ([2, 2], [2, 2], [0, 0, 0, 0], [0, 0], 1),
        ([3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 1),
        ([4, 4], [2, 2], [1, 1, 1, 1], [0, 0], 2),
        ([3, 2], [1, 3], [1, 0, 0, 1], [0, 2], 1),
        ([1, 1], [2, 2], [0, 0, 0, 0], [1, 0], 4),
        ([5, 3], [3, 2], [2, 1, 0, 2], [0, 1], 2),
    ] {
        let (x, w, bias) = (values(&[1, 4, 3, 5]), values(&[4, 3, kernel[0], kernel[1]]), values(&[3 * groups]));
        let list = |name: &str, values: &[usize]| int_list(name, &values.iter().map(|&v| v as i64).collect::<Vec<_>>());
        let attributes = [
            list("strides", &strides),
            list("pads", &pads),
            list("output_padding", &extra),
            int("group", groups as i64),
        ];
        let y = run("ConvTranspose", &x, &[constant("w", &w), constant("b", &bias)], &["w", "b"], &attributes)?;
        let len = |axis: usize| {
            (x.shape()[axis + 2] - 1) * strides[axis] + kernel[axis] + extra[axis] - pads[axis] - pads[axis + 2]
        };
        let mut expected = ArrayD::from_shape_fn(IxDyn(&[1, 3 * groups, len(0), len(1)]), |at| bias[at[1]]);
        for ((c, i, j), (o, ky, kx)) in ndarray::indices((4, 3, 5))
            .into_iter()
            .flat_map(|at| ndarray::indices((3, kernel[0], kernel[1])).into_iter().map(move |k| (at, k)))
        {
            let group = c / (4 / groups);
            let (row, column) =
                ((i * strides[0] + ky).wrapping_sub(pads[0]), (j * strides[1] + kx).wrapping_sub(pads[1]));
            if let Some(y) = expected.get_mut(&[0, group * 3 + o, row, column][..]) {
                *y += x[[0, c, i, j]] * w[[c, o, ky, kx]];
            }
        }
        close(&y, &expected);
    }
    let (x, w) = (values(&[1, 2, 4]), values(&[2, 3, 4]));
    let y = run(
        "ConvTranspose",
        &x,
        &[constant("w", &w)],
        &["w"],
        &[int_list("strides", &[2]), int_list("pads", &[1, 1])],
    )?;
    assert_eq!(y.shape(), [1, 3, 8]);
    assert!((y[[0, 1, 0]] - (0..2).map(|c| x[[0, c, 0]] * w[[c, 1, 1]]).sum::<f32>()).abs() < 1e-5);
    assert!(run("ConvTranspose", &x, &[constant("w", &w)], &["w"], &[int_list("dilations", &[2])]).is_err());
    Ok(())
}

#[test]
fn interpolations() -> Result<()> {
    let x = values(&[1, 2, 3, 4]);
    for mode in ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"] {
        for (rows, columns) in [(6, 8), (5, 3), (1, 4), (7, 1)] {
            let attributes = [string("mode", "linear"), string("coordinate_transformation_mode", mode)];
            let y = run("Resize", &x, &[ints("s", &[1, 2, rows, columns])], &["", "", "s"], &attributes)?;
            let place = |i: usize, input: usize, output: i64| {
                let (i, scale) = (i as f32, output as f32 / input as f32);
                let at = match mode {
                    "asymmetric" => i / scale,
                    "align_corners" => {
                        if output == 1 {
                            0.0
                        } else {
                            i * (input - 1) as f32 / (output - 1) as f32
                        }
                    }
                    "pytorch_half_pixel" if output == 1 => 0.0,
                    _ => (i + 0.5) / scale - 0.5,
                };
                at.clamp(0.0, (input - 1) as f32)
            };
            let expected = ArrayD::from_shape_fn(IxDyn(&[1, 2, rows as usize, columns as usize]), |at| {
                let (row, column) = (place(at[2], 3, rows), place(at[3], 4, columns));
                let (r, c) = (row as usize, column as usize);
                let pixel = |r: usize, c: usize| x[[0, at[1], r.min(2), c.min(3)]];
                let (down, right) = (row - r as f32, column - c as f32);
                let between = |a: f32, b: f32, weight: f32| a * (1.0 - weight) + b * weight;
                between(
                    between(pixel(r, c), pixel(r, c + 1), right),
                    between(pixel(r + 1, c), pixel(r + 1, c + 1), right),
                    down,
                )
            });
            close(&y, &expected);
        }
    }
    // The nearest pixel, by factors that are not whole.
    let nearest = |mode: &str, coordinates: &str| {
        let attributes = [string("nearest_mode", mode), string("coordinate_transformation_mode", coordinates)];
        run("Resize", &x, &[floats("f", &[4], &[1.0, 1.0, 1.0, 1.5])], &["", "f"], &attributes)
    };
    let columns = |at: &[usize]| x.select(Axis(3), at);
    assert_eq!(nearest("floor", "asymmetric")?, columns(&[0, 0, 1, 2, 2, 3]));
    assert_eq!(nearest("ceil", "asymmetric")?, columns(&[0, 1, 2, 2, 3, 3]));
    assert_eq!(nearest("round_prefer_floor", "align_corners")?, columns(&[0, 1, 1, 2, 2, 3]));
    let rows = values(&[1, 2, 4]);
    let y = run("Resize", &rows, &[floats("f", &[3], &[1.0, 1.0, 2.0])], &["", "f"], &[string("mode", "linear")])?;
    assert_eq!(y.shape(), [1, 2, 8]);
    assert!((y[[0, 1, 1]] - (0.75 * rows[[0, 1, 0]] + 0.25 * rows[[0, 1, 1]])).abs() < 1e-6);
    Ok(())
}

/// Shape arithmetic of exporters with dynamic axes.
#[test]
fn known_values_are_folded() -> Result<()> {
    let x = values(&[1, 6, 4]);
    let nodes = [
        node("Shape", &["x"], "s", &[]),
        node("Slice", &["s", "one", "three"], "tail", &[]),
        node("ReduceProd", &["tail", "zero"], "count", &[]),
        node("Div", &["count", "two"], "half", &[]),
        node("Mul", &["half", "two"], "whole", &[]),
        node("Cast", &["whole"], "f", &[int("to", 1)]),
        node("Cast", &["f"], "i", &[int("to", 7)]),
        node("ConstantOfShape", &["one"], "filled", &[]),
        node("Cast", &["filled"], "zeros", &[int("to", 7)]),
        node("Concat", &["zeros", "i"], "target", &[int("axis", 0)]),
        node("Reshape", &["x", "target"], "r", &[]),
        node("Range", &["r0", "r24", "r6"], "at", &[]),
        node("Gather", &["r", "at"], "g", &[int("axis", 1)]),
        node("Cast", &["g"], "y", &[int("to", 11)]),
    ];
    let scalar = |name: &str, value: i64| Message::default().int(2, 7).text(8, name).int(7, value);
    let constants = [ints("zero", &[0]), ints("one", &[1]), ints("two", &[2]), ints("three", &[3])];
    let constants = [&constants[..], &[scalar("r0", 0), scalar("r24", 24), scalar("r6", 6)]].concat();
    let y = run_in(18, &x, &nodes, &constants)?;
    assert_eq!(y, x.to_shape(&[1, 24][..]).unwrap().select(Axis(1), &[0, 6, 12, 18]));
    let graph = read(&model_in(18, &nodes, &constants, &[1, 6, 4], "y"))?;
    assert_eq!(graph.nodes().len(), 2);
    Ok(())
}

/// Operators that move or compare elements do the same with codes.
#[test]
fn codes_are_moved() -> Result<()> {
    let reflected = [int_list("pads", &[0, 0, 1, 1, 0, 0, 1, 2]), string("mode", "reflect")];
    let linear = [string("mode", "linear"), string("coordinate_transformation_mode", "half_pixel")];
    let nodes = [
        node("Transpose", &["x"], "t", &[int_list("perm", &[0, 3, 1, 2])]),
        node("Slice", &["x", "s", "e", "a", "st"], "s1", &[]),
        node("Gather", &["x", "s"], "g", &[int("axis", 1)]),
        node("Expand", &["g", "wide"], "w", &[]),
        node("SpaceToDepth", &["x"], "sd", &[int("blocksize", 2)]),
        node("DepthToSpace", &["x"], "ds", &[int("blocksize", 2)]),
        node("ReduceMax", &["x", "a"], "m", &[]),
        node("ReduceMin", &["x", "a"], "n", &[int("keepdims", 0)]),
        node("Pad", &["x", "p"], "r", &reflected[1..]),
        node("Resize", &["x", "", "f"], "l", &linear),
        node("Reshape", &["x", "shape"], "y", &[]),
    ];
    let constants = [
        ints("s", &[3, 0]),
        ints("e", &[0, 6]),
        ints("a", &[1, 3]),
        ints("st", &[-2, 2]),
        ints("wide", &[2, 1, 1, 1]),
        ints("p", &[0, 0, 1, 1, 0, 0, 1, 2]),
        floats("f", &[4], &[1.0, 1.0, 1.5, 2.0]),
        ints("shape", &[2, 3, 16]),
    ];
    let names = ["t", "s1", "g", "w", "sd", "ds", "m", "n", "r", "l", "y"];
    let graph = graph(&nodes, &constants, &[value("x", &[1, 4, 4, 6])], names[0]);
    let graph = names[1..].iter().fold(graph, |graph, name| graph.message(12, value(name, &[])));
    let file = Message::default().int(1, 8).message(7, graph).message(8, Message::default().int(2, 18)).0;
    let graph = read(&file)?;
    let x = values(&[1, 4, 4, 6]);
    let mut recipe = graph.calibrate([x.view()]).and_then(|c| c.recipe(&graph, CalibrationMethod::MinMax));
    for name in names {
        recipe = recipe
            .and_then(|mut recipe| recipe.tensor_mut(name).map(|t| t.precision = Precision::Int8).map(|()| recipe));
    }
    let network = graph.quantize(&recipe?)?;
    let params = network.activation("x").unwrap();
    let codes = params.quantize(&x)?;
    let rounded = codes.dequantize();
    let expected = graph.compile()?.run_many(&[rounded.view()], &mut Arena::new())?;
    let found = network.run_many(&[x.view()], &mut Arena::new())?;
    for ((name, expected), found) in names.iter().zip(expected).zip(found) {
        assert_eq!(network.activation(name).unwrap(), params, "{name}");
        // Interpolation rounds to a code.
        let step = if *name == "l" { 0.5001 * params.scales()[0] } else { 0.0 };
        assert!(found.shape() == expected.shape(), "{name}");
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= step), "{name}");
    }
    // Differences are computed on codes, too.
    let nodes = [node("Relu", &["x"], "r", &[]), node("Sub", &["r", "x"], "y", &[])];
    let graph = read(&model_in(18, &nodes, &[], &[1, 4, 4, 6], "y"))?;
    let mut recipe = graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
    recipe.tensor_mut("y")?.precision = Precision::Int8;
    let network = graph.quantize(&recipe)?;
    let step = network.activation("y").unwrap().scales()[0] + network.activation("x").unwrap().scales()[0];
    let (found, expected) = (network.run(&x)?, graph.run(&x)?);
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= step));
    Ok(())
}

/// Functions that exporters spell with several operators.
#[test]
fn spelled_functions_are_fused() -> Result<()> {
    let x = values(&[1, 4, 6]);
    let scalar = |name: &str, value: f32| floats(name, &[], &[value]);
    let constants = [
        scalar("three", 3.0),
        scalar("zero", 0.0),
        scalar("six", 6.0),
        scalar("one", 1.0),
        scalar("half", 0.5),
        scalar("two", 2.0),
        scalar("root", 2f32.sqrt()),
        scalar("epsilon", 1e-5),
        ints("last", &[-1]),
        constant("scale", &values(&[6])),
        constant("bias", &values(&[6]).mapv(|x| x + 1.0)),
    ];
    let hard = || {
        vec![
            node("Add", &["x", "three"], "a", &[]),
            node("Clip", &["a", "zero", "six"], "b", &[]),
            node("Mul", &["x", "b"], "c", &[]),
            node("Div", &["c", "six"], "y", &[]),
        ]
    };
    let gelu = |first: bool| {
        let mut nodes = vec![
            node("Div", &["x", "root"], "a", &[]),
            node("Erf", &["a"], "b", &[]),
            node("Add", &["b", "one"], "c", &[]),
        ];
        match first {
            true => nodes.extend([node("Mul", &["x", "half"], "d", &[]), node("Mul", &["d", "c"], "y", &[])]),
            false => nodes.extend([node("Mul", &["x", "c"], "d", &[]), node("Mul", &["d", "half"], "y", &[])]),
        }
        nodes
    };
    let norm = vec![
        node("ReduceMean", &["x", "last"], "m", &[]),
        node("Sub", &["x", "m"], "d", &[]),
        node("Pow", &["d", "two"], "p", &[]),
        node("ReduceMean", &["p", "last"], "v", &[]),
        node("Add", &["v", "epsilon"], "e", &[]),
        node("Sqrt", &["e"], "r", &[]),
        node("Div", &["d", "r"], "n", &[]),
        node("Mul", &["n", "scale"], "s", &[]),
        node("Add", &["s", "bias"], "y", &[]),
    ];
    for (nodes, name) in [(hard(), "HardSwish"), (gelu(true), "Gelu"), (gelu(false), "Gelu"), (norm, "LayerNorm")] {
        let graph = read(&model_in(18, &nodes, &constants, &[1, 4, 6], "y"))?;
        let fused = graph.clone().simplify()?;
        assert_eq!(fused.nodes().iter().map(|node| node.op.name()).collect::<Vec<_>>(), [name]);
        close(&fused.run(&x)?, &graph.run(&x)?);
        // Another tensor in the place of `x` is another function.
        let other: Vec<Message> =
            [vec![node("Neg", &["x"], "z", &[])], nodes.clone(), vec![node("Mul", &["y", "z"], "w", &[])]].concat();
        assert!(read(&model_in(18, &other, &constants, &[1, 4, 6], "w"))?.simplify()?.run(&x).is_ok());
    }
    // A sum with constants by channel is a bias.
    let nodes = [
        node("MatMul", &["x", "w"], "a", &[]),
        node("Add", &["bias", "a"], "b", &[]),
        node("Mul", &["b", "two"], "y", &[]),
    ];
    let constants = [&constants[..], &[constant("w", &values(&[6, 6]))]].concat();
    let graph = read(&model_in(18, &nodes, &constants, &[1, 4, 6], "y"))?;
    let folded = graph.clone().simplify()?;
    assert_eq!(folded.nodes().len(), 1);
    close(&folded.run(&x)?, &graph.run(&x)?);
    Ok(())
}

/// LSTM and GRU by the equations of the standard.
#[test]
fn recurrent_layers() -> Result<()> {
    let (steps, depth, hidden) = (5, 3, 4);
    let x = values(&[1, steps, depth]);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    for (op, gates) in [("LSTM", 4), ("GRU", 3)] {
        for (direction, directions) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
            for (with_state, linear) in [(false, 0), (true, 1)] {
                let w = values(&[directions, gates * hidden, depth]).mapv(|x| 0.5 * x);
                let r = values(&[directions, gates * hidden, hidden]).mapv(|x| 0.3 * x);
                let b = values(&[directions, 2 * gates * hidden]).mapv(|x| 0.2 * x);
                let first = values(&[directions, 1, hidden]);
                let constants = [constant("w", &w), constant("r", &r), constant("b", &b), constant("h", &first)];
                let mut inputs = vec!["t", "w", "r", "b"];
                if with_state {
                    inputs.extend(["", "h"]);
                }
                let mut attributes = vec![string("direction", direction), int("hidden_size", hidden as i64)];
                if op == "GRU" {
                    attributes.push(int("linear_before_reset", linear));
                }
                let nodes = [
                    node("Transpose", &["x"], "t", &[int_list("perm", &[1, 0, 2])]),
                    node(op, &inputs, "all", &attributes).text(2, "y"),
                ];
                let y = run_in(14, &x, &nodes, &constants)?;
                let graph = read(&model_in(14, &nodes, &constants, &[1, 5, 3], "all"))?;
                let all = graph.run(&x)?;
                assert_eq!(
                    (all.shape(), y.shape()),
                    (&[steps, directions, 1, hidden][..], &[directions, 1, hidden][..])
                );
                for d in 0..directions {
                    let start = |i: usize| if with_state { first[[d, 0, i]] } else { 0.0 };
                    let mut h: Vec<f32> = (0..hidden).map(start).collect();
                    let mut c = vec![0.0; hidden];
                    let reverse = direction == "reverse" || d == 1;
                    for step in 0..steps {
                        let t = if reverse { steps - 1 - step } else { step };
                        let of_x =
                            |row: usize| (0..depth).map(|i| w[[d, row, i]] * x[[0, t, i]]).sum::<f32>() + b[[d, row]];
                        let of_h = |h: &[f32], row: usize| {
                            (0..hidden).map(|i| r[[d, row, i]] * h[i]).sum::<f32>() + b[[d, gates * hidden + row]]
                        };
                        let gate = |gate: usize, i: usize| of_x(gate * hidden + i) + of_h(&h, gate * hidden + i);
                        let new: Vec<f32> = match op {
                            "LSTM" => (0..hidden)
                                .map(|i| {
                                    c[i] = sigmoid(gate(2, i)) * c[i] + sigmoid(gate(0, i)) * gate(3, i).tanh();
                                    sigmoid(gate(1, i)) * c[i].tanh()
                                })
                                .collect(),
                            _ => {
                                let reset: Vec<f32> = (0..hidden).map(|i| sigmoid(gate(1, i))).collect();
                                let kept: Vec<f32> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
                                let state = |i: usize| {
                                    let row = 2 * hidden + i;
                                    let of_h = if linear == 1 { reset[i] * of_h(&h, row) } else { of_h(&kept, row) };
                                    let update = sigmoid(gate(0, i));
                                    (1.0 - update) * (of_x(row) + of_h).tanh() + update * h[i]
                                };
                                (0..hidden).map(state).collect()
                            }
                        };
                        h = new;
                        assert!(
                            (0..hidden).all(|i| (all[[t, d, 0, i]] - h[i]).abs() < 1e-5),
                            "{op} {direction} {step}"
                        );
                    }
                    assert!((0..hidden).all(|i| (y[[d, 0, i]] - h[i]).abs() < 1e-5));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn recurrent_layers_with_integer_weights() -> Result<()> {
    let (steps, depth, hidden) = (7, 6, 16);
    let x = values(&[1, steps, depth]);
    for (op, gates) in [("LSTM", 4), ("GRU", 3)] {
        let w = values(&[2, gates * hidden, depth]).mapv(|x| 0.5 * x);
        let r = values(&[2, gates * hidden, hidden]).mapv(|x| 0.2 * x);
        let b = values(&[2, 2 * gates * hidden]).mapv(|x| 0.2 * x);
        let first = values(&[2, 1, hidden]);
        let constants = [constant("w", &w), constant("r", &r), constant("b", &b), constant("h", &first)];
        let attributes = [string("direction", "bidirectional"), int("hidden_size", hidden as i64)];
        let nodes = [
            node("Transpose", &["x"], "t", &[int_list("perm", &[1, 0, 2])]),
            node(op, &["t", "w", "r", "b", "", "h"], "all", &attributes).text(2, "y"),
        ];
        let graph = read(&model_in(14, &nodes, &constants, &[1, steps as i64, depth as i64], "all"))?.simplify()?;
        let expected = graph.run(&x)?;
        let dynamic = graph.quantize(&Recipe::dynamic_range(&graph)?)?;
        let weights = 2 * gates * hidden * (depth + hidden);
        assert!(dynamic.weights_size_in_bytes() < 2 * weights, "{}", dynamic.weights_size_in_bytes());
        let full = graph.quantize(&graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?)?;
        for (network, limit) in [(dynamic, 0.03), (full, 0.05)] {
            let y = network.run(&x)?;
            assert!((&y - &expected).iter().all(|e| e.abs() < limit), "{op} {limit}");
            // Rows have ranges of their own.
            let two = network.run(&ndarray::concatenate![Axis(0), x.mapv(|x| 3.0 * x), x])?;
            assert_eq!(two.slice_axis(Axis(0), Slice::from(y.len_of(Axis(0))..)), y);
            assert!(network.report(&graph, &x)?.to_string().contains("all"));
        }
    }
    Ok(())
}

#[test]
fn other_spellings() -> Result<()> {
    // Poolings along one axis.
    let x = values(&[1, 2, 7]);
    let attributes = [int_list("kernel_shape", &[3]), int_list("strides", &[2]), int_list("pads", &[1, 1])];
    let window = |c: usize, i: usize| {
        (0..3).filter_map(move |k| (2 * i + k).checked_sub(1)).filter(|&t| t < 7).map(move |t| (c, t))
    };
    let max = run("MaxPool", &x, &[], &[], &attributes)?;
    let mean = run("AveragePool", &x, &[], &[], &attributes)?;
    assert_eq!(max.shape(), [1, 2, 4]);
    for (c, i) in ndarray::indices((2, 4)) {
        let elements: Vec<f32> = window(c, i).map(|(c, t)| x[[0, c, t]]).collect();
        assert_eq!(max[[0, c, i]], elements.iter().copied().fold(f32::MIN, f32::max));
        assert!((mean[[0, c, i]] - elements.iter().sum::<f32>() / elements.len() as f32).abs() < 1e-6);
    }
    close(&run("GlobalAveragePool", &x, &[], &[], &[])?, &x.mean_axis(Axis(2)).unwrap().insert_axis(Axis(2)));
    let padded = run("Pad", &x, &[ints("p", &[0, 0, 2, 0, 0, 1])], &["p"], &[string("mode", "edge")])?;
    assert_eq!(padded, x.select(Axis(2), &[0, 0, 0, 1, 2, 3, 4, 5, 6, 6]));
    assert_eq!(run("Tile", &x, &[ints("r", &[1, 2, 1])], &["r"], &[])?, x.select(Axis(1), &[0, 1, 0, 1]));
    let norm = run("ReduceL2", &x, &[ints("a", &[1])], &["a"], &[int("keepdims", 0)])?;
    close(&norm, &x.mapv(|x| x * x).sum_axis(Axis(1)).mapv(f32::sqrt));
    let slope = array![[0.5f32], [-2.0]].into_dyn();
    let y = run("PRelu", &x, &[constant("s", &slope)], &["s"], &[])?;
    let wide = slope.broadcast(&[1, 2, 7][..]).unwrap();
    close(&y, &ndarray::Zip::from(&x).and(&wide).map_collect(|&x, &s| if x > 0.0 { x } else { s * x }));
    // Softmax over all axes from one on, as early opsets have it.
    let y = run_in(11, &x, &[node("Softmax", &["x"], "y", &[int("axis", 1)])], &[])?;
    assert!((y.sum() - 1.0).abs() < 1e-5 && y.shape() == [1, 2, 7]);
    // Products of two activations, and of a transposed one.
    let a = values(&[1, 3]);
    let nodes = [node("Gemm", &["x", "x", "c"], "y", &[int("transA", 1), float("alpha", 2.0), float("beta", 0.5)])];
    let y = run_in(13, &a, &nodes, &[constant("c", &values(&[3]))])?;
    let c = values(&[3]);
    for (i, j) in ndarray::indices((3, 3)) {
        assert!((y[[i, j]] - (2.0 * a[[0, i]] * a[[0, j]] + 0.5 * c[j])).abs() < 1e-5);
    }
    // The shape that an exporter expands to: -1 stands for the length of the input.
    let nodes = [
        node("Shape", &["wanted"], "n", &[]),
        node("ConstantOfShape", &["n"], "zeros", &[]),
        node("Cast", &["zeros"], "z", &[int("to", 7)]),
        node("Add", &["z", "one"], "ones", &[]),
        node("Equal", &["wanted", "minus"], "open", &[]),
        node("Where", &["open", "ones", "wanted"], "shape", &[]),
        node("Expand", &["x", "shape"], "y", &[]),
    ];
    let constants = [ints("wanted", &[3, -1, -1]), ints("one", &[1]), ints("minus", &[-1])];
    assert_eq!(run_in(13, &x, &nodes, &constants)?, x.broadcast(&[3, 2, 7][..]).unwrap());
    Ok(())
}

/// Comparisons, selections and embeddings of integers that are computed.
#[test]
fn integers_as_activations() -> Result<()> {
    let x = values(&[1, 3, 4]);
    // `x / |x|`, and 7 where `x` is not positive.
    let nodes = [
        node("Greater", &["x", "zero"], "positive", &[]),
        node("Not", &["positive"], "other", &[]),
        node("Abs", &["x"], "a", &[]),
        node("Div", &["x", "a"], "d", &[]),
        node("Where", &["other", "seven", "d"], "y", &[]),
    ];
    let constants = [floats("zero", &[], &[0.0]), floats("seven", &[1, 1], &[7.0])];
    assert_eq!(run_in(13, &x, &nodes, &constants)?, x.mapv(|x| if x > 0.0 { 1.0 } else { 7.0 }));
    let nodes = [
        node("Less", &["x", "zero"], "a", &[]),
        node("GreaterOrEqual", &["x", "seven"], "b", &[]),
        node("Or", &["a", "b"], "c", &[]),
        node("And", &["c", "a"], "d", &[]),
        node("Cast", &["d"], "y", &[int("to", 1)]),
    ];
    assert_eq!(run_in(13, &x, &nodes, &constants)?, x.mapv(|x| if x < 0.0 { 1.0 } else { 0.0 }));
    // Rows of a table at truncated positions, -2 to 1.
    let table = values(&[5, 2]);
    let nodes = [node("Cast", &["x"], "i", &[int("to", 7)]), node("Gather", &["t", "i"], "y", &[])];
    let y = run_in(13, &x, &nodes, &[constant("t", &table)])?;
    assert_eq!(y.shape(), [1, 3, 4, 2]);
    for ((_, i, j), x) in x.view().into_dimensionality::<ndarray::Ix3>().unwrap().indexed_iter() {
        let row = (x.trunc() as i64).rem_euclid(5) as usize;
        assert_eq!((y[[0, i, j, 0]], y[[0, i, j, 1]]), (table[[row, 0]], table[[row, 1]]));
    }
    let far = [node("Gather", &["t", "i"], "y", &[])];
    let file = model_in(13, &[&nodes[..1], &far].concat(), &[constant("t", &values(&[2, 2]))], &[1, 2], "y");
    assert!(read(&file)?.run(&array![[0.0f32, 3.0]]).is_err());
    // Integers are not rounded to codes.
    let graph = read(&model_in(13, &nodes, &[constant("t", &table)], &[1, 3, 4], "y"))?;
    let recipe = graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
    assert_eq!(recipe.precision("i"), Precision::Float32);
    // A division of integers is another function.
    let nodes = [node("Cast", &["x"], "i", &[int("to", 7)]), node("Div", &["i", "two"], "y", &[])];
    assert!(run_in(13, &x, &nodes, &[ints("two", &[2])]).is_err());
    Ok(())
}

/// A state whose first axis are layers: a batch of it has the layers of each sample, one sample after the other.
#[test]
fn inputs_of_several_rows() -> Result<()> {
    let nodes = [
        node("ReduceSum", &["state", "zero"], "sum", &[int("keepdims", 1)]),
        node("Add", &["x", "sum"], "y", &[]),
        node("Concat", &["state", "sum"], "next", &[int("axis", 0)]),
    ];
    let inputs = [value("x", &[1, 3]), value("state", &[2, 3])];
    let graph = graph(&nodes, &[ints("zero", &[0])], &inputs, "y").message(12, value("next", &[]));
    let file = Message::default().int(1, 8).message(7, graph).message(8, Message::default().int(2, 13)).0;
    let network = read(&file)?.compile()?;
    let (x, state) = (values(&[2, 3]), values(&[4, 3]));
    let y = network.run_many(&[x.view(), state.view()], &mut Arena::new())?;
    assert_eq!((y[0].shape(), y[1].shape()), (&[2, 3][..], &[6, 3][..]));
    for (sample, i) in ndarray::indices((2, 3)) {
        let sum = state[[2 * sample, i]] + state[[2 * sample + 1, i]];
        assert_eq!(y[0][[sample, i]], x[[sample, i]] + sum);
        let next = [0, 1, 2].map(|row| y[1][[3 * sample + row, i]]);
        assert_eq!(next, [state[[2 * sample, i]], state[[2 * sample + 1, i]], sum]);
    }
    assert!(network.run_many(&[x.view(), x.view()], &mut Arena::new()).is_err());
    // The index of a NaN is that of the caller's tensor, behind the samples that ran before.
    let (x, mut state) = (values(&[300, 3]), values(&[600, 3]));
    state[[561, 2]] = f32::NAN;
    let graph = read(&file)?;
    let mut calibrator = Calibrator::new(&graph)?;
    let error = calibrator.observe_many(&[x.view(), state.view()]).unwrap_err();
    let error = error.source().expect("the cause").to_string();
    assert!(error.contains("[561, 2]"), "{error}");
    Ok(())
}

/// Attention on codes: products of activations against products of what the codes represent.
#[test]
fn products_of_codes() -> Result<()> {
    let x = values(&[1, 2, 5, 4]);
    let nodes = [
        node("Transpose", &["x"], "t", &[int_list("perm", &[0, 1, 3, 2])]),
        node("MatMul", &["x", "t"], "scores", &[]),
        node("MatMul", &["scores", "x"], "y", &[]),
    ];
    let graph = read(&model_in(18, &nodes, &[], &[1, 2, 5, 4], "y"))?;
    let mut recipe = graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
    recipe.tensor_mut("y")?.precision = Precision::Int8;
    let network = graph.quantize(&recipe)?;
    let rounded = |name: &str, x: &ArrayD<f32>| -> Result<ArrayD<f32>> {
        Ok(network.activation(name).unwrap().quantize(x)?.dequantize())
    };
    let product = |a: &ArrayD<f32>, b: &ArrayD<f32>, k: usize, n: usize| {
        let term = |at: &ndarray::Dim<ndarray::IxDynImpl>, k: usize| a[[0, at[1], at[2], k]] * b[[0, at[1], k, at[3]]];
        ArrayD::from_shape_fn(IxDyn(&[1, 2, 5, n]), |at| (0..k).map(|k| term(&at, k)).sum())
    };
    let x_rounded = rounded("x", &x)?;
    let t = x_rounded.clone().permuted_axes(&[0, 1, 3, 2][..]);
    let scores = rounded("scores", &product(&x_rounded, &t, 4, 5))?;
    let expected = rounded("y", &product(&scores, &x_rounded, 5, 4))?;
    let two = ndarray::concatenate(Axis(0), &[x.view(), x.view()]).unwrap();
    let found = network.run(&two)?;
    let step = network.activation("y").unwrap().scales()[0] * 1.01;
    for found in found.axis_chunks_iter(Axis(0), 1) {
        // A rounding of `scores` at a tie may differ in `f32`.
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= step), "{found} {expected}");
    }
    Ok(())
}
