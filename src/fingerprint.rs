//! A fingerprint of the results of this crate, to compare machines.
//!
//! Computation on codes gives the same bits on every instruction set, architecture and number of threads, with and
//! without `std`. [`fingerprint`] is a receipt for this: a hash over the outputs of a fixed battery of computations. Two
//! machines, builds or compilers that return the same number agree on every output of the battery.
//!
//! ```
//! use ndarray_quant::fingerprint::{fingerprint, parts};
//! println!("{:016x}", fingerprint());
//! for (name, hash) in parts() {
//!     println!("{name}: {hash:016x}"); // tells where two machines differ
//! }
//! ```
//!
//! The number is a property of a version of this crate: a release that changes results or the battery changes it. The
//! tests hold its value, so `cargo test fingerprint` checks a machine.
//!
//! # What is computed
//!
//! | part | content |
//! |---|---|
//! | `conversions` | schemes of every element type and convention, per tensor, axis and group; quantize, dequantize, fake-quantize; half precision |
//! | `fixed point` | multipliers in every arithmetic |
//! | `products` | products of `u8` and `i8`, with zero points, to `i32`, `f32` and codes |
//! | `layers` | linear layers and convolutions, grouped, depthwise, strided and dilated, on codes and dynamic |
//! | `operators` | every other operator on codes |
//! | `observers` | the ranges of the observers, without `Entropy`, which takes logarithms of the platform |
//! | `network` | a small convolutional network on codes and with dynamic ranges |
//! | `weights of few bits` | each method of [`ptq`](crate::ptq), and the statistics that they read |
//!
//! Products of floats are not part of it: their order of summation differs. Tables of functions take `exp` and `tanh` from the
//! platform: where two machines differ in `operators` alone, look there first.
//!
//! # How
//!
//! Inputs come from SplitMix64 ([Steele, Lea and Flood, 2014](https://doi.org/10.1145/2660193.2660195)), seeded with the
//! position of the part in the table. Shapes are ragged: no multiple of a register, and large enough for every kernel and
//! for several threads. The hash is FNV-1a with 64 bits, over the little-endian bytes of shapes and outputs; every NaN
//! counts as the same. It detects differences and is no protection against forgery. The whole hashes the
//! hashes of its parts.

use alloc::vec::Vec;

use ndarray::{Array, Array1, ArrayD, ArrayRef, Axis, Dimension, IntoDimension};

use crate::compat::gemmlowp::FixedPointRounding;
use crate::element::{Code, HalfFloat};
use crate::gemm::{DequantizeEpilogue, I32Epilogue, Int8, PackedLhs, PackedRhs, RequantizeEpilogue, gemm};
use crate::graph::{GraphBuilder, Recipe, TensorRecipe};
use crate::half::{HalfCast, Overflow, bf16, f16};
use crate::nn::{Arithmetic, Conv2d, Linear, Multiplier, Output, Padding, Window};
use crate::observer::{MinMax, MovingAverage, Mse, Observer, Percentile};
use crate::ops::{
    Add, AveragePool, Concat, GlobalAveragePool, Lookup, MaxPool, Mul, NearestMode, Pad, Resize, Softmax, conv_integer,
    matmul_integer,
};
use crate::ptq::{AdaRound, Awq, CoordinateDescent, Gptq, Hadamard, Hqq, InputStatistics, SmoothQuant};
use crate::{Convention, Element, I2, I4, QParams, QTensor, Result, Scheme, U2, U4};

type Part = fn(&mut Inputs, &mut Hash) -> Result<()>;

const PARTS: [(&str, Part); 8] = [
    ("conversions", conversions),
    ("fixed point", fixed_point),
    ("products", products),
    ("layers", layers),
    ("operators", operators),
    ("observers", observers),
    ("network", network),
    ("weights of few bits", weights_of_few_bits),
];

/// Returns the hash of the battery; see the [module](self).
pub fn fingerprint() -> u64 {
    let mut hash = Hash::new();
    for (_, part) in parts() {
        hash.bytes(&part.to_le_bytes());
    }
    hash.0
}

