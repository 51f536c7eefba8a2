//! What exporters of transformers and of old networks write, against plain computations on arrays.

use ndarray::{ArrayD, ArrayView2, Axis, Ix2, Ix4, array, s};
use ndarray_quant::Result;
use ndarray_quant::graph::CalibrationMethod;

use super::message::{Message, float, int, int_list, ints, model_in, node, string, tensor};
use super::operators::{close, constant, run, run_in, values};
use super::read;

/// The sum over `k` of `a[.., k] * b[.., k]` by the labels of two tensors of rank 4.
fn einsum(equation: &str, other: &ArrayD<f32>) -> Result<ArrayD<f32>> {
    run("Einsum", &values(&[1, 3, 4, 5]), &[constant("c", other)], &["c"], &[string("equation", equation)])
}

#[test]
fn sums_of_products() -> Result<()> {
    let x = values(&[1, 3, 4, 5]).into_dimensionality::<Ix4>().unwrap();
    let c = values(&[1, 3, 6, 5]).into_dimensionality::<Ix4>().unwrap();
    let mut expected = ArrayD::zeros(&[1, 3, 4, 6][..]);
    for (i, mut y) in expected.index_axis_mut(Axis(0), 0).axis_iter_mut(Axis(0)).enumerate() {
        let (a, b): (ArrayView2<f32>, ArrayView2<f32>) = (x.slice(s![0, i, .., ..]), c.slice(s![0, i, .., ..]));
        y.assign(&a.dot(&b.t()));
    }
    close(&einsum("bhid, bhjd -> bhij", &c.clone().into_dyn())?, &expected);
    close(&einsum("...id,...jd->...ij", &c.clone().into_dyn())?, &expected);
    let permuted = expected.view().permuted_axes(&[0, 2, 1, 3][..]);
    close(&einsum("bhid,bhjd->bihj", &c.into_dyn())?, &permuted.as_standard_layout().into_owned());
    // A label that only one term has is summed over.
    let w = values(&[5, 2]).into_dimensionality::<Ix2>().unwrap();
    let summed = x.sum_axis(Axis(2)).index_axis(Axis(0), 0).dot(&w).insert_axis(Axis(0)).into_dyn();
    close(&einsum("bhid,de->bhe", &w.clone().into_dyn())?, &summed);
    let by_label = summed.view().permuted_axes(&[0, 2, 1][..]).as_standard_layout().into_owned();
    close(&einsum("bhid,de", &w.into_dyn())?.sum_axis(Axis(3)), &by_label);
    let y = run("Einsum", &values(&[1, 3, 4]), &[], &[], &[string("equation", "bij->bji")])?;
    close(&y, &values(&[1, 3, 4]).permuted_axes(&[0, 2, 1][..]).as_standard_layout().into_owned());
    assert!(einsum("bhid,bhjd->bhik", &values(&[1, 3, 6, 5])).is_err());
    assert!(einsum("bhhd,bhjd->bhj", &values(&[1, 3, 6, 5])).is_err());
    assert!(einsum("bhid->bhid", &values(&[1, 3, 6, 5])).is_err());
    Ok(())
}

#[test]
fn positions_of_extremes() -> Result<()> {
    let x = array![[[1.0f32, 3.0, 3.0], [-2.0, -2.0, 5.0]]].into_dyn();
    let of = |op: &str, attributes: &[Message]| run_in(13, &x, &[node(op, &["x"], "y", attributes)], &[]);
    assert_eq!(of("ArgMax", &[int("axis", -1)])?, array![[[1.0], [2.0]]].into_dyn());
    assert_eq!(
        of("ArgMax", &[int("axis", 2), int("select_last_index", 1), int("keepdims", 0)])?,
        array![[2.0, 2.0]].into_dyn()
    );
    assert_eq!(of("ArgMin", &[int("axis", 1)])?, array![[[1.0, 1.0, 0.0]]].into_dyn());
    assert_eq!(of("ArgMin", &[int("axis", 2), int("select_last_index", 1)])?, array![[[0.0], [1.0]]].into_dyn());
    Ok(())
}

#[test]
fn logarithms_of_sums() -> Result<()> {
    let x = values(&[1, 3, 4]) * 10.0;
    let sums = x.mapv(f32::exp).sum_axis(Axis(2)).mapv(f32::ln).insert_axis(Axis(2));
    close(&run("LogSoftmax", &x, &[], &[], &[int("axis", -1)])?, &(&x - &sums));
    close(&run("ReduceLogSumExp", &x, &[ints("a", &[2])], &["a"], &[])?, &sums);
    let absolute = x.mapv(f32::abs);
    close(&run("ReduceL1", &x, &[ints("a", &[2])], &["a"], &[])?, &absolute.sum_axis(Axis(2)).insert_axis(Axis(2)));
    Ok(())
}

#[test]
fn cumulative_sums() -> Result<()> {
    let x = array![[1.0f32, 2.0, 4.0], [8.0, 16.0, 32.0]].insert_axis(Axis(0)).into_dyn();
    let sum = |axis: i64, attributes: &[Message]| {
        run("CumSum", &x, &[Message::default().int(2, 7).text(8, "a").int(7, axis)], &["a"], attributes)
    };
    assert_eq!(sum(2, &[])?, array![[[1.0, 3.0, 7.0], [8.0, 24.0, 56.0]]].into_dyn());
    assert_eq!(sum(2, &[int("exclusive", 1)])?, array![[[0.0, 1.0, 3.0], [0.0, 8.0, 24.0]]].into_dyn());
    assert_eq!(sum(-2, &[int("reverse", 1)])?, array![[[9.0, 18.0, 36.0], [8.0, 16.0, 32.0]]].into_dyn());
    Ok(())
}

