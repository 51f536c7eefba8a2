//! Tensors of blocks: shapes, strides, padding, and the weights of `MatMulNBits`.

use half::f16;
use ndarray::{Array, Array1, Array2, Array3, Axis, Ix1, array, s};
use ndarray_quant::block::{
    BlockFormat, BlockTensor, MXFP4, MXFP6E2M3, MXFP6E3M2, MXFP8E4M3, MXFP8E5M2, NF4, NVFP4, from_matmul_nbits, ggml,
};
use ndarray_quant::{Dequantize, Error, Quantize, U2, U4};
use proptest::prelude::*;

fn values(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((i * columns + j) as f32 * 0.37).sin() * (1.0 + i as f32))
}

/// Rows are independent of each other and of strides, and the last block is filled up with the last value.
fn rows<B: BlockFormat>(rows: usize, columns: usize) {
    let x = values(rows, columns);
    let q = BlockTensor::<B, _>::quantize(&x).expect("finite");
    let blocks = columns.div_ceil(B::VALUES);
    assert_eq!(q.as_bytes().len(), rows * blocks * B::BYTES, "{}", B::NAME);
    assert_eq!((q.shape(), q.len(), q.is_empty()), (&[rows, columns][..], rows * columns, rows * columns == 0));
    let mut expected = Array2::zeros((rows, columns));
    for (x, mut y) in x.rows().into_iter().zip(expected.rows_mut()) {
        let mut padded = x.to_vec();
        padded.resize(blocks * B::VALUES, x.last().copied().unwrap_or_default());
        padded.iter_mut().for_each(|x| *x /= q.tensor_scale());
        let (mut bytes, mut values) = (vec![0; blocks * B::BYTES], vec![0.0; padded.len()]);
        B::quantize_blocks(&padded, &mut bytes);
        B::dequantize_blocks(&bytes, &mut values);
        y.iter_mut().zip(values).for_each(|(y, value)| *y = value * q.tensor_scale());
    }
    assert_eq!(q.dequantize(), expected, "{}", B::NAME);
    let wide = Array2::from_shape_fn((rows, 2 * columns), |(i, j)| if j % 2 == 0 { x[[i, j / 2]] } else { 9e9 });
    assert_eq!(BlockTensor::<B, _>::quantize(&wide.slice(s![.., ..;2])).expect("finite"), q);
    assert_eq!(BlockTensor::<B, _>::quantize(&x.mapv(f64::from)).expect("finite"), q);
    assert_eq!(q.dequantize_as::<f16>(), expected.mapv(f16::from_f32));
    let mut transposed = Array2::<f64>::zeros((columns, rows));
    q.dequantize_into(&mut transposed.view_mut().reversed_axes()).expect("one shape");
    assert_eq!(transposed.t(), expected.mapv(f64::from));
    for (i, row) in expected.rows().into_iter().enumerate() {
        let mut y = Array1::<f32>::zeros(columns);
        if columns > 0 {
            q.dequantize_row_into(i, &mut y).expect("a row");
        }
        assert_eq!(y, row);
    }
    let view = BlockTensor::<B, _, _>::from_bytes((rows, columns), q.as_bytes()).expect("all blocks");
    assert_eq!(view.with_tensor_scale(q.tensor_scale()).dequantize(), expected);
}

#[test]
fn rows_of_any_length() {
    for (n, columns) in [(1, 1), (3, 31), (2, 32), (2, 257), (3, 1100), (0, 5), (2, 0)] {
        rows::<MXFP8E4M3>(n, columns);
        rows::<MXFP8E5M2>(n, columns);
        rows::<MXFP6E2M3>(n, columns);
        rows::<MXFP6E3M2>(n, columns);
        rows::<MXFP4>(n, columns);
        rows::<NVFP4>(n, columns);
        rows::<NF4>(n, columns);
        rows::<ggml::Q4_0>(n, columns);
        rows::<ggml::Q8_0>(n, columns);
        rows::<ggml::Q4_K>(n, columns);
        rows::<ggml::TQ1_0>(n, columns);
    }
}

