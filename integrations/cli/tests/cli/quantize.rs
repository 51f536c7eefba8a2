use image::{Rgb, RgbImage};
use ndarray_npy::NpzWriter;

use crate::folder::{Folder, samples, two_inputs};

#[test]
fn from_arrays() {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[20, 3, 8, 8]);
    let text = folder.succeeds(&["quantize", "image.onnx", "-o", "q.safetensors", "--calibration-data", "x.npy"]);
    assert!(text.starts_with("15 samples observed, 5 held out: "), "{text}");
    assert!(text.contains(" kept     MinMax\n"), "{text}");
    assert!(text.contains("\nweights: 2 in int8; outputs as codes: 3 of 4 nodes\nq.safetensors: "), "{text}");
    // The same again gives the same bytes, and so do more threads.
    for (name, more) in [("a", &["--threads", "1"][..]), ("b", &["--threads", "2"])] {
        let output = format!("{name}.safetensors");
        let args = ["quantize", "image.onnx", "-o", &output, "--calibration-data", "x.npy"];
        folder.succeeds(&[&args, more].concat());
    }
    let bytes = |name| std::fs::read(folder.path(name)).unwrap();
    assert_eq!(bytes("q.safetensors"), bytes("a.safetensors"));
    assert_eq!(bytes("q.safetensors"), bytes("b.safetensors"));
}

#[test]
fn from_a_folder_of_images() {
    let folder = Folder::with_network();
    std::fs::create_dir(folder.path("photos")).unwrap();
    for i in 0..3u8 {
        let image = RgbImage::from_fn(20, 10, |x, y| Rgb([x as u8 * 10, y as u8 * 20, 80 * i]));
        image.save(folder.path(&format!("photos/{i}.png"))).unwrap();
    }
    folder.write("photos/README.md", b"not an image");
    let args = [
        "quantize",
        "image.onnx",
        "-o",
        "q.safetensors",
        "--calibration-data",
        "photos",
        "--calibrate-method",
        "minmax",
        "--save-recipe",
        "r.json",
    ];
    let range = |more: &[&str]| {
        folder.succeeds(&[&args, more].concat());
        let recipe: serde_json::Value = serde_json::from_str(&folder.read("r.json")).unwrap();
        let ranges = recipe["tensors"]["x"]["ranges"][0].as_array().unwrap().clone();
        [0, 1].map(|i| ranges[i].as_f64().unwrap())
    };
    let [low, high] = range(&[]);
    assert!(low == 0.0 && (0.5..=1.0).contains(&high), "{low}..{high}");
    // Each channel has its own mean and scale: the third one is 0, 80 or 160.
    let [low, high] = range(&["--mean", "0,0,160", "--scale", "1000,1000,2"]);
    assert_eq!(low, -80.0);
    assert!((0.1..0.2).contains(&high), "{low}..{high}");
    let [low, _] =
        range(&["--mean", "160,0,0", "--scale", "2,1000,1000", "--channel-order", "bgr", "--resize", "crop"]);
    assert_eq!(low, -80.0);
    let error = folder.fails(1, &[&args[..], &["--mean", "1,2"]].concat());
    assert!(error.contains("--mean: expected 1 number or 3, one for each channel, found 2"), "{error}");
}

#[test]
fn from_pixels() {
    let folder = Folder::with_network();
    let pixels = ndarray::Array4::from_shape_fn((4, 8, 8, 3), |(n, y, x, c)| (n * 50 + y * 3 + x + c) as u8);
    ndarray_npy::write_npy(folder.path("pixels.npy"), &pixels).unwrap();
    folder.succeeds(&["quantize", "image.onnx", "-o", "q.safetensors", "--calibration-data", "pixels.npy"]);
    let pixels = ndarray::Array4::<u8>::zeros((4, 6, 8, 3));
    ndarray_npy::write_npy(folder.path("pixels.npy"), &pixels).unwrap();
    let error = folder.fails(1, &["quantize", "image.onnx", "-o", "q.safetensors", "--calibration-data", "pixels.npy"]);
    let expected =
        "pixels.npy: input \"x\": expected pixels of shape Nx8x8x3 (images, height, width, channels), found 4x6x8x3";
    assert_eq!(error, format!("ndarray-quant: {expected}\n"));
}

