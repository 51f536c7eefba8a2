//! One image, whose layers are split over threads, gives the same bits as on one.

use ndarray::{ArrayD, IxDyn};
use ndarray_quant::{
    graph::{Graph, GraphBuilder, Recipe},
    nn::Window,
};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::{calibrated, random};

/// Layers that are worth several threads.
fn large(rng: &mut Pcg64Mcg) -> Graph {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3, 97, 95]).unwrap();
    let window = Window::new().with_strides([2, 2]).with_padding(1);
    let x = g.conv("stem", x, &random([24, 3, 3, 3], rng), Some(&random(24, rng)), window, 1).unwrap();
    let x = g.relu6("relu", x).unwrap();
    let y = g.conv("depthwise", x, &random([24, 1, 5, 5], rng), None, Window::new().with_padding(2), 24).unwrap();
    let x = g.add("sum", x, y).unwrap();
    let x = g.conv("grouped", x, &random([16, 12, 3, 3], rng), None, Window::new(), 2).unwrap();
    let x = g.conv("wide", x, &random([48, 16, 1, 1], rng), Some(&random(48, rng)), Window::new(), 1).unwrap();
    g.build(&[x]).unwrap().simplify().unwrap()
}

#[test]
fn threads_give_the_same_bits() {
    let rng = &mut Pcg64Mcg::seed_from_u64(11);
    let graph = large(rng);
    let x = random(IxDyn(&[2, 3, 97, 95]), rng);
    let recipes = [calibrated(&graph, &x), Recipe::dynamic_range(&graph).unwrap(), Recipe::float16(&graph)];
    let networks = recipes.map(|recipe| graph.quantize(&recipe).unwrap());
    let one_image = x.slice_axis(ndarray::Axis(0), ndarray::Slice::from(1..));
    let all = |threads| -> Vec<ArrayD<f32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let quantized = networks.iter().map(|network| network.run(&one_image).unwrap());
            quantized.chain([graph.run(&one_image).unwrap(), graph.run(&x).unwrap()]).collect()
        })
    };
    let bits = |all: Vec<ArrayD<f32>>| -> Vec<Vec<u32>> {
        all.iter().map(|y| y.iter().map(|y| y.to_bits()).collect()).collect()
    };
    let expected = bits(all(1));
    for threads in [2, 3, 7] {
        assert!(bits(all(threads)) == expected, "{threads} threads");
    }
    // An error has the same index in the image for any number of threads.
    let mut odd = one_image.to_owned();
    odd[[0, 1, 90, 3]] = f32::NAN;
    let error = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| format!("{:?}", networks[1].run(&odd).unwrap_err()))
    };
    assert_eq!(error(3), error(1));
}
