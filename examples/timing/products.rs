//! Integer matrix products, dynamically quantized linear layers, and a float product.

use std::hint::black_box;
use std::io::Write;

use ndarray::{Array1, Array2, Array4, Axis};
use ndarray_quant::gemm::{self, Epilogue, I32Epilogue, Int8, PackedRhs, RequantizeEpilogue, Workspace, gemm_into};
use ndarray_quant::graph::{Arena, GraphBuilder};
use ndarray_quant::{
    BinaryTensor, Element, Granularity, I2, I4, QParams, QTensor,
    nn::{Arithmetic, BinaryLinear, Linear, LinearNBits, Window},
};

use crate::data::uniform;
use crate::program::Result;
use crate::timer::{Timer, Work};

/// Rows, depth and columns of a product.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    m: usize,
    k: usize,
    n: usize,
}

impl Shape {
    /// One per line of three numbers.
    pub(crate) fn parse_lines(text: &str) -> Result<Vec<Shape>> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(i, line)| Self::parse(line).ok_or_else(|| bad_line(i + 1, line))).collect()
    }

    fn parse(line: &str) -> Option<Shape> {
        let numbers: Vec<usize> = line.split_whitespace().map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let &[m, k, n] = numbers.as_slice() else { return None };
        Some(Shape { m, k, n })
    }
}

fn bad_line(number: usize, line: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("line {number} of the standard input: expected `ROWS DEPTH COLUMNS`, found `{line}`").into()
}

/// Times the micro-kernel on operands in registers: the roof of every product.
pub(crate) fn peak(timer: &mut Timer<'_, impl Write>) -> Result {
    const ROUNDS: usize = 10_000;
    let macs = gemm::peak_macs(ROUNDS) as usize;
    timer.case("peak_i8", &[], Work::Operations(2 * macs), || {
        Ok(|| {
            black_box(gemm::peak_macs(black_box(ROUNDS)));
            Ok(())
        })
    })
}

/// Times all products of a shape.
pub(crate) fn run(timer: &mut Timer<'_, impl Write>, shape: Shape) -> Result {
    let Shape { m, k, n } = shape;
    let mut case = |op, prepare: fn(Shape) -> ndarray_quant::Result<Call>| {
        timer.case(op, &[m, k, n], Work::Operations(2 * m * k * n), || prepare(shape))
    };
    case("gemm_u8s8_i32", |s| product(lhs_unsigned(s), 128, rhs(s)?, I32Epilogue::new()))?;
    case("gemm_s8s8_i32", |s| product(lhs_signed(s), 0, rhs(s)?, I32Epilogue::new()))?;
    case("gemm_u8s8_u8_requant", |s| product(lhs_unsigned(s), 128, rhs(s)?, requantize(s)?))?;
    case("linear_dynamic_f32", linear_dynamic)?;
    case("linear_w4_g32", |s| linear_nbits::<I4>(s, 32))?;
    case("linear_w2_g32", |s| linear_nbits::<I2>(s, 32))?;
    case("linear_ternary", |s| linear_nbits::<I2>(s, s.k))?;
    case("linear_binary", linear_binary)?;
    case("gemm_f32", float_product)?;
    let bytes = n * k / 2 + n * k.div_ceil(32) * size_of::<u16>();
    timer.case("read_w4_g32", &[m, k, n], Work::Bytes(bytes), || Ok(read(bytes)))
}

/// A timed operation, with its operands and results.
type Call = Box<dyn FnMut() -> ndarray_quant::Result<()>>;

fn lhs_unsigned(s: Shape) -> Array2<u8> {
    uniform((s.m, s.k), u8::MIN..=u8::MAX)
}

fn lhs_signed(s: Shape) -> Array2<i8> {
    uniform((s.m, s.k), -127..=127)
}

fn rhs(s: Shape) -> ndarray_quant::Result<PackedRhs<i8>> {
    PackedRhs::pack(&uniform((s.k, s.n), -127..=127), &[0])
}

