//! Attributes, inputs and versions that change a result are read or are errors, never skipped.

use ndarray::{Array, Array2, ArrayD, array};
use ndarray_quant::error::GraphError;
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::{Error, Result};

use super::message::{
    Message, float, floats, graph, int, int_list, ints, model, model_in, node, string, tensor, value,
};
use super::read;

/// Runs a file of one node on an image `[1, 1, 2, 2]` of 1 to 4.
fn run(opset: i64, nodes: &[Message], tensors: &[Message]) -> Result<ArrayD<f32>> {
    let image = Array::from_shape_fn((1, 1, 2, 2), |(_, _, y, x)| (2 * y + x + 1) as f32);
    read(&model_in(opset, nodes, tensors, &[0, 1, 2, 2], "y"))?.run(&image)
}

/// The error is `Unsupported` and names all parts.
#[track_caller]
fn unsupported(found: Result<ArrayD<f32>>, parts: &[&str]) {
    match found {
        Err(Error::Graph(GraphError::Unsupported { op, node, why })) => {
            let text = format!("{op} {node} {why}");
            assert!(parts.iter().all(|part| text.contains(part)), "«{text}» does not name all of {parts:?}");
        }
        other => panic!("{other:?} instead of an error that names {parts:?}"),
    }
}

#[track_caller]
fn malformed(found: Result<ArrayD<f32>>, parts: &[&str]) {
    let text = found.expect_err("an error").to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "«{text}» does not name all of {parts:?}");
}

#[test]
fn pad_axes() -> Result<()> {
    let pad = |inputs: &[&str], pads: &[i64], axes: &[i64]| {
        let tensors = [ints("p", pads), ints("a", axes), floats("zero", &[], &[0.0]), floats("one", &[], &[1.0])];
        run(18, &[node("Pad", inputs, "y", &[])], &tensors)
    };
    let right = array![[[[1.0f32, 2.0, 0.0], [3.0, 4.0, 0.0]]]].into_dyn();
    assert_eq!(pad(&["x", "p", "", "a"], &[0, 1], &[3])?, right);
    assert_eq!(pad(&["x", "p", "zero", "a"], &[0, 0, 0, 1], &[-2, -1])?, right);
    assert_eq!(pad(&["x", "p", "zero", "a"], &[0, 0, 1, 0], &[3, 2])?, right);
    assert_eq!(pad(&["x", "p", "", "a"], &[0, 1], &[1])?.shape(), [1, 2, 2, 2]);
    assert_eq!(pad(&["x", "p", "", "a"], &[0, -1], &[3])?, array![[[[1.0f32], [3.0]]]].into_dyn());
    assert_eq!(pad(&["x", "p", "one", "a"], &[1, -1], &[3])?, array![[[[1.0f32, 1.0], [1.0, 3.0]]]].into_dyn());
    malformed(pad(&["x", "p", "", "a"], &[0, -3], &[3]), &["pads", "[0, -3]"]);
    malformed(pad(&["x", "p", "", "a"], &[0, 0, 0, 1], &[3, 3]), &["axes", "[3, 3]"]);
    malformed(pad(&["x", "p", "", "a"], &[0, 1, 1], &[3]), &["pads", "2 values", "3"]);
    // Opset 13 has no axes.
    let tensors = [ints("p", &[0, 1]), ints("a", &[3])];
    unsupported(run(13, &[node("Pad", &["x", "p", "", "a"], "y", &[])], &tensors), &["input 3", "\"a\"", "opset 13"]);
    Ok(())
}

#[test]
fn pad_value() -> Result<()> {
    let pad = |attributes: &[Message]| {
        let pads = int_list("pads", &[0, 0, 0, 0, 0, 0, 0, 1]);
        run(2, &[node("Pad", &["x"], "y", &[&[pads], attributes].concat())], &[])
    };
    let right = array![[[[1.0f32, 2.0, 0.0], [3.0, 4.0, 0.0]]]].into_dyn();
    assert_eq!(pad(&[])?, right);
    assert_eq!(pad(&[float("value", 0.0), string("mode", "constant")])?, right);
    assert_eq!(pad(&[float("value", 1.5)])?, array![[[[1.0f32, 2.0, 1.5], [3.0, 4.0, 1.5]]]].into_dyn());
    assert_eq!(pad(&[string("mode", "reflect")])?, array![[[[1.0f32, 2.0, 1.0], [3.0, 4.0, 3.0]]]].into_dyn());
    assert_eq!(pad(&[string("mode", "edge")])?, array![[[[1.0f32, 2.0, 2.0], [3.0, 4.0, 4.0]]]].into_dyn());
    unsupported(pad(&[string("mode", "mirror")]), &["attribute mode = \"mirror\""]);
    Ok(())
}

