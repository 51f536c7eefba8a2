//! Tests every micro-kernel against the naive sum.

use alloc::{format, vec, vec::Vec};

use ndarray::{Array2, s};
use proptest::prelude::*;

use super::*;
use crate::affine::Arithmetic;
use crate::error::{Error, ParamsError, ShapeError, ValueError};
use crate::qparams::QParams;
use crate::simd::Isa;

/// The reference: `Σ_k (a - a_zero) * (b - b_zero)`.
fn naive<A: Int8, B: Int8>(a: &ArrayRef2<A>, a_zero: A, b: &ArrayRef2<B>, b_zeros: &[B]) -> Array2<i32> {
    Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| {
        let b_zero = if b_zeros.len() == 1 { b_zeros[0] } else { b_zeros[j] };
        let term = |k| (a[[i, k]].to_i32() - a_zero.to_i32()) as i64 * (b[[k, j]].to_i32() - b_zero.to_i32()) as i64;
        (0..a.ncols()).map(term).sum::<i64>() as i32
    })
}

/// Codes that favour the extremes, where sums are largest and signs matter.
fn code<T: Int8>() -> impl Strategy<Value = T> {
    prop_oneof![2 => Just(T::MIN), 2 => Just(T::MAX), 1 => Just(0.clamp(T::MIN, T::MAX)), 5 => T::MIN..=T::MAX]
        .prop_map(T::from_i32)
}

fn matrix<T: Int8>(rows: usize, cols: usize) -> impl Strategy<Value = Array2<T>> {
    prop::collection::vec(code(), rows * cols).prop_map(move |v| Array2::from_shape_vec((rows, cols), v).unwrap())
}

fn case<A: Int8, B: Int8>() -> impl Strategy<Value = (Array2<A>, A, Array2<B>, Vec<B>)> {
    (0usize..=70, 0usize..=70, 0usize..=70).prop_flat_map(|(m, k, n)| {
        // Without zero points on the RHS, epilogues run on registers.
        let none = Just(vec![B::from_i32(128 - B::SIGN_OFFSET)]);
        let zeros = prop_oneof![none, prop::collection::vec(code(), 1), prop::collection::vec(code(), n.max(1))];
        (matrix(m, k), code(), matrix(k, n), zeros)
    })
}

fn agrees<A: Int8, B: Int8>((a, a_zero, b, b_zeros): (Array2<A>, A, Array2<B>, Vec<B>)) -> Result<(), TestCaseError> {
    let b_zeros = if b.ncols() == 0 { &b_zeros[..1] } else { &b_zeros[..] };
    let expected = naive(&a, a_zero, &b, b_zeros);
    // The same matrices with other strides.
    let a_reversed = a.slice(s![..;-1, ..;-1]).to_owned();
    let a_negative = a_reversed.slice(s![..;-1, ..;-1]);
    let a_columns = a.t().as_standard_layout().into_owned();
    let b_columns = b.t().as_standard_layout().into_owned();
    for isa in Isa::available() {
        let packed = PackedRhs::pack_for(isa, &b, b_zeros).unwrap();
        prop_assert_eq!(&gemm(&a, a_zero, &packed, &I32Epilogue::new()).unwrap(), &expected, "{:?}", isa);
        let packed = PackedRhs::pack_for(isa, &b_columns.t(), b_zeros).unwrap();
        let found = gemm(&a_columns.t(), a_zero, &packed, &I32Epilogue::new()).unwrap();
        prop_assert_eq!(&found, &expected, "{:?}, transposed", isa);
        let lhs = PackedLhs::pack_for(isa, &a_negative).unwrap();
        prop_assert_eq!(&gemm(&lhs, a_zero, &packed, &I32Epilogue::new()).unwrap(), &expected, "{:?}, packed", isa);
        let mut out = Array2::zeros((b.ncols(), a.nrows()));
        let mut transposed = out.view_mut().reversed_axes();
        gemm_into(&a_negative, a_zero, &packed, &I32Epilogue::new(), &mut transposed, &mut Workspace::new()).unwrap();
        prop_assert_eq!(&out.t(), &expected, "{:?}, strided", isa);
    }
    Ok(())
}

