//! `size_in_bytes` of a network is the memory that it holds, measured by an allocator that counts.

#![cfg(feature = "std")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array, ArrayD, Ix1, Ix2, Ix4, IxDyn};
use ndarray_quant::graph::{CalibrationMethod, Graph, GraphBuilder, Precision, Recipe};
use ndarray_quant::nn::{Padding, Window};

/// Counts the bytes that are allocated and not freed.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all memory is the system allocator's; counting allocates nothing.
#[allow(unsafe_code, reason = "an allocator has no safe interface")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

fn values(shape: &[usize]) -> ArrayD<f32> {
    let mut i = 0f32;
    Array::from_shape_simple_fn(IxDyn(shape), || {
        i += 1.0;
        (i * 0.37).sin()
    })
}

/// A convolution, a depthwise one, one of groups, and linear layers: 1.5 million weights.
fn network() -> Graph {
    let mut g = GraphBuilder::new();
    let same = Window::new().with_padding(Padding::Same);
    let x = g.input("x", &[1, 64, 6, 6]).unwrap();
    let bias = |len: usize| values(&[len]).into_dimensionality::<Ix1>().unwrap();
    let conv = |g: &mut GraphBuilder, name: &str, x, shape: [usize; 4], groups| {
        let weights = values(&shape).into_dimensionality::<Ix4>().unwrap();
        g.conv(name, x, &weights, Some(&bias(shape[0])), same, groups).unwrap()
    };
    let linear = |g: &mut GraphBuilder, name: &str, x, shape: [usize; 2]| {
        let weights = values(&shape).into_dimensionality::<Ix2>().unwrap();
        g.linear(name, x, &weights, Some(&bias(shape[0]))).unwrap()
    };
    let x = conv(&mut g, "conv", x, [128, 64, 3, 3], 1);
    let x = conv(&mut g, "depthwise", x, [128, 1, 5, 5], 128);
    let x = conv(&mut g, "groups", x, [128, 32, 3, 3], 4);
    let x = g.global_average_pool("pool", x).unwrap();
    let x = g.flatten("flat", x).unwrap();
    let x = linear(&mut g, "wide", x, [2048, 128]);
    let x = linear(&mut g, "hidden", x, [512, 2048]);
    let y = linear(&mut g, "y", x, [100, 512]);
    g.build(&[y]).unwrap()
}

#[test]
fn size_in_bytes_is_the_memory_that_a_network_holds() {
    let recipe = |graph: &Graph, kind: usize| match kind {
        0 => Recipe::default(),
        1 => Recipe::float16(graph),
        2 => Recipe::dynamic_range(graph).unwrap(),
        kind => {
            let x = values(&[2, 64, 6, 6]);
            let calibration = graph.calibrate([x.view()]).unwrap();
            let mut recipe = calibration.recipe(graph, CalibrationMethod::MinMax).unwrap();
            let weights = recipe.tensors.iter_mut().filter(|(name, _)| name.ends_with(".weight"));
            weights.filter(|_| kind == 4).for_each(|(_, tensor)| tensor.precision = Precision::Int4);
            recipe
        }
    };
    // Everything that is made once: thread-local buffers, tables, the choice of the instruction set.
    network().quantize(&recipe(&network(), 3)).unwrap().run(&values(&[1, 64, 6, 6])).unwrap();
    for (kind, name) in ["float32", "float16", "dynamic range", "int8", "int4"].into_iter().enumerate() {
        let before = held();
        let graph = network();
        let recipe = recipe(&graph, kind);
        let network = graph.quantize(&recipe).unwrap();
        drop((graph, recipe));
        let (found, expected) = (network.size_in_bytes(), held() - before);
        let ratio = found as f64 / expected as f64;
        println!("{name}: {found} bytes, {expected} held, {:.1} %", 100.0 * ratio);
        assert!((0.95..=1.05).contains(&ratio), "{name}: {found} bytes, but {expected} are held");
    }
}
