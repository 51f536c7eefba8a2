//! A temporary folder with networks and data, in which the program runs.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use ndarray::{Array, ArrayD, IxDyn};
use ndarray_npy::write_npy;
use tempfile::TempDir;

use crate::message::{Message, attribute, floats, graph, int, ints, model_in, node, value};

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with the network `image.onnx` of images 1x3x8x8 and scores 1x4.
    pub(crate) fn with_network() -> Self {
        let folder = Self::new();
        folder.write("image.onnx", &image_network(8));
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn npy(&self, name: &str, shape: &[usize]) {
        write_npy(self.path(name), &samples(shape)).unwrap();
    }

    /// Runs the program. Returns what it printed.
    pub(crate) fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {error}");
        assert_eq!(error, "", "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must exit with this code. Returns its error.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        assert_cmd::cargo::cargo_bin_cmd!("ndarray-quant").current_dir(self.0.path()).args(args).output().unwrap()
    }
}

/// Numbers in -1..1 that depend on their index only.
pub(crate) fn samples(shape: &[usize]) -> ArrayD<f32> {
    let mut i = 0f32;
    Array::from_shape_simple_fn(IxDyn(shape), || {
        i += 1.0;
        (i * 0.37).sin()
    })
}

/// A convolution, a ReLU, a mean over all pixels and a linear layer. Height and width have no length for `size` 0.
pub(crate) fn image_network(size: i64) -> Vec<u8> {
    let weights = |name: &str, dims: &[i64]| {
        let shape: Vec<usize> = dims.iter().map(|&length| length as usize).collect();
        floats(name, dims, &samples(&shape).into_raw_vec_and_offset().0)
    };
    let nodes = [
        node("Conv", &["x", "w"], "c", &[attribute("pads", &[1, 1, 1, 1]), attribute("kernel_shape", &[3, 3])]),
        node("Relu", &["c"], "r", &[]),
        node("GlobalAveragePool", &["r"], "p", &[]),
        node("Flatten", &["p"], "f", &[]),
        node("Gemm", &["f", "fc", "b"], "y", &[int("transB", 1)]),
    ];
    let tensors = [weights("w", &[8, 3, 3, 3]), weights("fc", &[4, 8]), weights("b", &[4])];
    model_in(13, &nodes, &tensors, &[0, 3, size, size], "y")
}

/// The sum of two inputs `a` and `b` of shape 1x6, through a linear layer.
pub(crate) fn two_inputs() -> Vec<u8> {
    let nodes = [node("Add", &["a", "b"], "s", &[]), node("MatMul", &["s", "w"], "y", &[])];
    let tensors = [floats("w", &[6, 2], &samples(&[6, 2]).into_raw_vec_and_offset().0)];
    let graph = graph(&nodes, &tensors, &[value("a", &[0, 6]), value("b", &[0, 6])], "y");
    Message::default().int(1, 8).message(7, graph).message(8, Message::default().int(2, 13)).0
}

/// A linear layer, and the index of its greatest output, twice.
pub(crate) fn arg_max() -> Vec<u8> {
    let nodes = [
        node("MatMul", &["x", "w"], "scores", &[]),
        node("ArgMax", &["scores"], "a", &[int("axis", 1)]),
        node("ArgMax", &["scores"], "b", &[int("axis", 1)]),
        node("Add", &["a", "b"], "y", &[]),
    ];
    let weights = floats("w", &[4, 3], &samples(&[4, 3]).into_raw_vec_and_offset().0);
    model_in(13, &nodes, &[weights], &[1, 4], "y")
}

/// Operators that nobody has: `Frobnicate` twice, and a cumulative sum.
pub(crate) fn unsupported() -> Vec<u8> {
    let nodes = [
        node("Frobnicate", &["x"], "a", &[]),
        node("Frobnicate", &["x"], "b", &[]),
        node("GridSample", &["x", "axis"], "c", &[]),
        node("Relu", &["x"], "y", &[]),
    ];
    model_in(13, &nodes, &[ints("axis", &[1])], &[1, 4], "y")
}