/// Returns the name and the hash of each part of the battery.
///
/// ```
/// use ndarray_quant::fingerprint::parts;
/// assert_eq!(parts().len(), 8);
/// assert_eq!(parts()[0].0, "conversions");
/// ```
pub fn parts() -> Vec<(&'static str, u64)> {
    let hash = |(seed, &(name, part)): (u64, &(&'static str, Part))| {
        let mut hash = Hash::new();
        part(&mut Inputs(seed), &mut hash).expect("the inputs of the battery are valid");
        (name, hash.0)
    };
    (0..).zip(&PARTS).map(hash).collect()
}

/// FNV-1a with 64 bits.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn array<A, D: Dimension, const N: usize>(&mut self, x: &ArrayRef<A, D>, bytes: impl Fn(&A) -> [u8; N]) {
        for &len in x.shape() {
            self.bytes(&(len as u64).to_le_bytes());
        }
        for x in x {
            self.bytes(&bytes(x));
        }
    }

    fn floats<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) {
        self.array(x, |x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }.to_le_bytes());
    }

    fn codes<C: Code, D: Dimension>(&mut self, x: &ArrayRef<C, D>) {
        self.array(x, |x| x.to_i32().to_le_bytes());
    }

    fn tensor<T: Element, D: Dimension>(&mut self, x: &QTensor<T, D>) {
        self.params(x.params());
        self.codes(&x.unpacked_codes());
    }

    fn params<T: Element>(&mut self, params: &QParams<T>) {
        self.floats(params.scale());
        if let Some(zero_point) = params.zero_point() {
            self.codes(zero_point);
        }
    }
}

/// SplitMix64.
struct Inputs(u64);

impl Inputs {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A multiple of 2⁻²² in `-2..2`.
    fn float(&mut self) -> f32 {
        ((self.next() >> 40) as i32 - (1 << 23)) as f32 / (1 << 22) as f32
    }

    fn floats<S: IntoDimension>(&mut self, shape: S) -> Array<f32, S::Dim> {
        Array::from_shape_simple_fn(shape.into_dimension(), || self.float())
    }

    /// Floats with special values among them: ties of a scale of 1/64, zeros, subnormals, infinities and NaN.
    fn special<S: IntoDimension>(&mut self, shape: S) -> Array<f32, S::Dim> {
        Array::from_shape_simple_fn(shape.into_dimension(), || match self.next() % 16 {
            0 => -0.0,
            1 => f32::from_bits(self.next() as u32 >> 9),
            2 => [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX][self.next() as usize % 4],
            3..6 => ((self.next() % 256) as f32 - 127.5) / 64.0,
            _ => self.float(),
        })
    }

    fn codes<T: Element, S: IntoDimension>(&mut self, shape: S) -> Array<T::Code, S::Dim> {
        Array::from_shape_simple_fn(shape.into_dimension(), || T::Code::from_i32(self.next() as i32))
    }

    /// Codes of `T` with these parameters, per tensor.
    fn tensor<T: Int8, S: IntoDimension>(
        &mut self,
        shape: S,
        scale: f32,
        zero_point: i32,
    ) -> Result<QTensor<T, S::Dim>> {
        QTensor::from_codes(self.codes::<T, S>(shape), QParams::per_tensor(scale, T::from_i32(zero_point))?)
    }
}

const CONVENTIONS: [Convention; 3] = [Convention::Onnx, Convention::Torch, Convention::TfLite];

const ARITHMETIC: [Arithmetic; 4] = [
    Arithmetic::F32,
    Arithmetic::F64,
    Arithmetic::FixedPoint(FixedPointRounding::Single),
    Arithmetic::FixedPoint(FixedPointRounding::Double),
];

fn conversions(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    fn of<T: Element>(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
        let (x, special) = (inputs.floats((7, 96)), inputs.special((13, 83)));
        for convention in CONVENTIONS {
            for scheme in [Scheme::<T>::symmetric(), Scheme::asymmetric()] {
                let scheme = scheme.with_convention(convention);
                for scheme in [scheme, scheme.per_axis(Axis(0)), scheme.per_group(Axis(1), 32)] {
                    let quantized = scheme.quantize(&x)?;
                    hash.tensor(&quantized);
                    hash.floats(&quantized.dequantize());
                    hash.floats(&quantized.params().fake_quantize(&x)?);
                }
            }
            let params = QParams::<T>::per_tensor(1.0 / 64.0, T::Code::from_i32(1))?.with_convention(convention);
            hash.tensor(&params.quantize(&special)?);
            hash.floats(&params.fake_quantize(&special)?);
        }
        Ok(())
    }
    fn half<H: HalfFloat>(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
        let x = inputs.special(997);
        for overflow in [Overflow::Saturate, Overflow::Infinity] {
            let half = HalfCast::<H>::new(overflow).quantize(&x)?;
            hash.floats(&half.mapv(crate::Float::to_f32));
        }
        Ok(())
    }
    of::<u8>(inputs, hash)?;
    of::<i8>(inputs, hash)?;
    of::<u16>(inputs, hash)?;
    of::<i16>(inputs, hash)?;
    of::<U4>(inputs, hash)?;
    of::<I4>(inputs, hash)?;
    of::<U2>(inputs, hash)?;
    of::<I2>(inputs, hash)?;
    half::<f16>(inputs, hash)?;
    half::<bf16>(inputs, hash)
}