#[test]
fn any_rank() {
    let scalar = ndarray::arr0(3.0f32);
    assert_eq!(BlockTensor::<ggml::Q8_0, _>::quantize(&scalar).expect("finite").as_bytes().len(), 34);
    let cube = Array3::from_shape_fn((2, 3, 64), |(i, j, k)| (i + j * k) as f32);
    let q = ggml::Q8_0.quantize(&cube).expect("finite");
    assert_eq!(Dequantize::<f32, _>::raw_dim(&q), cube.raw_dim());
    let slice = BlockTensor::<ggml::Q8_0, _>::quantize(&cube.index_axis(Axis(0), 1)).expect("finite");
    assert_eq!(slice.dequantize(), q.dequantize().index_axis(Axis(0), 1));
}

#[test]
fn errors_name_what_is_wrong() {
    let mut x = values(2, 40);
    x[[1, 3]] = f32::INFINITY;
    let error = BlockTensor::<MXFP4, _>::quantize(&x).expect_err("an infinity").to_string();
    assert_eq!(error, "x: expected finite values, found inf at index [1, 3]");
    let error = BlockTensor::<MXFP4, _, _>::from_bytes((2, 40), [0u8; 67]).expect_err("too few bytes").to_string();
    assert_eq!(error, "number of bytes of the blocks: expected 68, found 67");
    let huge = BlockTensor::<MXFP4, _, _>::from_bytes((usize::MAX / 2, 3), [0u8; 0]);
    assert!(matches!(huge, Err(Error::Shape(_))));
    let q = BlockTensor::<MXFP4, _>::quantize(&values(2, 40)).expect("finite");
    assert!(q.dequantize_into(&mut Array2::<f32>::zeros((2, 39))).is_err());
    assert!(q.dequantize_row_into(2, &mut Array1::<f32>::zeros(40)).is_err());
    assert!(q.dequantize_row_into(0, &mut Array1::<f32>::zeros(39)).is_err());
}

#[test]
fn weights_of_matmul_nbits_must_fit() {
    let packed = Array::from_elem((2, 2, 8), 0x21u8);
    let scales = array![[1.0f32, 2.0], [0.5, 4.0]];
    let w = from_matmul_nbits::<U4>(&packed, &scales, Some(&array![[0x51u8], [0x10]]), 20).expect("shapes fit");
    assert_eq!(w.shape(), [2, 20]);
    let y = w.dequantize();
    assert_eq!((y[[0, 0]], y[[0, 1]], y[[0, 16]], y[[1, 17]]), (0.0, 1.0, -8.0, 4.0));
    assert!(from_matmul_nbits::<U4>(&packed, &scales, None, 16).is_err());
    assert!(from_matmul_nbits::<U4>(&packed, &scales, None, 33).is_err());
    assert!(from_matmul_nbits::<U4>(&packed, &scales.slice(s![.., ..1]), None, 20).is_err());
    assert!(from_matmul_nbits::<U4>(&packed, &scales, Some(&array![[0u8, 0], [0, 0]]), 20).is_err());
    assert!(from_matmul_nbits::<i8>(&packed, &scales, None, 16).is_err());
    assert!(from_matmul_nbits::<U2>(&packed.slice(s![.., ..1, ..]), &scales.slice(s![.., ..1]), None, 32).is_ok());
    assert!(from_matmul_nbits::<U4>(&Array3::zeros((2, 2, 0)), &scales, None, 20).is_err());
    assert!(from_matmul_nbits::<U4>(&Array3::zeros((2, 0, 8)), &Array2::zeros((2, 0)), None, 0).is_ok());
}

proptest! {
    /// A block of a scale and codes decodes to their product, whatever the bytes.
    #[test]
    fn q8_0_by_places(bytes in prop::collection::vec(any::<u8>(), 34)) {
        let y = BlockTensor::<ggml::Q8_0, Ix1, _>::from_bytes(32, &bytes[..]).expect("a block").dequantize();
        let d = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for (y, &code) in y.iter().zip(&bytes[2..]) {
            let expected = f32::from(code as i8) * d;
            prop_assert!(*y == expected || y.is_nan() && expected.is_nan());
        }
    }
}