proptest! {
    #[test]
    fn u8_by_i8(case in case::<u8, i8>()) { agrees(case)?; }
    #[test]
    fn u8_by_u8(case in case::<u8, u8>()) { agrees(case)?; }
    #[test]
    fn i8_by_i8(case in case::<i8, i8>()) { agrees(case)?; }
    #[test]
    fn i8_by_u8(case in case::<i8, u8>()) { agrees(case)?; }

    /// A fused epilogue gives the bits of its formula on finished accumulators.
    #[test]
    fn epilogues((a, a_zero, b, b_zeros) in case::<u8, i8>(), fixed in 0..4u8) {
        let (m, n) = (a.nrows(), b.ncols());
        let b_zeros = if n == 0 { &b_zeros[..1] } else { &b_zeros[..] };
        let acc = naive(&a, a_zero, &b, b_zeros);
        let row_scale: Vec<f32> = (0..m).map(|i| 0.01 + i as f32 * 0.003).collect();
        let col_scale: Vec<f32> = (0..n).map(|j| 0.02 + j as f32 * 0.0007).collect();
        let bias: Vec<i32> = (0..n).map(|j| j as i32 * 37 - 500).collect();
        let float_bias: Vec<f32> = bias.iter().map(|&b| b as f32 * 0.1).collect();
        let arithmetic = match fixed {
            0 => Arithmetic::F32,
            1 => Arithmetic::F64,
            2 => Arithmetic::FixedPoint(crate::compat::gemmlowp::FixedPointRounding::Double),
            _ => Arithmetic::FixedPoint(crate::compat::gemmlowp::FixedPointRounding::Single),
        };
        let to = QParams::<u8>::per_tensor(0.3, 17).unwrap();
        let multiplier: Vec<_> =
            col_scale.iter().map(|&s| crate::nn::Multiplier::new(0.05, s, 0.3, arithmetic).unwrap()).collect();
        for isa in Isa::available() {
            let packed = PackedRhs::pack_for(isa, &b, b_zeros).unwrap();
            let dequantize = DequantizeEpilogue::new(&row_scale, &col_scale, Some(&float_bias)).unwrap();
            let expected = Array2::from_shape_fn((m, n), |(i, j)| {
                acc[[i, j]] as f32 * (row_scale[i] * col_scale[j]) + float_bias[j]
            });
            if m > 0 && n > 0 {
                prop_assert_eq!(&gemm(&a, a_zero, &packed, &dequantize).unwrap(), &expected);
            }
            let codes = RequantizeEpilogue::new(0.05, &col_scale, Some(&bias), &to, arithmetic).unwrap();
            let expected = Array2::from_shape_fn((m, n), |(i, j)| multiplier[j].requantize::<u8>(acc[[i, j]] + bias[j], 17));
            prop_assert_eq!(&gemm(&a, a_zero, &packed, &codes).unwrap(), &expected, "{:?}", isa);
            // Outputs with a row stride and transposed outputs, in one workspace.
            let (mut workspace, mut gaps, mut columns) =
                (Workspace::new(), Array2::from_elem((m, n + 3), 99), Array2::zeros((n, m)));
            gemm_into(&a, a_zero, &packed, &codes, &mut gaps.slice_mut(s![.., ..n]), &mut workspace).unwrap();
            gemm_into(&a, a_zero, &packed, &codes, &mut columns.view_mut().reversed_axes(), &mut workspace).unwrap();
            prop_assert_eq!(gaps.slice(s![.., ..n]), &expected, "{:?}, gaps", isa);
            prop_assert!(gaps.slice(s![.., n..]).iter().all(|&code| code == 99), "{:?}, gaps", isa);
            prop_assert_eq!(columns.t(), &expected, "{:?}, columns", isa);
        }
    }
}