fn fixed_point(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    let acc = Array1::from_shape_simple_fn(499, || (inputs.next() as i32) >> (inputs.next() % 31));
    for scale in [0.000_37, 0.11, 1.0, 7.3] {
        for arithmetic in ARITHMETIC {
            let multiplier = Multiplier::new(scale, 0.0173, 0.0291, arithmetic)?;
            hash.codes(&acc.mapv(|acc| multiplier.requantize::<i8>(acc, -3)));
            hash.codes(&acc.mapv(|acc| multiplier.requantize::<i16>(acc, 5)));
        }
    }
    Ok(())
}

fn products(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    fn of<A: Int8, B: Int8>(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
        // The last one is split over threads, and deep enough for tiles of AMX.
        for (m, k, n) in [(1, 1, 1), (1, 67, 130), (5, 33, 17), (17, 3, 65), (131, 200, 97)] {
            let (a, b) = (inputs.codes::<A, _>((m, k)), inputs.codes::<B, _>((k, n)));
            let zero_points = inputs.codes::<B, _>(n).into_raw_vec_and_offset().0;
            let scales: Vec<f32> = (0..n).map(|_| inputs.float().abs() * 0.01 + 0.001).collect();
            let bias: Vec<f32> = (0..n).map(|_| inputs.float()).collect();
            hash.codes(&matmul_integer(&a, A::from_i32(77), &b, &zero_points)?);
            let b = PackedRhs::pack(&b, &zero_points)?;
            let packed = PackedLhs::pack(&a)?;
            hash.codes(&gemm(&packed, A::from_i32(3), &b, &I32Epilogue::with_bias(&alloc::vec![-1234; n]))?);
            hash.floats(&gemm(&a, A::from_i32(3), &b, &DequantizeEpilogue::new(&[0.03], &scales, Some(&bias))?)?);
            for arithmetic in ARITHMETIC {
                let to = QParams::<u8>::per_tensor(1.7, 19)?;
                let epilogue = RequantizeEpilogue::new(0.03, &scales, None, &to, arithmetic)?;
                hash.codes(&gemm(&a, A::from_i32(3), &b, &epilogue)?);
            }
        }
        Ok(())
    }
    of::<u8, i8>(inputs, hash)?;
    of::<i8, i8>(inputs, hash)?;
    of::<u8, u8>(inputs, hash)?;
    of::<i8, u8>(inputs, hash)
}

fn layers(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    let weights = Scheme::<i8>::symmetric().narrow_range().per_axis(Axis(0)).quantize(&inputs.floats((29, 53)))?;
    let layer = Linear::new(&weights, Some(&inputs.floats(29)))?;
    let x = inputs.tensor::<u8, _>((11, 53), 0.02, 131)?;
    for arithmetic in ARITHMETIC {
        let to = Output::to(&QParams::<i8>::per_tensor(0.31, -7)?).relu().with_arithmetic(arithmetic);
        hash.tensor(&layer.forward(&x, &to)?);
    }
    hash.floats(&layer.forward_dequantize(&x)?);
    let x = inputs.floats((11, 53));
    hash.floats(&layer.forward_dynamic(&x)?);
    hash.floats(&layer.forward_dynamic_per_row(&x)?);

    let same = Window::new().with_padding(Padding::Same);
    let convolutions = [
        ([23, 3, 3, 19], 1, same),
        ([24, 3, 3, 5], 4, same.with_strides([2, 2])),
        ([70, 3, 3, 1], 70, same),
        ([70, 5, 5, 1], 70, same.with_strides([2, 1])),
        ([33, 3, 2, 1], 33, same.with_dilations([2, 3])),
        ([65, 1, 1, 40], 1, Window::new()),
    ];
    for ([out, height, width, depth], groups, window) in convolutions {
        let weights = inputs.floats((out, height, width, depth));
        let weights = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&weights)?;
        let layer = Conv2d::new(&weights, Some(&inputs.floats(out)), &window, groups)?;
        let x = inputs.tensor::<u8, _>((2, 15, 13, depth * groups), 0.015, 97)?;
        for arithmetic in ARITHMETIC {
            let to = Output::to(&QParams::<u8>::per_tensor(0.13, 101)?).relu6().with_arithmetic(arithmetic);
            hash.tensor(&layer.forward(&x, &to)?);
        }
        hash.floats(&layer.forward_dequantize(&x)?);
        hash.floats(&layer.forward_dynamic(&inputs.floats((2, 15, 13, depth * groups)))?);
        let weights = inputs.codes::<u8, _>((out, height, width, depth));
        hash.codes(&conv_integer(x.codes(), 97, &weights, &[130], &window, groups)?);
    }
    Ok(())
}