#[test]
fn a_network_of_two_inputs() {
    let folder = Folder::new();
    folder.write("two.onnx", &two_inputs());
    folder.npy("a.npy", &[5, 6]);
    folder.npy("b.npy", &[5, 6]);
    let data = |paths: &[&'static str]| {
        let data = paths.iter().flat_map(|path| ["--calibration-data", path]);
        ["quantize", "two.onnx", "-o", "q.safetensors"].into_iter().chain(data).collect::<Vec<_>>()
    };
    folder.succeeds(&data(&["a=a.npy", "b=b.npy"]));
    let mut file = NpzWriter::new(std::fs::File::create(folder.path("both.npz")).unwrap());
    file.add_array("a", &samples(&[5, 6])).unwrap();
    file.add_array("b", &samples(&[5, 6])).unwrap();
    file.finish().unwrap();
    let named = std::fs::read(folder.path("q.safetensors")).unwrap();
    folder.succeeds(&data(&["both.npz"]));
    assert_eq!(std::fs::read(folder.path("q.safetensors")).unwrap(), named);

    let error = folder.fails(1, &data(&["a.npy"]));
    assert!(error.contains("a.npy: the network has 2 inputs (a, b): give NAME=PATH for each"), "{error}");
    let error = folder.fails(1, &data(&["a=a.npy"]));
    assert!(error.contains("no data for input \"b\""), "{error}");
    let error = folder.fails(1, &data(&["a=a.npy", "c=b.npy"]));
    assert!(error.contains("the network has no input \"c\"; its inputs: a, b"), "{error}");
    folder.npy("b.npy", &[4, 6]);
    let error = folder.fails(1, &data(&["a=a.npy", "b=b.npy"]));
    assert!(error.contains("5 samples for input \"a\", but 4 for \"b\""), "{error}");
}

#[test]
fn without_data() {
    let folder = Folder::with_network();
    let args = ["quantize", "image.onnx", "-o", "q.safetensors"];
    let error = folder.fails(1, &args);
    assert!(error.contains("--mode static needs samples of real inputs: give --calibration-data"), "{error}");
    let text = folder.succeeds(&[&args[..], &["--mode", "dynamic"]].concat());
    assert!(text.starts_with("weights: 2 in int8; outputs as codes: 0 of 4 nodes\n"), "{text}");
    let text = folder.succeeds(&[&args[..], &["--mode", "float16"]].concat());
    assert!(text.starts_with("weights: 2 in float16;"), "{text}");
    // The names of ai-edge-quantizer.
    folder.succeeds(&[&args[..], &["--mode", "dynamic_wi8_afp32"]].concat());
    folder.npy("x.npy", &[2, 3, 8, 8]);
    let error = folder.fails(1, &[&args[..], &["--mode", "dynamic", "--calibration-data", "x.npy"]].concat());
    assert!(error.contains("calibration data: nothing that was asked for needs any"), "{error}");
    let error = folder.fails(1, &[&args[..], &["--mode", "dynamic", "--calibrate-method", "mse"]].concat());
    assert!(error.contains("--calibrate-method: expected with --mode static"), "{error}");
    // Random data is asked for by name.
    folder.succeeds(&[&args[..], &["--random-calibration-data", "4"]].concat());
    let error = folder.fails(1, &["quantize", "image.onnx", "-o", "q.tflite", "--mode", "dynamic"]);
    assert!(error.contains("--output q.tflite: expected a .safetensors or .onnx file, or --format"), "{error}");
}

#[test]
fn options_of_ranges_and_precisions() {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[16, 3, 8, 8]);
    let args = ["quantize", "image.onnx", "-o", "q.safetensors", "--calibration-data", "x.npy"];
    let with = |more: &[&str]| folder.succeeds(&[&args[..], more].concat());
    for method in ["minmax", "percentile", "entropy", "mse"] {
        with(&["--calibrate-method", method]);
    }
    for transform in ["smoothquant", "awq", "hadamard"] {
        with(&["--input-transform", transform, "--calibrate-method", "minmax", "--nodes-to-exclude", "y"]);
    }
    let error = folder.fails(1, &[&args[..], &["--input-transform", "awq"]].concat());
    assert!(error.contains("--input-transform: expected with another --calibrate-method than auto"), "{error}");
    with(&["--equalize", "--weight-rounding", "coordinate-descent", "--calibrate-method", "minmax"]);
    let error = folder.fails(1, &[&args[..], &["--equalize"]].concat());
    assert!(error.contains("--equalize: --calibrate-method auto tries it; name another method"), "{error}");
    assert!(with(&["--weight-type", "int4"]).contains("\nweights: 2 in int4;"));
    assert!(with(&["--nodes-to-exclude", "y"]).contains("; in float: 1 node\n"));
    assert!(with(&["--max-size", "300B"]).contains(" in int4"));
    assert!(with(&["--min-sqnr", "10"]).contains("\nmixed precision: "));
    let error = folder.fails(1, &[&args[..], &["--nodes-to-exclude", "z"]].concat());
    assert!(error.contains("image.onnx: unknown layer (the name of its output tensor) \"z\"; similar: "), "{error}");
}

