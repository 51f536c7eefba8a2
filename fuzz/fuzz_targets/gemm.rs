//! Products of codes against the naive sum.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ndarray::{Array2, s};
use ndarray_quant::gemm::{I32Epilogue, Int8, PackedLhs, PackedRhs, Workspace, gemm, gemm_into};

#[derive(Arbitrary, Debug)]
struct Input {
    rows: u8,
    depth: u16,
    cols: u8,
    /// Steps of the axes of both operands and the output, less 1, two bits each.
    steps: u16,
    transposed: u8,
    types: u8,
    packed: bool,
    lhs_zero: u8,
    zero_points: Vec<u8>,
    bias: Vec<i32>,
    seed: u64,
    /// Codes of the first elements. The rest follow from the seed.
    codes: Vec<u8>,
}

/// A matrix in any layout: rows and columns are a step apart, and axes may be swapped.
fn matrix<T: Int8>(input: &Input, shape: [usize; 2], which: u32) -> Array2<T> {
    let step = |axis: u32| usize::from(input.steps >> (4 * which + 2 * axis) & 3) + 1;
    let [rows, cols] = [shape[0] * step(0), shape[1] * step(1)];
    let mut state = input.seed.wrapping_add(which.into());
    let mut codes = input.codes.iter();
    let mut code = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        T::from_i32(i32::from(*codes.next().unwrap_or(&((state >> 56) as u8)) as i8))
    };
    let transposed = input.transposed >> which & 1 == 1;
    let shape = if transposed { (cols, rows) } else { (rows, cols) };
    let whole = Array2::from_shape_simple_fn(shape, &mut code);
    let whole = if transposed { whole.reversed_axes() } else { whole };
    whole.slice_move(s![..;step(0), ..;step(1)])
}

fn check<A: Int8, B: Int8>(input: &Input) {
    let [m, n] = [input.rows % 40, input.cols % 100].map(usize::from);
    let k = usize::from(input.depth % 300);
    let (a, b) = (matrix::<A>(input, [m, k], 0), matrix::<B>(input, [k, n], 1));
    let list = |n: usize| (0..n).map(|j| B::from_i32((*input.zero_points.get(j).unwrap_or(&0) as i8).into()));
    let zero_points: Vec<B> = list(if input.zero_points.len() == 1 { 1 } else { n }).collect();
    let a_zero = A::from_i32(i32::from(input.lhs_zero as i8));
    // A bias leaves room for the sum.
    let bias: Vec<i32> = (0..n).map(|j| input.bias.get(j).unwrap_or(&0) / 2).collect();
    let expected = Array2::from_shape_fn((m, n), |(i, j)| {
        let zero = zero_points[if zero_points.len() == 1 { 0 } else { j }].to_i32();
        let product = |k: usize| (a[[i, k]].to_i32() - a_zero.to_i32()) * (b[[k, j]].to_i32() - zero);
        (0..k).map(product).fold(bias[j], i32::wrapping_add)
    });
    let Ok(rhs) = PackedRhs::pack(&b, &zero_points) else {
        assert!(n == 0 || k == 0);
        return;
    };
    let epilogue = I32Epilogue::with_bias(&bias);
    if input.packed {
        let lhs = PackedLhs::pack(&a).expect("any matrix");
        assert_eq!(gemm(&lhs, a_zero, &rhs, &epilogue).expect("operands that fit"), expected);
    }
    let mut out = matrix::<i8>(input, [m, n], 2).mapv(i32::from);
    let columns: Vec<B> = b.t().iter().copied().collect();
    let columns = Array2::from_shape_vec((n, k), columns).expect("as many codes");
    let from_rows = PackedRhs::from_rows(&columns, &zero_points).expect("the same matrix");
    gemm_into(&a, a_zero, &from_rows, &epilogue, &mut out, &mut Workspace::new()).expect("operands that fit");
    assert_eq!(out, expected);
    // Strided outputs; what is between them stays.
    let mut whole = Array2::from_elem((2 * m + 1, 2 * n + 1), i32::MIN);
    gemm_into(&a, a_zero, &rhs, &epilogue, &mut whole.slice_mut(s![1..;2, 1..;2]), &mut Workspace::new())
        .expect("operands that fit");
    assert_eq!(whole.slice(s![1..;2, 1..;2]), expected);
    assert!(whole.slice(s![..;2, ..]).iter().chain(whole.slice(s![.., ..;2])).all(|&x| x == i32::MIN));
}

fuzz_target!(|input: Input| match input.types % 4 {
    0 => check::<u8, i8>(&input),
    1 => check::<i8, i8>(&input),
    2 => check::<u8, u8>(&input),
    _ => check::<i8, u8>(&input),
});