fn operators(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    fn of<T: Int8>(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
        let a = inputs.tensor::<T, _>((2, 11, 9, 37), 0.021, 100)?;
        let b = inputs.tensor::<T, _>((2, 11, 9, 37), 0.017, 90)?;
        let y = QParams::<T>::per_tensor(0.033, T::from_i32(83))?;
        let window = Window::new().with_strides([2, 1]).with_padding(Padding::Same);
        for arithmetic in ARITHMETIC {
            let to = Output::to(&y).with_arithmetic(arithmetic);
            hash.tensor(&Mul::new(a.params(), b.params(), &to)?.forward(&a, &b)?);
            // Sums and means have no arithmetic in `f64`.
            if arithmetic == Arithmetic::F64 {
                continue;
            }
            hash.tensor(&Add::new(a.params(), b.params(), &to)?.forward(&a, &b)?);
            // A mean in fixed point keeps the parameters.
            let y = if arithmetic == Arithmetic::F32 { &y } else { a.params() };
            let to = Output::to(y).with_arithmetic(arithmetic);
            for include in [false, true] {
                let pool = AveragePool::new(a.params(), [3, 2], &window, &to)?.count_include_pad(include);
                hash.tensor(&pool.forward(&a)?);
            }
            hash.tensor(&GlobalAveragePool::new(a.params(), &to)?.forward(&a)?);
        }
        hash.tensor(&MaxPool::new([3, 3], &window)?.forward(&a)?);
        let (x, y) = (a.params(), &y);
        let tables = [
            Lookup::requantize(x, y)?,
            Lookup::sigmoid(x, y)?,
            Lookup::tanh(x, y)?,
            Lookup::silu(x, y)?,
            Lookup::hard_swish(x, y)?,
            Lookup::gelu_tanh(x, y)?,
            Lookup::leaky_relu(x, y, 0.1)?,
        ];
        for table in tables {
            hash.tensor(&table.forward(&a)?);
        }
        let scores = inputs.tensor::<T, _>((19, 101), 0.1, 100)?;
        hash.tensor(
            &Softmax::new(scores.params(), &QParams::per_tensor(1.0 / 256.0, T::default())?)?.forward(&scores)?,
        );
        for axis in 0..4 {
            hash.tensor(&Concat::new(Axis(axis), &[a.params(), b.params()], y)?.forward(&[&a, &b])?);
        }
        hash.tensor(&Pad::new(x, &[(0, 1), (2, 0), (1, 1), (0, 3)])?.forward(&a)?);
        let modes = [
            NearestMode::AsymmetricFloor,
            NearestMode::HalfPixelPreferFloor,
            NearestMode::HalfPixelPreferCeil,
            NearestMode::AlignCornersPreferCeil,
        ];
        for mode in modes {
            hash.tensor(&Resize::new([17, 5], mode).forward(&a)?);
        }
        Ok(())
    }
    of::<u8>(inputs, hash)?;
    of::<i8>(inputs, hash)
}

fn observers(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    fn of(mut observer: impl Observer, inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
        for rows in [1, 17, 40] {
            observer.observe(&inputs.floats((rows, 29)))?;
        }
        hash.params(&Scheme::<u8>::asymmetric().params(&observer)?);
        hash.params(&Scheme::<i8>::symmetric().params(&observer)?);
        Ok(())
    }
    of(MinMax::per_tensor(), inputs, hash)?;
    of(MovingAverage::per_tensor(), inputs, hash)?;
    of(Percentile::per_tensor(), inputs, hash)?;
    of(Mse::per_tensor(), inputs, hash)
}

