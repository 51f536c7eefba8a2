//! Weights in groups, of `MatMulNBits` and of GGUF's blocks, against the product with the dequantized weights.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ndarray::{Array, Array1, Array2, Array3, Dimension, Ix2, s};
use ndarray_quant::block::{BlockTensor, IntegerBlocks, from_matmul_nbits, ggml};
use ndarray_quant::gemm::{Int8, Workspace};
use ndarray_quant::nn::LinearNBits;
use ndarray_quant::{Element, U2, U4};

#[derive(Arbitrary, Debug)]
struct Input {
    format: u8,
    rows: u8,
    depth: u16,
    outputs: u8,
    group: u8,
    zero_points: bool,
    bias: bool,
    /// Scales and inputs are multiples of this number.
    step: f32,
    bytes: Vec<u8>,
}

impl Input {
    /// Bytes of the input, repeated.
    fn bytes<D: Dimension>(&self, shape: D, offset: usize) -> Array<u8, D> {
        let mut at = offset;
        Array::from_shape_simple_fn(shape, || {
            at += 1;
            self.bytes.get(at % self.bytes.len().max(1)).map_or(0, |byte| byte.wrapping_add((at / 64) as u8))
        })
    }

    fn floats<D: Dimension>(&self, shape: D, offset: usize) -> Array<f32, D> {
        self.bytes(shape, offset).mapv(|byte| f32::from(byte as i8) * self.step)
    }

    /// A layer computes the product with `weights`, whatever the strides. A weight is the sum of parts of this magnitude at most.
    fn check(&self, layer: &LinearNBits, weights: &Array2<f32>, parts: f64, bias: Option<&Array1<f32>>) {
        let (outputs, depth) = weights.dim();
        let rows = usize::from(self.rows % 12);
        let x = self.floats(Ix2(rows, 2 * depth), 5).slice_move(s![.., ..;2]);
        let mut y = Array2::from_elem((outputs, rows), f32::NAN);
        layer.forward_into(&x, &mut y.view_mut().reversed_axes(), &mut Workspace::new()).expect("shapes that fit");
        for ((o, i), &y) in y.indexed_iter() {
            let terms = x.row(i).into_iter().zip(weights.row(o)).map(|(&x, &w)| f64::from(x) * f64::from(w));
            let terms = terms.chain(bias.map(|bias| f64::from(bias[o])));
            let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, all), term| (sum + term, all + term.abs()));
            // Offsets of a group are added apart, so parts of weights cancel.
            let inputs: f64 = x.row(i).iter().map(|x| f64::from(x.abs())).sum();
            let error =
                1e-4 * (magnitude + f64::from(self.step.abs()).powi(2) * 1e4 * depth as f64) + 1e-6 * parts * inputs;
            assert!((f64::from(y) - sum).abs() <= error + 1e-30 || magnitude > 1e30, "{y}, expected {sum}");
        }
        let dynamic = layer.forward_dynamic(&x).expect("finite inputs");
        assert_eq!(dynamic, layer.forward_dynamic(&x.as_standard_layout()).expect("finite inputs"));
    }

    fn n_bits<T: Element<Code = u8>>(&self)
    where
        T::Code: Int8,
    {
        let [n, k] = [usize::from(self.outputs % 40), usize::from(self.depth % 300)];
        let per_byte = 8 / T::BITS as usize;
        let bytes = usize::from(self.group % 24);
        let blocks = k.div_ceil((bytes * per_byte).max(1));
        let packed: Array3<u8> = self.bytes(ndarray::Ix3(n, blocks, bytes), 0);
        let scales = self.floats(Ix2(n, blocks), 1);
        let zero_points = self.zero_points.then(|| self.bytes(Ix2(n, blocks.div_ceil(per_byte)), 2));
        let Ok(weights) = from_matmul_nbits::<T>(&packed, &scales, zero_points.as_deref(), k) else {
            assert!(bytes == 0);
            return;
        };
        let size = bytes * per_byte;
        let code =
            |bytes: &[u8], i: usize| i32::from(bytes[i / per_byte]) >> (i % per_byte * T::BITS as usize) & T::MAX;
        let values = Array2::from_shape_fn((n, k), |(i, j)| {
            let row = packed.slice(s![i, j / size, ..]).to_vec();
            let zero = zero_points.as_ref().map_or(1 << (T::BITS - 1), |z| code(&z.row(i).to_vec(), j / size));
            (code(&row, j % size) - zero) as f32 * scales[[i, j / size]]
        });
        assert_eq!(weights.dequantize(), values);
        let bias = self.bias.then(|| self.floats(ndarray::Ix1(n), 3));
        let layer = LinearNBits::new(&weights, bias.as_deref()).expect("finite weights");
        self.check(&layer, &values, 0.0, bias.as_ref());
    }

    fn blocks<B: IntegerBlocks>(&self, has_offsets: bool) {
        let [n, k] = [usize::from(self.outputs % 20), usize::from(self.depth % 600)];
        let bytes = self.bytes(ndarray::Ix1(n * k.div_ceil(B::VALUES) * B::BYTES), 0).to_vec();
        let weights = BlockTensor::<B, _>::from_bytes((n, k), bytes).expect("as many bytes");
        let values = weights.dequantize();
        let layer = LinearNBits::from_blocks(&weights, None).expect("a matrix");
        // Scales of the file may be anything.
        if values.iter().all(|w| w.abs() < 1e3) {
            // A scale or an offset of `f16`, times a code or a number of 6 bits.
            let parts = if has_offsets { 65504.0 * 64.0 } else { 0.0 };
            self.check(&layer, &values, parts, None);
        } else {
            let _ = layer.forward_dynamic(&self.floats(Ix2(3, k), 5));
        }
    }
}

fuzz_target!(|input: Input| {
    if !input.step.is_finite() || !(1e-12..1e6).contains(&input.step.abs()) {
        return;
    }
    match input.format % 16 {
        0 => input.blocks::<ggml::Q4_0>(false),
        1 => input.blocks::<ggml::Q4_1>(true),
        2 => input.blocks::<ggml::Q5_0>(false),
        3 => input.blocks::<ggml::Q5_1>(true),
        4 => input.blocks::<ggml::Q8_0>(false),
        5 => input.blocks::<ggml::Q2_K>(true),
        6 => input.blocks::<ggml::Q3_K>(false),
        7 => input.blocks::<ggml::Q4_K>(true),
        8 => input.blocks::<ggml::Q5_K>(true),
        9 => input.blocks::<ggml::Q6_K>(false),
        10 => input.blocks::<ggml::TQ1_0>(false),
        11 => input.blocks::<ggml::TQ2_0>(false),
        12 | 13 => input.n_bits::<U4>(),
        14 => input.n_bits::<U2>(),
        _ => input.n_bits::<u8>(),
    }
});