fn product<A: Int8, E: Epilogue + 'static>(
    a: Array2<A>,
    a_zero: A,
    b: PackedRhs<i8>,
    epilogue: E,
) -> ndarray_quant::Result<Call> {
    let mut out = Array2::from_elem((a.nrows(), b.ncols()), E::Out::default());
    let mut workspace = Workspace::new();
    Ok(Box::new(move || gemm_into(black_box(&a), a_zero, &b, &epilogue, &mut out, &mut workspace)))
}

/// To `u8`, with a scale per output channel.
fn requantize(s: Shape) -> ndarray_quant::Result<RequantizeEpilogue<u8>> {
    let to = QParams::<u8>::per_tensor(0.5, 128)?;
    RequantizeEpilogue::new(0.02, &vec![0.01; s.n], None, &to, Arithmetic::F32)
}

/// Float in, float out, the input quantized on the way.
fn linear_dynamic(s: Shape) -> ndarray_quant::Result<Call> {
    let weights = QTensor::new(
        uniform((s.n, s.k), -127..=127),
        QParams::<i8>::per_axis(Axis(0), Array1::from_elem(s.n, 0.01), None)?,
    )?;
    let layer = Linear::new(&weights, None)?;
    let (x, mut out) = (uniform((s.m, s.k), -2.0..2.0), Array2::zeros((s.m, s.n)));
    let mut workspace = Workspace::new();
    Ok(Box::new(move || layer.forward_dynamic_into(black_box(&x), &mut out, &mut workspace)))
}

/// Float in, float out, weights of few bits in groups with scales of `f16`, the input quantized on the way.
fn linear_nbits<T: Element<Code = i8>>(s: Shape, group: usize) -> ndarray_quant::Result<Call> {
    let scale = Array2::from_elem((s.n, s.k.div_ceil(group)), 0.125);
    let params = QParams::<T>::new(Granularity::per_group(Axis(1), group), scale, None)?;
    // From -1 on, 2-bit codes are ternary.
    let codes = uniform((s.n, s.k), T::MIN.max(-8) as i8..=T::MAX as i8);
    let layer = LinearNBits::new(&QTensor::from_codes(codes, params)?, None)?;
    let (x, mut out) = (uniform((s.m, s.k), -2.0..2.0), Array2::zeros((s.m, s.n)));
    let mut workspace = Workspace::new();
    Ok(Box::new(move || layer.forward_dynamic_into(black_box(&x), &mut out, &mut workspace)))
}

/// Reads as many bytes as packed weights have with their scales: the roof of one row.
fn read(bytes: usize) -> Call {
    let words = vec![1u64; bytes / size_of::<u64>()];
    Box::new(move || {
        black_box(black_box(&words).iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        Ok(())
    })
}

/// Signs in, float out, weights of one bit.
fn linear_binary(s: Shape) -> ndarray_quant::Result<Call> {
    let layer = BinaryLinear::new(&uniform((s.n, s.k), -1.0..1.0), None)?;
    let x = BinaryTensor::sign(&uniform((s.m, s.k), -1.0f32..1.0))?;
    let (mut out, mut workspace) = (Array2::zeros((s.m, s.n)), Workspace::new());
    Ok(Box::new(move || layer.forward_into(black_box(&x), &mut out, &mut workspace)))
}

/// A float network of one pointwise convolution, in which the rows are the pixels of one image.
fn float_product(s: Shape) -> ndarray_quant::Result<Call> {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, s.k, s.m, 1])?;
    let y = g.conv("y", x, &uniform((s.n, s.k, 1, 1), -1.0..1.0), None, Window::new(), 1)?;
    let network = g.build(&[y])?.compile()?;
    let x: Array4<f32> = uniform((1, s.m, 1, s.k), -2.0..2.0);
    let x = x.permuted_axes([0, 3, 1, 2]).into_dyn();
    let mut arena = Arena::new();
    Ok(Box::new(move || network.run_many(&[black_box(&x).view()], &mut arena).map(|y| drop(black_box(y)))))
}