#[test]
fn normalizations_of_others() -> Result<()> {
    let x = values(&[1, 5, 2, 3]);
    let y = run("LRN", &x, &[], &[], &[int("size", 3), float("alpha", 0.5), float("beta", 0.75), float("bias", 2.0)])?;
    let expected = ndarray::Array::from_shape_fn(x.raw_dim(), |at| {
        let near = (at[1].max(1) - 1)..=(at[1] + 1).min(4);
        let squares: f32 = near.map(|c| x[[at[0], c, at[2], at[3]]].powi(2)).sum();
        x[&at] / (2.0 + 0.5 / 3.0 * squares).powf(0.75)
    });
    close(&y, &expected);
    let (x, scale) = (values(&[1, 4, 6]), values(&[6]));
    let y = run_in(
        23,
        &x,
        &[node("RMSNormalization", &["x", "s"], "y", &[float("epsilon", 0.1)])],
        &[constant("s", &scale)],
    )?;
    let mean = x.mapv(|x| x * x).mean_axis(Axis(2)).unwrap().insert_axis(Axis(2));
    close(&y, &(&x / &mean.mapv(|m| (m + 0.1).sqrt()) * &scale));
    Ok(())
}

#[test]
fn masks_of_attention() -> Result<()> {
    let x = values(&[1, 2, 3, 3]);
    let causal = array![[0.0, f32::NEG_INFINITY, f32::NEG_INFINITY], [0.0, 0.0, f32::NEG_INFINITY], [0.0, 0.0, 0.0]];
    let nodes = [node("Add", &["x", "m"], "masked", &[]), node("Softmax", &["masked"], "y", &[int("axis", -1)])];
    let file = model_in(20, &nodes, &[constant("m", &causal.clone().into_dyn())], &[1, 2, 3, 3], "y");
    let graph = read(&file)?;
    let exp = (&x + &causal).mapv(f32::exp);
    let expected = &exp / &exp.sum_axis(Axis(3)).insert_axis(Axis(3));
    close(&graph.run(&x)?, &expected);
    // The mask becomes a part of the softmax, so that scores keep their range.
    let graph = graph.simplify()?;
    assert_eq!(graph.nodes().len(), 1);
    close(&graph.run(&x)?, &expected);
    let recipe = graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
    let y = graph.quantize(&recipe)?.run(&x)?;
    assert!((&y - &expected).iter().all(|e| e.abs() < 0.02), "{y}");
    Ok(())
}

#[test]
fn arithmetic_of_positions() -> Result<()> {
    let x = values(&[1, 6]);
    // (7 * 2) mod 4 = 2, scattered to position 1 of a mask that selects rows.
    let two_of = |name: &str, values: &[i64]| ints(name, values);
    let nodes = [
        node("Mod", &["a", "b"], "rest", &[]),
        node("ScatterND", &["zeros", "at", "rest"], "scattered", &[]),
        node("GatherND", &["scattered", "at"], "gathered", &[]),
        node("Gather", &["x", "gathered"], "y", &[int("axis", 1)]),
    ];
    let at = Message::default().int(1, 1).int(1, 1).int(2, 7).text(8, "at").int(7, 1);
    let constants = [two_of("a", &[14]), two_of("b", &[4]), two_of("zeros", &[0, 0, 0]), at];
    let y = run_in(20, &x, &nodes, &constants)?;
    assert_eq!(y, x.select(Axis(1), &[2]));
    let negative = run_in(
        20,
        &x,
        &nodes,
        &[two_of("a", &[-3]), two_of("b", &[4]), two_of("zeros", &[0, 0, 0]), constants[3].clone()],
    )?;
    assert_eq!(negative, x.select(Axis(1), &[1]));
    assert!(
        run_in(20, &x, &nodes, &[two_of("a", &[3]), two_of("b", &[0]), two_of("zeros", &[0]), constants[3].clone()])
            .is_err()
    );
    let count = node("Size", &["x"], "count", &[]);
    let value = node("Constant", &[], "minus", &[tensor("value", ints("", &[-1]))]);
    let last =
        [count, value, node("Add", &["count", "minus"], "i", &[]), node("Gather", &["x", "i"], "y", &[int("axis", 1)])];
    assert_eq!(run_in(20, &x, &last, &[])?, x.select(Axis(1), &[5]));
    let square = values(&[1, 4, 4]);
    let lower = ndarray::Array::from_shape_fn(square.raw_dim(), |at| if at[2] <= at[1] { square[&at] } else { 0.0 });
    assert_eq!(run("Trilu", &square, &[], &[], &[int("upper", 0)])?, lower);
    Ok(())
}

#[test]
fn constants_have_the_layout_of_their_readers() -> Result<()> {
    // The pooling wants its channels last, and so the concatenation and its constant operand.
    let (x, c) = (values(&[1, 3, 4, 5]), values(&[1, 3, 2, 5]).mapv(|x| x + 4.0));
    let nodes = [
        node("Concat", &["x", "c"], "both", &[int("axis", 2)]),
        node("MaxPool", &["both"], "y", &[int_list("kernel_shape", &[6, 1])]),
    ];
    let y = run_in(13, &x, &nodes, &[constant("c", &c)])?;
    let both = ndarray::concatenate![Axis(2), x, c];
    let expected = both.map_axis(Axis(2), |lane| lane.iter().fold(f32::MIN, |max, &x| max.max(x)));
    assert_eq!(y, expected.insert_axis(Axis(2)));
    Ok(())
}