#[test]
fn weights_in_groups() {
    let folder = Folder::with_network();
    let args = ["quantize", "image.onnx", "-o", "q.safetensors", "--mode", "dynamic", "--group-size", "4"];
    folder.succeeds(&args);
    let int4 = [&args[..], &["--weight-type", "int4", "--save-recipe", "r.json"]].concat();
    let printed = folder.succeeds(&int4);
    assert!(printed.contains("weights: 2 in int4;"), "{printed}");
    assert!(std::fs::read_to_string(folder.path("r.json")).unwrap().contains("PerGroup"));
    folder.succeeds(&[&args[..], &["--weight-type", "int4", "--input-transform", "hadamard"]].concat());
    folder.npy("x.npy", &[16, 3, 8, 8]);
    let awq = [&args[..], &["--weight-type", "int4", "--input-transform", "awq"]].concat();
    let error = folder.fails(1, &awq);
    assert!(error.contains("--input-transform needs samples of real inputs"), "{error}");
    folder.succeeds(&[&awq[..], &["--calibration-data", "x.npy"]].concat());
    let error =
        folder.fails(1, &["quantize", "image.onnx", "-o", "q.safetensors", "--mode", "float16", "--group-size", "4"]);
    assert!(error.contains("--group-size: expected with --mode dynamic"), "{error}");
}

#[test]
fn a_recipe_is_saved_edited_and_read() {
    let folder = Folder::with_network();
    folder.npy("x.npy", &[16, 3, 8, 8]);
    let args = ["quantize", "image.onnx", "-o", "q.safetensors"];
    folder.succeeds(
        &[&args[..], &["--calibration-data", "x.npy", "--calibrate-method", "mse", "--save-recipe", "r.json"]].concat(),
    );
    let bytes = std::fs::read(folder.path("q.safetensors")).unwrap();
    folder.succeeds(&[&args[..], &["--recipe", "r.json"]].concat());
    assert_eq!(std::fs::read(folder.path("q.safetensors")).unwrap(), bytes);
    folder.write("r.json", folder.read("r.json").replace("\"Int8\"", "\"Int9\"").as_bytes());
    let error = folder.fails(1, &[&args[..], &["--recipe", "r.json"]].concat());
    assert!(error.contains("r.json: unknown variant `Int9`") && error.contains(" at line "), "{error}");
}

#[test]
fn data_that_does_not_fit() {
    let folder = Folder::with_network();
    let args = ["quantize", "image.onnx", "-o", "q.safetensors", "--calibrate-method", "minmax", "--calibration-data"];
    let with = |data| folder.fails(1, &[&args[..], &[data]].concat());
    folder.npy("x.npy", &[16, 3, 8, 9]);
    let error = with("x.npy");
    assert!(error.contains("x.npy: input \"x\": expected an array of shape Nx3x8x8, found 16x3x8x9"), "{error}");
    assert!(with("missing.npy").contains("missing.npy: no such file"));
    folder.write("x.csv", b"1,2");
    assert!(with("x.csv").contains("x.csv: expected a .npy, .npz, .png or .jpg file"));
    folder.write("x.png", b"not a picture");
    assert!(with("x.png").contains("x.png: "));
    let mut nan = samples(&[16, 3, 8, 8]);
    nan[[9, 1, 0, 0]] = f32::NAN;
    ndarray_npy::write_npy(folder.path("nan.npy"), &nan).unwrap();
    let error = with("nan.npy");
    assert!(error.contains("NaN") && error.contains("samples from 8 on"), "{error}");
    std::fs::create_dir(folder.path("empty")).unwrap();
    assert!(with("empty").contains("empty: expected .npy, .npz, .png or .jpg files in the folder, found none"));
}