fn network(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    let same = Window::new().with_padding(Padding::Explicit([1, 1, 1, 1]));
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3, 16, 16])?;
    let stem =
        g.conv("stem", x, &inputs.floats((16, 3, 3, 3)), Some(&inputs.floats(16)), same.with_strides([2, 2]), 1)?;
    let stem = g.relu6("stem.relu6", stem)?;
    let depthwise = g.conv("depthwise", stem, &inputs.floats((16, 1, 3, 3)), None, same, 16)?;
    let depthwise = g.relu("depthwise.relu", depthwise)?;
    let pointwise = g.conv("pointwise", depthwise, &inputs.floats((16, 16, 1, 1)), None, Window::new(), 1)?;
    let sum = g.add("sum", pointwise, stem)?;
    let pooled = g.max_pool("pooled", sum, [2, 2], Window::new().with_strides([2, 2]))?;
    let mean = g.global_average_pool("mean", pooled)?;
    let flat = g.flatten("flat", mean)?;
    let scores = g.linear("scores", flat, &inputs.floats((10, 16)), Some(&inputs.floats(10)))?;
    let y = g.softmax("y", scores, 1)?;
    let graph = g.build(&[y])?.simplify()?;

    let dynamic = Recipe::dynamic_range(&graph)?;
    let x = inputs.floats((5, 3, 16, 16));
    let outputs: ArrayD<f32> = graph.quantize(&dynamic)?.run(&x)?;
    hash.floats(&outputs);

    // Ranges are given, not calibrated: calibration runs the network in floats.
    let mut full_integer = dynamic;
    let nodes = graph.nodes().iter().map(|node| node.output.clone());
    for name in graph.inputs().map(Into::into).chain(nodes) {
        let limit = if name == "y" { (0.0, 1.0) } else { (-9.0, 7.0) };
        full_integer.tensors.insert(name, TensorRecipe::activation(limit.0, limit.1));
    }
    hash.floats(&graph.quantize(&full_integer)?.run(&x)?);
    Ok(())
}

fn weights_of_few_bits(inputs: &mut Inputs, hash: &mut Hash) -> Result<()> {
    // Wider than the blocks of columns and, at several threads, than those of rows.
    let (weights, sources) = (inputs.floats((37, 150)), inputs.floats((4, 150)));
    let mut x = inputs.floats((60, 150));
    for (mut row, n) in x.rows_mut().into_iter().zip(0..) {
        row.scaled_add(2.0, &sources.row(n % 4));
    }
    let mut statistics = InputStatistics::new(150);
    statistics.observe(&x)?;
    let hessian = statistics.second_moments();
    hash.array(&hessian, |x| x.to_bits().to_le_bytes());
    hash.array(&statistics.mean_abs(), |x| x.to_bits().to_le_bytes());

    let symmetric = Scheme::<I2>::symmetric().per_axis(Axis(0));
    let in_groups = Scheme::<U4>::asymmetric().per_group(Axis(1), 20);
    let (ordered, learned) = (Gptq::new().activation_order(), AdaRound::new().with_iterations(25));
    hash.tensor(&Gptq::new().quantize(&weights, &in_groups, &hessian)?);
    hash.tensor(&ordered.quantize(&weights, &symmetric, &hessian)?);
    hash.tensor(&CoordinateDescent::new().quantize(&weights, &in_groups, &hessian)?);
    hash.tensor(&learned.quantize(&weights, &symmetric, &hessian)?);
    hash.tensor(&Hqq::new().quantize(&weights, &in_groups)?);
    hash.floats(&Awq::new().factors(&weights, &in_groups, &statistics)?);
    hash.floats(&SmoothQuant::new().with_alpha(0.7)?.factors(&weights, &statistics.abs_max())?);
    hash.floats(&Hadamard::new(150, 1).rotate(&x)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of this version: the same on every machine, instruction set, number of threads and set of features.
    const EXPECTED: u64 = 0x290f_ce66_c5ce_6c60;

    #[test]
    fn fingerprint_is_that_of_every_machine() {
        let found = fingerprint();
        #[cfg(feature = "std")]
        std::println!("fingerprint {found:016x} on {}", crate::gemm::kernel_name());
        assert_eq!(found, EXPECTED, "{found:016x}, expected {EXPECTED:016x}, of the parts {:016x?}", parts());
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn fingerprint_is_that_of_every_number_of_threads() {
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(fingerprint), EXPECTED, "{threads} threads");
        }
    }
}