/// Products of several blocks of rows and columns, which are read in place, copied or packed by different sets, equal
/// those of the simplest set.
#[test]
fn blocks() {
    fn check<A: Int8, B: Int8>(sizes: &[(usize, usize, usize)], a_zero: i32, b_zero: Option<i32>) {
        for &(m, k, n) in sizes {
            let a = Array2::from_shape_fn((m, k), |(i, j)| {
                A::from_i32((i * 31 + j * 7 + i * j) as u8 as i32 - A::SIGN_OFFSET)
            });
            let b = Array2::from_shape_fn((k, n), |(i, j)| {
                B::from_i32((i * 13 + j * 11 + i * j) as u8 as i32 - B::SIGN_OFFSET)
            });
            let a_zero = A::from_i32(a_zero - A::SIGN_OFFSET);
            let b_zero = [B::from_i32(b_zero.unwrap_or(128) - B::SIGN_OFFSET)];
            let a_columns = a.t().as_standard_layout().into_owned();
            let bias: Vec<i32> = (0..n).map(|j| j as i32 * 37 - 500).collect();
            let to = QParams::<u8>::per_tensor(0.3, 17).unwrap();
            let codes = RequantizeEpilogue::new(0.05, &vec![0.0002; n], Some(&bias), &to, Arithmetic::F32).unwrap();
            let packed = PackedRhs::pack_for(Isa::BASELINE, &b, &b_zero).unwrap();
            let expected = gemm(&a, a_zero, &packed, &I32Epilogue::new()).unwrap();
            let expected_codes = gemm(&a, a_zero, &packed, &codes).unwrap();
            for isa in Isa::available().skip(1) {
                let packed = PackedRhs::pack_for(isa, &b, &b_zero).unwrap();
                let case = format!("{isa:?}, {m} x {k} x {n}");
                assert_eq!(gemm(&a, a_zero, &packed, &I32Epilogue::new()).unwrap(), expected, "{case}");
                assert_eq!(
                    gemm(&a_columns.t(), a_zero, &packed, &codes).unwrap(),
                    expected_codes,
                    "{case}, transposed"
                );
                let lhs = PackedLhs::pack_for(isa, &a).unwrap();
                assert_eq!(gemm(&lhs, a_zero, &packed, &codes).unwrap(), expected_codes, "{case}, packed");
                let lhs = PackedLhs::pack_for(isa, &a_columns.t()).unwrap();
                assert_eq!(gemm(&lhs, a_zero, &packed, &codes).unwrap(), expected_codes, "{case}, packed columns");
                let (mut workspace, mut columns) = (Workspace::new(), Array2::zeros((n, m)));
                gemm_into(&a, a_zero, &packed, &codes, &mut columns.view_mut().reversed_axes(), &mut workspace)
                    .unwrap();
                assert_eq!(columns.t(), expected_codes, "{case}, strided outputs");
            }
        }
    }
    // Strips: several blocks of them, with remainders. In place: few columns. Copied: other depths, and strides that
    // alias. AVX512-VNNI from the panels of AMX: few rows or outputs.
    let sizes =
        [(70, 449, 161), (40, 1024, 150), (65, 640, 128), (40, 1024, 33), (33, 202, 70), (8, 130, 140), (20, 131, 9)];
    check::<u8, i8>(&sizes, 7, None);
    check::<u8, u8>(&sizes, 0, Some(3));
    check::<i8, i8>(&sizes, 131, Some(120));
    check::<i8, u8>(&sizes, 128, None);
    // An RHS larger than L2.
    check::<u8, i8>(&[(34, 1100, 1500)], 7, Some(5));
}

/// The deepest allowed product of extreme codes does not overflow; one step deeper is an error.
#[test]
fn deepest() {
    let depth = i32::MAX as usize / (255 * 128);
    for isa in Isa::available() {
        let a = Array2::from_elem((2, depth), u8::MAX);
        let b = Array2::from_elem((depth, 3), i8::MIN);
        let packed = PackedRhs::pack_for(isa, &b, &[0]).unwrap();
        let expected = Array2::from_elem((2, 3), -(255 * 128 * depth as i32));
        assert_eq!(gemm(&a, 0, &packed, &I32Epilogue::new()).unwrap(), expected);
        let deeper = PackedRhs::pack_for(isa, &Array2::from_elem((depth + 1, 3), i8::MIN), &[0]).unwrap();
        let found = gemm(&Array2::from_elem((2, depth + 1), 0u8), 0, &deeper, &I32Epilogue::new());
        assert_eq!(found, Err(ValueError::Depth { max: depth, found: depth + 1 }.into()), "{isa:?}");
    }
}