#[test]
fn resize_axes_and_policy() -> Result<()> {
    let resize = |attributes: &[Message], inputs: &[&str]| {
        let tensors = [
            floats("two", &[2], &[1.0, 2.0]),
            floats("four", &[4], &[1.0, 1.0, 1.0, 2.0]),
            ints("sizes", &[2, 4]),
            ints("all", &[1, 1, 2, 4]),
        ];
        let common = [string("nearest_mode", "floor"), string("coordinate_transformation_mode", "asymmetric")];
        run(18, &[node("Resize", inputs, "y", &[&common, attributes].concat())], &tensors)
    };
    let wide = array![[[[1.0f32, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]]].into_dyn();
    let axes = || int_list("axes", &[2, 3]);
    assert_eq!(resize(&[], &["x", "", "four"])?, wide);
    assert_eq!(resize(&[], &["x", "", "", "all"])?, wide);
    assert_eq!(resize(&[axes()], &["x", "", "two"])?, wide);
    assert_eq!(resize(&[axes()], &["x", "", "", "sizes"])?, wide);
    let tall = array![[[[1.0f32, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]]].into_dyn();
    assert_eq!(resize(&[int_list("axes", &[-1, -2])], &["x", "", "two"])?, tall);
    let policy = |name: &str| string("keep_aspect_ratio_policy", name);
    assert_eq!(resize(&[axes(), policy("stretch"), int("antialias", 0)], &["x", "", "", "sizes"])?, wide);
    let names = ["Resize", "y", "keep_aspect_ratio_policy", "not_larger"];
    unsupported(resize(&[axes(), policy("not_larger")], &["x", "", "", "sizes"]), &names);
    unsupported(resize(&[int("antialias", 1)], &["x", "", "four"]), &["antialias = 1"]);
    unsupported(resize(&[string("mode", "cubic")], &["x", "", "four"]), &["mode = \"cubic\""]);
    malformed(resize(&[int_list("axes", &[3, 3])], &["x", "", "two"]), &["axes", "[3, 3]"]);
    malformed(resize(&[axes()], &["x", "", "four"]), &["2 values"]);
    malformed(resize(&[], &["x", "", "four", "all"]), &["either scales or sizes"]);
    Ok(())
}

#[test]
fn infinite_bounds_of_clip() -> Result<()> {
    let clip = |min: f32, max: f32| {
        let tensors = [floats("min", &[], &[min]), floats("max", &[], &[max])];
        run(13, &[node("Clip", &["x", "min", "max"], "y", &[])], &tensors)
    };
    let (inf, image) = (f32::INFINITY, array![[[[1.0f32, 2.0], [3.0, 4.0]]]].into_dyn());
    assert_eq!(clip(-inf, inf)?, image);
    assert_eq!(clip(2.0, inf)?, image.mapv(|x| x.max(2.0)));
    unsupported(clip(inf, inf), &["Clip", "y", "min = inf"]);
    unsupported(clip(0.0, -inf), &["max = -inf"]);
    let attributes = |min: f32| run(6, &[node("Clip", &["x"], "y", &[float("min", min)])], &[]);
    assert_eq!(attributes(2.0)?, image.mapv(|x| x.max(2.0)));
    unsupported(attributes(inf), &["min = inf"]);
    // Attributes became inputs in opset 11.
    unsupported(run(13, &[node("Clip", &["x"], "y", &[float("min", 2.0)])], &[]), &["attribute min = 2"]);
    // A bound is one number.
    malformed(
        run(13, &[node("Clip", &["x", "min"], "y", &[])], &[floats("min", &[2], &[0.0, 1.0])]),
        &["min", "one element"],
    );
    Ok(())
}

#[test]
fn training_mode() -> Result<()> {
    let norm = |opset: i64, attributes: &[Message]| {
        let parameter = |name: &str, value: f32| floats(name, &[1], &[value]);
        let tensors = [parameter("s", 2.0), parameter("b", 1.0), parameter("m", 0.0), parameter("v", 1.0)];
        let attributes = [&[float("epsilon", 0.0)], attributes].concat();
        run(opset, &[node("BatchNormalization", &["x", "s", "b", "m", "v"], "y", &attributes)], &tensors)
    };
    let expected = array![[[[3.0f32, 5.0], [7.0, 9.0]]]].into_dyn();
    assert_eq!(norm(6, &[int("is_test", 1), int("spatial", 1), float("momentum", 0.5)])?, expected);
    assert_eq!(norm(9, &[float("momentum", 0.5)])?, expected);
    assert_eq!(norm(15, &[int("training_mode", 0)])?, expected);
    unsupported(norm(6, &[int("is_test", 0)]), &["BatchNormalization", "y", "is_test = 0"]);
    unsupported(norm(6, &[]), &["is_test = 0"]);
    unsupported(norm(6, &[int("is_test", 1), int("spatial", 0)]), &["spatial = 0"]);
    unsupported(norm(9, &[int("is_test", 1)]), &["is_test = 1", "opset 9"]);
    unsupported(norm(15, &[int("training_mode", 1)]), &["training_mode = 1"]);

    let flag = |value: u8| Message::default().int(2, 9).text(8, "mode").bytes(9, &[value]);
    let dropout = |value: u8| run(12, &[node("Dropout", &["x", "", "mode"], "y", &[])], &[flag(value)]);
    assert_eq!(dropout(0)?, array![[[[1.0f32, 2.0], [3.0, 4.0]]]].into_dyn());
    unsupported(dropout(1), &["Dropout", "training_mode"]);
    unsupported(run(6, &[node("Dropout", &["x"], "y", &[])], &[]), &["is_test = 0"]);
    Ok(())
}

#[test]
fn broadcasting_by_attributes() -> Result<()> {
    for op in ["Add", "Sub", "Mul", "Div"] {
        let sum = |opset: i64, attributes: &[Message]| {
            run(opset, &[node(op, &["x", "w"], "y", attributes)], &[floats("w", &[2], &[1.0, 2.0])])
        };
        unsupported(sum(6, &[int("broadcast", 1), int("axis", 2)]), &[op, "y", "broadcast = 1"]);
        unsupported(sum(6, &[int("axis", 2)]), &["axis = 2", "opset 6"]);
        unsupported(sum(7, &[int("axis", 2)]), &["axis = 2", "opset 7"]);
        assert_eq!(sum(7, &[])?.shape(), [1, 1, 2, 2]);
        assert_eq!(sum(7, &[])?, sum(6, &[int("broadcast", 0)])?);
    }
    Ok(())
}

#[test]
fn repeated_axes() -> Result<()> {
    let changed = |op: &str, axes: &[i64]| {
        let file = model(&[node(op, &["x", "a"], "y", &[])], &[ints("a", axes)], &[1, 3, 1, 1], "y");
        read(&file)?.run(&Array::<f32, _>::zeros((1, 3, 1, 1)))
    };
    assert_eq!(changed("Unsqueeze", &[1, -1])?.shape(), [1, 1, 3, 1, 1, 1]);
    assert_eq!(changed("Squeeze", &[2, -1])?.shape(), [1, 3]);
    malformed(changed("Unsqueeze", &[1, 1]), &["axes", "[1, 1]"]);
    malformed(changed("Unsqueeze", &[1, -5]), &["axes", "[1, -5]"]);
    malformed(changed("Squeeze", &[2, -2]), &["axes", "[2, -2]"]);
    malformed(changed("Squeeze", &[1]), &["length 1", "[1, 3, 1, 1]"]);
    assert_eq!(changed("Unsqueeze", &[0])?.shape(), [1, 1, 3, 1, 1]);
    Ok(())
}

#[test]
fn unknown_attributes_inputs_and_outputs() {
    unsupported(run(13, &[node("Relu", &["x"], "y", &[int("leaky", 3)])], &[]), &["Relu", "y", "leaky = 3"]);
    unsupported(run(13, &[node("Relu", &["x", "x"], "y", &[])], &[]), &["input 1", "\"x\""]);
    unsupported(run(13, &[node("Relu", &["x"], "y", &[]).text(2, "z")], &[]), &["output \"z\""]);
    malformed(run(13, &[node("Relu", &[""], "y", &[])], &[]), &["input 0", "none"]);
    let twice = [int("axis", 1), int("axis", 2)];
    malformed(run(13, &[node("Softmax", &["x"], "y", &twice)], &[]), &["\"axis\" twice"]);
    malformed(run(13, &[node("Softmax", &["x"], "y", &[float("axis", 1.0)])], &[]), &["axis of type INT", "FLOAT"]);
    malformed(run(13, &[node("Concat", &["x", "x"], "y", &[])], &[]), &["axis", "none"]);
    unsupported(run(13, &[node("HardSwish", &["x"], "y", &[])], &[]), &["HardSwish", "14", "13"]);
    unsupported(run(13, &[node("Upsample", &["x", "s"], "y", &[])], &[]), &["Upsample", "opset 13"]);
    let pads = [int_list("kernel_shape", &[1, 1]), int_list("pads", &[1, 1, 1, 1]), string("auto_pad", "VALID")];
    unsupported(run(13, &[node("MaxPool", &["x"], "y", &pads)], &[]), &["pads", "VALID"]);
}

#[test]
fn versions_of_the_operator_set() -> Result<()> {
    let relu = || node("Relu", &["x"], "y", &[]);
    let read_with = |sets: &[Message]| {
        let file = Message::default().int(1, 8).message(7, graph(&[relu()], &[], &[value("x", &[1, 2])], "y"));
        read(&sets.iter().fold(file, |m, set| m.message(8, set.clone())).0)?.run(&Array2::<f32>::ones((1, 2)))
    };
    let set = |domain: &str, version: i64| Message::default().text(1, domain).int(2, version);
    read_with(&[set("", 1)])?;
    read_with(&[set("ai.onnx", 24), set("ai.onnx.ml", 3)])?;
    malformed(read_with(&[set("", 99)]), &["1..=24", "99"]);
    malformed(read_with(&[set("", 0)]), &["1..=24", "0"]);
    malformed(read_with(&[]), &["opset_import", "none"]);
    malformed(read_with(&[set("ai.onnx.ml", 3)]), &["opset_import", "none"]);
    malformed(read_with(&[set("", 13), set("ai.onnx", 14)]), &["13 and 14"]);
    Ok(())
}

#[test]
fn names_are_defined_once() -> Result<()> {
    let twice = |nodes: &[Message], tensors: &[Message], inputs: &[Message], name: &str| {
        let file = graph(nodes, tensors, inputs, "y");
        let file = Message::default().message(7, file).message(8, Message::default().int(2, 13));
        match read(&file.0) {
            Err(Error::Graph(GraphError::Name { found, .. })) => assert_eq!(found, name),
            other => panic!("{other:?}"),
        }
    };
    let (x, relu) = (|| value("x", &[1, 2]), |input: &str, output: &str| node("Relu", &[input], output, &[]));
    twice(&[relu("x", "y"), relu("x", "y")], &[], &[x()], "y");
    twice(&[relu("x", "y"), node("Identity", &["x"], "y", &[])], &[], &[x()], "y");
    twice(&[node("Identity", &["x"], "y", &[]), relu("x", "y")], &[], &[x()], "y");
    twice(&[node("Shape", &["x"], "x", &[]), relu("x", "y")], &[], &[x()], "x");
    twice(&[node("Identity", &["x"], "x", &[]), relu("x", "y")], &[], &[x()], "x");
    twice(&[node("Identity", &["x"], "w", &[]), relu("w", "y")], &[floats("w", &[1], &[1.0])], &[x()], "w");
    twice(&[relu("x", "y")], &[ints("w", &[1]), floats("w", &[1], &[1.0])], &[x()], "w");
    twice(&[relu("x", "y")], &[], &[x(), x()], "x");
    twice(&[relu("x", "y")], &[], &[x(), value("", &[1])], "");

    // Constants that the reader adds do not collide with constants of the file, and nodes may share a name.
    let tensors = [floats("w", &[2, 2], &[1., 0., 0., 1.]), floats("g.weight", &[2], &[1.0, 2.0])];
    let named = |node: Message| node.text(3, "same");
    let nodes = [
        named(node("MatMul", &["x", "w"], "g", &[])),
        named(node("Add", &["g", "g.weight"], "s", &[])),
        node("Relu", &["s"], "y", &[]),
    ];
    let y = read(&model(&nodes, &tensors, &[0, 2], "y"))?.run(&array![[1.0f32, 1.0]])?;
    assert_eq!(y, array![[2.0f32, 3.0]].into_dyn());
    Ok(())
}

#[test]
fn shapes_of_unknown_inputs() {
    let file = model(&[node("Add", &["x", "w"], "y", &[])], &[floats("w", &[1], &[1.0])], &[0, 0], "y");
    let read =
        |name: &str| OnnxReader::new().with_input_shape("x", &[1, 3]).with_input_shape(name, &[1, 3]).read(&file);
    assert!(read("x").is_ok());
    for name in ["image", "w", "y"] {
        match read(name) {
            Err(Error::Graph(GraphError::Unknown { name: unknown, nearest, .. })) => {
                assert_eq!((&*unknown, &*nearest), (name, &["x".to_string()][..]));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn integer_inputs_sparse_initializers_and_functions() {
    let typed = |elem_type: i64| {
        let shape =
            Message::default().message(1, Message::default().int(1, 1)).message(1, Message::default().int(1, 2));
        let tensor = Message::default().int(1, elem_type).message(2, shape);
        Message::default().text(1, "x").message(2, Message::default().message(1, tensor))
    };
    let file = |input: Message, more: Message| {
        let graph = graph(&[node("Relu", &["x"], "y", &[])], &[], &[input], "y");
        let graph = Message([graph.0, more.0].concat());
        read(&Message::default().message(7, graph).message(8, Message::default().int(2, 13)).0)
    };
    assert!(file(typed(1), Message::default()).is_ok());
    let text = file(typed(8), Message::default()).unwrap_err().to_string();
    assert!(text.contains("STRING") && text.contains("\"x\""), "{text}");
    let text = file(typed(1), Message::default().bytes(15, &[])).unwrap_err().to_string();
    assert!(text.contains("sparse"), "{text}");
    // A function of the model would take the place of the operator.
    let file = Message(model(&[node("Relu", &["x"], "y", &[])], &[], &[1, 2], "y"));
    let text = read(&file.message(25, Message::default().text(1, "Relu")).0).unwrap_err().to_string();
    assert!(text.contains("function") && text.contains("\"Relu\""), "{text}");
}

#[test]
fn integer_constants() -> Result<()> {
    let image = array![[[[1.0f32, 2.0], [3.0, 4.0]]]].into_dyn();
    // The shape of `x` from axis 2 on, behind the batch.
    let nodes = |end: i64| {
        [
            node("Shape", &["x"], "s", &[int("start", 2), int("end", end)]),
            node("Constant", &[], "n", &[int_list("value_ints", &[-1])]),
            node("Cast", &["s"], "s32", &[int("to", 6)]),
            node("Concat", &["n", "s32"], "target", &[int("axis", 0)]),
            node("Reshape", &["x", "target"], "y", &[]),
        ]
    };
    assert_eq!(run(15, &nodes(4), &[])?.shape(), [1, 2, 2]);
    assert_eq!(run(15, &nodes(3), &[])?.shape(), [2, 2]);
    // An integer tensor is cast to floats only by its name.
    let cast = |to: i64| {
        let nodes = [
            node("Constant", &[], "i", &[tensor("value", ints("", &[2, 3]))]),
            node("Cast", &["i"], "f", &[int("to", to)]),
            node("Mul", &["x", "f"], "y", &[]),
        ];
        run(13, &nodes, &[])
    };
    assert_eq!(cast(1)?, &image * &array![2.0f32, 3.0]);
    unsupported(cast(3), &["Cast", "f", "to = INT8"]);
    malformed(cast(7), &["floats", "integers"]);
    // `Unsqueeze` adds the axes that it is given.
    let unsqueezed = |axes: &[i64]| {
        let nodes = [node("Unsqueeze", &["t", "a"], "u", &[]), node("Reshape", &["x", "u"], "y", &[])];
        run(13, &nodes, &[Message::default().int(2, 7).text(8, "t").int(7, -1), ints("a", axes)])
    };
    malformed(unsqueezed(&[2]), &["axis"]);
    malformed(unsqueezed(&[0, 0]), &["axes", "[0, 0]"]);
    // A batch that is inferred beside another length that is inferred.
    let reshape = |target: &[i64], attributes: &[Message]| {
        run(14, &[node("Reshape", &["x", "s"], "y", attributes)], &[ints("s", target)])
    };
    assert_eq!(reshape(&[-1, 4], &[])?.shape(), [1, 4]);
    assert_eq!(reshape(&[0, -1], &[])?.shape(), [1, 4]);
    malformed(reshape(&[-1, -1], &[]), &["-1"]);
    malformed(reshape(&[0, -1], &[int("allowzero", 1)]), &["-1"]);
    Ok(())
}