/// Repacking leaves nothing of the previous matrix.
#[test]
fn repacked() {
    for isa in Isa::available() {
        let mut packed = PackedRhs::pack_for(isa, &Array2::from_elem((70, 70), 255u8), &[255]).unwrap();
        for (k, n) in [(0, 5), (33, 41), (5, 0), (2, 3), (67, 33), (256, 100), (1030, 35)] {
            let a = Array2::from_shape_fn((7, k), |(i, j)| (i * 31 + j * 7) as u8);
            for b in [
                Array2::from_shape_fn((k, n), |(i, j)| (i * 13 + j * 11) as u8),
                Array2::from_shape_fn((n, k), |(i, j)| (i * 13 + j * 11) as u8).reversed_axes(),
            ] {
                packed.repack_for(isa, &b, &[3]).unwrap();
                let found = gemm(&a, 7, &packed, &I32Epilogue::new()).unwrap();
                assert_eq!(found, naive(&a, 7, &b, &[3]), "{isa:?}, {k} x {n}");
            }
        }
        let (cols, shallow) = (packed.ncols(), Array2::from_elem((1, 2), 0u8));
        assert!(matches!(packed.repack(&shallow, &[0; 3]), Err(Error::Shape(ShapeError::Count { .. }))));
        assert_eq!(packed.ncols(), cols);
    }
}

/// An LHS packed for another instruction set is an error.
#[test]
fn instruction_sets_of_both_operands() {
    let isas: Vec<_> = Isa::available().collect();
    // Enough rows and depth for AMX.
    let (a, b) = (Array2::from_elem((12, 130), 1i8), Array2::from_elem((130, 3), 1i8));
    for lhs in &isas {
        for rhs in &isas {
            let packed = PackedLhs::pack_for(*lhs, &a).unwrap();
            let found = gemm(&packed, 0, &PackedRhs::pack_for(*rhs, &b, &[0]).unwrap(), &I32Epilogue::new());
            match lhs == rhs {
                true => assert_eq!(found.unwrap(), Array2::from_elem((12, 3), 130)),
                false => assert_eq!(found, Err(ParamsError::Kernel { expected: rhs.name(), found: lhs.name() }.into())),
            }
        }
    }
}

/// Packing the rows of the transpose is packing the matrix.
#[test]
fn packed_from_rows() {
    let (a, weights) = (
        Array2::from_shape_fn((5, 70), |(i, j)| (i * 31 + j * 7) as u8),
        Array2::from_shape_fn((9, 70), |(i, j)| (i * 13 + j * 11) as i8),
    );
    for zeros in [vec![3], (0..9).collect()] {
        let packed = PackedRhs::from_rows(&weights, &zeros).unwrap();
        assert_eq!((packed.nrows(), packed.ncols()), (70, 9));
        assert_eq!(gemm(&a, 7, &packed, &I32Epilogue::new()).unwrap(), naive(&a, 7, &weights.t(), &zeros));
    }
    assert!(matches!(PackedRhs::from_rows(&weights, &[0; 70]), Err(Error::Shape(ShapeError::Count { .. }))));
}

/// The result has the same bits on any number of threads.
#[cfg(feature = "rayon")]
#[test]
fn threads() {
    for (m, n) in [(301, 33), (301, 500), (301, 1100), (7, 3100)] {
        let a = Array2::from_shape_fn((m, 260), |(i, j)| (i * 31 + j * 7) as u8);
        let b = Array2::from_shape_fn((260, n), |(i, j)| (i * 13 + j * 11) as i8);
        let packed = PackedRhs::pack(&b, &[3]).unwrap();
        let expected = naive(&a, 7, &b, &[3]);
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| gemm(&a, 7, &packed, &I32Epilogue::new())).unwrap(), expected);
            let packed = pool.install(|| PackedRhs::pack(&b, &[3])).unwrap();
            assert_eq!(gemm(&a, 7, &packed, &I32Epilogue::new()).unwrap(), expected);
        }
    }
}
